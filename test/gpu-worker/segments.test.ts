/** What auditors find in trainings that are too long to be made again as a whole, and in projections. */
import t from 'tap';
import { readEigenbases, readProjection, writeProjection } from '../../gpu-worker/attribution/basis-files.ts';
import { featureExtractor } from '../../gpu-worker/attribution/extractor.ts';
import { principalDirections } from '../../gpu-worker/attribution/projection.ts';
import { type Fault, judgeTraining } from '../../gpu-worker/auditing/judge.ts';
import type { LoadedModel } from '../../gpu-worker/engines/engine.ts';
import type { AdapterMaterial } from '../../gpu-worker/serving/served-adapter.ts';
import { recordExample } from '../../gpu-worker/training/examples.ts';
import type { TrainedOrder, TrainingCheckpoint } from '../../gpu-worker/training/train-order.ts';
import { openCommitment } from '../../runtime/primitives/attribution/commitment.ts';
import { featureFile, featureRoot, featureTable } from '../../runtime/primitives/attribution/features.ts';
import { MIN_SEGMENT_STEPS } from '../../runtime/primitives/attribution/limits.ts';
import type { TrainingReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { runningSums, sumFile, sumRoot } from '../../runtime/primitives/attribution/sums.ts';
import type { TrainingConfig } from '../../runtime/primitives/attribution/training.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { type AccountId, type Hash, sameAccount } from '../../runtime/primitives/types.ts';
import { ASSIGNMENT, account, CONFIG, fileOf, hashing, materialOf, RECORDS, startEngine, train } from './order.ts';

const contributors = RECORDS.map(({ contributor }) => contributor);
const never = new AbortController().signal;

t.test('a long training, a segment at a time', { timeout: 240_000 }, async (test) => {
  const { engine, model } = await startEngine();
  test.teardown(() => engine.close());
  const config = { ...CONFIG, steps: 3 * MIN_SEGMENT_STEPS - 20, batch: 1, sequenceLength: 20 };
  const kept: TrainingCheckpoint[] = [];
  const checkpoints = { every: 48, keep: async (each: TrainingCheckpoint) => void kept.push({ ...each }) };
  const trained = await train(model, { config }, { exact: true, checkpoints });
  const { receipt } = trained;
  test.equal(receipt.loss.steps, 172);
  test.equal(receipt.segments.length, 2, 'a state after each whole segment but the last');
  test.same(
    kept.map(({ losses }) => losses.length),
    [32, 64, 96, 128, 160],
    'the worker’s own checkpoints fall on the segments’ ends too',
  );
  const judge = (
    change: Partial<TrainingReceipt> = {},
    item = 0,
    state = fileOf(trained),
  ): Promise<Fault | undefined> =>
    judgeTraining(hashing, model, {
      material: { ...materialOf(trained, config), training: { ...receipt, ...change } },
      ...{ contributors, item, dedupThreshold: ASSIGNMENT.dedupThreshold, baseName: 'glossa-3m' },
      ...{ exact: true, state, deadline: never },
    });
  for (const item of [0, 1, 5]) test.equal(await judge({}, item), undefined, `honest, segment ${item % 3}`);
  const [first, second] = receipt.segments as [Hash, Hash];
  test.equal(await judge({ segments: [second, second] }, 0), 'RETRAINING', 'not where the seed leads');
  test.equal(await judge({ segments: [first, first] }, 1), 'RETRAINING', 'not where the state before leads');
  test.equal(await judge({ segments: [first, first] }, 2), 'SEGMENTS', 'a state of another step');
  test.equal(await judge({ segments: [first] }), 'SEGMENTS', 'one too few');
  test.equal(await judge({ loss: { ...receipt.loss, steps: 60 }, segments: [] }), 'RETRAINING', 'a shorter training');
  const garbage = async () => new Uint8Array(64);
  test.equal(await judge({}, 1, garbage), 'SEGMENTS', 'a state that is none');

  // After a crash the states before it are published all the same, and the result is the same to the last bit.
  const resumed = await train(model, { config }, { exact: true, checkpoints, resume: kept[2]! });
  test.same(resumed.receipt, receipt);
  test.equal(
    (await train(model, { config }, {})).receipt.segments.length,
    0,
    'none where bits are not the same everywhere',
  );
});

t.test('a projection that leaves a contributor out', { timeout: 120_000 }, async (test) => {
  const { engine, model } = await startEngine();
  test.teardown(() => engine.close());
  const config = { ...CONFIG, k: 12 };
  const trained = await train(model, { config });
  const material = materialOf(trained, config);
  const judge = (of: AdapterMaterial): Promise<Fault | undefined> =>
    judgeTraining(hashing, model, {
      ...{ material: of, contributors, item: 3, dedupThreshold: ASSIGNMENT.dedupThreshold },
      ...{ baseName: 'glossa-3m', exact: false, state: fileOf(trained), deadline: never },
    });
  test.equal(await judge(material), undefined, 'half of the directions, honestly chosen');
  test.equal(await judge(await withoutContributor(model, trained, config, account('Ben'))), 'ENERGY');
});

/** Directions out of the others' records alone, with all rows and sums made anew to fit them. */
async function withoutContributor(
  model: LoadedModel,
  trained: TrainedOrder,
  config: TrainingConfig,
  victim: AccountId,
): Promise<AdapterMaterial> {
  const honest = materialOf(trained, config);
  const { basis } = trained.receipt;
  const checkpoint = await model.openAdapter({ config: honest.adapterConfig, weights: honest.checkpoint });
  const examples = RECORDS.map(({ line }) => recordExample(model.tokenizer, line).example);
  const gradients: Float32Array[] = [];
  for await (const { gradient } of model.gradients(examples, checkpoint)) gradients.push(gradient);
  await checkpoint.close();
  const { layout, eigenbases } = readEigenbases(honest.eigenbases);
  const { sketchSeed, rotationSeed } = basis;
  const before = featureExtractor({
    ...{ layout, eigenbases, sketchSeed, rotationSeed },
    projection: readProjection(honest.projection),
  });
  const others = gradients.filter((_, i) => !sameAccount(contributors[i]!, victim)).map(before.sketched);
  const projection = await principalDirections(others, config.sketchWidth, basis.k, async () => {});
  const extractor = featureExtractor({ layout, eigenbases, projection, sketchSeed, rotationSeed });
  const { rows: known } = openCommitment(hashing, trained.receipt.features, honest.files);
  const rows = known.map((row, i) => ({ ...row, ...extractor.feature(gradients[i]!) }));
  const { k } = trained.receipt.features;
  const entries = runningSums(featureTable(k, rows));
  const features = {
    ...trained.receipt.features,
    featureRoot: featureRoot(hashing, rows),
    sumRoot: sumRoot(hashing, entries),
    sumEntries: entries.length,
  };
  return {
    ...honest,
    training: { ...trained.receipt, features },
    projection: writeProjection(projection),
    files: { ...honest.files, features: encode(featureFile, { k, rows }), sums: encode(sumFile, { k, entries }) },
  };
}
