/**
 * What the edges (RPC, network, consensus drivers) may ask of the node. The parts behind these interfaces are put
 * together in `service.ts`; the edges import nothing of the node but this file.
 */
import type { Block, Header, Justifications } from '../../runtime/primitives/header.ts';
import type { Hash, RuntimeVersion } from '../../runtime/primitives/types.ts';

export interface BlockRef {
  readonly hash: Hash;
  readonly number: number;
}

export interface ChainInfo {
  readonly genesisHash: Hash;
  readonly best: BlockRef;
  readonly finalized: BlockRef;
}

/** Blocks known to this node, on any fork. Reads are synchronous and see what was committed last. */
export interface Blocks {
  info(): ChainInfo;
  header(hash: Hash): Header | undefined;
  /** The block of that height on the best chain. */
  hashOf(number: number): Hash | undefined;
  /** Every known block of that height, the best chain's first. */
  hashesAt(number: number): readonly Hash[];
  /** Extrinsics without their length prefixes; undefined when unknown or pruned. */
  body(hash: Hash): readonly Uint8Array[] | undefined;
  justifications(hash: Hash): Justifications | undefined;
  /** Heads of all forks above the finalized block, the best first. */
  leaves(): readonly Hash[];
  /** Whether the block lies on the finalized chain. */
  isFinalized(hash: Hash): boolean;
}

/** Blocks that stay here while somebody looks at them, though finality leaves them behind. */
export interface BlockHolds {
  /** Header, body and state stay until as many releases, or until final states of that height leave the window. */
  hold(block: Hash): void;
  release(block: Hash): void;
}

/** Old best to new best: blocks left (newest first) and blocks entered (oldest first). */
export interface TreeRoute {
  readonly retracted: readonly BlockRef[];
  readonly enacted: readonly BlockRef[];
}

export type ChainEvent =
  | {
      readonly type: 'imported';
      readonly block: BlockRef;
      readonly header: Header;
      readonly origin: BlockOrigin;
      readonly isNewBest: boolean;
      /** Present when this block became the best one. */
      readonly route?: TreeRoute;
    }
  | {
      readonly type: 'finalized';
      /** Newly finalized, oldest first. */
      readonly finalized: readonly BlockRef[];
      /** Blocks of abandoned forks that are discarded by it. */
      readonly pruned: readonly Hash[];
    };

export interface ChainEvents {
  /** Listeners run synchronously after the commit and must not throw. Returns the unsubscription. */
  subscribe(listener: (event: ChainEvent) => void): () => void;
}

/** The state after one block. Values must not be written to. */
export interface StateView {
  readonly root: Hash;
  get(key: Uint8Array): Uint8Array | undefined;
  nextKey(key: Uint8Array): Uint8Array | undefined;
}

export interface States {
  /** Undefined when the block is unknown or its state pruned. */
  at(block: Hash): StateView | undefined;
  /** A trie proof that the values (or absences) of `keys` are as they are, as a list of encoded nodes. */
  prove(block: Hash, keys: readonly Uint8Array[]): readonly Uint8Array[] | undefined;
  /** Merkle value of the closest descendant of `key` (JSON-RPC specification, `closestDescendantMerkleValue`). */
  closestDescendantMerkleValue(block: Hash, key: Uint8Array): Uint8Array | undefined;
  /** What one state has otherwise than another, by ascending keys; undefined when one of them is not here. */
  changes(before: Hash, after: Hash): Iterable<StateChange> | undefined;
}

export interface StateChange {
  readonly key: Uint8Array;
  /** Undefined where the later state has no such key. */
  readonly after: Uint8Array | undefined;
}

/**
 * Why a read was not made. `TOO_LARGE`, `TOO_LONG`: it would have been more than the caller may have; `OVERLOADED`: too many
 * wait already.
 */
export class ReadError extends Error {
  readonly code: 'UNKNOWN_BLOCK' | 'TOO_LARGE' | 'TOO_LONG' | 'OVERLOADED' | 'CLOSED';
  constructor(code: ReadError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

export interface ReadOptions {
  /** Whom it is read for: those who wait take turns, whoever has used least of late first. */
  readonly by: object;
  /** Bytes of the result at most. */
  readonly maxBytes: number;
  /** How long it may take, in milliseconds. */
  readonly maxMs: number;
  /** Told the milliseconds of processor time that it took. */
  spent?(ms: number): void;
}

/** Keys in ascending order, with their values where these were asked for. */
export interface StatePage {
  readonly entries: readonly (readonly [key: Uint8Array, value: Uint8Array])[];
  /** Whether there are keys beyond the last one. */
  readonly more: boolean;
}

export interface PageQuery {
  readonly prefix: Uint8Array;
  /** Keys up to this one are left out. */
  readonly after?: Uint8Array | undefined;
  readonly count: number;
  /** Without them values are empty. */
  readonly values: boolean;
}

/**
 * Reads of states that may take long, made beside the thread that makes blocks. All reject with {@link ReadError}; a page is
 * cut where it would be larger than allowed, after one entry at least.
 */
export interface StateReads {
  values(block: Hash, keys: readonly Uint8Array[], options: ReadOptions): Promise<readonly (Uint8Array | undefined)[]>;
  page(block: Hash, query: PageQuery, options: ReadOptions): Promise<StatePage>;
  /** As {@link States.prove}. */
  prove(block: Hash, keys: readonly Uint8Array[], options: ReadOptions): Promise<readonly Uint8Array[]>;
  /** As {@link RuntimeCalls.call}; rejects with {@link RuntimeCallError} as well. */
  call(block: Hash, method: string, parameters: Uint8Array, options: ReadOptions): Promise<Uint8Array>;
  /** As {@link RuntimeCalls.prove}; rejects with {@link RuntimeCallError} as well. */
  proveCall(
    block: Hash,
    method: string,
    parameters: Uint8Array,
    options: ReadOptions,
  ): Promise<{ readonly output: Uint8Array; readonly proof: readonly Uint8Array[] }>;
}

export interface StateRanges {
  /**
   * Proof of the entries with keys above `after` (undefined: of all), about `maxBytes` of it, in Substrate's compact form;
   * undefined when the state is not here.
   */
  proveRange(block: Hash, after: Uint8Array | undefined, maxBytes: number): readonly Uint8Array[] | undefined;
}

/** `code`: which of the expected failures it is. */
export class RuntimeCallError extends Error {
  readonly code: 'UNKNOWN_BLOCK' | 'UNKNOWN_METHOD' | 'BAD_PARAMETERS' | 'FAILED';
  constructor(code: RuntimeCallError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

export interface RuntimeCalls {
  /** Runs `Api_method` on the state after `block`, discarding its changes. Throws {@link RuntimeCallError}. */
  call(block: Hash, method: string, parameters: Uint8Array): Uint8Array;
  /** As {@link call}, with the trie nodes that it read. */
  prove(block: Hash, method: string, parameters: Uint8Array): { output: Uint8Array; proof: readonly Uint8Array[] };
  /** Throws {@link RuntimeCallError}. */
  version(block: Hash): RuntimeVersion;
}

export type BlockOrigin = 'genesis' | 'own' | 'gossip' | 'sync';

export type ImportResult =
  | { readonly type: 'imported'; readonly isNewBest: boolean }
  | { readonly type: 'known' }
  | { readonly type: 'unknownParent' }
  /** Finality has left the block's fork behind. Whoever sent it may know no better: a node that began alone, say. */
  | { readonly type: 'abandoned' }
  /** The block breaks a rule: whoever sent it is at fault. */
  | { readonly type: 'invalid'; readonly reason: string }
  /** The block's slot is not there yet; it may be offered again. */
  | { readonly type: 'future' };

export interface ImportOptions {
  readonly origin: BlockOrigin;
  readonly justifications?: Justifications;
  /**
   * Does not wait until the block is written, for a node that is far behind. After a crash it may be missing, with what stands
   * on it: others have it still.
   */
  readonly ahead?: boolean;
}

export interface BlockImport {
  /** Verifies, executes and commits. Imports run one after the other, in the order of the calls. */
  import(block: Block, options: ImportOptions): Promise<ImportResult>;
  /** Verifies a justification of a known block and finalizes it. */
  importJustification(hash: Hash, justification: Uint8Array): Promise<ImportResult>;
}

/** Why the pool refused an extrinsic. `rpcCode` and `data` are what Substrate's `author` namespace answers. */
export class PoolError extends Error {
  readonly code:
    | 'INVALID'
    | 'UNKNOWN_VALIDITY'
    | 'TEMPORARILY_BANNED'
    | 'ALREADY_IMPORTED'
    | 'TOO_LOW_PRIORITY'
    | 'CYCLE'
    | 'IMMEDIATELY_DROPPED'
    | 'UNACTIONABLE';
  readonly rpcCode: number;
  readonly data: unknown;
  /** Whether it may be valid on another node, or was or will be here: whoever sends it on is not to blame. */
  readonly passing: boolean;
  constructor(code: PoolError['code'], rpcCode: number, message: string, data?: unknown, passing = true) {
    super(message);
    this.code = code;
    this.rpcCode = rpcCode;
    this.data = data;
    this.passing = passing;
  }
}

/** What happens to a watched extrinsic (Substrate: TransactionStatus). */
export type TransactionStatus =
  | { readonly type: 'future' }
  | { readonly type: 'ready' }
  | { readonly type: 'broadcast'; readonly peers: readonly string[] }
  | { readonly type: 'inBlock'; readonly block: Hash; readonly index: number }
  | { readonly type: 'retracted'; readonly block: Hash }
  | { readonly type: 'finalityTimeout'; readonly block: Hash }
  | { readonly type: 'finalized'; readonly block: Hash; readonly index: number }
  | { readonly type: 'usurped'; readonly by: Hash }
  | { readonly type: 'dropped' }
  | { readonly type: 'invalid'; readonly reason: string };

export interface Pool {
  /** Returns the blake2b-256 of the extrinsic. Rejects with {@link PoolError}. */
  submit(extrinsic: Uint8Array, origin: 'local' | 'external'): Promise<Hash>;
  /** Submits and reports; the listener is called in order, and never after a final status. Returns the unwatching. */
  submitAndWatch(extrinsic: Uint8Array, listener: (status: TransactionStatus) => void): Promise<() => void>;
  /** Ready extrinsics, best first. */
  ready(): readonly Uint8Array[];
  /** Ready extrinsics that an account has signed, in no order. */
  readyOf(account: Uint8Array): readonly Uint8Array[];
  /** One that is in the pool, by the blake2b-256 of it. */
  get(hash: Hash): { readonly extrinsic: Uint8Array } | undefined;
  status(): { readonly ready: number; readonly future: number; readonly bytes: number };
  /** Removes by hash; returns the hashes removed. */
  remove(hashes: readonly Hash[]): readonly Hash[];
}

export interface PeerInfo {
  readonly peerId: string;
  readonly roles: 'FULL' | 'LIGHT' | 'AUTHORITY';
  readonly best: BlockRef;
}

/** The network as RPC and metrics see it. */
export interface NetworkStatus {
  peerId(): string;
  listenAddresses(): readonly string[];
  peers(): readonly PeerInfo[];
  isMajorSyncing(): boolean;
  /** Best height heard of, if any peer told one. */
  syncTarget(): number | undefined;
  /** Messages that peers have brought, and bans of peers, since the start. */
  traffic(): { readonly received: number; readonly bans: number };
  addReservedPeer(multiaddr: string): Promise<void>;
  removeReservedPeer(peerId: string): Promise<void>;
  reservedPeers(): readonly string[];
}

/** Secret keys by purpose. Keys never leave it but as signatures. */
export interface Keystore {
  publicKeys(keyType: string): readonly Uint8Array[];
  has(keyType: string, publicKey: Uint8Array): boolean;
  sign(keyType: string, publicKey: Uint8Array, message: Uint8Array): Uint8Array | undefined;
  /** Stores the key of a secret URI (mnemonic, hex seed, derivation) and returns nothing; throws on a mismatch. */
  insert(keyType: string, secretUri: string, publicKey: Uint8Array): void;
  generate(keyType: string): Uint8Array;
}

/** A part with a life of its own: resolves when everything that it started has stopped. */
export interface Service {
  readonly name: string;
  run(signal: AbortSignal): Promise<void>;
}

export interface Client {
  readonly blocks: Blocks;
  readonly holds: BlockHolds;
  readonly events: ChainEvents;
  readonly states: States;
  readonly reads: StateReads;
  readonly runtime: RuntimeCalls;
  readonly importer: BlockImport;
  readonly pool: Pool;
}
