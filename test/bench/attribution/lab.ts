/**
 * The protocol on the embedded engine (docs/measurements/attribution-protocol.md): one adapter on all records with the
 * gradients that attribution starts from, and the truth, which is what happens to a query's loss when the adapter is
 * trained again on a part of the records.
 */
import { createHash } from 'node:crypto';
import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { GradientLayout } from '../../../gpu-worker/attribution/layout.ts';
import { type Novelty, NoveltyIndex } from '../../../gpu-worker/attribution/novelty.ts';
import type { MatrixCovariance } from '../../../gpu-worker/attribution/precondition.ts';
import { seededSample } from '../../../gpu-worker/attribution/seeded.ts';
import { VectorSpool } from '../../../gpu-worker/attribution/spool.ts';
import type {
  Adapter,
  Example,
  LoadedModel,
  LoraSettings,
  ModelTokenizer,
  TrainingOutcome,
  TrainingSettings,
} from '../../../gpu-worker/engines/engine.ts';
import { type RecordExample, recordExample } from '../../../gpu-worker/training/examples.ts';
import { NOVELTY_ONE } from '../../../runtime/primitives/attribution/limits.ts';
import { recordLine } from '../../../runtime/primitives/attribution/records.ts';
import { utf8 } from '../../../runtime/primitives/bytes.ts';
import type { Corpus } from './data.ts';

export const MODEL = fileURLToPath(new URL('../../../gpu-worker/models/glossa-3m', import.meta.url));

export interface LabSettings {
  readonly epochs: number;
  readonly learningRate: number;
  /** Retrainings on random halves of the records, and on random halves of the contributors. */
  readonly halves: number;
  readonly coalitions: number;
  /** Default: rank 8 on all linear maps. */
  readonly lora?: LoraSettings;
}

const LORA: LoraSettings = {
  ...{ rank: 8, alpha: 16 },
  targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
};

export interface Material {
  readonly corpus: Corpus;
  readonly model: LoadedModel;
  readonly examples: readonly RecordExample[];
  readonly lines: readonly Uint8Array[];
  /** By the texts alone, as before training. */
  readonly novelties: readonly Novelty[];
  readonly outcome: TrainingOutcome;
  readonly checkpoint: Adapter;
  /** The held-out questions with their true answers, then the same ones with what the adapter answers. */
  readonly queries: readonly Example[];
  /** What spans are looked for in, a query. */
  readonly outputs: readonly (readonly number[])[];
  readonly layout: GradientLayout;
  readonly rows: VectorSpool;
  readonly queryGradients: VectorSpool;
  readonly covariances: readonly MatrixCovariance[];
}

/** Answers that the adapter gives itself are cut here. */
const ANSWER_TOKENS = 24;
export const DEDUP_THRESHOLD = NOVELTY_ONE / 2;

export const trainingSettings = (
  { epochs, learningRate, lora = LORA }: LabSettings,
  seed: bigint,
): TrainingSettings => ({
  ...{ lora, learningRate, epochs, batch: 8, sequenceLength: 96, warmup: 0.1, seed },
});

/** Records as they are contributed and as the model reads them; novelty by the texts alone, as before training. */
export function readRecords(
  tokenizer: ModelTokenizer,
  { records }: Corpus,
  seed: bigint,
): Pick<Material, 'lines' | 'examples' | 'novelties'> {
  const lines = records.map(({ prompt, response }) => recordLine({ prompt, response }));
  const examples = lines.map((line) => recordExample(tokenizer, line));
  const texts = examples.map(({ text }) => utf8(text));
  const index = new NoveltyIndex(Number(seed), DEDUP_THRESHOLD, (at) => texts[at]!);
  return { lines, examples, novelties: texts.map((text) => index.add(text)) };
}

export async function prepare(
  model: LoadedModel,
  corpus: Corpus,
  settings: LabSettings,
  seed: bigint,
): Promise<Material> {
  const { tokenizer } = model;
  const { lines, examples, novelties } = readRecords(tokenizer, corpus, seed);
  const outcome = await model.train({
    settings: trainingSettings(settings, seed),
    examples: examples.map(({ example }) => example),
    weights: novelties.map(({ novelty }) => novelty / NOVELTY_ONE),
  });
  const final = await model.openAdapter(outcome.adapter);
  const own: Example[] = [];
  for (const { prompt } of corpus.queries) {
    const asked = tokenizer.encode(tokenizer.chat([{ role: 'user', content: prompt }]));
    const { tokens } = await model.generate({
      ...{ adapter: final, prompt: asked, maxTokens: ANSWER_TOKENS, temperature: 0, topP: 1, seed },
    });
    own.push({ tokens: [...asked, ...tokens], from: asked.length });
  }
  await final.close();
  const queries = [...corpus.queries.map(({ prompt, response }) => tokenizer.question(prompt, response)), ...own];
  const spoken = ({ tokens, from }: Example) => tokens.slice(from).filter((id) => !tokenizer.eos.includes(id));
  const checkpoint = await model.openAdapter(outcome.attribution);
  const layout = model.layout(checkpoint.lora);
  const spool = async (of: readonly Example[]): Promise<VectorSpool> => {
    const out = new VectorSpool(layout.size, 2 ** 30);
    for await (const { gradient } of model.gradients(of, checkpoint)) out.append(gradient);
    return out;
  };
  const records = examples.map(({ example }) => example);
  return {
    ...{ corpus, model, examples, lines, novelties, outcome, checkpoint, queries, layout },
    outputs: queries.map(spoken),
    rows: await spool(records),
    queryGradients: await spool(queries),
    covariances: await model.covariances(records, checkpoint),
  };
}

export async function release({ rows, queryGradients, checkpoint }: Material): Promise<void> {
  rows.close();
  queryGradients.close();
  await checkpoint.close();
}

/** One retraining: who was in it, by the record, and what each query then lost. */
export interface Retraining {
  readonly kind: 'half' | 'coalition';
  readonly present: readonly number[];
  readonly losses: readonly number[];
}

/** What is retrained on: random halves of the records, then random halves of the contributors. */
export function subsetsOf(
  { records, contributors }: Corpus,
  { halves, coalitions }: Pick<LabSettings, 'halves' | 'coalitions'>,
  seed: bigint,
): Pick<Retraining, 'kind' | 'present'>[] {
  const count = records.length;
  return [
    ...Array.from({ length: halves }, (_, s) => {
      const present = new Array<number>(count).fill(0);
      for (const i of seededSample(seed * 1000n + BigInt(s), count, count >> 1)) present[i] = 1;
      return { kind: 'half' as const, present };
    }),
    ...Array.from({ length: coalitions }, (_, s) => {
      const chosen = new Set(seededSample(seed * 1000n + 500n + BigInt(s), contributors, contributors >> 1));
      return { kind: 'coalition' as const, present: records.map((r) => (chosen.has(r.contributor) ? 1 : 0)) };
    }),
  ];
}

/**
 * Retrains on parts of the records. With a `file`, each result is appended to it as it comes, and those in it that are of
 * the same protocol (records, queries, settings, model, seed: the digest in its first line) are not computed again.
 */
export async function retrainings(
  material: Material,
  settings: LabSettings,
  seed: bigint,
  { file, report }: { readonly file?: string; readonly report?: (done: number, total: number) => void } = {},
): Promise<Retraining[]> {
  const { corpus, model, examples, novelties, queries } = material;
  const plan = subsetsOf(corpus, settings, seed);
  const head = JSON.stringify({ protocol: digest(material, settings, seed, plan) });
  const done = file === undefined ? [] : resumed(file, head);
  for (const { kind, present } of plan.slice(done.length)) {
    const outcome = await model.train({
      settings: trainingSettings(settings, seed),
      examples: examples.map(({ example }) => example),
      weights: present.map((each, i) => (each * novelties[i]!.novelty) / NOVELTY_ONE),
    });
    const adapter = await model.openAdapter(outcome.adapter);
    const losses = Array.from(await model.losses(queries, adapter));
    await adapter.close();
    done.push({ kind, present, losses });
    if (file !== undefined) appendFileSync(file, `${JSON.stringify(done.at(-1))}\n`);
    report?.(done.length, plan.length);
  }
  return done;
}

function resumed(file: string, head: string): Retraining[] {
  if (existsSync(file)) {
    const [first, ...lines] = readFileSync(file, 'utf8').split('\n');
    // A line without its line feed was being written when the last run ended.
    if (first === head) {
      const whole = lines.slice(0, -1);
      writeFileSync(file, [head, ...whole, ''].join('\n'));
      return whole.map((line) => JSON.parse(line) as Retraining);
    }
  }
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, `${head}\n`);
  return [];
}

function digest({ lines, queries, novelties, model }: Material, settings: LabSettings, seed: bigint, plan: unknown) {
  const hash = createHash('sha256');
  for (const line of lines) hash.update(line).update('\n');
  hash.update(JSON.stringify([queries, novelties.map(({ novelty }) => novelty), model.info.files, settings, plan]));
  return hash.update(String(seed)).digest('hex');
}
