/** One model and all that is done with it, in the thread it runs in: slices of work take turns on the event loop. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { MatrixCovariance } from '../../attribution/precondition.ts';
import type {
  AdapterFiles,
  Example,
  GeneratedToken,
  Generation,
  LoraSettings,
  ModelInfo,
  ServingLimits,
  TrainingJob,
  TrainingOutcome,
  TrainingProgress,
} from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import { readTokenizer } from '../text/tokenizer-files.ts';
import { type LoraMemory, openAdapter, writeAdapter } from './adapter.ts';
import { type PlainRequest, Server } from './batcher.ts';
import { loadModel, type Model } from './model.ts';
import { checkExample, pass } from './pass.ts';
import { Covariances, exampleGradient, type GradientScope } from './statistics.ts';
import { Trainer } from './trainer.ts';

export interface OpenedAdapter {
  readonly id: number;
  readonly lora: LoraSettings;
  readonly bytes: number;
}

export interface TrainHooks {
  readonly signal: AbortSignal;
  progress(progress: TrainingProgress): void;
  checkpoint(state: Uint8Array, step: number): Promise<void>;
}

export interface GenerateHooks {
  readonly signal: AbortSignal;
  token(token: GeneratedToken): void;
}

export interface GradientResult {
  readonly gradient: Float32Array<ArrayBuffer>;
  readonly loss: number;
  readonly tokens: number;
}

/** What crosses into the model's thread. Adapters go by number. */
export interface Host {
  openAdapter(files: AdapterFiles): Promise<OpenedAdapter>;
  closeAdapter(adapter: number): Promise<void>;
  train(job: TrainingJob, hooks: TrainHooks): Promise<TrainingOutcome>;
  generate(request: PlainRequest, adapter: number | undefined, hooks: GenerateHooks): Promise<Generation>;
  loss(example: Example, adapter: number | undefined): Promise<number>;
  gradient(example: Example, adapter: number, scope: GradientScope): Promise<GradientResult>;
  covariances(
    examples: readonly Example[],
    adapter: number,
    options: { readonly fromLayer: number; readonly block: number },
    signal: AbortSignal,
  ): Promise<MatrixCovariance[]>;
  close(): Promise<void>;
}

/** Where the counts of {@link EngineMetrics} lie in memory that both threads see. */
export const COUNTERS = { active: 0, waiting: 1, adapters: 2, generated: 3, prompt: 4, memory: 5 } as const;
export const COUNTER_BYTES = 6 * 8;

const SERVING_MILLISECONDS = 20;

interface HeldAdapter {
  readonly memory: LoraMemory;
  users: number;
  closed: boolean;
}

export class ModelHost implements Host {
  readonly info: ModelInfo;
  readonly #model: Model;
  readonly #server: Server;
  readonly #counters: Float64Array;
  readonly #adapters = new Map<number, HeldAdapter>();
  #nextAdapter = 1;
  #serving: Promise<void> | undefined;
  /** Trainings and covariances under way. */
  #jobs = 0;
  #closed = false;

  static async open(
    directory: string,
    limits: ServingLimits,
    counters: Float64Array,
    signal?: AbortSignal,
  ): Promise<ModelHost> {
    const model = await loadModel(directory, signal);
    const tokenizer = await readTokenizer(directory, model.shape);
    return new ModelHost(model, new Server(model, tokenizer, limits), counters);
  }

  private constructor(model: Model, server: Server, counters: Float64Array) {
    this.#model = model;
    this.#server = server;
    this.#counters = counters;
    this.info = model.info;
    this.#count();
  }

  async openAdapter(files: AdapterFiles): Promise<OpenedAdapter> {
    this.#expectOpen();
    const memory = openAdapter(this.#model, files);
    const id = this.#nextAdapter++;
    this.#adapters.set(id, { memory, users: 0, closed: false });
    this.#count();
    return { id, lora: memory.lora, bytes: memory.bytes };
  }

  async closeAdapter(adapter: number): Promise<void> {
    const held = this.#adapters.get(adapter);
    if (held === undefined || held.closed) return;
    held.closed = true;
    this.#adapters.delete(adapter);
    if (held.users === 0) held.memory.close();
    this.#count();
  }

  async train(job: TrainingJob, hooks: TrainHooks): Promise<TrainingOutcome> {
    this.#expectOpen();
    const started = performance.now();
    const trainer = new Trainer(this.#model, job);
    const { lora, checkpointEvery } = job.settings;
    this.#jobs++;
    try {
      let reported = performance.now();
      while (trainer.step < trainer.total) {
        const slices = trainer.slices();
        let slice = slices.next();
        while (slice.done !== true) {
          await this.#turn(hooks.signal);
          slice = slices.next();
        }
        const { step, loss, learningRate, tokens } = slice.value;
        const now = performance.now();
        const tokensPerSecond = (tokens * 1000) / Math.max(1e-3, now - reported);
        reported = now;
        hooks.progress({ step, total: trainer.total, loss, learningRate, tokensPerSecond });
        if (checkpointEvery !== undefined && step % checkpointEvery === 0) {
          await hooks.checkpoint(trainer.checkpoint(), step);
          await this.#turn(hooks.signal);
        }
      }
      const { final, middle, loss } = trainer.result();
      const base = job.baseName ?? this.info.name;
      const files = (parameters: Float32Array): AdapterFiles =>
        writeAdapter(this.#model.shape, lora, trainer.adapter.layout, parameters, base);
      return {
        adapter: files(final),
        attribution: files(middle),
        steps: trainer.step,
        tokens: trainer.tokens,
        loss,
        milliseconds: performance.now() - started,
      };
    } finally {
      this.#jobs--;
      trainer.close();
      this.#count();
    }
  }

  async generate(request: PlainRequest, adapter: number | undefined, hooks: GenerateHooks): Promise<Generation> {
    this.#expectOpen();
    return this.#with(adapter, async (memory) => {
      const generation = this.#server.generate(request, memory, hooks);
      this.#serving ??= this.#serve();
      this.#count();
      try {
        return await generation;
      } finally {
        this.#count();
      }
    });
  }

  async loss(example: Example, adapter: number | undefined): Promise<number> {
    await this.#turn();
    return this.#with(adapter, async (memory) => {
      checkExample(this.#model, example);
      const { loss, tokens } = pass(this.#model, example, memory);
      return loss / tokens;
    });
  }

  async gradient(example: Example, adapter: number, scope: GradientScope): Promise<GradientResult> {
    await this.#turn();
    return this.#with(adapter, async (memory) => exampleGradient(this.#model, example, memory!, scope));
  }

  async covariances(
    examples: readonly Example[],
    adapter: number,
    { fromLayer, block }: { readonly fromLayer: number; readonly block: number },
    signal: AbortSignal,
  ): Promise<MatrixCovariance[]> {
    this.#expectOpen();
    return this.#with(adapter, async (memory) => {
      const covariances = new Covariances(this.#model, memory!, fromLayer, block);
      this.#jobs++;
      try {
        for (const example of examples) {
          await this.#turn(signal);
          covariances.add(example);
        }
      } finally {
        this.#jobs--;
      }
      return covariances.finish();
    });
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#server.close();
    await this.#serving;
    this.#count();
  }

  // ---- turns ---------------------------------------------------------------------------------------------------------

  async #serve(): Promise<void> {
    // Whoever called keeps this promise first: there may be nothing to do after all, and then it is forgotten at once.
    await Promise.resolve();
    for (;;) {
      // Beside long work, which takes tens of milliseconds a slice, more than one step a turn.
      const until = performance.now() + (this.#jobs > 0 ? SERVING_MILLISECONDS : 0);
      let busy = this.#server.step();
      while (busy && performance.now() < until) busy = this.#server.step();
      this.#count();
      if (!busy) break;
      await nextTurn();
    }
    this.#serving = undefined;
  }

  async #turn(signal?: AbortSignal): Promise<void> {
    await nextTurn();
    this.#expectOpen();
    signal?.throwIfAborted();
  }

  #expectOpen(): void {
    if (this.#closed) throw new EngineError('ENGINE_CLOSED', 'the model is closed');
  }

  /** An adapter that is closed meanwhile is freed when its last user is done. */
  async #with<T>(adapter: number | undefined, body: (memory: LoraMemory | undefined) => Promise<T>): Promise<T> {
    if (adapter === undefined) return body(undefined);
    const held = this.#adapters.get(adapter);
    if (held === undefined) throw new EngineError('ADAPTER_CLOSED', 'the adapter is closed');
    held.users++;
    try {
      return await body(held.memory);
    } finally {
      held.users--;
      if (held.closed && held.users === 0) held.memory.close();
    }
  }

  #count(): void {
    const counters = this.#counters;
    counters[COUNTERS.active] = this.#server.active;
    counters[COUNTERS.waiting] = this.#server.waiting;
    counters[COUNTERS.adapters] = this.#adapters.size;
    counters[COUNTERS.generated] = this.#server.counters.generated;
    counters[COUNTERS.prompt] = this.#server.counters.prompt;
    counters[COUNTERS.memory] = this.#model.heap.memory.buffer.byteLength;
  }
}
