/**
 * EK-FAC in LoRA space (George et al. 2018; Grosse et al. 2023): the gradient of each LoRA matrix is turned into the
 * eigenbases of its two Kronecker factors, where the curvature is nearly diagonal, and divided by the root of its mean
 * square there. The rank side has its full eigenbasis, the hidden side one a block of 32 or 64.
 */
import { symmetricEigen } from './eigen.ts';
import { blockEntries, blocksOf, type GradientLayout } from './layout.ts';

/** Sums over tokens of the outer products of a LoRA matrix's two sides; a common factor does not matter. */
export interface MatrixCovariance {
  /** rank × rank. */
  readonly rank: ArrayLike<number>;
  /** The diagonal blocks of hidden × hidden, one after the other ({@link blocksOf}). */
  readonly hidden: ArrayLike<number>;
}

/** Everything of the preconditioner, in float32: as stored is as used, so that another worker gets the same bits. */
export interface Eigenbases {
  /** Q_S a matrix: row j is an eigenvector (rank × rank). */
  readonly rank: readonly Float32Array[];
  /** Q_A a matrix: blocks as in {@link MatrixCovariance}, rows are eigenvectors. */
  readonly hidden: readonly Float32Array[];
  /** Λ: mean square of the turned gradients, in the gradient's layout. */
  readonly lambda: Float32Array;
  /** Damping as a part of each matrix's mean of Λ. */
  readonly damping: number;
}

export class PreconditionError extends Error {
  readonly code: 'WRONG_SIZE' | 'NOT_FINITE' | 'NO_ROWS';
  constructor(code: PreconditionError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/** The turn into the eigenbases, without division. */
export interface Rotation {
  readonly layout: GradientLayout;
  /** `Q_Sᵀ G Q_A` of every matrix. `into` may not be `gradient`. */
  turn(gradient: Float32Array, into: Float64Array): void;
}

/** Eigenbases of each matrix's covariances. */
export function eigenbasesOf(
  layout: GradientLayout,
  covariances: readonly MatrixCovariance[],
): { readonly rank: Float32Array[]; readonly hidden: Float32Array[] } {
  if (covariances.length !== layout.matrices.length) {
    throw new PreconditionError('WRONG_SIZE', `${covariances.length} covariances, ${layout.matrices.length} matrices`);
  }
  const rank: Float32Array[] = [];
  const hidden: Float32Array[] = [];
  for (const [m, matrix] of layout.matrices.entries()) {
    const covariance = covariances[m]!;
    expectFinite(covariance.rank, matrix.rank ** 2, matrix.name);
    expectFinite(covariance.hidden, blockEntries(matrix.hidden, layout.block), matrix.name);
    rank.push(Float32Array.from(symmetricEigen(covariance.rank, matrix.rank).vectors));
    const blocks = new Float32Array(covariance.hidden.length);
    let at = 0;
    for (const { width } of blocksOf(matrix.hidden, layout.block)) {
      const block = Array.from({ length: width * width }, (_, i) => covariance.hidden[at + i]!);
      blocks.set(symmetricEigen(block, width).vectors, at);
      at += width * width;
    }
    hidden.push(blocks);
  }
  return { rank, hidden };
}

type Bases = Pick<Eigenbases, 'rank' | 'hidden'>;

/** Throws a PreconditionError where the bases are not a layout's. */
export function checkBases(layout: GradientLayout, bases: Bases): void {
  for (const [m, matrix] of layout.matrices.entries()) {
    expectFinite(bases.rank[m] ?? [], matrix.rank ** 2, matrix.name);
    expectFinite(bases.hidden[m] ?? [], blockEntries(matrix.hidden, layout.block), matrix.name);
  }
}

export function rotation(layout: GradientLayout, bases: Bases): Rotation {
  checkBases(layout, bases);
  const widest = layout.matrices.reduce((most, { rank, hidden }) => Math.max(most, rank * hidden), 0);
  const half = new Float64Array(widest);
  return {
    layout,
    turn(gradient, into) {
      if (gradient.length !== layout.size) {
        throw new PreconditionError('WRONG_SIZE', `${gradient.length} entries where ${layout.size} belong`);
      }
      for (const [m, { rank, hidden, offset }] of layout.matrices.entries()) {
        turnRank(gradient, offset, bases.rank[m]!, half, rank, hidden);
        turnHidden(half, bases.hidden[m]!, into, offset, rank, hidden, layout.block);
      }
    },
  };
}

/** `half[s] = Σ_t Q[s][t]·G[t]`. */
function turnRank(
  gradient: Float32Array,
  offset: number,
  basis: Float32Array,
  half: Float64Array,
  rank: number,
  hidden: number,
): void {
  for (let s = 0; s < rank; s++) {
    const to = s * hidden;
    for (let j = 0; j < hidden; j++) half[to + j] = 0;
    for (let t = 0; t < rank; t++) {
      const factor = basis[s * rank + t]!;
      const from = offset + t * hidden;
      for (let j = 0; j < hidden; j++) half[to + j]! += factor * gradient[from + j]!;
    }
  }
}

/** `into[s][c] = Σ_j half[s][j]·Q[c][j]` within each block. */
function turnHidden(
  half: Float64Array,
  basis: Float32Array,
  into: Float64Array,
  offset: number,
  rank: number,
  hidden: number,
  block: number,
): void {
  let at = 0;
  for (let start = 0; start < hidden; start += block) {
    const width = Math.min(block, hidden - start);
    for (let s = 0; s < rank; s++) {
      const from = s * hidden + start;
      const to = offset + from;
      for (let c = 0; c < width; c++) {
        const vector = at + c * width;
        let sum = 0;
        for (let j = 0; j < width; j++) sum += half[from + j]! * basis[vector + j]!;
        into[to + c] = sum;
      }
    }
    at += width * width;
  }
}

/** Λ from turned gradients, one call a record. */
export class SecondMoment {
  readonly #sums: Float64Array;
  #count = 0;

  constructor(size: number) {
    this.#sums = new Float64Array(size);
  }

  add(turned: Float64Array): void {
    const sums = this.#sums;
    for (let i = 0; i < sums.length; i++) sums[i]! += turned[i]! * turned[i]!;
    this.#count++;
  }

  mean(): Float32Array {
    if (this.#count === 0) throw new PreconditionError('NO_ROWS', 'no gradients to take the mean of');
    return Float32Array.from(this.#sums, (sum) => sum / this.#count);
  }
}

/** `1 / √(Λ + damping·mean(Λ))` for each entry, the mean taken over its matrix. An all-zero matrix gets zeros. */
export function divisors(layout: GradientLayout, lambda: Float32Array, damping: number): Float64Array {
  const out = new Float64Array(layout.size);
  for (const { rank, hidden, offset } of layout.matrices) {
    const end = offset + rank * hidden;
    let sum = 0;
    for (let i = offset; i < end; i++) sum += lambda[i]!;
    const floor = (damping * sum) / (rank * hidden);
    if (floor === 0) continue;
    for (let i = offset; i < end; i++) out[i] = 1 / Math.sqrt(lambda[i]! + floor);
  }
  return out;
}

function expectFinite(values: ArrayLike<number>, length: number, name: string): void {
  if (values.length !== length) {
    throw new PreconditionError('WRONG_SIZE', `${name}: ${values.length} entries where ${length} belong`);
  }
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i]!)) throw new PreconditionError('NOT_FINITE', `${name}: entry ${i} is not finite`);
  }
}

/**
 * Covariances from per-record gradients alone (`Σ G Gᵀ`, `Σ Gᵀ G`), for engines that do not give token statistics: the
 * Kronecker factors of Shampoo (Gupta et al. 2018), whose eigenbases serve as well.
 */
export class GradientCovariances {
  readonly #layout: GradientLayout;
  readonly #rank: Float64Array[];
  readonly #hidden: Float64Array[];

  constructor(layout: GradientLayout) {
    this.#layout = layout;
    this.#rank = layout.matrices.map(({ rank }) => new Float64Array(rank * rank));
    this.#hidden = layout.matrices.map(({ hidden }) => new Float64Array(blockEntries(hidden, layout.block)));
  }

  add(gradient: Float32Array): void {
    for (const [m, { rank, hidden, offset }] of this.#layout.matrices.entries()) {
      const rankSum = this.#rank[m]!;
      for (let s = 0; s < rank; s++) {
        for (let t = 0; t <= s; t++) {
          let sum = 0;
          for (let j = 0; j < hidden; j++)
            sum += gradient[offset + s * hidden + j]! * gradient[offset + t * hidden + j]!;
          rankSum[s * rank + t]! += sum;
        }
      }
      const hiddenSum = this.#hidden[m]!;
      let at = 0;
      for (const { start, width } of blocksOf(hidden, this.#layout.block)) {
        for (let s = 0; s < rank; s++) {
          const from = offset + s * hidden + start;
          for (let i = 0; i < width; i++) {
            const value = gradient[from + i]!;
            for (let j = 0; j <= i; j++) hiddenSum[at + i * width + j]! += value * gradient[from + j]!;
          }
        }
        at += width * width;
      }
    }
  }

  /** Lower triangles only, which is all that {@link eigenbasesOf} reads. */
  finish(): MatrixCovariance[] {
    return this.#rank.map((rank, m) => ({ rank, hidden: this.#hidden[m]! }));
  }
}
