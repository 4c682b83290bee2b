/**
 * Influence by contributor: `I_c = Σ_{i∈c} ν_i·σ_i·⟨r_i, u⟩`, exact in integers (docs/method.md, steps 6 and 7).
 * Units: 2^−48 of the (unit-free) score. Two ways to the same number: over all rows, or — because everything up to here
 * is linear in u — by one dot product of u with the contributor's running sum `R_c = Σ ν_i·σ_i·r_i`.
 */
import type { FeatureTable } from './features.ts';

/** A query's feature as int8; its scale cancels in the shares. */
export type QueryFeature = Int8Array;

/** `⟨row, u⟩` as i32: |value| ≤ 1,024·127² < 2^24. */
export function rowDot(values: Int8Array, offset: number, u: ArrayLike<number>, k: number): number {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  let j = 0;
  for (; j + 3 < k; j += 4) {
    a = (a + Math.imul(values[offset + j]!, u[j]!)) | 0;
    b = (b + Math.imul(values[offset + j + 1]!, u[j + 1]!)) | 0;
    c = (c + Math.imul(values[offset + j + 2]!, u[j + 2]!)) | 0;
    d = (d + Math.imul(values[offset + j + 3]!, u[j + 3]!)) | 0;
  }
  for (; j < k; j++) a = (a + Math.imul(values[offset + j]!, u[j]!)) | 0;
  return (a + b + c + d) | 0;
}

/** All dot products of a table with one query. The plain version: faster kernels must give the same. */
export function rowDots(table: FeatureTable, u: QueryFeature, into = new Int32Array(table.rows)): Int32Array {
  const wide = Int32Array.from(u);
  const { k, rows, values } = table;
  for (let i = 0; i < rows; i++) into[i] = rowDot(values, i * k, wide, k);
  return into;
}

/** ν·σ < 2^42 is cut in two, so that half·dot (2^21 · 2^24) adds up exactly in a double. */
const HALF = 2 ** 21;
const EXACT_TERMS = 128;

/** Influence of each contributor (in the table's order) from the rows' dot products. */
export function influenceFromDots(table: FeatureTable, dots: Int32Array, offset = 0): bigint[] {
  const { contributors, owner, novelty, scale, rows } = table;
  const high = new Float64Array(contributors.length);
  const low = new Float64Array(contributors.length);
  const terms = new Uint16Array(contributors.length);
  const total: bigint[] = new Array(contributors.length).fill(0n);
  const flush = (c: number): void => {
    total[c] = total[c]! + BigInt(high[c]!) * BigInt(HALF) + BigInt(low[c]!);
    high[c] = 0;
    low[c] = 0;
    terms[c] = 0;
  };
  for (let i = 0; i < rows; i++) {
    const c = owner[i]!;
    const weight = novelty[i]! * scale[i]!;
    const upper = Math.floor(weight / HALF);
    const dot = dots[offset + i]!;
    high[c]! += upper * dot;
    low[c]! += (weight - upper * HALF) * dot;
    if (++terms[c]! === EXACT_TERMS) flush(c);
  }
  for (let c = 0; c < contributors.length; c++) flush(c);
  return total;
}

export const influenceByRows = (table: FeatureTable, u: QueryFeature): bigint[] =>
  influenceFromDots(table, rowDots(table, u));

/** Score of one row: `ν·σ·⟨r, u⟩`. */
export const rowScore = (table: FeatureTable, row: number, dot: number): bigint =>
  BigInt(table.novelty[row]! * table.scale[row]!) * BigInt(dot);

/** The rows with the highest scores, best first; equal scores in order of their indices. */
export function topRows(table: FeatureTable, u: QueryFeature, count: number): { row: number; score: bigint }[] {
  const dots = rowDots(table, u);
  const scored = Array.from({ length: table.rows }, (_, row) => ({ row, score: rowScore(table, row, dots[row]!) }));
  scored.sort((a, b) => (a.score === b.score ? a.row - b.row : a.score < b.score ? 1 : -1));
  return scored.slice(0, count);
}
