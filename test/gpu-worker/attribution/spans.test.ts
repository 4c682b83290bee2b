import { test } from 'tap';
import { NoveltyIndex } from '../../../gpu-worker/attribution/novelty.ts';
import { suffixArray, suffixIndex } from '../../../gpu-worker/attribution/suffix-index.ts';
import { MAX_MATCHES, MAX_SPAN_TOKENS, MAX_SPANS } from '../../../runtime/primitives/attribution/limits.ts';
import { jaccard, shingles } from '../../../runtime/primitives/attribution/shingles.ts';
import { inverseFrequency, spansFault } from '../../../runtime/primitives/attribution/spans.ts';
import { utf8 } from '../../../runtime/primitives/bytes.ts';
import { random } from '../../runtime/attribution/world.ts';

/** Longest match at every position by looking everywhere; then those that no longer match contains. */
function bruteForce(records: readonly number[][], output: readonly number[]) {
  const holds = (record: readonly number[], run: readonly number[]): number => {
    for (let at = 0; at + run.length <= record.length; at++)
      if (run.every((token, i) => record[at + i] === token)) return at;
    return -1;
  };
  const found: { start: number; length: number; matches: { record: number; offset: number }[] }[] = [];
  let end = 0;
  for (let start = 0; start < output.length; start++) {
    let length = 0;
    while (
      start + length < output.length &&
      length < MAX_SPAN_TOKENS &&
      records.some((record) => holds(record, output.slice(start, start + length + 1)) >= 0)
    )
      length++;
    if (length < 3 || start + length <= end) continue;
    end = start + length;
    const run = output.slice(start, end);
    const matches = records
      .map((record, i) => ({ record: i, offset: holds(record, run) }))
      .filter(({ offset }) => offset >= 0);
    found.push({ start, length, matches });
  }
  return found;
}

test('suffix arrays', async (t) => {
  const rng = random(1);
  for (const [n, alphabet] of [
    [0, 2],
    [1, 2],
    [200, 2],
    [500, 5],
    [400, 300],
  ] as const) {
    const text = Int32Array.from({ length: n }, () => rng.below(alphabet));
    const order = suffixArray(text, alphabet);
    t.equal(new Set(order).size, n);
    const suffix = (at: number) => [...text.subarray(at, at + MAX_SPAN_TOKENS)];
    const inOrder = order.every((at, i) => {
      if (i === 0) return true;
      const [a, b] = [suffix(order[i - 1]!), suffix(at)];
      const place = a.findIndex((symbol, j) => symbol !== b[j]);
      return place < 0 || b[place] === undefined ? place < 0 && a.length <= b.length : a[place]! < b[place]!;
    });
    t.ok(inOrder, `${n} symbols of ${alphabet}`);
  }
});

test('spans', async (t) => {
  await t.test('as brute force finds them', async (t) => {
    const rng = random(2);
    for (let run = 0; run < 60; run++) {
      const alphabet = 2 + rng.below(30);
      const records = Array.from({ length: 1 + rng.below(25) }, () =>
        Array.from({ length: rng.below(40) }, () => rng.below(alphabet)),
      );
      const output = Array.from({ length: rng.below(40) }, () => rng.below(alphabet + 1));
      if (run % 3 === 0) output.push(...records[0]!, ...records.at(-1)!.slice(2));
      const index = suffixIndex(records, alphabet + 1);
      const weight = (at: number, length: number): number =>
        output.slice(at, at + length).reduce((sum, token) => {
          const frequency = records.filter((record) => record.includes(token)).length;
          return sum + inverseFrequency(records.length, frequency);
        }, 0);
      const wanted = bruteForce(records, output)
        .map((span) => ({ ...span, mass: weight(span.start, span.length) }))
        .filter(({ mass }) => mass > 0);
      t.same(index.maximalSpans(output), wanted);
      const chosen = index.spans(output);
      t.ok(chosen.length <= MAX_SPANS && chosen.every((span) => span.matches.length <= MAX_MATCHES));
      const lightest = Math.min(...chosen.map(({ mass }) => mass));
      const left = wanted.filter((span) => !chosen.some(({ start }) => start === span.start));
      t.ok(
        left.every(({ mass }) => mass <= lightest),
        'the heaviest are kept',
      );
      const list = chosen.map((span) => ({
        ...span,
        matches: span.matches.map((match) => ({ ...match, share: 0, novelty: 1 })),
      }));
      t.equal(spansFault(list, output.length, 1), undefined, 'a receipt takes them');
    }
  });
  await t.test('a long copy is cut into pieces', async (t) => {
    const record = Array.from({ length: 300 }, (_, i) => i);
    const filler = Array.from({ length: 9 }, () => [400]);
    const spans = suffixIndex([...filler, record], 401).spans(record);
    t.same(
      spans.map(({ start, length }) => [start, length]),
      [
        [0, 64],
        [64, 64],
        [128, 64],
        [192, 64],
        [256, 44],
      ],
    );
  });
  await t.test('matches never run over the end of a record', async (t) => {
    t.same(suffixIndex([[1, 2], [3, 4], [5]], 9).spans([1, 2, 3, 4]), []);
    t.throws(() => suffixIndex([[1], [9]], 9), { code: 'BAD_TOKEN' });
    t.same(suffixIndex([], 9).spans([1, 2, 3]), []);
    t.same(
      suffixIndex([[1, 2, 3], [7]], 9)
        .spans([7, 8, 1, 2, 3, -1, 99])
        .map(({ start, length }) => [start, length]),
      [[2, 3]],
    );
  });
  await t.test('a million tokens are indexed in seconds, an answer searched in milliseconds', async (t) => {
    const rng = random(3);
    const records = Array.from({ length: 5000 }, () =>
      Int32Array.from({ length: 200 }, () => Math.floor(2000 * rng.next() ** 3)),
    );
    const start = performance.now();
    const index = suffixIndex(records, 2000);
    const built = performance.now() - start;
    const output = Array.from({ length: 96 }, (_, i) => records[i]![i]!);
    const search = (): number => {
      const before = performance.now();
      index.spans(output);
      return performance.now() - before;
    };
    const searched = Math.min(...Array.from({ length: 5 }, search));
    t.ok(built < 20_000, `built in ${Math.round(built)} ms`);
    t.ok(searched < 100, `searched in ${searched.toFixed(1)} ms`);
  });
});

test('novelty', async (t) => {
  const rng = random(7);
  const texts: string[] = [];
  const words = () => Array.from({ length: 40 }, () => `w${rng.below(5000)}`);
  for (let i = 0; i < 300; i++) {
    const base = i % 3 === 2 ? texts[rng.below(texts.length)]!.split(' ') : words();
    const changes = i % 3 === 2 ? rng.below(3) : 0;
    for (let c = 0; c < changes; c++) base[rng.below(base.length)] = `x${rng.below(5000)}`;
    texts.push(base.join(' '));
  }
  const bytes = texts.map(utf8);
  const sets = bytes.map(shingles);
  const index = new NoveltyIndex(123, 0.5 * 65_536, (record) => bytes[record]!);
  let copies = 0;
  for (const [i, text] of bytes.entries()) {
    const { novelty, nearest } = index.add(text);
    let best = 0;
    for (let j = 0; j < i; j++) best = Math.max(best, jaccard(sets[i]!, sets[j]!));
    if (best >= 0.8 * 65_536) copies++;
    // Above .8 nothing may be missed; between the threshold and .8 MinHash may.
    if (best >= 0.8 * 65_536 || best < 0.5 * 65_536) t.equal(novelty, 65_536 - (best >= 0.5 * 65_536 ? best : 0));
    if (nearest !== i)
      t.equal(novelty, 65_536 - jaccard(sets[i]!, sets[nearest]!), 'what it names is what it measured');
    else t.equal(novelty, 65_536);
  }
  t.ok(copies > 20);
  t.equal(index.length, 300);
});
