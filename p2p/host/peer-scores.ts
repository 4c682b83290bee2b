/** What peers have cost this node. Whoever costs too much in a short time is not spoken to for a while. */
import { LRUCache } from 'lru-cache';

export type PeerId = string;

export interface LedgerOptions {
  /** Costs beyond this ban. */
  readonly limit: number;
  /** What all peers of one range of addresses may cost together. */
  readonly rangeLimit: number;
  /** How much is forgiven a second. */
  readonly forgiven: number;
  readonly banMs: number;
  /** Peers remembered; the longest unheard of are forgotten first. */
  readonly remembered: number;
  /** Undefined where addresses say nothing, or for a peer that answers for itself. */
  readonly rangeOf: (peer: PeerId) => string | undefined;
}

const DEFAULTS: LedgerOptions = {
  limit: 1_000,
  rangeLimit: 4_000,
  forgiven: 2,
  banMs: 10 * 60_000,
  remembered: 10_000,
  rangeOf: () => undefined,
};

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
  /** Asked, it had promised to answer and did not. */
  brokenPromise: 200,
} as const;

interface Account {
  cost: number;
  at: number;
}

export class PeerLedger {
  readonly #options: LedgerOptions;
  readonly #now: () => number;
  readonly #accounts: LRUCache<string, Account>;
  readonly #bans: LRUCache<PeerId, number>;
  readonly #ranges: LRUCache<string, Account>;
  readonly #rangeBans: LRUCache<string, number>;

  /** `now` in milliseconds, never going back. */
  constructor(now: () => number, options: Partial<LedgerOptions> = {}) {
    this.#options = { ...DEFAULTS, ...options };
    this.#now = now;
    const max = this.#options.remembered;
    this.#accounts = new LRUCache({ max });
    this.#bans = new LRUCache({ max });
    this.#ranges = new LRUCache({ max });
    this.#rangeBans = new LRUCache({ max });
  }

  /** Messages that peers have brought, and bans of peers, since the start. */
  readonly counters = { received: 0, bans: 0 };

  /** Says whether the peer is banned by it. Its range pays too, so that a new identity from there does not begin anew. */
  charge(peer: PeerId, cost: number): boolean {
    const { limit, rangeLimit, banMs, rangeOf } = this.#options;
    const until = this.#now() + banMs;
    const range = rangeOf(peer);
    if (range !== undefined && this.#add(this.#ranges, range, cost) >= rangeLimit) {
      this.#ranges.delete(range);
      this.#rangeBans.set(range, until);
    }
    if (this.#add(this.#accounts, peer, cost) < limit) return false;
    this.#accounts.delete(peer);
    this.#bans.set(peer, until);
    this.counters.bans++;
    return true;
  }

  isBanned(peer: PeerId): boolean {
    return this.#isIn(this.#bans, peer);
  }

  /** Whether nobody is let in from there. Peers that this node dials, or that the operator named, are not meant. */
  isRangeBanned(range: string): boolean {
    return this.#isIn(this.#rangeBans, range);
  }

  #add(accounts: LRUCache<string, Account>, key: string, cost: number): number {
    const now = this.#now();
    const account = accounts.get(key) ?? { cost: 0, at: now };
    const left = Math.max(0, account.cost - ((now - account.at) / 1_000) * this.#options.forgiven);
    account.cost = left + cost;
    account.at = now;
    accounts.set(key, account);
    return account.cost;
  }

  #isIn(bans: LRUCache<string, number>, key: string): boolean {
    const until = bans.get(key);
    if (until === undefined) return false;
    if (until > this.#now()) return true;
    bans.delete(key);
    return false;
  }
}
