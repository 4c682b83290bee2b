/**
 * Novelty ν of a record in view of one earlier record: `1 − overlap`, the overlap being the larger one of what the two
 * *texts* share (shingles) and what their *feature rows* share. Texts alone are easily evaded: in a sentence of a dozen
 * words, another word in the middle or a synonym here and there leaves no shingle of five words whole. The gradient of
 * the reworded sentence still points where the original's does, while those of other records of the same subject are
 * nearly orthogonal to it after preconditioning. Rows are committed, so both parts are decided from evidence, in integers.
 */
import { utf8 } from '../bytes.ts';
import type { FeatureRow } from './features.ts';
import { rowDot } from './influence.ts';
import { COSINE_COPY, COSINE_FREE, NOVELTY_ONE, NOVELTY_TOLERANCE } from './limits.ts';
import { parseRecord, recordText } from './records.ts';
import { jaccard, shingles } from './shingles.ts';

/** What of a row counts here. */
export type RowDirection = Pick<FeatureRow, 'scale' | 'values'>;

/** Shingle overlap of two canonical lines, in units of 2^−16. Throws RecordError. */
export const recordOverlap = (a: Uint8Array, b: Uint8Array): number =>
  jaccard(shingles(utf8(recordText(parseRecord(a)))), shingles(utf8(recordText(parseRecord(b)))));

/** `⌊σ_a·σ_b·⟨r_a, r_b⟩⌋` in units of 2^−16: the cosine, since rows have unit norm; 0 if it is negative. */
export function rowCosine(a: RowDirection, b: RowDirection): number {
  const dot = rowDot(a.values, 0, b.values, a.values.length);
  return dot <= 0 ? 0 : cosineOfDot(dot, a.scale, b.scale);
}

/** The same from a dot product that is known already (positive). */
export const cosineOfDot = (dot: number, a: number, b: number): number =>
  Number((BigInt(dot) * BigInt(a) * BigInt(b)) >> 48n);

/** Cosines between which overlap rises from nothing to all, in units of 2^−16. */
export interface CosineRange {
  readonly free: number;
  readonly copy: number;
}

/**
 * The range for `rows` rows of `k` entries. What the reduction to k entries leaves out is what tells records of one subject
 * apart, so their cosines grow as k / rows falls. Measured (`test/bench/attribution`): with k = rows 99 of 100 honest
 * records stay below .3 against all earlier ones and reworded copies begin at .23; with half as many entries it is .93
 * and .83; below a third of them no line can be drawn, and only what is all but equal counts.
 */
export function cosineRange(k: number, rows: number): CosineRange {
  const part = Math.min(NOVELTY_ONE, Math.floor((k * NOVELTY_ONE) / Math.max(1, rows)));
  const square = Math.floor((part * part) / NOVELTY_ONE);
  const below = (fraction: number): number => NOVELTY_ONE - Math.floor((square * fraction) / NOVELTY_ONE);
  return { free: below(COSINE_FREE), copy: below(COSINE_COPY) };
}

/** Along a line from nothing at `free` to all at `copy`. */
export function overlapOfCosine(cosine: number, { free, copy }: CosineRange): number {
  if (cosine >= copy) return NOVELTY_ONE;
  return cosine <= free ? 0 : Math.floor(((cosine - free) * NOVELTY_ONE) / (copy - free));
}

/** `rows`: how many there are in all. */
export const rowOverlap = (a: RowDirection, b: RowDirection, rows: number): number =>
  overlapOfCosine(rowCosine(a, b), cosineRange(a.values.length, rows));

/**
 * Whether a row's novelty is right in view of one earlier row of `rows` in all. `texts`: their {@link recordOverlap}. Of the neighbour that
 * the row names, exactly so; any other one must not overlap more than that, where texts are looked at from `floor` on and
 * with a tolerance only (MinHash may miss some), and rows without (whoever has them can compare all of them).
 */
export function noveltyHolds(
  row: FeatureRow,
  earlier: FeatureRow,
  rows: number,
  texts: number,
  floor: number,
): boolean {
  const alike = rowOverlap(row, earlier, rows);
  if (row.nearest === earlier.index) return row.novelty === NOVELTY_ONE - Math.max(texts, alike);
  return (
    row.novelty <= NOVELTY_ONE - alike && (texts < floor || row.novelty <= NOVELTY_ONE - texts + NOVELTY_TOLERANCE)
  );
}
