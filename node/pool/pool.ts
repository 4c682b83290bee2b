/**
 * The transaction pool at work: takes extrinsics in, has their signatures checked by other threads and their validity
 * by the runtime, keeps the queues in step with the chain, and tells those who watch.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Hashing } from '../../runtime/host.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import type {
  TransactionSource,
  TransactionValidity,
  TransactionValidityError,
} from '../../runtime/primitives/validity.ts';
import type {
  BlockRef,
  Blocks,
  ChainEvent,
  ChainEvents,
  Pool,
  Service,
  TransactionStatus,
  TreeRoute,
} from '../ports/chain.ts';
import type { Clock, Log } from '../ports/machine.ts';
import { Bans } from './bans.ts';
import type { BestFirst } from './best-first.ts';
import { type Entry, type Key, keyOf, type PoolTransaction } from './entry.ts';
import {
  alreadyImportedError,
  bannedError,
  invalidError,
  invalidText,
  noTagsError,
  refusalError,
  unactionableError,
} from './errors.ts';
import { isBare, senderOf } from './extrinsic.ts';
import { Intake, type Submission } from './intake.ts';
import { type QueueChange, type QueueLimits, Queues } from './queues.ts';
import { type StatusListener, Watchers } from './watchers.ts';

export interface PoolPorts {
  readonly blocks: Pick<Blocks, 'info' | 'header' | 'body'>;
  readonly events: ChainEvents;
  /** Whether the extrinsic could go into a block on top of `block`. */
  readonly validate: (block: Hash, source: TransactionSource['type'], extrinsic: Uint8Array) => TransactionValidity;
  /**
   * Has the signatures checked before `validate` asks for them. May reject, with a `code` of `OVERLOADED` when there is
   * too much to do; then the extrinsics are dropped.
   */
  readonly preverify: (extrinsics: readonly Uint8Array[]) => Promise<void>;
  /** Writes down what was given to this node and accepted; resolves when it is there. */
  readonly remember?: (extrinsic: Uint8Array) => Promise<void>;
  /** Whether this node puts transactions into blocks. */
  readonly isAuthority: () => boolean;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly clock: Clock;
  readonly log: Log;
}

export interface PoolOptions {
  readonly limits?: Partial<QueueLimits>;
  /** Submissions that may wait for their validation. */
  readonly maxIncoming?: number;
  /** How long an invalid transaction is not looked at again. */
  readonly banMs?: number;
  /** The same, where the reason may soon be gone: no funds, no room. */
  readonly shortBanMs?: number;
  /** Time for looking again at transactions in the pool, for each new block. */
  readonly revalidationMs?: number;
}

const MIB = 1024 * 1024;
const LIMITS: QueueLimits = {
  ready: { count: 50_000, bytes: 64 * MIB },
  future: { count: 10_000, bytes: 16 * MIB },
  perSender: 2_048,
  perSenderBytes: 8 * MIB,
};
/** Bytes of submissions that wait for their validation. */
const MAX_INCOMING_BYTES = 64 * MIB;
const MAX_BANS = 16_384;
const MAX_WATCHED_BLOCKS = 512;
/** How long this thread may be busy at a stretch. */
const SLICE_MS = 8;
/** A valid transaction is looked at again when its last validation is older than this many blocks. */
const REVALIDATE_AFTER = 2;

export interface PoolCounters {
  submitted: number;
  validated: number;
  invalid: number;
  dropped: number;
  usurped: number;
  /** Left the pool because a block contains them. */
  included: number;
  /** Came back from retracted blocks. */
  resubmitted: number;
}

const SOURCE = { local: 'Local', external: 'External' } as const;

export class TransactionPool implements Pool, Service {
  readonly name = 'transaction pool';
  readonly counters: PoolCounters = {
    submitted: 0,
    validated: 0,
    invalid: 0,
    dropped: 0,
    usurped: 0,
    included: 0,
    resubmitted: 0,
  };
  readonly #ports: PoolPorts;
  readonly #options: Required<Omit<PoolOptions, 'limits'>>;
  readonly #queues: Queues;
  readonly #bans = new Bans(MAX_BANS);
  readonly #watchers = new Watchers(MAX_WATCHED_BLOCKS);
  readonly #readyListeners = new Set<(transaction: PoolTransaction) => void>();
  readonly #intake: Intake;
  #urgent: Entry[] = [];
  #revalidating = false;
  #closed = false;

  constructor(ports: PoolPorts, { limits, ...options }: PoolOptions = {}) {
    this.#ports = ports;
    this.#queues = new Queues({ ...LIMITS, ...limits });
    this.#options = {
      maxIncoming: 20_000,
      banMs: 30 * 60_000,
      shortBanMs: 6_000,
      revalidationMs: 25,
      ...options,
    };
    const { preverify, clock, log } = ports;
    const intake = { preverify, clock, log, import: (submission: Submission) => this.#import(submission) };
    this.#intake = new Intake(intake, this.#options.maxIncoming, MAX_INCOMING_BYTES);
  }

  /** Follows the chain until the signal; then refuses whatever is under way. */
  async run(signal: AbortSignal): Promise<void> {
    const unsubscribe = this.#ports.events.subscribe((event) => this.#follow(event));
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    unsubscribe();
    this.#closed = true;
    await this.#intake.close();
  }

  // ---- submissions -------------------------------------------------------------------------------------------

  async submit(extrinsic: Uint8Array, origin: 'local' | 'external'): Promise<Hash> {
    const hash = asHash(this.#ports.hashing.blake2_256(extrinsic));
    await this.#enqueue(extrinsic, hash, origin);
    return hash;
  }

  /** The listener may be called before the promise resolves. */
  submitAndWatch(extrinsic: Uint8Array, listener: StatusListener): Promise<() => void> {
    return this.#enqueue(extrinsic, asHash(this.#ports.hashing.blake2_256(extrinsic)), 'local', listener);
  }

  async #enqueue(
    extrinsic: Uint8Array,
    hash: Hash,
    origin: 'local' | 'external',
    listener?: StatusListener,
  ): Promise<() => void> {
    const key = keyOf(hash);
    this.counters.submitted++;
    if (this.#bans.isBanned(key, this.#now())) throw bannedError();
    if (this.#queues.get(key) !== undefined) throw alreadyImportedError(hash);
    // A view would keep the whole message that it came with.
    const own = extrinsic.byteLength === extrinsic.buffer.byteLength ? extrinsic : extrinsic.slice();
    const unwatch = await this.#intake.add({ extrinsic: own, hash, key, origin, ...(listener && { listener }) });
    if (origin === 'local') await this.#ports.remember?.(own);
    return unwatch;
  }

  /** Throws {@link PoolError}. */
  #import({ extrinsic, hash, key, origin, listener }: Submission): () => void {
    const { blocks, isAuthority } = this.#ports;
    const { best } = blocks.info();
    const validity = this.#validate(best.hash, origin, extrinsic);
    if (!validity.ok) {
      this.counters.invalid++;
      if (validity.error.type === 'Invalid') this.#ban(key, validity.error);
      // Whoever watched it before its block was retracted.
      this.#tell(key, { type: 'invalid', reason: reasonOf(validity.error) });
      throw invalidError(validity.error);
    }
    if (validity.value.provides.length === 0) throw noTagsError();
    if (!validity.value.propagate && !isAuthority()) throw unactionableError();

    const { changes, refusal } = this.#queues.import({
      hash,
      extrinsic,
      origin,
      sender: senderOf(extrinsic),
      validity: validity.value,
      validatedAt: best.number,
    });
    if (refusal !== undefined) {
      this.#apply(changes.filter(({ entry }) => entry.key !== key));
      if (refusal.type === 'immediatelyDropped') this.#bans.ban(key, this.#now(this.#options.shortBanMs));
      this.#tell(key, { type: 'dropped' });
      throw refusalError(refusal, hash);
    }
    const unwatch = listener === undefined ? nothing : this.#watchers.watch(key, listener);
    this.#apply(changes);
    return unwatch;
  }

  #validate(block: Hash, origin: 'local' | 'external', extrinsic: Uint8Array): TransactionValidity {
    this.counters.validated++;
    return this.#ports.validate(block, SOURCE[origin], extrinsic);
  }

  #now(later = 0): number {
    return this.#ports.clock.monotonic() + later;
  }

  #ban(key: Key, error: TransactionValidityError): void {
    const passing = error.value.type === 'Payment' || error.value.type === 'ExhaustsResources';
    this.#bans.ban(key, this.#now(passing ? this.#options.shortBanMs : this.#options.banMs));
  }

  // ---- what changed ------------------------------------------------------------------------------------------

  #tell(key: Key, status: TransactionStatus): void {
    try {
      this.#watchers.tell(key, status);
    } catch (problem) {
      this.#ports.log('error', 'the listener of a transaction failed', { problem: String(problem) });
    }
  }

  #apply(changes: readonly QueueChange[]): void {
    for (const change of changes) {
      const { entry } = change;
      switch (change.type) {
        case 'ready':
          this.#tell(entry.key, { type: 'ready' });
          for (const listener of this.#readyListeners) listener(entry);
          break;
        case 'future':
          this.#tell(entry.key, { type: 'future' });
          break;
        case 'usurped':
          this.counters.usurped++;
          this.#tell(entry.key, { type: 'usurped', by: change.by });
          break;
        case 'dropped':
          this.counters.dropped++;
          this.#bans.ban(entry.key, this.#now(this.#options.shortBanMs));
          this.#tell(entry.key, { type: 'dropped' });
          break;
        case 'invalid':
          this.counters.invalid++;
          this.#tell(entry.key, { type: 'invalid', reason: change.reason });
          break;
      }
    }
  }

  /** Out with invalid ones and what comes after them. */
  #removeInvalid(keys: readonly Key[], reason: string, banMs: number): readonly Hash[] {
    const removed = this.#queues.remove(keys);
    for (const { key } of removed) {
      this.counters.invalid++;
      this.#bans.ban(key, this.#now(banMs));
      this.#tell(key, { type: 'invalid', reason });
    }
    return removed.map(({ hash }) => hash);
  }

  // ---- following the chain -----------------------------------------------------------------------------------

  #follow(event: ChainEvent): void {
    try {
      if (event.type === 'finalized') {
        for (const { hash } of event.finalized) this.#watchers.finalized(hash);
      } else if (event.route !== undefined) {
        this.#advance(event.block, event.route);
      }
    } catch (problem) {
      this.#ports.log('error', 'the transaction pool could not follow a block', { problem: String(problem) });
    }
  }

  #advance(best: BlockRef, { retracted, enacted }: TreeRoute): void {
    for (const { hash } of retracted) this.#watchers.retracted(hash);
    const included = new Set<Key>();
    const outdated: Entry[] = [];
    for (const block of enacted) for (const entry of this.#prune(block, included)) outdated.push(entry);

    const back = retracted.toReversed().flatMap(({ hash }) => this.#ports.blocks.body(hash) ?? []);
    for (const extrinsic of back) if (!isBare(extrinsic)) this.#resubmit(extrinsic, 'external', included);
    for (const { extrinsic, origin } of outdated) this.#resubmit(extrinsic, origin, included);

    for (const { key } of this.#queues.expire(best.number)) {
      this.#bans.ban(key, this.#now(this.#options.banMs));
      this.counters.invalid++;
      this.#tell(key, { type: 'invalid', reason: invalidText({ type: 'AncientBirthBlock' }) });
    }
    if (retracted.length > 0) {
      for (const entry of this.#queues.restingOn(retracted.at(-1)!.number - 1)) this.#urgent.push(entry);
    }
    void this.#revalidate();
  }

  /** A block of the best chain: what it contains leaves the pool. Returns what left but is not in it. */
  #prune(block: BlockRef, included: Set<Key>): readonly Entry[] {
    const { usage } = this.#queues;
    if (usage.ready.count + usage.future.count === 0 && this.#watchers.size.transactions === 0) return [];
    const { blocks, hashing } = this.#ports;
    const bannedUntil = this.#now(this.#options.banMs);
    const keys = new Map<Key, number>();
    const tags = new Set<Key>();
    const future: Key[] = [];
    for (const [index, extrinsic] of (blocks.body(block.hash) ?? []).entries()) {
      const key = keyOf(hashing.blake2_256(extrinsic));
      // An inherent, or a report of another node.
      if (isBare(extrinsic) && this.#queues.get(key) === undefined) continue;
      keys.set(key, index);
      included.add(key);
      this.#bans.ban(key, bannedUntil);
      const entry = this.#queues.get(key);
      if (entry?.where === 'future') future.push(key);
      const provided = entry?.provides ?? this.#provided(block, extrinsic);
      for (const tag of provided) tags.add(tag);
    }
    this.counters.included += this.#queues.remove(future).length;
    const { pruned, changes } = this.#queues.prune(tags);
    for (const [key, index] of keys) {
      try {
        this.#watchers.included(block.hash, key, index);
      } catch (problem) {
        this.#ports.log('error', 'the listener of a transaction failed', { problem: String(problem) });
      }
    }
    this.#apply(changes);
    const elsewhere = pruned.filter(({ key }) => !keys.has(key));
    this.counters.included += pruned.length - elsewhere.length;
    return elsewhere;
  }

  /** The tags of somebody else's transaction, if it can matter to one of ours. */
  #provided(block: BlockRef, extrinsic: Uint8Array): readonly Key[] {
    const sender = senderOf(extrinsic);
    if (sender !== undefined && !this.#queues.hasSender(sender)) return [];
    const parent = this.#ports.blocks.header(block.hash)?.parentHash;
    if (parent === undefined) return [];
    try {
      const validity = this.#validate(parent, 'external', extrinsic);
      return validity.ok ? validity.value.provides.map(keyOf) : [];
    } catch (problem) {
      // The state of an old parent may be gone. What else the block made stale is found when it is validated again.
      this.#ports.log('debug', 'a transaction of a block could not be validated', { problem: String(problem) });
      return [];
    }
  }

  /** Through the same checks as a new one, but for bans. */
  #resubmit(extrinsic: Uint8Array, origin: 'local' | 'external', included: ReadonlySet<Key>): void {
    const hash = asHash(this.#ports.hashing.blake2_256(extrinsic));
    const key = keyOf(hash);
    if (included.has(key) || this.#queues.get(key) !== undefined) return;
    this.counters.resubmitted++;
    // Its watchers hear what becomes of it.
    this.#intake.add({ extrinsic, hash, key, origin }).catch(nothing);
  }

  /** First what a reorganisation has put in doubt, then, for a while, what has not been looked at for longest. */
  async #revalidate(): Promise<void> {
    if (this.#revalidating) return;
    this.#revalidating = true;
    try {
      const { clock, blocks } = this.#ports;
      let left = this.#options.revalidationMs;
      while (!this.#closed) {
        await nextTurn();
        const { best } = blocks.info();
        const start = clock.monotonic();
        let done = true;
        const inTime = () => {
          done = clock.monotonic() - start < SLICE_MS;
          return done;
        };
        while (this.#urgent.length > 0 && inTime()) this.#renew(this.#urgent.pop()!, best);
        if (this.#urgent.length === 0 && left > 0) {
          for (const entry of this.#queues.staleBefore(best.number - REVALIDATE_AFTER)) {
            if (!inTime()) break;
            this.#renew(entry, best);
          }
          left -= clock.monotonic() - start;
        }
        if (this.#urgent.length === 0 && (done || left <= 0)) return;
      }
    } catch (problem) {
      this.#ports.log('error', 'transactions could not be validated again', { problem: String(problem) });
    } finally {
      this.#revalidating = false;
    }
  }

  #renew(entry: Entry, best: BlockRef): void {
    if (entry.where === 'out') return;
    let validity: TransactionValidity;
    try {
      validity = this.#validate(best.hash, entry.origin, entry.extrinsic);
    } catch (problem) {
      // Only a fault of this machine throws: it says nothing against the transaction.
      this.#ports.log('error', 'a transaction could not be validated again', { problem: String(problem) });
      return;
    }
    if (validity.ok) {
      this.#apply(this.#queues.renew(entry, validity.value, best.number));
    } else {
      this.#removeInvalid([entry.key], reasonOf(validity.error), this.#options.shortBanMs);
    }
  }

  // ---- what others ask ---------------------------------------------------------------------------------------

  ready(): readonly Uint8Array[] {
    return [...this.transactions()].map(({ extrinsic }) => extrinsic);
  }

  readyOf(account: Uint8Array): readonly Uint8Array[] {
    return [...this.#queues.ofSender(keyOf(account))].flatMap((each) =>
      each.where === 'ready' ? [each.extrinsic] : [],
    );
  }

  /** Ready transactions, best first. */
  *transactions(): Generator<PoolTransaction> {
    const order = this.#queues.bestFirst();
    for (let next = order.next(); next !== undefined; next = order.next()) yield next;
  }

  /** For block building: one after the other, with a way to say that one does not fit. */
  bestFirst(): BestFirst {
    return this.#queues.bestFirst();
  }

  /** Those that were given to this node, in the order in which they came. */
  *locals(): Generator<Uint8Array> {
    for (const { origin, extrinsic } of this.#queues.entries()) if (origin === 'local') yield extrinsic;
  }

  futures(): readonly PoolTransaction[] {
    return this.#queues.futures();
  }

  get(hash: Hash): PoolTransaction | undefined {
    return this.#queues.get(keyOf(hash));
  }

  /** Whether it is in the pool, or refused for the time being: then nobody need send it again. */
  knows(hash: Hash): boolean {
    const key = keyOf(hash);
    return this.#queues.get(key) !== undefined || this.#intake.has(key) || this.#bans.isBanned(key, this.#now());
  }

  status(): { readonly ready: number; readonly future: number; readonly bytes: number } {
    const { ready, future } = this.#queues.usage;
    return { ready: ready.count, future: future.count, bytes: ready.bytes + future.bytes };
  }

  remove(hashes: readonly Hash[]): readonly Hash[] {
    return this.#removeInvalid(hashes.map(keyOf), 'removed', this.#options.banMs);
  }

  /** Transactions that turned out to be invalid when a block was built. */
  reportInvalid(transactions: readonly { readonly hash: Hash; readonly error: TransactionValidityError }[]): void {
    for (const { hash, error } of transactions) {
      this.#removeInvalid([keyOf(hash)], reasonOf(error), this.#options.shortBanMs);
    }
  }

  /** Called for every transaction that becomes ready, for passing it on. Returns the unsubscription. */
  onReady(listener: (transaction: PoolTransaction) => void): () => void {
    this.#readyListeners.add(listener);
    return () => this.#readyListeners.delete(listener);
  }

  /** The network has sent a transaction to these peers. */
  broadcasted(hash: Hash, peers: readonly string[]): void {
    this.#tell(keyOf(hash), { type: 'broadcast', peers });
  }
}

function nothing(): void {}

const reasonOf = ({ type, value }: TransactionValidityError): string =>
  type === 'Invalid' ? invalidText(value) : value.type;
