/** Novelty of records: `ν = 1 − overlap with the nearest earlier record`, found by MinHash, measured exactly. */
import { NOVELTY_ONE } from '../../runtime/primitives/attribution/limits.ts';
import { BANDS, bandKey, minHash, SKETCH_SIZE, sameMinima } from '../../runtime/primitives/attribution/minhash.ts';
import { jaccard, shingles } from '../../runtime/primitives/attribution/shingles.ts';

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
