/** Over real sockets: validators attest the records that they hold, and one that has no room for them does not. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { stateReader } from '../../node/attribution/state-reader.ts';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { createSignatures } from '../../node/crypto/signatures.ts';
import { KeySigner } from '../../node/keystore/key-signer.ts';
import { derive } from '../../node/keystore/secret-uri.ts';
import { prepareBatch } from '../../rpc/client/batches.ts';
import { availabilityOf, batchOf, contribute, openDatanet } from '../../rpc/client/datanets.ts';
import { Ledger } from '../../rpc/client/ledger.ts';
import { attestersAmong, holdersOf } from '../../runtime/pallets/ledger/blobs.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import { until } from '../support/until.ts';
import { directories, type Member, startMember } from './nodes.ts';
import { chainOf, finalized } from './validators.ts';

const OPEN = 10n ** 18n;
const hashing = createHashing();

t.test('blobs are attested by those who hold them', { timeout: 170_000 }, async (test) => {
  const signatures = await createSignatures();
  const names = ['Alice', 'Bob', 'Charlie'];
  const spec = presetSpec('local', { slotDurationMs: 500, authorities: names, sessionLength: 100_000 });
  const homes = await directories(3);
  const members: Member[] = [];
  const start = async (i: number, name: string) => {
    const bootNodes = members.filter((_, at) => at !== i).map(({ address }) => address);
    // Charlie has no room for anything.
    const room = i === 2 ? { blobBytes: 1 } : {};
    const directory = homes.paths[i]!;
    members[i] = await startMember({ name, spec, directory, authority: `//${name}`, bootNodes, ...room });
  };
  for (const [i, name] of names.entries()) await start(i, name);
  let ledger: Ledger | undefined;
  test.teardown(async () => {
    ledger?.close();
    await Promise.allSettled(members.map((each) => each.stop()));
    await homes.remove();
  });
  const [alice] = members as [Member];
  await until('blocks are final', () => finalized(alice) >= 2, 90);

  ledger = await Ledger.connect(alice.node.rpc.ws);
  const owner = KeySigner.fromUri('//Eve', hashing);
  const datanet = await openDatanet(ledger, owner, {
    name: 'Stones',
    description: '',
    schema: '{}',
    licence: 'CC0-1.0',
    admission: 'Open',
    stake: OPEN,
    duplicateOverlap: 0.9,
    accessPrice: 0n,
  });
  const batch = prepareBatch(hashing, '{"prompt":"What is slate?","response":"A stone that splits."}');
  const index = await contribute(ledger, owner, datanet, batch);
  const { claim } = await batchOf(ledger, datanet, index);

  const state = () => {
    const { hash } = alice.node.client.blocks.info().best;
    return stateReader(chainOf(alice).at(hash)!, hashing, signatures);
  };
  const holders = () => holdersOf(state(), claim).map(toHex).sort();
  const stash = (name: string) => toHex(derive(`//${name}//stash`, 'sr25519').publicKey);
  const both = [stash('Alice'), stash('Bob')].sort();
  await until('two of them attest it', () => holders().length === 2, 90);
  test.same(holders(), both);
  test.same(await availabilityOf(ledger, [claim]), { validators: 3, holders: [2] });
  // Time enough for the third to say so too, if it would.
  const seen = finalized(alice);
  await until('a few blocks more', () => finalized(alice) >= seen + 6, 90);
  test.same(holders(), both);

  // Bob's file is damaged while he is away: he takes his word back, and gives it again when he has fetched it anew.
  await members[1]!.stop();
  const blobs = join(homes.paths[1]!, 'chains', spec.id, 'blobs');
  const name = toHex(batch.hash).slice(2);
  const file = join(blobs, name.slice(0, 2), name);
  await writeFile(file, new Uint8Array(batch.blob.length));
  await start(1, 'Bob');
  const voter = derive('//Bob', 'ed25519').publicKey;
  const sequence = () => attestersAmong(state(), (key) => equalBytes(key, voter))[0]!.sequence;
  await until('he attests that it is lost, and then that it is there', () => sequence() >= 3, 90);
  test.same(holders(), both);
  test.ok(equalBytes(await readFile(file), batch.blob), 'with the right bytes');
});
