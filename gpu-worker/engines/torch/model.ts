/**
 * One model of the torch engine. It outlives its Python process: when that dies, another takes over, knows the same adapters,
 * and calls under way are made again: generations behind the tokens they had, trainings from their last checkpoint.
 */
import { writeEigenbases, writeProjection } from '../../attribution/basis-files.ts';
import type { FeatureBases, FeatureSettings, Projected } from '../../attribution/extractor.ts';
import type { GradientLayout } from '../../attribution/layout.ts';
import type { MatrixCovariance } from '../../attribution/precondition.ts';
import { seededSample } from '../../attribution/seeded.ts';
import type {
  Adapter,
  AdapterFiles,
  AdapterMetrics,
  EngineMetrics,
  Example,
  ExampleGradient,
  ExampleGradientOptions,
  FeatureReader,
  FitHooks,
  Generation,
  GenerationHooks,
  GenerationRequest,
  GradientOptions,
  LoadedModel,
  LoraSettings,
  ModelInfo,
  ModelTokenizer,
  ProjectedExample,
  TrainingHooks,
  TrainingJob,
  TrainingOutcome,
} from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import { GenerationState } from '../generation.ts';
import { adapterLayout, checkLora, type LoraModule } from '../lora.ts';
import { inOrder, NumberedAdapter } from '../open-models.ts';
import type { StreamingTokenizer } from '../text/tokenizer.ts';
import { CallCancelled, type CallResult } from './child.ts';
import {
  doublesOf,
  examplesPart,
  FitMilestone,
  fittedOf,
  floatsOf,
  jsonSettings,
  progressOf,
  projectedOf,
} from './codecs.ts';
import type { Supervisor } from './supervisor.ts';

/** Examples a call, and bytes of gradients that one answer carries at most. */
const EXAMPLES_A_CALL = 32;
const GRADIENT_BYTES = 32 << 20;
/** Calls under way for one stream of gradients. */
const AHEAD = 2;
/** Steps between checkpoints that only serve a crash, when the job itself wants none. */
const RECOVERY_STEPS = 50;

export class TorchModel implements LoadedModel {
  readonly info: ModelInfo;
  readonly tokenizer: ModelTokenizer;
  readonly #tokenizer: StreamingTokenizer;
  readonly #supervisor: Supervisor;
  readonly #modules: readonly LoraModule[];
  readonly #gone: () => void;
  #nextAdapter = 1;
  #nextFeatures = 1;
  #closing: Promise<void> | undefined;

  constructor(
    supervisor: Supervisor,
    info: ModelInfo,
    modules: readonly LoraModule[],
    tokenizer: StreamingTokenizer,
    gone: () => void,
  ) {
    this.#supervisor = supervisor;
    this.info = info;
    this.#modules = modules;
    this.tokenizer = tokenizer;
    this.#tokenizer = tokenizer;
    this.#gone = gone;
  }

  /** The Python process, while there is one. */
  get processId(): number | undefined {
    return this.#supervisor.pid;
  }

  // ---- adapters ------------------------------------------------------------------------------------------------------

  async openAdapter(files: AdapterFiles): Promise<Adapter> {
    this.#expectOpen();
    const id = this.#nextAdapter++;
    const { value } = await this.#supervisor.call('openAdapter', { adapter: id }, [files.config, files.weights]);
    const lora = value.lora as LoraSettings;
    checkLora(lora, 'BAD_ADAPTER');
    this.#supervisor.adapters.add(id);
    return new NumberedAdapter(this, { id, lora, bytes: Number(value.bytes) }, async () => {
      this.#supervisor.adapters.delete(id);
      if (!this.#supervisor.closed) await this.#supervisor.call('closeAdapter', { adapter: id });
    });
  }

  /** What each adapter that had requests since the engine process began did. */
  async adapterMetrics(): Promise<AdapterMetrics[]> {
    this.#expectOpen();
    const { value } = await this.#supervisor.call('adapterMetrics', {});
    const rows = value.adapters as number[][];
    return rows.map(([id, tier, requests, prompt, tokens, device, host, disk, waited, first]) => ({
      adapter: id!,
      tier: (['disk', 'host', 'device'] as const)[tier!]!,
      requests: requests!,
      promptTokens: prompt!,
      generatedTokens: tokens!,
      hits: { device: device!, host: host!, disk: disk! },
      waitedMilliseconds: waited!,
      firstTokenMilliseconds: first!,
    }));
  }

  // ---- training ------------------------------------------------------------------------------------------------------

  async train(job: TrainingJob, hooks: TrainingHooks = {}): Promise<TrainingOutcome> {
    this.#expectOpen();
    hooks.signal?.throwIfAborted();
    const { checkpointEvery } = job.settings;
    const settings = jsonSettings({ ...job.settings, checkpointEvery: checkpointEvery ?? RECOVERY_STEPS });
    const examples = examplesPart(job.examples);
    const weights =
      job.weights === undefined ? new Uint8Array() : new Uint8Array(Float64Array.from(job.weights).buffer);
    let resume = job.resume ?? new Uint8Array();
    // Steps that a process before this one told of already.
    let told = 0;
    let stored = 0;
    const params = { settings, ...(job.baseName !== undefined && { baseName: job.baseName }) };
    const started = performance.now();
    const { value, parts } = await this.#supervisor.retry(async (child, progressed) => {
      let id = 0;
      return child.call('train', params, [examples, weights, resume], {
        ...(hooks.signal !== undefined && { signal: hooks.signal }),
        begun: (given) => {
          id = given;
        },
        event: ({ name, values, parts: [state] }) => {
          if (name === 'progress') {
            const progress = progressOf(values);
            if (progress.step <= told) return;
            told = progress.step;
            hooks.progress?.(progress);
          } else if (name === 'checkpoint' && state !== undefined) {
            const step = Number(values.step);
            const keep = async (): Promise<void> => {
              if (checkpointEvery !== undefined && step > stored) await hooks.checkpoint?.(state, step);
            };
            keep().then(
              () => {
                stored = Math.max(stored, step);
                resume = state;
                progressed();
                child.stored(id);
              },
              (error: unknown) => child.giveUp(id, error),
            );
          }
        },
      });
    });
    const [config, weightsFile, attribution] = parts;
    if (config === undefined || weightsFile === undefined || attribution === undefined) throw strange('train');
    return {
      adapter: { config, weights: weightsFile },
      attribution: { config, weights: attribution },
      steps: Number(value.steps),
      tokens: Number(value.tokens),
      loss: Number(value.loss),
      milliseconds: performance.now() - started,
    };
  }

  // ---- serving -------------------------------------------------------------------------------------------------------

  async generate(request: GenerationRequest, hooks: GenerationHooks = {}): Promise<Generation> {
    this.#expectOpen();
    const { adapter, prompt, maxTokens, temperature, topP, seed } = request;
    const state = new GenerationState(this.#tokenizer, request, this.info.maxPositions, hooks);
    const id = adapter === undefined ? undefined : NumberedAdapter.idOf(adapter, this);
    const ended = new AbortController();
    const signal = hooks.signal === undefined ? ended.signal : AbortSignal.any([hooks.signal, ended.signal]);
    const params = {
      prompt,
      maxTokens,
      temperature,
      topP,
      seed: String(seed),
      ...(id !== undefined && { adapter: id }),
    };
    if (hooks.signal?.aborted === true) return state.result();
    try {
      await this.#supervisor.retry(async (child, progressed) => {
        if (state.isOver) return;
        await child.call('generate', { ...params, given: [...state.tokens] }, [], {
          signal,
          token: (token) => {
            if (state.push(token)) ended.abort();
            progressed();
          },
        });
      });
    } catch (error) {
      const closed = error instanceof EngineError && error.code === 'ENGINE_CLOSED' && this.#closing !== undefined;
      const cancelled = signal.aborted && (error === signal.reason || error instanceof CallCancelled);
      if (!cancelled && !closed) throw error;
    }
    return state.result();
  }

  // ---- losses and gradients ------------------------------------------------------------------------------------------

  async losses(examples: readonly Example[], adapter?: Adapter, signal?: AbortSignal): Promise<Float64Array> {
    this.#expectOpen();
    const id = adapter === undefined ? undefined : NumberedAdapter.idOf(adapter, this);
    const losses = new Float64Array(examples.length);
    let at = 0;
    for await (const { parts } of this.#chunked('losses', id === undefined ? {} : { adapter: id }, examples, signal)) {
      const some = doublesOf(parts[0], Math.min(EXAMPLES_A_CALL, examples.length - at));
      losses.set(some, at);
      at += some.length;
    }
    return losses;
  }

  layout(lora: LoraSettings, options?: { readonly block?: number; readonly fromLayer?: number }): GradientLayout {
    return adapterLayout(this.info, this.#modules, lora, options);
  }

  async *gradients(
    examples: readonly Example[],
    adapter: Adapter,
    options: ExampleGradientOptions = {},
  ): AsyncGenerator<ExampleGradient> {
    this.#expectOpen();
    const id = NumberedAdapter.idOf(adapter, this);
    const { fromLayer = 0, stride = 1, signal } = options;
    const { size } = this.layout(adapter.lora, { fromLayer });
    const count = Math.max(1, Math.min(EXAMPLES_A_CALL, Math.floor(GRADIENT_BYTES / (size * 4))));
    let index = 0;
    const params = { adapter: id, fromLayer, stride };
    for await (const { parts } of this.#chunked('gradients', params, examples, signal, count)) {
      const some = Math.min(count, examples.length - index);
      const losses = doublesOf(parts[0], some);
      const gradients = parts.slice(1);
      if (gradients.reduce((sum, part) => sum + part.length, 0) !== some * size * 4) throw strange('gradients');
      let row = 0;
      for (const part of gradients) {
        const rows = floatsOf(part);
        for (let at = 0; at < rows.length; at += size) {
          const { tokens, from } = examples[index]!;
          const gradient = rows.slice(at, at + size);
          yield { index: index++, gradient, loss: losses[row++]!, tokens: Math.ceil((tokens.length - from) / stride) };
        }
      }
    }
  }

  async covariances(
    examples: readonly Example[],
    adapter: Adapter,
    options: GradientOptions & { readonly block?: number } = {},
  ): Promise<MatrixCovariance[]> {
    this.#expectOpen();
    const { fromLayer = 0, block = 32, signal } = options;
    signal?.throwIfAborted();
    const params = { adapter: NumberedAdapter.idOf(adapter, this), fromLayer, block };
    const { matrices } = this.layout(adapter.lora, { fromLayer, block });
    let sums: Float64Array[] | undefined;
    for await (const { parts } of this.#chunked('covariances', params, examples, signal)) {
      if (parts.length !== 2 * matrices.length) throw strange('covariances');
      const some = parts.map((part) => doublesOf(part));
      if (sums === undefined) sums = some;
      else for (const [i, sum] of sums.entries()) for (let j = 0; j < sum.length; j++) sum[j]! += some[i]![j]!;
    }
    if (sums === undefined) throw new EngineError('BAD_EXAMPLE', 'no examples to take covariances of');
    return matrices.map((_, m) => ({ rank: sums[2 * m]!, hidden: sums[2 * m + 1]! }));
  }

  // ---- features ------------------------------------------------------------------------------------------------------

  async openFeatures(bases: FeatureBases): Promise<FeatureReader> {
    this.#expectOpen();
    const id = this.#nextFeatures++;
    const { eigenbases, projection } = bases.files ?? {
      eigenbases: writeEigenbases(bases.layout, bases.eigenbases),
      projection: writeProjection(bases.projection),
    };
    const files = [eigenbases, projection];
    await this.#supervisor.call('openFeatures', { features: id, sketchSeed: String(bases.sketchSeed) }, files);
    this.#supervisor.features.add(id);
    // What follows must not keep the bases themselves in memory.
    const { k } = bases.projection;
    return {
      projected: (examples, adapter, options) => this.#projected(id, k, examples, adapter, options),
      close: async () => {
        if (!this.#supervisor.features.delete(id) || this.#supervisor.closed) return;
        await this.#supervisor.call('closeFeatures', { features: id });
      },
    };
  }

  async *#projected(
    id: number,
    k: number,
    examples: readonly Example[],
    adapter: Adapter,
    { fromLayer = 0, stride = 1, signal }: ExampleGradientOptions = {},
  ): AsyncGenerator<ProjectedExample> {
    this.#expectOpen();
    const params = { features: id, adapter: NumberedAdapter.idOf(adapter, this), fromLayer, stride };
    let index = 0;
    for await (const { parts } of this.#chunked('features', params, examples, signal)) {
      const losses = doublesOf(parts[0], Math.min(EXAMPLES_A_CALL, examples.length - index));
      const rows = parts.slice(1).flatMap((part) => projectedOf(part, k));
      if (rows.length !== losses.length) throw strange('features');
      for (const [i, row] of rows.entries()) yield { ...row, index: index++, loss: losses[i]! };
    }
  }

  async fitFeatures(
    examples: readonly Example[],
    adapter: Adapter,
    settings: FeatureSettings,
    hooks: FitHooks,
  ): Promise<{ readonly bases: FeatureBases; readonly projected: readonly Projected[] }> {
    this.#expectOpen();
    const { fromLayer = 0, block, signal } = hooks;
    signal?.throwIfAborted();
    const { k, sketchWidth, sketchSeed, damping } = settings;
    const layout = this.layout(adapter.lora, { fromLayer, block });
    const sample = seededSample(settings.rotationSeed, examples.length, settings.projectionRows);
    const numbers = { adapter: NumberedAdapter.idOf(adapter, this), fit: this.#nextFeatures++ };
    const params = { ...numbers, fromLayer, block, k, sketchWidth, damping, sketchSeed: String(sketchSeed) };
    const parts = [examplesPart(examples), new Uint8Array(Int32Array.from(sample).buffer)];
    const milestone = new FitMilestone();
    const made = await this.#supervisor.retry((child, progressed) =>
      child.call('fitFeatures', params, parts, {
        ...(signal !== undefined && { signal }),
        event({ values }) {
          const reached = milestone.reached(values);
          if (reached === undefined) return;
          progressed();
          hooks.progress?.(...reached);
        },
      }),
    );
    return fittedOf(made.parts, layout, settings, examples.length);
  }

  // ---- the rest ------------------------------------------------------------------------------------------------------

  /** Answers to `method` for the examples, a few at a time and in order; a few calls under way, none begun after an abort. */
  #chunked(
    method: string,
    params: Readonly<Record<string, unknown>>,
    examples: readonly Example[],
    signal: AbortSignal | undefined,
    count = EXAMPLES_A_CALL,
  ): AsyncGenerator<CallResult> {
    const starts = Array.from({ length: Math.ceil(examples.length / count) }, (_, i) => i * count);
    const call = (start: number): Promise<CallResult> => {
      const part = examplesPart(examples.slice(start, start + count));
      return this.#supervisor.call(method, params, [part], signal);
    };
    return inOrder(starts, AHEAD, call, signal);
  }

  metrics(): EngineMetrics {
    const { active, waiting, generated, prompt, memory, tiers } = this.#supervisor.figures();
    return {
      active,
      waiting,
      adapters: this.#closing === undefined ? this.#supervisor.adapters.size : 0,
      generatedTokens: generated,
      promptTokens: prompt,
      memoryBytes: memory,
      tiers,
      restarts: this.#supervisor.restarts,
    };
  }

  close(): Promise<void> {
    this.#closing ??= this.#supervisor.close().finally(this.#gone);
    return this.#closing;
  }

  #expectOpen(): void {
    if (this.#closing !== undefined) throw new EngineError('ENGINE_CLOSED', 'the model is closed');
  }
}

const strange = (method: string): EngineError =>
  new EngineError('ENGINE_FAILED', `${method}: an answer of another shape than asked for`);
