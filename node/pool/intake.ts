/**
 * The way into the pool: submissions of one turn of the event loop are collected, their signatures checked together on
 * other threads, and then imported one after the other in the order of their arrival.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Hash } from '../../runtime/primitives/types.ts';
import { PoolError } from '../ports/chain.ts';
import type { Clock, Log } from '../ports/machine.ts';
import type { Key } from './entry.ts';
import { alreadyImportedError, droppedError, invalidError } from './errors.ts';
import type { StatusListener } from './watchers.ts';

export interface Submission {
  readonly extrinsic: Uint8Array;
  readonly hash: Hash;
  readonly key: Key;
  readonly origin: 'local' | 'external';
  readonly listener?: StatusListener;
}

export interface IntakePorts {
  readonly preverify: (extrinsics: readonly Uint8Array[]) => Promise<void>;
  /** Puts one into the pool; returns how to stop watching it. Throws {@link PoolError}. */
  readonly import: (submission: Submission) => () => void;
  readonly clock: Pick<Clock, 'monotonic'>;
  readonly log: Log;
}

interface Waiting {
  readonly submission: Submission;
  readonly accept: (unwatch: () => void) => void;
  readonly refuse: (error: PoolError) => void;
}

/** Submissions whose signatures are prepared at a stretch: so many, and of so many bytes, which are hashed on this thread. */
const BATCH = 512;
const BATCH_BYTES = 1024 * 1024;

function batchesOf(all: readonly Waiting[]): Waiting[][] {
  const batches: Waiting[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const each of all) {
    const last = batches.at(-1);
    const { length } = each.submission.extrinsic;
    if (last === undefined || last.length >= BATCH || bytes + length > BATCH_BYTES) {
      batches.push([each]);
      bytes = length;
    } else {
      last.push(each);
      bytes += length;
    }
  }
  return batches;
}

/** How long this thread may be busy at a stretch. */
const SLICE_MS = 8;

export class Intake {
  readonly #ports: IntakePorts;
  readonly #limit: number;
  readonly #maxBytes: number;
  readonly #underWay = new Map<Key, Waiting>();
  #collected: Waiting[] = [];
  #collecting = false;
  #preparing: Promise<void> = Promise.resolve();
  #tail: Promise<void> = Promise.resolve();
  #bytes = 0;
  #closed = false;

  /** How many submissions may be under way, and of how many bytes together. */
  constructor(ports: IntakePorts, limit: number, maxBytes = Number.POSITIVE_INFINITY) {
    this.#ports = ports;
    this.#limit = limit;
    this.#maxBytes = maxBytes;
  }

  has(key: Key): boolean {
    return this.#underWay.has(key);
  }

  /** Resolves when the transaction is in the pool. Rejects with {@link PoolError}. */
  add(submission: Submission): Promise<() => void> {
    if (this.#underWay.has(submission.key)) return Promise.reject(alreadyImportedError(submission.hash));
    const { length } = submission.extrinsic;
    const isFull = this.#underWay.size >= this.#limit || this.#bytes + length > this.#maxBytes;
    if (this.#closed || isFull) return Promise.reject(droppedError());
    return new Promise((accept, refuse) => {
      const waiting = { submission, accept, refuse };
      this.#underWay.set(submission.key, waiting);
      this.#bytes += length;
      this.#collected.push(waiting);
      if (this.#collecting) return;
      this.#collecting = true;
      setImmediate(() => this.#dispatch());
    });
  }

  /** Refuses what is under way and everything after. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const { refuse } of this.#underWay.values()) refuse(droppedError());
    this.#underWay.clear();
    this.#collected = [];
    await this.#preparing;
    await this.#tail;
  }

  #dispatch(): void {
    this.#collecting = false;
    const all = this.#collected;
    this.#collected = [];
    this.#preparing = this.#preparing.then(() => this.#prepare(batchesOf(all)));
  }

  /** Starts the checks of one batch after the other; others of this thread come in between. */
  async #prepare(batches: readonly Waiting[][]): Promise<void> {
    for (const [index, batch] of batches.entries()) {
      if (index > 0) await nextTurn();
      const checked = this.#check(batch);
      this.#tail = this.#tail.then(async () => this.#import(batch, await checked));
    }
  }

  /** Whether the batch may go on. */
  async #check(batch: readonly Waiting[]): Promise<boolean> {
    try {
      await this.#ports.preverify(batch.map(({ submission }) => submission.extrinsic));
      return true;
    } catch (problem) {
      const { code } = problem as { code?: unknown };
      if (code === 'OVERLOADED' || code === 'CLOSED') return false;
      this.#ports.log('warn', 'signatures could not be checked beforehand', { problem: String(problem) });
      return true;
    }
  }

  async #import(batch: readonly Waiting[], mayGoOn: boolean): Promise<void> {
    const { clock } = this.#ports;
    let sliceEnd = clock.monotonic() + SLICE_MS;
    for (const { submission, accept, refuse } of batch) {
      if (clock.monotonic() > sliceEnd) {
        await nextTurn();
        sliceEnd = clock.monotonic() + SLICE_MS;
      }
      this.#bytes -= submission.extrinsic.length;
      if (!this.#underWay.delete(submission.key)) continue;
      try {
        if (!mayGoOn) throw droppedError();
        accept(this.#ports.import(submission));
      } catch (problem) {
        if (problem instanceof PoolError) {
          refuse(problem);
          continue;
        }
        this.#ports.log('error', 'a transaction could not be validated', { problem: String(problem) });
        refuse(invalidError({ type: 'Unknown', value: { type: 'CannotLookup' } }));
      }
    }
  }
}
