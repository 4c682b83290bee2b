/**
 * Eigen-decomposition of real symmetric matrices: Householder reduction to tridiagonal form, then implicit QL with
 * Wilkinson's shift (Golub & Van Loan, 8.3). Only +, −, ·, /, √ in a fixed order, so that every machine gets the same
 * bits; no `Math.hypot`, whose last bits are the engine's choice.
 */

export interface Eigen {
  /** Ascending. */
  readonly values: Float64Array;
  /** Row j is the unit eigenvector of `values[j]`; its entry of largest size (the first such) is positive. */
  readonly vectors: Float64Array;
}

export class EigenError extends Error {
  readonly code = 'NO_CONVERGENCE';
}

const MAX_SWEEPS = 64;
/**
 * From this sweep on, an entry beside the diagonal may also vanish against the whole matrix: in the null space of a matrix
 * of low rank all entries are rounding, and none ever becomes small against its neighbours.
 */
const PATIENCE = 32;

/** `matrix`: row-major n × n, symmetric; its upper triangle is not read. */
export function symmetricEigen(matrix: ArrayLike<number>, n: number): Eigen {
  const a = new Float64Array(n * n);
  // Entries are brought to at most 1, since the squares of very small ones would vanish.
  let scale = 0;
  for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) scale = Math.max(scale, Math.abs(matrix[i * n + j]!));
  if (scale === 0) scale = 1;
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      const value = matrix[i * n + j]! / scale;
      a[i * n + j] = value;
      a[j * n + i] = value;
    }
  }
  const { diagonal, offDiagonal, reflectors, betas } = tridiagonalise(a, n);
  const vectors = identity(n);
  implicitQl(diagonal, offDiagonal, vectors, n);
  applyReflectors(vectors, reflectors, betas, n);
  for (let i = 0; i < n; i++) diagonal[i]! *= scale;
  return sorted(diagonal, vectors, n);
}

function identity(n: number): Float64Array {
  const out = new Float64Array(n * n);
  for (let i = 0; i < n; i++) out[i * n + i] = 1;
  return out;
}

/** `A = Q T Qᵀ`, Q the product of reflectors `I − β v vᵀ` (row s of `reflectors` acts on the entries after s). */
function tridiagonalise(a: Float64Array, n: number) {
  const diagonal = new Float64Array(n);
  const offDiagonal = new Float64Array(n);
  const reflectors = new Float64Array(n * n);
  const betas = new Float64Array(n);
  const p = new Float64Array(n);
  for (let s = 0; s + 1 < n; s++) {
    const v = reflectors.subarray(s * n, (s + 1) * n);
    let scale = 0;
    for (let i = s + 1; i < n; i++) scale = Math.max(scale, Math.abs(a[i * n + s]!));
    if (scale === 0) continue;
    let norm = 0;
    for (let i = s + 1; i < n; i++) {
      v[i] = a[i * n + s]! / scale;
      norm += v[i]! * v[i]!;
    }
    norm = Math.sqrt(norm);
    const head = v[s + 1]!;
    const alpha = head > 0 ? -norm : norm;
    v[s + 1] = head - alpha;
    const beta = 1 / (norm * (norm + Math.abs(head)));
    betas[s] = beta;
    offDiagonal[s] = alpha * scale;
    // A ← A − v wᵀ − w vᵀ with w = β A v − (β² vᵀA v / 2) v, on the trailing block.
    let vp = 0;
    for (let i = s + 1; i < n; i++) {
      const row = i * n;
      let sum = 0;
      for (let j = s + 1; j < n; j++) sum += a[row + j]! * v[j]!;
      p[i] = beta * sum;
      vp += v[i]! * p[i]!;
    }
    const half = (beta * vp) / 2;
    for (let i = s + 1; i < n; i++) p[i]! -= half * v[i]!;
    for (let i = s + 1; i < n; i++) {
      const row = i * n;
      const vi = v[i]!;
      const wi = p[i]!;
      for (let j = s + 1; j < n; j++) a[row + j]! -= vi * p[j]! + wi * v[j]!;
    }
  }
  for (let i = 0; i < n; i++) diagonal[i] = a[i * n + i]!;
  return { diagonal, offDiagonal, reflectors, betas };
}

/** Rotates T to diagonal form; the rows of `z` become its eigenvectors. */
function implicitQl(d: Float64Array, e: Float64Array, z: Float64Array, n: number): void {
  let norm = 0;
  for (let i = 0; i < n; i++) norm = Math.max(norm, Math.abs(d[i]!) + Math.abs(e[i]!));
  for (let l = 0; l < n; l++) {
    for (let sweep = 0; ; sweep++) {
      const floor = sweep < PATIENCE ? 0 : norm;
      let m = l;
      for (; m + 1 < n; m++) {
        const size = Math.max(floor, Math.abs(d[m]!) + Math.abs(d[m + 1]!));
        if (Math.abs(e[m]!) <= Number.EPSILON * size) break;
      }
      if (m === l) break;
      if (sweep === MAX_SWEEPS) throw new EigenError(`no convergence after ${MAX_SWEEPS} sweeps`);
      let g = (d[l + 1]! - d[l]!) / (2 * e[l]!);
      let r = Math.sqrt(g * g + 1);
      g = d[m]! - d[l]! + e[l]! / (g + (g < 0 ? -r : r));
      let s = 1;
      let c = 1;
      let p = 0;
      let i = m - 1;
      for (; i >= l; i--) {
        const f = s * e[i]!;
        const b = c * e[i]!;
        r = Math.sqrt(f * f + g * g);
        e[i + 1] = r;
        if (r === 0) {
          d[i + 1]! -= p;
          e[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1]! - p;
        r = (d[i]! - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
        const low = i * n;
        const high = low + n;
        for (let j = 0; j < n; j++) {
          const h = z[high + j]!;
          const lower = z[low + j]!;
          z[high + j] = s * lower + c * h;
          z[low + j] = c * lower - s * h;
        }
      }
      if (r === 0 && i >= l) continue;
      d[l]! -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
}

/** Eigenvectors of T to those of A: each row x becomes Q x, reflectors applied last to first. */
function applyReflectors(z: Float64Array, reflectors: Float64Array, betas: Float64Array, n: number): void {
  for (let row = 0; row < n; row++) {
    const x = z.subarray(row * n, (row + 1) * n);
    for (let s = n - 2; s >= 0; s--) {
      const beta = betas[s]!;
      if (beta === 0) continue;
      const v = s * n;
      let dot = 0;
      for (let i = s + 1; i < n; i++) dot += reflectors[v + i]! * x[i]!;
      const factor = beta * dot;
      for (let i = s + 1; i < n; i++) x[i]! -= factor * reflectors[v + i]!;
    }
  }
}

function sorted(d: Float64Array, z: Float64Array, n: number): Eigen {
  const order = Array.from({ length: n }, (_, i) => i).sort((a, b) => d[a]! - d[b]! || a - b);
  const values = new Float64Array(n);
  const vectors = new Float64Array(n * n);
  for (const [to, from] of order.entries()) {
    values[to] = d[from]!;
    const row = z.subarray(from * n, (from + 1) * n);
    let largest = 0;
    for (let j = 1; j < n; j++) if (Math.abs(row[j]!) > Math.abs(row[largest]!)) largest = j;
    const sign = row[largest]! < 0 ? -1 : 1;
    for (let j = 0; j < n; j++) vectors[to * n + j] = sign * row[j]!;
  }
  return { values, vectors };
}
