/** The first block of a chain, from its spec. */
import { blake2b } from '@noble/hashes/blake2.js';
import { blake3 } from '@noble/hashes/blake3.js';
import type { Hashing, Host } from '../../runtime/host.ts';
import { fromHex, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { type Header, headerHash } from '../../runtime/primitives/header.ts';
import { asHash, type Hash, ZERO_HASH } from '../../runtime/primitives/types.ts';
import { createRuntime, type Runtime } from '../../runtime/runtime.ts';
import type { ChainSpec, Genesis } from '../chain-spec/chain-spec.ts';
import { createHashing } from '../crypto/hashing.ts';
import { createSignatures } from '../crypto/signatures.ts';
import { Overlay } from '../state/overlay.ts';
import { inMemory, Trie } from '../state/trie.ts';
import { runtimeHost } from './runtime-host.ts';

/** What the runtime takes from outside. */
export const newRuntime = (): Runtime => createRuntime({ blake2_64: (data) => blake2b(data, { dkLen: 8 }), blake3 });

/** Writes the state and gives the header that commits to it. `code` is the runtime's, for a genesis that does not bring its own. */
export function writeGenesis(host: Host, runtime: Runtime, genesis: Genesis, code: Uint8Array): Header {
  if (genesis.type === 'config') runtime.genesis(host, genesis.config, code);
  else for (const [key, value] of genesis.top) host.put(fromHex(key), value);
  return {
    parentHash: ZERO_HASH,
    number: 0,
    stateRoot: asHash(host.storageRoot(1)),
    extrinsicsRoot: asHash(host.orderedTrieRoot([])),
    digest: { logs: [] },
  };
}

/**
 * A digest of what a chain spec says of the genesis, whatever runtime makes a state of it: equal for equal specs. Texts, numbers and
 * bytes of a configuration are told apart.
 */
export function genesisMark(hashing: Pick<Hashing, 'blake2_256'>, genesis: Genesis): Uint8Array {
  const plain =
    genesis.type === 'raw' ? { ...genesis, top: [...genesis.top].sort(([a], [b]) => (a < b ? -1 : 1)) } : genesis;
  const text = JSON.stringify(plain, (_, value: unknown) =>
    typeof value === 'bigint' ? { bigint: `${value}` } : value instanceof Uint8Array ? { bytes: toHex(value) } : value,
  );
  return hashing.blake2_256(utf8(text));
}

export interface GenesisBlock {
  readonly hash: Hash;
  readonly header: Header;
  /** The state's pairs in the order of their keys. */
  readonly state: readonly (readonly [key: Uint8Array, value: Uint8Array])[];
  /** Runs a runtime API on that state. */
  call(method: string, parameters?: Uint8Array): Uint8Array;
}

/** The first block without a database. `code` as for {@link writeGenesis}. */
export async function genesisOf({ genesis }: Pick<ChainSpec, 'genesis'>, code: Uint8Array): Promise<GenesisBlock> {
  const hashing = createHashing();
  const runtime = newRuntime();
  const overlay = new Overlay(new Trie(hashing.blake2_256, inMemory), undefined);
  const host = runtimeHost(overlay, hashing, await createSignatures(), () => {});
  const header = writeGenesis(host, runtime, genesis, code);
  const state: [Uint8Array, Uint8Array][] = [];
  for (let key = overlay.nextKey(new Uint8Array()); key !== undefined; key = overlay.nextKey(key)) {
    state.push([key, overlay.get(key)!]);
  }
  return {
    hash: headerHash(hashing, header),
    header,
    state,
    call: (method, parameters = new Uint8Array()) => runtime.call(host, method, parameters),
  };
}
