/** Proofs of reads: against nodes that Substrate's trie made, against live chains' roots, and against whoever makes them up. */
import { readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import t from 'tap';
import { uniforms } from '../../../gpu-worker/attribution/seeded.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { decodeNode, nibblesOf, type StateVersion } from '../../../node/state/node.ts';
import { ProofError, provenTrie, verifyProof } from '../../../node/state/proof.ts';
import { inMemory, ProofRecorder, Trie } from '../../../node/state/trie.ts';
import { compareBytes, concatBytes, fromHex, toHex, utf8 } from '../../../runtime/primitives/bytes.ts';
import { ScaleError } from '../../../runtime/primitives/scale/io.ts';

const { blake2_256 } = createHashing();
const vector = (name: string) =>
  JSON.parse(gunzipSync(readFileSync(new URL(`../../vectors/${name}`, import.meta.url))).toString());

type Entries = ReadonlyMap<string, Uint8Array>;

function trieOf(entries: Entries, version: StateVersion) {
  const trie = new Trie(blake2_256, inMemory);
  const changes = [...entries].map(([key, value]) => ({ key: nibblesOf(fromHex(key)), value }));
  changes.sort((a, b) => compareBytes(a.key, b.key));
  const root = trie.update(undefined, changes, version, []);
  return { trie, root, hash: trie.rootHash(root), prove: (keys: readonly Uint8Array[]) => trie.prove(root, keys) };
}

const shown = (values: readonly (Uint8Array | undefined)[]) => values.map((each) => each && toHex(each));

function codeOf(run: () => unknown): string | undefined {
  try {
    run();
    return undefined;
  } catch (problem) {
    if (problem instanceof ProofError || problem instanceof ScaleError) return problem.code;
    throw problem;
  }
}

t.test("nodes that Substrate's trie made, and proofs that it reads", async (test) => {
  const { cases } = vector('trie-proofs.json.gz') as {
    cases: Record<'name' | 'rootV0' | 'rootV1', string>[] &
      { entries: [string, string][]; nodesV0: string[]; nodesV1: string[] }[];
  };
  test.ok(cases.length > 8);
  for (const { name, entries, rootV0, nodesV0, rootV1, nodesV1 } of cases) {
    const keys = entries.map(([key]) => fromHex(key));
    const values = entries.map(([, value]) => value);
    test.same(
      shown(verifyProof(blake2_256, fromHex(rootV0), nodesV0.map(fromHex), keys)),
      values,
      `${name}, version 0`,
    );
    test.same(
      shown(verifyProof(blake2_256, fromHex(rootV1), nodesV1.map(fromHex), keys)),
      values,
      `${name}, version 1`,
    );
    const map = new Map(entries.map(([key, value]) => [key, fromHex(value)]));
    const own = trieOf(map, 0).prove(keys).map(toHex).sort();
    test.same(own, [...new Set(nodesV0)].sort(), `${name}: the same nodes, version 0`);
    const unknown = blake2_256(utf8(name));
    if (!map.has(toHex(unknown))) {
      test.same(verifyProof(blake2_256, fromHex(rootV1), nodesV1.map(fromHex), [unknown]), [undefined]);
    }
  }
});

t.test('values of a live chain under its genesis root', async (test) => {
  const file = vector('genesis-westend.json.gz');
  const top: Record<string, string> = file.top ?? file.genesis?.raw?.top ?? file.state;
  const root = fromHex(file.stateRoot ?? file.root);
  const entries = new Map(Object.entries(top).map(([key, value]) => [key, fromHex(value)]));
  const { prove } = trieOf(entries, 0);
  const keys = [...entries.keys()].filter((_, i) => i % 37 === 0).map(fromHex);
  const proof = prove(keys);
  test.same(
    shown(verifyProof(blake2_256, root, proof, keys)),
    keys.map((key) => top[toHex(key)]),
  );
  test.equal(
    codeOf(() => verifyProof(blake2_256, blake2_256(root), proof, keys)),
    'INCOMPLETE',
    'another root',
  );
});

t.test('proofs are complete, hold nothing that is not needed, and cannot be bent', async (test) => {
  const next = uniforms(11n);
  const below = (limit: number) => Math.floor(next() * limit);
  for (let round = 0; round < 40; round++) {
    const version = (round % 2) as StateVersion;
    const entries = new Map<string, Uint8Array>();
    const randomKey = () => blake2_256(Uint8Array.of(below(90))).slice(0, 1 + below(4));
    for (let i = 0; i < 1 + below(60); i++) {
      entries.set(toHex(randomKey()), new Uint8Array(below(70)).fill(below(256)));
    }
    const { hash, prove } = trieOf(entries, version);
    const keys = Array.from({ length: 1 + below(6) }, randomKey);
    const proof = prove(keys);
    const truth = keys.map((key) => entries.get(toHex(key)));
    const order = proof.toSorted(() => next() - 0.5);
    test.same(shown(verifyProof(blake2_256, hash, order, keys)), shown(truth));
    const wrong = proof.flatMap((_, at) => {
      const less = proof.toSpliced(at, 1);
      const bent = proof.with(
        at,
        Uint8Array.from(proof[at]!, (byte, i) => (i === below(proof[at]!.length) ? ~byte : byte)),
      );
      const isSame = toHex(bent[at]!) === toHex(proof[at]!);
      return [less, ...(isSame ? [] : [bent])].filter(
        (each) => codeOf(() => verifyProof(blake2_256, hash, each, keys)) !== 'INCOMPLETE',
      );
    });
    test.equal(wrong.length, 0, 'without a node, or with another in its place, it shows less');
  }
});

t.test('what an iteration read proves the same iteration', async (test) => {
  const entries = new Map<string, Uint8Array>();
  for (let i = 0; i < 400; i++)
    entries.set(toHex(blake2_256(Uint8Array.of(i, i >> 8)).slice(0, 6)), new Uint8Array(40));
  const { trie, root, hash } = trieOf(entries, 1);
  const walk = (of: Trie, from: typeof root, visitor?: ProofRecorder): string[] => {
    const out: string[] = [];
    for (let key = of.nextKey(from, Uint8Array.of(0x40), visitor); key !== undefined && out.length < 25; ) {
      out.push(toHex(key));
      key = of.nextKey(from, key, visitor);
    }
    return out;
  };
  const recorder = new ProofRecorder(trie);
  const seen = walk(trie, root, recorder);
  const proof = recorder.nodes();
  const proven = provenTrie(blake2_256, hash, proof);
  test.same(walk(proven.trie, proven.root), seen, 'although no value is in the proof');
  test.equal(
    codeOf(() => proven.trie.get(proven.root, fromHex(seen[0]!))),
    'INCOMPLETE',
    'values are not shown by it',
  );
  test.equal(
    codeOf(() => proven.trie.nextKey(proven.root, Uint8Array.of(0xe0))),
    'INCOMPLETE',
  );
});

t.test('made-up proofs', async (test) => {
  const empty = trieOf(new Map(), 1);
  test.same(verifyProof(blake2_256, empty.hash, [], [utf8('x')]), [undefined], 'an empty state has nothing');
  const of = (bytes: number[]) => codeOf(() => decodeNode(Uint8Array.from(bytes)));
  test.equal(of([]), 'UNEXPECTED_END');
  test.equal(of([0x00]), 'NON_CANONICAL', 'the empty node is no node');
  test.equal(of([0x01]), 'NON_CANONICAL', 'the mark of compact proofs');
  test.equal(of([0x41, 0x1f, 0x04, 0x00]), 'NON_CANONICAL', 'padding');
  test.equal(of([0x80, 0, 0]), 'NON_CANONICAL', 'a branch without children');
  test.equal(of([0x80, 1, 0, 0]), 'NON_CANONICAL', 'an empty child');
  test.equal(of([0x80, 1, 0, 33 << 2, ...new Array(33).fill(0)]), 'OUT_OF_RANGE', 'a child longer than a hash');
  test.equal(of([0x40, 0x04, 7, 7]), 'TRAILING_BYTES');
  test.equal(of([0x7f, ...new Array(300).fill(255)]), 'NON_CANONICAL', 'a partial key without end');
  test.equal(of([0x40, 0x02, 0, 0, 0x40]), 'UNEXPECTED_END', 'a length without bytes');
  const bad = Uint8Array.of(0x80, 0, 0);
  test.equal(
    codeOf(() => verifyProof(blake2_256, blake2_256(bad), [bad], [utf8('x')])),
    'MALFORMED',
  );

  // A chain of nodes that each hold one nibble: deeper than any key, and deeper than a stack.
  let node: Uint8Array = Uint8Array.of(0x40, 0x04, 1);
  const chain = [node];
  for (let depth = 0; depth < 50_000; depth++) {
    const merkle = node.length < 32 ? node : blake2_256(node);
    node = concatBytes(Uint8Array.of(0x80, 1, 0, merkle.length << 2), merkle);
    chain.push(node);
  }
  const { trie, root } = provenTrie(blake2_256, blake2_256(node), chain);
  test.equal(
    codeOf(() => trie.nextKey(root, new Uint8Array())),
    'MALFORMED',
    'a reader of it comes to an end',
  );
  test.equal(
    codeOf(() => trie.get(root, new Uint8Array(20_000))),
    'MALFORMED',
  );
  test.equal(
    codeOf(() => trie.closestDescendant(root, new Uint8Array(20_000))),
    'MALFORMED',
  );
});
