/**
 * Attribution quality: the protocol of docs/measurements/attribution-protocol.md on the embedded engine.
 *
 *     npm run bench:attribution -- [--seeds 1,2,3] [--quick] [--fresh] [--options]
 *
 * Prints a table and what a copier and a noise maker would earn, and writes both to bench-results/attribution.json. Each
 * retraining is kept as it comes in bench-results/attribution/seed-N.jsonl, so that a run can be broken off and goes on
 * where it was; `--fresh` begins anew, and so does any change of records, settings, model or engine's answers. `--quick` is
 * one small seed with few retrainings, of which nothing is kept: a check of the path, not of the figures. `--options` looks at
 * what orders may choose instead (`options.ts`), and writes bench-results/attribution-options.json.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { embeddedEngine } from '../../../gpu-worker/engines/embedded/engine.ts';
import { type CorpusSize, corpus } from './data.ts';
import { type Evaluation, evaluate, type Result } from './evaluation.ts';
import { type LabSettings, type Material, MODEL, prepare, type Retraining, release, retrainings } from './lab.ts';
import { mean } from './metrics.ts';
import { options } from './options.ts';

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

interface RunOptions {
  /** Where retrainings are kept. */
  readonly file?: string;
  readonly report?: (done: number, total: number) => void;
}

/** One seed from records to table. */
export const run = (seed: bigint, protocol: Protocol, options: RunOptions & { readonly few?: boolean } = {}) =>
  looked(seed, protocol, options, (material, truth) => evaluate(material, truth, seed, options.few));

async function looked<T>(
  seed: bigint,
  { size, lab }: Protocol,
  options: RunOptions,
  look: (material: Material, truth: readonly Retraining[]) => Promise<T>,
): Promise<T> {
  const engine = await embeddedEngine();
  try {
    const model = await engine.load(MODEL);
    const material = await prepare(model, corpus(seed, size), lab, seed);
    const truth = await retrainings(material, lab, seed, options);
    const evaluation = await look(material, truth);
    await release(material);
    return evaluation;
  } finally {
    await engine.close();
  }
}

/** Mean over seeds of every figure of every method. */
export function averaged(all: readonly (readonly Result[])[]): Result[] {
  return all[0]!.map((first, at) => {
    const of = (key: Exclude<keyof Result, 'method'>): number => mean(all.map((results) => results[at]![key]));
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
      options: { type: 'boolean', default: false },
    },
  });
  const results = new URL('../../../bench-results/', import.meta.url);
  const protocol = values.quick ? QUICK : FULL;
  const evaluations: Evaluation[] = [];
  const choices: Result[][] = [];
  for (const seed of values.quick ? [1n] : values.seeds.split(',').map(BigInt)) {
    const file = fileURLToPath(new URL(`attribution/seed-${seed}.jsonl`, results));
    if (values.fresh) rmSync(file, { force: true });
    const report = (done: number, total: number): void => {
      process.stderr.write(`seed ${seed}: retraining ${done} of ${total}\n`);
    };
    const kept: RunOptions = values.quick ? { report } : { report, file };
    if (values.options) {
      const told = (each: Result): boolean => process.stderr.write(`seed ${seed}: ${JSON.stringify(each)}\n`);
      choices.push(await looked(seed, protocol, kept, (material, truth) => options(material, truth, seed, told)));
      continue;
    }
    evaluations.push(await run(seed, protocol, kept));
    process.stderr.write(`${JSON.stringify(evaluations.at(-1))}\n`);
  }
  mkdirSync(results, { recursive: true });
  const write = (name: string, value: object): void =>
    writeFileSync(
      new URL(`${name}.json`, results),
      `${JSON.stringify({ bench: name, quick: values.quick, protocol, ...value }, null, 1)}\n`,
    );
  if (values.options) {
    const methods = averaged(choices);
    console.log(table(methods));
    write('attribution-options', { methods });
  } else {
    const methods = averaged(evaluations.map((each) => each.results));
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
    write('attribution', { methods, cheats });
  }
}
