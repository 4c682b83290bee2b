/** A transaction in the pool, and what its place there is made of. */
import type { Hash } from '../../runtime/primitives/types.ts';
import type { ValidTransaction } from '../../runtime/primitives/validity.ts';

/** Bytes as a string that maps and sets can use as a key; nothing else can be done with it. */
export type Key = string & { readonly __brand: 'Key' };

const scratch = Buffer.from(new ArrayBuffer(64));

export function keyOf(bytes: Uint8Array): Key {
  if (bytes.length > scratch.length) return Buffer.from(bytes).toString('latin1') as Key;
  scratch.set(bytes);
  return scratch.toString('latin1', 0, bytes.length) as Key;
}

/** What those who use the pool see of a transaction. */
export interface PoolTransaction {
  readonly hash: Hash;
  /** Without length prefix. */
  readonly extrinsic: Uint8Array;
  readonly priority: bigint;
  /** Whether it may be told to other nodes. */
  readonly propagate: boolean;
  /** Number of the block from which on it is not valid any more; infinite for immortal ones. */
  readonly validTill: number;
}

/** A transaction found valid on top of a block, not in the pool yet. */
export interface Candidate {
  readonly hash: Hash;
  readonly extrinsic: Uint8Array;
  readonly origin: 'local' | 'external';
  readonly sender: Key | undefined;
  readonly validity: ValidTransaction;
  /** Number of the block on top of which it was found valid. */
  readonly validatedAt: number;
}

export type Where = 'ready' | 'future' | 'out';

/** One place for all that the queues know of a transaction. Only the queues write to it. */
export class Entry implements PoolTransaction {
  readonly key: Key;
  readonly hash: Hash;
  readonly extrinsic: Uint8Array;
  readonly origin: 'local' | 'external';
  readonly sender: Key | undefined;
  /** Order of arrival, which decides between equals. */
  readonly serial: number;

  where: Where = 'out';
  priority!: bigint;
  propagate!: boolean;
  requires!: readonly Key[];
  provides!: readonly Key[];
  validTill!: number;
  validatedAt!: number;

  /** Required tags that nobody provides yet. Empty when ready. */
  readonly missing = new Set<Key>();
  /** Ready transactions that this one has to come after, and before. */
  readonly parents = new Set<Entry>();
  readonly children = new Set<Entry>();

  /** Positions in the heaps; -1 when not in them. */
  bestPosition = -1;
  worstPosition = -1;

  constructor(candidate: Candidate, key: Key, serial: number) {
    this.key = key;
    this.hash = candidate.hash;
    this.extrinsic = candidate.extrinsic;
    this.origin = candidate.origin;
    this.sender = candidate.sender;
    this.serial = serial;
    this.assess(candidate.validity, candidate.validatedAt);
  }

  assess(validity: ValidTransaction, validatedAt: number): void {
    this.priority = validity.priority;
    this.propagate = validity.propagate;
    this.requires = unique(validity.requires);
    this.provides = unique(validity.provides);
    this.validTill = lastBlock(validity.longevity, validatedAt);
    this.validatedAt = validatedAt;
  }
}

/** No chain gets that far. */
const MAX_FINITE = 2n ** 48n;

export function lastBlock(longevity: bigint, validatedAt: number): number {
  return longevity > MAX_FINITE ? Number.POSITIVE_INFINITY : validatedAt + Number(longevity);
}

const unique = (tags: readonly Uint8Array[]): Key[] => {
  if (tags.length === 1) return [keyOf(tags[0]!)];
  return [...new Set(tags.map(keyOf))];
};

/** The order in which transactions go into blocks. */
export function isBetter(a: Entry, b: Entry): boolean {
  if (a.priority !== b.priority) return a.priority > b.priority;
  if (a.validTill !== b.validTill) return a.validTill < b.validTill;
  return a.serial < b.serial;
}

/** The order in which transactions leave a pool that is full. */
export function isWorse(a: Entry, b: Entry): boolean {
  if (a.priority !== b.priority) return a.priority < b.priority;
  return a.serial > b.serial;
}
