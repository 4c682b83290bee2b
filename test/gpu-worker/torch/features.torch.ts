/**
 * Features made on the torch engine's device against those that are made here of gradients, through the Python process, and audits
 * between workers that go either way: `npm run test:torch`.
 */
import { test } from 'tap';
import { AUDIT_TOLERANCE } from '../../../gpu-worker/attribution/audit.ts';
import type { FeatureBases, FeatureSettings } from '../../../gpu-worker/attribution/extractor.ts';
import { orthonormalityError } from '../../../gpu-worker/attribution/projection.ts';
import type { QuantisedRow } from '../../../gpu-worker/attribution/quantise.ts';
import { type Fault, judgeAnswer, judgeTraining } from '../../../gpu-worker/auditing/judge.ts';
import type {
  Adapter,
  AdapterFiles,
  Example,
  ExampleGradientOptions,
  FitPhase,
  LoadedModel,
} from '../../../gpu-worker/engines/engine.ts';
import { type ExampleFeature, fitFeatures, openFeatures } from '../../../gpu-worker/engines/features.ts';
import type { AdapterMaterial } from '../../../gpu-worker/serving/served-adapter.ts';
import { createSignatures } from '../../../node/crypto/signatures.ts';
import type { TrainingConfig } from '../../../runtime/primitives/attribution/training.ts';
import {
  ASSIGNMENT,
  answer,
  batchCase,
  CONFIG,
  forwarding,
  hashing,
  materialOf,
  open,
  RECORDS,
  RULES,
  request,
  signReceipt,
  train,
} from '../order.ts';
import { apart, cosine, engines, GLOSSA, records, SEVEN } from './both-engines.ts';

const SETTINGS: FeatureSettings = {
  ...{ k: 32, sketchWidth: 8192, sketchSeed: 2n ** 64n - 7n, rotationSeed: 6n, damping: 0.01, projectionRows: 1024 },
};

/** An adapter that has learnt a little, so that no gradient is zero. */
async function trained(model: LoadedModel): Promise<AdapterFiles> {
  const settings = {
    ...{ lora: SEVEN, learningRate: 5e-3, epochs: 1, steps: 6, batch: 4, sequenceLength: 96, warmup: 0, seed: 3n },
  };
  return (await model.train({ settings, examples: records(model, 24) })).attribution;
}

async function featuresOf(
  model: LoadedModel,
  bases: FeatureBases,
  examples: readonly Example[],
  adapter: Adapter,
  options: ExampleGradientOptions,
): Promise<ExampleFeature[]> {
  const source = await openFeatures(model, bases);
  const out: ExampleFeature[] = [];
  for await (const each of source.features(examples, adapter, options)) out.push(each);
  await source.close();
  return out;
}

/** Dots of all rows with all: what influence is made of. */
const scoresOf = (rows: readonly QuantisedRow[]): number[][] =>
  rows.map(({ values: a }) => rows.map(({ values: b }) => a.reduce((sum, each, j) => sum + each * b[j]!, 0)));

test('the same features on the device and here', { timeout: 1_200_000 }, async (t) => {
  const { own } = await engines(t, GLOSSA);
  const here = forwarding(own);
  const adapter = await own.openAdapter(await trained(own));
  const examples = records(own, 40);
  const queries = [own.tokenizer.question('Who came back?', 'Five little ducks came back.'), ...examples.slice(0, 35)];
  const alike = (a: readonly ExampleFeature[], b: readonly ExampleFeature[], what: string): void => {
    t.equal(a.length, b.length);
    let [worst, most, scale] = [1, 0, 0];
    for (const [i, { row, captured }] of a.entries()) {
      const other = b[i]!;
      worst = Math.min(worst, cosine(row.values, other.row.values));
      most = Math.max(most, ...row.values.map((value, j) => Math.abs(value - other.row.values[j]!)));
      scale = Math.max(scale, Math.abs(row.scale / other.row.scale - 1));
      t.ok(Math.abs(captured - other.captured) < 1e-4, `${what}: energy of ${i}`);
    }
    t.ok(worst >= 0.9999, `${what}: least cosine ${worst}`);
    t.ok(most <= 1, `${what}: entries differ by ${most} at most`);
    t.ok(scale < 1e-3, `${what}: scales by ${scale}`);
  };
  for (const [fromLayer, block] of [
    [0, 32],
    [own.info.layers - 2, 40],
  ] as const) {
    const { bases } = await fitFeatures(here, examples, adapter, SETTINGS, { block, fromLayer });
    for (const stride of [1, 3]) {
      const what = `from layer ${fromLayer}, stride ${stride}`;
      const options = { fromLayer, stride };
      const mine = await featuresOf(own, bases, queries, adapter, options);
      alike(mine, await featuresOf(here, bases, queries, adapter, options), what);
    }
    if (fromLayer === 0) continue;
    const fault = featuresOf(own, bases, queries, adapter, { fromLayer: 0 }).catch((error) => error.code);
    t.equal(await fault, 'BAD_REQUEST', 'bases of other matrices');
  }
});

test('bases that are fitted on the device say the same of every record', { timeout: 1_200_000 }, async (t) => {
  const { own, other } = await engines(t, GLOSSA);
  const files = await trained(own);
  const [adapter, checkpoint] = [await own.openAdapter(files), await other.openAdapter(files)];
  const examples = records(own, 60);
  // All records, or a sample of them, make the projection.
  for (const projectionRows of [1024, 40]) {
    const settings = { ...SETTINGS, projectionRows };
    const told: [FitPhase, number][] = [];
    const hooks = { block: 32, progress: (phase: FitPhase, done: number) => void told.push([phase, done]) };
    const mine = await fitFeatures(own, examples, adapter, settings, hooks);
    const theirs = await fitFeatures(forwarding(own), examples, adapter, settings, { block: 32 });
    t.same(mine.bases.layout, theirs.bases.layout);
    t.ok(told.every(([phase, done], i) => i === 0 || phase !== told[i - 1]![0] || done >= told[i - 1]![1]));
    t.same([...new Set(told.map(([phase]) => phase))], ['gradients', 'bases', 'features']);
    // Eigenvectors may have either sign, and any basis of a space of equal values; Λ's sum over a matrix depends on neither.
    for (const { offset, rank, hidden, name } of mine.bases.layout.matrices) {
      const [a, b] = [mine, theirs].map(({ bases }) =>
        bases.eigenbases.lambda.subarray(offset, offset + rank * hidden).reduce((sum, value) => sum + value, 0),
      );
      t.ok(Math.abs(a! / b! - 1) < 1e-3, name);
    }
    const { projection } = mine.bases;
    t.ok(orthonormalityError(projection) < 1e-5, 'an orthonormal projection');
    t.ok(apart(projection.energy, theirs.bases.projection.energy) < 1e-2, 'as much energy along each direction');
    const [a, b] = [scoresOf(mine.rows), scoresOf(theirs.rows)];
    const worst = a!.reduce((least, row, i) => Math.min(least, cosine(row, b![i]!)), 1);
    t.ok(worst >= 0.999, `every record’s scores with all others: least cosine ${worst}`);

    // Whoever opens these bases, of another engine as well, makes the rows that were published.
    for (const [model, at] of [
      [own, adapter],
      [forwarding(own), adapter],
      [other, checkpoint],
    ] as const) {
      const again = await featuresOf(model, mine.bases, examples, at, {});
      for (const [i, { row }] of again.entries()) {
        const same = cosine(row.values, mine.rows[i]!.values);
        t.ok(same >= AUDIT_TOLERANCE.minCosine && same > 0.9999, `row ${i}: ${same}`);
      }
    }
  }
});

test('audits between workers that make features on the device and here', { timeout: 1_200_000 }, async (t) => {
  const { own, other } = await engines(t, GLOSSA);
  const host = { ...hashing, ...(await createSignatures()) };
  const workers = { torch: own, 'torch by gradients': forwarding(own), embedded: other };
  const orders: Record<string, TrainingConfig> = {
    'as by default': CONFIG,
    'the last layers, one token in three': { ...CONFIG, attributionLayers: 2, attributionStride: 3, block: 64 },
  };
  for (const [kind, config] of Object.entries(orders)) {
    const materials = new Map<string, AdapterMaterial>();
    for (const [name, model] of Object.entries(workers)) {
      materials.set(name, materialOf(await train(model, { config }, {}), config));
    }
    for (const [worker, material] of materials) {
      const served = await open(workers[worker as keyof typeof workers], material);
      const made = await answer(served, request(1n));
      await served.close();
      for (const [auditor, model] of Object.entries(workers)) {
        const judged = (of: AdapterMaterial): Promise<Fault | undefined> =>
          judgeTraining(hashing, model, {
            ...{ material: of, contributors: RECORDS.map(({ contributor }) => contributor), item: 3, exact: false },
            ...{ dedupThreshold: ASSIGNMENT.dedupThreshold, baseName: ASSIGNMENT.baseName },
            ...{ state: async () => new Uint8Array(0), deadline: AbortSignal.timeout(600_000) },
          });
        const what = `${kind}: ${worker}, audited by ${auditor}`;
        t.equal(await judged(material), undefined, `${what}: the training`);
        t.equal(
          await judged({ ...material, checkpoint: material.adapter }),
          'COSINE',
          `${what}: the final adapter’s rows`,
        );
        const again = await open(model, material);
        const judgedAnswer = (disclosed: Uint8Array, receipt = made.receipt): Promise<Fault | undefined> =>
          judgeAnswer(host, model, again, { ...batchCase([receipt]), disclosed, exact: false });
        t.equal(await judgedAnswer(made.disclosed), undefined, `${what}: the answer`);
        const turned = made.receipt.payload.feature.map((value, at) => (at % 4 === 0 ? -value : value));
        const lie = again.withFeature(made.receipt.payload, made.said.tokens, turned, RULES.blend);
        t.equal(await judgedAnswer(made.disclosed, signReceipt(lie)), 'COSINE', `${what}: another feature`);
        await again.close();
      }
    }
  }
});

test('a fit and features go on when the process is killed', { timeout: 1_200_000 }, async (t) => {
  const { own, torch } = await engines(t, GLOSSA);
  const adapter = await own.openAdapter(await trained(own));
  const examples = records(own, 60);
  const whole = await fitFeatures(own, examples, adapter, SETTINGS, { block: 32 });
  for (const killed of ['gradients', 'bases'] as const) {
    let kills = 0;
    const again = await fitFeatures(own, examples, adapter, SETTINGS, {
      block: 32,
      progress(phase) {
        if (phase !== killed || kills++ > 0) return;
        process.kill(torch.processOf(own)!, 'SIGKILL');
      },
    });
    t.ok(kills > 0);
    const [a, b] = [scoresOf(again.rows), scoresOf(whole.rows)];
    for (const [i, row] of a.entries()) t.ok(cosine(row, b[i]!) > 0.9999, `killed in ${killed}: row ${i}`);
  }
  t.equal(own.metrics().restarts, 2);
  const source = await openFeatures(own, whole.bases);
  let index = 0;
  for await (const { row } of source.features(examples, adapter)) {
    t.ok(cosine(row.values, whole.rows[index]!.values) > 0.9999, `feature ${index}`);
    if (index++ === 10) process.kill(torch.processOf(own)!, 'SIGKILL');
  }
  t.equal(index, 60);
  const [first] = await featuresOf(own, whole.bases, examples.slice(0, 1), adapter, {});
  t.ok(cosine(first!.row.values, whole.rows[0]!.values) > 0.9999);
  for await (const { row } of source.features(examples.slice(0, 1), adapter)) t.same(row.values, first!.row.values);
  t.equal(own.metrics().restarts, 3, 'the next process knows the bases');
  await source.close();
});
