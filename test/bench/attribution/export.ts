/**
 * The protocol's data for a machine without Node: `gpu-worker/engines/torch/bench/lds.py` repeats it there on a larger base.
 *
 *     node test/bench/attribution/export.ts DIRECTORY [--seeds 1,2,3] [--per-contributor 12,24] [--retrainings 64]
 *
 * Writes a file a seed and number of records (`corpus-144-1.json`: records and questions as token ids, what a record weighs, subsets to train again on,
 * span matches of the true answers), and what the base model that comes along was pre-trained on, less prose that is not in the
 * repository (`train.u16`, `test.u16`: token ids, 16 bits, little-endian), with the tokenizer of both.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { embeddedEngine } from '../../../gpu-worker/engines/embedded/engine.ts';
import type { Example, ModelTokenizer } from '../../../gpu-worker/engines/engine.ts';
import { NOVELTY_ONE } from '../../../runtime/primitives/attribution/limits.ts';
import { corpus } from './data.ts';
import { MODEL, readRecords, subsetsOf } from './lab.ts';
import { spanMatch } from './methods.ts';
import { FULL } from './quality.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    seeds: { type: 'string', default: '1,2,3' },
    'per-contributor': { type: 'string', default: '12,24' },
    retrainings: { type: 'string', default: '64' },
  },
});
const [directory] = positionals;
if (directory === undefined) {
  process.stderr.write(
    'usage: node export.ts DIRECTORY [--seeds 1,2,3] [--per-contributor 12,24] [--retrainings 64]\n',
  );
  process.exit(2);
}

/** `retrainings`: of either kind. */
function exported(tokenizer: ModelTokenizer, seed: bigint, perContributor: number, retrainings: number) {
  const data = corpus(seed, { ...FULL.size, perContributor });
  const { examples, novelties } = readRecords(tokenizer, data, seed);
  const plain = ({ tokens, from }: Example) => ({ tokens: [...tokens], from });
  const queries = data.queries.map(({ prompt, response, domain }) => ({
    ...plain(tokenizer.question(prompt, response)),
    asked: tokenizer.encode(tokenizer.chat([{ role: 'user', content: prompt }])),
    domain,
  }));
  const subsets = subsetsOf(data, { halves: retrainings, coalitions: retrainings }, seed);
  const spoken = ({ tokens, from }: Example) => tokens.slice(from).filter((id) => !tokenizer.eos.includes(id));
  const spans = spanMatch(
    examples.map(({ example }) => [...example.tokens]),
    queries.map(spoken),
    tokenizer.vocabulary,
  );
  return {
    seed: String(seed),
    ...{ eos: tokenizer.eos, vocabulary: tokenizer.vocabulary },
    ...{ contributors: data.contributors, copier: data.copier, noise: data.noise },
    records: examples.map(({ example }, i) => ({
      ...plain(example),
      ...{ contributor: data.records[i]!.contributor, domain: data.records[i]!.domain },
      weight: novelties[i]!.novelty / NOVELTY_ONE,
    })),
    queries,
    subsets: subsets.map(({ kind, present }) => ({ kind, records: present.flatMap((each, i) => (each ? [i] : [])) })),
    spans: spans.scores.map((scores) => Array.from(scores, (score) => Number(score.toPrecision(6)))),
  };
}

mkdirSync(directory, { recursive: true });
for (const name of ['tokenizer.json', 'tokenizer_config.json']) copyFileSync(join(MODEL, name), join(directory, name));
const engine = await embeddedEngine();
try {
  const { tokenizer } = await engine.load(MODEL);
  for (const seed of values.seeds.split(',').map(BigInt)) {
    for (const perContributor of values['per-contributor'].split(',').map(Number)) {
      const data = exported(tokenizer, seed, perContributor, Number(values.retrainings));
      writeFileSync(join(directory, `corpus-${data.records.length}-${seed}.json`), `${JSON.stringify(data)}\n`);
    }
  }
} finally {
  await engine.close();
}
const prepare = fileURLToPath(new URL('../../../gpu-worker/models/pretrain/prepare.ts', import.meta.url));
execFileSync(process.execPath, [prepare, directory, directory], { stdio: 'inherit' });
