/** Transactions that are not looked at again for a while, so that bad ones cost little (Substrate: PoolRotator). */
import type { Key } from './entry.ts';

export class Bans {
  readonly #limit: number;
  /** When each ban ends, in milliseconds; the oldest bans first. */
  readonly #until = new Map<Key, number>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#until.size;
  }

  ban(key: Key, until: number): void {
    this.#until.delete(key);
    this.#until.set(key, until);
    if (this.#until.size <= this.#limit) return;
    const [oldest] = this.#until.keys();
    this.#until.delete(oldest!);
  }

  isBanned(key: Key, now: number): boolean {
    const until = this.#until.get(key);
    if (until === undefined) return false;
    if (until > now) return true;
    this.#until.delete(key);
    return false;
  }
}
