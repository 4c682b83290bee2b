/**
 * The embedded engine: Llama models on the CPU by WebAssembly kernels, nothing to install, the same bits on every machine.
 * Each model has a thread of its own, so that the caller's event loop stays free.
 */
import type { GradientLayout } from '../../attribution/layout.ts';
import type { MatrixCovariance } from '../../attribution/precondition.ts';
import {
  type Adapter,
  type AdapterFiles,
  type Engine,
  type EngineMetrics,
  type Example,
  type ExampleGradient,
  type ExampleGradientOptions,
  type Generation,
  type GenerationHooks,
  type GenerationRequest,
  type GradientOptions,
  LORA_TARGETS,
  type LoadedModel,
  type LoraSettings,
  type ModelInfo,
  type ModelTokenizer,
  type ServingLimits,
  type TrainingHooks,
  type TrainingJob,
  type TrainingOutcome,
} from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import { adapterLayout, type LoraModule } from '../lora.ts';
import { checkedLimits, inOrder, NumberedAdapter, OpenModels } from '../open-models.ts';
import { readTokenizer } from '../text/tokenizer-files.ts';
import { type LlamaShape, loraModules, parseConfig } from './config.ts';
import { COUNTER_BYTES, COUNTERS, type Host, ModelHost } from './host.ts';
import { readModelFile } from './model.ts';
import { RemoteHost } from './remote.ts';

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
  readonly #models = new OpenModels<EmbeddedModel>();

  constructor(options: EmbeddedOptions) {
    this.#options = options;
  }

  async load(
    directory: string,
    options: { readonly serving?: Partial<ServingLimits>; readonly signal?: AbortSignal } = {},
  ): Promise<LoadedModel> {
    return this.#models.open(options.signal, async (signal, gone) => {
      const limits = checkedLimits({ ...LIMITS, ...options.serving });
      const shape = parseConfig((await readModelFile(directory, 'config.json')).toString('utf8'));
      const tokenizer = await readTokenizer(directory, shape);
      const counters = new SharedArrayBuffer(COUNTER_BYTES);
      const host =
        this.#options.thread === false
          ? await ModelHost.open(directory, limits, new Float64Array(counters), signal)
          : await RemoteHost.open({ directory, limits, counters }, signal);
      const model = new EmbeddedModel(host, host.info, shape, tokenizer, counters, () => gone(model));
      return model;
    });
  }

  close(): Promise<void> {
    return this.#models.close();
  }
}

class EmbeddedModel implements LoadedModel {
  readonly info: ModelInfo;
  readonly tokenizer: ModelTokenizer;
  readonly #host: Host;
  readonly #shape: LlamaShape;
  /** All that LoRA can be put on. */
  readonly #modules: readonly LoraModule[];
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
    this.#modules = loraModules(shape, { rank: 1, alpha: 1, targets: LORA_TARGETS });
    this.tokenizer = tokenizer;
    this.#counters = new Float64Array(counters);
    this.#gone = gone;
  }

  async openAdapter(files: AdapterFiles): Promise<Adapter> {
    this.#expectOpen();
    const opened = await this.#host.openAdapter(files);
    return new NumberedAdapter(this, opened, () => this.#host.closeAdapter(opened.id));
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
    const id = adapter === undefined ? undefined : NumberedAdapter.idOf(adapter, this);
    return this.#host.generate(rest, id, {
      signal: hooks.signal ?? new AbortController().signal,
      token: (token) => hooks.token?.(token),
    });
  }

  async losses(examples: readonly Example[], adapter?: Adapter, signal?: AbortSignal): Promise<Float64Array> {
    this.#expectOpen();
    const id = adapter === undefined ? undefined : NumberedAdapter.idOf(adapter, this);
    const losses = new Float64Array(examples.length);
    let index = 0;
    const compute = (example: Example): Promise<number> => this.#host.loss(example, id);
    for await (const loss of inOrder(examples, AHEAD, compute, signal)) losses[index++] = loss;
    return losses;
  }

  layout(lora: LoraSettings, options?: { readonly block?: number; readonly fromLayer?: number }): GradientLayout {
    return adapterLayout(this.#shape, this.#modules, lora, options);
  }

  async *gradients(
    examples: readonly Example[],
    adapter: Adapter,
    options: ExampleGradientOptions = {},
  ): AsyncGenerator<ExampleGradient> {
    this.#expectOpen();
    const id = NumberedAdapter.idOf(adapter, this);
    const { fromLayer = 0, stride = 1, signal } = options;
    let index = 0;
    const scope = { fromLayer, stride };
    const compute = (example: Example): ReturnType<Host['gradient']> => this.#host.gradient(example, id, scope);
    for await (const result of inOrder(examples, AHEAD, compute, signal)) yield { index: index++, ...result };
  }

  async covariances(
    examples: readonly Example[],
    adapter: Adapter,
    options: GradientOptions & { readonly block?: number } = {},
  ): Promise<MatrixCovariance[]> {
    this.#expectOpen();
    options.signal?.throwIfAborted();
    const { fromLayer = 0, block = 32, signal = new AbortController().signal } = options;
    return this.#host.covariances(examples, NumberedAdapter.idOf(adapter, this), { fromLayer, block }, signal);
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
