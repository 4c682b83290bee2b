/** What peers have cost this node. Whoever costs too much in a short time is not spoken to for a while. */
import { LRUCache } from 'lru-cache';

export type PeerId = string;

export interface LedgerOptions {
  /** Costs beyond this ban. */
  readonly limit: number;
  /** How much is forgiven a second. */
  readonly forgiven: number;
  readonly banMs: number;
  /** Peers remembered; the longest unheard of are forgotten first. */
  readonly remembered: number;
}

const DEFAULTS: LedgerOptions = { limit: 1_000, forgiven: 2, banMs: 10 * 60_000, remembered: 10_000 };

/** In the unit of GRANDPA's costs: 1,000 is a ban. */
export const FEE = {
  malformed: 250,
  tooLarge: 500,
  otherChain: 1_000,
  invalidBlock: 1_000,
  badResponse: 300,
  slowResponse: 60,
  refused: 10,
  tooFast: 25,
  badTransaction: 10,
  /** What is not valid here any more, or not yet: a nuisance, not an offence. */
  staleTransaction: 0.05,
} as const;

interface Account {
  cost: number;
  at: number;
}

export class PeerLedger {
  readonly #options: LedgerOptions;
  readonly #now: () => number;
  readonly #accounts: LRUCache<PeerId, Account>;
  readonly #bans: LRUCache<PeerId, number>;

  /** `now` in milliseconds, never going back. */
  constructor(now: () => number, options: Partial<LedgerOptions> = {}) {
    this.#options = { ...DEFAULTS, ...options };
    this.#now = now;
    this.#accounts = new LRUCache({ max: this.#options.remembered });
    this.#bans = new LRUCache({ max: this.#options.remembered });
  }

  /** Messages that peers have brought, and bans of peers, since the start. */
  readonly counters = { received: 0, bans: 0 };

  /** Says whether the peer is banned by it. */
  charge(peer: PeerId, cost: number): boolean {
    const now = this.#now();
    const account = this.#accounts.get(peer) ?? { cost: 0, at: now };
    const left = Math.max(0, account.cost - ((now - account.at) / 1_000) * this.#options.forgiven);
    account.cost = left + cost;
    account.at = now;
    this.#accounts.set(peer, account);
    if (account.cost < this.#options.limit) return false;
    this.#accounts.delete(peer);
    this.#bans.set(peer, now + this.#options.banMs);
    this.counters.bans++;
    return true;
  }

  isBanned(peer: PeerId): boolean {
    const until = this.#bans.get(peer);
    if (until === undefined) return false;
    if (until > this.#now()) return true;
    this.#bans.delete(peer);
    return false;
  }
}

/** A token bucket. */
export class RateLimit {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #now: () => number;
  #left: number;
  #at: number;

  constructor(now: () => number, perSecond: number, burst: number) {
    this.#now = now;
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#left = burst;
    this.#at = now();
  }

  /** Whether `amount` is still allowed now. */
  take(amount = 1): boolean {
    const now = this.#now();
    this.#left = Math.min(this.#burst, this.#left + ((now - this.#at) / 1_000) * this.#perSecond);
    this.#at = now;
    if (this.#left < amount) return false;
    this.#left -= amount;
    return true;
  }
}
