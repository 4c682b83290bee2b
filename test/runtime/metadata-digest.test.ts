/** The digest of the metadata that hardware wallets sign (RFC-78), as a wallet's library computes it. */

import { Keyring } from '@polkadot/api';
import { Metadata, TypeRegistry } from '@polkadot/types';
import { cryptoWaitReady } from '@polkadot/util-crypto';
import { merkleizeMetadata } from '@polkadot-api/merkleize-metadata';
import t from 'tap';
import { withoutLength } from '../../runtime/executive/extrinsic.ts';
import * as system from '../../runtime/pallets/standard/system.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { bytes, decode, encode, option, u32 } from '../../runtime/primitives/scale/codec.ts';
import { asAccountId, asHash } from '../../runtime/primitives/types.ts';
import { createWorld, genesisOf, OPEN } from './pallets/world.ts';

const NAMES = { decimals: 18, tokenSymbol: 'OPEN' };

t.test('transactions that sign the digest', async (test) => {
  await cryptoWaitReady();
  const pair = new Keyring({ type: 'sr25519', ss58Format: 42 }).addFromUri('//Wallet');
  const account = asAccountId(pair.publicKey);
  const balances = [{ account, amount: 100n * OPEN }];
  const world = await createWorld(genesisOf({ balances }), asHash(new Uint8Array(32).fill(7)));
  test.teardown(world.close);
  const { host, runtime } = world;
  const metadataAt = (version: number): Uint8Array =>
    decode(option(bytes()), runtime.call(host, 'Metadata_metadata_at_version', encode(u32, version)))!;

  const digests = [15, 16].map((version) => toHex(merkleizeMetadata(metadataAt(version), NAMES).digest()));
  const [digest] = digests as [string];
  test.equal(digests[1], digest, 'wallets that read other versions come to the same digest');

  const registry = new TypeRegistry();
  const metadata = new Metadata(registry, toHex(metadataAt(15)));
  registry.setMetadata(metadata);
  const genesisHash = toHex(system.blockHash(host, 0));
  let nonce = 0;
  const send = (extensions: { mode?: number; metadataHash?: string }) => {
    const extrinsic = registry.createType('Extrinsic', { callIndex: [0, 0], args: ['0x01'] });
    extrinsic.sign(pair, {
      blockHash: genesisHash,
      genesisHash,
      era: '0x00',
      nonce,
      runtimeVersion: {
        specVersion: runtime.version.specVersion,
        transactionVersion: runtime.version.transactionVersion,
      },
      ...extensions,
    } as never);
    const applied = runtime.executive.applyExtrinsic(host, withoutLength(extrinsic.toU8a()));
    if (applied.ok) nonce++;
    return applied.ok ? 'applied' : applied.error.value.type;
  };
  test.equal(send({}), 'applied', 'without it');
  test.equal(send({ mode: 1, metadataHash: digest }), 'applied', 'with it');
  test.equal(send({ mode: 1, metadataHash: genesisHash }), 'BadProof', 'with that of something else');
  test.equal(send({ mode: 0, metadataHash: digest }), 'BadProof', 'signed, but not said so');
  const other = merkleizeMetadata(metadataAt(15), { ...NAMES, decimals: 12 }).digest();
  test.equal(send({ mode: 1, metadataHash: toHex(other) }), 'BadProof', 'with other decimals');
});
