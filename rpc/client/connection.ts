/**
 * The ledger as its workers, gateways and people's commands see it: typed reads by the pallets' own codecs, transactions by
 * the Polkadot library, blobs over HTTP on the same port.
 */
import { ApiPromise, WsProvider } from '@polkadot/api';
import type { ApiOptions, SubmittableExtrinsic } from '@polkadot/api/types';
import type { KeyringPair } from '@polkadot/keyring/types';
import type { ISubmittableResult } from '@polkadot/types/types';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { type Codec, decode } from '../../runtime/primitives/scale/codec.ts';
import { Source } from '../../runtime/primitives/scale/io.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { JsonRpcClient } from './json-rpc.ts';

export class LedgerError extends Error {
  /** `Pallet.Error` for a failed call, `BLOB_…` for blobs, `NOT_INCLUDED` for a transaction that no block took. */
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

export interface LedgerEvent {
  /** `Pallet.Event`. */
  readonly name: string;
  /** The event's fields in SCALE, one after the other. */
  readonly data: Uint8Array;
}

/** First field of one of a transaction's events, by its name: the id of what was made. Throws a LedgerError without one. */
export function firstField<T>(events: readonly LedgerEvent[], name: string, codec: Codec<T>): T {
  const found = events.find((event) => event.name === name);
  if (found === undefined) throw new LedgerError('NO_EVENT', `the transaction told of no ${name}`);
  return codec.decodeFrom(new Source(found.data));
}

/** Ids at the end of storage keys of maps hashed by `Twox64Concat`. */
export const idOfKey = (key: Uint8Array): number =>
  new DataView(key.buffer, key.byteOffset + key.length - 4, 4).getUint32(0, true);

/** Storage by the pallets' own codecs. */
export interface LedgerReads {
  /** A storage item by its pallet's codec; undefined where nothing is stored. */
  read<T>(pallet: string, item: string, codec: Codec<T>, ...keys: readonly unknown[]): Promise<T | undefined>;
  /** All entries of a map (under leading keys), with their raw storage keys. */
  entries<T>(pallet: string, item: string, codec: Codec<T>, ...under: readonly unknown[]): Promise<LedgerEntry<T>[]>;
}

export interface LedgerEntry<T> {
  readonly key: Uint8Array;
  readonly value: T;
}

const CONNECT_MS = 20_000;
const INCLUSION_MS = 90_000;
const PAGE = 512;

export class Ledger implements LedgerReads {
  readonly api: ApiPromise;
  readonly rpc: JsonRpcClient;
  readonly url: string;
  readonly genesisHash: Hash;
  readonly #http: string;
  /** Transactions of one account go out one after the other, each when the pool has the one before: their nonces follow. */
  readonly #queues = new Map<string, Promise<void>>();

  private constructor(url: string, api: ApiPromise, rpc: JsonRpcClient) {
    this.url = url;
    this.api = api;
    this.rpc = rpc;
    this.#http = url.replace(/^ws/, 'http').replace(/\/$/, '');
    this.genesisHash = asHash(api.genesisHash.toU8a());
    const cut = new Promise<void>((resolve) => api.on('disconnected', () => resolve()));
    this.closed = Promise.race([rpc.closed, cut]);
  }

  /** Rejects when no node answers. */
  static async connect(url: string): Promise<Ledger> {
    const rpc = await JsonRpcClient.connect(url);
    const provider = new WsProvider(url, false);
    try {
      await provider.connect();
      const creating = ApiPromise.create({
        provider: provider as unknown as NonNullable<ApiOptions['provider']>,
        noInitWarn: true,
        throwOnConnect: true,
      });
      const late = new Promise<never>((_, reject) => {
        const timer = setTimeout(() => reject(new Error(`the node at ${url} does not answer`)), CONNECT_MS);
        creating.finally(() => clearTimeout(timer)).catch(() => {});
      });
      return new Ledger(url, await Promise.race([creating, late]), rpc);
    } catch (problem) {
      rpc.close();
      await provider.disconnect().catch(() => {});
      throw problem;
    }
  }

  /** Settles when one of the two connections is gone, for whatever reason. */
  readonly closed: Promise<void>;

  async close(): Promise<void> {
    this.rpc.close();
    await this.api.disconnect();
  }

  /** Of the best block. */
  read<T>(pallet: string, item: string, codec: Codec<T>, ...keys: readonly unknown[]): Promise<T | undefined> {
    return this.#read([], pallet, item, codec, keys);
  }

  /** Of the best block; of one and the same only as long as no new one comes, see {@link at}. */
  entries<T>(pallet: string, item: string, codec: Codec<T>, ...under: readonly unknown[]): Promise<LedgerEntry<T>[]> {
    return this.#entries([], pallet, item, codec, under);
  }

  /** Storage as it was after a block, by its hash. */
  at(block: string): LedgerReads {
    return {
      read: (pallet, item, codec, ...keys) => this.#read([block], pallet, item, codec, keys),
      entries: (pallet, item, codec, ...under) => this.#entries([block], pallet, item, codec, under),
    };
  }

  async #read<T>(
    at: readonly string[],
    pallet: string,
    item: string,
    codec: Codec<T>,
    keys: readonly unknown[],
  ): Promise<T | undefined> {
    const key = this.#entry(pallet, item).key(...keys);
    const stored = await this.rpc.call<string | null>('state_getStorage', key, ...at);
    return stored === null ? undefined : decode(codec, fromHex(stored));
  }

  async #entries<T>(
    at: readonly string[],
    pallet: string,
    item: string,
    codec: Codec<T>,
    under: readonly unknown[],
  ): Promise<LedgerEntry<T>[]> {
    const prefix = this.#entry(pallet, item).keyPrefix(...under);
    const found: LedgerEntry<T>[] = [];
    for (let from: string | null = null; ; ) {
      const keys: string[] = await this.rpc.call('state_getKeysPaged', prefix, PAGE, from, ...at);
      if (keys.length === 0) return found;
      const [changes] = await this.rpc.call<[{ changes: [string, string | null][] }]>(
        'state_queryStorageAt',
        keys,
        ...at,
      );
      for (const [key, value] of changes.changes) {
        if (value !== null) found.push({ key: fromHex(key), value: decode(codec, fromHex(value)) });
      }
      from = keys.at(-1) as string;
    }
  }

  /** Number of the best block. */
  async bestNumber(): Promise<number> {
    return Number((await this.rpc.call<{ number: string }>('chain_getHeader')).number);
  }

  #entry(pallet: string, item: string) {
    const found = this.api.query[pallet]?.[item];
    if (found === undefined) throw new LedgerError('UNKNOWN_ITEM', `the chain has no ${pallet}.${item}`);
    return found;
  }

  /** A call by name; arguments as the Polkadot library takes them (bytes are decoded by the chain's own types). */
  tx(pallet: string, name: string, ...args: readonly unknown[]): SubmittableExtrinsic<'promise', ISubmittableResult> {
    const found = this.api.tx[pallet]?.[name];
    if (found === undefined) throw new LedgerError('UNKNOWN_CALL', `the chain has no call ${pallet}.${name}`);
    return found(...args);
  }

  /** Signs, sends, waits for a block. Rejects with {@link LedgerError}. Returns the transaction's events. */
  submit(pair: KeyringPair, call: SubmittableExtrinsic<'promise', ISubmittableResult>): Promise<LedgerEvent[]> {
    const before = this.#queues.get(pair.address) ?? Promise.resolve();
    let taken: () => void = () => {};
    this.#queues.set(pair.address, new Promise((resolve) => (taken = resolve)));
    // The library's own way to a nonce answers from memory: too late for the second of two in a row.
    const next = (): Promise<number> => this.rpc.call<number>('system_accountNextIndex', pair.address);
    return before
      .then(next)
      .then((nonce) => this.#send(pair, call, nonce, taken))
      .finally(taken);
  }

  /** `taken` is called when the pool has it. */
  #send(
    pair: KeyringPair,
    call: SubmittableExtrinsic<'promise', ISubmittableResult>,
    nonce: number,
    taken: () => void,
  ): Promise<LedgerEvent[]> {
    return new Promise((resolve, reject) => {
      let stop: (() => void) | undefined;
      let settled = false;
      const done = (settle: () => void): void => {
        settled = true;
        clearTimeout(timer);
        stop?.();
        settle();
      };
      const lost = (message: string): void => done(() => reject(new LedgerError('NOT_INCLUDED', message)));
      const timer = setTimeout(() => lost('no block took the transaction'), INCLUSION_MS);
      void this.closed.then(() => lost('the connection is gone: whether a block took the transaction is not known'));
      call
        .signAndSend(pair, { nonce }, ({ status, events, dispatchError }) => {
          taken();
          if (status.isDropped || status.isInvalid || status.isUsurped) {
            lost(`the transaction was ${status.type.toLowerCase()}`);
          }
          // The library leaves out the first where the second follows at once.
          if (!status.isInBlock && !status.isFinalized) return;
          if (dispatchError !== undefined) {
            done(() => reject(this.#failure(dispatchError)));
            return;
          }
          const told = events.map(({ event }) => ({
            name: `${event.section.charAt(0).toUpperCase()}${event.section.slice(1)}.${event.method}`,
            data: event.data.toU8a(true),
          }));
          done(() => resolve(told));
        })
        .then((unsubscribe) => {
          stop = unsubscribe;
          if (settled) unsubscribe();
        })
        .catch((problem: Error) => done(() => reject(new LedgerError('NOT_INCLUDED', problem.message))));
    });
  }

  #failure(error: NonNullable<ISubmittableResult['dispatchError']>): LedgerError {
    if (!error.isModule) return new LedgerError(error.type, `the call failed: ${error.toString()}`);
    const { section, name, docs } = this.api.registry.findMetaError(error.asModule);
    const pallet = `${section.charAt(0).toUpperCase()}${section.slice(1)}`;
    return new LedgerError(`${pallet}.${name}`, docs.join(' ').trim() || name);
  }

  /** Rejects with a LedgerError when the node does not have it. */
  async blob(hash: Uint8Array): Promise<Uint8Array> {
    const response = await fetch(`${this.#http}/blobs/${toHex(hash)}`);
    if (!response.ok) throw await blobError(response);
    return new Uint8Array(await response.arrayBuffer());
  }

  async hasBlob(hash: Uint8Array): Promise<boolean> {
    return (await fetch(`${this.#http}/blobs/${toHex(hash)}`, { method: 'HEAD' })).ok;
  }

  /** The chain must have committed to it. */
  async putBlob(hash: Uint8Array, bytes: Uint8Array): Promise<void> {
    const body = new Uint8Array(bytes);
    const response = await fetch(`${this.#http}/blobs/${toHex(hash)}`, { method: 'PUT', body });
    if (!response.ok) throw await blobError(response);
  }
}

async function blobError(response: Response): Promise<LedgerError> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as { error: { code: string; message: string } };
    return new LedgerError(`BLOB_${error.code}`, error.message);
  } catch {
    return new LedgerError('BLOB_FAILED', `the node answered ${response.status}`);
  }
}
