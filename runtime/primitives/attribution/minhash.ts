/**
 * MinHash sketches of shingle sets (Broder 1997): 128 minima, compared in 32 bands of 4. A pair of overlap J meets in
 * some band with probability `1 − (1 − J⁴)³²`: .27 at J = .3, .87 at .5, .9998 at .7. Sketches only find candidates; what
 * counts is the exact overlap (`shingles.ts`).
 */
import { fixedBytes, vec } from '../scale/codec.ts';
import type { Hash } from '../types.ts';
import { type Blake, canonical, hashOf } from './canonical.ts';
import { MAX_ROWS } from './limits.ts';

export const BANDS = 32;
export const BAND_ROWS = 4;
export const SKETCH_SIZE = BANDS * BAND_ROWS;

/** Seed of the sketches that a batch manifest commits to; orders draw seeds of their own. */
export const CONTRIBUTION_SEED = 0x6f6c6d68;

/** Finaliser of MurmurHash3: a bijection of u32 in which every bit depends on every other one. */
function mix(x: number): number {
  x = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

/** Minima of 128 hashes over a set of shingles, as u32. The empty set has all maxima. `seed`: u32. */
export function minHash(set: Iterable<string>, seed = CONTRIBUTION_SEED): Uint32Array {
  const keys = new Uint32Array(SKETCH_SIZE);
  for (let i = 0; i < SKETCH_SIZE; i++) keys[i] = mix(mix(seed ^ 0x9e3779b9) + Math.imul(i + 1, 0x9e3779b1));
  const minima = new Uint32Array(SKETCH_SIZE).fill(0xffffffff);
  for (const shingle of set) {
    // FNV-1a over the shingle's bytes, begun at the seed.
    let base = mix(seed);
    for (let i = 0; i < shingle.length; i++) base = Math.imul(base ^ shingle.charCodeAt(i), 0x01000193);
    base = mix(base);
    for (let i = 0; i < SKETCH_SIZE; i++) {
      const value = mix(base ^ keys[i]!);
      if (value < minima[i]!) minima[i] = value;
    }
  }
  return minima;
}

/** Equal minima out of 128: an estimate of the overlap. */
export function sameMinima(a: Uint32Array, b: Uint32Array): number {
  let same = 0;
  for (let i = 0; i < SKETCH_SIZE; i++) if (a[i] === b[i]) same++;
  return same;
}

/** Key of one band of a sketch, for buckets. */
export const bandKey = (sketch: Uint32Array, band: number): string => {
  const at = band * BAND_ROWS;
  return `${band}:${sketch[at]},${sketch[at + 1]},${sketch[at + 2]},${sketch[at + 3]}`;
};

const sketchList = canonical('minhash/1', 'SketchList', vec(fixedBytes(SKETCH_SIZE * 4), MAX_ROWS));

/** What a batch manifest commits to: the sketches of its records, in order, each as little-endian u32. */
export const sketchCommitment = (hashing: Blake, sketches: readonly Uint32Array[]): Hash =>
  hashOf(hashing, sketchList, sketches.map(sketchBytes));

function sketchBytes(sketch: Uint32Array): Uint8Array {
  const out = new Uint8Array(SKETCH_SIZE * 4);
  const view = new DataView(out.buffer);
  for (let i = 0; i < SKETCH_SIZE; i++) view.setUint32(4 * i, sketch[i]!, true);
  return out;
}
