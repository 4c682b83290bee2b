/**
 * States by block. Each block adds the trie nodes that it made, under its own version, and notes which older ones it
 * replaced. Nodes are therefore written once and removed once: those of an abandoned fork with the fork, the replaced ones
 * when the last state that needs them leaves the window.
 */

import { toHex } from '../../runtime/primitives/bytes.ts';
import {
  bytes,
  compact,
  decode,
  encode,
  type Infer,
  option,
  struct,
  tuple,
  u32,
  u64,
  vec,
} from '../../runtime/primitives/scale/codec.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { type Batch, COLUMN, type Database } from '../database/database.ts';
import type { StateView } from '../ports/chain.ts';
import { type Difference, differences } from './differences.ts';
import {
  type Hash256,
  locationOf,
  type Nibbles,
  nibblesOf,
  type Ref,
  restoreNode,
  type StateVersion,
  storeNode,
  type TrieNode,
} from './node.ts';
import { Overlay } from './overlay.ts';
import { proveRange } from './range-proof.ts';
import { type Change, ProofRecorder, type Stale, Trie } from './trie.ts';

const rootRecord = struct({ number: u32, version: u64, merkle: option(bytes()) });
const journalRecord = struct({ added: vec(bytes()), stale: vec(tuple(bytes(), u64)), version: compact(u64) });
type Journal = Infer<typeof journalRecord>;

interface State {
  readonly number: number;
  readonly version: number;
  readonly root: Ref | undefined;
}

/** The root of a state, as it is found in the database. */
export interface StateRoot {
  readonly version: number;
  /** Undefined for the state without keys. */
  readonly merkle: Uint8Array | undefined;
}

export interface StateOptions {
  /** Finalized states that are kept beside the newest one. */
  readonly pruning: number | 'archive';
  /** Trie nodes held in memory, about; beyond it all are let go and read again as needed. */
  readonly maxCachedNodes?: number;
}

/** A state on its way in. Memory holds one piece of it, however large it is. */
export interface StateReceiver {
  readonly entries: number;
  /** The last key taken in. */
  readonly last: Uint8Array | undefined;
  /** Entries with keys above those before, in ascending order. */
  add(entries: readonly (readonly [key: Uint8Array, value: Uint8Array])[]): Promise<void>;
  root(): Uint8Array;
  /** Makes it the block's state once the batch is committed; what is returned is to be called then. */
  finish(batch: Batch, block: { readonly hash: Hash; readonly number: number }): () => void;
}

export class StateDatabase {
  readonly trie: Trie;
  readonly #database: Database;
  readonly #hash: Hash256;
  readonly pruning: number | 'archive';
  readonly #maxCachedNodes: number;
  readonly #states = new Map<string, State>();
  #cached = 0;
  #nextVersion = 1;

  private constructor(database: Database, hash: Hash256, options: StateOptions) {
    this.#database = database;
    this.#hash = hash;
    this.pruning = options.pruning;
    this.#maxCachedNodes = options.maxCachedNodes ?? 200_000;
    this.trie = new Trie(hash, (path, ref) => this.#load(path, ref));
  }

  static async open(database: Database, hash: Hash256, options: StateOptions): Promise<StateDatabase> {
    const states = new StateDatabase(database, hash, options);
    for await (const [block, record] of database.entries(COLUMN.roots)) {
      const { number, version, merkle } = decode(rootRecord, record);
      const root = merkle && { merkle: Uint8Array.from(merkle), version: Number(version), node: undefined };
      states.#states.set(toHex(block), { number, version: Number(version), root });
      states.#nextVersion = Math.max(states.#nextVersion, Number(version) + 1);
    }
    return states;
  }

  #load(path: Nibbles, ref: Ref): TrieNode {
    const stored = this.#database.get(COLUMN.nodes, locationOf(path, ref.version));
    if (stored === undefined) throw new Error(`the database lacks a trie node of version ${ref.version}`);
    const node = restoreNode(stored);
    ref.node = node;
    this.#cached++;
    return node;
  }

  /** Lets go of nodes when there are too many; whoever still works with them keeps them. */
  #forget(): void {
    if (this.#cached <= this.#maxCachedNodes) return;
    for (const [key, { root, ...state }] of this.#states) {
      this.#states.set(key, { ...state, root: root && { ...root, node: undefined } });
    }
    this.#cached = 0;
  }

  has(block: Hash): boolean {
    return this.#states.has(toHex(block));
  }

  #state(block: Hash): State | undefined {
    return this.#states.get(toHex(block));
  }

  rootOf(block: Hash): StateRoot | undefined {
    const state = this.#state(block);
    if (state === undefined) return undefined;
    const { root } = state;
    return { version: root?.version ?? 0, merkle: root && this.trie.merkle(root) };
  }

  at(block: Hash): StateView | undefined {
    const state = this.#state(block);
    if (state === undefined) return undefined;
    const { trie } = this;
    return {
      root: trie.rootHash(state.root) as Hash,
      get: (key) => trie.get(state.root, key),
      nextKey: (key) => trie.nextKey(state.root, key),
    };
  }

  /** Changes on top of a block's state; undefined if that is not there. `recorder` sees what is read. */
  overlay(block: Hash, recorder?: ProofRecorder): Overlay | undefined {
    const state = this.#state(block);
    return state && new Overlay(this.trie, state.root, recorder);
  }

  /** On top of nothing: for the genesis block. */
  empty(): Overlay {
    return new Overlay(this.trie, undefined);
  }

  recorder(): ProofRecorder {
    return new ProofRecorder(this.trie);
  }

  prove(block: Hash, keys: readonly Uint8Array[]): Uint8Array[] | undefined {
    const state = this.#state(block);
    return state && this.trie.prove(state.root, keys);
  }

  proveRange(block: Hash, after: Uint8Array | undefined, maxBytes: number): Uint8Array[] | undefined {
    const state = this.#state(block);
    return state && proveRange(this.trie, this.#hash, state.root, after, maxBytes);
  }

  closestDescendant(block: Hash, key: Uint8Array): Uint8Array | undefined {
    const state = this.#state(block);
    return state && this.trie.closestDescendant(state.root, key);
  }

  /** Of the keys that begin with `prefix`, those that the two states have otherwise; undefined when one is not here. */
  differences(before: Hash, after: Hash, prefix: Uint8Array): Iterable<Difference> | undefined {
    const [from, to] = [this.#state(before), this.#state(after)];
    return from && to && differences(this.trie, from.root, to.root, prefix);
  }

  /** Writes a block's state into the batch. It counts once the caller says so by {@link Inserted.committed}. */
  insert(batch: Batch, block: { readonly hash: Hash; readonly number: number }, overlay: Overlay): () => void {
    const { root, stale } = overlay.changes();
    const version = this.#nextVersion++;
    const added: Uint8Array[] = [];
    if (root !== undefined) {
      this.trie.merkle(root);
      this.#write(batch, root, new PathBuffer(), version, added);
    }
    const journal: Journal = {
      added,
      stale: stale.map(({ path, version: of }: Stale): [Uint8Array, bigint] => [path, BigInt(of)]),
      version: BigInt(version),
    };
    batch.put(COLUMN.journal, block.hash, encode(journalRecord, journal));
    const record = { number: block.number, version: BigInt(root?.version ?? version), merkle: root?.merkle };
    batch.put(COLUMN.roots, block.hash, encode(rootRecord, record));
    return () => {
      this.#states.set(toHex(block.hash), { number: block.number, version, root });
      this.#cached += added.length;
      this.#forget();
    };
  }

  /** Takes in a whole state that others send, for a block that is final. */
  receive(stateVersion: StateVersion): StateReceiver {
    const version = this.#nextVersion++;
    const { trie } = this;
    let root: Ref | undefined;
    let entries = 0;
    let last: Uint8Array | undefined;
    return {
      get entries() {
        return entries;
      },
      get last() {
        return last;
      },
      add: async (piece) => {
        const changes = piece.map(([key, value]): Change => ({ key: nibblesOf(key), value }));
        // All of it is one version: what a piece changes of the ones before is written over in its place.
        root = trie.update(root, changes, stateVersion, []);
        if (root === undefined) return;
        const batch = this.#database.batch();
        trie.merkle(root);
        this.#write(batch, root, new PathBuffer(), version, []);
        await batch.commit();
        root = { ...root, node: undefined };
        entries += piece.length;
        last = piece.at(-1)?.[0].slice() ?? last;
      },
      root: () => trie.rootHash(root),
      finish: (batch, block) => {
        const journal: Journal = { added: [], stale: [], version: BigInt(version) };
        batch.put(COLUMN.journal, block.hash, encode(journalRecord, journal));
        const record = { number: block.number, version: BigInt(version), merkle: root?.merkle };
        batch.put(COLUMN.roots, block.hash, encode(rootRecord, record));
        return () => {
          this.#states.set(toHex(block.hash), { number: block.number, version, root });
        };
      },
    };
  }

  #write(batch: Batch, ref: Ref, path: PathBuffer, version: number, added: Uint8Array[]): void {
    if (ref.version > 0) return;
    const node = ref.node!;
    const own = path.take();
    const { children, partial } = node;
    if (children !== undefined) {
      for (let nibble = 0; nibble < 16; nibble++) {
        const child = children[nibble];
        if (child === undefined || child.version > 0) continue;
        path.down(partial, nibble);
        this.#write(batch, child, path, version, added);
        path.up(partial);
      }
    }
    ref.version = version;
    batch.put(COLUMN.nodes, locationOf(own, version), storeNode(node));
    added.push(own);
  }

  /**
   * Blocks became final (oldest first), abandoned ones are removed: their states go, and so do final ones that leave the
   * window. `canonical` gives the final block of a height.
   */
  finalize(
    batch: Batch,
    finalized: readonly { readonly hash: Hash; readonly number: number }[],
    abandoned: readonly Hash[],
    canonical: (number: number) => Hash | undefined,
  ): () => void {
    const gone: Hash[] = [];
    for (const block of abandoned) {
      const journal = this.#journal(block);
      if (journal !== undefined) {
        for (const path of journal.added) batch.delete(COLUMN.nodes, locationOf(path, Number(journal.version)));
      }
      gone.push(block);
    }
    if (this.pruning !== 'archive') {
      for (const { number } of finalized) {
        const leaving = number - this.pruning;
        const old = leaving > 0 ? canonical(leaving - 1) : undefined;
        const successor =
          leaving > 0 ? (canonical(leaving) ?? finalized.find((each) => each.number === leaving)?.hash) : undefined;
        if (old === undefined || successor === undefined || !this.has(old)) continue;
        for (const [path, version] of this.#journal(successor)?.stale ?? []) {
          batch.delete(COLUMN.nodes, locationOf(path, Number(version)));
        }
        gone.push(old);
      }
    }
    for (const block of gone) {
      batch.delete(COLUMN.roots, block);
      batch.delete(COLUMN.journal, block);
    }
    return () => {
      for (const block of gone) this.#states.delete(toHex(block));
    };
  }

  #journal(block: Hash): Journal | undefined {
    const stored = this.#database.get(COLUMN.journal, block);
    return stored && decode(journalRecord, stored);
  }
}

/** Where one is in a trie, going down and up. */
class PathBuffer {
  #nibbles = new Uint8Array(256);
  #length = 0;

  down(partial: Nibbles, nibble: number): void {
    const next = this.#length + partial.length + 1;
    if (next > this.#nibbles.length) {
      const grown = new Uint8Array(2 * next);
      grown.set(this.#nibbles);
      this.#nibbles = grown;
    }
    this.#nibbles.set(partial, this.#length);
    this.#nibbles[next - 1] = nibble;
    this.#length = next;
  }

  up(partial: Nibbles): void {
    this.#length -= partial.length + 1;
  }

  take(): Nibbles {
    return this.#nibbles.slice(0, this.#length);
  }
}
