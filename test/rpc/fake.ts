/** A chain in memory that does what a test says: forks, finality, a pool that takes or refuses. */

import { createHashing } from '../../node/crypto/hashing.ts';
import type {
  BlockRef,
  ChainEvent,
  Client,
  Keystore,
  NetworkStatus,
  StateView,
  TransactionStatus,
} from '../../node/ports/chain.ts';
import { ReadError, RuntimeCallError } from '../../node/ports/chain.ts';
import type { RpcContext } from '../../rpc/groups/context.ts';
import { nonceOf } from '../../rpc/groups/nonces.ts';
import { compareBytes, equalBytes, fromHex, startsWith, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { GRANDPA_ENGINE, type Header, headerHash } from '../../runtime/primitives/header.ts';
import { bytes, encode, option, u32, u64, u128 } from '../../runtime/primitives/scale/codec.ts';
import { asHash, type Hash, type RuntimeVersion, weight, ZERO_HASH } from '../../runtime/primitives/types.ts';

export const hashing = createHashing();
export type Entries = readonly (readonly [Uint8Array, Uint8Array])[];

export class FakeState implements StateView {
  readonly root: Hash;
  readonly #keys: readonly Uint8Array[];
  readonly #values: ReadonlyMap<string, Uint8Array>;

  constructor(entries: Entries) {
    const sorted = [...entries].sort(([a], [b]) => compareBytes(a, b));
    this.#keys = sorted.map(([key]) => key);
    this.#values = new Map(sorted.map(([key, value]) => [Buffer.from(key).toString('latin1'), value]));
    this.root = asHash(hashing.blake2_256(Buffer.concat(sorted.flat())));
  }

  get(key: Uint8Array): Uint8Array | undefined {
    return this.#values.get(Buffer.from(key.buffer, key.byteOffset, key.byteLength).toString('latin1'));
  }

  nextKey(key: Uint8Array): Uint8Array | undefined {
    let low = 0;
    let high = this.#keys.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (compareBytes(this.#keys[middle]!, key) <= 0) low = middle + 1;
      else high = middle;
    }
    return this.#keys[low];
  }
}

interface FakeBlock {
  readonly hash: Hash;
  readonly header: Header;
  readonly body: readonly Uint8Array[];
  readonly state: FakeState;
  readonly entries: Entries;
}

export const VERSION: RuntimeVersion = {
  specName: 'fake',
  implName: 'fake-impl',
  authoringVersion: 1,
  specVersion: 7,
  implVersion: 0,
  apis: [[fromHex('0xdf6acb689907609b'), 5]],
  transactionVersion: 1,
  systemVersion: 1,
};

export class FakeChain {
  readonly #blocks = new Map<string, FakeBlock>();
  readonly #listeners = new Set<(event: ChainEvent) => void>();
  readonly #justified = new Map<string, Uint8Array>();
  readonly discarded = new Set<string>();
  best: BlockRef;
  finalized: BlockRef;
  readonly genesis: FakeBlock;
  ready: Uint8Array[] = [];
  readonly watchers = new Map<string, (status: TransactionStatus) => void>();
  refuse: ((extrinsic: Uint8Array) => Error | undefined) | undefined;
  nonce = 0;
  metadataCalls = 0;
  /** Holds by block in hex; what is held stays when finality leaves it behind. */
  readonly held = new Map<string, number>();
  readonly #abandoned = new Set<string>();

  constructor(entries: Entries = []) {
    this.genesis = this.#make(ZERO_HASH, 0, [], entries, 0);
    this.best = { hash: this.genesis.hash, number: 0 };
    this.finalized = this.best;
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  #make(parentHash: Hash, number: number, body: readonly Uint8Array[], entries: Entries, salt: number): FakeBlock {
    const state = new FakeState(entries);
    const header: Header = {
      parentHash,
      number,
      stateRoot: state.root,
      extrinsicsRoot: ZERO_HASH,
      digest: { logs: [{ type: 'Other', value: Uint8Array.of(salt) }] },
    };
    const block = { hash: headerHash(hashing, header), header, body, state, entries };
    this.#blocks.set(toHex(block.hash), block);
    return block;
  }

  #live(): FakeBlock[] {
    return [...this.#blocks.values()].filter((each) => !this.#abandoned.has(toHex(each.hash)));
  }

  get(hash: Hash): FakeBlock {
    return this.#blocks.get(toHex(hash))!;
  }

  #emit(event: ChainEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }

  /** A block on `parent` (the best one if not told), which becomes the best one unless told otherwise. */
  add(
    options: { parent?: Hash; body?: readonly Uint8Array[]; entries?: Entries; best?: boolean; salt?: number } = {},
  ): Hash {
    const parent = this.get(options.parent ?? this.best.hash);
    const { body = [], entries = parent.entries, best = true, salt = 0 } = options;
    const block = this.#make(parent.hash, parent.header.number + 1, body, entries, salt);
    const ref = { hash: block.hash, number: block.header.number };
    const event = { type: 'imported', block: ref, header: block.header, origin: 'own', isNewBest: best } as const;
    if (best) {
      const route = { retracted: [], enacted: [ref] };
      this.best = ref;
      this.#emit({ ...event, route });
    } else {
      this.#emit(event);
    }
    return block.hash;
  }

  #chain(head: Hash): FakeBlock[] {
    const out: FakeBlock[] = [];
    for (let block = this.#blocks.get(toHex(head)); block; block = this.#blocks.get(toHex(block.header.parentHash))) {
      out.unshift(block);
    }
    return out;
  }

  finalize(hash: Hash): void {
    const before = this.finalized.number;
    const chain = this.#chain(hash);
    this.finalized = { hash, number: this.get(hash).header.number };
    this.#justified.set(toHex(hash), utf8(`justification ${this.finalized.number}`));
    const onChain = new Set(chain.map((each) => toHex(each.hash)));
    if (!this.#chain(this.best.hash).some((each) => equalBytes(each.hash, hash))) this.best = this.finalized;
    const pruned = this.#live().filter(
      (each) =>
        !onChain.has(toHex(each.hash)) && !this.#chain(each.hash).some((ancestor) => equalBytes(ancestor.hash, hash)),
    );
    for (const { hash: each } of pruned) {
      if (this.held.has(toHex(each))) this.#abandoned.add(toHex(each));
      else this.#blocks.delete(toHex(each));
    }
    this.#emit({
      type: 'finalized',
      finalized: chain
        .filter((each) => each.header.number > before)
        .map((each) => ({ hash: each.hash, number: each.header.number })),
      pruned: pruned.map((each) => each.hash),
    });
  }

  /** A final block far ahead, as warp sync makes one: nobody was told of what is between. Returns it. */
  leap(): Hash {
    const block = this.#make(ZERO_HASH, this.best.number + 1_000, [], this.genesis.entries, 0);
    const ref = { hash: block.hash, number: block.header.number };
    this.best = ref;
    this.finalized = ref;
    this.#emit({ type: 'imported', block: ref, header: block.header, origin: 'sync', isNewBest: true });
    this.#emit({ type: 'finalized', finalized: [ref], pruned: [] });
    return block.hash;
  }

  #stateAt(block: Hash): StateView {
    const state = this.client.states.at(block);
    if (state === undefined) throw new ReadError('UNKNOWN_BLOCK', `the state of block ${toHex(block)} is not here`);
    return state;
  }

  readonly client: Client = {
    blocks: {
      info: () => ({ genesisHash: this.genesis.hash, best: this.best, finalized: this.finalized }),
      header: (hash) => this.#blocks.get(toHex(hash))?.header,
      hashOf: (number) => this.#chain(this.best.hash)[number]?.hash,
      hashesAt: (number) => this.#live().flatMap((each) => (each.header.number === number ? [each.hash] : [])),
      body: (hash) => this.#blocks.get(toHex(hash))?.body,
      justifications: (hash) => {
        const found = this.#justified.get(toHex(hash));
        return found && [[GRANDPA_ENGINE, found]];
      },
      leaves: () => {
        const parents = new Set(this.#live().map((each) => toHex(each.header.parentHash)));
        return this.#live().flatMap((each) => (parents.has(toHex(each.hash)) ? [] : [each.hash]));
      },
      isFinalized: (hash) => this.#chain(this.finalized.hash).some((each) => equalBytes(each.hash, hash)),
    },
    holds: {
      hold: (block) => this.held.set(toHex(block), (this.held.get(toHex(block)) ?? 0) + 1),
      release: (block) => {
        const left = (this.held.get(toHex(block)) ?? 0) - 1;
        if (left > 0) this.held.set(toHex(block), left);
        else this.held.delete(toHex(block));
      },
    },
    events: {
      subscribe: (listener) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
    },
    states: {
      at: (block) => (this.discarded.has(toHex(block)) ? undefined : this.#blocks.get(toHex(block))?.state),
      prove: (block, keys) => (this.#blocks.has(toHex(block)) ? [utf8(`proof of ${keys.length}`)] : undefined),
      closestDescendantMerkleValue: (_block, key) => (key.length > 0 ? hashing.blake2_256(key) : undefined),
      changes: (before, after) => {
        const [from, to] = [this.client.states.at(before), this.client.states.at(after)];
        if (from === undefined || to === undefined) return undefined;
        const keys = [before, after].flatMap((block) => this.get(block).entries.map(([key]) => key));
        const unique = new Map(keys.map((key) => [toHex(key), key]));
        return [...unique.values()].sort(compareBytes).flatMap((key) => {
          const [old, now] = [from.get(key), to.get(key)];
          return old !== undefined && now !== undefined && equalBytes(old, now) ? [] : [{ key, after: now }];
        });
      },
    },
    reads: {
      values: async (block, keys) => {
        const state = this.#stateAt(block);
        return keys.map((key) => state.get(key));
      },
      page: async (block, { prefix, after, count, values }, { maxBytes }) => {
        const state = this.#stateAt(block);
        const entries: [Uint8Array, Uint8Array][] = [];
        let left = maxBytes;
        const own = after === undefined || compareBytes(after, prefix) < 0;
        let key = own && state.get(prefix) !== undefined ? prefix : state.nextKey(own ? prefix : after);
        for (; key !== undefined && startsWith(key, prefix); key = state.nextKey(key)) {
          const value = values ? state.get(key)! : new Uint8Array();
          left -= key.length + value.length;
          if (entries.length === count || (left < 0 && entries.length > 0)) return { entries, more: true };
          entries.push([key, value]);
        }
        return { entries, more: false };
      },
      prove: async (block, keys) => {
        this.#stateAt(block);
        return this.client.states.prove(block, keys)!;
      },
      call: async (block, method, parameters) => this.client.runtime.call(block, method, parameters),
      proveCall: async (block, method, parameters) => this.client.runtime.prove(block, method, parameters),
    },
    runtime: {
      version: (block) => {
        if (!this.#blocks.has(toHex(block))) throw new RuntimeCallError('UNKNOWN_BLOCK', 'Header was not found');
        return VERSION;
      },
      call: (block, method, parameters) => {
        if (!this.#blocks.has(toHex(block))) throw new RuntimeCallError('UNKNOWN_BLOCK', 'Header was not found');
        switch (method) {
          case 'Metadata_metadata':
            this.metadataCalls++;
            return encode(bytes(), utf8('meta'));
          case 'AccountNonceApi_account_nonce':
            return encode(u32, this.nonce);
          case 'TransactionPaymentApi_query_info':
            if (parameters.length < 8) throw new RuntimeCallError('BAD_PARAMETERS', 'too short');
            return Buffer.concat([
              encode(weight, { refTime: 123_456_789_012_345n, proofSize: 77n }),
              Uint8Array.of(0),
              encode(u128, 10n ** 24n),
            ]);
          case 'TransactionPaymentApi_query_fee_details':
            return Buffer.concat([Uint8Array.of(1), ...[1n, 2n, 3n, 0n].map((each) => encode(u128, each))]);
          case 'SessionKeys_decode_session_keys':
            return encode(option(bytes()), undefined);
          case 'Fail_now':
            throw new RuntimeCallError('FAILED', 'it panicked');
          case 'Echo_it':
            return parameters;
          default:
            throw new RuntimeCallError('UNKNOWN_METHOD', method);
        }
      },
      prove: () => ({ output: encode(u64, 1n), proof: [] }),
    },
    importer: {
      import: async () => ({ type: 'known' }),
      importJustification: async () => ({ type: 'known' }),
    },
    pool: {
      submit: async (extrinsic) => {
        const refusal = this.refuse?.(extrinsic);
        if (refusal !== undefined) throw refusal;
        this.ready.push(extrinsic);
        return asHash(hashing.blake2_256(extrinsic));
      },
      submitAndWatch: async (extrinsic, listener) => {
        const refusal = this.refuse?.(extrinsic);
        if (refusal !== undefined) throw refusal;
        this.watchers.set(toHex(extrinsic), listener);
        listener({ type: 'ready' });
        return () => this.watchers.delete(toHex(extrinsic));
      },
      ready: () => this.ready,
      readyOf: (account) => this.ready.filter((each) => nonceOf(each, account) !== undefined),
      get: (hash) => {
        const extrinsic = this.ready.find((each) => equalBytes(hashing.blake2_256(each), hash));
        return extrinsic && { extrinsic };
      },
      status: () => ({ ready: this.ready.length, future: 0, bytes: 0 }),
      remove: (hashes) => {
        const names = new Set(hashes.map(toHex));
        this.ready = this.ready.filter((each) => !names.has(toHex(hashing.blake2_256(each))));
        return hashes;
      },
    },
  };
}

export function fakeContext(chain: FakeChain): RpcContext & { readonly faults: string[] } {
  const faults: string[] = [];
  const reserved = new Set<string>();
  const network: NetworkStatus = {
    peerId: () => '12D3KooWFake',
    listenAddresses: () => ['/ip4/127.0.0.1/tcp/30333'],
    peers: () => [{ peerId: '12D3KooWOther', roles: 'FULL', best: chain.best }],
    isMajorSyncing: () => false,
    syncTarget: () => 9,
    traffic: () => ({ received: 0, bans: 0 }),
    addReservedPeer: async (address) => {
      if (!address.startsWith('/')) throw new Error('not a multiaddress');
      reserved.add(address);
    },
    removeReservedPeer: async (peer) => {
      reserved.delete(peer);
    },
    reservedPeers: () => [...reserved],
  };
  const keys = new Map<string, Uint8Array>();
  const keystore: Keystore = {
    publicKeys: () => [...keys.values()],
    has: (type, key) => keys.has(type + toHex(key)),
    sign: () => undefined,
    insert: (type, suri, key) => {
      if (!suri.startsWith('//')) throw new Error(`secret ${suri}`);
      keys.set(type + toHex(key), key);
    },
    generate: (type) => {
      const key = hashing.blake2_256(utf8(type));
      keys.set(type + toHex(key), key);
      return key;
    },
  };
  return {
    client: chain.client,
    network,
    keystore,
    hashing,
    chain: {
      name: 'Fake',
      type: 'Development',
      properties: { ss58Format: 42, tokenDecimals: 18, tokenSymbol: 'OPEN' },
    },
    node: { name: 'Fake Node', version: '1.0.0', roles: ['Authority'] },
    sessionKeyTypes: ['aura', 'gran'],
    log: (level, message, fields) => {
      if (level === 'error') faults.push(`${message} ${JSON.stringify(fields)}`);
    },
    faults,
  };
}
