/**
 * Feature rows: what is left of a training record's preconditioned gradient after sketching, reduction to k entries and
 * quantisation (docs/method.md, steps 3–5). Influence is the integer dot product of a row with the query's feature.
 */
import { compareBytes } from '../bytes.ts';
import { encode, type Infer, mapped, struct, u16, u32, vec } from '../scale/codec.ts';
import { ScaleError } from '../scale/io.ts';
import { type AccountId, accountId, type Hash, hash } from '../types.ts';
import { type Blake, canonical, int8s, part } from './canonical.ts';
import { MAX_K, MAX_ROWS, MAX_SCALE, NOVELTY_ONE, SCALE_ONE } from './limits.ts';
import { leafHash, merkleRoot } from './merkle.ts';

/** ν in units of 2^−16, at most 1. */
export const novelty = mapped(
  u32,
  (raw) => {
    if (raw > NOVELTY_ONE) throw new ScaleError('OUT_OF_RANGE', `novelty ${raw} is more than 1`);
    return raw;
  },
  (value: number) => {
    if (value > NOVELTY_ONE) throw new ScaleError('OUT_OF_RANGE', `novelty ${value} is more than 1`);
    return value;
  },
);

export const featureRow = part(
  'FeatureRow',
  struct({
    /** Index of the record in the snapshot; rows stand in this order, without gaps. */
    index: u32,
    /** Hash of the record's line. */
    record: hash,
    /** Hash of the record's tokens ({@link tokenSequence}), which span disputes reveal. */
    tokens: hash,
    contributor: accountId,
    novelty,
    /** The earlier record with the highest shingle overlap, or the row's own index if novelty is 1. */
    nearest: u32,
    /** σ in units of 2^−32. */
    scale: u32,
    values: int8s(MAX_K),
  }),
);
export type FeatureRow = Infer<typeof featureRow>;

/** The blob that a training run publishes: everything needed to recompute influence. */
export const featureFile = canonical(
  'feature-file/1',
  'FeatureFile',
  struct({ k: u16, rows: vec(featureRow, MAX_ROWS) }),
);
export type FeatureFile = Infer<typeof featureFile>;

export const rowLeaf = (hashing: Blake, row: FeatureRow): Hash =>
  leafHash(hashing, 'features', encode(featureRow, row));

export const featureRoot = (hashing: Blake, rows: readonly FeatureRow[]): Hash =>
  merkleRoot(
    hashing,
    'features',
    rows.map((row) => rowLeaf(hashing, row)),
  );

/** Rows have unit norm within this many parts of 2^16 of the squared norm (2 %), or are zero altogether. */
const NORM_TOLERANCE = 1311n;

export type RowFault = 'WRONG_WIDTH' | 'WRONG_INDEX' | 'SCALE_TOO_LARGE' | 'NOT_UNIT_NORM' | 'NEAREST_NOT_EARLIER';

/** What is wrong with a row by itself (`undefined`: nothing). */
export function rowFault(row: FeatureRow, index: number, k: number): RowFault | undefined {
  if (row.values.length !== k) return 'WRONG_WIDTH';
  if (row.index !== index) return 'WRONG_INDEX';
  if (row.scale > MAX_SCALE) return 'SCALE_TOO_LARGE';
  if (row.nearest > index || (row.nearest === index) !== (row.novelty === NOVELTY_ONE)) return 'NEAREST_NOT_EARLIER';
  let squares = 0;
  for (let j = 0; j < k; j++) squares += row.values[j]! ** 2;
  if (squares === 0 && row.scale === 0) return undefined;
  // σ²·Σr² in units of 2^−64, against 1.
  const norm = BigInt(row.scale) ** 2n * BigInt(squares);
  const one = BigInt(SCALE_ONE) ** 2n;
  const off = norm > one ? norm - one : one - norm;
  return off * BigInt(NOVELTY_ONE) > one * NORM_TOLERANCE ? 'NOT_UNIT_NORM' : undefined;
}

/** Rows of one adapter laid out for arithmetic: row i is `values[i·k … (i+1)·k − 1]`. */
export interface FeatureTable {
  readonly k: number;
  readonly rows: number;
  /** In ascending order of account ids. */
  readonly contributors: readonly AccountId[];
  /** Position in `contributors`, a row. */
  readonly owner: Uint32Array;
  readonly novelty: Uint32Array;
  readonly scale: Uint32Array;
  readonly values: Int8Array;
}

export class FeatureError extends Error {
  readonly code: RowFault;
  constructor(code: RowFault, message: string) {
    super(message);
    this.code = code;
  }
}

/** Checks every row and lays them out. Throws {@link FeatureError}. */
export function featureTable(k: number, rows: readonly FeatureRow[]): FeatureTable {
  const contributors = distinctAccounts(rows);
  const position = new Map(contributors.map((account, at) => [accountKey(account), at]));
  const table = {
    k,
    rows: rows.length,
    contributors,
    owner: new Uint32Array(rows.length),
    novelty: new Uint32Array(rows.length),
    scale: new Uint32Array(rows.length),
    values: new Int8Array(rows.length * k),
  };
  for (const [at, row] of rows.entries()) {
    const fault = rowFault(row, at, k);
    if (fault !== undefined) throw new FeatureError(fault, `row ${at}`);
    table.owner[at] = position.get(accountKey(row.contributor))!;
    table.novelty[at] = row.novelty;
    table.scale[at] = row.scale;
    table.values.set(row.values, at * k);
  }
  return table;
}

/** Accounts as map keys. */
export const accountKey = (account: Uint8Array): string => {
  let key = '';
  for (let i = 0; i < account.length; i++) key += String.fromCharCode(account[i]!);
  return key;
};

function distinctAccounts(rows: readonly FeatureRow[]): AccountId[] {
  const seen = new Map<string, AccountId>();
  for (const row of rows) {
    const key = accountKey(row.contributor);
    if (!seen.has(key)) seen.set(key, row.contributor);
  }
  return [...seen.values()].sort(compareBytes);
}
