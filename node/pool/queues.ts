/**
 * The ready and the future queue, linked by tags: a transaction is ready when everything that it requires is provided
 * by the chain or by ready transactions (`sc-transaction-pool`, base pool). No clock and no I/O: every change comes
 * back as a list. All operations cost O(log n) of the pool for each transaction that they move.
 */
import type { Hash } from '../../runtime/primitives/types.ts';
import type { ValidTransaction } from '../../runtime/primitives/validity.ts';
import { BestFirst } from './best-first.ts';
import { type Candidate, Entry, isBetter, isWorse, type Key, keyOf, lastBlock } from './entry.ts';
import { Heap } from './heap.ts';

export interface QueueLimit {
  readonly count: number;
  readonly bytes: number;
}

export interface QueueLimits {
  readonly ready: QueueLimit;
  readonly future: QueueLimit;
  /** Transactions of one account in both queues, and their bytes. */
  readonly perSender: number;
  readonly perSenderBytes: number;
}

export type QueueChange =
  | { readonly type: 'ready' | 'future' | 'dropped'; readonly entry: Entry }
  | { readonly type: 'usurped'; readonly entry: Entry; readonly by: Hash }
  | { readonly type: 'invalid'; readonly entry: Entry; readonly reason: string };

export type Refusal =
  | { readonly type: 'alreadyImported' | 'cycle' | 'immediatelyDropped' }
  | { readonly type: 'tooLowPriority'; readonly old: bigint; readonly new: bigint };

export interface Imported {
  readonly changes: readonly QueueChange[];
  /** Why the candidate is not in the pool, if it is not. */
  readonly refusal?: Refusal;
}

interface Usage {
  count: number;
  bytes: number;
}

export class Queues {
  readonly #limits: QueueLimits;
  readonly #entries = new Map<Key, Entry>();
  /** Oldest first. */
  readonly #future = new Set<Entry>();
  readonly #usage: { readonly ready: Usage; readonly future: Usage } = {
    ready: { count: 0, bytes: 0 },
    future: { count: 0, bytes: 0 },
  };
  readonly #senders = new Map<Key, Set<Entry>>();
  readonly #senderBytes = new Map<Key, number>();
  /** Ready transactions by the tags that they provide; transactions of both queues by the tags that they require. */
  readonly #providers = new Map<Key, Entry>();
  readonly #requirers = new Map<Key, Set<Entry>>();
  /** Ready transactions that come after no other. */
  readonly #best = new Heap<Entry>(isBetter, (entry, position) => {
    entry.bestPosition = position;
  });
  /** All ready transactions. */
  readonly #worst = new Heap<Entry>(isWorse, (entry, position) => {
    entry.worstPosition = position;
  });
  readonly #expiry = new Map<number, Set<Entry>>();
  /** Least recently validated first. */
  readonly #validated = new Set<Entry>();
  #serial = 0;

  constructor(limits: QueueLimits) {
    this.#limits = limits;
  }

  get usage(): { readonly ready: Readonly<Usage>; readonly future: Readonly<Usage> } {
    return this.#usage;
  }

  get(key: Key): Entry | undefined {
    return this.#entries.get(key);
  }

  hasSender(sender: Key): boolean {
    return this.#senders.has(sender);
  }

  /** Those that an account has signed, in no order. */
  ofSender(sender: Key): Iterable<Entry> {
    return this.#senders.get(sender) ?? [];
  }

  entries(): IterableIterator<Entry> {
    return this.#entries.values();
  }

  futures(): readonly Entry[] {
    return [...this.#future];
  }

  /** Ready transactions in the order in which they should go into a block. */
  bestFirst(): BestFirst {
    return new BestFirst(this.#best.snapshot());
  }

  // ---- coming in ---------------------------------------------------------------------------------------------

  import(candidate: Candidate): Imported {
    const key = keyOf(candidate.hash);
    if (this.#entries.has(key)) return { changes: [], refusal: { type: 'alreadyImported' } };
    const entry = new Entry(candidate, key, this.#serial++);
    const { sender } = entry;
    const replaces = entry.provides.some((tag) => this.#providers.has(tag));
    if (sender !== undefined && !replaces) {
      const count = this.#senders.get(sender)?.size ?? 0;
      const bytes = (this.#senderBytes.get(sender) ?? 0) + entry.extrinsic.length;
      const { perSender, perSenderBytes } = this.#limits;
      if (count >= perSender || (count > 0 && bytes > perSenderBytes)) {
        return { changes: [], refusal: { type: 'immediatelyDropped' } };
      }
    }
    return this.#admit(entry);
  }

  #admit(entry: Entry): Imported {
    const changes: QueueChange[] = [];
    for (const tag of entry.requires) if (!this.#providers.has(tag)) entry.missing.add(tag);
    if (entry.missing.size > 0) {
      this.#enter(entry);
      this.#queueFuture(entry, changes);
    } else {
      const refusal = this.#makeReady(entry, changes, true);
      if (refusal !== undefined) return { changes, refusal };
      this.#promote(entry.provides, changes);
    }
    this.#enforceLimits(changes);
    return entry.where === 'out' ? { changes, refusal: { type: 'immediatelyDropped' } } : { changes };
  }

  /** Bookkeeping that does not depend on the queue. */
  #enter(entry: Entry): void {
    this.#entries.set(entry.key, entry);
    this.#validated.add(entry);
    const { sender } = entry;
    if (sender !== undefined) {
      addTo(this.#senders, sender, entry);
      this.#countBytes(sender, entry.extrinsic.length);
    }
    for (const tag of entry.requires) addTo(this.#requirers, tag, entry);
    if (entry.validTill !== Number.POSITIVE_INFINITY) addTo(this.#expiry, entry.validTill, entry);
  }

  #leave(entry: Entry): void {
    this.#entries.delete(entry.key);
    this.#validated.delete(entry);
    const { sender } = entry;
    if (sender !== undefined) {
      deleteFrom(this.#senders, sender, entry);
      this.#countBytes(sender, -entry.extrinsic.length);
    }
    for (const tag of entry.requires) deleteFrom(this.#requirers, tag, entry);
    deleteFrom(this.#expiry, entry.validTill, entry);
  }

  #countBytes(sender: Key, change: number): void {
    const bytes = (this.#senderBytes.get(sender) ?? 0) + change;
    if (bytes === 0) this.#senderBytes.delete(sender);
    else this.#senderBytes.set(sender, bytes);
  }

  #queueFuture(entry: Entry, changes: QueueChange[]): void {
    entry.where = 'future';
    this.#future.add(entry);
    this.#count('future', entry, 1);
    changes.push({ type: 'future', entry });
  }

  /**
   * Puts an entry without missing tags into the ready queue, replacing those that provide the same tags if its priority
   * is higher than theirs together.
   */
  #makeReady(entry: Entry, changes: QueueChange[], isNew: boolean): Refusal | undefined {
    const parents = new Set(entry.requires.map((tag) => this.#providers.get(tag)).filter((each) => each !== undefined));
    const rivals = new Set(entry.provides.map((tag) => this.#providers.get(tag)).filter((each) => each !== undefined));
    if (rivals.size > 0) {
      let old = 0n;
      for (const rival of rivals) old += rival.priority;
      if (entry.priority <= old) return { type: 'tooLowPriority', old, new: entry.priority };
      if (comesAfter(parents, rivals)) return { type: 'cycle' };
    }
    // Ready ones that had their tag from the chain, which was given up; and, with a replacement, the rivals' children.
    const followers = new Set<Entry>();
    for (const tag of entry.provides) {
      for (const each of this.#requirers.get(tag) ?? []) if (each.where === 'ready') followers.add(each);
    }
    if (followers.size > 0 && comesAfter(parents, followers)) return { type: 'cycle' };

    for (const rival of rivals) {
      if (rival.where !== 'ready') continue;
      const provided = new Set(entry.provides);
      for (const child of [...rival.children]) {
        if (child.requires.some((tag) => rival.provides.includes(tag) && !provided.has(tag))) {
          for (const each of this.#subtree(child)) {
            followers.delete(each);
            this.#discard(each);
            changes.push({ type: 'usurped', entry: each, by: entry.hash });
          }
        }
      }
      this.#discard(rival);
      changes.push({ type: 'usurped', entry: rival, by: entry.hash });
    }

    if (isNew) this.#enter(entry);
    else {
      this.#future.delete(entry);
      this.#count('future', entry, -1);
    }
    entry.where = 'ready';
    this.#count('ready', entry, 1);
    for (const tag of entry.provides) this.#providers.set(tag, entry);
    for (const parent of parents) link(parent, entry);
    for (const follower of followers) {
      link(entry, follower);
      if (follower.bestPosition >= 0) this.#best.removeAt(follower.bestPosition);
    }
    this.#worst.push(entry);
    if (entry.parents.size === 0) this.#best.push(entry);
    changes.push({ type: 'ready', entry });
    return undefined;
  }

  /** Makes ready whatever waited for no more than these tags, and so on. */
  #promote(tags: readonly Key[], changes: QueueChange[]): void {
    const provided = [...tags];
    for (let tag = provided.pop(); tag !== undefined; tag = provided.pop()) {
      for (const entry of [...(this.#requirers.get(tag) ?? [])]) {
        if (entry.where !== 'future' || !entry.missing.delete(tag) || entry.missing.size > 0) continue;
        const refusal = this.#makeReady(entry, changes, false);
        if (refusal === undefined) {
          for (const tag of entry.provides) provided.push(tag);
        } else {
          this.#discard(entry);
          changes.push({ type: 'invalid', entry, reason: refusal.type });
        }
      }
    }
  }

  #enforceLimits(changes: QueueChange[]): void {
    const { ready, future } = this.#limits;
    const over = (usage: Usage, limit: QueueLimit) => usage.count > limit.count || usage.bytes > limit.bytes;
    while (over(this.#usage.ready, ready)) {
      for (const entry of this.#subtree(this.#worst.peek()!)) {
        this.#discard(entry);
        changes.push({ type: 'dropped', entry });
      }
    }
    while (over(this.#usage.future, future)) {
      const [entry] = this.#future;
      this.#discard(entry!);
      changes.push({ type: 'dropped', entry: entry! });
    }
  }

  // ---- going out ---------------------------------------------------------------------------------------------

  /** Removes transactions and everything that comes after them. Unknown keys are passed over. */
  remove(keys: Iterable<Key>): readonly Entry[] {
    const removed: Entry[] = [];
    for (const key of keys) {
      const entry = this.#entries.get(key);
      if (entry === undefined) continue;
      for (const each of entry.where === 'ready' ? this.#subtree(entry) : [entry]) {
        this.#discard(each);
        removed.push(each);
      }
    }
    return removed;
  }

  /**
   * A block has provided these tags. Whoever provides them here is removed (and returned), with those that came before
   * it and nothing else after them; whoever waited for them moves up.
   */
  prune(tags: Iterable<Key>): { readonly pruned: readonly Entry[]; readonly changes: readonly QueueChange[] } {
    const changes: QueueChange[] = [];
    const pruned: Entry[] = [];
    const all = [...tags];
    const outdated = all.map((tag) => this.#providers.get(tag)).filter((entry) => entry !== undefined);
    for (let entry = outdated.pop(); entry !== undefined; entry = outdated.pop()) {
      if (entry.where !== 'ready') continue;
      const parents = [...entry.parents];
      this.#discard(entry);
      pruned.push(entry);
      for (const parent of parents) if (parent.children.size === 0) outdated.push(parent);
    }
    this.#promote([...all, ...pruned.flatMap(({ provides }) => provides)], changes);
    this.#enforceLimits(changes);
    return { pruned, changes };
  }

  /** Removes what is not valid any more from a block of this number on. */
  expire(blockNumber: number): readonly Entry[] {
    const expired: Entry[] = [];
    for (const [validTill, entries] of this.#expiry) {
      if (validTill > blockNumber) continue;
      for (const { key } of [...entries]) for (const entry of this.remove([key])) expired.push(entry);
    }
    return expired;
  }

  /** Takes a ready or future entry out of every structure; what came after a ready one comes after nothing now. */
  #discard(entry: Entry): void {
    if (entry.where === 'ready') this.#unready(entry);
    else {
      this.#future.delete(entry);
      this.#count('future', entry, -1);
    }
    entry.where = 'out';
    entry.missing.clear();
    this.#leave(entry);
  }

  #unready(entry: Entry): void {
    this.#count('ready', entry, -1);
    this.#worst.removeAt(entry.worstPosition);
    if (entry.bestPosition >= 0) this.#best.removeAt(entry.bestPosition);
    for (const tag of entry.provides) {
      this.#providers.delete(tag);
      for (const each of this.#requirers.get(tag) ?? []) if (each.where === 'future') each.missing.add(tag);
    }
    for (const parent of entry.parents) parent.children.delete(entry);
    entry.parents.clear();
    for (const child of entry.children) {
      child.parents.delete(entry);
      if (child.parents.size === 0) this.#best.push(child);
    }
    entry.children.clear();
  }

  /** The entry and everything that comes after it, the last ones first. */
  #subtree(root: Entry): Entry[] {
    const found = new Set([root]);
    for (const entry of found) for (const child of entry.children) found.add(child);
    return [...found].reverse();
  }

  #count(queue: 'ready' | 'future', entry: Entry, sign: 1 | -1): void {
    this.#usage[queue].count += sign;
    this.#usage[queue].bytes += sign * entry.extrinsic.length;
  }

  // ---- looking again -----------------------------------------------------------------------------------------

  /** Entries by the time of their last validation, the oldest first, as far as it was before that block. */
  *staleBefore(blockNumber: number): Generator<Entry> {
    for (const entry of this.#validated) {
      if (entry.validatedAt >= blockNumber) return;
      yield entry;
    }
  }

  /** Entries whose place rests on blocks above that number: on their state or on what they provided. */
  restingOn(blockNumber: number): Entry[] {
    return [...this.#entries.values()].filter(
      (entry) =>
        entry.validatedAt > blockNumber ||
        (entry.where === 'ready' && entry.requires.some((tag) => !this.#providers.has(tag))),
    );
  }

  /** A new answer of the runtime for an entry, which may change its place. */
  renew(entry: Entry, validity: ValidTransaction, validatedAt: number): readonly QueueChange[] {
    this.#validated.delete(entry);
    if (samePlace(entry, validity)) {
      deleteFrom(this.#expiry, entry.validTill, entry);
      entry.validTill = lastBlock(validity.longevity, validatedAt);
      if (entry.validTill !== Number.POSITIVE_INFINITY) addTo(this.#expiry, entry.validTill, entry);
      entry.validatedAt = validatedAt;
      this.#validated.add(entry);
      if (entry.where === 'future' || entry.requires.every((tag) => this.#providers.has(tag))) return [];
    }
    const before = entry.where;
    const followers = [...entry.children];
    this.#discard(entry);
    entry.assess(validity, validatedAt);
    const { changes, refusal } = this.#admit(entry);
    const all = [...changes];
    // Those who still come after it were linked again; the others have lost what they require.
    for (const follower of followers) {
      if (follower.where === 'ready' && !follower.parents.has(entry)) this.#demote(follower, all);
    }
    this.#enforceLimits(all);
    if (refusal !== undefined && refusal.type !== 'immediatelyDropped') {
      all.push({ type: 'invalid', entry, reason: refusal.type });
    }
    // To come back to where it was is no news.
    return entry.where === before ? all.filter((change) => change.entry !== entry) : all;
  }

  /** Back to the future queue, with everything that comes after it. */
  #demote(root: Entry, changes: QueueChange[]): void {
    const entries = this.#subtree(root);
    for (const entry of entries) {
      this.#unready(entry);
      this.#queueFuture(entry, changes);
    }
    for (const entry of entries) {
      for (const tag of entry.requires) if (!this.#providers.has(tag)) entry.missing.add(tag);
    }
  }
}

/** Whether one of `entries` is among `others` or comes after one of them. */
function comesAfter(entries: Iterable<Entry>, others: ReadonlySet<Entry>): boolean {
  const before = new Set(entries);
  for (const entry of before) {
    if (others.has(entry)) return true;
    for (const parent of entry.parents) before.add(parent);
  }
  return false;
}

function link(parent: Entry, child: Entry): void {
  parent.children.add(child);
  child.parents.add(parent);
}

/** Whether a new answer differs from the last in nothing but how long it holds. */
function samePlace(entry: Entry, validity: ValidTransaction): boolean {
  const same = (keys: readonly Key[], tags: readonly Uint8Array[]) =>
    keys.length === tags.length && keys.every((key, i) => key === keyOf(tags[i]!));
  return (
    entry.priority === validity.priority &&
    entry.propagate === validity.propagate &&
    same(entry.requires, validity.requires) &&
    same(entry.provides, validity.provides)
  );
}

function addTo<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
  const values = map.get(key);
  if (values === undefined) map.set(key, new Set([value]));
  else values.add(value);
}

function deleteFrom<K, V>(map: Map<K, Set<V>>, key: K, value: V): void {
  const values = map.get(key);
  if (values?.delete(value) && values.size === 0) map.delete(key);
}
