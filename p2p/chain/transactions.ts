/** Transactions on their way: what becomes ready here is told to others, what others tell goes into the pool. */
import { LRUCache } from 'lru-cache';
import { type Pool, PoolError } from '../../node/ports/chain.ts';
import type { Clock } from '../../node/ports/machine.ts';
import type { Hashing } from '../../runtime/host.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { NetworkError } from '../host/errors.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { Budget } from '../limits/budget.ts';
import { FairGate } from '../limits/fair-gate.ts';
import type { Limits } from '../limits/limits.ts';
import { MAX_TRANSACTIONS, transactions } from '../protocols/announce.ts';
import { ACCEPT, IGNORE, malformed, type Room, type Verdict } from '../wire/gossip.ts';
import type { Notifications } from '../wire/notifications.ts';

export const MAX_TRANSACTIONS_BYTES = 1024 * 1024;

/** The pool, and what it says when a transaction could go into a block. */
export interface NetworkPool extends Pick<Pool, 'submit' | 'ready'> {
  onReady(
    listener: (transaction: {
      readonly hash: Hash;
      readonly extrinsic: Uint8Array;
      readonly propagate: boolean;
    }) => void,
  ): () => void;
}

export interface TransactionPorts {
  readonly pool: NetworkPool;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly direct: Notifications;
  readonly room: Room;
  /** Peers that take transactions directly. */
  readonly peers: () => Iterable<PeerId>;
  readonly isMajorSyncing: () => boolean;
  readonly limits: Limits;
  readonly clock: Clock;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
}

/** Transactions of one peer, of a group and of all. */
const RATES = {
  peer: { perSecond: 1_000, burst: 8_192 },
  group: { perSecond: 1_000, burst: 8_192 },
  all: { perSecond: 5_000, burst: 20_000 },
} as const;
/** Of {@link AT_ONCE} transactions each. */
const GATE = { open: 4, waiting: { peer: 8, all: 64 } } as const;
const COLLECT_MS = 50;
const AT_ONCE = 64;
const REMEMBERED = 50_000;
const MAX_WAITING = 20_000;
/** What no block took for so long may have been lost on the way: it is told again, then after twice the time, and so on. */
const AGAIN_MS = 4_000;
const MAX_KEPT = 4_096;
const MAX_AGAIN = 256;

export class Transactions {
  readonly #ports: TransactionPorts;
  /** Came by gossip, so gossip brings it to all others too. */
  readonly #heard = new LRUCache<string, true>({ max: REMEMBERED });
  #waiting: { readonly key: string; readonly extrinsic: Uint8Array }[] = [];
  /** Ready here and told to others. */
  readonly #told = new Map<Uint8Array, { at: number; pause: number }>();

  readonly #rates: Budget;
  readonly #gate: FairGate;

  constructor(ports: TransactionPorts) {
    this.#ports = ports;
    const groupOf = (peer: PeerId): string => ports.limits.origins.groupOf(peer);
    this.#rates = new Budget(() => ports.clock.monotonic(), groupOf, RATES);
    this.#gate = new FairGate(GATE, groupOf);
  }

  async run(signal: AbortSignal): Promise<void> {
    const unsubscribe = this.#ports.pool.onReady(({ hash, extrinsic, propagate }) => {
      if (propagate && this.#waiting.length < MAX_WAITING) this.#waiting.push({ key: toHex(hash), extrinsic });
    });
    const timer = setInterval(() => this.#tell(), COLLECT_MS);
    const repair = setInterval(() => this.#again(), AGAIN_MS / 4);
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve(), { once: true });
    });
    clearInterval(timer);
    clearInterval(repair);
    unsubscribe();
  }

  heard(from: PeerId, message: Uint8Array): Promise<Verdict> {
    return this.#take(from, message, true);
  }

  async told(from: PeerId, message: Uint8Array): Promise<void> {
    const verdict = await this.#take(from, message, false);
    if (verdict.type === 'reject') this.#ports.charge(from, verdict.cost, verdict.reason);
  }

  /**
   * What a peer brings goes into the pool some at a time, by turns with what others bring, and no further than it turns out well: each
   * signature costs some 0.2 ms of another thread, and blocks want theirs checked too.
   */
  async #take(from: PeerId, message: Uint8Array, gossip: boolean): Promise<Verdict> {
    const { isMajorSyncing, limits, charge } = this.#ports;
    if (isMajorSyncing()) return IGNORE;
    const hold = limits.held.incoming.open(from, () => {});
    // Decoded, each transaction is an object beside its bytes.
    if (!hold.set(2 * message.length)) return IGNORE;
    let taken = 0;
    let cost = 0;
    try {
      const list = decode(transactions, message);
      for (let at = 0; at < list.length; at += AT_ONCE) {
        const some = list.slice(at, at + AT_ONCE);
        const allowed = this.#rates.take(from, some.length);
        if (allowed === 'peer') cost += FEE.tooFast;
        if (allowed !== 'taken') break;
        const good = await this.#gate.do(from, () => this.#submit(some, gossip));
        taken += good.taken;
        cost += good.cost;
        // Whoever brings this many bad ones brings more.
        if (good.bad > some.length / 4) break;
      }
    } catch (problem) {
      if (problem instanceof NetworkError) return taken > 0 ? ACCEPT : IGNORE;
      return malformed('malformed transactions', problem);
    } finally {
      hold.release();
      cost = Math.min(Math.floor(cost), FEE.malformed);
      // One good transaction does not pay for the others.
      if (cost > 0) charge(from, cost, 'transactions that are not valid');
    }
    if (taken > 0) limits.origins.wasUseful(from);
    return taken > 0 ? ACCEPT : IGNORE;
  }

  /** Their signatures are checked together. */
  async #submit(
    list: readonly Uint8Array[],
    gossip: boolean,
  ): Promise<{ readonly taken: number; readonly bad: number; readonly cost: number }> {
    const { pool, hashing } = this.#ports;
    let [taken, bad, cost] = [0, 0, 0];
    const submit = async (view: Uint8Array): Promise<void> => {
      const extrinsic = view.slice();
      if (gossip) this.#heard.set(toHex(hashing.blake2_256(extrinsic)), true);
      try {
        await pool.submit(extrinsic, 'external');
        taken++;
      } catch (problem) {
        if (!(problem instanceof PoolError)) throw problem;
        if (problem.code !== 'INVALID') return;
        if (!problem.passing) bad++;
        cost += problem.passing ? FEE.staleTransaction : FEE.badTransaction;
      }
    };
    await Promise.all(list.map(submit));
    return { taken, bad, cost };
  }

  #tell(): void {
    const { direct, room, peers } = this.#ports;
    if (this.#waiting.length === 0) return;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { extrinsic } of waiting) {
      if (this.#told.size < MAX_KEPT) this.#told.set(extrinsic, { at: performance.now() + AGAIN_MS, pause: AGAIN_MS });
    }
    const members = room.members();
    for (const batch of batches(waiting.filter(({ key }) => !this.#heard.has(key)))) room.publish(batch);
    const others = [...peers()].filter((peer) => !members.has(peer));
    if (others.length === 0) return;
    for (const batch of batches(waiting)) for (const peer of others) direct.send(peer, batch);
  }

  /** Gossip never says the same thing twice, so it goes straight to peers, whether they have it or not. */
  #again(): void {
    const { direct, peers, pool } = this.#ports;
    if (this.#told.size === 0) return;
    const ready = new Set(pool.ready());
    const now = performance.now();
    const due: { readonly extrinsic: Uint8Array }[] = [];
    for (const [extrinsic, entry] of this.#told) {
      if (!ready.has(extrinsic)) this.#told.delete(extrinsic);
      else if (entry.at <= now && due.length < MAX_AGAIN) {
        entry.pause *= 2;
        entry.at = now + entry.pause;
        due.push({ extrinsic });
      }
    }
    for (const batch of batches(due)) for (const peer of peers()) direct.send(peer, batch);
  }
}

/** Messages of at most half the limit, so that a length prefix never breaks it. */
function* batches(list: readonly { readonly extrinsic: Uint8Array }[]): Generator<Uint8Array> {
  let batch: Uint8Array[] = [];
  let size = 0;
  for (const { extrinsic } of list) {
    if (
      batch.length > 0 &&
      (size + extrinsic.length > MAX_TRANSACTIONS_BYTES / 2 || batch.length === MAX_TRANSACTIONS)
    ) {
      yield encode(transactions, batch);
      batch = [];
      size = 0;
    }
    batch.push(extrinsic);
    size += extrinsic.length;
  }
  if (batch.length > 0) yield encode(transactions, batch);
}
