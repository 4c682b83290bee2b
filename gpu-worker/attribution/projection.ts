/**
 * Reduction of sketches to k entries: `z = Hᵀ V_kᵀ s` (docs/method.md, step 4). V_k holds the top right singular
 * vectors of the normalised sketches of the training rows (of a seeded sample, when there are many), from the
 * eigen-decomposition of their Gram matrix; H is a seeded random rotation that spreads the entries for quantisation.
 */
import { symmetricEigen } from './eigen.ts';
import { dot, orthonormaliseRow, seededRotation } from './seeded.ts';

export interface Projection {
  readonly k: number;
  readonly width: number;
  /** k × width; rows are orthonormal, or zero from the rank of the data on. In float32, as stored. */
  readonly vectors: Float32Array;
  /** Part of the sample's energy along each vector, descending. */
  readonly energy: Float32Array;
}

/** Squares of singular values below this part of the largest are rounding, not data. */
const RANK_TOLERANCE = 1e-10;

/**
 * `sketches`: rows of `width`, scaled to unit norm here, in place; zero rows stay zero. `pause` is awaited between rows, so
 * that the process can do other things meanwhile: the work grows with the square of the rows.
 */
export async function principalDirections(
  sketches: readonly Float64Array[],
  width: number,
  k: number,
  pause: () => Promise<void>,
): Promise<Projection> {
  const n = sketches.length;
  for (const row of sketches) {
    const norm = Math.sqrt(dot(row, row));
    if (norm > 0) for (let t = 0; t < width; t++) row[t]! /= norm;
  }
  const { values, vectors: u } = symmetricEigen(await gram(sketches, n, pause), n);
  const largest = values[n - 1] ?? 0;
  const total = values.reduce((sum, value) => sum + Math.max(0, value), 0);
  const basis = new Float64Array(k * width);
  const energy = new Float32Array(k);
  for (let c = 0; c < Math.min(k, n); c++) {
    const from = n - 1 - c;
    const value = values[from]!;
    if (!(value > RANK_TOLERANCE * largest)) break;
    energy[c] = value / total;
    const row = basis.subarray(c * width, (c + 1) * width);
    for (let i = 0; i < n; i++) {
      const weight = u[from * n + i]!;
      const sketch = sketches[i]!;
      for (let t = 0; t < width; t++) row[t]! += weight * sketch[t]!;
    }
    await pause();
  }
  for (let c = 0; c < k; c++) {
    orthonormaliseRow(basis, c, width);
    await pause();
  }
  return { k, width, vectors: Float32Array.from(basis), energy };
}

/** `S Sᵀ`, lower triangle, four rows at a time so that each is read from memory less often. */
async function gram(rows: readonly Float64Array[], n: number, pause: () => Promise<void>): Promise<Float64Array> {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i += 4) {
    const a = rows[i]!;
    const b = rows[Math.min(i + 1, n - 1)]!;
    const c = rows[Math.min(i + 2, n - 1)]!;
    const d = rows[Math.min(i + 3, n - 1)]!;
    for (let j = 0; j <= Math.min(i + 3, n - 1); j++) {
      const other = rows[j]!;
      let w = 0;
      let x = 0;
      let y = 0;
      let z = 0;
      for (let t = 0; t < other.length; t++) {
        const value = other[t]!;
        w += a[t]! * value;
        x += b[t]! * value;
        y += c[t]! * value;
        z += d[t]! * value;
      }
      out[i * n + j] = w;
      if (i + 1 < n) out[(i + 1) * n + j] = x;
      if (i + 2 < n) out[(i + 2) * n + j] = y;
      if (i + 3 < n) out[(i + 3) * n + j] = z;
    }
    await pause();
  }
  return out;
}

/** `Hᵀ`, the rotation of a seed, on what a projection gives. */
export function rotator(k: number, rotationSeed: bigint): (along: ArrayLike<number>) => Float64Array {
  const h = seededRotation(rotationSeed, k);
  return (along) => {
    const turned = new Float64Array(k);
    for (let c = 0; c < k; c++) {
      const length = along[c]!;
      if (length === 0) continue;
      // Column j of H against coordinate c: z_j = Σ_c H[c][j]·(V s)_c.
      for (let j = 0; j < k; j++) turned[j]! += h[c * k + j]! * length;
    }
    return turned;
  };
}

/** Largest deviation of V Vᵀ from the unit matrix (zero rows allowed): part of an audit. */
export function orthonormalityError({ k, width, vectors }: Projection): number {
  let worst = 0;
  const rows = Array.from({ length: k }, (_, c) => Float64Array.from(vectors.subarray(c * width, (c + 1) * width)));
  for (let i = 0; i < k; i++) {
    for (let j = 0; j <= i; j++) {
      const overlap = dot(rows[i]!, rows[j]!);
      const wanted = i === j && overlap !== 0 ? 1 : 0;
      worst = Math.max(worst, Math.abs(overlap - wanted));
    }
  }
  return worst;
}
