/** One generation as its tokens come in, whoever samples them: text that is final, stop sequences, limits. */

import type { FinishReason, Generation, GenerationHooks, GenerationRequest } from './engine.ts';
import { EngineError } from './engine-error.ts';
import { TextStream } from './text/text-stream.ts';
import type { StreamingTokenizer } from './text/tokenizer.ts';

export class GenerationState {
  readonly tokens: number[] = [];
  /** Tokens that it may make at most. */
  readonly limit: number;
  readonly #tokenizer: StreamingTokenizer;
  readonly #stream: TextStream;
  readonly #hooks: GenerationHooks;
  readonly #promptTokens: number;
  readonly #started = performance.now();
  #text = '';
  #first = 0;
  #finish: FinishReason | undefined;

  /** Throws `BAD_REQUEST` for stop sequences that are none. */
  constructor(
    tokenizer: StreamingTokenizer,
    { prompt, maxTokens, stop = [] }: Omit<GenerationRequest, 'adapter'>,
    maxPositions: number,
    hooks: GenerationHooks,
  ) {
    if (stop.length > 16 || stop.some((text) => typeof text !== 'string' || text === '')) {
      throw new EngineError('BAD_REQUEST', 'stop sequences');
    }
    this.#tokenizer = tokenizer;
    this.#stream = new TextStream(tokenizer, stop);
    this.#hooks = hooks;
    this.#promptTokens = prompt.length;
    this.limit = Math.min(maxTokens, maxPositions - prompt.length);
  }

  /** It is over: what comes now is not of it. */
  get isOver(): boolean {
    return this.#finish !== undefined;
  }

  /** A token that was sampled. True when it completed a stop sequence, so that whoever samples must be told to end. */
  push(id: number): boolean {
    if (this.#finish !== undefined) return false;
    if (!Number.isInteger(id) || id < 0 || id >= this.#tokenizer.vocabulary) {
      throw new EngineError('ENGINE_FAILED', `token ${id} of a vocabulary of ${this.#tokenizer.vocabulary}`);
    }
    const index = this.tokens.length;
    if (index === 0) this.#first = performance.now();
    this.tokens.push(id);
    const isEnd = this.#tokenizer.eos.includes(id);
    const full = this.tokens.length >= this.limit;
    const { delta, stopped } = isEnd ? { delta: this.#stream.flush(), stopped: false } : this.#stream.push(id, full);
    this.#text += delta;
    if (isEnd || stopped) this.#finish = 'stop';
    else if (full) this.#finish = 'length';
    this.#hooks.token?.({ id, index, delta });
    return stopped;
  }

  /** `finish`: why it ended, if no token said so. */
  result(finish: FinishReason = 'aborted'): Generation {
    const now = performance.now();
    return {
      tokens: this.tokens,
      text: this.#text,
      finish: this.#finish ?? finish,
      promptTokens: this.#promptTokens,
      firstTokenMilliseconds: (this.#first || now) - this.#started,
      milliseconds: now - this.#started,
    };
  }
}
