/**
 * Attribution quality: the reference method's protocol on the embedded engine, retraining as truth.
 *
 *     npm run bench:attribution -- [--seeds 1,2,3] [--quick] [--fresh]
 *
 * Prints a table and what a copier and a noise maker would earn, and writes both to bench-results/attribution.json. Each
 * retraining is kept as it comes in bench-results/attribution/seed-N.jsonl, so that a run can be broken off and goes on
 * where it was; `--fresh` begins anew, and so does any change of records, settings, model or engine's answers. `--quick` is
 * one small seed with few retrainings, of which nothing is kept: a check of the path, not of the figures.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { embeddedEngine } from '../../../gpu-worker/engines/embedded/engine.ts';
import { type CorpusSize, corpus } from './data.ts';
import { type Evaluation, evaluate, type Result } from './evaluation.ts';
import { type LabSettings, MODEL, prepare, release, retrainings } from './lab.ts';
import { mean } from './metrics.ts';

interface Protocol {
  readonly size: CorpusSize;
  readonly lab: LabSettings;
}
export const FULL: Protocol = {
  size: { domains: 8, perContributor: 12, queriesPerDomain: 2 },
  lab: { epochs: 3, learningRate: 2e-3, halves: 20, coalitions: 24 },
};
export const QUICK: Protocol = {
  size: { domains: 3, perContributor: 5, queriesPerDomain: 2 },
  lab: {
    ...{ epochs: 3, learningRate: 4e-3, halves: 0, coalitions: 8 },
    lora: { rank: 4, alpha: 8, targets: ['v_proj', 'o_proj', 'down_proj'] },
  },
};

/** One seed from records to table. `file`: where retrainings are kept. */
export async function run(
  seed: bigint,
  { size, lab }: Protocol,
  options: {
    readonly file?: string;
    readonly report?: (done: number, total: number) => void;
    readonly few?: boolean;
  } = {},
): Promise<Evaluation> {
  const engine = await embeddedEngine();
  try {
    const model = await engine.load(MODEL);
    const material = await prepare(model, corpus(seed, size), lab, seed);
    const truth = await retrainings(material, lab, seed, options);
    const evaluation = await evaluate(material, truth, seed, options.few);
    await release(material);
    return evaluation;
  } finally {
    await engine.close();
  }
}

/** Mean over seeds of every figure of every method. */
export function averaged(all: readonly Evaluation[]): Result[] {
  return all[0]!.results.map((first, at) => {
    const of = (key: Exclude<keyof Result, 'method'>): number => mean(all.map(({ results }) => results[at]![key]));
    return {
      method: first.method,
      ...{ byRecord: of('byRecord'), byContributor: of('byContributor') },
      ...{ ownByRecord: of('ownByRecord'), ownByContributor: of('ownByContributor') },
      ...{ precision: of('precision'), distance: of('distance'), bytes: of('bytes'), queryMs: of('queryMs') },
    };
  });
}

const COLUMNS: readonly (readonly [string, (result: Result) => string])[] = [
  ['method', ({ method }) => method],
  ['LDS, held-out text', ({ byRecord }) => byRecord.toFixed(2)],
  ['by contributor', ({ byContributor }) => byContributor.toFixed(2)],
  ['LDS, own answers', ({ ownByRecord }) => ownByRecord.toFixed(2)],
  ['by contributor', ({ ownByContributor }) => ownByContributor.toFixed(2)],
  ['P@10', ({ precision }) => precision.toFixed(2)],
  ['share distance', ({ distance }) => distance.toFixed(2)],
  ['bytes a record', ({ bytes }) => (Number.isNaN(bytes) ? 'text' : String(Math.round(bytes)))],
  ['ms a query', ({ queryMs }) => queryMs.toFixed(1)],
];

export function table(results: readonly Result[]): string {
  const cells = [COLUMNS.map(([name]) => name), ...results.map((result) => COLUMNS.map(([, show]) => show(result)))];
  const widths = COLUMNS.map((_, c) => Math.max(...cells.map((row) => row[c]!.length)));
  const line = (row: readonly string[]): string => `| ${row.map((cell, c) => cell.padEnd(widths[c]!)).join(' | ')} |`;
  return [
    line(cells[0]!),
    `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`,
    ...cells.slice(1).map(line),
  ].join('\n');
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string', default: '1,2,3' },
      quick: { type: 'boolean', default: false },
      fresh: { type: 'boolean', default: false },
    },
  });
  const results = new URL('../../../bench-results/', import.meta.url);
  const protocol = values.quick ? QUICK : FULL;
  const evaluations: Evaluation[] = [];
  for (const seed of values.quick ? [1n] : values.seeds.split(',').map(BigInt)) {
    const file = fileURLToPath(new URL(`attribution/seed-${seed}.jsonl`, results));
    if (values.fresh) rmSync(file, { force: true });
    const report = (done: number, total: number): void => {
      process.stderr.write(`seed ${seed}: retraining ${done} of ${total}\n`);
    };
    evaluations.push(await run(seed, protocol, values.quick ? { report } : { report, file }));
    process.stderr.write(`${JSON.stringify(evaluations.at(-1))}\n`);
  }
  const methods = averaged(evaluations);
  const cheats = evaluations.map(({ incomes, textOnly, truth }) => ({ ...incomes, textOnly, truth }));
  console.log(table(methods));
  for (const [at, { copier, noise, leastHonest, textOnly, truth }] of cheats.entries()) {
    const percent = (part: number): string => `${(100 * part).toFixed(1)} %`;
    console.log(
      `seed ${at + 1}, of an honest contributor's mean income: copier ${percent(copier)}, noise ${percent(noise)}, ` +
        `the least honest one ${percent(leastHonest)}; novelty by texts alone: copier ${percent(textOnly.copier)}; ` +
        `if retraining set the shares: copier ${percent(truth.copier)}, noise ${percent(truth.noise)}`,
    );
  }
  mkdirSync(results, { recursive: true });
  writeFileSync(
    new URL('attribution.json', results),
    `${JSON.stringify({ bench: 'attribution', quick: values.quick, protocol, methods, cheats }, null, 1)}\n`,
  );
}
