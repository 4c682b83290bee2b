/**
 * Audits across engines: how far the features of one answer are apart when honest engines make them (embedded, torch in fp32, torch
 * in bf16), against what cheating gives, under the rule of `attribution/audit.ts`; and what attribution adds to an answer's time.
 *
 *     OPENLEDGER_PYTHON=… node test/bench/torch-audit.ts [--answers 120] [--records 96] [--steps 36] [--device auto]
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { AUDIT_TOLERANCE, type AuditResult, compareFeatures } from '../../gpu-worker/attribution/audit.ts';
import type { FeatureBases } from '../../gpu-worker/attribution/extractor.ts';
import type { QuantisedRow } from '../../gpu-worker/attribution/quantise.ts';
import { embeddedEngine } from '../../gpu-worker/engines/embedded/engine.ts';
import { readTensors, writeTensors } from '../../gpu-worker/engines/embedded/safetensors.ts';
import type { AdapterFiles, Example, LoadedModel, LoraSettings } from '../../gpu-worker/engines/engine.ts';
import { fitFeatures, openFeatures } from '../../gpu-worker/engines/features.ts';
import { type TorchEngine, torchEngine } from '../../gpu-worker/engines/torch/engine.ts';
import { findPython } from '../../gpu-worker/engines/torch/python.ts';
import { corpus } from './attribution/data.ts';
import { MODEL } from './attribution/lab.ts';
import { type Figure, report } from './support/report.ts';

const { values } = parseArgs({
  options: {
    answers: { type: 'string', default: '120' },
    records: { type: 'string', default: '96' },
    steps: { type: 'string', default: '36' },
    device: { type: 'string', default: 'auto' },
    threads: { type: 'string' },
  },
});
const answers = Number(values.answers);
const search = await findPython();
if (!search.found) throw new Error(`${search.reason}: ${search.advice}`);
const { program } = search.python;
const scratch = mkdtempSync(join(tmpdir(), 'torch-audit-'));
const engines: { close(): Promise<void> }[] = [];

function torch(dtype: 'fp32' | 'bf16'): TorchEngine {
  const threads = values.threads === undefined ? {} : { threads: Number(values.threads) };
  const engine = torchEngine({ python: program, device: values.device, dtype, scratch, ...threads });
  engines.push(engine);
  return engine;
}

/** The base model as most are published: weights that bf16 holds exactly. */
function inBf16(from: string): string {
  const directory = join(scratch, 'base');
  cpSync(from, directory, { recursive: true });
  const path = join(directory, 'model.safetensors');
  const tensors = [...readTensors(readFileSync(path), 'BAD_TENSORS')].map(([name, { shape, values }]) => {
    const bits = new Uint32Array(values.slice().buffer);
    // To the nearest, ties to even.
    for (const [i, word] of bits.entries()) bits[i] = (word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000;
    return { name, shape, values: new Float32Array(bits.buffer) };
  });
  writeFileSync(path, writeTensors(tensors));
  return directory;
}

/** The linear layers in 4 bits, a scale for each 32 inputs, as a worker would have them that wants to save memory. */
function fourBit(from: string): string {
  const directory = join(scratch, 'four-bit');
  cpSync(from, directory, { recursive: true });
  const path = join(directory, 'model.safetensors');
  const tensors = [...readTensors(readFileSync(path), 'BAD_TENSORS')].map(([name, { shape, values }]) => {
    if (!name.includes('_proj.')) return { name, shape, values };
    const out = values.slice();
    for (let at = 0; at < out.length; at += 32) {
      const group = out.subarray(at, at + 32);
      const scale = group.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 7;
      if (scale > 0) for (const [i, value] of group.entries()) group[i] = Math.round(value / scale) * scale;
    }
    return { name, shape, values: out };
  });
  writeFileSync(path, writeTensors(tensors));
  return directory;
}

async function featuresOf(
  model: LoadedModel,
  bases: FeatureBases,
  files: AdapterFiles,
  examples: readonly Example[],
): Promise<QuantisedRow[]> {
  const adapter = await model.openAdapter(files);
  const source = await openFeatures(model, bases);
  const out: QuantisedRow[] = [];
  for await (const { row } of source.features(examples, adapter)) out.push(row);
  await source.close();
  await adapter.close();
  return out;
}

const quantile = (sorted: readonly number[], part: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? Number.NaN;

/**
 * P(an honest pair is beyond the tolerance), from a normal fit of log(1 − cosine): what was seen is far below, so that the tail
 * has to be extrapolated. A bound by Mills' ratio: φ(z) / z.
 */
function tail(distances: readonly number[], limit: number): number {
  const logs = distances.map((distance) => Math.log(Math.max(distance, 1e-12)));
  const mean = logs.reduce((sum, x) => sum + x, 0) / logs.length;
  const deviation = Math.sqrt(logs.reduce((sum, x) => sum + (x - mean) ** 2, 0) / (logs.length - 1));
  const z = (Math.log(limit) - mean) / Math.max(deviation, 1e-9);
  return z <= 1 ? 1 : Math.exp(-(z * z) / 2) / (z * Math.sqrt(2 * Math.PI));
}

try {
  const embedded = await embeddedEngine();
  engines.push(embedded);
  const base = inBf16(MODEL);
  const reference = await embedded.load(base);
  const { tokenizer } = reference;
  const data = corpus(7n, {
    domains: 4,
    perContributor: Math.ceil(Number(values.records) / 8),
    queriesPerDomain: Math.ceil(answers / 4),
  });
  const examples = data.records.map(({ prompt, response }) => tokenizer.question(prompt, response));
  const lora: LoraSettings = { rank: 8, alpha: 16, targets: ['q_proj', 'v_proj', 'up_proj', 'down_proj'] };
  const settings = {
    ...{ lora, learningRate: 3e-3, epochs: 1, steps: Number(values.steps), batch: 8, sequenceLength: 96, warmup: 0.1 },
    seed: 5n,
  };
  const trained = await reference.train({ settings, examples });
  const { attribution, adapter: final } = trained;
  const opened = await reference.openAdapter(attribution);
  const method = {
    ...{ k: 64, sketchWidth: 16_384, sketchSeed: 1n, rotationSeed: 2n, damping: 0.01, projectionRows: 512 },
  };
  const { bases, rows } = await fitFeatures(reference, examples, opened, method, { block: 32 });

  /** Influence of each contributor, as the receipt has it but for spans, which would only bring shares nearer. */
  const amounts = (feature: Int8Array): bigint[] => {
    const sums = Array<bigint>(data.contributors).fill(0n);
    for (const [i, { scale, values: row }] of rows.entries()) {
      let dot = 0;
      for (let j = 0; j < row.length; j++) dot += row[j]! * feature[j]!;
      sums[data.records[i]!.contributor]! += BigInt(scale) * BigInt(dot);
    }
    return sums.map((sum) => (sum > 0n ? sum : 0n));
  };
  const queries = data.queries.slice(0, answers).map(({ prompt, response }) => tokenizer.question(prompt, response));
  const shortened = queries.map(({ tokens, from }) => ({
    tokens: tokens.slice(0, from + Math.ceil((tokens.length - from) / 2)),
    from,
  }));
  const altered = queries.map(({ tokens, from }) => ({
    from,
    tokens: tokens.map((id, at) => (at >= from && (at - from) % 8 === 3 ? (id + 17) % reference.info.vocabulary : id)),
  }));
  const fp32 = await torch('fp32').load(base);
  const bf16Engine = torch('bf16');
  const bf16 = await bf16Engine.load(base);
  const quantised = await torch('fp32').load(fourBit(base));
  const truth = await featuresOf(reference, bases, attribution, queries);
  const honest = {
    'torch fp32': await featuresOf(fp32, bases, attribution, queries),
    'torch bf16': await featuresOf(bf16, bases, attribution, queries),
  };
  const tampered = truth.map(({ scale, values: feature }, i) => {
    // A tenth of the direction of one contributor's record is added.
    const favoured = rows[data.records.findIndex(({ contributor }) => contributor === i % data.contributors)]!.values;
    return {
      scale,
      values: Int8Array.from(feature, (value, j) =>
        Math.max(-127, Math.min(127, value + Math.round(0.1 * favoured[j]!))),
      ),
    };
  });
  const cheating = {
    'base in 4 bits': await featuresOf(quantised, bases, attribution, queries),
    'another adapter (final for mid-run)': await featuresOf(fp32, bases, final, queries),
    'half the answer': await featuresOf(fp32, bases, attribution, shortened),
    'one token in 8 changed': await featuresOf(fp32, bases, attribution, altered),
    'a tenth of a favoured record added': tampered,
  };
  const audited = (claims: readonly QuantisedRow[], by: readonly QuantisedRow[]): AuditResult[] =>
    claims.map(({ values: claimed }, i) =>
      compareFeatures(
        { values: claimed, amounts: amounts(claimed) },
        { values: by[i]!.values, amounts: amounts(by[i]!.values) },
      ),
    );
  const pairs: [string, AuditResult[]][] = [
    ['embedded by torch fp32', audited(truth, honest['torch fp32'])],
    ['embedded by torch bf16', audited(truth, honest['torch bf16'])],
    ['torch fp32 by bf16', audited(honest['torch fp32'], honest['torch bf16'])],
    ...Object.entries(cheating).map(([name, claims]): [string, AuditResult[]] => [name, audited(claims, truth)]),
  ];
  const figures: Figure[] = [];
  const table = pairs.map(([name, results], at) => {
    const isHonest = at < 3;
    const distances = results.map(({ cosine }) => 1 - cosine).sort((a, b) => a - b);
    const shares = results.map(({ shareDistance }) => shareDistance).sort((a, b) => a - b);
    const caught = results.filter(({ fault }) => fault !== undefined).length / results.length;
    const beyond = tail(distances, 1 - AUDIT_TOLERANCE.minCosine);
    const sharesBeyond = tail(shares, AUDIT_TOLERANCE.maxShareDistance);
    figures.push(
      isHonest
        ? { what: `${name}: found faulty`, value: caught, unit: 'of answers', bar: ['<=', 0] }
        : { what: `${name}: caught`, value: caught, unit: 'of answers' },
    );
    return {
      pair: name,
      'cosine least': (1 - (distances.at(-1) ?? 0)).toFixed(6),
      median: (1 - quantile(distances, 0.5)).toFixed(6),
      'shares p50': quantile(shares, 0.5).toExponential(1),
      'shares most': (shares.at(-1) ?? 0).toExponential(1),
      'found faulty': `${(100 * caught).toFixed(1)} %`,
      'P(beyond) by cosine': isHonest ? beyond.toExponential(1) : '',
      'by shares': isHonest ? sharesBeyond.toExponential(1) : '',
    };
  });
  const device = bf16Engine.deviceOf(bf16);
  console.log(`torch on ${device?.device}; ${queries.length} answers, ${rows.length} records, k = 64`);
  console.table(table);

  // What attribution adds to an answer at batch 1; hot, so that answers are 96 tokens long and do not end by themselves.
  const serving = await fp32.openAdapter(final);
  const checkpoint = await fp32.openAdapter(attribution);
  const source = await openFeatures(fp32, bases);
  let generated = 0;
  const times = { generation: 0, feature: 0 };
  const asked = queries.slice(0, 20);
  for (const { tokens, from } of asked) {
    const prompt = tokens.slice(0, from);
    let began = performance.now();
    const made = await fp32.generate({ adapter: serving, prompt, maxTokens: 96, temperature: 5, topP: 1, seed: 3n });
    times.generation += performance.now() - began;
    generated += made.tokens.length;
    began = performance.now();
    for await (const _ of source.features([{ tokens: [...prompt, ...made.tokens], from }], checkpoint));
    times.feature += performance.now() - began;
  }
  const part = times.feature / (times.generation + times.feature);
  figures.push(
    { what: 'attribution of an answer’s time, batch 1', value: 100 * part, unit: '%', bar: ['<=', 5] },
    { what: 'generation', value: times.generation / asked.length, unit: 'ms an answer' },
    { what: 'tokens', value: generated / asked.length, unit: 'an answer' },
    { what: 'gradient and feature', value: times.feature / asked.length, unit: 'ms an answer' },
  );
  await report('torch-audit', figures, { device, table });
} finally {
  for (const engine of engines) await engine.close();
  rmSync(scratch, { recursive: true, force: true });
}
