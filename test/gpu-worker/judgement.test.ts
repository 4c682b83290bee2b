/** What auditors find in honest and in dishonest work: every way to cheat that docs/method.md names. */
import t from 'tap';
import { readProjection, writeProjection } from '../../gpu-worker/attribution/basis-files.ts';
import { type Fault, judgeAnswer, judgeTraining } from '../../gpu-worker/auditing/judge.ts';
import type { LoadedModel } from '../../gpu-worker/engines/engine.ts';
import type { AdapterMaterial } from '../../gpu-worker/serving/served-adapter.ts';
import { transcript } from '../../gpu-worker/serving/transcript.ts';
import { createSignatures } from '../../node/crypto/signatures.ts';
import { openCommitment } from '../../runtime/primitives/attribution/commitment.ts';
import { featureFile, featureRoot, featureTable } from '../../runtime/primitives/attribution/features.ts';
import type { InferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import type { RequestTerms } from '../../runtime/primitives/attribution/request.ts';
import { runningSums, sumFile, sumRoot } from '../../runtime/primitives/attribution/sums.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import {
  ASSIGNMENT,
  account,
  answer,
  batchCase,
  CONFIG,
  forwarding,
  hashing,
  materialOf,
  open,
  RECORDS,
  request,
  signReceipt,
  startEngine,
  train,
} from './order.ts';

const contributors = RECORDS.map(({ contributor }) => contributor);
const never = new AbortController().signal;

t.test('a training', { timeout: 240_000 }, async (test) => {
  const { engine, model } = await startEngine();
  test.teardown(() => engine.close());
  const [honest, other] = [await train(model), await train(model, { trainingSeed: 12n })].map((each) =>
    materialOf(each),
  ) as [AdapterMaterial, AdapterMaterial];
  const judge = (material: AdapterMaterial, change: object = {}): Promise<Fault | undefined> =>
    judgeTraining(hashing, model, {
      ...{
        material,
        contributors,
        item: 7,
        dedupThreshold: ASSIGNMENT.dedupThreshold,
        baseName: 'glossa-3m',
        exact: true,
        state: async () => new Uint8Array(0),
        deadline: never,
      },
      ...change,
    });
  /** The rows changed, and everything that is committed about them with them. */
  const withRows = (change: (values: Int8Array, at: number) => Int8Array): AdapterMaterial => {
    const { training, files } = honest;
    const { rows: before } = openCommitment(hashing, training.features, files);
    const rows = before.map((row, at) => ({ ...row, values: change(row.values, at) }));
    const { k } = training.features;
    const entries = runningSums(featureTable(k, rows));
    const features = {
      ...training.features,
      featureRoot: featureRoot(hashing, rows),
      sumRoot: sumRoot(hashing, entries),
      sumEntries: entries.length,
    };
    return {
      ...honest,
      training: { ...training, features },
      files: { ...files, features: encode(featureFile, { k, rows }), sums: encode(sumFile, { k, entries }) },
    };
  };
  test.equal(await judge(honest), undefined, 'honest, made again');
  test.equal(await judge(honest, { exact: false }), undefined, 'honest, by tolerance');
  test.equal(await judge(withRows((values) => values.slice())), undefined, 'the same rows');
  const reversed = withRows((values, at) => (at === 9 ? values.toReversed() : values));
  test.equal(await judge(reversed), 'COSINE', 'one row of the sample falsified');
  test.equal(
    await judge({ ...honest, files: { ...honest.files, sums: other.files.sums } }),
    undefined,
    'sums are made again',
  );
  test.equal(await judge({ ...honest, files: { ...honest.files, features: other.files.features } }), 'COMMITMENT');
  test.equal(
    await judge({ ...honest, checkpoint: honest.adapter }, { exact: false }),
    'COSINE',
    'another epoch’s adapter',
  );
  test.equal(await judge({ ...honest, checkpoint: other.checkpoint }, { exact: false }), 'COSINE', 'another adapter');
  test.equal(await judge({ ...honest, adapter: honest.adapter.subarray(0, 900) }), 'ADAPTER');
  test.equal(await judge({ ...honest, config: { ...CONFIG, rank: 8 } }), 'ADAPTER', 'not as it was ordered');
  test.equal(await judge({ ...honest, eigenbases: other.projection }), 'BASES');
  const projection = readProjection(honest.projection);
  const scaled = { ...projection, vectors: projection.vectors.map((each) => each * 1.1) };
  test.equal(await judge({ ...honest, projection: writeProjection(scaled) }), 'PROJECTION', 'not orthonormal');
  const doubled = { ...projection, vectors: projection.vectors.slice() };
  doubled.vectors.copyWithin(projection.width, 0, projection.width);
  test.equal(await judge({ ...honest, projection: writeProjection(doubled) }), 'PROJECTION', 'one direction twice');
  test.equal(await judge(honest, { contributors: contributors.toReversed() }), 'CONTRIBUTOR');
  test.equal(await judge({ ...honest, lines: honest.lines.toReversed() }), 'RECORD');
  const { adapter, training } = other;
  const foreign = { ...honest, adapter, training: { ...honest.training, adapter: training.adapter } };
  test.equal(await judge(foreign), 'RETRAINING', 'not what the seed and the records give');
  test.equal(await judge(foreign, { exact: false }), undefined, 'which only the same engine can see');
  test.equal(await judge(foreign, { deadline: AbortSignal.abort() }), undefined, 'and only in time');
});

t.test('an answer', { timeout: 240_000 }, async (test) => {
  const { engine, model } = await startEngine();
  test.teardown(() => engine.close());
  const material = materialOf(await train(model));
  const other = materialOf(await train(model, { trainingSeed: 12n, config: { ...CONFIG, learningRate: 50_000_000 } }));
  const served = await open(model, material);
  const host = { ...hashing, ...(await createSignatures()) };
  const judge = (
    receipts: Parameters<typeof batchCase>[0],
    disclosed: Uint8Array | undefined,
    change: object = {},
  ): Promise<Fault | undefined> => judgeAnswer(host, model, served, { ...batchCase(receipts), disclosed, ...change });

  const first = await answer(served, request(1n));
  const second = await answer(served, request(2n, { temperature: 900_000_000, topP: 900_000_000, stop: ['tree'] }));
  test.ok(first.receipt.payload.shares.length > 0, 'somebody is paid');
  const both = [first.receipt, second.receipt];
  test.equal(await judge(both, first.disclosed), undefined, 'greedy');
  test.equal(await judge(both, second.disclosed, { item: 1 }), undefined, 'sampled, with a stop sequence');
  test.equal(await judge(both, second.disclosed, { item: 3, exact: false }), undefined, 'by tolerance');
  test.equal(await judge(both, first.disclosed, { item: 1 }), 'REQUEST', 'another answer’s transcript');

  const stop = new AbortController();
  // Long enough that it can't be over before the word to stop arrives.
  const cut = request(3n, { maxTokens: 200, temperature: 2_000_000_000, seed: 6n });
  const { voucher: _, ...asked } = cut;
  let heard = 0;
  const cancelled = await served.answer(
    cut,
    { worker: account('Worker'), lease: first.receipt.payload.lease, rules: batchCase(both).rules },
    {
      signal: stop.signal,
      token: () => {
        if (++heard === 3) stop.abort();
      },
    },
  );
  test.equal(cancelled.finish, 'aborted');
  const said = { request: asked, text: cancelled.text, tokens: [...cancelled.tokens] };
  test.equal(await judge([signReceipt(cancelled.receipt)], encode(transcript, said)), undefined, 'cancelled');

  /** A receipt changed after the fact, by a worker that signs anything. */
  const forged = (change: Partial<InferenceReceipt>) => [signReceipt({ ...first.receipt.payload, ...change })];
  const { payload } = first.receipt;
  test.equal(await judge([signReceipt(payload, 'Other')], first.disclosed), 'SIGNATURE');
  const [share] = payload.shares;
  const raised = payload.shares.map((each) => (each === share ? { ...each, influence: each.influence + 1n } : each));
  test.equal(await judge(forged({ shares: raised }), first.disclosed), 'ARITHMETIC', 'a forged score');
  test.equal(await judge(both, undefined), 'UNDISCLOSED');
  test.equal(await judge(both, new Uint8Array(7)), 'TRANSCRIPT');
  test.equal(await judge(forged({ promptHash: payload.outputHash }), first.disclosed), 'PROMPT', 'of another question');
  test.equal(
    await judge(both, first.disclosed, { sessionKey: account('Other') }),
    'VOUCHER',
    'a voucher that the session’s key did not sign',
  );
  // Everything that was asked stands under the payer's signature: no worker can say that it was something else.
  const changes: Partial<RequestTerms>[] = [
    { input: { type: 'Text', value: 'Another question' } },
    { maxTokens: 23 },
    { temperature: 1 },
    { topP: 1 },
    { seed: 6n },
    { stop: ['.'] },
  ];
  for (const change of changes) {
    const claimed = { ...first.said, request: { ...first.said.request, ...change } };
    test.equal(await judge(both, encode(transcript, claimed)), 'REQUEST', Object.keys(change).join());
  }
  test.equal(await judge(both, encode(transcript, { ...first.said, text: 'nothing' })), 'OUTPUT');
  test.equal(
    await judge(both, first.disclosed, { file: batchCase([first.receipt]).file }),
    'BATCH',
    'the file of another batch',
  );

  /** Receipts of a worker whose engine is not what it says. */
  const dishonest = async (engineOf: Partial<LoadedModel>, of: AdapterMaterial = material) => {
    const lying = await open({ ...forwarding(model), ...engineOf }, of);
    const made = await answer(lying, request(1n));
    await lying.close();
    return judge([made.receipt], made.disclosed);
  };
  test.equal(
    await dishonest({
      gradients: (examples, adapter, options) =>
        model.gradients(
          examples.map(({ tokens, from }) => ({
            tokens: tokens.slice(0, Math.ceil((from + tokens.length) / 2)),
            from,
          })),
          adapter,
          options,
        ),
    }),
    'COSINE',
    'the feature of half of the answer',
  );
  test.equal(
    await dishonest({
      async *gradients(examples, adapter, options) {
        for await (const each of model.gradients(examples, adapter, options)) {
          yield { ...each, gradient: each.gradient.map((value, at) => (at % 2 === 0 ? value : -value)) };
        }
      },
    }),
    'COSINE',
    'a tampered gradient',
  );
  test.equal(
    await dishonest({
      openAdapter: ({ config, weights }) =>
        model.openAdapter({ config, weights: weights === material.checkpoint ? other.checkpoint : weights }),
    }),
    'COSINE',
    'the feature by another adapter',
  );
  test.equal(
    await dishonest({
      openAdapter: ({ config, weights }) =>
        model.openAdapter({ config, weights: weights === material.adapter ? other.adapter : weights }),
    }),
    'GENERATION',
    'the answer of another adapter',
  );
  test.equal(
    await dishonest({
      generate: async (asked, hooks) => {
        const made = await model.generate({ ...asked, maxTokens: 6 }, hooks);
        return { ...made, finish: 'stop' };
      },
    }),
    'GENERATION',
    'an answer that was ended early',
  );
  test.equal(
    await dishonest({ generate: (asked, hooks) => model.generate({ ...asked, maxTokens: 6 }, hooks) }),
    'GENERATION',
    'fewer tokens than were asked for',
  );
  test.equal(
    await dishonest({ generate: (asked, hooks) => model.generate({ ...asked, temperature: 1.5 }, hooks) }),
    'GENERATION',
    'another temperature than was asked for',
  );
  test.equal(
    await dishonest({
      generate: (asked, hooks) => model.generate({ ...asked, prompt: asked.prompt.slice(0, -3) }, hooks),
    }),
    'GENERATION',
    'another prompt than was asked',
  );
});
