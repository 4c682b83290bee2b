/** Reading and changing tries. Changing k of n keys makes O(k log n) new nodes; everything else is shared. */
import { compareBytes, concatBytes } from '../../runtime/primitives/bytes.ts';
import { extrinsicItems } from '../../runtime/primitives/header.ts';
import { Sink } from '../../runtime/primitives/scale/io.ts';
import { latin1 } from '../latin1.ts';
import {
  bytesOf,
  encodeNode,
  type Hash256,
  isHashed,
  joinPath,
  merkleValue,
  type Nibbles,
  nibblesOf,
  type Ref,
  type StateVersion,
  type TrieNode,
} from './node.ts';

export interface Change {
  readonly key: Nibbles;
  /** Undefined removes the key. */
  readonly value: Uint8Array | undefined;
}

/** Nodes that a change replaced and that are in the database. */
export interface Stale {
  readonly path: Nibbles;
  readonly version: number;
}

export type Load = (path: Nibbles, ref: Ref) => TrieNode;
/** For tries that are wholly in memory. */
export const inMemory: Load = (_path, { node }) => {
  if (node === undefined) throw new Error('a node of an in-memory trie is missing');
  return node;
};

/** Told of what is read: every node on the way, the root first, and the nodes whose values were looked at. */
export interface Visitor {
  node(node: TrieNode, ref: Ref): void;
  value(node: TrieNode): void;
}

const fresh = (node: TrieNode): Ref => ({ merkle: undefined, version: 0, node });
const EMPTY: Nibbles = new Uint8Array();

/** How many nibbles `a` from `aFrom` on and `b` from `bFrom` on have in common. */
export function commonPrefix(a: Nibbles, aFrom: number, b: Nibbles, bFrom: number): number {
  const limit = Math.min(a.length - aFrom, b.length - bFrom);
  let length = 0;
  while (length < limit && a[aFrom + length] === b[bFrom + length]) length++;
  return length;
}

export class Trie {
  readonly #load: Load;
  readonly #hash: Hash256;

  constructor(hash: Hash256, load: Load) {
    this.#hash = hash;
    this.#load = load;
  }

  // ---- reading -----------------------------------------------------------------------------------------------

  get(root: Ref | undefined, key: Uint8Array, visitor?: Visitor): Uint8Array | undefined {
    let ref = root;
    const end = key.length * 2;
    let depth = 0;
    let path: Nibbles | undefined;
    while (ref !== undefined) {
      let node = ref.node;
      if (node === undefined) {
        path = nibblesOf(key).subarray(0, depth);
        node = this.#load(path, ref);
      }
      visitor?.node(node, ref);
      const { partial } = node;
      if (depth + partial.length > end) return undefined;
      for (let i = 0; i < partial.length; i++, depth++) {
        const byte = key[depth >> 1]!;
        if (partial[i] !== ((depth & 1) === 0 ? byte >> 4 : byte & 15)) return undefined;
      }
      if (depth === end) {
        visitor?.value(node);
        return node.value;
      }
      const byte = key[depth >> 1]!;
      ref = node.children?.[(depth & 1) === 0 ? byte >> 4 : byte & 15];
      depth++;
    }
    return undefined;
  }

  /** The next key after `key` in lexicographic order. */
  nextKey(root: Ref | undefined, key: Uint8Array, visitor?: Visitor): Uint8Array | undefined {
    const found = root && this.#after(root, EMPTY, nibblesOf(key), 0, visitor);
    return found && bytesOf(found);
  }

  /** The least key under `ref` that is greater than `key`, of which the first `depth` nibbles are `path`. */
  #after(ref: Ref, path: Nibbles, key: Nibbles, depth: number, visitor: Visitor | undefined): Nibbles | undefined {
    const node = this.#at(path, ref, visitor);
    const { partial, children } = node;
    const same = commonPrefix(partial, 0, key, depth);
    const here = depth + partial.length;
    if (same < partial.length) {
      // Either the key ends within the partial, or they part ways in it.
      const before = depth + same < key.length && partial[same]! < key[depth + same]!;
      return before ? undefined : this.#first(node, path, visitor);
    }
    if (here === key.length) return this.#firstChild(node, path, 0, visitor);
    if (children === undefined) return undefined;
    const nibble = key[here]!;
    const child = children[nibble];
    const inside = child && this.#after(child, joinPath(path, partial, nibble), key, here + 1, visitor);
    return inside ?? this.#firstChild(node, path, nibble + 1, visitor);
  }

  #at(path: Nibbles, ref: Ref, visitor: Visitor | undefined): TrieNode {
    const node = ref.node ?? this.#load(path, ref);
    visitor?.node(node, ref);
    return node;
  }

  /** The least key at or under a node. */
  #first(node: TrieNode, path: Nibbles, visitor: Visitor | undefined): Nibbles | undefined {
    // Asked this way round because a proof may show that there is a value without showing the value.
    const holds = node.hashed || node.value !== undefined;
    return holds ? concatBytes(path, node.partial) : this.#firstChild(node, path, 0, visitor);
  }

  /** The least key under a node's children from one on. Goes down in a loop, since a proof may be made to go deep. */
  #firstChild(node: TrieNode, path: Nibbles, from: number, visitor: Visitor | undefined): Nibbles | undefined {
    for (let start = from; ; start = 0) {
      const nibble = node.children?.findIndex((child, at) => at >= start && child !== undefined) ?? -1;
      if (nibble < 0) return undefined;
      path = joinPath(path, node.partial, nibble);
      node = this.#at(path, node.children![nibble]!, visitor);
      if (node.hashed || node.value !== undefined) return concatBytes(path, node.partial);
    }
  }

  /** Merkle value of the topmost node whose key begins with `key`. */
  closestDescendant(root: Ref | undefined, key: Uint8Array): Uint8Array | undefined {
    const wanted = nibblesOf(key);
    let ref = root;
    let path: Nibbles = EMPTY;
    while (ref !== undefined) {
      const node = ref.node ?? this.#load(path, ref);
      const same = commonPrefix(node.partial, 0, wanted, path.length);
      if (path.length + same === wanted.length) return path.length === 0 ? this.rootHash(ref) : this.merkle(ref);
      if (same < node.partial.length) return undefined;
      const nibble = wanted[path.length + same]!;
      path = joinPath(path, node.partial, nibble);
      ref = node.children?.[nibble];
    }
    return undefined;
  }

  /** The node that hangs at `path`, read from the database if need be. */
  open(ref: Ref, path: Nibbles): TrieNode {
    return ref.node ?? this.#load(path, ref);
  }

  // ---- Merkle values -----------------------------------------------------------------------------------------

  encoded(node: TrieNode): Uint8Array {
    return encodeNode(node, (child) => this.merkle(child), this.#hash);
  }

  /** What stands for the node in its parent. */
  merkle(ref: Ref): Uint8Array {
    if (ref.merkle === undefined) {
      ref.merkle = merkleValue(ref.node!, (child) => this.merkle(child), this.#hash);
    }
    return ref.merkle;
  }

  rootHash(root: Ref | undefined): Uint8Array {
    if (root === undefined) return this.#hash(new Uint8Array(1));
    const merkle = this.merkle(root);
    // A root is hashed however short it is.
    return merkle.length < 32 ? this.#hash(merkle) : merkle;
  }

  // ---- changing ----------------------------------------------------------------------------------------------

  /** `changes` in ascending order of their keys, each key once. */
  update(root: Ref | undefined, changes: readonly Change[], version: StateVersion, stale: Stale[]): Ref | undefined {
    if (changes.length === 0) return root;
    return this.#update(root, changes, 0, changes.length, 0, version, stale);
  }

  /** `changes` from `from` on up to `to` have their first `depth` nibbles, at which `ref` hangs, in common. */
  #update(
    ref: Ref | undefined,
    changes: readonly Change[],
    from: number,
    to: number,
    depth: number,
    version: StateVersion,
    stale: Stale[],
  ): Ref | undefined {
    if (ref === undefined) return this.#build(changes, from, to, depth, version);
    const first = changes[from]!.key;
    const last = changes[to - 1]!.key;
    const node = ref.node ?? this.#load(first.subarray(0, depth), ref);
    const { partial } = node;
    const same = Math.min(
      commonPrefix(partial, 0, first, depth),
      first === last ? partial.length : commonPrefix(partial, 0, last, depth),
    );
    const here = depth + same;
    let value: Uint8Array | undefined;
    let hashed = false;
    let children: (Ref | undefined)[];
    let changed = false;
    if (same < partial.length) {
      children = new Array(16).fill(undefined);
      children[partial[same]!] = fresh({ ...node, partial: partial.subarray(same + 1) });
    } else {
      ({ value, hashed } = node);
      children = node.children === undefined ? new Array(16).fill(undefined) : node.children.slice();
    }
    let at = from;
    if (first.length === here) {
      const next = changes[at]!.value;
      if (!sameValue(next, value) || hashed !== isHashed(next, version)) {
        value = next;
        hashed = isHashed(next, version);
        changed = true;
      }
      at++;
    }
    while (at < to) {
      const nibble = changes[at]!.key[here]!;
      let end = at + 1;
      while (end < to && changes[end]!.key[here] === nibble) end++;
      const before = children[nibble];
      const after = this.#update(before, changes, at, end, here + 1, version, stale);
      if (after !== before) {
        children[nibble] = after;
        changed = true;
      }
      at = end;
    }
    if (!changed) return ref;
    if (ref.version > 0) stale.push({ path: first.subarray(0, depth), version: ref.version });
    return this.#normal(partial.subarray(0, same), value, hashed, children, first.subarray(0, here), stale);
  }

  /** A node of these parts: none, a leaf, its only child lengthened, or a branch. `place`: where it branches. */
  #normal(
    partial: Nibbles,
    value: Uint8Array | undefined,
    hashed: boolean,
    children: (Ref | undefined)[],
    place: Nibbles,
    stale: Stale[],
  ): Ref | undefined {
    let count = 0;
    let only = 0;
    for (let i = 0; i < 16; i++) {
      if (children[i] === undefined) continue;
      count++;
      only = i;
    }
    if (count === 0) return value === undefined ? undefined : fresh({ partial, value, hashed, children: undefined });
    if (count > 1 || value !== undefined) return fresh({ partial, value, hashed, children });
    const child = children[only]!;
    const below = concatBytes(place, Uint8Array.of(only));
    const node = child.node ?? this.#load(below, child);
    if (child.version > 0) stale.push({ path: below, version: child.version });
    return fresh({ ...node, partial: joinPathInner(partial, only, node.partial) });
  }

  #build(changes: readonly Change[], from: number, to: number, depth: number, version: StateVersion): Ref | undefined {
    const set: Change[] = [];
    for (let i = from; i < to; i++) if (changes[i]!.value !== undefined) set.push(changes[i]!);
    return this.#buildFrom(set, 0, set.length, depth, version);
  }

  #buildFrom(set: readonly Change[], from: number, to: number, depth: number, version: StateVersion): Ref | undefined {
    if (from === to) return undefined;
    const first = set[from]!;
    const length = to - from === 1 ? first.key.length - depth : commonPrefix(first.key, depth, set[to - 1]!.key, depth);
    const here = depth + length;
    const partial = first.key.subarray(depth, here);
    let at = from;
    let value: Uint8Array | undefined;
    if (first.key.length === here) {
      value = first.value;
      at++;
    }
    const hashed = isHashed(value, version);
    if (at === to) return fresh({ partial, value, hashed, children: undefined });
    const children: (Ref | undefined)[] = new Array(16).fill(undefined);
    while (at < to) {
      const nibble = set[at]!.key[here]!;
      let end = at + 1;
      while (end < to && set[end]!.key[here] === nibble) end++;
      children[nibble] = this.#buildFrom(set, at, end, here + 1, version);
      at = end;
    }
    return fresh({ partial, value, hashed, children });
  }

  // ---- proofs ------------------------------------------------------------------------------------------------

  /** The encoded nodes (and hashed values) that show what `keys` are, each once. */
  prove(root: Ref | undefined, keys: readonly Uint8Array[]): Uint8Array[] {
    const proof = new ProofRecorder(this);
    for (const key of keys) this.get(root, key, proof);
    return proof.nodes();
  }
}

/** Collects what was read of a trie. */
export class ProofRecorder implements Visitor {
  readonly #found = new Map<Ref, Uint8Array>();
  readonly #values = new Set<Uint8Array>();
  readonly #trie: Trie;
  #isRoot = true;

  constructor(trie: Trie) {
    this.#trie = trie;
  }

  node(node: TrieNode, ref: Ref): void {
    if (this.#found.has(ref)) return;
    const encoded = this.#trie.encoded(node);
    // Nodes shorter than a hash stand in their parents; the root stands for itself.
    if (encoded.length >= 32 || this.#isRoot) this.#found.set(ref, encoded);
    this.#isRoot = false;
  }

  value(node: TrieNode): void {
    if (node.hashed && node.value !== undefined) this.#values.add(node.value);
  }

  nodes(): Uint8Array[] {
    const seen = new Set<string>();
    return [...this.#found.values(), ...this.#values].filter((bytes) => {
      const key = latin1(bytes);
      return !seen.has(key) && seen.add(key);
    });
  }
}

const joinPathInner = (partial: Nibbles, nibble: number, rest: Nibbles): Nibbles =>
  concatBytes(partial, Uint8Array.of(nibble), rest);

export const sameValue = (a: Uint8Array | undefined, b: Uint8Array | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && a.length === b.length && compareBytes(a, b) === 0);

/** Root of a trie of these entries alone. */
export function trieRoot(
  hash: Hash256,
  entries: Iterable<readonly [Uint8Array, Uint8Array]>,
  version: StateVersion,
): Uint8Array {
  const trie = new Trie(hash, inMemory);
  const changes = [...entries]
    .map(([key, value]): Change => ({ key: nibblesOf(key), value }))
    .sort((a, b) => compareBytes(a.key, b.key));
  return trie.rootHash(trie.update(undefined, changes, version, []));
}

/** Root over a list under the compact encodings of its indices. */
export const orderedTrieRoot = (hash: Hash256, items: readonly Uint8Array[]): Uint8Array =>
  trieRoot(
    hash,
    items.map((item, index) => {
      const sink = new Sink(5);
      sink.compact(index);
      return [sink.finish(), item] as const;
    }),
    0,
  );

/** What the header of a block with these extrinsics names as their root. */
export const extrinsicsRoot = (hash: Hash256, extrinsics: readonly Uint8Array[]): Uint8Array =>
  orderedTrieRoot(hash, extrinsicItems(extrinsics));
