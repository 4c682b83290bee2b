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

/** From nothing at {@link COSINE_FREE} to all at {@link COSINE_COPY}, along a line. */
export function overlapOfCosine(cosine: number): number {
  if (cosine <= COSINE_FREE) return 0;
  if (cosine >= COSINE_COPY) return NOVELTY_ONE;
  return Math.floor(((cosine - COSINE_FREE) * NOVELTY_ONE) / (COSINE_COPY - COSINE_FREE));
}

export const rowOverlap = (a: RowDirection, b: RowDirection): number => overlapOfCosine(rowCosine(a, b));

/**
 * Whether a row's novelty is right in view of one earlier row. `texts`: their {@link recordOverlap}. Of the neighbour that
 * the row names, exactly so; any other one must not overlap more than that, where texts are looked at from `floor` on and
 * with a tolerance only (MinHash may miss some), and rows without (whoever has them can compare all of them).
 */
export function noveltyHolds(row: FeatureRow, earlier: FeatureRow, texts: number, floor: number): boolean {
  const rows = rowOverlap(row, earlier);
  if (row.nearest === earlier.index) return row.novelty === NOVELTY_ONE - Math.max(texts, rows);
  return row.novelty <= NOVELTY_ONE - rows && (texts < floor || row.novelty <= NOVELTY_ONE - texts + NOVELTY_TOLERANCE);
}
