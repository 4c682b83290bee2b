/** What engines share whose models live elsewhere, in a thread or a process: opening and closing them, and calls in order. */
import type { Adapter, LoraSettings, ServingLimits } from './engine.ts';
import { EngineError } from './engine-error.ts';

/** Limits as they came, or `BAD_SETTINGS`. */
export function checkedLimits<T extends Partial<ServingLimits>>(limits: T): T {
  for (const [name, value] of Object.entries(limits)) {
    if (!Number.isSafeInteger(value) || value < (name === 'batch' ? 1 : 0)) {
      throw new EngineError('BAD_SETTINGS', `serving limit ${name}: ${value}`);
    }
  }
  return limits;
}

/** The models that an engine has open: they end with it, and while they load too. */
export class OpenModels<M extends { close(): Promise<void> }> {
  readonly #models = new Set<M>();
  readonly #closing = new AbortController();

  /**
   * `open` gets a signal that ends loading, and what the model calls when it was closed. Rejects with the caller's reason when
   * its signal is aborted, with `ENGINE_CLOSED` when the engine is closed.
   */
  async open(
    caller: AbortSignal | undefined,
    open: (signal: AbortSignal, gone: (model: M) => void) => Promise<M>,
  ): Promise<M> {
    const closed = new EngineError('ENGINE_CLOSED', 'the engine is closed');
    if (this.#closing.signal.aborted) throw closed;
    caller?.throwIfAborted();
    const signal = AbortSignal.any([this.#closing.signal, ...(caller === undefined ? [] : [caller])]);
    try {
      const model = await open(signal, (each) => this.#models.delete(each));
      this.#models.add(model);
      if (signal.aborted) {
        await model.close();
        throw signal.reason;
      }
      return model;
    } catch (error) {
      throw this.#closing.signal.aborted ? closed : error;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.all([...this.#models].map((model) => model.close()));
  }
}

/** An adapter that its model knows by a number. */
export class NumberedAdapter implements Adapter {
  readonly lora: LoraSettings;
  readonly bytes: number;
  readonly #model: object;
  readonly #id: number;
  readonly #forget: () => Promise<void>;
  #closed = false;

  constructor(
    model: object,
    { id, lora, bytes }: { readonly id: number; readonly lora: LoraSettings; readonly bytes: number },
    forget: () => Promise<void>,
  ) {
    this.#model = model;
    this.#id = id;
    this.lora = lora;
    this.bytes = bytes;
    this.#forget = forget;
  }

  /** `BAD_ADAPTER` for another model's, `ADAPTER_CLOSED` for one that was closed. */
  static idOf(adapter: Adapter, model: object): number {
    if (!(adapter instanceof NumberedAdapter) || adapter.#model !== model) {
      throw new EngineError('BAD_ADAPTER', 'an adapter of another model');
    }
    if (adapter.#closed) throw new EngineError('ADAPTER_CLOSED', 'the adapter is closed');
    return adapter.#id;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#forget();
  }
}

/** Results in order, `most` calls under way at a time; none begins after an abort or the first failure. */
export async function* inOrder<T, R>(
  items: readonly T[],
  most: number,
  call: (item: T) => Promise<R>,
  signal: AbortSignal | undefined,
): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  let next = 0;
  for (let done = 0; done < items.length; done++) {
    signal?.throwIfAborted();
    while (next < items.length && running.length < most) {
      const result = call(items[next++]!);
      // Whoever leaves early does not look at those behind.
      result.catch(() => {});
      running.push(result);
    }
    yield await running.shift()!;
  }
}
