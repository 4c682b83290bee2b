/**
 * The ledger as applications see it: storage, calls, events and errors in the pallets' own definitions, blobs by their
 * hash. It needs nothing but a WebSocket, `fetch` and JavaScript: it runs in browsers as in Node.
 */
import type { DispatchError } from '../../runtime/framework/dispatch.ts';
import type { CallDef, TypedApiMethod } from '../../runtime/framework/pallet.ts';
import { placeOf } from '../../runtime/framework/place.ts';
import { type LeadingKeys, MapItem, type ValueItem } from '../../runtime/framework/storage.ts';
import type { Hashing } from '../../runtime/host.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { VERSION } from '../../runtime/version.ts';
import { BlobClient } from './blobs.ts';
import { Call, type CallArgs } from './call.ts';
import { type CallFailed, LedgerError } from './errors.ts';
import { hashing as javaScriptHashing } from './hashing.ts';
import { JsonRpcClient } from './json-rpc.ts';
import type { Made } from './made.ts';
import type { Preview } from './preview.ts';
import type { Signer } from './signer.ts';
import { type QueryMaker, queryMaker, StorageReader } from './storage.ts';
import type { SubmitOptions, Submitter } from './submission.ts';
import { StorageWatcher } from './watcher.ts';

export interface ConnectOptions {
  /** Whether a connection that is lost is made again. What is watched then goes on; what was asked is asked again. */
  readonly reconnect?: boolean;
  /** Hash functions of the platform; in JavaScript where none are given. */
  readonly hashing?: Hashing;
}

export interface WatchOptions {
  readonly signal?: AbortSignal;
}

/** The runtime that a chain runs, as its node says it. */
export interface ChainRuntime {
  readonly specName: string;
  readonly specVersion: number;
  readonly transactionVersion: number;
}

/** Storage of the ledger, as it is now or as it was after one block. */
export type LedgerReads = Pick<StorageReader, 'read' | 'readTogether' | 'readMany' | 'entries' | 'keys' | 'fixed'>;

export class Ledger implements LedgerReads {
  readonly url: string;
  readonly rpc: JsonRpcClient;
  readonly blobs: BlobClient;
  readonly hashing: Hashing;
  readonly genesisHash: Hash;
  /** A value of the state, for {@link readTogether} and {@link watch}. */
  readonly query: QueryMaker;
  readonly #reader: StorageReader;
  readonly #watcher: StorageWatcher;
  #submitting: Promise<Submitter> | undefined;
  #runtime: ChainRuntime;

  private constructor(rpc: JsonRpcClient, hashing: Hashing, genesisHash: Hash, runtime: ChainRuntime) {
    this.url = rpc.url;
    this.rpc = rpc;
    this.hashing = hashing;
    this.genesisHash = genesisHash;
    this.blobs = new BlobClient(rpc.url);
    this.query = queryMaker(hashing);
    this.#runtime = runtime;
    this.#reader = new StorageReader(rpc, hashing, this.#checkRuntime);
    this.#watcher = new StorageWatcher(rpc);
  }

  /**
   * Rejects with `NO_NODE` when no node answers. A chain whose runtime is another than these definitions are of can be
   * connected to, but its storage is not read and no transaction is made for it: that rejects with `OTHER_RUNTIME`.
   */
  static async connect(url: string, options: ConnectOptions = {}): Promise<Ledger> {
    const { hashing = javaScriptHashing, reconnect = false } = options;
    const rpc = await JsonRpcClient.connect(url, { reconnect });
    try {
      let ledger: Ledger | undefined;
      let first: ChainRuntime | undefined;
      const told = new Promise<void>((resolve, reject) => {
        rpc
          .subscribe('state_subscribeRuntimeVersion', 'state_unsubscribeRuntimeVersion', [], (version) => {
            first = version as ChainRuntime;
            if (ledger !== undefined) ledger.#runtime = first;
            resolve();
          })
          .catch(reject);
        void rpc.closed.then(() => reject(new LedgerError('NO_NODE', `the node at ${url} hung up`)));
      });
      const [genesis] = await Promise.all([rpc.ask<string>('chain_getBlockHash', 0), told]);
      ledger = new Ledger(rpc, hashing, asHash(fromHex(genesis)), first as ChainRuntime);
      return ledger;
    } catch (problem) {
      rpc.close();
      throw problem;
    }
  }

  /** The chain's, as of its best block. */
  get runtime(): ChainRuntime {
    return this.#runtime;
  }

  /** Whether the pallets' definitions of this client are those of the chain. */
  get speaksItsLanguage(): boolean {
    return this.#runtime.specName === VERSION.specName && this.#runtime.specVersion === VERSION.specVersion;
  }

  readonly #checkRuntime = (): void => {
    if (this.speaksItsLanguage) return;
    const { specName, specVersion } = this.#runtime;
    throw new LedgerError(
      'OTHER_RUNTIME',
      `the chain runs ${specName} ${specVersion}, this client is made for ${VERSION.specName} ${VERSION.specVersion}: use the client of that version`,
    );
  };

  /** Settles when the connection is gone, for good where it is not made again. */
  get closed(): Promise<void> {
    return this.rpc.closed;
  }

  close(): void {
    this.rpc.close();
  }

  // ---- storage -----------------------------------------------------------------------------------------------

  /** Of the best block. The item's default, or undefined, where nothing is stored. */
  read<T, Q>(item: ValueItem<T, Q>): Promise<Q>;
  read<K, V, Q>(item: MapItem<K, V, Q>, key: NoInfer<K>): Promise<Q>;
  read<K, V, Q>(item: ValueItem<V, Q> | MapItem<K, V, Q>, key?: K): Promise<Q> {
    return item instanceof MapItem ? this.#reader.read(item, key as K) : this.#reader.read(item);
  }

  /** Several values of one block in one question: `readTogether([ledger.query(item, key), …])`. */
  readTogether: StorageReader['readTogether'] = (queries) => this.#reader.readTogether(queries);

  readMany<K, V, Q>(item: MapItem<K, V, Q>, keys: readonly NoInfer<K>[]): Promise<Q[]> {
    return this.#reader.readMany(item, keys);
  }

  /** All entries of a map, page by page, all of the block that is the best one when the first page is asked for. */
  entries<K, V, Q>(item: MapItem<K, V, Q>, ...under: LeadingKeys<NoInfer<K>>): AsyncGenerator<[K, V]> {
    return this.#reader.entries(item, ...under);
  }

  keys<K, V, Q>(item: MapItem<K, V, Q>, ...under: LeadingKeys<NoInfer<K>>): AsyncGenerator<K> {
    return this.#reader.keys(item, ...under);
  }

  /** Storage of the best block of now: everything that is read through it belongs together. */
  fixed(): Promise<StorageReader> {
    return this.#reader.fixed();
  }

  /** Storage as it was after a block, by its hash in hex. */
  at(block: string): StorageReader {
    return new StorageReader(this.rpc, this.hashing, this.#checkRuntime, block);
  }

  /**
   * A value of the best chain: as it is, then each change, of several at once only the last. All that is watched shares
   * one subscription. Ends with the signal, or with the connection where that is not made again.
   */
  watch<T, Q>(item: ValueItem<T, Q>, options?: WatchOptions): AsyncGenerator<Q>;
  watch<K, V, Q>(item: MapItem<K, V, Q>, key: NoInfer<K>, options?: WatchOptions): AsyncGenerator<Q>;
  watch<K, V, Q>(
    item: ValueItem<V, Q> | MapItem<K, V, Q>,
    keyOrOptions?: K | WatchOptions,
    options?: WatchOptions,
  ): AsyncGenerator<Q> {
    this.#checkRuntime();
    if (item instanceof MapItem) return this.#watcher.follow(this.query(item, keyOrOptions as K), options?.signal);
    return this.#watcher.follow(this.query(item), (keyOrOptions as WatchOptions | undefined)?.signal);
  }

  /** What a method of a runtime API answers: `ask(blobs.api.methods.expected, { … })`. */
  async ask<I, O>(method: TypedApiMethod<I, O>, inputs: NoInfer<I>): Promise<O> {
    this.#checkRuntime();
    const { pallet: api, name } = placeOf(method);
    const answer = await this.rpc.ask<string>('state_call', `${api}_${name}`, toHex(encode(method.arguments, inputs)));
    return decode(method.result, fromHex(answer));
  }

  /** Number of the best block. */
  async bestNumber(): Promise<number> {
    return Number((await this.rpc.ask<{ number: string }>('chain_getHeader')).number);
  }

  /** Loaded when it is first needed: programs that only read do without the runtime's list of extensions. */
  #submitter(): Promise<Submitter> {
    this.#submitting ??= import('./submission.ts').then(
      ({ Submitter: Made }) => new Made(this.rpc, this.hashing, this.genesisHash),
    );
    return this.#submitting;
  }

  // ---- transactions ------------------------------------------------------------------------------------------

  /**
   * Signs, sends, and waits for a block. Rejects with a LedgerError, and with a `CallFailed` where the call failed there.
   * Several at once of one account follow each other.
   */
  submit<A>(signer: Signer, definition: CallDef<A>, ...args: CallArgs<NoInfer<A>>): Promise<Made> {
    return this.send(signer, Call.of(definition, (args[0] ?? {}) as A));
  }

  /** As {@link submit}, of a call that `callOf()` made, with options. */
  async send(signer: Signer, call: Call, options: SubmitOptions = {}): Promise<Made> {
    this.#checkRuntime();
    const encoded = call.encode();
    try {
      return await (await this.#submitter()).submit(signer, encoded, options);
    } catch (problem) {
      // A runtime that came a moment ago refuses the signature before its version is told.
      if (problem instanceof LedgerError && problem.code === 'REFUSED') this.#checkRuntime();
      throw problem;
    }
  }

  /** A failure that stands in an event, as of a batch's item or a proxy's call, by the pallet that defines it. */
  async failureOf(reason: DispatchError): Promise<CallFailed> {
    const { failureOf } = await import('./event-records.ts');
    return failureOf(reason);
  }

  /** The fee and what the bytes say, before anybody signs. */
  async preview(who: Pick<Signer, 'scheme' | 'account'>, call: Call, options: SubmitOptions = {}): Promise<Preview> {
    this.#checkRuntime();
    const { previewOf } = await import('./preview.ts');
    return previewOf(this.rpc, who, call.encode(), await (await this.#submitter()).terms(who, options));
  }

  /**
   * Runs the signed transaction on the node's best state and throws everything away. Rejects with a `CallFailed` where it
   * would fail. Only nodes that allow unsafe methods do so.
   */
  async simulate(signer: Signer, call: Call, options: SubmitOptions = {}): Promise<void> {
    this.#checkRuntime();
    const { simulate } = await import('./preview.ts');
    // The best state does not know its own block's hash yet, which a mortal transaction may begin with.
    const terms = await (await this.#submitter()).terms(signer, { ...options, mortality: 'immortal' });
    await simulate(this.rpc, this.hashing, signer, call.encode(), terms);
  }
}
