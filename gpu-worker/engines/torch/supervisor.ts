/** Keeps a Python process with a model running: starts it, notices its death, starts another, and makes calls again. */
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { EngineError } from '../engine-error.ts';
import { type CallResult, Child, ChildGone, type ChildOptions, type Figures, type Hello } from './child.ts';
import type { Header } from './protocol.ts';

export interface SupervisorOptions extends Omit<ChildOptions, 'scratch'> {
  /** Where the scratch directory is made (default: the system's). */
  readonly scratch?: string;
  /** Longest pause before another start (default 10 s). */
  readonly backoffMs?: number;
}

/** Times a call is made that brings its process down each time. */
const ATTEMPTS = 3;
/** Starts in a row that may fail before callers are told. */
const STARTS = 3;
const PREFIX = 'openledger-torch-';

export class Supervisor {
  /** Numbers of the adapters that are open: the next process is told of them. */
  readonly adapters = new Set<number>();
  /** Numbers of the bases that features are made in, likewise. */
  readonly features = new Set<number>();
  readonly #options: SupervisorOptions;
  readonly #load: Header;
  readonly #scratch: string;
  readonly #closing = new AbortController();
  #child: Promise<Child> | undefined;
  #current: Child | undefined;
  #restarts = 0;
  /** Tokens that processes before this one generated and read. */
  #before = { generated: 0, prompt: 0 };

  /** Starts the first process and loads; rejects with what is wrong with the model, or `ENGINE_FAILED` with why it does not start. */
  static async start(
    options: SupervisorOptions,
    load: Header,
    signal?: AbortSignal,
  ): Promise<{ supervisor: Supervisor; hello: Hello; loaded: Header }> {
    const parent = options.scratch ?? tmpdir();
    await mkdir(parent, { recursive: true });
    await sweep(parent);
    const scratch = await mkdtemp(join(parent, `${PREFIX}${process.pid}-`));
    const supervisor = new Supervisor(options, load, scratch);
    try {
      const { child, hello, loaded } = await supervisor.#begin(signal);
      supervisor.#adopt(child);
      return { supervisor, hello, loaded };
    } catch (error) {
      await rm(scratch, { recursive: true, force: true });
      throw error instanceof ChildGone ? new EngineError('ENGINE_FAILED', error.message, { cause: error }) : error;
    }
  }

  private constructor(options: SupervisorOptions, load: Header, scratch: string) {
    this.#options = options;
    this.#load = load;
    this.#scratch = scratch;
  }

  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** Processes that took over from one that died. */
  get restarts(): number {
    return this.#restarts;
  }

  /** The running process, for tests that end it. */
  get pid(): number | undefined {
    return this.#current?.pid;
  }

  figures(): Figures {
    const now = this.#current?.figures;
    return {
      active: now?.active ?? 0,
      waiting: now?.waiting ?? 0,
      adapters: now?.adapters ?? 0,
      memory: now?.memory ?? 0,
      tiers: now?.tiers ?? { device: 0, host: 0, disk: 0 },
      generated: this.#before.generated + (now?.generated ?? 0),
      prompt: this.#before.prompt + (now?.prompt ?? 0),
    };
  }

  call(method: string, params: Header, parts: readonly Uint8Array[] = [], signal?: AbortSignal): Promise<CallResult> {
    return this.retry((child) => child.call(method, params, parts, signal === undefined ? {} : { signal }));
  }

  /**
   * Runs `body` with the process, and again with the next one when it died meanwhile. A body that says `progressed()` gets its
   * attempts anew: only one that gets nowhere is given up, with `ENGINE_FAILED`.
   */
  async retry<T>(body: (child: Child, progressed: () => void) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const child = await this.#connected();
      try {
        return await body(child, () => {
          attempt = 0;
        });
      } catch (error) {
        if (!(error instanceof ChildGone)) throw error;
        if (this.closed) throw new EngineError('ENGINE_CLOSED', 'the model is closed');
        if (attempt >= ATTEMPTS) {
          throw new EngineError('ENGINE_FAILED', `the engine died ${attempt} times at this call: ${error.message}`, {
            cause: error,
          });
        }
      }
    }
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.#closing.abort();
    const child = await this.#child?.catch(() => undefined);
    await child?.stop();
    await rm(this.#scratch, { recursive: true, force: true });
  }

  #connected(): Promise<Child> {
    if (this.closed) return Promise.reject(new EngineError('ENGINE_CLOSED', 'the model is closed'));
    this.#child ??= this.#restart();
    return this.#child;
  }

  #adopt(child: Child): Child {
    this.#child = Promise.resolve(child);
    this.#current = child;
    child.ended
      .then((gone) => {
        this.#before.generated += child.figures.generated;
        this.#before.prompt += child.figures.prompt;
        if (this.#current === child) {
          this.#current = undefined;
          this.#child = undefined;
        }
        if (!this.closed) this.#options.log?.(gone.message);
      })
      .catch(() => {});
    return child;
  }

  async #restart(): Promise<Child> {
    for (let failed = 0; ; failed++) {
      try {
        const { child } = await this.#begin(this.#closing.signal);
        try {
          if (this.adapters.size > 0) await child.call('recoverAdapters', { adapters: [...this.adapters] });
          if (this.features.size > 0) await child.call('recoverFeatures', { features: [...this.features] });
        } catch (error) {
          child.kill('it does not know its adapters or bases any more');
          throw error;
        }
        this.#restarts++;
        return this.#adopt(child);
      } catch (error) {
        if (this.closed || failed + 1 >= STARTS) {
          // The next call tries afresh.
          this.#child = undefined;
          if (this.closed) throw new EngineError('ENGINE_CLOSED', 'the model is closed');
          const why = error instanceof Error ? error.message : String(error);
          throw new EngineError('ENGINE_FAILED', `the engine does not start again: ${why}`, { cause: error });
        }
        const pause = Math.min(this.#options.backoffMs ?? 10_000, 500 * 4 ** failed);
        await wait(pause, undefined, { signal: this.#closing.signal }).catch(() => {});
      }
    }
  }

  async #begin(signal?: AbortSignal): Promise<{ child: Child; hello: Hello; loaded: Header }> {
    const { child, hello } = await Child.start({ ...this.#options, scratch: this.#scratch }, signal);
    try {
      const { value } = await child.call('load', this.#load, [], signal === undefined ? {} : { signal });
      signal?.throwIfAborted();
      return { child, hello, loaded: value };
    } catch (error) {
      child.kill('its start was given up');
      await child.ended;
      if (signal?.aborted === true) throw signal.reason;
      throw error;
    }
  }
}

/** Removes what workers left that were killed. */
async function sweep(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const pid = name.startsWith(PREFIX) ? Number(name.slice(PREFIX.length).split('-')[0]) : Number.NaN;
    if (!Number.isInteger(pid) || pid <= 0 || isAlive(pid)) continue;
    await rm(join(parent, name), { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
