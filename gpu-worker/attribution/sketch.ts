/**
 * Sparse Johnson–Lindenstrauss sketch with one entry a column (SJLT; Dasgupta, Kumar & Sarlós 2010): entry j goes to
 * bucket `h(j) mod width` with the sign of the top bit of `h(j)`, `h(j)` the j-th output of SplitMix64 under a seed that
 * the chain draws after the data is committed.
 */
import { splitMix64 } from './seeded.ts';

export interface Sketch {
  readonly width: number;
  /** Adds `values[j]·factors[j]` to its bucket for every j. */
  add(values: ArrayLike<number>, factors: Float64Array, into: Float64Array): void;
}

export class SketchError extends Error {
  readonly code = 'BAD_WIDTH';
}

/** `width`: a power of two up to 2^30. */
export function sjlt(seed: bigint, size: number, width: number): Sketch {
  if (!Number.isInteger(Math.log2(width)) || width > 2 ** 30) throw new SketchError(`${width} is no power of two`);
  // Bucket, or its complement where the sign is negative.
  const place = new Int32Array(size);
  const mask = BigInt(width - 1);
  for (let j = 0; j < size; j++) {
    const h = splitMix64(seed, j);
    const bucket = Number(h & mask);
    place[j] = h >> 63n ? ~bucket : bucket;
  }
  return {
    width,
    add(values, factors, into) {
      for (let j = 0; j < size; j++) {
        const at = place[j]!;
        const value = values[j]! * factors[j]!;
        if (at >= 0) into[at]! += value;
        else into[~at]! -= value;
      }
    },
  };
}
