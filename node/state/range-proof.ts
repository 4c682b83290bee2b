/**
 * Proofs of ranges: a stretch of a state's entries in order, with what shows that none is left out. They travel in
 * Substrate's compact form (`sp_trie::CompactProof`): nodes from the root on, children before siblings, each without the
 * hashes of those children that follow it, since whoever reads the proof works these out.
 */
import { compareBytes } from '../../runtime/primitives/bytes.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import {
  bytesOf,
  decodeNode,
  type EncodedNode,
  encodeNode,
  type Hash256,
  joinPath,
  type Nibbles,
  nibblesOf,
  type Ref,
  type TrieNode,
} from './node.ts';
import { ProofError } from './proof.ts';
import type { Trie } from './trie.ts';

/** Stands before a node whose hashed value follows it (`sp_trie::trie_codec::ESCAPE_COMPACT_HEADER`). */
const ESCAPE = 1;
const NOTHING = new Uint8Array();
const HASH_LENGTH = 32;
/** How deep nodes may hang, and how long keys may be. They bound what a made-up proof can make a reader do. */
const MAX_LEVELS = 1_024;
const MAX_KEY_NIBBLES = 8_192;

/** Where a subtree at `path` lies: wholly at or before the key, wholly after it, or around it. */
function place(path: Nibbles, after: Nibbles | undefined): 'before' | 'after' | 'around' {
  if (after === undefined) return 'after';
  const common = Math.min(path.length, after.length);
  const order = compareBytes(path.subarray(0, common), after.subarray(0, common));
  if (order !== 0) return order < 0 ? 'before' : 'after';
  return path.length > after.length ? 'after' : 'around';
}

const isAfter = (key: Nibbles, after: Nibbles | undefined): boolean =>
  after === undefined || compareBytes(key, after) > 0;

/**
 * Entries with keys greater than `after`, at least one if there is one, until the proof is about `maxBytes` long. `root`
 * undefined: an empty trie, whose proof is empty.
 */
export function proveRange(
  trie: Trie,
  hash: Hash256,
  root: Ref | undefined,
  after: Uint8Array | undefined,
  maxBytes: number,
): Uint8Array[] {
  const start = after && nibblesOf(after);
  const proof: Uint8Array[] = [];
  let size = 0;
  let shown = 0;
  const full = (): boolean => shown > 0 && size >= maxBytes;
  /** Counts the entries of a node that stands within its parent. */
  const inline = (ref: Ref, path: Nibbles): void => {
    const node = trie.open(ref, path);
    if (node.value !== undefined && isAfter(join(path, node.partial), start)) shown++;
    forChildren(node, path, inline);
  };
  const visit = (ref: Ref, path: Nibbles): void => {
    const node = trie.open(ref, path);
    const at = proof.push(NOTHING) - 1;
    const key = join(path, node.partial);
    let attached = false;
    if (node.value !== undefined && isAfter(key, start)) {
      shown++;
      attached = node.hashed;
      if (attached) {
        proof.push(node.value);
        size += node.value.length;
      }
    }
    size += 64 + node.partial.length / 2 + (node.hashed ? 0 : (node.value?.length ?? 0));
    const followed = new Set<Ref>();
    forChildren(node, path, (child, below) => {
      if (trie.merkle(child).length < HASH_LENGTH) inline(child, below);
      else if (place(below, start) !== 'before' && !full()) {
        followed.add(child);
        visit(child, below);
      } else size += HASH_LENGTH;
    });
    const shape: TrieNode = attached ? { ...node, hashed: false, value: NOTHING } : node;
    const encoded = encodeNode(shape, (child) => (followed.has(child) ? NOTHING : trie.merkle(child)), hash);
    proof[at] = attached ? escaped(encoded) : encoded;
  };
  if (root !== undefined) visit(root, NOTHING);
  return proof;
}

export interface ProvenRange {
  readonly entries: readonly (readonly [key: Uint8Array, value: Uint8Array])[];
  /** Nothing comes after the last entry. */
  readonly complete: boolean;
}

interface Shown {
  readonly merkle: Uint8Array;
  readonly node: EncodedNode;
  readonly value: Uint8Array | undefined;
  readonly children: readonly (Shown | undefined)[];
}

/**
 * All entries after `after` that the proof shows without a gap. Throws {@link ProofError} when it does not lead to the root
 * `root`, or shows nothing at all.
 */
export function verifyRange(
  hash: Hash256,
  root: Uint8Array,
  proof: readonly Uint8Array[],
  after: Uint8Array | undefined,
): ProvenRange {
  if (proof.length === 0) {
    if (compareBytes(hash(new Uint8Array(1)), root) !== 0) throw new ProofError('INCOMPLETE', 'the proof is empty');
    return { entries: [], complete: true };
  }
  const shown = readProof(hash, root, proof);
  const start = after && nibblesOf(after);
  const entries: (readonly [Uint8Array, Uint8Array])[] = [];
  /** False at the first gap. */
  const collect = ({ node, value, children }: Shown, path: Nibbles): boolean => {
    const key = join(path, node.partial);
    if (key.length > MAX_KEY_NIBBLES) throw new ProofError('MALFORMED', 'the proof goes deeper than any key');
    if (node.value !== undefined && isAfter(key, start)) {
      if (value === undefined) return false;
      if (key.length % 2 !== 0) throw new ProofError('MALFORMED', 'a key of half a byte');
      entries.push([bytesOf(key), value]);
    }
    for (let nibble = 0; nibble < 16; nibble++) {
      if (node.children?.[nibble] === undefined) continue;
      const below = joinPath(path, node.partial, nibble);
      if (place(below, start) === 'before') continue;
      const child = children[nibble];
      if (child === undefined || !collect(child, below)) return false;
    }
    return true;
  };
  const complete = collect(shown, NOTHING);
  if (!complete && entries.length === 0) throw new ProofError('INCOMPLETE', 'the proof shows nothing');
  return { entries, complete };
}

/** Rebuilds the nodes from the last to the first, each with the hashes of those after it. */
function readProof(hash: Hash256, root: Uint8Array, proof: readonly Uint8Array[]): Shown {
  let at = 0;
  const next = (): Uint8Array => {
    const item = proof[at++];
    if (item === undefined) throw new ProofError('INCOMPLETE', 'the proof is cut off');
    return item;
  };
  const inline = (encoded: Uint8Array, level: number): Shown => {
    if (level > MAX_LEVELS) throw new ProofError('MALFORMED', 'the proof goes deeper than any key');
    const node = parse(encoded);
    // Nodes within nodes are whole: what they hold is too short to stand elsewhere.
    const children = (node.children ?? []).map((child) =>
      child === undefined || child.length === HASH_LENGTH ? undefined : inline(child, level + 1),
    );
    return { merkle: encoded, node, value: inlineValue(node), children };
  };
  const read = (level: number): Shown => {
    if (level > MAX_LEVELS) throw new ProofError('MALFORMED', 'the proof goes deeper than any key');
    const item = next();
    const attached = item[0] === ESCAPE;
    const node = parse(attached ? item.subarray(1) : item, true);
    const value = attached ? next() : inlineValue(node);
    if (attached && !(node.value !== undefined && 'inline' in node.value && node.value.inline.length === 0)) {
      throw new ProofError('MALFORMED', 'a value for a node that has one');
    }
    const children = (node.children ?? []).map((child) => {
      if (child === undefined || child.length === HASH_LENGTH) return undefined;
      return child.length === 0 ? read(level + 1) : inline(child, level + 1);
    });
    const encoded = encodeShown(hash, node, attached ? value : undefined, children);
    if (level > 0 && encoded.length < HASH_LENGTH) throw new ProofError('MALFORMED', 'a node that needs no place');
    return { merkle: hash(encoded), node, value, children };
  };
  const shown = read(0);
  if (at !== proof.length) throw new ProofError('MALFORMED', 'nodes that nothing leads to');
  if (compareBytes(shown.merkle, root) !== 0) throw new ProofError('MALFORMED', 'the proof leads to another root');
  return shown;
}

function encodeShown(
  hash: Hash256,
  { partial, value, children }: EncodedNode,
  attached: Uint8Array | undefined,
  found: readonly (Shown | undefined)[],
): Uint8Array {
  const refs = children?.map(
    (child, nibble): Ref | undefined =>
      child && { merkle: found[nibble]?.merkle ?? child, version: 0, node: undefined },
  );
  // A value of which only the hash is known stands in the node by that hash as it is.
  const [hashed, held, hasher]: [boolean, Uint8Array | undefined, Hash256] =
    attached !== undefined
      ? [true, attached, hash]
      : value === undefined
        ? [false, undefined, hash]
        : 'inline' in value
          ? [false, value.inline, hash]
          : [true, value.hash, (same) => same];
  return encodeNode({ partial, value: held, hashed, children: refs }, (child) => child.merkle!, hasher);
}

function parse(encoded: Uint8Array, compact = false): EncodedNode {
  try {
    return decodeNode(encoded, compact);
  } catch (problem) {
    if (problem instanceof ScaleError) throw new ProofError('MALFORMED', problem.message, { cause: problem });
    throw problem;
  }
}

const inlineValue = ({ value }: EncodedNode): Uint8Array | undefined =>
  value !== undefined && 'inline' in value ? value.inline : undefined;

function escaped(encoded: Uint8Array): Uint8Array {
  const out = new Uint8Array(encoded.length + 1);
  out[0] = ESCAPE;
  out.set(encoded, 1);
  return out;
}

function join(path: Nibbles, partial: Nibbles): Nibbles {
  const out = new Uint8Array(path.length + partial.length);
  out.set(path);
  out.set(partial, path.length);
  return out;
}

function forChildren({ partial, children }: TrieNode, path: Nibbles, run: (child: Ref, path: Nibbles) => void): void {
  children?.forEach((child, nibble) => {
    if (child !== undefined) run(child, joinPath(path, partial, nibble));
  });
}
