/**
 * Nodes of the base-16 Merkle-Patricia trie (Polkadot specification, section 2.3), in memory and encoded. In memory a
 * node is never changed once made; tries of different blocks share what they have in common.
 */
import { concatBytes } from '../../runtime/primitives/bytes.ts';
import { ScaleError, Sink, Source } from '../../runtime/primitives/scale/io.ts';

/** Hashes what the parent refers to. */
export type Hash256 = (data: Uint8Array) => Uint8Array;
export type StateVersion = 0 | 1;

/** One nibble a byte. */
export type Nibbles = Uint8Array;

/** Where a node hangs. `version`: which block wrote it; 0 while it is only in memory. */
export interface Ref {
  /** Its hash, or its encoding if that is shorter than 32 bytes; undefined until asked for. */
  merkle: Uint8Array | undefined;
  version: number;
  /** Undefined: in the database only. */
  node: TrieNode | undefined;
}

export interface TrieNode {
  readonly partial: Nibbles;
  readonly value: Uint8Array | undefined;
  /** The value stands in the trie by its hash (version 1, longer than 32 bytes). */
  readonly hashed: boolean;
  /** Sixteen places; undefined for leaves. */
  readonly children: readonly (Ref | undefined)[] | undefined;
}

const HASH_LENGTH = 32;
/** From this length on version 1 puts the hash in a value's place. */
const HASHED_FROM = 33;
export const isHashed = (value: Uint8Array | undefined, version: StateVersion): boolean =>
  version === 1 && value !== undefined && value.length >= HASHED_FROM;

export function nibblesOf(key: Uint8Array): Nibbles {
  const out = new Uint8Array(key.length * 2);
  for (let i = 0; i < key.length; i++) {
    out[2 * i] = key[i]! >> 4;
    out[2 * i + 1] = key[i]! & 15;
  }
  return out;
}

export function bytesOf(nibbles: Nibbles): Uint8Array {
  const out = new Uint8Array(nibbles.length >> 1);
  for (let i = 0; i < out.length; i++) out[i] = (nibbles[2 * i]! << 4) | nibbles[2 * i + 1]!;
  return out;
}

/** Kinds of nodes by the bits that their header begins with, and how many bits are left for the length. */
const KIND = {
  leaf: { bits: 0b0100_0000, room: 63 },
  branch: { bits: 0b1000_0000, room: 63 },
  branchWithValue: { bits: 0b1100_0000, room: 63 },
  leafHashed: { bits: 0b0010_0000, room: 31 },
  branchHashed: { bits: 0b0001_0000, room: 15 },
} as const;

function writeHeader(sink: Sink, { bits, room }: (typeof KIND)[keyof typeof KIND], partial: Nibbles): void {
  const { length } = partial;
  if (length < room) sink.u8(bits | length);
  else {
    sink.u8(bits | room);
    let rest = length - room;
    for (; rest >= 255; rest -= 255) sink.u8(255);
    sink.u8(rest);
  }
  let at = length & 1;
  if (at === 1) sink.u8(partial[0]!);
  for (; at < length; at += 2) sink.u8((partial[at]! << 4) | partial[at + 1]!);
}

/** The node as it is hashed. `merkleOf` gives what stands for a child. */
export function encodeNode(node: TrieNode, merkleOf: (child: Ref) => Uint8Array, hash: Hash256): Uint8Array {
  const sink = new Sink(128);
  writeNode(sink, node, merkleOf, hash);
  return sink.finish();
}

/** What stands for a node in its parent: its encoding, or the hash of that if it is 32 bytes or longer. */
export function merkleValue(node: TrieNode, merkleOf: (child: Ref) => Uint8Array, hash: Hash256): Uint8Array {
  const sink = new Sink(128);
  writeNode(sink, node, merkleOf, hash);
  return sink.drain((encoded) => (encoded.length < HASH_LENGTH ? encoded.slice() : hash(encoded)));
}

function writeNode(sink: Sink, node: TrieNode, merkleOf: (child: Ref) => Uint8Array, hash: Hash256): void {
  const { partial, value, hashed, children } = node;
  if (children === undefined) writeHeader(sink, hashed ? KIND.leafHashed : KIND.leaf, partial);
  else {
    const kind = value === undefined ? KIND.branch : hashed ? KIND.branchHashed : KIND.branchWithValue;
    writeHeader(sink, kind, partial);
    let bitmap = 0;
    for (let i = 0; i < 16; i++) if (children[i] !== undefined) bitmap |= 1 << i;
    sink.u16(bitmap);
  }
  if (value !== undefined) {
    if (hashed) sink.bytes(hash(value));
    else {
      sink.compact(value.length);
      sink.bytes(value);
    }
  }
  for (const child of children ?? []) {
    if (child === undefined) continue;
    const merkle = merkleOf(child);
    sink.compact(merkle.length);
    sink.bytes(merkle);
  }
}

/** A node as others send it. The value of one that stands by its hash is elsewhere. */
export interface EncodedNode {
  readonly partial: Nibbles;
  readonly value: { readonly inline: Uint8Array } | { readonly hash: Uint8Array } | undefined;
  /** What stands for each child: a hash of 32 bytes, or the encoding of a node that is shorter. Undefined for leaves. */
  readonly children: readonly (Uint8Array | undefined)[] | undefined;
}

const KINDS = Object.values(KIND);
/** Nibbles of one node (`sp_trie::NIBBLE_SIZE_BOUND`). */
const MAX_PARTIAL = 65_535;

const malformed = (why: string): ScaleError => new ScaleError('NON_CANONICAL', `trie node: ${why}`);

function readPartial(source: Source, first: number, room: number): Nibbles {
  let length = first & room;
  if (length === room) {
    for (let more = 255; more === 255; ) {
      more = source.u8();
      length += more;
      if (length > MAX_PARTIAL) throw malformed('the partial key is too long');
    }
  }
  const odd = length & 1;
  const bytes = source.bytes((length + odd) >> 1);
  if (odd === 1 && bytes[0]! > 15) throw malformed('padding of the partial key');
  return nibblesOf(bytes).subarray(odd);
}

/**
 * Reads what {@link encodeNode} writes, and only that: a node has one encoding. Byte strings are views of the input. In a
 * `compact` proof a child that follows the node stands in it with no bytes.
 * Throws {@link ScaleError}.
 */
export function decodeNode(encoded: Uint8Array, compact = false): EncodedNode {
  const source = new Source(encoded);
  const first = source.u8();
  const kind = KINDS.find(({ bits, room }) => (first & ~room) === bits);
  if (kind === undefined) throw malformed(`header 0x${first.toString(16)} is not known`);
  const partial = readPartial(source, first, kind.room);
  const isLeaf = kind === KIND.leaf || kind === KIND.leafHashed;
  const bitmap = isLeaf ? 0 : source.u16();
  if (!isLeaf && bitmap === 0) throw malformed('a branch without children');
  let value: EncodedNode['value'];
  if (kind === KIND.leafHashed || kind === KIND.branchHashed) value = { hash: source.bytes(HASH_LENGTH) };
  else if (kind !== KIND.branch) value = { inline: source.bytes(source.compact(0xffffffff)) };
  let children: (Uint8Array | undefined)[] | undefined;
  if (!isLeaf) {
    children = new Array(16).fill(undefined);
    for (let nibble = 0; nibble < 16; nibble++) {
      if ((bitmap & (1 << nibble)) === 0) continue;
      const length = source.compact(HASH_LENGTH);
      if (length === 0 && !compact) throw malformed('an empty child');
      children[nibble] = source.bytes(length);
    }
  }
  if (source.remaining > 0) throw new ScaleError('TRAILING_BYTES', `${source.remaining} bytes after a trie node`);
  return { partial, value, children };
}

// ---- as stored -----------------------------------------------------------------------------------------------

const HAS_VALUE = 1;
const HAS_HASHED = 2;
const HAS_CHILDREN = 4;

/** All values in full, children by version: what the database holds. */
export function storeNode({ partial, value, hashed, children }: TrieNode): Uint8Array {
  const sink = new Sink(128);
  sink.u8(
    (value === undefined ? 0 : HAS_VALUE) | (hashed ? HAS_HASHED : 0) | (children === undefined ? 0 : HAS_CHILDREN),
  );
  sink.compact(partial.length);
  sink.bytes(partial);
  if (value !== undefined) {
    sink.compact(value.length);
    sink.bytes(value);
  }
  for (const child of children ?? []) {
    sink.u8(child?.merkle?.length ?? 0);
    if (child === undefined) continue;
    sink.bytes(child.merkle!);
    sink.u64(BigInt(child.version));
  }
  return sink.finish();
}

export function restoreNode(bytes: Uint8Array): TrieNode {
  let at = 0;
  const length = (): number => {
    const first = bytes[at]!;
    const mode = first & 3;
    if (mode === 0) {
      at += 1;
      return first >> 2;
    }
    if (mode === 1) {
      at += 2;
      return (first | (bytes[at - 1]! << 8)) >> 2;
    }
    at += 4;
    return ((first | (bytes[at - 3]! << 8) | (bytes[at - 2]! << 16)) >>> 2) + bytes[at - 1]! * 2 ** 22;
  };
  const take = (count: number): Uint8Array => {
    at += count;
    return bytes.subarray(at - count, at);
  };
  const flags = bytes[at++]!;
  const partial = take(length());
  const value = (flags & HAS_VALUE) === 0 ? undefined : take(length());
  let children: (Ref | undefined)[] | undefined;
  if ((flags & HAS_CHILDREN) !== 0) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    children = Array.from({ length: 16 }, () => {
      const size = bytes[at++]!;
      if (size === 0) return undefined;
      const merkle = take(size);
      at += 8;
      return { merkle, version: Number(view.getBigUint64(at - 8, true)), node: undefined };
    });
  }
  return { partial, value, hashed: (flags & HAS_HASHED) !== 0, children };
}

/** Key of a node in the database: its place, then who wrote it. Neighbours in the trie are neighbours on disk. */
export function locationOf(path: Nibbles, version: number): Uint8Array {
  const { length } = path;
  const out = new Uint8Array(length + 8);
  out.set(path);
  let rest = version;
  for (let i = 7; rest > 0; i--, rest = Math.floor(rest / 256)) out[length + i] = rest % 256;
  return out;
}

export const joinPath = (path: Nibbles, partial: Nibbles, nibble: number): Nibbles =>
  concatBytes(path, partial, Uint8Array.of(nibble));
