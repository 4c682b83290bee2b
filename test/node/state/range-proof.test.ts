/** Ranges of a state: the compact form by hand, whole states in pieces, whoever lies, and a database that takes one in. */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import t from 'tap';
import { uniforms } from '../../../gpu-worker/attribution/seeded.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { Database } from '../../../node/database/database.ts';
import { nibblesOf, type StateVersion } from '../../../node/state/node.ts';
import { ProofError } from '../../../node/state/proof.ts';
import { proveRange, verifyRange } from '../../../node/state/range-proof.ts';
import { StateDatabase } from '../../../node/state/state-database.ts';
import { inMemory, Trie } from '../../../node/state/trie.ts';
import { compareBytes, concatBytes, fromHex, toHex } from '../../../runtime/primitives/bytes.ts';
import { asHash } from '../../../runtime/primitives/types.ts';

const { blake2_256 } = createHashing();
type Entry = readonly [Uint8Array, Uint8Array];

function trieOf(entries: readonly Entry[], version: StateVersion) {
  const trie = new Trie(blake2_256, inMemory);
  const changes = entries.map(([key, value]) => ({ key: nibblesOf(key), value }));
  const root = trie.update(undefined, changes, version, []);
  return { trie, root, hash: trie.rootHash(root) };
}
const sorted = (entries: Iterable<Entry>): Entry[] => [...entries].sort((a, b) => compareBytes(a[0], b[0]));
const hex = (entries: readonly Entry[]) => entries.map(([key, value]) => [toHex(key), toHex(value)]);

function westend(): Entry[] {
  const file = JSON.parse(
    gunzipSync(readFileSync(new URL('../../vectors/genesis-westend.json.gz', import.meta.url))).toString(),
  );
  const top: Record<string, string> = file.top ?? file.genesis?.raw?.top ?? file.state;
  return sorted(Object.entries(top).map(([key, value]): Entry => [fromHex(key), fromHex(value)]));
}

/** Keys that share long prefixes, lie within each other, and values around the limit of hashing. */
function randomEntries(next: () => number, count: number): Entry[] {
  const map = new Map<string, Entry>();
  while (map.size < count) {
    const key = Uint8Array.from({ length: 1 + Math.floor(next() * 5) }, () => Math.floor(next() * 4) * 0x11);
    const value = new Uint8Array(Math.floor(next() * 3) * 20 + Math.floor(next() * 3)).fill(next() * 256);
    map.set(toHex(key), [key, value]);
  }
  return sorted(map.values());
}

t.test('the compact form, by hand', async (test) => {
  const value = new Uint8Array(33).fill(7);
  const entries: Entry[] = [
    [fromHex('0x00'), fromHex('0x61')],
    [fromHex('0x10'), value],
  ];
  const { trie, root, hash } = trieOf(entries, 1);
  const proof = proveRange(trie, blake2_256, root, undefined, 1_000);
  test.same(proof.map(toHex), [
    // A branch without partial key or value; children 0 and 1: one within it, one that follows.
    '0x80' + '0300' + '1041000461' + '00',
    // The escape, then a leaf of partial key 0 with an empty value; its value follows.
    '0x01' + '4100' + '00',
    toHex(value),
  ]);
  test.same(verifyRange(blake2_256, hash, proof, undefined), { entries, complete: true });
  // From the first key on only the second is shown; the node of the first stands in the root all the same.
  const second = proveRange(trie, blake2_256, root, fromHex('0x00'), 1_000);
  test.same(verifyRange(blake2_256, hash, second, fromHex('0x00')), { entries: entries.slice(1), complete: true });
  const empty = new Trie(blake2_256, inMemory);
  test.same(
    verifyRange(
      blake2_256,
      empty.rootHash(undefined),
      proveRange(empty, blake2_256, undefined, undefined, 10),
      undefined,
    ),
    {
      entries: [],
      complete: true,
    },
  );
});

t.test('whole states in pieces', async (test) => {
  const next = uniforms(5n);
  const states: [string, Entry[], StateVersion, number][] = [
    ['westend, version 0', westend(), 0, 20_000],
    ['westend, version 1', westend(), 1, 20_000],
    ['westend at once', westend(), 1, 1 << 30],
  ];
  for (let i = 0; i < 60; i++) {
    states.push([
      `random ${i}`,
      randomEntries(next, 1 + Math.floor(next() * 80)),
      next() < 0.5 ? 0 : 1,
      Math.floor(next() * 600),
    ]);
  }
  for (const [name, entries, version, maxBytes] of states) {
    const { trie, root, hash } = trieOf(entries, version);
    const found: Entry[] = [];
    let after: Uint8Array | undefined;
    for (let pieces = 0; pieces <= entries.length; pieces++) {
      const proof = proveRange(trie, blake2_256, root, after, maxBytes);
      const range = verifyRange(blake2_256, hash, proof, after);
      found.push(...range.entries);
      after = range.entries.at(-1)?.[0] ?? after;
      if (range.complete) break;
    }
    if (JSON.stringify(hex(found)) !== JSON.stringify(hex(entries))) test.fail(`${name}: other entries`);
  }
  test.pass(`${states.length} states`);
});

t.test('a false proof shows nothing false', async (test) => {
  const next = uniforms(9n);
  let refused = 0;
  for (let i = 0; i < 2_000; i++) {
    const entries = randomEntries(next, 2 + Math.floor(next() * 30));
    const { trie, root, hash } = trieOf(entries, next() < 0.5 ? 0 : 1);
    const after = next() < 0.5 ? undefined : entries[Math.floor(next() * (entries.length - 1))]![0];
    const proof = proveRange(trie, blake2_256, root, after, Math.floor(next() * 800)).map((each) => each.slice());
    switch (Math.floor(next() * 5)) {
      case 0:
        proof.splice(Math.floor(next() * proof.length), 1);
        break;
      case 1:
        proof.splice(Math.floor(next() * proof.length), 0, proof[Math.floor(next() * proof.length)]!);
        break;
      case 2:
        proof.push(Uint8Array.from({ length: Math.floor(next() * 40) }, () => next() * 256));
        break;
      default: {
        const node = proof[Math.floor(next() * proof.length)]!;
        if (node.length > 0) node[Math.floor(next() * node.length)]! ^= 1 << Math.floor(next() * 8);
      }
    }
    try {
      const range = verifyRange(blake2_256, hash, proof, after);
      const from = after === undefined ? 0 : entries.findIndex(([key]) => compareBytes(key, after) > 0);
      const true_ = entries.slice(from, from + range.entries.length);
      test.same(hex(range.entries), hex(true_), `run ${i}: what is shown is so, without gaps`);
      if (range.complete) test.equal(from + range.entries.length, entries.length, `run ${i}: nothing is left out`);
    } catch (problem) {
      if (!(problem instanceof ProofError)) throw problem;
      refused++;
    }
  }
  test.ok(refused > 1_000, `${refused} of 2,000 refused`);
});

t.test('made-up proofs do not run away', async (test) => {
  const root = new Uint8Array(32);
  const code = (proof: readonly Uint8Array[]): string | undefined => {
    try {
      verifyRange(blake2_256, root, proof, undefined);
      return undefined;
    } catch (problem) {
      return (problem as ProofError).code;
    }
  };
  test.equal(code([]), 'INCOMPLETE');
  // Branches each of which leads to the next one.
  test.equal(code(new Array(60_000).fill(fromHex('0x80010000'))), 'MALFORMED');
  test.equal(code([fromHex('0x800100'), fromHex('0x41')]), 'MALFORMED');
  test.equal(code([fromHex('0x01')]), 'MALFORMED');
  test.equal(code([fromHex('0x01410000')]), 'INCOMPLETE');
});

t.test('a database takes a state in, piece by piece, and works on with it', async (test) => {
  const directory = await mkdtemp(join(tmpdir(), 'range-'));
  test.teardown(() => rm(directory, { recursive: true, force: true }));
  const entries = westend();
  const { trie, root, hash } = trieOf(entries, 1);
  let database = await Database.open(directory);
  let states = await StateDatabase.open(database, blake2_256, { pruning: 4 });
  const block = { hash: asHash(new Uint8Array(32).fill(1)), number: 100 };
  const incoming = states.receive(1);
  let pieces = 0;
  for (let complete = false; !complete; pieces++) {
    const proof = proveRange(trie, blake2_256, root, incoming.last, 5_000);
    const range = verifyRange(blake2_256, hash, proof, incoming.last);
    await incoming.add(range.entries);
    complete = range.complete;
  }
  test.ok(pieces >= 2, `${pieces} pieces`);
  test.equal(incoming.entries, entries.length);
  test.equal(toHex(incoming.root()), toHex(hash));
  test.notOk(states.has(block.hash), 'it is not there before it is whole');
  const batch = database.batch();
  const done = incoming.finish(batch, block);
  await batch.commit();
  done();
  await database.close();
  database = await Database.open(directory);
  test.teardown(() => database.close());
  states = await StateDatabase.open(database, blake2_256, { pruning: 4 });
  const view = states.at(block.hash)!;
  for (const [key, value] of entries) test.equal(compareBytes(view.get(key)!, value), 0, toHex(key));
  // A block on top of it gives the root that a trie made at once has.
  const overlay = states.overlay(block.hash)!;
  const [first, second] = [entries[3]!, entries[20]!];
  overlay.delete(first[0]);
  overlay.put(second[0], fromHex('0x1234'));
  overlay.put(concatBytes(second[0], fromHex('0x00')), new Uint8Array(50));
  const changed = sorted([
    ...entries.filter(([key]) => key !== first[0] && key !== second[0]),
    [second[0], fromHex('0x1234')],
    [concatBytes(second[0], fromHex('0x00')), new Uint8Array(50)],
  ]);
  test.equal(toHex(overlay.storageRoot(1)), toHex(trieOf(changed, 1).hash));
});
