/** Tokens to text that is final: whole characters only, and nothing that may turn out to begin a stop sequence. */
import type { StreamingTokenizer } from './tokenizer.ts';

export class TextStream {
  readonly #tokenizer: StreamingTokenizer;
  readonly #stop: readonly string[];
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  #held = '';

  constructor(tokenizer: StreamingTokenizer, stop: readonly string[]) {
    this.#tokenizer = tokenizer;
    this.#stop = stop;
  }

  /** With `last` nothing is held back. */
  push(id: number, last: boolean): { readonly delta: string; readonly stopped: boolean } {
    this.#held += this.#decoder.decode(this.#tokenizer.bytes(id), { stream: true });
    if (last) this.#held += this.#decoder.decode();
    let first = -1;
    for (const stop of this.#stop) {
      const at = this.#held.indexOf(stop);
      if (at >= 0 && (first < 0 || at < first)) first = at;
    }
    if (first >= 0) return { delta: this.#held.slice(0, first), stopped: true };
    const keep = last ? 0 : this.#beginning();
    const delta = this.#held.slice(0, this.#held.length - keep);
    this.#held = this.#held.slice(delta.length);
    return { delta, stopped: false };
  }

  /** What is still held, when the generation ends for another reason than a stop sequence. */
  flush(): string {
    const text = this.#held + this.#decoder.decode();
    this.#held = '';
    return text;
  }

  /** Length of the longest end of the text that is a beginning of a stop sequence. */
  #beginning(): number {
    let longest = 0;
    for (const stop of this.#stop) {
      for (let length = Math.min(stop.length - 1, this.#held.length); length > longest; length--) {
        if (stop.startsWith(this.#held.slice(-length))) longest = length;
      }
    }
    return longest;
  }
}
