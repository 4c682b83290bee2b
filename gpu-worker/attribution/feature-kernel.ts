/**
 * The arithmetic of a feature in WebAssembly SIMD, float32: the turn into the eigenbases and the projection, which are all of
 * its cost. What `precondition.ts` computes in float64 is the reference: entries are within a hundred-thousandth of their root mean
 * square of it. Sums run in one order whatever the machine, so that every worker gets the same bits.
 */

import { Heap } from '../wasm/heap.ts';
import { instantiate } from '../wasm/kernels.ts';
import { blocksOf, type GradientLayout } from './layout.ts';
import { checkBases, type Eigenbases, PreconditionError } from './precondition.ts';
import type { Projection } from './projection.ts';

export interface FeatureKernel {
  /** `Q_Sᵀ G Q_A` of every matrix, in the gradient's layout. A view, valid until the next call. */
  turn(gradient: Float32Array): Float32Array;
  /** `V_kᵀ s`, k entries. A view, valid until the next call. */
  project(sketch: ArrayLike<number>): Float32Array;
}

const pad4 = (count: number): number => (count + 3) & ~3;
/** Entries of a sketch that are summed up before they are added: long sums in float32 lose digits. */
const CHUNK = 4_096;

interface Turned {
  readonly rank: number;
  readonly hidden: number;
  readonly offset: number;
  /** Q_S, [rank][rank]. */
  readonly basis: number;
  /** Q_Aᵀ of each block, [width][padded]. */
  readonly blocks: readonly { readonly start: number; readonly width: number; readonly at: number }[];
}

export function featureKernel(
  layout: GradientLayout,
  bases: Pick<Eigenbases, 'rank' | 'hidden'>,
  { k, width, vectors }: Projection,
): FeatureKernel {
  checkBases(layout, bases);
  const heap = new Heap();
  const { gemm } = instantiate(heap.memory);
  const put = (values: ArrayLike<number>): number => {
    const at = heap.zeros(values.length);
    heap.floats.set(values, at / 4);
    return at;
  };
  const matrices = layout.matrices.map(({ rank, hidden, offset }, m): Turned => {
    const basis = put(bases.rank[m]!);
    const all = bases.hidden[m]!;
    let from = 0;
    const blocks = [...blocksOf(hidden, layout.block)].map(({ start, width }) => {
      const padded = pad4(width);
      const turned = new Float32Array(width * padded);
      for (let c = 0; c < width; c++)
        for (let j = 0; j < width; j++) turned[j * padded + c] = all[from + c * width + j]!;
      from += width * width;
      return { start, width, at: put(turned) };
    });
    return { rank, hidden, offset, basis, blocks };
  });
  const widest = layout.matrices.reduce((most, { rank, hidden }) => Math.max(most, rank * pad4(hidden)), 0);
  const [input, half, output] = [heap.zeros(widest), heap.zeros(widest), heap.zeros(widest)];
  const out = new Float32Array(layout.size);

  // Tiles of eight directions, a sketch's entry after the other.
  const columns = pad4(k);
  const tiles = heap.zeros(Math.ceil(columns / 8) * 8 * width);
  const packed = heap.floats;
  for (let c = 0; c < k; c++) {
    const to = tiles / 4 + (c >> 3) * 8 * width + (c & 7);
    for (let t = 0; t < width; t++) packed[to + t * 8] = vectors[c * width + t]!;
  }
  const sketchAt = heap.zeros(width);
  const along = heap.zeros(columns);

  return {
    turn(gradient) {
      if (gradient.length !== layout.size)
        throw new PreconditionError('WRONG_SIZE', `${gradient.length} entries where ${layout.size} belong`);
      const f = heap.floats;
      for (const { rank, hidden, offset, basis, blocks } of matrices) {
        const wide = pad4(hidden);
        for (let s = 0; s < rank; s++)
          f.set(gradient.subarray(offset + s * hidden, offset + (s + 1) * hidden), input / 4 + s * wide);
        gemm(rank, wide, rank, basis, rank * 4, 4, input, 32, wide * 4, half, wide * 4, 1, 0);
        // In ascending order: what a block's padding writes behind it, the next one overwrites.
        for (const { start, width, at } of blocks) {
          const [from, to] = [half + start * 4, output + start * 4];
          const padded = pad4(width);
          gemm(rank, padded, width, from, wide * 4, 4, at, 32, padded * 4, to, wide * 4, 1, 0);
        }
        for (let s = 0; s < rank; s++) {
          const row = output / 4 + s * wide;
          out.set(f.subarray(row, row + hidden), offset + s * hidden);
        }
      }
      return out;
    },
    project(sketch) {
      const f = heap.floats;
      f.set(sketch, sketchAt / 4);
      f.fill(0, along / 4, along / 4 + columns);
      for (let from = 0; from < width; from += CHUNK) {
        const count = Math.min(CHUNK, width - from);
        const rows = tiles + from * 32;
        gemm(1, columns, count, sketchAt + from * 4, width * 4, 4, rows, 32 * width, 32, along, columns * 4, 1, 1);
      }
      return heap.view(along, k);
    },
  };
}
