/**
 * Reads of states on threads of their own, so that no question, however expensive, keeps blocks waiting. Those who ask take
 * turns: whoever has used least of late comes first, and nobody has all threads at once. A question that takes too long is
 * ended together with its thread.
 */
import { Worker } from 'node:worker_threads';
import { toHex } from '../../runtime/primitives/bytes.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { latin1 } from '../latin1.ts';
import {
  type PageQuery,
  ReadError,
  type ReadOptions,
  RuntimeCallError,
  type StatePage,
  type StateReads,
} from '../ports/chain.ts';
import type { Log } from '../ports/machine.ts';
import type { StateRoot } from '../state/state-database.ts';
import {
  type Operation,
  pack,
  type Question,
  type Ready,
  type Reply,
  type Result,
  unpack,
  unpackAll,
} from './messages.ts';

export interface ReaderPorts {
  /** The database's directory. */
  readonly path: string;
  rootOf(block: Hash): StateRoot | undefined;
  /** Resolves when what is known here can be read by other threads. */
  written(): Promise<void>;
  readonly log: Log;
}

export interface ReaderSettings {
  /** Threads that start one by one as they are needed. */
  readonly threads?: number;
  /** Questions that may wait, over all callers. */
  readonly maxWaiting?: number;
  /** A thread that had nothing to do for so long is ended. */
  readonly idleMs?: number;
  /** A question waits so long for a thread that is busy before another one is started. */
  readonly startMs?: number;
}

interface Job {
  readonly question: Question;
  readonly by: object;
  readonly maxMs: number;
  readonly settle: (reply: Reply) => void;
  readonly fail: (problem: ReadError) => void;
}

/** One who asks. */
interface Asker {
  readonly jobs: Job[];
  running: number;
  spent: number;
  at: number;
}

interface Thread {
  readonly worker: Worker;
  /** Whether it has come up: it gets nothing to do before. */
  ready: boolean;
  job: Job | undefined;
  timer: NodeJS.Timeout | undefined;
}

const HALF_LIFE_MS = 5_000;
/** Callers whose use is remembered. */
const MAX_ASKERS = 1_024;
/** Keys of one question; more are asked for in several, between which others have their turns. */
const KEYS_AT_ONCE = 512;
/** Megabytes that a thread's objects may take. */
const HEAP_MIB = 192;

export class Readers implements StateReads {
  readonly #ports: ReaderPorts;
  readonly #settings: Required<ReaderSettings>;
  readonly #threads = new Set<Thread>();
  readonly #askers = new Map<object, Asker>();
  #waiting = 0;
  #growing: NodeJS.Timeout | undefined;
  #idle: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(ports: ReaderPorts, settings: ReaderSettings = {}) {
    this.#ports = ports;
    this.#settings = { threads: 2, maxWaiting: 4_096, idleMs: 60_000, startMs: 50, ...settings };
  }

  /** Questions that wait or are under way, and threads. */
  get load(): { readonly waiting: number; readonly threads: number } {
    return { waiting: this.#waiting, threads: this.#threads.size };
  }

  async values(block: Hash, keys: readonly Uint8Array[], options: ReadOptions) {
    const values: (Uint8Array | undefined)[] = [];
    let left = options.maxBytes;
    for (let at = 0; at < keys.length; at += KEYS_AT_ONCE) {
      const operation: Operation = { type: 'values', keys: pack(keys.slice(at, at + KEYS_AT_ONCE)) };
      const [found] = await this.#read(block, operation, { ...options, maxBytes: left });
      for (const value of unpack(found!)) values.push(value);
      left -= found!.bytes.length;
    }
    return values;
  }

  async page(block: Hash, { prefix, after, count, values }: PageQuery, options: ReadOptions): Promise<StatePage> {
    const operation: Operation = { type: 'page', prefix, after, count, values };
    const result = await this.#ask(block, operation, options);
    const [keys, found] = result.lists.map(unpackAll) as [Uint8Array[], Uint8Array[]];
    return { entries: keys.map((key, at) => [key, found[at]!] as const), more: result.more };
  }

  async prove(block: Hash, keys: readonly Uint8Array[], options: ReadOptions): Promise<readonly Uint8Array[]> {
    const proof = new Map<string, Uint8Array>();
    let left = options.maxBytes;
    for (let at = 0; at < Math.max(1, keys.length); at += KEYS_AT_ONCE) {
      const operation: Operation = { type: 'prove', keys: pack(keys.slice(at, at + KEYS_AT_ONCE)) };
      const [nodes] = await this.#read(block, operation, { ...options, maxBytes: left });
      for (const node of unpackAll(nodes!)) {
        const name = latin1(node);
        if (proof.has(name)) continue;
        proof.set(name, node);
        left -= node.length;
      }
      if (left < 0) throw new ReadError('TOO_LARGE', 'the proof is larger than allowed');
    }
    return [...proof.values()];
  }

  async call(block: Hash, method: string, parameters: Uint8Array, options: ReadOptions): Promise<Uint8Array> {
    const [output] = await this.#read(block, { type: 'call', method, parameters, proof: false }, options);
    return unpackAll(output!)[0]!;
  }

  async proveCall(block: Hash, method: string, parameters: Uint8Array, options: ReadOptions) {
    const [output, proof] = await this.#read(block, { type: 'call', method, parameters, proof: true }, options);
    return { output: unpackAll(output!)[0]!, proof: unpackAll(proof!) };
  }

  async #read(block: Hash, operation: Operation, options: ReadOptions) {
    return (await this.#ask(block, operation, options)).lists;
  }

  async #ask(block: Hash, operation: Operation, options: ReadOptions): Promise<Result & { readonly type: 'found' }> {
    for (let tries = 0; ; tries++) {
      const root = this.#ports.rootOf(block);
      if (root === undefined || tries === 2) {
        throw new ReadError('UNKNOWN_BLOCK', `the state of block ${toHex(block)} is not here`);
      }
      const { result, ms } = await this.#enqueue({ root, maxBytes: options.maxBytes, operation }, options);
      options.spent?.(ms);
      switch (result.type) {
        case 'found':
          return result;
        case 'refused':
          throw new ReadError(result.code, result.message);
        case 'failed':
          throw new RuntimeCallError(result.code, result.message);
        case 'missing':
          await this.#ports.written();
      }
    }
  }

  #enqueue(question: Question, { by, maxMs }: ReadOptions): Promise<Reply> {
    if (this.#closed) return Promise.reject(new ReadError('CLOSED', 'the node is stopping'));
    if (this.#waiting >= this.#settings.maxWaiting) {
      return Promise.reject(new ReadError('OVERLOADED', 'too many reads wait already'));
    }
    return new Promise<Reply>((resolve, reject) => {
      const asker = this.#askers.get(by) ?? { jobs: [], running: 0, spent: 0, at: 0 };
      this.#askers.set(by, asker);
      this.#waiting++;
      asker.jobs.push({
        ...{ question, by, maxMs },
        settle: (reply) => {
          this.#waiting--;
          resolve(reply);
        },
        fail: (problem) => {
          this.#waiting--;
          reject(problem);
        },
      });
      this.#work();
    });
  }

  #spentBy(asker: Asker, now: number): number {
    return asker.spent * 2 ** ((asker.at - now) / HALF_LIFE_MS);
  }

  /** Whose turn it is: one with least time used; with several threads, nobody has the last free one twice. */
  #next(): Asker | undefined {
    const now = performance.now();
    const most = Math.max(1, this.#settings.threads - 1);
    let next: Asker | undefined;
    let least = Number.POSITIVE_INFINITY;
    for (const [by, asker] of this.#askers) {
      if (asker.jobs.length === 0) {
        // Who has used little is forgotten, and where there are many, whoever does not ask now.
        const little = this.#askers.size > MAX_ASKERS || this.#spentBy(asker, now) < 1;
        if (asker.running === 0 && little) this.#askers.delete(by);
        continue;
      }
      if (asker.running >= most) continue;
      const spent = this.#spentBy(asker, now);
      if (spent >= least) continue;
      next = asker;
      least = spent;
    }
    return next;
  }

  #work(): void {
    clearTimeout(this.#idle);
    for (;;) {
      const asker = this.#next();
      if (asker === undefined) break;
      const free = [...this.#threads].find(({ ready, job }) => ready && job === undefined);
      if (free === undefined) {
        this.#grow();
        break;
      }
      this.#send(free, asker);
    }
    if (this.#waiting > 0 || this.#threads.size === 0) return;
    this.#idle = setTimeout(() => {
      for (const { worker } of this.#threads) void worker.terminate();
      this.#threads.clear();
    }, this.#settings.idleMs);
    this.#idle.unref();
  }

  /** Another thread, at once where there is none, else when those there are go on being busy. */
  #grow(): void {
    if (this.#threads.size === 0) this.#start();
    else if (this.#threads.size < this.#settings.threads && this.#growing === undefined) {
      this.#growing = setTimeout(() => {
        this.#growing = undefined;
        if (this.#closed || this.#next() === undefined) return;
        if ([...this.#threads].some(({ job }) => job === undefined)) return;
        this.#start();
      }, this.#settings.startMs);
      this.#growing.unref();
    }
  }

  #send(thread: Thread, asker: Asker): void {
    const job = asker.jobs.shift()!;
    asker.running++;
    thread.job = job;
    thread.worker.ref();
    thread.timer = setTimeout(() => {
      const message = `it takes longer than ${job.maxMs / 1_000} s`;
      this.#end(thread, { result: { type: 'refused', code: 'TOO_LONG', message }, ms: job.maxMs });
    }, job.maxMs);
    thread.worker.postMessage(job.question);
  }

  #start(): void {
    const worker = new Worker(new URL('./reading-thread.ts', import.meta.url), {
      workerData: { path: this.#ports.path },
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MIB },
    });
    const thread: Thread = { worker, ready: false, job: undefined, timer: undefined };
    this.#threads.add(thread);
    worker.on('message', (reply: Reply | Ready) => {
      if ('ready' in reply) {
        thread.ready = true;
        worker.unref();
        this.#work();
        return;
      }
      const { job } = thread;
      if (job === undefined) return;
      this.#release(thread, job, reply.ms);
      job.settle(reply);
      this.#work();
    });
    worker.on('error', (problem) => {
      if (!this.#threads.has(thread)) return;
      this.#ports.log('warn', 'a thread that reads states has ended', { problem: String(problem) });
      const message = 'the thread that read the state has ended';
      this.#end(thread, { result: { type: 'failed', code: 'FAILED', message }, ms: 1_000 });
    });
  }

  #release(thread: Thread, job: Job, ms: number): void {
    thread.job = undefined;
    clearTimeout(thread.timer);
    thread.worker.unref();
    const asker = this.#askers.get(job.by);
    if (asker === undefined) return;
    const now = performance.now();
    asker.running--;
    asker.spent = this.#spentBy(asker, now) + ms;
    asker.at = now;
  }

  /** Ends a thread, and what it was at with it. */
  #end(thread: Thread, reply: Reply): void {
    if (!this.#threads.delete(thread)) return;
    const { job } = thread;
    if (job !== undefined) {
      this.#release(thread, job, reply.ms);
      job.settle(reply);
    }
    void thread.worker.terminate();
    // One that does not even come up would not do better the next time.
    if (!thread.ready && this.#threads.size === 0)
      this.#refuseAll(new ReadError('OVERLOADED', 'no thread can be started'));
    this.#work();
  }

  #refuseAll(problem: ReadError): void {
    for (const { jobs } of this.#askers.values()) for (const job of jobs.splice(0)) job.fail(problem);
  }

  /** Ends the threads; what still waits is rejected. Resolves when they are gone. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#growing);
    clearTimeout(this.#idle);
    const closed = new ReadError('CLOSED', 'the node is stopping');
    this.#refuseAll(closed);
    const threads = [...this.#threads];
    this.#threads.clear();
    for (const { job, timer } of threads) {
      clearTimeout(timer);
      job?.fail(closed);
    }
    await Promise.all(threads.map(({ worker }) => worker.terminate()));
  }
}
