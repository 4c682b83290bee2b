/** What the drivers need of a machine: a clock, and a place where what was written stays written. */

export interface Journal {
  /** Undefined when nothing was ever put there. */
  get(key: string): Promise<Uint8Array | undefined>;
  /** Resolves when the value would survive a power cut (fsync). Rejects when it would not: then nothing may be sent. */
  put(key: string, value: Uint8Array): Promise<void>;
}

export interface Clock {
  /** Unix time in milliseconds. */
  now(): number;
  /** Milliseconds on a clock that never goes back. */
  monotonic(): number;
  /** Calls `run` once; returns the cancellation. */
  after(ms: number, run: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  after(ms, run) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};

export type Log = (
  level: 'error' | 'warn' | 'info' | 'debug',
  message: string,
  fields?: Record<string, unknown>,
) => void;
