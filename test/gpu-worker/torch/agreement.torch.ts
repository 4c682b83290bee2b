/** The torch engine against the embedded one, through the Python process: `npm run test:torch`. */
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'tap';
import { buildBases, extractRows, featureExtractor } from '../../../gpu-worker/attribution/extractor.ts';
import { VectorSpool } from '../../../gpu-worker/attribution/spool.ts';
import { readTensors } from '../../../gpu-worker/engines/embedded/safetensors.ts';
import type {
  Adapter,
  Example,
  GenerationRequest,
  LoadedModel,
  LoraSettings,
  TrainingJob,
} from '../../../gpu-worker/engines/engine.ts';
import { torchEngine } from '../../../gpu-worker/engines/torch/engine.ts';
import { findPython } from '../../../gpu-worker/engines/torch/python.ts';
import { apart, collect, cosine, engines, files, GLOSSA, records, SEVEN, VECTORS } from './both-engines.ts';

/** Logs of the probabilities of every token behind `prefix`: its logits, but for a constant that nothing depends on. */
async function logits(model: LoadedModel, prefix: readonly number[], adapter?: Adapter): Promise<Float64Array> {
  const every = Array.from({ length: model.info.vocabulary }, (_, id) => ({
    tokens: [...prefix, id],
    from: prefix.length,
  }));
  return (await model.losses(every, adapter)).map((loss) => -loss);
}

const job = (model: LoadedModel, lora: LoraSettings, steps = 16): TrainingJob => ({
  settings: {
    ...{ lora, learningRate: 5e-3, epochs: 1, steps, batch: 4, sequenceLength: 96, warmup: 0.1, weightDecay: 0.01 },
    ...{ seed: 2n ** 64n - 5n, checkpointEvery: 4 },
  },
  examples: records(model, 24),
  weights: Array.from({ length: 24 }, (_, i) => (i % 7 === 3 ? 0 : 1 - i / 50)),
});

test('logits, losses, gradients, covariances and greedy tokens are the embedded engine’s', {
  timeout: 1_200_000,
}, async (t) => {
  const vectors = JSON.parse(readFileSync(join(VECTORS, 'vectors.json'), 'utf8'));
  for (const name of ['deep', 'wide']) {
    const { own, other } = await engines(t, join(VECTORS, name));
    t.same(own.info, other.info, `${name}: the same model`);
    const adapter = files(join(VECTORS, name, 'adapter'));
    const [mine, theirs] = [await own.openAdapter(adapter), await other.openAdapter(adapter)];
    t.same(own.layout(mine.lora), other.layout(theirs.lora), `${name}: the same layout`);
    const examples: Example[] = vectors[name].examples;
    for (const [a, b] of [
      [await own.losses(examples), await other.losses(examples)],
      [await own.losses(examples, mine), await other.losses(examples, theirs)],
    ] as const) {
      for (const [i, loss] of a.entries()) t.ok(Math.abs(loss - b[i]!) < 1e-4, `${name}: loss ${i}`);
    }
    for (const length of [1, 4, examples[0]!.tokens.length - 1]) {
      const prefix = examples[0]!.tokens.slice(0, length);
      for (const [a, b] of [
        [await logits(own, prefix), await logits(other, prefix)],
        [await logits(own, prefix, mine), await logits(other, prefix, theirs)],
      ] as const) {
        const worst = a.reduce((most, each, id) => Math.max(most, Math.abs(each - b[id]!)), 0);
        t.ok(worst < 1e-4, `${name}: logits behind ${length} tokens: ${worst}`);
      }
    }
    for (const [fromLayer, stride] of [
      [0, 1],
      [1, 1],
      [0, 3],
      [1, 2],
    ] as const) {
      const a = await collect(own.gradients(examples, mine, { fromLayer, stride }));
      const b = await collect(other.gradients(examples, theirs, { fromLayer, stride }));
      for (const [i, { gradient, tokens, loss, index }] of a.entries()) {
        t.ok(
          apart(gradient, b[i]!.gradient) < 1e-4,
          `${name}: gradient ${i} from layer ${fromLayer}, stride ${stride}`,
        );
        t.same([index, tokens], [b[i]!.index, b[i]!.tokens]);
        t.ok(Math.abs(loss - b[i]!.loss) < 1e-4);
      }
    }
    const block = 5;
    const a = await own.covariances(examples, mine, { block });
    const b = await other.covariances(examples, theirs, { block });
    for (const [m, { rank, hidden }] of a.entries()) {
      t.ok(apart(rank, b[m]!.rank) < 1e-4 && apart(hidden, b[m]!.hidden) < 1e-4, `${name}: covariances ${m}`);
    }
    const { tokens, from } = examples[1]!;
    const request = { prompt: tokens.slice(0, from), maxTokens: 24, temperature: 0, topP: 1, seed: 0n };
    t.same((await own.generate(request)).tokens, vectors[name].baseGreedy);
    t.same((await own.generate({ ...request, adapter: mine })).tokens, vectors[name].greedy);
  }
});

test('both train the same adapter, and take the same features', { timeout: 1_200_000 }, async (t) => {
  const { own, other } = await engines(t, GLOSSA, { serving: { batch: 4, queue: 32 } });
  const order = job(own, { rank: 6, alpha: 12, targets: ['q_proj', 'v_proj', 'up_proj', 'down_proj'] });
  const losses: number[][] = [[], []];
  const states: Uint8Array[] = [];
  const mine = await own.train(order, {
    progress: ({ loss }) => losses[0]!.push(loss),
    checkpoint: (state) => void states.push(state),
  });
  const theirs = await other.train(order, { progress: ({ loss }) => losses[1]!.push(loss) });
  t.ok(apart(losses[0]!, losses[1]!) < 1e-4, 'the loss of every step');
  t.same(Buffer.from(mine.adapter.config), Buffer.from(theirs.adapter.config), 'the same configuration, byte for byte');
  t.same([mine.steps, mine.tokens], [theirs.steps, theirs.tokens]);
  for (const which of ['adapter', 'attribution'] as const) {
    const expected = readTensors(theirs[which].weights, 'BAD_ADAPTER');
    const got = readTensors(mine[which].weights, 'BAD_ADAPTER');
    t.same([...got.keys()].sort(), [...expected.keys()].sort());
    for (const [name, { values, shape }] of got) {
      t.same(shape, expected.get(name)!.shape);
      // Where a gradient is near nothing, Adam makes a whole step of a rounding error.
      const distance = apart(values, expected.get(name)!.values);
      t.ok(distance < 2e-2, `${which} ${name}: ${distance}`);
    }
    const all = (tensors: typeof got): number[] =>
      [...tensors.keys()].sort().flatMap((n) => [...tensors.get(n)!.values]);
    const whole = apart(all(got), all(expected));
    t.ok(whole < 2e-3, `${which} as a whole: ${whole}`);
  }
  t.equal(states.length, 4);
  const resumed = await own.train({ ...order, resume: states[1]! });
  t.equal(Buffer.compare(resumed.adapter.weights, mine.adapter.weights), 0, 'goes on to the same bits');

  // Features of all records by either engine, each in its own bases; and of queries in the bases of the other.
  const examples = records(own, 40);
  const checkpoint = theirs.attribution;
  const bases = await Promise.all(
    [own, other].map(async (model) => {
      const adapter = await model.openAdapter(checkpoint);
      const layout = model.layout(adapter.lora);
      const spool = new VectorSpool(layout.size);
      for await (const { gradient } of model.gradients(examples, adapter)) spool.append(gradient);
      const covariances = await model.covariances(examples, adapter);
      const made = await buildBases(layout, spool, covariances, {
        ...{ k: 32, sketchWidth: 4096, sketchSeed: 5n, rotationSeed: 6n, damping: 0.01, projectionRows: 64 },
      });
      return { made, spool, adapter, model };
    }),
  );
  const extractor = featureExtractor(bases[1]!.made);
  let worst = 1;
  for (let i = 0; i < examples.length; i++) {
    const [a, b] = bases.map(({ spool }) => extractor.feature(spool.at(i)).values);
    worst = Math.min(worst, cosine(a!, b!));
  }
  t.ok(worst >= 0.9999, `features in the same bases: least cosine ${worst}`);
  const query = own.tokenizer.question('Who came back?', 'Five little ducks came back.');
  const features = await Promise.all(
    bases.map(async ({ model, adapter }) => {
      const [{ gradient } = { gradient: new Float32Array() }] = await collect(model.gradients([query], adapter));
      return extractor.feature(gradient).values;
    }),
  );
  t.ok(cosine(features[0]!, features[1]!) >= 0.9999, 'the query’s too');
  let rows = 0;
  for await (const { values } of extractRows(featureExtractor(bases[0]!.made), bases[0]!.spool)) {
    rows += Number(values.some((value) => value !== 0));
  }
  t.equal(rows, examples.length);
  for (const { spool } of bases) spool.close();

  // Adapters of either serve in either, many at a time, and give the same tokens.
  const prompt = own.tokenizer.encode(own.tokenizer.chat([{ role: 'user', content: 'What is a bird?' }]));
  const requests = [mine.adapter, theirs.adapter, mine.attribution, theirs.attribution].flatMap((adapter, i) =>
    [0, 0.7].map((temperature) => ({
      adapter,
      request: {
        prompt: [...prompt.slice(0, prompt.length - (i % 2))],
        maxTokens: 24,
        temperature,
        topP: 0.9,
        seed: BigInt(i),
      },
    })),
  );
  const answers = await Promise.all(
    [own, other].map((model) =>
      Promise.all(
        requests.map(async ({ adapter, request }) => {
          const opened = await model.openAdapter(adapter);
          const made = await model.generate({ ...request, adapter: opened } satisfies GenerationRequest);
          await opened.close();
          return [made.tokens, made.text, made.finish];
        }),
      ),
    ),
  );
  t.same(answers[0], answers[1]);
  t.equal(own.metrics().adapters, 1, 'the checkpoint’s is open still');
});

test('the process is killed amid all kinds of work, and none of it is lost', { timeout: 1_200_000 }, async (t) => {
  const scratch = mkdtempSync(join(tmpdir(), 'torch-kill-'));
  cpSync(GLOSSA, join(scratch, 'model'), { recursive: true });
  const search = await findPython();
  if (!search.found) throw new Error(search.reason);
  const engine = torchEngine({ python: search.python.program, device: 'cpu', threads: 1, scratch, backoffMs: 100 });
  t.teardown(async () => {
    await engine.close();
    rmSync(scratch, { recursive: true });
  });
  const model = await engine.load(join(scratch, 'model'));
  const order = job(model, SEVEN, 24);
  const straight = await model.train(order);
  const adapter = await model.openAdapter(straight.adapter);
  const request = {
    prompt: model.tokenizer.encode('A bird is'),
    maxTokens: 60,
    temperature: 0.8,
    topP: 1,
    seed: 3n,
    adapter,
  };
  const whole = await model.generate(request);
  const examples = records(model, 70);
  const gradients = await collect(model.gradients(examples, adapter));

  const steps: number[] = [];
  const tokens: number[] = [];
  const work = Promise.all([
    model.train(order, { progress: ({ step }) => steps.push(step) }),
    model.generate(request, { token: ({ index }) => tokens.push(index) }),
    collect(model.gradients(examples, adapter)),
    model.covariances(examples, adapter),
  ]);
  const until = async (done: () => boolean): Promise<void> => {
    while (!done()) await new Promise((resolve) => setTimeout(resolve, 5));
  };
  await until(() => steps.length >= 6 && tokens.length >= 3);
  process.kill(engine.processOf(model)!, 'SIGKILL');
  await until(() => model.metrics().restarts === 1 && steps.length >= 16);
  process.kill(engine.processOf(model)!, 'SIGKILL');
  const [trained, answer, again] = await work;
  t.equal(model.metrics().restarts, 2);
  t.same(
    steps,
    Array.from({ length: 24 }, (_, i) => i + 1),
    'each step is told once',
  );
  t.equal(Buffer.compare(trained.adapter.weights, straight.adapter.weights), 0, 'the training’s result to the bit');
  t.same(answer.tokens, whole.tokens, 'the answer’s tokens');
  t.same(
    tokens,
    Array.from({ length: whole.tokens.length }, (_, i) => i),
    'each is told once',
  );
  t.equal(again.length, 70);
  for (const [i, { gradient }] of again.entries()) t.ok(apart(gradient, gradients[i]!.gradient) < 1e-5);
});
