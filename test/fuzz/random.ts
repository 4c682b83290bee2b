/** Chance that can be had again: a stream of its own for each input (Doty-Humphrey's sfc32). */

export class Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  /** `parts`: what the stream belongs to, such as seed, target and iteration. */
  constructor(...parts: readonly (number | string)[]) {
    this.#a = 0x9e3779b9;
    this.#b = 0x243f6a88;
    this.#c = 0xb7e15162;
    for (const char of parts.join('/')) {
      this.#a = (this.#a ^ char.charCodeAt(0)) >>> 0;
      this.u32();
    }
    for (let i = 0; i < 12; i++) this.u32();
  }

  u32(): number {
    const result = (this.#a + this.#b + this.#counter++) >>> 0;
    this.#a = (this.#b ^ (this.#b >>> 9)) >>> 0;
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + result) >>> 0;
    return result;
  }

  /** Less than `limit`. */
  below(limit: number): number {
    return Math.floor((this.u32() / 2 ** 32) * limit);
  }

  chance(probability: number): boolean {
    return this.u32() < probability * 2 ** 32;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  bytes(length: number): Uint8Array {
    const out = new Uint8Array(length);
    for (let i = 0; i < length; i++) out[i] = this.u32();
    return out;
  }

  /** Mostly small, now and then large. */
  length(max: number): number {
    return this.below(Math.min(max, 2 ** this.below(Math.ceil(Math.log2(max + 1)) + 1)) + 1);
  }
}
