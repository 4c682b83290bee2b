/** Changes on top of a state while a block runs: nested transactions, ordered iteration, cheap appending. */
import type { ClearedPrefix, Storage } from '../../runtime/host.ts';
import { compareBytes, startsWith } from '../../runtime/primitives/bytes.ts';
import { Sink, Source } from '../../runtime/primitives/scale/io.ts';
import { latin1 } from '../latin1.ts';
import { nibblesOf, type Ref } from './node.ts';
import type { Change, ProofRecorder, Stale, Trie } from './trie.ts';

interface Appended {
  /** The encoded items before the first one appended here, without their count. */
  readonly base: Uint8Array;
  readonly count: number;
  readonly item: Uint8Array;
  readonly before: Appended | undefined;
}
/** `undefined`: deleted. */
type Entry = { value: Uint8Array | undefined; appended: Appended | undefined };

const bytes = (key: string): Uint8Array => new Uint8Array(Buffer.from(key, 'latin1'));

/** The list with its count: written from its end, in one pass over the items and one copy of their bytes. */
function materialize(last: Appended): Uint8Array {
  const { base, count } = last;
  const sink = new Sink(5);
  sink.compact(count);
  const head = sink.finish();
  let length = head.length + base.length;
  for (let each: Appended | undefined = last; each !== undefined; each = each.before) length += each.item.length;
  const out = new Uint8Array(length);
  out.set(head);
  out.set(base, head.length);
  let at = length;
  for (let each: Appended | undefined = last; each !== undefined; each = each.before) {
    at -= each.item.length;
    out.set(each.item, at);
  }
  return out;
}

function current(entry: Entry): Uint8Array | undefined {
  if (entry.appended !== undefined) {
    entry.value = materialize(entry.appended);
    entry.appended = undefined;
  }
  return entry.value;
}

function splitCount(value: Uint8Array | undefined): { count: number; base: Uint8Array } {
  if (value === undefined) return { count: 0, base: new Uint8Array() };
  try {
    const source = new Source(value);
    const count = source.compact(0xffffffff);
    return { count, base: source.bytes(source.remaining) };
  } catch {
    return { count: 0, base: new Uint8Array() };
  }
}

export class Overlay implements Storage {
  readonly #trie: Trie;
  readonly #parent: Ref | undefined;
  readonly #recorder: ProofRecorder | undefined;
  readonly #entries = new Map<string, Entry>();
  /** What to put back, for each open transaction. */
  readonly #undo: (readonly [string, Entry | undefined])[][] = [];
  #sorted: string[] = [];
  #unsorted: string[] = [];
  /** Keys changed since the root was last computed. */
  #pending = new Set<string>();
  #root: Ref | undefined;
  readonly #stale: Stale[] = [];

  constructor(trie: Trie, parent: Ref | undefined, recorder?: ProofRecorder) {
    this.#trie = trie;
    this.#parent = parent;
    this.#root = parent;
    this.#recorder = recorder;
  }

  #below(key: Uint8Array): Uint8Array | undefined {
    return this.#trie.get(this.#parent, key, this.#recorder);
  }

  get(key: Uint8Array): Uint8Array | undefined {
    const entry = this.#entries.get(latin1(key));
    return entry === undefined ? this.#below(key) : current(entry);
  }

  exists(key: Uint8Array): boolean {
    return this.get(key) !== undefined;
  }

  #set(name: string, entry: Entry): void {
    const before = this.#entries.get(name);
    this.#undo.at(-1)?.push([name, before]);
    if (before === undefined) this.#unsorted.push(name);
    this.#entries.set(name, entry);
    this.#pending.add(name);
  }

  put(key: Uint8Array, value: Uint8Array): void {
    this.#set(latin1(key), { value, appended: undefined });
  }

  delete(key: Uint8Array): void {
    this.#set(latin1(key), { value: undefined, appended: undefined });
  }

  append(key: Uint8Array, item: Uint8Array): void {
    const name = latin1(key);
    const entry = this.#entries.get(name);
    const before = entry?.appended;
    const { count, base } = before ?? splitCount(entry === undefined ? this.#below(key) : entry.value);
    this.#set(name, { value: undefined, appended: { base, count: count + 1, item, before } });
  }

  #order(): readonly string[] {
    if (this.#unsorted.length > 0) {
      const added = [...new Set(this.#unsorted)].sort();
      const merged: string[] = [];
      let at = 0;
      for (const name of this.#sorted) {
        while (at < added.length && added[at]! < name) merged.push(added[at++]!);
        if (added[at] === name) at++;
        merged.push(name);
      }
      while (at < added.length) merged.push(added[at++]!);
      this.#sorted = merged;
      this.#unsorted = [];
    }
    return this.#sorted;
  }

  nextKey(key: Uint8Array): Uint8Array | undefined {
    const order = this.#order();
    const name = latin1(key);
    let low = 0;
    let high = order.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (order[middle]! > name) high = middle;
      else low = middle + 1;
    }
    // Entries that a rollback took away are still in the order; they say nothing.
    const holds = (at: number): boolean => {
      const entry = this.#entries.get(order[at]!);
      return entry !== undefined && (entry.value !== undefined || entry.appended !== undefined);
    };
    while (low < order.length && !holds(low)) low++;
    let below = this.#trie.nextKey(this.#parent, key, this.#recorder);
    while (below !== undefined && this.#entries.has(latin1(below))) {
      below = this.#trie.nextKey(this.#parent, below, this.#recorder);
    }
    if (low === order.length) return below;
    const own = bytes(order[low]!);
    return below === undefined || compareBytes(own, below) < 0 ? own : below;
  }

  clearPrefix(prefix: Uint8Array, limit = Number.POSITIVE_INFINITY): ClearedPrefix {
    let removed = 0;
    let key: Uint8Array | undefined = this.exists(prefix) ? prefix : this.nextKey(prefix);
    for (; key !== undefined && startsWith(key, prefix); key = this.nextKey(key)) {
      if (removed >= limit) return { removed, more: true };
      this.delete(key);
      removed++;
    }
    return { removed, more: false };
  }

  beginTransaction(): void {
    this.#undo.push([]);
  }

  commitTransaction(): void {
    const done = this.#undo.pop();
    if (done === undefined) throw new Error('no transaction is open');
    const outer = this.#undo.at(-1);
    if (outer !== undefined) for (const each of done) outer.push(each);
  }

  rollbackTransaction(): void {
    const undone = this.#undo.pop();
    if (undone === undefined) throw new Error('no transaction is open');
    for (let i = undone.length - 1; i >= 0; i--) {
      const [name, before] = undone[i]!;
      if (before === undefined) {
        this.#entries.delete(name);
        this.#unsorted.push(name);
      } else this.#entries.set(name, before);
    }
  }

  storageRoot(version: 0 | 1): Uint8Array {
    if (this.#undo.length > 0) throw new Error('the root was asked for within a transaction');
    const changes = [...this.#pending].sort().map((name): Change => {
      const key = bytes(name);
      const entry = this.#entries.get(name);
      return { key: nibblesOf(key), value: entry === undefined ? this.#below(key) : current(entry) };
    });
    this.#pending = new Set();
    this.#root = this.#trie.update(this.#root, changes, version, this.#stale);
    return this.#trie.rootHash(this.#root);
  }

  /** What the block made of its parent's state. {@link storageRoot} must have been called after the last change. */
  changes(): { readonly root: Ref | undefined; readonly stale: readonly Stale[] } {
    if (this.#pending.size > 0) throw new Error('the root does not cover the last changes');
    return { root: this.#root, stale: this.#stale };
  }
}
