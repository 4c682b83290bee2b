/**
 * What attribution adds to answers of 96 tokens, with the base model that comes along and an adapter of WordNet's glosses:
 *
 *     npm run bench -- attribution-share
 *     node test/bench/attribution/share.ts [--engine embedded|torch] [--layers N] [--stride M] [--batch 8] [--adapters 2] …
 *
 * One request at a time: generation is the time from the request to the last token; attribution is all that comes after it
 * (gradient, feature, influence, spans, shares) up to the unsigned receipt, and its parts. Saturated: the processor time of
 * four batches of answers by several adapters, with attribution and without it; other programs do not count in it. On a GPU
 * (`--device cuda --base DIR`) it is the time by the clock.
 * `--width 768 --depth 12` takes a base of that size with random weights: its arithmetic and memory are to each other more
 * like on a GPU than those of a model that fits into a cache.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { readEigenbases, readProjection } from '../../../gpu-worker/attribution/basis-files.ts';
import { featureExtractor } from '../../../gpu-worker/attribution/extractor.ts';
import type { EngineChoice } from '../../../gpu-worker/engines/choice.ts';
import { chooseEngine } from '../../../gpu-worker/engines/choose.ts';
import { openFeatures } from '../../../gpu-worker/engines/features.ts';
import { TorchEngine } from '../../../gpu-worker/engines/torch/engine.ts';
import { readWordnet } from '../../../gpu-worker/models/pretrain/wordnet.ts';
import { trainingConfigOf } from '../../../rpc/client/training-config.ts';
import { recordLine } from '../../../runtime/primitives/attribution/records.ts';
import { attributedLayer } from '../../../runtime/primitives/attribution/training.ts';
import {
  ASSIGNMENT,
  account,
  answer,
  CONFIG,
  GLOSSA,
  materialOf,
  open,
  request,
  train,
} from '../../gpu-worker/order.ts';
import { writeRandomBase } from '../support/random-base.ts';
import { report } from '../support/report.ts';

const { values } = parseArgs({
  options: {
    engine: { type: 'string', default: 'embedded' },
    records: { type: 'string', default: '400' },
    answers: { type: 'string', default: '12' },
    batch: { type: 'string', default: '8' },
    threads: { type: 'string', default: '1' },
    /** Of saturated batches, the median of which counts. */
    rounds: { type: 'string', default: '3' },
    /** Open at a time in saturated batches: copies of the one that was trained. */
    adapters: { type: 'string', default: '2' },
    /** What the order says: how many of the last layers carry attribution (0: all), one in how many tokens bears the loss. */
    layers: { type: 'string', default: '0' },
    stride: { type: 'string', default: '1' },
    /** A base model's directory, whose tokenizer is glossa's. */
    base: { type: 'string' },
    device: { type: 'string' },
    width: { type: 'string' },
    depth: { type: 'string', default: '12' },
    /** Default: what an order gets that names none. */
    buckets: { type: 'string', default: String(trainingConfigOf({}).sketchWidth) },
  },
});
const TOKENS = 96;
const [wanted, batch] = [Number(values.answers), Number(values.batch)];

const records = readWordnet()
  .filter(({ subject, words, definition }) => subject === 'noun.food' && words[0] !== undefined && definition !== '')
  .slice(0, Number(values.records))
  .map(({ words, definition }, i) => ({
    line: recordLine({ prompt: `What is ${words[0]}?`, response: definition }),
    contributor: account(`Contributor ${i % 12}`),
  }));
const device = values.device === undefined ? {} : { device: values.device };
const { engine } = await chooseEngine(values.engine as EngineChoice, { threads: Number(values.threads), ...device });
const scratch = mkdtempSync(join(tmpdir(), 'share-'));
process.once('exit', () => rmSync(scratch, { recursive: true, force: true }));
if (values.width !== undefined) writeRandomBase(scratch, Number(values.width), Number(values.depth));
const model = await engine.load(values.base ?? (values.width === undefined ? GLOSSA : scratch), {
  serving: { batch, queue: 8 * batch },
});
const child = engine instanceof TorchEngine ? engine.processOf(model) : undefined;
const config = {
  ...CONFIG,
  ...{ rank: 8, alpha: 16, targets: 0x7f, k: 256, sketchWidth: Number(values.buckets), projectionRows: 1024 },
  ...{ attributionLayers: Number(values.layers), attributionStride: Number(values.stride) },
};
const from = performance.now();
const trained = await train(model, {
  config,
  records,
  snapshot: { ...ASSIGNMENT.snapshot, count: records.length },
});
const trainedMs = performance.now() - from;
const material = { ...materialOf(trained, config), lines: records.map(({ line }) => line) };
const copies = await Promise.all(Array.from({ length: Number(values.adapters) }, () => open(model, material)));
const [served] = copies as [(typeof copies)[number]];

/** What batches take, in ms: of both processors' time on the CPU; by the clock where a GPU works and processors wait for it. */
const unit = values.device === undefined || values.device === 'cpu' ? 'CPU ms' : 'ms';
function timeTaken(): number {
  if (unit === 'ms') return performance.now();
  const { user, system } = process.cpuUsage();
  const own = (user + system) / 1_000;
  if (child === undefined) return own;
  // proc(5): fields 14 and 15, in hundredths of a second.
  const fields = readFileSync(`/proc/${child}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
  return own + 10 * (Number(fields[11]) + Number(fields[12]));
}
const median = (list: readonly number[]): number =>
  list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)] ?? Number.NaN;
const question = (n: number): string => `<|begin|><|user|>Tell me about food number ${n}.<|assistant|>`;
const asked = (n: number) =>
  request(BigInt(n), {
    input: { type: 'Text', value: question(n) },
    maxTokens: TOKENS,
    temperature: 1_200_000_000,
    seed: BigInt(n),
  });

// Requests whose answers are whole: others end early, which says nothing of answers of this length.
const whole: number[] = [];
for (let n = 1; whole.length < Math.max(wanted, 4 * batch) && n < 4_000; n += batch) {
  const some = Array.from({ length: batch }, (_, i) => n + i);
  const made = await Promise.all(some.map((each) => served.generate(asked(each))));
  whole.push(...some.filter((_, i) => made[i]!.tokens.length === TOKENS));
}

const taken: { readonly generationMs: number; readonly attributionMs: number }[] = [];
for (const n of whole.slice(0, wanted)) {
  const { generationMs, attributionMs } = await answer(served, asked(n));
  taken.push({ generationMs, attributionMs });
}

// The parts, for the last answer's length: all layers, and the last quarter of them.
const { layout, eigenbases } = readEigenbases(material.eigenbases);
const { basis } = trained.receipt;
const bases = {
  ...{ layout, eigenbases, projection: readProjection(material.projection) },
  ...{ sketchSeed: basis.sketchSeed, rotationSeed: basis.rotationSeed },
};
const extractor = featureExtractor(bases);
const source = await openFeatures(model, bases);
const checkpoint = await model.openAdapter({ config: material.adapterConfig, weights: material.checkpoint });
const tokens = model.tokenizer.encode(question(whole[0]!));
const made = await served.generate(asked(whole[0]!));
const example = { tokens: [...tokens, ...made.tokens], from: tokens.length };
/** From the first of the last quarter of layers on; with one in four tokens; as it was ordered. */
const quarter = { fromLayer: model.info.layers - Math.ceil(model.info.layers / 4) };
const ordered = { fromLayer: attributedLayer(config, model.info.layers), stride: config.attributionStride };
const SCOPES = { gradient: ordered, whole: {}, quarter, thin: { ...quarter, stride: 4 } } as const;
const parts: Record<keyof typeof SCOPES | 'feature' | 'both', number[]> = {
  ...{ gradient: [], whole: [], quarter: [], thin: [], feature: [], both: [] },
};
const timed = async (into: number[], body: () => Promise<void> | void): Promise<void> => {
  const began = performance.now();
  await body();
  into.push(performance.now() - began);
};
for (let i = 0; i <= wanted; i++) {
  let gradient = new Float32Array();
  for (const [name, scope] of Object.entries(SCOPES) as [keyof typeof SCOPES, object][]) {
    await timed(parts[name], async () => {
      for await (const each of model.gradients([example], checkpoint, scope)) {
        if (name === 'gradient') gradient = each.gradient as typeof gradient;
      }
    });
  }
  await timed(parts.feature, () => void extractor.feature(gradient));
  await timed(parts.both, async () => {
    for await (const _ of source.features([example], checkpoint, ordered));
  });
}
await source.close();
await checkpoint.close();

const saturated: Record<'with' | 'without', number[]> = { with: [], without: [] };
const many = whole.slice(0, 4 * batch);
for (let round = 0; round < Number(values.rounds); round++) {
  for (const kind of ['without', 'with'] as const) {
    const began = timeTaken();
    const by = (i: number) => copies[i % copies.length]!;
    await Promise.all(many.map((n, i) => (kind === 'with' ? answer(by(i), asked(n)) : by(i).generate(asked(n)))));
    saturated[kind].push((timeTaken() - began) / many.length);
  }
}
for (const each of copies) await each.close();
await engine.close();

// The first one warms caches and compiled code up.
const measured = taken.slice(1);
const share = median(measured.map(({ generationMs, attributionMs }) => (100 * attributionMs) / generationMs));
const busy = median(saturated.with.map((each, i) => (100 * (each - saturated.without[i]!)) / each));
await report(
  values.engine === 'embedded' ? 'attribution-share' : `attribution-share-${values.engine}`,
  [
    { what: `generation of ${TOKENS} tokens`, value: median(measured.map((each) => each.generationMs)), unit: 'ms' },
    { what: 'attribution of the answer', value: median(measured.map((each) => each.attributionMs)), unit: 'ms' },
    { what: '  of which gradient and feature', value: median(parts.both.slice(1)), unit: 'ms' },
    { what: '  the gradient by itself, as it crosses', value: median(parts.gradient.slice(1)), unit: 'ms' },
    { what: '  the feature made of it here', value: median(parts.feature.slice(1)), unit: 'ms' },
    { what: '  the gradient of all layers', value: median(parts.whole.slice(1)), unit: 'ms' },
    { what: '  that of the last quarter of them', value: median(parts.quarter.slice(1)), unit: 'ms' },
    { what: '  that of the quarter by one token in four', value: median(parts.thin.slice(1)), unit: 'ms' },
    {
      what: 'attribution on top of generation',
      value: share,
      unit: '%',
      bar: ['<=', values.engine === 'torch' ? 5 : 10],
    },
    { what: `answer in batches of ${batch}, attribution left out`, value: median(saturated.without), unit },
    { what: `answer in batches of ${batch}`, value: median(saturated.with), unit },
    { what: `training and features of ${records.length} records`, value: trainedMs / 1_000, unit: 's' },
    { what: 'attribution’s part of saturated batches', value: busy, unit: '%', bar: ['<=', 15] },
  ],
  { measured, parts, saturated },
);
