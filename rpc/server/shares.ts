/**
 * Room that all connections share. Each connection has some of it for sure, so that nobody can take everything; what it uses
 * beyond comes out of the rest, of which one connection gets at most a part.
 */

export interface ShareLimits {
  /** For one connection, whatever the others have. */
  readonly sure: number;
  /** For one connection in all. */
  readonly most: number;
  /** What all connections together may have beyond their sure part. */
  readonly shared: number;
}

/** One connection's part. */
export class Share {
  readonly #shares: Shares;
  #used = 0;

  constructor(shares: Shares) {
    this.#shares = shares;
  }

  get used(): number {
    return this.#used;
  }

  /** False when there is no room for it; then nothing changes. */
  take(amount: number): boolean {
    if (!this.#shares.change(this.#used, this.#used + amount)) return false;
    this.#used += amount;
    return true;
  }

  give(amount: number): void {
    this.#shares.change(this.#used, this.#used - amount);
    this.#used -= amount;
  }

  /** The connection is gone. */
  end(): void {
    this.give(this.#used);
  }
}

export class Shares {
  readonly limits: ShareLimits;
  #beyond = 0;

  constructor(limits: ShareLimits) {
    this.limits = limits;
  }

  enter(): Share {
    return new Share(this);
  }

  change(from: number, to: number): boolean {
    const { sure, most, shared } = this.limits;
    const beyond = this.#beyond - Math.max(0, from - sure) + Math.max(0, to - sure);
    if (to > from && (to > most || (to > sure && beyond > shared))) return false;
    this.#beyond = beyond;
    return true;
  }
}
