/**
 * How many inference receipts one core checks a second over 10,000 rows of k = 256:
 *
 *     node test/bench/attribution/verify.ts [--rows 10000] [--k 256] [--contributors 12]
 *
 * Three ways to the same integers: over all rows in plain JavaScript, over all rows by the SIMD kernel, and over the
 * contributors' running sums (checked against the rows once an adapter).
 */
import { parseArgs } from 'node:util';
import { rowKernel } from '../../../gpu-worker/attribution/row-kernel.ts';
import { type FeatureTable, featureTable } from '../../../runtime/primitives/attribution/features.ts';
import { contributorSums, runningSums } from '../../../runtime/primitives/attribution/sums.ts';
import {
  attribute,
  attributionModel,
  influenceFault,
  receiptFault,
  verifyInferenceReceipt,
} from '../../../runtime/primitives/attribution/verify.ts';
import { account, random, rules, someHash, unitRow, world } from '../../runtime/attribution/world.ts';
import { type Figure, report } from '../support/report.ts';

const { values: options } = parseArgs({
  options: {
    rows: { type: 'string', default: '10000' },
    k: { type: 'string', default: '256' },
    contributors: { type: 'string', default: '12' },
  },
});
const [rows, k, contributors] = [Number(options.rows), Number(options.k), Number(options.contributors)];

const rng = random(1);
const hash = someHash('x');
const table: FeatureTable = featureTable(
  k,
  Array.from({ length: rows }, (_, index) => ({
    index,
    record: hash,
    tokens: hash,
    contributor: account(rng.below(contributors)),
    novelty: 65_536,
    nearest: index,
    ...unitRow(rng, k),
  })),
);
const start = performance.now();
const sums = contributorSums(k, runningSums(table));
console.log(
  `${rows} rows, k = ${k}, ${contributors} contributors; running sums built in ${Math.round(performance.now() - start)} ms`,
);

// Receipts of a small world, re-attributed over the large table, so that every one is honest.
const small = world(5, { records: 150, contributors: 5, k: 24 });
const model = attributionModel(table, sums);
const receipts = Array.from({ length: 64 }, (_, n) => {
  const { receipt } = small.inference(n);
  const feature = unitRow(rng, k).values;
  const found = receipt.spans.map((span) => ({
    ...span,
    matches: span.matches.map(({ record, offset }) => ({ record, offset })),
  }));
  return { ...receipt, feature, ...attribute(model, model.influence(feature), found, receipt.pool, rules.blend) };
});

/** Receipts a second of wall time and of processor time: others on the machine can disturb the first alone. */
function measure(what: string, each: number, bar: number | undefined, body: () => void): Figure[] {
  body();
  const from = performance.now();
  const used = process.cpuUsage();
  let count = 0;
  while (performance.now() - from < 3000) {
    body();
    count += each;
  }
  const seconds = (performance.now() - from) / 1000;
  const { user, system } = process.cpuUsage(used);
  return [
    { what: `${what}, wall time`, value: count / seconds, unit: 'receipts/s' },
    {
      what: `${what}, processor time`,
      value: count / ((user + system) / 1e6),
      unit: 'receipts/s a core',
      ...(bar !== undefined && { bar: ['>=', bar] as const }),
    },
  ];
}
const expectSound = (fault: string | undefined): void => {
  if (fault !== undefined) throw new Error(fault);
};

let next = 0;
const plain = attributionModel(table);
const figures = measure('all rows, plain', 1, undefined, () =>
  expectSound(verifyInferenceReceipt(receipts[next++ % 64]!, plain, rules)),
);
const kernel = rowKernel(table);
figures.push(
  ...measure('all rows, SIMD, 4 at a time', 64, 2_000, () => {
    const influences = kernel.influence(receipts.map((receipt) => receipt.feature));
    for (const [at, receipt] of receipts.entries()) {
      expectSound(receiptFault(receipt, rules) ?? influenceFault(receipt, model, influences[at]!));
    }
  }),
);
figures.push(
  ...measure('contributor sums, as nodes do it', 1, 2_000, () =>
    expectSound(verifyInferenceReceipt(receipts[next++ % 64]!, model, rules)),
  ),
);
await report('attribution-verify', figures, { rows, k, contributors });
