/**
 * An adapter's attribution data, opened for verifying and explaining receipts: read row by row and kept flat, where
 * {@link import('./commitment.ts').openCommitment} keeps every row and running sum as an object, for challenges.
 */
import { compareBytes, concatBytes, equalBytes } from '../bytes.ts';
import { decode } from '../scale/codec.ts';
import { ScaleError, Source } from '../scale/io.ts';
import { type AccountId, asHash, type Hash } from '../types.ts';
import type { Blake } from './canonical.ts';
import { CommitmentError } from './commitment.ts';
import { accountKey, FeatureError, type FeatureTable, featureRow, rowFault } from './features.ts';
import { MAX_CONTRIBUTORS, MAX_ROWS } from './limits.ts';
import { leafHash, merkleRoot } from './merkle.ts';
import type { FeatureCommitment } from './receipts.ts';
import { frequencyFile, frequencyRoot } from './spans.ts';
import { contributorSums, type SumEntry, sumLeaf, sumsOf } from './sums.ts';
import { type AttributionModel, attributionModel } from './verify.ts';

const HASH_BYTES = 32;
/** A row beside its values, at the most: its fields, and how long its values are. */
const ROW_BYTES = 128;

export interface OpenedAdapter {
  readonly table: FeatureTable;
  readonly model: AttributionModel;
  /** By row, one after the other: hashes of records, and the leaves of the rows' tree. */
  readonly records: Uint8Array;
  readonly rowLeaves: Uint8Array;
  /** Leaves of the running sums' tree. */
  readonly sumLeaves: Uint8Array;
  /** By contributor: which of the running sums is its last. */
  readonly lastEntries: readonly number[];
  /** About what it takes of memory. */
  readonly bytes: number;
}

/** The hashes that lie one after the other in `bytes`. */
export const hashesIn = (bytes: Uint8Array): Hash[] =>
  Array.from({ length: bytes.length / HASH_BYTES }, (_, i) =>
    asHash(bytes.subarray(i * HASH_BYTES, (i + 1) * HASH_BYTES)),
  );

/**
 * Holds the files against the receipt, as `openCommitment` does. `features` comes in pieces of any size. Throws
 * {@link CommitmentError} or {@link FeatureError}.
 */
export function openAdapter(
  hashing: Blake,
  commitment: FeatureCommitment,
  features: Iterable<Uint8Array>,
  frequencies: Uint8Array,
): OpenedAdapter {
  const { table, records, rowLeaves } = readRows(hashing, commitment, features);
  if (!equalBytes(merkleRoot(hashing, 'features', hashesIn(rowLeaves)), commitment.featureRoot)) {
    throw new CommitmentError('WRONG_FEATURE_ROOT', 'the rows do not have the committed root');
  }
  const sumLeaves = new Uint8Array(commitment.sumEntries * HASH_BYTES);
  const lasts: SumEntry[] = [];
  const lastEntries: number[] = [];
  let entries = 0;
  for (const entry of sumsOf(table)) {
    if (entries < commitment.sumEntries) sumLeaves.set(sumLeaf(hashing, entry), entries * HASH_BYTES);
    if (entry.last) {
      lasts.push(entry);
      lastEntries.push(entries);
    }
    entries++;
  }
  const root = merkleRoot(hashing, 'sums', hashesIn(sumLeaves));
  if (entries !== commitment.sumEntries || !equalBytes(root, commitment.sumRoot)) {
    throw new CommitmentError('WRONG_SUM_ROOT', 'the rows do not add up to the committed running sums');
  }
  checkFrequencies(hashing, commitment, frequencies);
  const model = attributionModel(table, contributorSums(table.k, lasts));
  const bytes =
    table.values.length +
    records.length +
    rowLeaves.length +
    sumLeaves.length +
    24 * table.k * lasts.length +
    12 * table.rows;
  return { table, model, records, rowLeaves, sumLeaves, lastEntries, bytes };
}

function readRows(hashing: Blake, commitment: FeatureCommitment, features: Iterable<Uint8Array>) {
  const input = new Pieces(features);
  const head = input.source(8);
  const k = malformed(() => head.u16());
  const rows = malformed(() => head.compact(MAX_ROWS));
  if (k !== commitment.k || rows !== commitment.rows) {
    throw new CommitmentError('WRONG_COUNT', `${rows} rows of ${k} where ${commitment.rows} of ${commitment.k} belong`);
  }
  input.skip(head.offset);
  const owner = new Uint32Array(rows);
  const novelty = new Uint32Array(rows);
  const scale = new Uint32Array(rows);
  const values = new Int8Array(rows * k);
  const records = new Uint8Array(rows * HASH_BYTES);
  const rowLeaves = new Uint8Array(rows * HASH_BYTES);
  const positions = new Map<string, number>();
  const accounts: AccountId[] = [];
  for (let at = 0; at < rows; at++) {
    const source = input.source(k + ROW_BYTES);
    const row = malformed(() => featureRow.decodeFrom(source));
    const fault = rowFault(row, at, k);
    if (fault !== undefined) throw new FeatureError(fault, `row ${at}`);
    rowLeaves.set(leafHash(hashing, 'features', input.skip(source.offset)), at * HASH_BYTES);
    records.set(row.record, at * HASH_BYTES);
    const key = accountKey(row.contributor);
    let position = positions.get(key);
    if (position === undefined) {
      position = accounts.length;
      if (position === MAX_CONTRIBUTORS) {
        throw new CommitmentError('TOO_MANY_CONTRIBUTORS', `more than ${MAX_CONTRIBUTORS} contributors`);
      }
      positions.set(key, position);
      accounts.push(row.contributor.slice() as AccountId);
    }
    owner[at] = position;
    novelty[at] = row.novelty;
    scale[at] = row.scale;
    values.set(row.values, at * k);
  }
  if (!input.isAtEnd()) throw new CommitmentError('MALFORMED_FILE', 'rows: bytes too many');
  // Contributors stand in the order of their accounts.
  const order = accounts.map((_, i) => i).sort((a, b) => compareBytes(accounts[a]!, accounts[b]!));
  const rank = new Uint32Array(accounts.length);
  for (const [place, i] of order.entries()) rank[i] = place;
  for (let at = 0; at < rows; at++) owner[at] = rank[owner[at]!]!;
  const contributors = order.map((i) => accounts[i]!);
  return { table: { k, rows, contributors, owner, novelty, scale, values }, records, rowLeaves };
}

function checkFrequencies(hashing: Blake, commitment: FeatureCommitment, file: Uint8Array): void {
  const counts = malformed(() => decode(frequencyFile, file));
  if (counts.records !== commitment.rows || counts.frequencies.length !== commitment.vocabulary) {
    throw new CommitmentError('WRONG_COUNT', 'the frequencies are of other records or another vocabulary');
  }
  if (!equalBytes(frequencyRoot(hashing, counts.frequencies), commitment.frequencyRoot)) {
    throw new CommitmentError('WRONG_FREQUENCY_ROOT', 'the frequencies do not have the committed root');
  }
}

function malformed<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof ScaleError) throw new CommitmentError('MALFORMED_FILE', error.message);
    throw error;
  }
}

/** A file that comes in pieces: no more than two of them are held. */
class Pieces {
  readonly #pieces: Iterator<Uint8Array>;
  #held: Uint8Array = new Uint8Array();

  constructor(pieces: Iterable<Uint8Array>) {
    this.#pieces = pieces[Symbol.iterator]();
  }

  /** To read from what comes next: at least `bytes`, where the file has so many. */
  source(bytes: number): Source {
    while (this.#held.length < bytes) {
      const next = this.#pieces.next();
      if (next.done === true) break;
      this.#held = concatBytes(this.#held, next.value);
    }
    return new Source(this.#held);
  }

  /** What is passed over. */
  skip(bytes: number): Uint8Array {
    const passed = this.#held.subarray(0, bytes);
    this.#held = this.#held.subarray(bytes);
    return passed;
  }

  isAtEnd(): boolean {
    return this.source(1).remaining === 0;
  }
}
