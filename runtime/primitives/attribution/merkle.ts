/**
 * Binary Merkle trees with the shape of RFC 6962 (a node splits at the largest power of two below its width: no leaf
 * is ever doubled), blake2b-256, and three separated kinds of input:
 *
 *     leaf = H(domain ++ 0x00 ++ data)    node = H(domain ++ 0x01 ++ left ++ right)
 *     root = H(domain ++ 0x02 ++ u32 count ++ top)
 *
 * A node can therefore not be passed off as a leaf, nor a tree as one of another kind or width. A proof is for a
 * contiguous range of leaves: the roots of the subtrees left out, from left to right.
 */
import { concatBytes, equalBytes } from '../bytes.ts';
import { type Infer, struct, u32, vec } from '../scale/codec.ts';
import { asHash, type Hash, hash, ZERO_HASH } from '../types.ts';
import { type Blake, domainTag, part } from './canonical.ts';

export type TreeKind =
  | 'records'
  | 'snapshot'
  | 'features'
  | 'sums'
  | 'frequencies'
  | 'receipts'
  | 'ledger'
  | 'sessions';

const TREE_DOMAINS: { readonly [K in TreeKind]: Uint8Array } = {
  records: domainTag('tree/records/1'),
  snapshot: domainTag('tree/snapshot/1'),
  features: domainTag('tree/features/1'),
  sums: domainTag('tree/sums/1'),
  frequencies: domainTag('tree/frequencies/1'),
  receipts: domainTag('tree/receipts/1'),
  ledger: domainTag('tree/ledger/1'),
  sessions: domainTag('tree/sessions/1'),
};

const LEAF = Uint8Array.of(0);
const NODE = Uint8Array.of(1);
const ROOT = Uint8Array.of(2);

export class MerkleError extends Error {
  readonly code = 'INVALID_RANGE';
}

/** Siblings of a range of leaves; at most two for each of 32 levels. */
export const merkleProof = part('MerkleProof', struct({ first: u32, siblings: vec(hash, 64) }));
export type MerkleProof = Infer<typeof merkleProof>;

export const leafHash = (hashing: Blake, kind: TreeKind, data: Uint8Array): Hash =>
  asHash(hashing.blake2_256(concatBytes(TREE_DOMAINS[kind], LEAF, data)));

function countBytes(count: number): Uint8Array {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, count, true);
  return out;
}

/** Largest power of two below `width` (`width` ≥ 2). */
const splitOf = (width: number): number => 2 ** (31 - Math.clz32(width - 1));

/** Joins nodes of one kind of tree; the buffer is reused, since trees are built a million nodes at a time. */
function joiner(hashing: Blake, kind: TreeKind): (left: Uint8Array, right: Uint8Array) => Hash {
  const domain = TREE_DOMAINS[kind];
  const buffer = new Uint8Array(domain.length + 1 + 64);
  buffer.set(domain);
  buffer.set(NODE, domain.length);
  return (left, right) => {
    buffer.set(left, domain.length + 1);
    buffer.set(right, domain.length + 33);
    return hashing.blake2_256(buffer) as Hash;
  };
}

const seal = (hashing: Blake, kind: TreeKind, count: number, top: Uint8Array): Hash =>
  asHash(hashing.blake2_256(concatBytes(TREE_DOMAINS[kind], ROOT, countBytes(count), top)));

/** Root over leaf hashes (made by {@link leafHash}). The empty tree has a root too. */
export function merkleRoot(hashing: Blake, kind: TreeKind, leaves: readonly Uint8Array[]): Hash {
  if (leaves.length === 0) return seal(hashing, kind, 0, ZERO_HASH);
  return seal(hashing, kind, leaves.length, subtree(joiner(hashing, kind), leaves, 0, leaves.length));
}

function subtree(
  join: (left: Uint8Array, right: Uint8Array) => Hash,
  leaves: readonly Uint8Array[],
  from: number,
  to: number,
): Uint8Array {
  if (to - from === 1) return leaves[from]!;
  const middle = from + splitOf(to - from);
  return join(subtree(join, leaves, from, middle), subtree(join, leaves, middle, to));
}

/** Proof for leaves `first … first + count − 1`. Throws {@link MerkleError} if they do not all exist. */
export function proveRange(
  hashing: Blake,
  kind: TreeKind,
  leaves: readonly Uint8Array[],
  first: number,
  count = 1,
): MerkleProof {
  const end = first + count;
  if (first < 0 || count < 1 || end > leaves.length) {
    throw new MerkleError(`leaves ${first} … ${end - 1} of ${leaves.length}`);
  }
  const join = joiner(hashing, kind);
  const siblings: Hash[] = [];
  const walk = (from: number, to: number): void => {
    if (to <= first || from >= end) {
      siblings.push(subtree(join, leaves, from, to) as Hash);
      return;
    }
    if (to - from === 1) return;
    const middle = from + splitOf(to - from);
    walk(from, middle);
    walk(middle, to);
  };
  walk(0, leaves.length);
  return { first, siblings };
}

/** Root of the tree of `total` leaves in which `leaves` stand from `proof.first` on; undefined if the proof is none. Never throws. */
export function rootOfRange(
  hashing: Blake,
  kind: TreeKind,
  total: number,
  leaves: readonly Uint8Array[],
  proof: MerkleProof,
): Hash | undefined {
  const { first, siblings } = proof;
  const end = first + leaves.length;
  if (!(Number.isInteger(first) && first >= 0 && leaves.length > 0 && end <= total)) return undefined;
  const join = joiner(hashing, kind);
  let used = 0;
  const walk = (from: number, to: number): Uint8Array | undefined => {
    if (to <= first || from >= end) return siblings[used++];
    if (to - from === 1) return leaves[from - first];
    const middle = from + splitOf(to - from);
    const left = walk(from, middle);
    const right = left && walk(middle, to);
    return right && left.length === 32 && right.length === 32 ? join(left, right) : undefined;
  };
  const top = walk(0, total);
  return top !== undefined && used === siblings.length ? seal(hashing, kind, total, top) : undefined;
}

/** Whether `leaves` are the leaves from `proof.first` on in the tree of `total` leaves under `root`. Never throws. */
export function verifyRange(
  hashing: Blake,
  kind: TreeKind,
  root: Uint8Array,
  total: number,
  leaves: readonly Uint8Array[],
  proof: MerkleProof,
): boolean {
  const found = rootOfRange(hashing, kind, total, leaves, proof);
  return found !== undefined && equalBytes(found, root);
}

export const verifyLeaf = (
  hashing: Blake,
  kind: TreeKind,
  root: Uint8Array,
  total: number,
  leaf: Uint8Array,
  proof: MerkleProof,
): boolean => verifyRange(hashing, kind, root, total, [leaf], proof);

/** A tree that grows leaf by leaf, as a file streams past: it remembers one node for each bit of their number. */
export class GrowingTree {
  readonly #hashing: Blake;
  readonly #kind: TreeKind;
  readonly #join: (left: Uint8Array, right: Uint8Array) => Hash;
  /** Roots of complete subtrees, the widest first; their widths are the bits of `count`. */
  readonly #peaks: Uint8Array[] = [];
  #count = 0;

  constructor(hashing: Blake, kind: TreeKind) {
    this.#hashing = hashing;
    this.#kind = kind;
    this.#join = joiner(hashing, kind);
  }

  get count(): number {
    return this.#count;
  }

  push(leaf: Uint8Array): void {
    let node = leaf;
    for (let width = this.#count; width % 2 === 1; width = (width - 1) / 2) node = this.#join(this.#peaks.pop()!, node);
    this.#peaks.push(node);
    this.#count++;
  }

  /** The same as {@link merkleRoot} of all leaves so far. */
  root(): Hash {
    if (this.#count === 0) return seal(this.#hashing, this.#kind, 0, ZERO_HASH);
    const top = this.#peaks.reduceRight((right, left) => this.#join(left, right));
    return seal(this.#hashing, this.#kind, this.#count, top);
  }
}
