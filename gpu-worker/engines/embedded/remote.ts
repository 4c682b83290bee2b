/** A {@link Host} in a thread of its own: calls go as messages, their events and results come back. */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import type { MatrixCovariance } from '../../attribution/precondition.ts';
import type {
  AdapterFiles,
  Example,
  GeneratedToken,
  Generation,
  ModelInfo,
  ServingLimits,
  TrainingJob,
  TrainingOutcome,
  TrainingProgress,
} from '../engine.ts';
import { EngineError, type EngineErrorCode } from '../engine-error.ts';
import type { PlainRequest } from './batcher.ts';
import type { GenerateHooks, GradientResult, Host, OpenedAdapter, TrainHooks } from './host.ts';
import type { GradientScope } from './statistics.ts';

export interface ThreadData {
  readonly directory: string;
  readonly limits: ServingLimits;
  readonly counters: SharedArrayBuffer;
}

export type Call =
  | { readonly type: 'openAdapter'; readonly files: AdapterFiles }
  | { readonly type: 'closeAdapter'; readonly adapter: number }
  | { readonly type: 'train'; readonly job: TrainingJob }
  | { readonly type: 'generate'; readonly request: PlainRequest; readonly adapter: number | undefined }
  | { readonly type: 'loss'; readonly example: Example; readonly adapter: number | undefined }
  | { readonly type: 'gradient'; readonly example: Example; readonly adapter: number; readonly scope: GradientScope }
  | {
      readonly type: 'covariances';
      readonly examples: readonly Example[];
      readonly adapter: number;
      readonly options: { readonly fromLayer: number; readonly block: number };
    }
  | { readonly type: 'close' };

export type ToThread =
  | { readonly type: 'call'; readonly id: number; readonly call: Call }
  | { readonly type: 'cancel'; readonly id: number }
  /** The checkpoint of call `id` is stored, or could not be. */
  | { readonly type: 'stored'; readonly id: number; readonly fault?: unknown };

export type ThreadEvent =
  | { readonly type: 'token'; readonly token: GeneratedToken }
  | { readonly type: 'progress'; readonly progress: TrainingProgress }
  | { readonly type: 'checkpoint'; readonly state: Uint8Array; readonly step: number };

export interface Fault {
  readonly code: EngineErrorCode | undefined;
  readonly message: string;
}

export type FromThread =
  | { readonly type: 'ready'; readonly info: ModelInfo }
  | { readonly type: 'unready'; readonly fault: Fault }
  | { readonly type: 'event'; readonly id: number; readonly event: ThreadEvent }
  | { readonly type: 'done'; readonly id: number; readonly value: unknown }
  | { readonly type: 'failed'; readonly id: number; readonly fault: Fault };

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: unknown) => void;
  readonly event: (event: ThreadEvent) => void;
  readonly signal: AbortSignal | undefined;
}

const errorOf = ({ code, message }: Fault): EngineError => new EngineError(code ?? 'ENGINE_FAILED', message);

export class RemoteHost implements Host {
  readonly info: ModelInfo;
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #next = 1;
  #ended: EngineError | undefined;

  static async open(data: ThreadData, signal?: AbortSignal): Promise<RemoteHost> {
    const worker = new Worker(new URL('./thread.ts', import.meta.url), { workerData: data, name: 'embedded engine' });
    try {
      const [message] = (await once(worker, 'message', signal === undefined ? {} : { signal })) as [FromThread];
      if (message.type === 'unready') throw errorOf(message.fault);
      if (message.type !== 'ready') throw new EngineError('ENGINE_FAILED', `the thread said ${message.type} first`);
      return new RemoteHost(worker, message.info);
    } catch (error) {
      await worker.terminate();
      if (signal?.aborted === true) throw signal.reason;
      throw error instanceof EngineError
        ? error
        : new EngineError('ENGINE_FAILED', 'the thread died', { cause: error });
    }
  }

  private constructor(worker: Worker, info: ModelInfo) {
    this.#worker = worker;
    this.info = info;
    // The process may end while a model is loaded and idle.
    worker.unref();
    worker.on('message', (message: FromThread) => this.#receive(message));
    worker.on('error', (cause) => {
      const memory = (cause as { code?: unknown }).code === 'ERR_WORKER_OUT_OF_MEMORY';
      this.#end(new EngineError(memory ? 'OUT_OF_MEMORY' : 'ENGINE_FAILED', 'the engine thread died', { cause }));
    });
    worker.on('exit', () => this.#end(new EngineError('ENGINE_CLOSED', 'the model is closed')));
  }

  openAdapter(files: AdapterFiles): Promise<OpenedAdapter> {
    return this.#call({ type: 'openAdapter', files }) as Promise<OpenedAdapter>;
  }

  async closeAdapter(adapter: number): Promise<void> {
    if (this.#ended === undefined) await this.#call({ type: 'closeAdapter', adapter });
  }

  train(job: TrainingJob, hooks: TrainHooks): Promise<TrainingOutcome> {
    let id = 0;
    const event = (event: ThreadEvent): void => {
      if (event.type === 'progress') hooks.progress(event.progress);
      if (event.type !== 'checkpoint') return;
      hooks.checkpoint(event.state, event.step).then(
        () => this.#post({ type: 'stored', id }),
        (fault: unknown) => {
          this.#pending.get(id)?.reject(fault);
          this.#post({ type: 'cancel', id });
          this.#post({ type: 'stored', id });
        },
      );
    };
    const outcome = this.#call({ type: 'train', job }, event, hooks.signal, (given) => {
      id = given;
    });
    return outcome as Promise<TrainingOutcome>;
  }

  generate(request: PlainRequest, adapter: number | undefined, hooks: GenerateHooks): Promise<Generation> {
    const event = (event: ThreadEvent): void => {
      if (event.type === 'token') hooks.token(event.token);
    };
    return this.#call({ type: 'generate', request, adapter }, event, hooks.signal) as Promise<Generation>;
  }

  loss(example: Example, adapter: number | undefined): Promise<number> {
    return this.#call({ type: 'loss', example, adapter }) as Promise<number>;
  }

  gradient(example: Example, adapter: number, scope: GradientScope): Promise<GradientResult> {
    return this.#call({ type: 'gradient', example, adapter, scope }) as Promise<GradientResult>;
  }

  covariances(
    examples: readonly Example[],
    adapter: number,
    options: { readonly fromLayer: number; readonly block: number },
    signal: AbortSignal,
  ): Promise<MatrixCovariance[]> {
    const call: Call = { type: 'covariances', examples, adapter, options };
    return this.#call(call, () => {}, signal) as Promise<MatrixCovariance[]>;
  }

  async close(): Promise<void> {
    if (this.#ended === undefined) await this.#call({ type: 'close' });
    this.#end(new EngineError('ENGINE_CLOSED', 'the model is closed'));
    this.#worker.ref();
    await this.#worker.terminate();
  }

  #call(
    call: Call,
    event: (event: ThreadEvent) => void = () => {},
    signal?: AbortSignal,
    begun?: (id: number) => void,
  ): Promise<unknown> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = this.#next++;
    begun?.(id);
    const { promise, resolve, reject } = Promise.withResolvers<unknown>();
    const cancel = (): void => this.#post({ type: 'cancel', id });
    if (this.#pending.size === 0) this.#worker.ref();
    this.#pending.set(id, { resolve, reject, event, signal });
    this.#post({ type: 'call', id, call });
    if (signal?.aborted === true) cancel();
    else signal?.addEventListener('abort', cancel, { once: true });
    return promise.finally(() => {
      signal?.removeEventListener('abort', cancel);
      this.#pending.delete(id);
      if (this.#pending.size === 0 && this.#ended === undefined) this.#worker.unref();
    });
  }

  #post(message: ToThread): void {
    this.#worker.postMessage(message);
  }

  #receive(message: FromThread): void {
    if (message.type === 'ready' || message.type === 'unready') return;
    const pending = this.#pending.get(message.id);
    if (pending === undefined) return;
    if (message.type === 'event') {
      try {
        pending.event(message.event);
      } catch (error) {
        // A hook that throws ends its call, not the engine.
        pending.reject(error);
        this.#post({ type: 'cancel', id: message.id });
      }
    } else if (message.type === 'done') pending.resolve(message.value);
    else if (pending.signal?.aborted === true && message.fault.code === undefined)
      pending.reject(pending.signal.reason);
    else pending.reject(errorOf(message.fault));
  }

  #end(error: EngineError): void {
    this.#ended ??= error;
    for (const { reject } of this.#pending.values()) reject(this.#ended);
  }
}
