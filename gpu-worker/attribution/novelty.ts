/**
 * Novelty of records: `ν = 1 − overlap with the nearest earlier record`. Before training by their texts, found by MinHash
 * and measured exactly: the weight that a record trains with. After it by their feature rows too: what it is credited with.
 */
import { NOVELTY_ONE } from '../../runtime/primitives/attribution/limits.ts';
import { BANDS, bandKey, minHash, SKETCH_SIZE, sameMinima } from '../../runtime/primitives/attribution/minhash.ts';
import { cosineOfDot, cosineRange, overlapOfCosine, rowOverlap } from '../../runtime/primitives/attribution/novelty.ts';
import { jaccard, shingles } from '../../runtime/primitives/attribution/shingles.ts';
import type { QuantisedRow } from './quantise.ts';
import { dotKernel, LANES } from './row-kernel.ts';

export interface Novelty {
  /** ν in units of 2^−16. */
  readonly novelty: number;
  /** The earlier record it is measured against, or the record itself. */
  readonly nearest: number;
}

/** Candidates whose exact overlap is computed: the ones with the highest estimates. */
const CANDIDATES = 16;

/** Records are added in the order of the snapshot; the first to commit is the original. */
export class NoveltyIndex {
  readonly #seed: number;
  /** Overlaps below this (units of 2^−16) are taken for coincidence. Each Datanet sets its own. */
  readonly #threshold: number;
  readonly #textOf: (index: number) => Uint8Array;
  readonly #buckets = new Map<string, number[]>();
  readonly #sketches: Uint32Array[] = [];
  readonly #seen: number[] = [];

  /** `seed`: u32, drawn after the data was committed. `textOf`: UTF-8 text of an earlier record. */
  constructor(seed: number, threshold: number, textOf: (index: number) => Uint8Array) {
    this.#seed = seed;
    this.#threshold = threshold;
    this.#textOf = textOf;
  }

  get length(): number {
    return this.#sketches.length;
  }

  add(text: Uint8Array): Novelty {
    const own = shingles(text);
    const sketch = minHash(own, this.#seed);
    const index = this.#sketches.length;
    this.#sketches.push(sketch);
    this.#seen.push(-1);
    const found: { readonly record: number; readonly same: number }[] = [];
    for (let band = 0; band < BANDS; band++) {
      const key = bandKey(sketch, band);
      const bucket = this.#buckets.get(key);
      if (bucket === undefined) {
        this.#buckets.set(key, [index]);
        continue;
      }
      for (const record of bucket) {
        if (this.#seen[record] === index) continue;
        this.#seen[record] = index;
        const same = sameMinima(sketch, this.#sketches[record]!);
        // Far below the threshold (more than three standard deviations of the estimate) it need not be measured.
        if ((same / SKETCH_SIZE + 0.15) * NOVELTY_ONE >= this.#threshold) found.push({ record, same });
      }
      bucket.push(index);
    }
    found.sort((a, b) => b.same - a.same || a.record - b.record);
    let nearest = index;
    let overlap = 0;
    for (const { record } of found.slice(0, CANDIDATES)) {
      const exact = jaccard(own, shingles(this.#textOf(record)));
      if (exact >= this.#threshold && (exact > overlap || (exact === overlap && exact > 0 && record < nearest))) {
        nearest = record;
        overlap = exact;
      }
    }
    return { novelty: NOVELTY_ONE - overlap, nearest };
  }
}

/**
 * What each record is credited with: {@link Novelty} by texts, as it was found before training, against that by rows,
 * for which every earlier row is looked at. `rows` and `texts` (UTF-8) in the order of the snapshot. Work: rows² · k / 4
 * multiplications in SIMD; `signal` is looked at between rows.
 */
export async function creditNovelty(
  rows: readonly QuantisedRow[],
  byText: readonly Novelty[],
  texts: readonly Uint8Array[],
  signal?: AbortSignal,
): Promise<Novelty[]> {
  const k = rows[0]?.values.length ?? 0;
  const values = new Int8Array(rows.length * k);
  for (const [i, row] of rows.entries()) values.set(row.values, i * k);
  const kernel = dotKernel({ k, rows: rows.length, values });
  const overlapWith = (i: number, j: number): number =>
    Math.max(rowOverlap(rows[i]!, rows[j]!, rows.length), jaccard(shingles(texts[i]!), shingles(texts[j]!)));
  const range = cosineRange(k, rows.length);
  // A little less than the product from which on a cosine counts.
  const coarse = range.free * 2 ** 48 * 0.999;
  const out: Novelty[] = [];
  for (let from = 0; from < rows.length; from += LANES) {
    signal?.throwIfAborted();
    await new Promise<void>((resolve) => setImmediate(resolve));
    const some = rows.slice(from, from + LANES);
    const dots = kernel.dots(some.map((row) => row.values));
    for (const [lane, { scale }] of some.entries()) {
      const i = from + lane;
      let alike = i;
      let most = 0;
      for (let j = 0; j < i; j++) {
        const dot = dots[lane * rows.length + j]!;
        // Most pairs are far apart: a double, which is off by less than one part in 2^50, tells.
        if (dot * scale * rows[j]!.scale < coarse) continue;
        const overlap = overlapOfCosine(cosineOfDot(dot, scale, rows[j]!.scale), range);
        if (overlap > most) [alike, most] = [j, overlap];
      }
      let [nearest, overlap] = alike === i ? [i, 0] : [alike, overlapWith(i, alike)];
      const { nearest: inText } = byText[i]!;
      if (inText !== i && inText !== alike) {
        const other = overlapWith(i, inText);
        if (other > overlap || (other === overlap && inText < nearest)) [nearest, overlap] = [inText, other];
      }
      out.push({ novelty: NOVELTY_ONE - overlap, nearest });
    }
  }
  return out;
}
