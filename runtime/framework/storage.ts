/**
 * Storage items as data: their keys, codecs and metadata entries come from one definition.
 * Keys are Substrate's: twox128(pallet) ++ twox128(item) ++ the hashed key parts.
 */
import type { ClearedPrefix, Hashing, Storage } from '../host.ts';
import { concatBytes, equalBytes, joinBytes, startsWith, utf8 } from '../primitives/bytes.ts';
import { type Codec, encode } from '../primitives/scale/codec.ts';
import { Source } from '../primitives/scale/io.ts';

/** What storage items need of the host. */
export type Store = Storage & Hashing;

export type Hasher =
  | 'Blake2_128'
  | 'Blake2_256'
  | 'Blake2_128Concat'
  | 'Twox128'
  | 'Twox256'
  | 'Twox64Concat'
  | 'Identity';

export interface KeyPart<K> {
  readonly hasher: Hasher;
  readonly codec: Codec<K>;
}

/** For keys that users choose: the hash keeps them from unbalancing the trie. */
export const blake2_128Concat = <K>(codec: Codec<K>): KeyPart<K> => ({ hasher: 'Blake2_128Concat', codec });
/** For keys that the runtime chooses. */
export const twox64Concat = <K>(codec: Codec<K>): KeyPart<K> => ({ hasher: 'Twox64Concat', codec });
/** For keys that are hashes already. */
export const identity = <K>(codec: Codec<K>): KeyPart<K> => ({ hasher: 'Identity', codec });

/** Length of the hash in front of a key part that can be read back. */
const HASH_LENGTH: Partial<Record<Hasher, number>> = { Blake2_128Concat: 16, Twox64Concat: 8, Identity: 0 };

function hashedPart<K>(host: Hashing, part: KeyPart<K>, key: K): Uint8Array {
  const raw = encode(part.codec, key);
  switch (part.hasher) {
    case 'Blake2_128Concat':
      return concatBytes(host.blake2_128(raw), raw);
    case 'Twox64Concat':
      return concatBytes(host.twox64(raw), raw);
    case 'Identity':
      return raw;
    case 'Blake2_128':
      return host.blake2_128(raw);
    case 'Blake2_256':
      return host.blake2_256(raw);
    case 'Twox128':
      return host.twox128(raw);
    case 'Twox256':
      return host.twox256(raw);
  }
}

/** What the metadata says of an item. */
export interface ItemInfo {
  readonly modifier: 'Optional' | 'Default';
  readonly keys: readonly KeyPart<unknown>[];
  readonly value: Codec<unknown>;
  /** The encoded default, or `0x00` for optional items. */
  readonly fallback: Uint8Array;
  readonly docs: string;
}

/** An item that has a place in a pallet's storage. */
export interface Bindable {
  readonly info: ItemInfo;
  bind(pallet: string, name: string): void;
}

/** The names that an item's keys are made of. */
export interface ItemName {
  readonly pallet: string;
  readonly item: string;
}

class Prefix {
  #name: ItemName | undefined;
  #bytes: Uint8Array | undefined;

  bind(pallet: string, item: string): void {
    this.#name = { pallet, item };
  }

  get name(): ItemName {
    if (this.#name === undefined) throw new Error('a storage item was used before it was given to storage()');
    return this.#name;
  }

  bytes(host: Hashing): Uint8Array {
    this.#bytes ??= concatBytes(host.twox128(utf8(this.name.pallet)), host.twox128(utf8(this.name.item)));
    return this.#bytes;
  }
}

/** `twox128(pallet) ++ twox128(item)`. */
const PREFIX_LENGTH = 32;

const decodeStored = <T>(codec: Codec<T>, bytes: Uint8Array): T => codec.decodeFrom(new Source(bytes));

/** A single value. `Q` is `T` where there is a default and `T | undefined` where there is none. */
export class ValueItem<T, Q> implements Bindable {
  readonly info: ItemInfo;
  readonly #prefix = new Prefix();
  readonly #codec: Codec<T>;
  readonly #fallback: Q;

  constructor(codec: Codec<T>, fallback: Q, docs: string) {
    this.#codec = codec;
    this.#fallback = fallback;
    this.info = describe(codec, fallback, [], docs);
  }

  bind(pallet: string, name: string): void {
    this.#prefix.bind(pallet, name);
  }

  get name(): ItemName {
    return this.#prefix.name;
  }

  key(host: Hashing): Uint8Array {
    return this.#prefix.bytes(host);
  }

  /** What the item reads as while `stored` is under its key. Throws `ScaleError`. */
  decodeValue(stored: Uint8Array | undefined): Q {
    return stored === undefined ? this.#fallback : (decodeStored(this.#codec, stored) as unknown as Q);
  }

  get(host: Store): Q {
    return this.decodeValue(host.get(this.key(host)));
  }

  exists(host: Store): boolean {
    return host.exists(this.key(host));
  }

  put(host: Store, value: T): void {
    host.put(this.key(host), encode(this.#codec, value));
  }

  kill(host: Store): void {
    host.delete(this.key(host));
  }

  take(host: Store): Q {
    const value = this.get(host);
    this.kill(host);
    return value;
  }

  mutate(host: Store, change: (value: Q) => T): T {
    const value = change(this.get(host));
    this.put(host, value);
    return value;
  }
}

const RECENT_KEYS = 4;

/** The first parts of a key that has several: none, or some of them. */
export type LeadingKeys<K> = K extends readonly [infer First, ...infer Rest]
  ? readonly [] | readonly [First, ...LeadingKeys<Rest>]
  : readonly [];

/** A map from `K` (a tuple for several key parts) to `V`. `Q` as in {@link ValueItem}. */
export class MapItem<K, V, Q> implements Bindable {
  readonly info: ItemInfo;
  readonly #prefix = new Prefix();
  readonly #parts: readonly KeyPart<unknown>[];
  readonly #single: boolean;
  readonly #codec: Codec<V>;
  readonly #fallback: Q;
  /** The last keys asked for: one extrinsic reads and writes the same few accounts many times. */
  readonly #recent: { readonly raw: Uint8Array | number; readonly key: Uint8Array }[] = [];
  #oldest = 0;

  constructor(parts: readonly KeyPart<unknown>[], single: boolean, codec: Codec<V>, fallback: Q, docs: string) {
    this.#parts = parts;
    this.#single = single;
    this.#codec = codec;
    this.#fallback = fallback;
    this.info = describe(codec, fallback, parts, docs);
  }

  bind(pallet: string, name: string): void {
    this.#prefix.bind(pallet, name);
  }

  get name(): ItemName {
    return this.#prefix.name;
  }

  prefix(host: Hashing): Uint8Array {
    return this.#prefix.bytes(host);
  }

  /** The start of all storage keys whose first key parts are `under`. */
  prefixUnder(host: Hashing, under: LeadingKeys<K>): Uint8Array {
    return this.#keyOf(host, under);
  }

  key(host: Hashing, key: K): Uint8Array {
    if (!this.#single) return this.#keyOf(host, key as readonly unknown[]);
    const isBytes = key instanceof Uint8Array;
    if (!isBytes && typeof key !== 'number') return this.#keyOf(host, [key]);
    for (const { raw, key: known } of this.#recent) {
      if (isBytes ? typeof raw !== 'number' && equalBytes(raw, key) : raw === key) return known;
    }
    const made = this.#keyOf(host, [key]);
    this.#recent[this.#oldest] = { raw: isBytes ? key.slice() : key, key: made };
    this.#oldest = (this.#oldest + 1) % RECENT_KEYS;
    return made;
  }

  #keyOf(host: Hashing, values: readonly unknown[]): Uint8Array {
    return joinBytes([
      this.#prefix.bytes(host),
      ...values.map((value, i) => hashedPart(host, this.#parts[i] as KeyPart<unknown>, value)),
    ]);
  }

  /** What the map reads as where `stored` is. Throws `ScaleError`. */
  decodeValue(stored: Uint8Array | undefined): Q {
    return stored === undefined ? this.#fallback : (decodeStored(this.#codec, stored) as unknown as Q);
  }

  /** The value of an entry, which is there. Throws `ScaleError`. */
  decodeEntry(stored: Uint8Array): V {
    return decodeStored(this.#codec, stored);
  }

  get(host: Store, key: K): Q {
    return this.decodeValue(host.get(this.key(host, key)));
  }

  has(host: Store, key: K): boolean {
    return host.exists(this.key(host, key));
  }

  insert(host: Store, key: K, value: V): void {
    host.put(this.key(host, key), encode(this.#codec, value));
  }

  remove(host: Store, key: K): void {
    host.delete(this.key(host, key));
  }

  take(host: Store, key: K): Q {
    const value = this.get(host, key);
    this.remove(host, key);
    return value;
  }

  /** Writes what `change` makes of the value; `undefined` removes it. */
  mutate(host: Store, key: K, change: (value: Q) => V | undefined): void {
    const storageKey = this.key(host, key);
    const value = change(this.decodeValue(host.get(storageKey)));
    if (value === undefined) host.delete(storageKey);
    else host.put(storageKey, encode(this.#codec, value));
  }

  /**
   * Every entry in the order of the hashed keys, from those with the leading key parts `under` (none: all).
   * Removing the entry just yielded is allowed.
   */
  *entries(host: Store, under: readonly unknown[] = []): Generator<[K, V]> {
    const prefix = this.#keyOf(host, under);
    for (let key = host.nextKey(prefix); key !== undefined && startsWith(key, prefix); key = host.nextKey(key)) {
      const stored = host.get(key);
      if (stored !== undefined) yield [this.decodeKey(key), decodeStored(this.#codec, stored)];
    }
  }

  *keys(host: Store, under: readonly unknown[] = []): Generator<K> {
    const prefix = this.#keyOf(host, under);
    for (let key = host.nextKey(prefix); key !== undefined && startsWith(key, prefix); key = host.nextKey(key)) {
      yield this.decodeKey(key);
    }
  }

  /** Removes every entry (at most `limit` of them) with the leading key parts `under`. */
  clear(host: Store, under: readonly unknown[] = [], limit?: number): ClearedPrefix {
    return host.clearPrefix(this.#keyOf(host, under), limit);
  }

  /** The key parts that a storage key of this map names. Throws `ScaleError`; the two hashed names are not looked at. */
  decodeKey(key: Uint8Array): K {
    const source = new Source(key, PREFIX_LENGTH);
    const values = this.#parts.map(({ hasher, codec }) => {
      const skip = HASH_LENGTH[hasher];
      if (skip === undefined) throw new Error(`keys hashed by ${hasher} cannot be read back`);
      source.bytes(skip);
      return codec.decodeFrom(source);
    });
    return (this.#single ? values[0] : values) as K;
  }
}

function describe<T>(codec: Codec<T>, fallback: unknown, keys: readonly KeyPart<unknown>[], docs: string): ItemInfo {
  return {
    modifier: fallback === undefined ? 'Optional' : 'Default',
    keys,
    value: codec as Codec<unknown>,
    fallback: fallback === undefined ? new Uint8Array([0]) : encode(codec, fallback as T),
    docs,
  };
}

/** A value that reads as `fallback` while nothing is stored. */
export const value = <T>(codec: Codec<T>, fallback: NoInfer<T>, docs = ''): ValueItem<T, T> =>
  new ValueItem<T, T>(codec, fallback, docs);

/** A value that reads as `undefined` while nothing is stored. */
export const optionalValue = <T>(codec: Codec<T>, docs = ''): ValueItem<T, T | undefined> =>
  new ValueItem<T, T | undefined>(codec, undefined, docs);

/** A map with one key part, `undefined` where nothing is stored. */
export const map = <K, V>(key: KeyPart<K>, codec: Codec<V>, docs = ''): MapItem<K, V, V | undefined> =>
  new MapItem<K, V, V | undefined>([key as KeyPart<unknown>], true, codec, undefined, docs);

/** A map with one key part, `fallback` where nothing is stored. */
export const mapWithDefault = <K, V>(
  key: KeyPart<K>,
  codec: Codec<V>,
  fallback: NoInfer<V>,
  docs = '',
): MapItem<K, V, V> => new MapItem<K, V, V>([key as KeyPart<unknown>], true, codec, fallback, docs);

type KeyParts = readonly KeyPart<any>[];
type Keys<P extends KeyParts> = {
  -readonly [I in keyof P]: P[I] extends KeyPart<infer K> ? K : never;
};

/** A map with several key parts; its keys are tuples. */
export const nMap = <const P extends KeyParts, V>(
  parts: P,
  codec: Codec<V>,
  docs = '',
): MapItem<Keys<P>, V, V | undefined> => new MapItem<Keys<P>, V, V | undefined>(parts, false, codec, undefined, docs);

export const nMapWithDefault = <const P extends KeyParts, V>(
  parts: P,
  codec: Codec<V>,
  fallback: NoInfer<V>,
  docs = '',
): MapItem<Keys<P>, V, V> => new MapItem<Keys<P>, V, V>(parts, false, codec, fallback, docs);

/** Gives items their keys: `twox128(prefix) ++ twox128(name)`. */
export function storage<I extends StorageSet>(prefix: string, items: I): I {
  for (const [name, item] of Object.entries(items)) item.bind(prefix, name);
  const set = { ...items };
  prefixes.set(set, prefix);
  return set;
}

/** Items by name. */
export type StorageSet = Readonly<Record<string, Bindable>>;

const prefixes = new WeakMap<StorageSet, string>();

/** The name under which the items of a `storage()` set lie. */
export function prefixOf(set: StorageSet): string {
  const prefix = prefixes.get(set);
  if (prefix === undefined) throw new Error('these items were not given to storage()');
  return prefix;
}

/** The items of a `storage()` set, for the metadata. */
export const itemsOf = (set: StorageSet): readonly (readonly [name: string, info: ItemInfo])[] =>
  Object.entries(set).map(([name, item]) => [name, item.info] as const);
