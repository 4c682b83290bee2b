/**
 * The embedded engine: Llama models on the CPU by WebAssembly kernels, nothing to install, the same bits on every machine.
 * Each model has a thread of its own, so that the caller's event loop stays free.
 */
import { type GradientLayout, gradientLayout } from '../../attribution/layout.ts';
import type { MatrixCovariance } from '../../attribution/precondition.ts';
import {
  type Adapter,
  type AdapterFiles,
  type Engine,
  EngineError,
  type EngineMetrics,
  type Example,
  type ExampleGradient,
  type ExampleGradientOptions,
  type Generation,
  type GenerationHooks,
  type GenerationRequest,
  type GradientOptions,
  type LoadedModel,
  type LoraSettings,
  type ModelInfo,
  type ModelTokenizer,
  type ServingLimits,
  type TrainingHooks,
  type TrainingJob,
  type TrainingOutcome,
} from '../engine.ts';
import { checkLora, type LlamaShape, loraMatrices, loraModules, parseConfig } from './config.ts';
import { COUNTER_BYTES, COUNTERS, type Host, ModelHost, type OpenedAdapter } from './host.ts';
import { readModelFile } from './model.ts';
import { RemoteHost } from './remote.ts';
import { readTokenizer } from './tokenizer-files.ts';

export interface EmbeddedOptions {
  /** A thread a model (default), or in the caller's thread, a slice a turn of its event loop. */
  readonly thread?: boolean;
}

/** Examples that are under way to the thread at a time. */
const AHEAD = 4;
const LIMITS: ServingLimits = { batch: 8, queue: 64 };

export async function embeddedEngine(options: EmbeddedOptions = {}): Promise<Engine> {
  return new EmbeddedEngine(options);
}

class EmbeddedEngine implements Engine {
  readonly kind = 'embedded';
  readonly exact = true;
  readonly #options: EmbeddedOptions;
  readonly #models = new Set<EmbeddedModel>();
  readonly #closing = new AbortController();

  constructor(options: EmbeddedOptions) {
    this.#options = options;
  }

  async load(
    directory: string,
    options: { readonly serving?: Partial<ServingLimits>; readonly signal?: AbortSignal } = {},
  ): Promise<LoadedModel> {
    const closed = new EngineError('ENGINE_CLOSED', 'the engine is closed');
    if (this.#closing.signal.aborted) throw closed;
    options.signal?.throwIfAborted();
    const limits = { ...LIMITS, ...options.serving };
    for (const [name, value] of Object.entries(limits)) {
      if (!Number.isSafeInteger(value) || value < (name === 'batch' ? 1 : 0)) {
        throw new EngineError('BAD_SETTINGS', `serving limit ${name}: ${value}`);
      }
    }
    const shape = parseConfig((await readModelFile(directory, 'config.json')).toString('utf8'));
    const tokenizer = await readTokenizer(directory, shape);
    const counters = new SharedArrayBuffer(COUNTER_BYTES);
    const signals = [this.#closing.signal, ...(options.signal === undefined ? [] : [options.signal])];
    const signal = AbortSignal.any(signals);
    try {
      const host =
        this.#options.thread === false
          ? await ModelHost.open(directory, limits, new Float64Array(counters), signal)
          : await RemoteHost.open({ directory, limits, counters }, signal);
      const model = new EmbeddedModel(host, host.info, shape, tokenizer, counters, () => this.#models.delete(model));
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

class EmbeddedAdapter implements Adapter {
  readonly lora: LoraSettings;
  readonly bytes: number;
  readonly #model: EmbeddedModel;
  readonly #opened: OpenedAdapter;
  readonly #host: Host;
  #closed = false;

  constructor(model: EmbeddedModel, host: Host, opened: OpenedAdapter) {
    this.#model = model;
    this.#host = host;
    this.#opened = opened;
    this.lora = opened.lora;
    this.bytes = opened.bytes;
  }

  /** Its number in the model's thread. */
  static idOf(adapter: Adapter, model: EmbeddedModel): number {
    if (!(adapter instanceof EmbeddedAdapter) || adapter.#model !== model) {
      throw new EngineError('BAD_ADAPTER', 'an adapter of another model');
    }
    if (adapter.#closed) throw new EngineError('ADAPTER_CLOSED', 'the adapter is closed');
    return adapter.#opened.id;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#host.closeAdapter(this.#opened.id);
  }
}

class EmbeddedModel implements LoadedModel {
  readonly info: ModelInfo;
  readonly tokenizer: ModelTokenizer;
  readonly #host: Host;
  readonly #shape: LlamaShape;
  readonly #counters: Float64Array;
  readonly #gone: () => void;
  #closing: Promise<void> | undefined;

  constructor(
    host: Host,
    info: ModelInfo,
    shape: LlamaShape,
    tokenizer: ModelTokenizer,
    counters: SharedArrayBuffer,
    gone: () => void,
  ) {
    this.#host = host;
    this.info = info;
    this.#shape = shape;
    this.tokenizer = tokenizer;
    this.#counters = new Float64Array(counters);
    this.#gone = gone;
  }

  async openAdapter(files: AdapterFiles): Promise<Adapter> {
    this.#expectOpen();
    return new EmbeddedAdapter(this, this.#host, await this.#host.openAdapter(files));
  }

  async train(job: TrainingJob, hooks: TrainingHooks = {}): Promise<TrainingOutcome> {
    this.#expectOpen();
    hooks.signal?.throwIfAborted();
    const weights = job.weights === undefined ? {} : { weights: Float64Array.from(job.weights) };
    return this.#host.train(
      { ...job, ...weights },
      {
        signal: hooks.signal ?? new AbortController().signal,
        progress: (progress) => hooks.progress?.(progress),
        checkpoint: async (state, step) => hooks.checkpoint?.(state, step),
      },
    );
  }

  async generate(request: GenerationRequest, hooks: GenerationHooks = {}): Promise<Generation> {
    this.#expectOpen();
    const { adapter, ...rest } = request;
    const id = adapter === undefined ? undefined : EmbeddedAdapter.idOf(adapter, this);
    return this.#host.generate(rest, id, {
      signal: hooks.signal ?? new AbortController().signal,
      token: (token) => hooks.token?.(token),
    });
  }

  async losses(examples: readonly Example[], adapter?: Adapter, signal?: AbortSignal): Promise<Float64Array> {
    this.#expectOpen();
    const id = adapter === undefined ? undefined : EmbeddedAdapter.idOf(adapter, this);
    const losses = new Float64Array(examples.length);
    let index = 0;
    for await (const loss of ahead(examples, (example) => this.#host.loss(example, id), signal)) losses[index++] = loss;
    return losses;
  }

  layout(lora: LoraSettings, options: { readonly block?: number; readonly fromLayer?: number } = {}): GradientLayout {
    checkLora(lora, 'BAD_SETTINGS');
    const { fromLayer = 0, block = 32 } = options;
    if (!Number.isInteger(fromLayer) || fromLayer < 0 || fromLayer >= this.#shape.layers) {
      throw new EngineError('BAD_REQUEST', `layer ${fromLayer} of ${this.#shape.layers}`);
    }
    return gradientLayout(loraMatrices(loraModules(this.#shape, lora, fromLayer), lora.rank), block);
  }

  async *gradients(
    examples: readonly Example[],
    adapter: Adapter,
    options: ExampleGradientOptions = {},
  ): AsyncGenerator<ExampleGradient> {
    this.#expectOpen();
    const id = EmbeddedAdapter.idOf(adapter, this);
    const { fromLayer = 0, stride = 1, signal } = options;
    let index = 0;
    const scope = { fromLayer, stride };
    const compute = (example: Example): ReturnType<Host['gradient']> => this.#host.gradient(example, id, scope);
    for await (const result of ahead(examples, compute, signal)) yield { index: index++, ...result };
  }

  async covariances(
    examples: readonly Example[],
    adapter: Adapter,
    options: GradientOptions & { readonly block?: number } = {},
  ): Promise<MatrixCovariance[]> {
    this.#expectOpen();
    options.signal?.throwIfAborted();
    const { fromLayer = 0, block = 32, signal = new AbortController().signal } = options;
    return this.#host.covariances(examples, EmbeddedAdapter.idOf(adapter, this), { fromLayer, block }, signal);
  }

  metrics(): EngineMetrics {
    const counters = this.#counters;
    const closed = this.#closing !== undefined;
    return {
      active: closed ? 0 : counters[COUNTERS.active]!,
      waiting: closed ? 0 : counters[COUNTERS.waiting]!,
      adapters: closed ? 0 : counters[COUNTERS.adapters]!,
      generatedTokens: counters[COUNTERS.generated]!,
      promptTokens: counters[COUNTERS.prompt]!,
      memoryBytes: closed ? 0 : counters[COUNTERS.memory]!,
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#host.close().finally(this.#gone);
    return this.#closing;
  }

  #expectOpen(): void {
    if (this.#closing !== undefined) throw new EngineError('ENGINE_CLOSED', 'the model is closed');
  }
}

/** Results in order, a few calls under way; none begins after an abort or the first failure. */
async function* ahead<T, R>(
  items: readonly T[],
  compute: (item: T) => Promise<R>,
  signal: AbortSignal | undefined,
): AsyncGenerator<R> {
  const running: Promise<R>[] = [];
  let next = 0;
  for (let done = 0; done < items.length; done++) {
    signal?.throwIfAborted();
    while (next < items.length && running.length < AHEAD) {
      const result = compute(items[next++]!);
      // Whoever leaves early does not look at those behind.
      result.catch(() => {});
      running.push(result);
    }
    yield await running.shift()!;
  }
}
