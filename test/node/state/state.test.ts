import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import { uniforms } from '../../../gpu-worker/attribution/seeded.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { Database } from '../../../node/database/database.ts';
import { StateDatabase } from '../../../node/state/state-database.ts';
import { orderedTrieRoot, trieRoot } from '../../../node/state/trie.ts';
import { fromHex, toHex, utf8 } from '../../../runtime/primitives/bytes.ts';
import { asHash, type Hash } from '../../../runtime/primitives/types.ts';

const { blake2_256 } = createHashing();
const vector = (name: string) =>
  JSON.parse(gunzipSync(readFileSync(new URL(`../../vectors/${name}`, import.meta.url))).toString());

t.test("roots are Substrate's: the w3f suite and states around the limits", async (test) => {
  const { cases } = vector('trie-roots.json.gz') as {
    cases: { name: string; entries: [string, string][]; rootV0: string; rootV1: string }[];
  };
  test.ok(cases.length > 0);
  for (const { name, entries, rootV0, rootV1 } of cases) {
    const pairs = new Map(entries);
    const bytes = [...pairs].map(([key, value]) => [fromHex(key), fromHex(value)] as const);
    test.equal(toHex(trieRoot(blake2_256, bytes, 0)), rootV0, `${name}, version 0`);
    test.equal(toHex(trieRoot(blake2_256, bytes, 1)), rootV1, `${name}, version 1`);
  }
  test.equal(toHex(orderedTrieRoot(blake2_256, [])), toHex(blake2_256(new Uint8Array(1))));
});

for (const chain of ['westend', 'paseo']) {
  t.test(`the genesis state of ${chain} has its real root`, async (test) => {
    const file = vector(`genesis-${chain}.json.gz`);
    const top: Record<string, string> = file.top ?? file.genesis?.raw?.top ?? file.state;
    const root: string = file.stateRoot ?? file.root;
    test.ok(Object.keys(top).length > 10);
    const entries = Object.entries(top).map(([key, value]) => [fromHex(key), fromHex(value)] as const);
    test.equal(toHex(trieRoot(blake2_256, entries, 0)), root);
  });
}

async function open(test: Test, pruning: number | 'archive') {
  const directory = await mkdtemp(join(tmpdir(), 'state-'));
  test.teardown(() => rm(directory, { recursive: true, force: true }));
  let database = await Database.open(directory);
  test.teardown(() => database.close());
  const make = () => StateDatabase.open(database, blake2_256, { pruning, maxCachedNodes: 50 });
  return {
    database: () => database,
    make,
    reopen: async () => {
      await database.close();
      database = await Database.open(directory);
      return make();
    },
  };
}

const hashOf = (label: string): Hash => asHash(blake2_256(utf8(label)));

t.test('random histories with forks, finality, pruning and restarts, against plain maps', async (test) => {
  const next = uniforms(7n);
  const below = (limit: number) => Math.floor(next() * limit);
  const place = await open(test, 3);
  let states = await place.make();
  const models = new Map<string, Map<string, Uint8Array>>();
  const blocks = new Map<string, { hash: Hash; number: number; parent: string | undefined }>();
  const canonical = new Map<number, Hash>();

  const build = async (parent: string | undefined, label: string) => {
    const hash = hashOf(label);
    const number = parent === undefined ? 0 : blocks.get(parent)!.number + 1;
    const overlay = parent === undefined ? states.empty() : states.overlay(blocks.get(parent)!.hash)!;
    const model = new Map(parent === undefined ? [] : models.get(parent)!);
    for (let i = 0; i < 30; i++) {
      // Short keys that are prefixes of each other, and values on both sides of the limit.
      const key = blake2_256(Uint8Array.of(below(60))).slice(0, 1 + below(4));
      const name = toHex(key);
      if (next() < 0.3) {
        overlay.delete(key);
        model.delete(name);
      } else {
        const value = new Uint8Array(1 + below(60)).fill(below(256));
        overlay.put(key, value);
        model.set(name, value);
      }
      if (i === 15) {
        overlay.beginTransaction();
        overlay.put(key, utf8('never'));
        overlay.put(utf8('gone'), utf8('never'));
        overlay.append(utf8('list'), Uint8Array.of(9));
        overlay.rollbackTransaction();
        overlay.storageRoot(1);
      }
    }
    const entries = [...model].map(([key, value]) => [fromHex(key), value] as const);
    const expected = toHex(trieRoot(blake2_256, entries, 1));
    if (toHex(overlay.storageRoot(1)) !== expected) test.fail(`root of ${label}`);
    const seen: string[] = [];
    for (let key = overlay.nextKey(new Uint8Array()); key !== undefined; key = overlay.nextKey(key))
      seen.push(toHex(key));
    test.same(seen, [...model.keys()].sort(), `keys of ${label} in order`);
    const batch = place.database().batch();
    const committed = states.insert(batch, { hash, number }, overlay);
    await batch.commit();
    committed();
    models.set(label, model);
    blocks.set(label, { hash, number, parent });
  };
  const check = (label: string) => {
    const view = states.at(blocks.get(label)!.hash);
    const model = models.get(label)!;
    const wrong = [...model].filter(
      ([key, value]) => toHex(view?.get(fromHex(key)) ?? new Uint8Array()) !== toHex(value),
    );
    test.equal(wrong.length, 0, `values of ${label}`);
    let count = 0;
    for (let key = view?.nextKey(new Uint8Array()); key !== undefined; key = view?.nextKey(key)) count++;
    test.equal(count, model.size, `number of keys of ${label}`);
  };

  await build(undefined, 'genesis');
  canonical.set(0, blocks.get('genesis')!.hash);
  let head = 'genesis';
  const HELD = 2;
  for (let round = 1; round <= 30; round++) {
    const main = `main ${round}`;
    const fork = `fork ${round}`;
    await build(head, main);
    await build(head, fork);
    check(fork);
    const block = blocks.get(main)!;
    canonical.set(block.number, block.hash);
    const batch = place.database().batch();
    // A fork may stay for a while, as long as its beginning is within the window.
    const late = round - HELD < 1 ? [] : [`fork ${round - HELD}`];
    for (let held = Math.max(1, round - HELD); held < round; held++) check(`fork ${held}`);
    const removed = late.map((each) => blocks.get(each)!.hash);
    const done = states.finalize(batch, [block], removed, (number) => canonical.get(number));
    await batch.commit();
    done();
    head = main;
    if (round % 7 === 0) states = await place.reopen();
    for (let back = Math.max(1, round - 2); back <= round; back++) check(`main ${back}`);
    for (const each of late) test.notOk(states.has(blocks.get(each)!.hash));
  }
  test.notOk(states.has(blocks.get('main 20')!.hash), 'states outside of the window are gone');

  let nodes = 0;
  for await (const _ of place.database().entries(1)) nodes++;
  const newest = models.get(head)!;
  test.ok(nodes < 4 * 2 * newest.size + 200, `${nodes} nodes on disk for ${newest.size} keys: nothing leaks`);
});

t.test('appending, clearing and proofs', async (test) => {
  const place = await open(test, 'archive');
  const states = await place.make();
  const overlay = states.empty();
  const list = utf8('list');
  for (let i = 0; i < 100; i++) overlay.append(list, Uint8Array.of(i));
  test.same(overlay.get(list), Uint8Array.from([0x91, 0x01, ...Array.from({ length: 100 }, (_, i) => i)]));
  overlay.append(list, Uint8Array.of(100));
  test.equal(overlay.get(list)!.length, 103);
  for (let i = 0; i < 50; i++) overlay.put(utf8(`prefix/${i}`), new Uint8Array(40).fill(i));
  test.same(overlay.clearPrefix(utf8('prefix/1'), 5), { removed: 5, more: true });
  test.same(overlay.clearPrefix(utf8('prefix/1')), { removed: 6, more: false });
  const root = overlay.storageRoot(1);
  const batch = place.database().batch();
  const hash = hashOf('one');
  const committed = states.insert(batch, { hash, number: 0 }, overlay);
  await batch.commit();
  committed();
  const key = utf8('prefix/7');
  const proof = states.prove(hash, [key])!;
  test.ok(
    proof.some((node) => toHex(blake2_256(node)) === toHex(root)),
    'the root is part of the proof',
  );
  test.ok(
    proof.some((node) => toHex(node) === toHex(new Uint8Array(40).fill(7))),
    'so is the hashed value',
  );
  const sizes = proof.reduce((sum, node) => sum + node.length, 0);
  test.ok(sizes < 1500, `${sizes} bytes prove one of 41 keys`);
});
