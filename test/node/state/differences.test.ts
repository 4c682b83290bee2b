import t from 'tap';
import { uniforms } from '../../../gpu-worker/attribution/seeded.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { differences } from '../../../node/state/differences.ts';
import { nibblesOf } from '../../../node/state/node.ts';
import { inMemory, Trie } from '../../../node/state/trie.ts';
import { compareBytes, fromHex, startsWith, toHex, utf8 } from '../../../runtime/primitives/bytes.ts';

const { blake2_256 } = createHashing();

function trieOf(entries: ReadonlyMap<string, string>) {
  const trie = new Trie(blake2_256, inMemory);
  const changes = [...entries]
    .map(([key, value]) => ({ key: nibblesOf(fromHex(key)), value: utf8(value) }))
    .sort((a, b) => compareBytes(a.key, b.key));
  return trie.update(undefined, changes, 1, []);
}

t.test('two states differ in what was changed, whatever hangs between', async (test) => {
  const random = uniforms(7n);
  const below = (limit: number): number => Math.floor(random() * limit);
  // Few bytes, so that keys are often prefixes of others and branches merge and split.
  const anyKey = (): string =>
    toHex(Uint8Array.from({ length: below(5) }, () => [0x00, 0x01, 0x10, 0x11, 0xf0][below(5)]!));
  let found = 0;
  for (let round = 0; round < 400; round++) {
    const before = new Map<string, string>();
    for (let i = below(30); i > 0; i--) before.set(anyKey(), 'x'.repeat(1 + below(60)));
    const after = new Map(before);
    for (let i = below(8); i > 0; i--) {
      const key = anyKey();
      if (below(2) === 0) after.delete(key);
      else after.set(key, 'y'.repeat(1 + below(60)));
    }
    const prefix = fromHex(anyKey()).subarray(0, below(3));
    const expected = [...new Set([...before.keys(), ...after.keys()])]
      .filter((key) => before.get(key) !== after.get(key) && startsWith(fromHex(key), prefix))
      .sort()
      .map((key) => [key, before.get(key), after.get(key)]);
    const trie = new Trie(blake2_256, inMemory);
    const text = (value: Uint8Array | undefined) => value && Buffer.from(value).toString();
    const actual = [...differences(trie, trieOf(before), trieOf(after), prefix)].map((each) => [
      toHex(each.key),
      text(each.before),
      text(each.after),
    ]);
    found += actual.length;
    if (JSON.stringify(actual) !== JSON.stringify(expected)) test.same(actual, expected, `round ${round}`);
  }
  test.ok(found > 300, `${found} differences`);
});

t.test('what two states share is not read', async (test) => {
  const entries = new Map<string, string>();
  for (let i = 0; i < 5_000; i++) entries.set(toHex(blake2_256(utf8(`key ${i}`))), `value ${i}`);
  const before = trieOf(entries);
  const [first] = entries.keys();
  let read = 0;
  const trie = new Trie(blake2_256, inMemory);
  trie.merkle(before!);
  const after = trie.update(before, [{ key: nibblesOf(fromHex(first!)), value: undefined }], 1, []);
  const open = trie.open.bind(trie);
  trie.open = (ref, path) => {
    read++;
    return open(ref, path);
  };
  const found = [...differences(trie, before, after, new Uint8Array())];
  test.same(
    found.map(({ key }) => toHex(key)),
    [first],
  );
  test.ok(read < 500, `${read} nodes were opened`);
});
