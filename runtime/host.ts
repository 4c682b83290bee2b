/**
 * Everything that the runtime can reach. No clock, no randomness, no I/O: what a block means follows from the
 * state and the block alone. (Polkadot specification, appendix B: Host API.)
 */

/** All digests are freshly allocated byte arrays. */
export interface Hashing {
  blake2_128(data: Uint8Array): Uint8Array;
  blake2_256(data: Uint8Array): Uint8Array;
  twox64(data: Uint8Array): Uint8Array;
  twox128(data: Uint8Array): Uint8Array;
  twox256(data: Uint8Array): Uint8Array;
  keccak256(data: Uint8Array): Uint8Array;
  sha256(data: Uint8Array): Uint8Array;
}

/** Signature checks answer `false` for anything malformed; they never throw. */
export interface Signatures {
  /** schnorrkel with context `substrate`; signature 64 bytes, key 32 bytes. */
  verifySr25519(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean;
  /** ZIP-215 rules, as ed25519-zebra. */
  verifyEd25519(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean;
  /** The compressed secp256k1 key (33 bytes) that made a 65-byte recoverable signature over a 32-byte hash. */
  recoverEcdsa(signature: Uint8Array, messageHash: Uint8Array): Uint8Array | undefined;
}

export interface ClearedPrefix {
  /** How many keys were deleted. */
  readonly removed: number;
  /** Whether keys with the prefix are left, because `limit` was reached. */
  readonly more: boolean;
}

/** The key-value state with nested transactions. Values returned must not be written to by the caller. */
export interface Storage {
  get(key: Uint8Array): Uint8Array | undefined;
  put(key: Uint8Array, value: Uint8Array): void;
  delete(key: Uint8Array): void;
  exists(key: Uint8Array): boolean;
  /** The next key in lexicographic order after `key` that has a value. */
  nextKey(key: Uint8Array): Uint8Array | undefined;
  clearPrefix(prefix: Uint8Array, limit?: number): ClearedPrefix;
  /** Appends one encoded item to the SCALE `Vec` under `key` (an absent or malformed value counts as empty). */
  append(key: Uint8Array, encodedItem: Uint8Array): void;
  beginTransaction(): void;
  commitTransaction(): void;
  rollbackTransaction(): void;
  /** Root of the state with every change so far. Only outside of transactions. */
  storageRoot(version: 0 | 1): Uint8Array;
}

/**
 * What a host throws when it cannot do what it is asked: a database that cannot be read. That is a fault of one
 * machine, not of the block: the runtime lets it through and never takes it for the failure of a call.
 */
export class HostFault extends Error {
  readonly code = 'HOST_FAULT';
}
/** By its code, since a host may belong to another realm than the runtime. */
export const isHostFault = (problem: unknown): boolean =>
  typeof problem === 'object' && problem !== null && 'code' in problem && problem.code === 'HOST_FAULT';

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'trace';

export interface Host extends Storage, Hashing, Signatures {
  /** Root of the trie (state version 0) of `items` under the compact encodings of their indices. */
  orderedTrieRoot(items: readonly Uint8Array[]): Uint8Array;
  /** Offchain only: gives an unsigned extrinsic to the pool of this node. False where there is none. */
  submitTransaction(extrinsic: Uint8Array): boolean;
  log(level: LogLevel, target: string, message: string): void;
}
