import { test } from 'tap';
import { creditNovelty, NoveltyIndex } from '../../../gpu-worker/attribution/novelty.ts';
import { quantise } from '../../../gpu-worker/attribution/quantise.ts';
import { type FeatureRow, rowFault } from '../../../runtime/primitives/attribution/features.ts';
import { NOVELTY_ONE } from '../../../runtime/primitives/attribution/limits.ts';
import {
  cosineRange,
  noveltyHolds,
  overlapOfCosine,
  recordOverlap,
  rowCosine,
} from '../../../runtime/primitives/attribution/novelty.ts';
import { parseRecord, recordLine, recordText } from '../../../runtime/primitives/attribution/records.ts';
import { utf8 } from '../../../runtime/primitives/bytes.ts';
import { account, random, someHash } from '../../runtime/attribution/world.ts';
import { normal } from './synthetic.ts';

const FLOOR = 52_429;

test('credit by texts and rows together is what every challenge allows, and no more', async (t) => {
  const k = 160;
  const next = normal(5);
  const rng = random(6);
  const words = (): string[] => Array.from({ length: 14 }, () => `w${rng.below(900)}`);
  const texts: string[][] = [];
  const vectors: Float64Array[] = [];
  for (let i = 0; i < 203; i++) {
    const earlier = rng.below(Math.max(1, i));
    const own = Float64Array.from({ length: k }, () => next());
    // By turns: new; the same text, another direction; another text, nearly the same direction; nothing at all.
    const kind = i < 5 ? 0 : i % 5;
    texts.push(kind === 1 ? texts[earlier]!.with(rng.below(14), 'other') : words());
    const near = rng.next() * 2;
    if (kind === 2) vectors.push(own.map((value, j) => vectors[earlier]![j]! + near * value));
    else vectors.push(kind === 3 ? new Float64Array(k) : own);
  }
  const lines = texts.map((text, n) => recordLine({ n, text: text.join(' ') }));
  const bytes = lines.map((line) => utf8(recordText({ ...parseRecord(line) })));
  const index = new NoveltyIndex(1, NOVELTY_ONE / 2, (at) => bytes[at]!);
  const byText = bytes.map((text) => index.add(text));
  const quantised = vectors.map(quantise);
  const credited = await creditNovelty(quantised, byText, bytes);
  const rows: FeatureRow[] = quantised.map((row, at) => ({
    ...{ index: at, record: someHash(`${at}`), tokens: someHash('t'), contributor: account(1) },
    ...credited[at]!,
    ...row,
  }));
  let [partly, never] = [0, 0];
  for (const [i, row] of rows.entries()) {
    t.equal(rowFault(row, i, k), undefined);
    if (row.novelty > 0 && row.novelty < NOVELTY_ONE) partly++;
    if (row.novelty === 0) never++;
    t.ok(row.novelty <= byText[i]!.novelty, 'rows only ever take credit away');
    for (let j = 0; j < i; j++) {
      const shared = recordOverlap(lines[i]!, lines[j]!);
      if (!noveltyHolds(row, rows[j]!, rows.length, shared, FLOOR)) t.fail(`row ${i} against ${j}`);
      // One unit more is refuted by the neighbour that it names.
      const more = { ...row, novelty: row.novelty + 1 };
      if (j === row.nearest && noveltyHolds(more, rows[j]!, rows.length, shared, FLOOR))
        t.fail(`row ${i} could have more`);
    }
  }
  t.ok(partly > 20 && never > 5, `${partly} partly, ${never} not at all`);
  const aborted = AbortSignal.abort();
  await t.rejects(creditNovelty(quantised, byText, bytes, aborted), { name: 'AbortError' });
  t.same(await creditNovelty([], [], []), []);
});

test('cosines of rows are those of their vectors', async (t) => {
  const next = normal(8);
  for (let i = 0; i < 50; i++) {
    const a = Float64Array.from({ length: 256 }, () => next());
    const b = a.map((value) => value + (i / 10) * next());
    const dot = (x: Float64Array, y: Float64Array) => x.reduce((sum, value, j) => sum + value * y[j]!, 0);
    const exact = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
    const found = rowCosine(quantise(a), quantise(b)) / NOVELTY_ONE;
    t.ok(Math.abs(found - Math.max(0, exact)) < 0.01, `${found} for ${exact}`);
  }
  const range = cosineRange(64, 64);
  t.same(range, { free: 13_107, copy: 16_384 }, 'a fifth and a quarter');
  t.same(cosineRange(256, 64), range, 'no wider than there are rows');
  t.same(cosineRange(32, 64), { free: 52_429, copy: 53_248 });
  t.same(cosineRange(1, 1 << 20), { free: NOVELTY_ONE, copy: NOVELTY_ONE });
  t.equal(overlapOfCosine(range.free, range), 0);
  t.equal(overlapOfCosine(range.copy, range), NOVELTY_ONE);
  t.equal(overlapOfCosine((range.free + range.copy) / 2, range), NOVELTY_ONE / 2);
});
