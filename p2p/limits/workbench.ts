/**
 * Work for peers on the thread that makes blocks: one piece at a time, other events in between, no more than a share of the
 * time in all, and next whoever's group has had the least of it. What finds too much waiting is refused before anything is done.
 */
import type { Clock } from '../../node/ports/machine.ts';
import { NetworkError } from '../host/errors.ts';
import type { PeerId } from '../host/peer-scores.ts';
import { RateLimit } from './budget.ts';

export interface WorkbenchOptions {
  readonly clock: Pick<Clock, 'monotonic' | 'after'>;
  readonly groupOf: (peer: PeerId) => string;
  /** Milliseconds of work a second, and at a stretch. */
  readonly perSecond: number;
  readonly burst: number;
  readonly waiting: { readonly peer: number; readonly all: number };
  /** What a piece of work took, for the peer's account. */
  readonly spent?: (peer: PeerId, ms: number) => void;
}

interface Piece {
  readonly peer: PeerId;
  readonly run: () => void;
  readonly refuse: (problem: NetworkError) => void;
}

interface Group {
  readonly pieces: Piece[];
  /** Milliseconds that it has had, halved every so often. */
  had: number;
}

/** How fast what a group has had is forgotten. */
const HALF_MS = 4_000;
const MAX_GROUPS = 1_024;

export class Workbench {
  readonly #options: WorkbenchOptions;
  readonly #groups = new Map<string, Group>();
  readonly #time: RateLimit;
  #waiting = 0;
  #busy = false;
  #agedAt: number;

  constructor(options: WorkbenchOptions) {
    this.#options = options;
    const now = () => options.clock.monotonic();
    this.#time = new RateLimit(now, options.perSecond, options.burst);
    this.#agedAt = now();
  }

  get waiting(): number {
    return this.#waiting;
  }

  /** What `work` gives, when it was its turn. Rejects with {@link NetworkError} `BUSY`, or with what `work` throws. */
  do<T>(peer: PeerId, work: () => T): Promise<T> {
    const { waiting, groupOf } = this.#options;
    const key = groupOf(peer);
    const group = this.#groups.get(key) ?? { pieces: [], had: 0 };
    let ofPeer = 0;
    for (const each of group.pieces) if (each.peer === peer) ofPeer++;
    if (ofPeer >= waiting.peer) return Promise.reject(new NetworkError('BUSY', 'too much of this peer waits'));
    if (this.#waiting >= waiting.all && !this.#makeRoom(group)) {
      return Promise.reject(new NetworkError('BUSY', 'too much waits'));
    }
    if (!this.#groups.has(key)) {
      if (this.#groups.size >= MAX_GROUPS) this.#forget();
      this.#groups.set(key, group);
    }
    return new Promise((resolve, reject) => {
      const run = (): void => {
        try {
          resolve(work());
        } catch (problem) {
          reject(problem);
        }
      };
      group.pieces.push({ peer, run, refuse: reject });
      this.#waiting++;
      this.#start();
    });
  }

  /** The last piece of the group that has the most waiting gives way to a group that has less. */
  #makeRoom(wanting: Group): boolean {
    let largest = wanting;
    for (const each of this.#groups.values()) if (each.pieces.length > largest.pieces.length + 1) largest = each;
    if (largest === wanting) return false;
    largest.pieces.pop()!.refuse(new NetworkError('BUSY', 'too much waits'));
    this.#waiting--;
    return true;
  }

  #start(): void {
    if (this.#busy) return;
    this.#busy = true;
    setImmediate(() => this.#turn());
  }

  #turn(): void {
    const { clock, spent } = this.#options;
    this.#age();
    const group = this.#next();
    if (group === undefined) {
      this.#busy = false;
      return;
    }
    const wait = this.#time.waitMs();
    if (wait > 0) {
      clock.after(Math.ceil(wait), () => this.#turn());
      return;
    }
    const piece = group.pieces.shift()!;
    this.#waiting--;
    const before = clock.monotonic();
    piece.run();
    const took = clock.monotonic() - before;
    group.had += took;
    this.#time.owe(took);
    spent?.(piece.peer, took);
    setImmediate(() => this.#turn());
  }

  #next(): Group | undefined {
    let next: Group | undefined;
    for (const each of this.#groups.values()) {
      if (each.pieces.length > 0 && (next === undefined || each.had < next.had)) next = each;
    }
    return next;
  }

  #age(): void {
    const now = this.#options.clock.monotonic();
    if (now - this.#agedAt < HALF_MS) return;
    this.#agedAt = now;
    for (const group of this.#groups.values()) group.had /= 2;
    this.#forget();
  }

  #forget(): void {
    for (const [key, { pieces, had }] of this.#groups) if (pieces.length === 0 && had < 1) this.#groups.delete(key);
  }
}
