/** Storage of the ledger through the pallets' own items: keys are checked and decoded, values are theirs. */
import { type LeadingKeys, MapItem, type ValueItem } from '../../runtime/framework/storage.ts';
import type { Hashing } from '../../runtime/host.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import type { JsonRpcClient } from './json-rpc.ts';

/** One value of the state: where it is, and what the bytes there mean. */
export interface Query<Q> {
  readonly key: Uint8Array;
  decode(stored: Uint8Array | undefined): Q;
}

type Values<T extends readonly Query<unknown>[]> = {
  -readonly [I in keyof T]: T[I] extends Query<infer Q> ? Q : never;
};

export interface QueryMaker {
  /** A single value, or the entry of a map under a key (a tuple where the map has several key parts). */
  <T, Q>(item: ValueItem<T, Q>): Query<Q>;
  <K, V, Q>(item: MapItem<K, V, Q>, key: NoInfer<K>): Query<Q>;
}

export function queryMaker(hashing: Hashing): QueryMaker {
  return <K, V, Q>(item: ValueItem<V, Q> | MapItem<K, V, Q>, key?: K): Query<Q> => ({
    key: item instanceof MapItem ? item.key(hashing, key as K) : item.key(hashing),
    decode: (stored) => item.decodeValue(stored),
  });
}

/** Entries that one question asks for: the node answers at most 1,000 keys a page. */
const PAGE = 512;

interface ChangeSet {
  readonly changes: readonly (readonly [key: string, value: string | null])[];
}

/** The state of one block, or of the best block of the moment. */
export class StorageReader {
  readonly #rpc: JsonRpcClient;
  readonly #hashing: Hashing;
  readonly #query: QueryMaker;
  readonly #check: () => void;
  /** Hash of the block whose state this is, in hex; undefined: that of the best block, whichever it is. */
  readonly block: string | undefined;

  /** `check` throws when the definitions are not the chain's. */
  constructor(rpc: JsonRpcClient, hashing: Hashing, check: () => void, block?: string) {
    this.#rpc = rpc;
    this.#hashing = hashing;
    this.#query = queryMaker(hashing);
    this.#check = check;
    this.block = block;
  }

  /** The same, of one block: what is read through it belongs together. */
  async fixed(): Promise<StorageReader> {
    if (this.block !== undefined) return this;
    const block = await this.#rpc.ask<string>('chain_getBlockHash');
    return new StorageReader(this.#rpc, this.#hashing, this.#check, block);
  }

  /** The item's default, or undefined, where nothing is stored. */
  read<T, Q>(item: ValueItem<T, Q>): Promise<Q>;
  read<K, V, Q>(item: MapItem<K, V, Q>, key: NoInfer<K>): Promise<Q>;
  async read<K, V, Q>(item: ValueItem<V, Q> | MapItem<K, V, Q>, key?: K): Promise<Q> {
    this.#check();
    const asked = item instanceof MapItem ? this.#query(item, key as K) : this.#query(item);
    const stored = await this.#rpc.ask<string | null>('state_getStorage', toHex(asked.key), ...this.#at());
    return asked.decode(stored === null ? undefined : fromHex(stored));
  }

  /** Several values at one block, in one question. */
  async readTogether<const T extends readonly Query<unknown>[]>(queries: T): Promise<Values<T>> {
    const stored = await this.#values(queries.map(({ key }) => key));
    return queries.map(({ decode }, at) => decode(stored[at])) as Values<T>;
  }

  /** The values of several keys of one map, at one block. */
  async readMany<K, V, Q>(item: MapItem<K, V, Q>, keys: readonly NoInfer<K>[]): Promise<Q[]> {
    const { block } = await this.fixed();
    const found: Q[] = [];
    for (let from = 0; from < keys.length; from += PAGE) {
      const part = keys.slice(from, from + PAGE).map((key) => item.key(this.#hashing, key));
      for (const stored of await this.#values(part, block)) found.push(item.decodeValue(stored));
    }
    return found;
  }

  /**
   * All entries of a map (with the leading key parts `under`), in the order of their hashed keys, all of one block. They
   * are fetched page by page, as they are asked for.
   */
  async *entries<K, V, Q>(item: MapItem<K, V, Q>, ...under: LeadingKeys<NoInfer<K>>): AsyncGenerator<[K, V]> {
    const { block } = await this.fixed();
    for await (const page of this.#keyPages(item.prefixUnder(this.#hashing, under), block)) {
      const stored = await this.#values(page, block);
      for (const [at, key] of page.entries()) {
        const value = stored[at];
        if (value !== undefined) yield [item.decodeKey(key), item.decodeEntry(value)];
      }
    }
  }

  /** The keys alone. */
  async *keys<K, V, Q>(item: MapItem<K, V, Q>, ...under: LeadingKeys<NoInfer<K>>): AsyncGenerator<K> {
    const { block } = await this.fixed();
    for await (const page of this.#keyPages(item.prefixUnder(this.#hashing, under), block)) {
      for (const key of page) yield item.decodeKey(key);
    }
  }

  async *#keyPages(prefix: Uint8Array, block: string | undefined): AsyncGenerator<Uint8Array[]> {
    this.#check();
    for (let from: string | null = null; ; ) {
      const keys: string[] = await this.#rpc.ask('state_getKeysPaged', toHex(prefix), PAGE, from, block);
      if (keys.length > 0) yield keys.map(fromHex);
      if (keys.length < PAGE) return;
      from = keys.at(-1) as string;
    }
  }

  async #values(keys: readonly Uint8Array[], block = this.block): Promise<(Uint8Array | undefined)[]> {
    this.#check();
    if (keys.length === 0) return [];
    const at = block === undefined ? [] : [block];
    const [set] = await this.#rpc.ask<[ChangeSet]>('state_queryStorageAt', keys.map(toHex), ...at);
    const stored = new Map(set.changes);
    return keys.map((key) => {
      const value = stored.get(toHex(key)) ?? null;
      return value === null ? undefined : fromHex(value);
    });
  }

  #at(): readonly string[] {
    return this.block === undefined ? [] : [this.block];
  }
}
