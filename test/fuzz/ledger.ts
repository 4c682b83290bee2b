/** What is fuzzed: the runtime's definitions, and a node that makes no blocks behind a JSON-RPC dispatcher. */
import { blake2b } from '@noble/hashes/blake2.js';
import { blake3 } from '@noble/hashes/blake3.js';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { type Scheme, signWith } from '../../node/keystore/keys.ts';
import { derive } from '../../node/keystore/secret-uri.ts';
import { startNode } from '../../node/service.ts';
import { Dispatcher } from '../../rpc/server/dispatcher.ts';
import { standardGroups } from '../../rpc/standard-groups.ts';
import { outerTypes } from '../../runtime/metadata/metadata.ts';
import { concatBytes } from '../../runtime/primitives/bytes.ts';
import { compact, encode, u32, u128 } from '../../runtime/primitives/scale/codec.ts';
import { createRuntime } from '../../runtime/runtime.ts';
import { FakeChain, fakeContext, hashing } from '../rpc/fake.ts';
import { encodingOf } from './inputs.ts';
import type { Random } from './random.ts';

export const runtime = createRuntime({ blake2_64: (data) => blake2b(data, { dkLen: 8 }), blake3 });
export const { executive } = runtime;
export const { assembly } = executive;
export const outer = outerTypes({ assembly, extensions: executive.extensions });

/** Runtime APIs with what they take. */
export const apis = runtime.apis;

export const MAX_BATCH = 50;
/** Bytes that one answer may have. */
export const MAX_RESPONSE = 4 * 1024 * 1024;

/** A follower of the development chain at its genesis block. */
export async function startLedger() {
  const stop = new AbortController();
  const faults: string[] = [];
  const log = (level: string, message: string, fields?: unknown): void => {
    if (level === 'error') faults.push(`${message} ${JSON.stringify(fields)}`);
  };
  const node = await startNode(
    {
      name: 'fuzz',
      version: '0',
      spec: presetSpec('dev'),
      basePath: undefined,
      statePruning: 256,
      authority: undefined,
      rpc: { host: '127.0.0.1', port: 0, methods: 'auto' },
      log,
    },
    stop.signal,
  );
  const context = { ...fakeContext(new FakeChain()), client: node.client, log };
  const groups = standardGroups(context);
  const dispatcher = new Dispatcher({ groups, maxBatch: MAX_BATCH, maxResponse: MAX_RESPONSE, log });
  return {
    client: node.client,
    dispatcher,
    /** Faults of the node since the last call. */
    faults: () => faults.splice(0),
    close: async () => {
      stop.abort();
      await node.stopped;
    },
  };
}
export type Ledger = Awaited<ReturnType<typeof startLedger>>;

const SIGNERS = (['sr25519', 'ed25519', 'ecdsa'] as const).flatMap((scheme) =>
  (scheme === 'sr25519' ? ['//Alice', '//Bob', '//Nobody'] : ['//Alice']).map((uri) => ({
    scheme,
    pair: derive(uri, scheme),
  })),
);
const TAGS: Readonly<Record<Scheme, number>> = { ed25519: 0, sr25519: 1, ecdsa: 2 };

/** A signed extrinsic of version 4 without its length prefix. Its signature holds where `genesisHash` is the chain's. */
export function signedExtrinsic(random: Random, genesisHash: Uint8Array): Uint8Array {
  const { scheme, pair } = random.pick(SIGNERS);
  const call = encodingOf(assembly.call.type, random, outer);
  const nonce = encode(compact(u32), random.below(4));
  const tip = encode(compact(u128), random.chance(0.7) ? 0n : BigInt(random.u32()) ** 3n);
  const extra = concatBytes(Uint8Array.of(0), nonce, tip, Uint8Array.of(0));
  const { specVersion, transactionVersion } = runtime.version;
  const versions = concatBytes(encode(u32, specVersion), encode(u32, transactionVersion));
  const payload = concatBytes(call, extra, versions, genesisHash, genesisHash, Uint8Array.of(0));
  const message = payload.length > 256 ? hashing.blake2_256(payload) : payload;
  const account = scheme === 'ecdsa' ? hashing.blake2_256(pair.publicKey) : pair.publicKey;
  const signature = signWith(pair, message, hashing);
  return concatBytes(Uint8Array.of(0x84, 0), account, Uint8Array.of(TAGS[scheme]), signature, extra, call);
}
