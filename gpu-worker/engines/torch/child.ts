/** One Python process from its first word to its end: calls, their events, its heart-beat. What lives longer is `model.ts`. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import type { Readable, Writable } from 'node:stream';
import { EngineError, type EngineErrorCode } from '../engine-error.ts';
import { encodeFrame, type Frame, type Header, PROTOCOL_VERSION, ProtocolError, readFrames } from './protocol.ts';

export interface ChildOptions {
  /** Program and arguments; `--scratch DIR` is added. */
  readonly command: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** A private directory for large tensors and the disk tier of adapters. */
  readonly scratch: string;
  /** Until the first word: Python imports torch (default 120 s). */
  readonly helloMs?: number;
  /** Silence after which it counts as hung (default 60 s). */
  readonly silenceMs?: number;
  /** One slice of work of this length counts as hung (default 10 min). */
  readonly stallMs?: number;
  /** From the word stop to force (default 15 s). */
  readonly stopMs?: number;
  readonly log?: (line: string) => void;
}

export interface Hello {
  readonly engine: string;
  readonly python: string;
  readonly torch: string;
  readonly transformers: string;
  readonly gpus: readonly string[];
}

/** What the heart-beat and answers carry. */
export interface Figures {
  readonly active: number;
  readonly waiting: number;
  readonly adapters: number;
  readonly generated: number;
  readonly prompt: number;
  readonly memory: number;
  readonly tiers: { readonly device: number; readonly host: number; readonly disk: number };
}

export interface CallEvent {
  readonly name: string;
  readonly values: Header;
  readonly parts: readonly Uint8Array[];
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  token?(id: number): void;
  event?(event: CallEvent): void;
  /** Told the number of the call before it is sent. */
  begun?(id: number): void;
}

export interface CallResult {
  readonly value: Header;
  readonly parts: readonly Uint8Array[];
}

/** The process is gone or not to be trusted any more; its calls may be made again in another. */
export class ChildGone extends Error {
  readonly code = 'CHILD_GONE';
}

/** The call was given up before it began. */
export class CallCancelled extends Error {
  readonly code = 'CALL_CANCELLED';
}

const CODES: ReadonlySet<string> = new Set<EngineErrorCode>([
  ...(['MODEL_NOT_FOUND', 'BAD_CONFIG', 'UNSUPPORTED_MODEL', 'BAD_TENSORS', 'BAD_TOKENIZER', 'BAD_TEMPLATE'] as const),
  ...(['BAD_ADAPTER', 'UNSUPPORTED_ADAPTER', 'ADAPTER_CLOSED', 'BAD_SETTINGS', 'BAD_EXAMPLE', 'BAD_REQUEST'] as const),
  ...(['PROMPT_TOO_LONG', 'BAD_CHECKPOINT', 'OUT_OF_MEMORY', 'OVERLOADED', 'DIVERGED'] as const),
  ...(['ENGINE_CLOSED', 'ENGINE_FAILED'] as const),
]);

const NO_FIGURES: Figures = {
  ...{ active: 0, waiting: 0, adapters: 0, generated: 0, prompt: 0, memory: 0 },
  tiers: { device: 0, host: 0, disk: 0 },
};
/** Calls under way at a time, and bytes that the child has not read yet. */
const MAX_CALLS = 2048;
const MAX_UNSENT = 64 << 20;
const LAST_WORDS = 20;

interface Pending {
  readonly options: CallOptions;
  readonly resolve: (result: CallResult) => void;
  readonly reject: (error: unknown) => void;
  /** The caller has its error already; the child's answer is awaited all the same. */
  settled: boolean;
}

export class Child {
  readonly #options: ChildOptions;
  readonly #process: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #pending = new Map<number, Pending>();
  readonly #ended = Promise.withResolvers<ChildGone>();
  readonly #lastWords: string[] = [];
  readonly #hello = Promise.withResolvers<Hello>();
  #next = 1;
  #gone: ChildGone | undefined;
  #verdict: string | undefined;
  #heard = performance.now();
  #watch: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #greeted = false;
  #figures: Figures = NO_FIGURES;
  #loading = false;
  /** While it starts or stops, the worker's process waits for it. */
  #held = true;

  /** Rejects with {@link ChildGone} (what it said last is in the message) or the signal's reason. */
  static async start(options: ChildOptions, signal?: AbortSignal): Promise<{ child: Child; hello: Hello }> {
    signal?.throwIfAborted();
    const child = new Child(options);
    const abort = (): void => child.kill('the start was given up');
    signal?.addEventListener('abort', abort, { once: true });
    const patience = setTimeout(() => child.kill('no first word in time'), options.helloMs ?? 120_000);
    try {
      const hello = await Promise.race([
        child.#hello.promise,
        child.ended.then((gone) => {
          throw gone;
        }),
      ]);
      return { child, hello };
    } catch (error) {
      signal?.throwIfAborted();
      throw error;
    } finally {
      child.#held = false;
      child.#mind();
      clearTimeout(patience);
      signal?.removeEventListener('abort', abort);
    }
  }

  private constructor(options: ChildOptions) {
    this.#options = options;
    const [program, ...args] = options.command;
    this.#process = spawn(program!, [...args, '--scratch', options.scratch], {
      stdio: ['pipe', 'pipe', 'pipe'],
      cwd: options.scratch,
      env: { ...withoutSecrets(process.env), ...options.environment },
    });
    const listening = this.#listen().catch((error: Error) => this.kill(error.message));
    this.#process.on('error', (error) => {
      this.#verdict ??= `${program} does not start: ${error.message}`;
      this.#end();
    });
    this.#process.on('close', (code, signal) => {
      this.#verdict ??= signal === null ? `it ended with code ${code}` : `it was killed by ${signal}`;
      // What it said last is heard out.
      listening.finally(() => this.#end()).catch(() => {});
    });
    // Writing to a process that is gone is no news: `close` tells.
    this.#process.stdin.on('error', () => {});
    this.#hearErrors();
    this.#watch = setInterval(() => this.#lookAfter(), 1_000);
    this.#watch.unref();
    this.#mind();
  }

  /** Resolves when the process is gone, with why. */
  get ended(): Promise<ChildGone> {
    return this.#ended.promise;
  }

  get alive(): boolean {
    return this.#gone === undefined && this.#verdict === undefined;
  }

  get figures(): Figures {
    return this.#figures;
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /**
   * Rejects with an EngineError that the child gave, {@link ChildGone}, or the signal's reason. An abort is passed on and the
   * child's answer awaited.
   */
  async call(
    method: string,
    params: Header,
    parts: readonly Uint8Array[] = [],
    options: CallOptions = {},
  ): Promise<CallResult> {
    if (this.#gone !== undefined) throw this.#gone;
    if (this.#pending.size >= MAX_CALLS) throw new EngineError('OVERLOADED', `${MAX_CALLS} calls are under way`);
    if (this.#process.stdin.writableLength > MAX_UNSENT) {
      throw new EngineError('OVERLOADED', 'the engine process does not read what it is sent');
    }
    const id = this.#next++;
    const { promise, resolve, reject } = Promise.withResolvers<CallResult>();
    const { signal } = options;
    promise.catch(() => {});
    const cancel = (): void => this.#tell({ type: 'cancel', id });
    this.#pending.set(id, { options, resolve, reject, settled: false });
    this.#mind();
    if (method === 'load') this.#loading = true;
    options.begun?.(id);
    try {
      await this.#send({ type: 'call', id, method, params }, parts);
      if (signal?.aborted === true) cancel();
      else signal?.addEventListener('abort', cancel, { once: true });
      return await promise;
    } catch (error) {
      // A tail that could not be written (a full disk): the child knows nothing of the call.
      if (!this.#pending.get(id)?.settled) this.#pending.delete(id);
      throw error;
    } finally {
      if (method === 'load') this.#loading = false;
      signal?.removeEventListener('abort', cancel);
      this.#mind();
    }
  }

  /** The checkpoint of call `id` is stored: it goes on. */
  stored(id: number): void {
    this.#tell({ type: 'stored', id });
  }

  /** Ends the call for its caller, at once; the child is told. */
  giveUp(id: number, error: unknown): void {
    const pending = this.#pending.get(id);
    if (pending === undefined || pending.settled) return;
    pending.settled = true;
    pending.reject(error);
    this.#tell({ type: 'cancel', id });
  }

  /** Lets it end its work, then by force. */
  async stop(): Promise<void> {
    if (this.#gone !== undefined) return;
    this.#held = true;
    this.#mind();
    await this.#send({ type: 'stop' }).catch(() => {});
    const force = setTimeout(() => this.kill('it did not stop'), this.#options.stopMs ?? 15_000);
    await this.ended;
    clearTimeout(force);
  }

  kill(why: string): void {
    // Whoever waits for its end lives to see it.
    this.#process.ref();
    this.#verdict ??= why;
    this.#process.kill('SIGKILL');
  }

  #tell(header: Header): void {
    this.#send(header).catch(() => {});
  }

  async #send(header: Header, parts: readonly Uint8Array[] = []): Promise<void> {
    const bytes = encodeFrame(header, parts, this.#options.scratch);
    // In the order of the calls, though large tails take their time.
    const turn = this.#writing.then(async () => {
      const frame = await bytes;
      if (this.alive) this.#process.stdin.write(frame);
    });
    this.#writing = turn.catch(() => {});
    await turn;
  }

  async #listen(): Promise<void> {
    for await (const frame of readFrames(this.#process.stdout, this.#options.scratch)) {
      this.#heard = performance.now();
      this.#receive(frame);
    }
  }

  #receive({ header, parts }: Frame): void {
    const { type, id } = header;
    switch (type) {
      case 'hello':
        if (header.protocol !== PROTOCOL_VERSION) {
          throw new ProtocolError(`protocol ${String(header.protocol)}, this side speaks ${PROTOCOL_VERSION}`);
        }
        this.#greeted = true;
        this.#hello.resolve(header as unknown as Hello);
        return;
      case 'beat': {
        this.#note(header);
        const { busy } = header;
        if (typeof busy !== 'number') throw new ProtocolError('a heart-beat that does not say how busy it is');
        if (!this.#loading && busy * 1000 > (this.#options.stallMs ?? 600_000)) {
          this.kill(`one slice of work took ${Math.round(busy)} s`);
        }
        return;
      }
      case 'tokens': {
        const { tokens } = header;
        if (!Array.isArray(tokens) || tokens.length % 2 !== 0 || !tokens.every((n) => Number.isSafeInteger(n))) {
          throw new ProtocolError('tokens that are no pairs');
        }
        for (let i = 0; i < tokens.length; i += 2) {
          const pending = this.#of(tokens[i]);
          this.#hook(tokens[i] as number, pending, () => pending.options.token?.(tokens[i + 1] as number));
        }
        return;
      }
      case 'event': {
        const pending = this.#of(id);
        const { event: name, type: _, id: __, ...values } = header;
        this.#hook(id as number, pending, () => pending.options.event?.({ name: String(name), values, parts }));
        return;
      }
      case 'done':
      case 'failed':
      case 'cancelled': {
        const pending = this.#of(id);
        this.#pending.delete(id as number);
        if (type === 'done') {
          const value = (header.value ?? {}) as Header;
          this.#note((value.figures ?? {}) as Header);
          pending.resolve({ value, parts });
        } else if (type === 'cancelled') {
          pending.reject(pending.options.signal?.reason ?? new CallCancelled('the call was given up'));
        } else {
          const { code, message } = header;
          const known = typeof code === 'string' && CODES.has(code) ? (code as EngineErrorCode) : 'ENGINE_FAILED';
          pending.reject(new EngineError(known, String(message)));
        }
        return;
      }
      case 'stopped':
        return;
      default:
        throw new ProtocolError(`a message of type ${String(type)}`);
    }
  }

  #of(id: unknown): Pending {
    const pending = typeof id === 'number' ? this.#pending.get(id) : undefined;
    if (pending === undefined) throw new ProtocolError(`an answer to call ${String(id)}, which nobody made`);
    return pending;
  }

  /** A hook that throws ends its call, not the engine. */
  #hook(id: number, pending: Pending, body: () => void): void {
    if (pending.settled) return;
    try {
      body();
    } catch (error) {
      this.giveUp(id, error);
    }
  }

  #note(figures: Header): void {
    if (typeof figures.generated === 'number') this.#figures = figures as unknown as Figures;
  }

  #hearErrors(): void {
    let rest = '';
    this.#process.stderr.setEncoding('utf8');
    this.#process.stderr.on('data', (text: string) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop()!.slice(-4096);
      for (const line of lines) {
        if (line.trim() === '') continue;
        this.#lastWords.push(line.slice(0, 500));
        if (this.#lastWords.length > LAST_WORDS) this.#lastWords.shift();
        this.#options.log?.(line);
      }
    });
  }

  #lookAfter(): void {
    // Until its first word, another patience counts.
    if (!this.#greeted) return;
    const silence = this.#options.silenceMs ?? 60_000;
    // Loading reads from disk without a pause for others.
    const patience = this.#loading ? silence * 20 : silence;
    if (performance.now() - this.#heard > patience) this.kill(`no heart-beat for ${Math.round(patience / 1000)} s`);
  }

  /** The worker's process may end while the child is idle, which sees its pipe close and ends too. */
  #mind(): void {
    const busy = this.#held || this.#pending.size > 0;
    const { stdin, stdout, stderr } = this.#process as unknown as Record<'stdin' | 'stdout' | 'stderr', Socket>;
    for (const each of [this.#process, stdin, stdout, stderr]) {
      if (busy) each.ref?.();
      else each.unref?.();
    }
  }

  #end(): void {
    if (this.#gone !== undefined) return;
    clearInterval(this.#watch);
    const words = this.#lastWords.length === 0 ? '' : `; it said: ${this.#lastWords.slice(-3).join(' | ')}`;
    this.#gone = new ChildGone(`the engine process is gone: ${this.#verdict ?? 'its pipe closed'}${words}`);
    for (const { reject } of this.#pending.values()) reject(this.#gone);
    this.#pending.clear();
    this.#ended.resolve(this.#gone);
  }
}

/** The child needs no keys of the worker's. */
function withoutSecrets(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith('OPENLEDGER_')));
}
