/** Token buckets: one of its own, and three in a row for what a peer, its group and all peers together may cost. */
import { LRUCache } from 'lru-cache';
import type { PeerId } from '../host/peer-scores.ts';

/** So much a second, and so much at once after a rest. */
export interface Allowance {
  readonly perSecond: number;
  readonly burst: number;
}

const LONGEST_DEBT_S = 4;

/** A token bucket. It may be overdrawn by what is known only afterwards. */
export class RateLimit {
  readonly #perSecond: number;
  readonly #burst: number;
  readonly #now: () => number;
  #left: number;
  #at: number;

  /** `now` in milliseconds, never going back. */
  constructor(now: () => number, perSecond: number, burst: number) {
    this.#now = now;
    this.#perSecond = perSecond;
    this.#burst = burst;
    this.#left = burst;
    this.#at = now();
  }

  /** What may be taken now; negative when it is overdrawn. */
  get left(): number {
    const now = this.#now();
    this.#left = Math.min(this.#burst, this.#left + ((now - this.#at) / 1_000) * this.#perSecond);
    this.#at = now;
    return this.#left;
  }

  /** Whether more than half of the burst is there: whoever took it has used less than its share lately. */
  get isRested(): boolean {
    return this.left >= this.#burst / 2;
  }

  /** Whether `amount` is still allowed now; it is taken then. */
  take(amount = 1): boolean {
    if (this.left < amount) return false;
    this.#left -= amount;
    return true;
  }

  /** Takes what was used already. No debt is larger than it takes a known time to pay. */
  owe(amount: number): void {
    this.#left = Math.max(-LONGEST_DEBT_S * this.#perSecond, this.left - amount);
  }

  /** Milliseconds until `amount` is there. */
  waitMs(amount = 0): number {
    return this.left >= amount ? 0 : ((amount - this.#left) / this.#perSecond) * 1_000;
  }
}

/** Peers and groups whose buckets are remembered; the longest unheard of begin anew. */
const REMEMBERED = 8_192;

export interface BudgetLimits {
  readonly peer: Allowance;
  /** Peers of one origin together: see {@link import('./origins.ts').Origins.groupOf}. */
  readonly group: Allowance;
  readonly all: Allowance;
}

/** What peers may use of something. Buckets outlive connections: leaving and coming back fills none. */
export class Budget {
  readonly #now: () => number;
  readonly #groupOf: (peer: PeerId) => string;
  readonly #limits: BudgetLimits;
  readonly #peers = new LRUCache<PeerId, RateLimit>({ max: REMEMBERED });
  readonly #groups = new LRUCache<string, RateLimit>({ max: REMEMBERED });
  readonly #all: RateLimit;

  constructor(now: () => number, groupOf: (peer: PeerId) => string, limits: BudgetLimits) {
    this.#now = now;
    this.#groupOf = groupOf;
    this.#limits = limits;
    this.#all = new RateLimit(now, limits.all.perSecond, limits.all.burst);
  }

  /**
   * Whether the peer may use `amount` now; it is taken then. `peer`: it has had its own share; `others`: its group, or all peers
   * together, have had theirs, which is not the peer's fault.
   */
  take(peer: PeerId, amount = 1): 'taken' | 'peer' | 'others' {
    const [own, group] = this.#bucketsOf(peer);
    if (own.left < amount) return 'peer';
    // When all together are short, whoever was modest lately is served still.
    if (group.left < amount || (this.#all.left < amount && !group.isRested)) return 'others';
    own.owe(amount);
    group.owe(amount);
    this.#all.owe(amount);
    return 'taken';
  }

  /** What turned out to have been used. */
  owe(peer: PeerId, amount: number): void {
    for (const bucket of this.#bucketsOf(peer)) bucket.owe(amount);
    this.#all.owe(amount);
  }

  /** How long the peer should wait until it uses more. */
  waitMs(peer: PeerId): number {
    const [own, group] = this.#bucketsOf(peer);
    const short = Math.max(own.waitMs(), group.waitMs());
    return group.isRested ? short : Math.max(short, this.#all.waitMs());
  }

  #bucketsOf(peer: PeerId): readonly [RateLimit, RateLimit] {
    const { peer: one, group } = this.#limits;
    return [bucketIn(this.#peers, peer, one, this.#now), bucketIn(this.#groups, this.#groupOf(peer), group, this.#now)];
  }
}

function bucketIn(
  buckets: LRUCache<string, RateLimit>,
  key: string,
  { perSecond, burst }: Allowance,
  now: () => number,
): RateLimit {
  const known = buckets.get(key);
  if (known !== undefined) return known;
  const fresh = new RateLimit(now, perSecond, burst);
  buckets.set(key, fresh);
  return fresh;
}
