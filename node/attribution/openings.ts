/** Receipts held against adapters' files on another thread: a bounded number wait, and none for ever. */
import { Worker } from 'node:worker_threads';
import type { Explanation } from '../../runtime/primitives/attribution/explain.ts';
import type { FeatureCommitment, InferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { inferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import type { Rules } from '../../runtime/primitives/attribution/split.ts';
import type { ReceiptFault } from '../../runtime/primitives/attribution/verify.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';

/** An adapter's files: paths, or the bytes where they are on no disk. */
export interface Material {
  /** By what the adapter is kept open. */
  readonly key: string;
  readonly commitment: FeatureCommitment;
  readonly features: Uint8Array | string;
  readonly frequencies: Uint8Array | string;
}

export type OpeningTask =
  | { readonly type: 'verify'; readonly rules: readonly { readonly rules: Rules; readonly markup: number }[] }
  | { readonly type: 'explain'; readonly top: number };

export interface OpeningJob {
  readonly id: number;
  readonly material: Material;
  /** Encoded, as canonical structures are. */
  readonly receipt: Uint8Array;
  readonly task: OpeningTask;
}

export type OpeningAnswer =
  | { readonly id: number; readonly type: 'verified'; readonly faults: readonly (ReceiptFault | undefined)[] }
  | { readonly id: number; readonly type: 'explained'; readonly explanation: Explanation }
  | { readonly id: number; readonly type: 'failed'; readonly code: 'BAD_DATA' | 'FAILED'; readonly message: string };

export class OpeningError extends Error {
  /** `BAD_DATA`: the files are not what was committed to. `FAILED`: too large for this node, or the thread died of it. */
  readonly code: 'BAD_DATA' | 'BUSY' | 'TOO_SLOW' | 'TOO_LARGE' | 'FAILED' | 'CLOSED';
  constructor(code: OpeningError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/** Rows of more bytes are not opened: their table alone would take as much memory. */
export const MAX_TABLE_BYTES = 192 * 2 ** 20;
const ROW_OVERHEAD = 160;
const MAX_WAITING = 32;
/** From when the thread begins with it. */
const JOB_MS = 60_000;
/** Without work for so long the thread goes, with all that it keeps. */
const IDLE_MS = 5 * 60_000;
const HEAP_MB = 384;

interface Waiting {
  readonly job: OpeningJob;
  readonly resolve: (answer: OpeningAnswer) => void;
  readonly reject: (error: OpeningError) => void;
}

export class Openings {
  readonly #waiting: Waiting[] = [];
  #thread: Worker | undefined;
  #under: Waiting | undefined;
  #timer: NodeJS.Timeout | undefined;
  #next = 0;
  #closed = false;

  /** By each of the rules: what is wrong with the receipt. Rejects with {@link OpeningError}. */
  async verify(
    material: Material,
    receipt: InferenceReceipt,
    rules: Extract<OpeningTask, { type: 'verify' }>['rules'],
  ): Promise<readonly (ReceiptFault | undefined)[]> {
    const answer = await this.#do(material, receipt, { type: 'verify', rules });
    return answer.type === 'verified' ? answer.faults : unexpected();
  }

  /** Rejects with {@link OpeningError}. */
  async explain(material: Material, receipt: InferenceReceipt, top: number): Promise<Explanation> {
    const answer = await this.#do(material, receipt, { type: 'explain', top });
    return answer.type === 'explained' ? answer.explanation : unexpected();
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const { reject } of this.#waiting.splice(0)) reject(new OpeningError('CLOSED', 'the node stops'));
    await this.#stop(new OpeningError('CLOSED', 'the node stops'));
  }

  #do(material: Material, receipt: InferenceReceipt, task: OpeningTask): Promise<OpeningAnswer> {
    const { rows, k } = material.commitment;
    if (this.#closed) return Promise.reject(new OpeningError('CLOSED', 'the node stops'));
    if (rows * (k + ROW_OVERHEAD) > MAX_TABLE_BYTES) {
      return Promise.reject(new OpeningError('TOO_LARGE', `${rows} rows of ${k} are more than this node opens`));
    }
    if (this.#waiting.length >= MAX_WAITING) return Promise.reject(new OpeningError('BUSY', 'too many receipts wait'));
    return new Promise((resolve, reject) => {
      const job = { id: this.#next++, material, receipt: encode(inferenceReceipt, receipt), task };
      this.#waiting.push({ job, resolve, reject });
      this.#begin();
    });
  }

  #begin(): void {
    if (this.#under !== undefined) return;
    const next = this.#waiting.shift();
    clearTimeout(this.#timer);
    if (next === undefined) {
      this.#timer = setTimeout(() => void this.#stop(undefined), IDLE_MS);
      this.#timer.unref();
      return;
    }
    this.#under = next;
    this.#timer = setTimeout(() => {
      void this.#stop(new OpeningError('TOO_SLOW', `it took longer than ${JOB_MS / 1_000} s`));
    }, JOB_MS);
    this.#timer.unref();
    const thread = this.#thread ?? this.#start();
    thread.ref();
    thread.postMessage(next.job);
  }

  #start(): Worker {
    const thread = new Worker(new URL('./opening-thread.ts', import.meta.url), {
      resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
    });
    this.#thread = thread;
    thread.on('message', (answer: OpeningAnswer) => {
      const done = this.#under;
      if (done === undefined || done.job.id !== answer.id) return;
      this.#under = undefined;
      // Nothing that a thread keeps keeps a process alive.
      thread.unref();
      if (answer.type === 'failed') done.reject(new OpeningError(answer.code, answer.message));
      else done.resolve(answer);
      this.#begin();
    });
    const lost = (why: string): void => {
      if (this.#thread === thread) void this.#stop(new OpeningError('FAILED', why));
    };
    thread.on('error', (problem) => lost(problem.message));
    thread.on('exit', () => lost('the thread ended'));
    return thread;
  }

  /** Ends the thread, and with it what it is at. */
  async #stop(why: OpeningError | undefined): Promise<void> {
    clearTimeout(this.#timer);
    const thread = this.#thread;
    this.#thread = undefined;
    const under = this.#under;
    this.#under = undefined;
    if (under !== undefined) under.reject(why ?? new OpeningError('FAILED', 'the thread ended'));
    if (!this.#closed && this.#waiting.length > 0) this.#begin();
    await thread?.terminate();
  }
}

function unexpected(): never {
  throw new OpeningError('FAILED', 'an answer to something else');
}
