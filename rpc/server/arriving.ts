/**
 * Messages that are on their way in, over all connections: how many bytes of them lie in memory, and that they go on arriving.
 * Small ones always have room. Large ones share one, and where it is short, the slowest makes place.
 */

/** A connection's stream of messages. */
export interface Source {
  /** Stops and goes on reading from the connection. */
  pause(): void;
  resume(): void;
  /** Ends it: `stalled` when it stood still, `crowded` when others needed its room. */
  cut(why: 'stalled' | 'crowded'): void;
}

export interface ArrivingLimits {
  /** Bytes of a message that need no room of the shared one. */
  readonly free: number;
  /** Bytes of all messages beyond that. */
  readonly shared: number;
  /** Bytes that must arrive within `windowMs` while a message is on its way, in each such window and on the average. */
  readonly leastBytes: number;
  readonly windowMs: number;
}

/** Where room is short: whoever is slower than that, in bytes a second, after so many milliseconds. */
const SLOW_RATE = 65_536;
const SLOW_AFTER_MS = 5_000;

export class Arrival {
  readonly source: Source;
  readonly #arriving: Arriving;
  /** Bytes of messages that are not answered. */
  bytes = 0;
  /** Bytes of them whose message is complete. */
  complete = 0;
  since = 0;
  windowAt = 0;
  windowBytes = 0;
  paused = false;

  constructor(arriving: Arriving, source: Source) {
    this.#arriving = arriving;
    this.source = source;
  }

  grow(bytes: number): void {
    this.#arriving.grow(this, bytes);
  }

  /** What has arrived so far is a whole message, and its bytes stay until it is answered. */
  whole(): void {
    this.complete = this.bytes;
  }

  /** A whole message of so many bytes has been answered. */
  release(bytes: number): void {
    this.complete = Math.max(0, this.complete - bytes);
    this.#arriving.shrink(this, bytes);
  }

  /** So many bytes were none of a message. */
  ignore(bytes: number): void {
    this.#arriving.shrink(this, bytes);
  }

  /** The connection is gone. */
  end(): void {
    this.#arriving.shrink(this, this.bytes);
    this.#arriving.leave(this);
  }
}

export class Arriving {
  readonly #limits: ArrivingLimits;
  readonly #now: () => number;
  readonly #arrivals = new Set<Arrival>();
  #used = 0;

  constructor(limits: ArrivingLimits, now: () => number = () => performance.now()) {
    this.#limits = limits;
    this.#now = now;
  }

  /** Bytes of the shared room that are taken. */
  get used(): number {
    return this.#used;
  }

  enter(source: Source): Arrival {
    return new Arrival(this, source);
  }

  #beyond(bytes: number): number {
    return Math.max(0, bytes - this.#limits.free);
  }

  grow(arrival: Arrival, bytes: number): void {
    if (bytes <= 0) return;
    const now = this.#now();
    if (arrival.bytes === arrival.complete) {
      arrival.since = now;
      arrival.windowAt = now;
      arrival.windowBytes = 0;
    }
    this.#arrivals.add(arrival);
    this.#used -= this.#beyond(arrival.bytes);
    arrival.bytes += bytes;
    arrival.windowBytes += bytes;
    this.#used += this.#beyond(arrival.bytes);
    if (this.#used <= this.#limits.shared || this.#beyond(arrival.bytes) === 0) return;
    this.#makeRoom(now);
    // The oldest goes on in any case: someone must come to an end.
    if (this.#used > this.#limits.shared && this.#arrivals.has(arrival) && this.#oldest() !== arrival) {
      arrival.paused = true;
      arrival.source.pause();
    }
  }

  shrink(arrival: Arrival, bytes: number): void {
    this.#used -= this.#beyond(arrival.bytes);
    arrival.bytes = Math.max(0, arrival.bytes - bytes);
    arrival.complete = Math.min(arrival.bytes, arrival.complete);
    this.#used += this.#beyond(arrival.bytes);
    if (arrival.bytes === 0) this.#arrivals.delete(arrival);
    this.#goOn();
  }

  leave(arrival: Arrival): void {
    this.#arrivals.delete(arrival);
    this.#goOn();
  }

  /** To be called every second or so: ends messages that stand still. */
  look(): void {
    const now = this.#now();
    const { windowMs, leastBytes } = this.#limits;
    for (const arrival of [...this.#arrivals]) {
      if (arrival.bytes === arrival.complete || arrival.paused) {
        arrival.windowAt = now;
        arrival.windowBytes = 0;
      } else if (now - arrival.windowAt >= windowMs) {
        if (arrival.windowBytes < leastBytes) this.#cut(arrival, 'stalled');
        arrival.windowAt = now;
        arrival.windowBytes = 0;
      }
    }
    if (this.#used > this.#limits.shared) this.#makeRoom(now);
    this.#goOn();
  }

  #cut(arrival: Arrival, why: 'stalled' | 'crowded'): void {
    this.#used -= this.#beyond(arrival.bytes);
    arrival.bytes = 0;
    arrival.complete = 0;
    this.#arrivals.delete(arrival);
    arrival.source.cut(why);
  }

  #oldest(): Arrival | undefined {
    let oldest: Arrival | undefined;
    for (const each of this.#arrivals) {
      if (this.#beyond(each.bytes) === 0 || each.bytes === each.complete) continue;
      if (oldest === undefined || each.since < oldest.since) oldest = each;
    }
    return oldest;
  }

  #makeRoom(now: number): void {
    let slowest: Arrival | undefined;
    let least = SLOW_RATE;
    for (const each of this.#arrivals) {
      const ms = now - each.since;
      if (this.#beyond(each.bytes) === 0 || each.bytes === each.complete || each.paused || ms < SLOW_AFTER_MS) continue;
      const rate = (each.bytes / ms) * 1_000;
      if (rate >= least) continue;
      slowest = each;
      least = rate;
    }
    if (slowest !== undefined) this.#cut(slowest, 'crowded');
  }

  #goOn(): void {
    for (const each of this.#arrivals) {
      if (!each.paused || (this.#used > this.#limits.shared && this.#oldest() !== each)) continue;
      each.paused = false;
      each.since = this.#now();
      each.windowAt = each.since;
      each.windowBytes = 0;
      each.source.resume();
    }
  }
}
