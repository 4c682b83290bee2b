/**
 * Turns of the thread that also makes blocks: the calls of all connections go through here, in short slices between which the
 * thread does its other work. The caller that has used the least processor time lately comes first, so that a cheap request
 * does not wait for the expensive ones of somebody else.
 */

/** How long calls are answered before the thread turns to something else. A single call may take longer, never a second one. */
const SLICE_MS = 4;
/** After this time processor time counts half. */
const HALF_LIFE_MS = 2_000;

/** Processor time that was used lately, in milliseconds. Connections from one foreign address share one. */
export class Usage {
  #spent = 0;
  #at = 0;

  spent(now: number): number {
    return this.#spent === 0 ? 0 : this.#spent * 2 ** ((this.#at - now) / HALF_LIFE_MS);
  }

  add(ms: number, now: number): void {
    this.#spent = this.spent(now) + ms;
    this.#at = now;
  }
}

/** One connection's place in the queue. */
export class Caller {
  readonly usage: Usage;
  readonly #waiting: (() => void)[] = [];
  #first = 0;

  constructor(usage = new Usage()) {
    this.usage = usage;
  }

  get waiting(): number {
    return this.#waiting.length - this.#first;
  }

  push(work: () => void): void {
    this.#waiting.push(work);
  }

  shift(): (() => void) | undefined {
    const work = this.#waiting[this.#first];
    this.#first++;
    if (this.#first >= this.#waiting.length) {
      this.#waiting.length = 0;
      this.#first = 0;
    } else if (this.#first >= 1_024) {
      this.#waiting.splice(0, this.#first);
      this.#first = 0;
    }
    return work;
  }

  clear(): void {
    this.#waiting.length = 0;
    this.#first = 0;
  }
}

export interface TurnsOptions {
  readonly now?: () => number;
  /** Runs a function when the thread has done its other work. */
  readonly later?: (run: () => void) => void;
}

export class Turns {
  readonly #now: () => number;
  readonly #later: (run: () => void) => void;
  readonly #callers = new Set<Caller>();
  #spent = 0;
  #working = false;
  #scheduled = false;

  constructor({ now = () => performance.now(), later = (run) => void setImmediate(run) }: TurnsOptions = {}) {
    this.#now = now;
    this.#later = later;
  }

  /** Runs `work` at once where nobody waits and the slice has room, else when it is the caller's turn. It must not throw. */
  run(caller: Caller, work: () => void): void {
    caller.push(work);
    this.#callers.add(caller);
    this.#work();
  }

  /** Counts work that was done for the caller elsewhere, on another thread. */
  charge({ usage }: Caller, ms: number): void {
    usage.add(ms, this.#now());
  }

  /** Forgets what a caller that is gone was waiting for. */
  leave(caller: Caller): void {
    caller.clear();
    this.#callers.delete(caller);
  }

  #next(now: number): Caller | undefined {
    let next: Caller | undefined;
    let least = Number.POSITIVE_INFINITY;
    for (const caller of this.#callers) {
      const spent = caller.usage.spent(now);
      if (spent >= least) continue;
      next = caller;
      least = spent;
    }
    return next;
  }

  #work(): void {
    if (this.#working) return;
    this.#working = true;
    let now = this.#now();
    try {
      while (this.#callers.size > 0 && this.#spent < SLICE_MS) {
        const caller = this.#next(now)!;
        const work = caller.shift();
        // Whoever has more to do goes behind those with the same usage.
        this.#callers.delete(caller);
        if (caller.waiting > 0) this.#callers.add(caller);
        work?.();
        const after = this.#now();
        caller.usage.add(after - now, after);
        this.#spent += after - now;
        now = after;
      }
    } finally {
      this.#working = false;
    }
    if (this.#scheduled || this.#spent === 0) return;
    this.#scheduled = true;
    this.#later(() => {
      this.#scheduled = false;
      this.#spent = 0;
      this.#work();
    });
  }
}
