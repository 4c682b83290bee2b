/** Seeded pseudo-randomness that every engine can repeat (Steele, Lea & Flood 2014: SplitMix64). */

const MASK = (1n << 64n) - 1n;
const GAMMA = 0x9e3779b97f4a7c15n;

/** The `index`-th output (from 0) of SplitMix64 started at `seed`. */
export function splitMix64(seed: bigint, index: number): bigint {
  let z = (seed + GAMMA * BigInt(index + 1)) & MASK;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return z ^ (z >> 31n);
}

/** A stream of doubles in [0, 1) with 53 bits. */
export function uniforms(seed: bigint): () => number {
  let index = 0;
  return () => Number(splitMix64(seed, index++) >> 11n) / 2 ** 53;
}

/** `count` of `total` indices without repetition, ascending; all of them if there are no more. */
export function seededSample(seed: bigint, total: number, count: number): number[] {
  const indices = Array.from({ length: total }, (_, i) => i);
  if (count >= total) return indices;
  const next = uniforms(seed);
  for (let i = 0; i < count; i++) {
    const j = i + Math.floor(next() * (total - i));
    [indices[i], indices[j]] = [indices[j]!, indices[i]!];
  }
  return indices.slice(0, count).sort((a, b) => a - b);
}

/**
 * Rows of a random orthogonal k × k matrix: Gram–Schmidt (twice, for orthogonality to the last bits) over rows of
 * nearly normal numbers, each the sum of 12 uniform ones less 6 (no transcendental function, hence the same bits everywhere).
 */
export function seededRotation(seed: bigint, k: number): Float64Array {
  const next = uniforms(seed);
  const rows = new Float64Array(k * k);
  for (let i = 0; i < rows.length; i++) {
    let sum = -6;
    for (let t = 0; t < 12; t++) sum += next();
    rows[i] = sum;
  }
  orthonormaliseRows(rows, k, k);
  return rows;
}

/** Gram–Schmidt over `count` rows of `width` entries, in place. A row that depends on earlier ones becomes zero. */
export function orthonormaliseRows(rows: Float64Array, count: number, width: number): void {
  for (let i = 0; i < count; i++) orthonormaliseRow(rows, i, width);
}

/** Row `i` against those before it, which are orthonormal already. */
export function orthonormaliseRow(rows: Float64Array, i: number, width: number): void {
  const row = rows.subarray(i * width, (i + 1) * width);
  const before = Math.sqrt(dot(row, row));
  for (let pass = 0; pass < 2; pass++) {
    for (let j = 0; j < i; j++) {
      const other = rows.subarray(j * width, (j + 1) * width);
      const overlap = dot(row, other);
      if (overlap !== 0) for (let t = 0; t < width; t++) row[t]! -= overlap * other[t]!;
    }
  }
  const norm = Math.sqrt(dot(row, row));
  if (norm <= 1e-12 * before || norm === 0) row.fill(0);
  else for (let t = 0; t < width; t++) row[t]! /= norm;
}

/** Plain dot product in four lanes, in this order everywhere. */
export function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let w = 0;
  let x = 0;
  let y = 0;
  let z = 0;
  let i = 0;
  for (; i + 3 < a.length; i += 4) {
    w += a[i]! * b[i]!;
    x += a[i + 1]! * b[i + 1]!;
    y += a[i + 2]! * b[i + 2]!;
    z += a[i + 3]! * b[i + 3]!;
  }
  for (; i < a.length; i++) w += a[i]! * b[i]!;
  return w + x + (y + z);
}
