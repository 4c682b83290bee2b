import { test } from 'tap';
import {
  CONTRIBUTION_SEED,
  minHash,
  SKETCH_SIZE,
  sameMinima,
  sketchCommitment,
} from '../../../runtime/primitives/attribution/minhash.ts';
import {
  batchManifest,
  canonicalJson,
  contributorsOf,
  parseRecord,
  parseRecords,
  proveRecord,
  recordLine,
  recordText,
  splitLines,
  verifyRecord,
} from '../../../runtime/primitives/attribution/records.ts';
import { jaccard, shingles } from '../../../runtime/primitives/attribution/shingles.ts';
import { concatBytes, toHex, utf8 } from '../../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../../runtime/primitives/scale/codec.ts';
import { hashing, random, someHash, world } from './world.ts';

test('record lines', async (t) => {
  const line = recordLine({ text: 'a\n"b" é', n: 3, nested: { z: [1, null, true], a: 'x' } });
  t.equal(new TextDecoder().decode(line), '{"n":3,"nested":{"a":"x","z":[1,null,true]},"text":"a\\n\\"b\\" é"}');
  t.equal(recordText(parseRecord(line)), 'x\na\n"b" é');
  const blob = concatBytes(line, utf8('\n{"a":"b"}\n'));
  t.same(parseRecords(blob)[1], { a: 'b' });
  t.same(splitLines(new Uint8Array()), []);
  const bad: [string, number, string][] = [
    ['{"a":1}\n\n', 2, 'RECORD_EMPTY'],
    ['{"a":1}\n{"a":\n', 2, 'RECORD_NOT_JSON'],
    ['{"a":1}\n{"a":1}\n[1]\n', 3, 'RECORD_NOT_OBJECT'],
    ['{"b":1,"a":1}\n', 1, 'RECORD_NOT_CANONICAL'],
    ['{"a":1,"a":2}\n', 1, 'RECORD_NOT_CANONICAL'],
    ['{"a": 1}\n', 1, 'RECORD_NOT_CANONICAL'],
    ['{"a":1}\r\n', 1, 'RECORD_NOT_CANONICAL'],
    ['{"a":1}', 1, 'RECORDS_UNTERMINATED'],
    [`{"a":"${'x'.repeat(70_000)}"}\n`, 1, 'RECORD_TOO_LONG'],
    [`{"a":${'['.repeat(20)}${']'.repeat(20)}}\n`, 1, 'RECORD_TOO_DEEP'],
  ];
  for (const [source, at, code] of bad)
    t.throws(() => parseRecords(utf8(source)), { code, line: at }, `${code} in line ${at}`);
  t.throws(() => parseRecord(utf8('['.repeat(60_000)), 4), /line 4/, 'deep nesting is an error, not an overflow');
  t.throws(() => parseRecord(Uint8Array.of(0x7b, 0xff, 0x7d)), { code: 'RECORD_NOT_UTF8' });
  t.equal(canonicalJson({ '\u{1F600}': 1, '\uFFFD': 2 }), '{"\u{1F600}":1,"\uFFFD":2}', 'keys sort by UTF-16 units');
});

test('snapshots', async (t) => {
  const { ranges, batches, rows, training, accounts } = world(31);
  const root = training.snapshot.root;
  for (let index = 0; index < rows.length; index += 7) {
    const at = ranges.findIndex((range) => index >= range.first && index < range.first + range.count);
    const proof = proveRecord(hashing, ranges, at, batches[at]!, index);
    const leaf = rows[index]!.record;
    t.ok(verifyRecord(hashing, root, ranges.length, index, leaf, proof));
    t.notOk(verifyRecord(hashing, root, ranges.length, index + 1, leaf, proof));
    t.notOk(verifyRecord(hashing, root, ranges.length, index, someHash('x'), proof));
    t.notOk(
      verifyRecord(hashing, root, ranges.length, index, leaf, {
        ...proof,
        range: { ...proof.range, contributor: accounts[(at + 1) % 5]! },
      }),
    );
    t.notOk(
      verifyRecord(hashing, root, ranges.length, index, leaf, {
        ...proof,
        range: { ...proof.range, first: proof.range.first - 1 },
      }),
    );
  }
  t.same(contributorsOf(ranges).map(toHex), accounts.map(toHex).sort());
  const manifest = {
    datanet: 1 as never,
    contributor: accounts[0]!,
    blob: someHash('blob'),
    bytes: 5n,
    records: 1,
    root,
    sketches: sketchCommitment(hashing, [minHash(['a'])]),
  };
  t.same(decode(batchManifest, encode(batchManifest, manifest)), manifest);
});

test('shingles and their overlap', async (t) => {
  const of = (source: string) => [...shingles(utf8(source))];
  t.same(of('The quick, brown fox JUMPS over'), ['the quick brown fox jumps', 'quick brown fox jumps over']);
  t.same(of('one two'), ['one two'], 'a short text is one shingle');
  t.same(of(' -- '), ['']);
  t.equal(of('é é é é é')[0]!.length, 14, 'bytes beyond ASCII are of words, as bytes');
  const a = shingles(utf8('a b c d e f g h'));
  const b = shingles(utf8('A b, c d e f g x'));
  t.equal(jaccard(a, b), Math.floor((3 * 65_536) / 5));
  t.equal(jaccard(a, a), 65_536);
  t.equal(jaccard(shingles(utf8('')), shingles(utf8('!'))), 65_536, 'two texts without words are the same');
});

test('MinHash estimates the exact overlap', async (t) => {
  const rng = random(5);
  const bias: number[] = [];
  const misses: number[] = [];
  let met = 0;
  let expected = 0;
  for (let run = 0; run < 400; run++) {
    const shared = Array.from({ length: 20 + rng.below(80) }, () => `s${rng.below(1e9)}`);
    const own = (name: string) => Array.from({ length: rng.below(60) }, () => `${name}${rng.below(1e9)}`);
    const a = new Set([...shared, ...own('a')]);
    const b = new Set([...shared, ...own('b')]);
    const exact = jaccard(a, b) / 65_536;
    const seed = rng.below(2 ** 32);
    const [x, y] = [minHash(a, seed), minHash(b, seed)];
    const estimate = sameMinima(x, y) / SKETCH_SIZE;
    bias.push(estimate - exact);
    misses.push((estimate - exact) ** 2 / ((exact * (1 - exact)) / SKETCH_SIZE || 1));
    for (let band = 0; band < 32; band++) if ([0, 1, 2, 3].every((i) => x[4 * band + i] === y[4 * band + i])) met++;
    expected += 32 * exact ** 4;
  }
  const mean = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
  // 128 independent minima: variance J(1 − J)/128 a pair.
  t.ok(Math.abs(mean(bias)) < 0.006, `bias ${mean(bias)}`);
  t.ok(Math.abs(mean(misses) - 1) < 0.25, `variance against theory ${mean(misses)}`);
  t.ok(Math.abs(met / expected - 1) < 0.08, `bands met ${met}, expected ${expected}`);
  t.same(minHash(['x', 'y']), minHash(['y', 'x']), 'order does not matter');
  t.notSame(minHash(['x'], 1), minHash(['x'], CONTRIBUTION_SEED));
});
