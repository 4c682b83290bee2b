/**
 * Places for connections. They are few, so a connection that says nothing makes place for one that does, and one foreign
 * address has only a part of them.
 */

/**
 * What a connection is at: it has not asked anything yet, waits between requests, sends a request, is being answered, or is a
 * WebSocket.
 */
export type Doing = 'silent' | 'idle' | 'sending' | 'busy' | 'open';

export interface Visitor {
  /** Undefined for a caller on this machine. */
  readonly address: string | undefined;
  readonly doing: Doing;
  /** Whether something is owed to it: subscriptions, answers under way. */
  readonly engaged: boolean;
  /** Since when it is so; of WebSockets, when they last said something. */
  readonly since: number;
  end(): void;
}

export interface VisitorLimits {
  readonly connections: number;
  /** Of one foreign address. */
  readonly perAddress: number;
  /** Of all foreign addresses together. */
  readonly foreign: number;
}

/** How long a connection may stand still before it has to make place for another. */
const STILL_MS: Readonly<Record<Doing, number>> = {
  silent: 1_000,
  idle: 0,
  sending: 10_000,
  busy: Number.POSITIVE_INFINITY,
  open: 10_000,
};
const ORDER: Readonly<Record<Doing, number>> = { silent: 0, idle: 1, open: 2, sending: 3, busy: 4 };

export class Visitors {
  readonly #limits: VisitorLimits;
  readonly #now: () => number;
  readonly #visitors = new Set<Visitor>();

  constructor(limits: VisitorLimits, now: () => number = () => performance.now()) {
    this.#limits = limits;
    this.#now = now;
  }

  get count(): number {
    return this.#visitors.size;
  }

  /** False when there is no place, and none can be made. */
  admit(visitor: Visitor): boolean {
    const { connections, perAddress, foreign } = this.#limits;
    const { address } = visitor;
    if (address !== undefined) {
      const neighbours = [...this.#visitors].filter((each) => each.address === address);
      if (neighbours.length >= perAddress && !this.#makePlace(neighbours)) return false;
      const others = [...this.#visitors].filter((each) => each.address !== undefined);
      if (others.length >= foreign && !this.#makePlace(others)) return false;
    }
    if (this.#visitors.size >= connections && !this.#makePlace([...this.#visitors])) return false;
    this.#visitors.add(visitor);
    return true;
  }

  leave(visitor: Visitor): void {
    this.#visitors.delete(visitor);
  }

  #makePlace(among: readonly Visitor[]): boolean {
    const now = this.#now();
    let chosen: Visitor | undefined;
    for (const each of among) {
      if (each.engaged || now - each.since < STILL_MS[each.doing]) continue;
      const order = chosen === undefined ? 1 : ORDER[chosen.doing] - ORDER[each.doing];
      if (order > 0 || (order === 0 && each.since < chosen!.since)) chosen = each;
    }
    if (chosen === undefined) return false;
    this.#visitors.delete(chosen);
    chosen.end();
    return true;
  }
}
