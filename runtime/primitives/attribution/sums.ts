/**
 * Running sums: what lets the chain decide about a contributor with any number of rows in bounded work.
 *
 * A training receipt commits, beside the rows, to a list of entries ordered by (contributor, first row). An entry covers
 * at most 32 contiguous rows of one contributor and carries `Σ ν·σ·r` over *all* rows of the contributor so far. So
 *   - the last entry of a contributor holds `R_c`, and `I_c = ⟨R_c, u⟩` is one dot product and one Merkle proof;
 *   - a wrong sum anywhere implies an entry that differs from its predecessor by something else than its ≤ 32 rows
 *     (if every step is right, the last sum is right, by induction), shown with two adjacent entries and those rows;
 *   - a missing or doubled row implies two adjacent entries that overlap, are out of order, or leave the row out.
 * Each of these is one challenge without rounds of questions. The list is published as a blob, so whoever has the rows
 * finds the wrong entry by recomputing.
 */
import { compareBytes } from '../bytes.ts';
import { bool, encode, type Infer, i128, struct, u16, u32, vec } from '../scale/codec.ts';
import { type AccountId, accountId, type Hash } from '../types.ts';
import { type Blake, canonical, part } from './canonical.ts';
import type { FeatureRow, FeatureTable } from './features.ts';
import type { QueryFeature } from './influence.ts';
import { MAX_K, MAX_ROWS, SUM_CHUNK } from './limits.ts';
import { leafHash, merkleRoot } from './merkle.ts';

export const sumEntry = part(
  'SumEntry',
  struct({
    contributor: accountId,
    first: u32,
    count: u32,
    /** Whether this is the contributor's last entry: its sums are then over all of the contributor's rows. */
    last: bool,
    sums: vec(i128, MAX_K),
  }),
);
export type SumEntry = Infer<typeof sumEntry>;

export const sumFile = canonical('sum-file/1', 'SumFile', struct({ k: u16, entries: vec(sumEntry, MAX_ROWS) }));
export type SumFile = Infer<typeof sumFile>;

export const sumLeaf = (hashing: Blake, entry: SumEntry): Hash => leafHash(hashing, 'sums', encode(sumEntry, entry));

export const sumRoot = (hashing: Blake, entries: readonly SumEntry[]): Hash =>
  merkleRoot(
    hashing,
    'sums',
    entries.map((entry) => sumLeaf(hashing, entry)),
  );

/** |ν·σ·r| < 2^48 + 2^26, so 16 of them add up exactly in a double. */
const EXACT_ROWS = 16;

/** The one right list for a table. */
export const runningSums = (table: FeatureTable): SumEntry[] => [...sumsOf(table)];

/** The entries of {@link runningSums}, one at a time: for as many rows as a table may have they are far larger than it. */
export function* sumsOf(table: FeatureTable): Generator<SumEntry> {
  const { k, values, novelty, scale } = table;
  const rowsOf: number[][] = table.contributors.map(() => []);
  for (let i = 0; i < table.rows; i++) rowsOf[table.owner[i]!]!.push(i);
  for (const [at, rows] of rowsOf.entries()) {
    const total: bigint[] = new Array(k).fill(0n);
    const partial = new Float64Array(k);
    const flush = (): void => {
      for (let j = 0; j < k; j++) total[j] = total[j]! + BigInt(partial[j]!);
      partial.fill(0);
    };
    for (let start = 0; start < rows.length; ) {
      const first = rows[start]!;
      let count = 0;
      while (count < SUM_CHUNK && rows[start + count] === first + count) {
        const row = first + count;
        const weight = novelty[row]! * scale[row]!;
        for (let j = 0; j < k; j++) partial[j]! += weight * values[row * k + j]!;
        if (++count % EXACT_ROWS === 0) flush();
      }
      flush();
      start += count;
      yield {
        contributor: table.contributors[at]!,
        first,
        count,
        last: start === rows.length,
        sums: total.slice(),
      };
    }
  }
}

/** Whether `entry` is its predecessor (if that is of the same contributor) plus exactly its own rows. */
export function sumStepHolds(entry: SumEntry, before: SumEntry | undefined, rows: readonly FeatureRow[]): boolean {
  if (rows.length !== entry.count) return false;
  const total = before !== undefined && sameContributor(before, entry) ? before.sums.slice() : [];
  for (const row of rows) {
    if (compareBytes(row.contributor, entry.contributor) !== 0) return false;
    const weight = BigInt(row.novelty) * BigInt(row.scale);
    for (let j = 0; j < row.values.length; j++) total[j] = (total[j] ?? 0n) + weight * BigInt(row.values[j]!);
  }
  return total.length === entry.sums.length && total.every((value, j) => value === entry.sums[j]);
}

/** Whether two adjacent entries may follow each other (`after` undefined: `entry` is the last of the list). */
export function sumOrderHolds(entry: SumEntry, after: SumEntry | undefined): boolean {
  if (entry.count < 1 || entry.count > SUM_CHUNK) return false;
  if (after === undefined) return entry.last;
  const order = compareBytes(entry.contributor, after.contributor);
  if (order === 0) return !entry.last && after.first >= entry.first + entry.count;
  return order < 0 && entry.last;
}

/** Whether row `index` of `contributor` would stand after all of `entry`. */
export const rowAfter = (entry: SumEntry, contributor: AccountId, index: number): boolean => {
  const order = compareBytes(entry.contributor, contributor);
  return order < 0 || (order === 0 && index >= entry.first + entry.count);
};

/** Whether row `index` of `contributor` would stand before all of `entry`. */
export const rowBefore = (entry: SumEntry, contributor: AccountId, index: number): boolean => {
  const order = compareBytes(entry.contributor, contributor);
  return order > 0 || (order === 0 && index < entry.first);
};

const sameContributor = (a: SumEntry, b: SumEntry): boolean => compareBytes(a.contributor, b.contributor) === 0;

/** `I_c` from a contributor's last entry. Exact for any claimed sums. */
export function influenceOfEntry(entry: SumEntry, u: QueryFeature): bigint {
  let total = 0n;
  for (let j = 0; j < u.length; j++) total += (entry.sums[j] ?? 0n) * BigInt(u[j]!);
  return total;
}

const LIMB = 24n;
const LIMBS = 3;

/** Sums of all contributors cut into limbs of 24 bits, for fast exact dot products in doubles. */
export interface ContributorSums {
  readonly k: number;
  readonly contributors: readonly AccountId[];
  /** `limbs[(c·3 + l)·k + j]`; the highest limb carries the sign. */
  readonly limbs: Float64Array;
}

/** The last entries of a list that has been checked against the rows: sums stay below 2^69 for 2^20 rows. */
export function contributorSums(k: number, entries: readonly SumEntry[]): ContributorSums {
  const lasts = entries.filter((entry) => entry.last);
  const limbs = new Float64Array(lasts.length * LIMBS * k);
  for (const [c, { sums }] of lasts.entries()) {
    for (let j = 0; j < k; j++) {
      const value = sums[j]!;
      limbs[c * LIMBS * k + j] = Number(BigInt.asUintN(24, value));
      limbs[(c * LIMBS + 1) * k + j] = Number(BigInt.asUintN(24, value >> LIMB));
      limbs[(c * LIMBS + 2) * k + j] = Number(value >> (2n * LIMB));
    }
  }
  return { k, contributors: lasts.map((entry) => entry.contributor), limbs };
}

/** Equal to {@link influenceByRows} of the same rows. */
export function influenceBySums(sums: ContributorSums, u: QueryFeature): bigint[] {
  const { k, limbs } = sums;
  const wide = Float64Array.from(u);
  const dot = (offset: number): number => {
    let a = 0;
    let b = 0;
    let j = 0;
    // Products stay below 2^31 (the signed limb below 2^28), sums of 1,024 below 2^41: no rounding in any order.
    for (; j + 1 < k; j += 2) {
      a += limbs[offset + j]! * wide[j]!;
      b += limbs[offset + j + 1]! * wide[j + 1]!;
    }
    if (j < k) a += limbs[offset + j]! * wide[j]!;
    return a + b;
  };
  return sums.contributors.map((_, c) => {
    const at = c * LIMBS * k;
    return BigInt(dot(at)) + (BigInt(dot(at + k)) << LIMB) + (BigInt(dot(at + 2 * k)) << (2n * LIMB));
  });
}
