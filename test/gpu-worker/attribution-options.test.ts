/** Attribution by the last layers and by one in m tokens: what features are then, and that audits go by the same. */
import t from 'tap';
import { cosineOf } from '../../gpu-worker/attribution/audit.ts';
import { readEigenbases, readProjection } from '../../gpu-worker/attribution/basis-files.ts';
import { featureExtractor } from '../../gpu-worker/attribution/extractor.ts';
import type { GradientLayout } from '../../gpu-worker/attribution/layout.ts';
import { type Fault, judgeAnswer, judgeTraining } from '../../gpu-worker/auditing/judge.ts';
import type { Adapter, Example, LoadedModel } from '../../gpu-worker/engines/engine.ts';
import { promptOf } from '../../gpu-worker/serving/served-adapter.ts';
import { cutExample, recordExample } from '../../gpu-worker/training/examples.ts';
import { loraOf, type TrainedOrder } from '../../gpu-worker/training/train-order.ts';
import { createSignatures } from '../../node/crypto/signatures.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { openCommitment } from '../../runtime/primitives/attribution/commitment.ts';
import {
  attributedLayer,
  configFault,
  type TrainingConfig,
  trainingConfig,
} from '../../runtime/primitives/attribution/training.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import {
  ASSIGNMENT,
  answer,
  batchCase,
  CONFIG,
  fileOf,
  forwarding,
  hashing,
  materialOf,
  open,
  RECORDS,
  RULES,
  request,
  startEngine,
  train,
} from './order.ts';

const LAYERS = 2;
const STRIDE = 3;
const OPTIONS: TrainingConfig = { ...CONFIG, attributionLayers: LAYERS, attributionStride: STRIDE };
const contributors = RECORDS.map(({ contributor }) => contributor);

async function gradientOf(model: LoadedModel, example: Example, adapter: Adapter): Promise<Float32Array> {
  for await (const { gradient } of model.gradients([example], adapter)) return gradient;
  throw new Error('no gradient');
}

/** The parts of a gradient over all layers that another layout has as well. */
function part(gradient: Float32Array, whole: GradientLayout, of: GradientLayout): Float32Array {
  const out = new Float32Array(of.size);
  for (const { name, rank, hidden, offset } of of.matrices) {
    const from = whole.matrices.find((each) => each.name === name)!.offset;
    out.set(gradient.subarray(from, from + rank * hidden), offset);
  }
  return out;
}

/** The mean of the gradients of single tokens' losses: what a stride leaves of a response, from whole gradients alone. */
async function thinned(
  model: LoadedModel,
  { tokens, from }: Example,
  adapter: Adapter,
  stride: number,
): Promise<Float32Array> {
  let sum: Float32Array | undefined;
  let count = 0;
  for (let at = from; at < tokens.length; at += stride, count++) {
    const one = await gradientOf(model, { tokens: tokens.slice(0, at + 1), from: at }, adapter);
    const before = sum;
    sum = before === undefined ? one : one.map((value, i) => value + before[i]!);
  }
  return sum!.map((value) => value / count);
}

/** Extractor, checkpoint and layouts of a training. */
async function opened(model: LoadedModel, trained: TrainedOrder, config: TrainingConfig) {
  const material = materialOf(trained, config);
  const { layout, eigenbases } = readEigenbases(material.eigenbases);
  const { sketchSeed, rotationSeed } = material.training.basis;
  const projection = readProjection(material.projection);
  return {
    material,
    layout,
    whole: model.layout(loraOf(config), { block: config.block }),
    extractor: featureExtractor({ layout, eigenbases, projection, sketchSeed, rotationSeed }),
    checkpoint: await model.openAdapter({ config: material.adapterConfig, weights: material.checkpoint }),
  };
}

t.test('what can be ordered', async (test) => {
  test.equal(configFault(OPTIONS), undefined);
  test.equal(configFault({ ...OPTIONS, attributionStride: 0 }), 'FEATURES');
  test.equal(configFault({ ...OPTIONS, attributionStride: 65 }), 'FEATURES');
  test.equal(configFault({ ...OPTIONS, attributionLayers: 65_535 }), undefined, 'more than a model has are all');
  const layers = (attributionLayers: number): number => attributedLayer({ ...CONFIG, attributionLayers }, 6);
  test.same([0, 1, 2, 6, 7, 65_535].map(layers), [0, 5, 4, 0, 0, 0]);
  test.same(decode(trainingConfig, encode(trainingConfig, OPTIONS)), OPTIONS);
  const hashes = [CONFIG, OPTIONS, { ...OPTIONS, attributionLayers: 0 }, { ...OPTIONS, attributionStride: 1 }];
  test.equal(
    new Set(hashes.map((each) => String(hashOf(hashing, trainingConfig, each)))).size,
    4,
    'the receipt binds both',
  );
});

t.test('features of the last layers and of one token in three', { timeout: 240_000 }, async (test) => {
  const { engine, model } = await startEngine();
  test.teardown(() => engine.close());
  const trained = await train(model, { config: OPTIONS });
  const { material, layout, whole, extractor, checkpoint } = await opened(model, trained, OPTIONS);
  test.same(
    [...new Set(layout.matrices.map(({ name }) => name.split('.')[4]))],
    ['4', '5'],
    'the last two of six layers',
  );
  const { rows } = openCommitment(hashing, trained.receipt.features, material.files);
  for (const at of [0, 7, 23]) {
    const example = cutExample(recordExample(model.tokenizer, RECORDS[at]!.line).example, OPTIONS.sequenceLength);
    const gradient = await gradientOf(model, example, checkpoint);
    const { values } = extractor.feature(part(gradient, whole, layout));
    test.same([...rows[at]!.values], [...values], `record ${at}: all of its tokens`);
  }

  const served = await open(model, material);
  const asked = request(1n);
  const made = await answer(served, asked);
  const prompt = model.tokenizer.encode(promptOf(model.tokenizer, asked.input));
  // As many that the last stride is not a whole one.
  const tokens = made.tokens.slice(0, 2 * STRIDE + 1);
  test.equal(tokens.length, 2 * STRIDE + 1);
  const example = { tokens: [...prompt, ...tokens], from: prompt.length };
  const { feature } = await served.attributed(prompt, tokens, 1n, RULES.blend);
  const expected = async (stride: number) =>
    extractor.feature(part(await thinned(model, example, checkpoint, stride), whole, layout)).values;
  test.ok(cosineOf(feature, await expected(STRIDE)) > 0.9999, 'tokens 0, 3, 6 … of the answer');
  test.ok(cosineOf(feature, await expected(1)) < 0.9995, 'which are not all of them');

  const one = { ...example, tokens: example.tokens.slice(0, prompt.length + 1) };
  for await (const { gradient, tokens } of model.gradients([one, example], checkpoint, { stride: 64 })) {
    const only = await gradientOf(model, one, checkpoint);
    test.equal(tokens, 1);
    test.ok(cosineOf(gradient, only) > 1 - 1e-6, 'a stride beyond the answer leaves its first token');
  }
  for (const stride of [0, -1, 1.5]) {
    const none = async () => {
      for await (const _ of model.gradients([one], checkpoint, { stride }));
    };
    await test.rejects(none(), { code: 'BAD_REQUEST' });
  }
  await checkpoint.close();
  await served.close();
});

t.test('audits under options', { timeout: 240_000 }, async (test) => {
  const { engine, model } = await startEngine();
  test.teardown(() => engine.close());
  const trained = await train(model, { config: OPTIONS });
  const all = await train(model);
  const material = materialOf(trained, OPTIONS);
  const judge = (of = material, exact = true): Promise<Fault | undefined> =>
    judgeTraining(hashing, model, {
      ...{ material: of, contributors, item: 7, dedupThreshold: ASSIGNMENT.dedupThreshold, baseName: 'glossa-3m' },
      ...{ exact, state: fileOf(trained), deadline: new AbortController().signal },
    });
  test.equal(await judge(), undefined, 'honest, made again');
  test.equal(await judge(material, false), undefined, 'honest, by tolerance');
  test.equal(await judge({ ...materialOf(all), config: OPTIONS }), 'BASES', 'all layers where two were ordered');
  test.equal(await judge({ ...material, config: CONFIG }), 'BASES', 'two where all were ordered');
  const { attributionLayers: _, ...stride } = OPTIONS;
  const otherStride = { ...materialOf(all), config: { ...stride, attributionLayers: 0 } };
  test.equal(await judge(otherStride), undefined, 'the stride is not for records');

  const host = { ...hashing, ...(await createSignatures()) };
  const served = await open(model, material);
  const judged = async (by: LoadedModel): Promise<Fault | undefined> => {
    const worker = await open(by, material);
    const { receipt, disclosed } = await answer(worker, request(1n));
    await worker.close();
    return judgeAnswer(host, model, served, { ...batchCase([receipt]), disclosed });
  };
  test.equal(await judged(model), undefined, 'an honest answer');
  for (const [stride, what] of [
    [1, 'all tokens where one in three was ordered'],
    [2 * STRIDE, 'fewer tokens than were ordered'],
  ] as const) {
    const lazy: LoadedModel = {
      ...forwarding(model),
      gradients: (examples, adapter, options) => model.gradients(examples, adapter, { ...options, stride }),
    };
    test.equal(await judged(lazy), 'COSINE', what);
  }
  await served.close();
});
