import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import { writeAdapter } from '../../../gpu-worker/engines/embedded/adapter.ts';
import { parseConfig } from '../../../gpu-worker/engines/embedded/config.ts';
import { embeddedEngine } from '../../../gpu-worker/engines/embedded/engine.ts';
import { readTensors } from '../../../gpu-worker/engines/embedded/safetensors.ts';
import {
  type Adapter,
  type AdapterFiles,
  type Engine,
  type Example,
  type GenerationRequest,
  LORA_TARGETS,
  type LoadedModel,
  type LoraSettings,
  type TrainingJob,
} from '../../../gpu-worker/engines/engine.ts';
import type { EngineErrorCode } from '../../../gpu-worker/engines/engine-error.ts';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const VECTORS = here('../../vectors/embedded');
const GLOSSA = here('../../../gpu-worker/models/glossa-3m');

interface Expected {
  readonly examples: Example[];
  readonly baseLosses: number[];
  readonly losses: number[];
  readonly gradients: Record<string, string>[];
  readonly block: number;
  readonly covariances: Record<string, { rank: string; hidden: string }>;
  readonly baseGreedy: number[];
  readonly greedy: number[];
  readonly training?: {
    readonly [key in 'learningRate' | 'steps' | 'warmup' | 'weightDecay' | 'clip']: number;
  } & {
    losses: number[];
    parameters: Record<string, string>;
    weights: number[];
    betas: [number, number];
    seed: string;
    lora: LoraSettings;
  };
}
const expected: { deep: Expected; wide: Expected } = JSON.parse(readFileSync(join(VECTORS, 'vectors.json'), 'utf8'));
const floats = (base64: string): Float32Array => new Float32Array(new Uint8Array(Buffer.from(base64, 'base64')).buffer);
const doubles = (base64: string): Float64Array =>
  new Float64Array(new Uint8Array(Buffer.from(base64, 'base64')).buffer);
const files = (directory: string): AdapterFiles => ({
  config: readFileSync(join(directory, 'adapter_config.json')),
  weights: readFileSync(join(directory, 'adapter_model.safetensors')),
});
const SEVEN: LoraSettings = { rank: 4, alpha: 8, targets: LORA_TARGETS };

/** Largest distance, as a part of the largest expected entry. */
function distance(got: ArrayLike<number>, want: ArrayLike<number>): number {
  if (got.length !== want.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  let largest = 1e-30;
  for (let i = 0; i < got.length; i++) {
    const gap = Math.abs(got[i]! - want[i]!);
    if (!(gap <= worst)) worst = gap;
    largest = Math.max(largest, Math.abs(want[i]!));
  }
  return worst / largest;
}

/** PyTorch's lora_B is [out][rank]; ours is turned. */
function turnedB(name: string, values: Float32Array, rank: number, hidden: number): Float32Array {
  if (name.includes('lora_A')) return values;
  return Float32Array.from({ length: values.length }, (_, i) => values[(i % hidden) * rank + Math.floor(i / hidden)]!);
}

const codeOf = (body: () => unknown): Promise<EngineErrorCode | string | undefined> =>
  Promise.resolve()
    .then(body)
    .then(
      () => undefined,
      (error) => (typeof error.code === 'string' ? error.code : error.name),
    );

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const item of items) out.push(item);
  return out;
}

const bytes = (outcome: { adapter: AdapterFiles; attribution: AdapterFiles }): string =>
  [outcome.adapter, outcome.attribution]
    .map(({ config, weights }) => Buffer.concat([config, weights]).toString('hex'))
    .join();

/** An adapter of any numbers, as large as a trained one's. */
function someAdapter(
  directory: string,
  model: LoadedModel,
  lora: LoraSettings,
  seed: number,
  size = 0.2,
): AdapterFiles {
  const layout = model.layout(lora);
  const shape = parseConfig(readFileSync(join(directory, 'config.json'), 'utf8'));
  const values = Float32Array.from({ length: layout.size }, (_, i) => size * Math.sin(seed + i * i * 0.7));
  return writeAdapter(shape, lora, layout, values, 'x');
}

test('losses, gradients, covariances and greedy text are PyTorch’s', { timeout: 120_000 }, async (t) => {
  const engine = await embeddedEngine();
  t.teardown(() => engine.close());
  for (const name of ['deep', 'wide'] as const) {
    const want = expected[name];
    const model = await engine.load(join(VECTORS, name));
    const adapter = await model.openAdapter(files(join(VECTORS, name, 'adapter')));
    t.ok(distance(await model.losses(want.examples), want.baseLosses) < 3e-6, `${name}: base`);
    t.ok(distance(await model.losses(want.examples, adapter), want.losses) < 3e-6, `${name}: with adapter`);
    const layout = model.layout(adapter.lora);
    for (const { index, gradient, loss, tokens } of await collect(model.gradients(want.examples, adapter))) {
      t.equal(tokens, want.examples[index]!.tokens.length - want.examples[index]!.from);
      t.ok(Math.abs(loss - want.losses[index]!) < 1e-5);
      for (const { name: matrix, rank, hidden, offset } of layout.matrices) {
        const own = gradient.subarray(offset, offset + rank * hidden);
        const theirs = turnedB(matrix, floats(want.gradients[index]![matrix]!), rank, hidden);
        t.ok(distance(own, theirs) < 2e-5, `${name}: gradient of ${matrix} by example ${index}`);
      }
    }
    const covariances = await model.covariances(want.examples, adapter, { block: want.block });
    for (const [m, { name: matrix }] of layout.matrices.entries()) {
      const { rank, hidden } = want.covariances[matrix]!;
      t.ok(distance(covariances[m]!.rank, doubles(rank)) < 3e-5, `${name}: rank side of ${matrix}`);
      t.ok(distance(covariances[m]!.hidden, doubles(hidden)) < 3e-5, `${name}: hidden side of ${matrix}`);
    }
    const { tokens, from } = want.examples[1]!;
    const request = { prompt: tokens.slice(0, from), maxTokens: 24, temperature: 0, topP: 1, seed: 0n };
    t.same((await model.generate(request)).tokens, want.baseGreedy, `${name}: base’s greedy tokens`);
    t.same((await model.generate({ ...request, adapter })).tokens, want.greedy, `${name}: adapter’s greedy tokens`);
    await model.close();
  }
});

test('training is PyTorch’s AdamW with clipping, warm-up and cosine', async (t) => {
  const engine = await embeddedEngine();
  t.teardown(() => engine.close());
  const model = await engine.load(join(VECTORS, 'wide'));
  const { examples, training } = expected.wide;
  const { losses, parameters, weights, seed, lora, ...settings } = training!;
  const seen: number[] = [];
  const outcome = await model.train(
    { settings: { ...settings, lora, epochs: 1, batch: 3, sequenceLength: 96, seed: BigInt(seed) }, examples, weights },
    { progress: ({ loss }) => seen.push(loss) },
  );
  t.ok(distance(seen, losses) < 1e-5, 'loss of every step');
  t.ok(losses.at(-1)! < losses[0]! - 0.3, 'and it falls');
  for (const [name, { values }] of readTensors(outcome.adapter.weights, 'BAD_ADAPTER')) {
    const theirs = floats(parameters[name]!);
    // In sum: where a gradient is near nothing, Adam makes a whole step of a rounding error.
    const gap = Math.hypot(...values.map((value, i) => value - theirs[i]!)) / Math.hypot(...theirs);
    t.ok(gap < 1e-4, `${name}: ${gap}`);
  }
});

test('gradients are the slopes of the loss', async (t) => {
  const engine = await embeddedEngine();
  t.teardown(() => engine.close());
  const model = await engine.load(GLOSSA);
  const shape = parseConfig(readFileSync(join(GLOSSA, 'config.json'), 'utf8'));
  const layout = model.layout(SEVEN);
  const start = Float32Array.from({ length: layout.size }, (_, i) => 0.03 * Math.sin(i * 1.7 + (i % 11)));
  const example = model.tokenizer.question('What is a harbour?', 'A sheltered place where ships may lie at anchor.');
  const open = (values: Float32Array): Promise<Adapter> =>
    model.openAdapter(writeAdapter(shape, SEVEN, layout, values, 'x'));
  const adapter = await open(start);
  const { gradient } = (await collect(model.gradients([example], adapter)))[0]!;
  for (const { name, offset, rank, hidden } of layout.matrices.filter((_, i) => i % 9 === 0)) {
    let square = 0;
    for (let i = offset; i < offset + rank * hidden; i++) square += gradient[i]! ** 2;
    const step = 0.02 / Math.sqrt(square);
    const moved = async (sign: number): Promise<number> => {
      const values = start.slice();
      for (let i = offset; i < offset + rank * hidden; i++) values[i]! += sign * step * gradient[i]!;
      const other = await open(values);
      const [loss] = await model.losses([example], other);
      await other.close();
      return loss!;
    };
    const slope = ((await moved(1)) - (await moved(-1))) / (2 * step);
    t.ok(Math.abs(slope / square - 1) < 0.03, `${name}: ${slope} for ${square}`);
  }
  const late = await collect(model.gradients([example], adapter, { fromLayer: 4 }));
  const part = model.layout(SEVEN, { fromLayer: 4 });
  for (const { name, offset, rank, hidden } of part.matrices) {
    const whole = layout.matrices.find((matrix) => matrix.name === name)!.offset;
    const own = late[0]!.gradient.subarray(offset, offset + rank * hidden);
    t.equal(distance(own, gradient.subarray(whole, whole + rank * hidden)), 0, `${name}: the same from layer 4 on`);
  }
});

test('a request that comes to nothing does not stop those behind it', { timeout: 60_000 }, async (t) => {
  const engine = await embeddedEngine({ thread: false });
  t.teardown(() => engine.close());
  const model = await engine.load(GLOSSA);
  const request = { prompt: [1, 5, 6], maxTokens: 4, temperature: 0, topP: 1, seed: 1n };
  // Nothing to do on the first step: as where no memory was left for the only request.
  t.equal((await model.generate(request, { signal: AbortSignal.abort() })).finish, 'aborted');
  t.not((await model.generate(request)).finish, 'aborted');
});

test('training is the same on every run, thread and after every interruption', { timeout: 120_000 }, async (t) => {
  const [apart, inline] = await Promise.all([embeddedEngine(), embeddedEngine({ thread: false })]);
  t.teardown(() => Promise.all([apart.close(), inline.close()]));
  const model = await apart.load(GLOSSA);
  const twin = await inline.load(GLOSSA);
  const examples = Array.from({ length: 11 }, (_, i) =>
    model.tokenizer.question(`What is ${i} times ${i}?`, `It is ${i * i}, the square of ${i}.`),
  );
  const weights = examples.map((_, i) => (i === 3 ? 0 : 1 - i / 20));
  const lora: LoraSettings = { rank: 6, alpha: 12, targets: ['q_proj', 'v_proj', 'down_proj'] };
  const settings = {
    ...{ lora, learningRate: 5e-3, epochs: 2, batch: 3, sequenceLength: 64, warmup: 0.2, weightDecay: 0.01 },
    ...{ seed: 2n ** 64n - 1n, checkpointEvery: 1 },
  };
  const job: TrainingJob = { settings, examples, weights };
  const states: Uint8Array[] = [];
  const outcome = await model.train(job, { checkpoint: (state) => void states.push(state) });
  t.equal(outcome.steps, 8);
  t.equal(states.length, 8);
  t.ok(outcome.loss < 4 && outcome.tokens > 300);
  t.equal(bytes(await twin.train(job)), bytes(outcome), 'in the caller’s thread');
  for (const at of [0, 4, 7]) {
    const rest: number[] = [];
    const resumed = await model.train({ ...job, resume: states[at]! }, { progress: ({ step }) => rest.push(step) });
    t.equal(bytes(resumed), bytes(outcome), `from step ${at + 1}`);
    t.equal(resumed.loss, outcome.loss);
    t.equal(resumed.tokens, outcome.tokens);
    t.equal(rest[0] ?? 9, at + 2);
  }
  const half = await model.train({ ...job, settings: { ...settings, steps: 8, epochs: 99 } });
  t.equal(Buffer.compare(half.attribution.weights, outcome.attribution.weights), 0, 'steps instead of epochs');
  t.not(Buffer.compare(outcome.attribution.weights, outcome.adapter.weights), 0, 'mid-run is not the end');
  const other = await model.train({ ...job, settings: { ...settings, seed: 1n } });
  t.not(bytes(other), bytes(outcome), 'another seed');
  const left = await model.train({ ...job, examples: examples.toSpliced(3, 1), weights: weights.toSpliced(3, 1) });
  t.equal(bytes(left), bytes(outcome), 'weight 0 is as if it were not there');

  t.equal(
    await codeOf(() =>
      model.train({ ...job, examples: examples.slice(1), weights: weights.slice(1), resume: states[2]! }),
    ),
    'BAD_CHECKPOINT',
  );
  t.equal(await codeOf(() => model.train({ ...job, resume: states[2]!.subarray(0, 5000) })), 'BAD_CHECKPOINT');
  t.equal(await codeOf(() => model.train({ ...job, resume: new Uint8Array(3) })), 'BAD_CHECKPOINT');
  t.equal(
    await codeOf(() => model.train({ ...job, settings: { ...settings, learningRate: 1e30, clip: 0 } })),
    'DIVERGED',
  );
  t.equal(await codeOf(() => model.train({ ...job, settings: { ...settings, batch: 0 } })), 'BAD_SETTINGS');
  t.equal(
    await codeOf(() => model.train({ ...job, settings: { ...settings, lora: { ...lora, targets: [] } } })),
    'BAD_SETTINGS',
  );
  t.equal(await codeOf(() => model.train({ ...job, weights: [1] })), 'BAD_SETTINGS');
  t.equal(await codeOf(() => model.train({ settings, examples: [] })), 'BAD_EXAMPLE');
  t.equal(await codeOf(() => model.train({ settings, examples: [{ tokens: [1, 5000], from: 1 }] })), 'BAD_EXAMPLE');
  const stop = new AbortController();
  t.equal(await codeOf(() => model.train(job, { signal: stop.signal, progress: () => stop.abort() })), 'AbortError');
  const failing = model.train(job, {
    checkpoint: () => Promise.reject(Object.assign(new Error('full'), { code: 'ENOSPC' })),
  });
  t.equal(await codeOf(() => failing), 'ENOSPC', 'a checkpoint that cannot be stored ends the training');
});

test('a batch of several adapters gives what each gives alone', { timeout: 120_000 }, async (t) => {
  const engine = await embeddedEngine();
  t.teardown(() => engine.close());
  const model = await engine.load(GLOSSA, { serving: { batch: 5, queue: 32 } });
  const lora: LoraSettings[] = [
    { rank: 8, alpha: 8, targets: ['q_proj', 'v_proj'] },
    { rank: 3, alpha: 5, targets: LORA_TARGETS },
  ];
  const adapters = await Promise.all(lora.map((l, i) => model.openAdapter(someAdapter(GLOSSA, model, l, i, 0.05))));
  const text = readFileSync(here('../../../gpu-worker/models/glossa-3m/README.md'), 'utf8');
  const requests: GenerationRequest[] = Array.from({ length: 14 }, (_, i) => ({
    ...(i % 3 === 0 ? {} : { adapter: adapters[i % 2]! }),
    prompt: model.tokenizer.encode(text).slice(i, i + 3 + ((i * 47) % 290)),
    maxTokens: 5 + ((i * 13) % 40),
    temperature: i % 4 === 0 ? 0 : 0.6 + i / 20,
    topP: i % 2 === 0 ? 1 : 0.8,
    seed: BigInt(i),
  }));
  const together = await Promise.all(requests.map((request) => model.generate(request)));
  let sampled = 0;
  for (const [i, request] of requests.entries()) {
    const alone = await model.generate(request);
    t.same(together[i]!.tokens, alone.tokens, `request ${i}`);
    t.equal(together[i]!.text, alone.text);
    t.equal(alone.promptTokens, request.prompt.length);
    sampled += 2 * alone.tokens.length;
  }
  t.equal(model.metrics().generatedTokens, sampled);
  t.equal(model.metrics().adapters, 2);
  t.notSame(
    (await model.generate({ ...requests[1]!, seed: 99n })).tokens,
    together[1]!.tokens,
    'another seed, other tokens',
  );
  // What is decoded token by token is what a reading of the whole says: the greedy token has the largest probability.
  const greedy = together[4]!;
  const read = { tokens: [...requests[4]!.prompt, ...greedy.tokens], from: requests[4]!.prompt.length };
  const [best] = await model.losses([read], requests[4]!.adapter);
  for (const [at, token] of greedy.tokens.entries()) {
    const tokens = [...read.tokens];
    tokens[read.from + at] = (token + 1) % model.info.vocabulary;
    const cut = { tokens: tokens.slice(0, read.from + at + 1), from: read.from + at };
    const same = { tokens: read.tokens.slice(0, read.from + at + 1), from: read.from + at };
    const [worse, own] = await model.losses([cut, same], requests[4]!.adapter);
    t.ok(worse! > own!, `token ${at}`);
  }
  t.ok(best! > 0);

  // A training beside it changes nothing.
  const job: TrainingJob = {
    settings: { lora: lora[0]!, learningRate: 1e-3, epochs: 1, batch: 4, sequenceLength: 64, warmup: 0, seed: 3n },
    examples: Array.from({ length: 16 }, (_, i) => model.tokenizer.plain(text.slice(i * 20, i * 20 + 150))),
  };
  const [outcome, beside] = await Promise.all([model.train(job), model.generate(requests[5]!)]);
  t.same(beside.tokens, together[5]!.tokens);
  t.equal(bytes(await model.train(job)), bytes(outcome));

  await adapters[0]!.close();
  t.equal(await codeOf(() => model.generate({ ...requests[0]!, adapter: adapters[0]! })), 'ADAPTER_CLOSED');
  t.equal(model.metrics().adapters, 1);
});

test('serving: stops, streams, limits, aborts', async (t) => {
  const engine = await embeddedEngine();
  t.teardown(() => engine.close());
  const model = await engine.load(GLOSSA, { serving: { batch: 2, queue: 1 } });
  const { tokenizer } = model;
  const prompt = tokenizer.encode(tokenizer.chat([{ role: 'user', content: 'What is a bird?' }]));
  const request = { prompt, maxTokens: 80, temperature: 1.2, topP: 0.95, seed: 4n };
  const free = await model.generate(request);
  t.ok(free.text.length > 20, free.text);
  t.equal(free.text, tokenizer.decode(free.tokens), 'the text is the tokens’');
  // Stop sequences of any length from any place, most of them across tokens.
  for (let at = 0; at + 6 < free.text.length; at += 5) {
    for (const length of [1, 2, 5]) {
      const stop = free.text.slice(at, at + length);
      const deltas: string[] = [];
      const stopped = await model.generate(
        { ...request, stop: ['\u0000never', stop] },
        { token: ({ delta }) => deltas.push(delta) },
      );
      t.equal(stopped.text, free.text.slice(0, free.text.indexOf(stop)), JSON.stringify(stop));
      t.equal(deltas.join(''), stopped.text);
      t.equal(stopped.finish, 'stop');
      t.same(stopped.tokens, free.tokens.slice(0, stopped.tokens.length));
      t.equal(deltas.length, stopped.tokens.length);
    }
  }
  const short = await model.generate({ ...request, maxTokens: 3, stop: [`${free.text.slice(0, 9)}#`] });
  t.equal(short.finish, 'length');
  t.equal(short.text, tokenizer.decode(free.tokens.slice(0, 3)), 'what was held back for a stop that did not come');

  const long = { ...request, temperature: 5, topP: 1, maxTokens: 400, seed: 1n };
  const abort = new AbortController();
  let seen = '';
  const aborted = model.generate(long, {
    signal: abort.signal,
    token: ({ index, delta }) => {
      seen += delta;
      if (index === 5) abort.abort();
    },
  });
  const others = [model.generate({ ...request, seed: 8n }), model.generate({ ...request, seed: 9n })];
  t.equal(await codeOf(() => model.generate(request)), 'OVERLOADED');
  const ended = await aborted;
  t.equal(ended.finish, 'aborted');
  t.ok(ended.tokens.length >= 6);
  t.equal(ended.text, seen, 'all deltas came before');
  await Promise.all(others);
  t.equal((await model.generate(request, { signal: AbortSignal.abort() })).finish, 'aborted');
  t.equal(
    await codeOf(() =>
      model.generate(request, {
        token: () => {
          throw new RangeError('mine');
        },
      }),
    ),
    'RangeError',
  );

  const full = await model.generate({ ...long, prompt: Array.from({ length: 505 }, () => 70), maxTokens: 100 });
  t.ok(full.tokens.length <= 7 && full.finish !== 'aborted', 'ends with the positions');
  t.equal(await codeOf(() => model.generate({ ...request, prompt: Array(512).fill(70) })), 'PROMPT_TOO_LONG');
  t.equal(await codeOf(() => model.generate({ ...request, prompt: [] })), 'BAD_REQUEST');
  t.equal(await codeOf(() => model.generate({ ...request, prompt: [3072] })), 'BAD_REQUEST');
  t.equal(await codeOf(() => model.generate({ ...request, topP: 0 })), 'BAD_REQUEST');
  t.equal(await codeOf(() => model.generate({ ...request, temperature: Number.NaN })), 'BAD_REQUEST');
  t.equal(await codeOf(() => model.generate({ ...request, stop: [''] })), 'BAD_REQUEST');
  t.equal(await codeOf(() => model.losses([{ tokens: [1, 2], from: 0 }])), 'BAD_EXAMPLE');
  t.equal(await codeOf(() => model.losses([{ tokens: [1, 2], from: 2 }])), 'BAD_EXAMPLE');
  t.equal(await codeOf(() => model.losses([{ tokens: Array(514).fill(9), from: 2 }])), 'BAD_EXAMPLE');

  const running = model.generate(long);
  const training = model.train({
    settings: { lora: SEVEN, learningRate: 1e-3, epochs: 500, batch: 1, sequenceLength: 64, warmup: 0, seed: 3n },
    examples: [tokenizer.plain(free.text)],
  });
  const rejected = codeOf(() => training);
  await model.losses([tokenizer.plain('one')]);
  await model.close();
  t.equal((await running).finish, 'aborted');
  t.equal(await rejected, 'ENGINE_CLOSED');
  t.equal(await codeOf(() => model.generate(request)), 'ENGINE_CLOSED');
  t.equal(model.metrics().memoryBytes, 0);
});

test('the caller’s event loop stays free', async (t) => {
  const engine = await embeddedEngine();
  t.teardown(() => engine.close());
  const model = await engine.load(GLOSSA);
  let ticks = 0;
  const timer = setInterval(() => ticks++, 5);
  const started = performance.now();
  await model.train({
    settings: {
      lora: SEVEN,
      learningRate: 1e-3,
      epochs: 1,
      steps: 4,
      batch: 8,
      sequenceLength: 128,
      warmup: 0,
      seed: 3n,
    },
    examples: Array.from({ length: 8 }, (_, i) => model.tokenizer.plain(`${i} little birds. `.repeat(20))),
  });
  clearInterval(timer);
  const elapsed = performance.now() - started;
  t.ok(ticks > elapsed / 20, `${ticks} ticks in ${elapsed} ms`);
});

test('what is not right is refused by name', async (t) => {
  const engine: Engine = await embeddedEngine();
  const scratch = mkdtempSync(join(tmpdir(), 'embedded-'));
  t.teardown(async () => {
    await engine.close();
    rmSync(scratch, { recursive: true });
  });
  let copies = 0;
  const broken = (change: (directory: string) => void, of = 'wide'): Promise<string | undefined> => {
    const directory = join(scratch, `model${copies++}`);
    cpSync(join(VECTORS, of), directory, { recursive: true });
    change(directory);
    return codeOf(() => engine.load(directory));
  };
  const config = (change: Record<string, unknown>) => (directory: string) => {
    const path = join(directory, 'config.json');
    writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...change }));
  };
  t.equal(await codeOf(() => engine.load(join(scratch, 'none'))), 'MODEL_NOT_FOUND');
  t.equal(await broken((d) => rmSync(join(d, 'tokenizer.json'))), 'MODEL_NOT_FOUND');
  t.equal(await broken((d) => rmSync(join(d, 'model-00002-of-00004.safetensors'))), 'MODEL_NOT_FOUND');
  t.equal(await broken((d) => writeFileSync(join(d, 'config.json'), '{')), 'BAD_CONFIG');
  t.equal(await broken(config({ hidden_size: -4 })), 'BAD_CONFIG');
  t.equal(await broken(config({ architectures: ['GPT2LMHeadModel'] })), 'UNSUPPORTED_MODEL');
  t.equal(await broken(config({ attention_bias: true })), 'UNSUPPORTED_MODEL');
  t.equal(await broken(config({ rope_parameters: { rope_type: 'yarn', factor: 2 } })), 'UNSUPPORTED_MODEL');
  t.equal(await broken(config({ num_hidden_layers: 3 })), 'BAD_TENSORS');
  t.equal(await broken(config({ intermediate_size: 56 })), 'BAD_TENSORS');
  t.equal(await broken((d) => truncateSync(join(d, 'model.safetensors'), 100_000), 'deep'), 'BAD_TENSORS');
  t.equal(await broken((d) => truncateSync(join(d, 'model.safetensors'), 5), 'deep'), 'BAD_TENSORS');
  t.equal(
    await broken((d) => writeFileSync(join(d, 'model.safetensors'), Buffer.alloc(64, 255)), 'deep'),
    'BAD_TENSORS',
  );
  t.equal(await broken((d) => writeFileSync(join(d, 'tokenizer.json'), '[]')), 'BAD_TOKENIZER');
  t.equal(await broken((d) => writeFileSync(join(d, 'tokenizer.json'), '{"model":{"type":"?"}}')), 'BAD_TOKENIZER');
  t.equal(await codeOf(() => engine.load(GLOSSA, { serving: { batch: 0 } })), 'BAD_SETTINGS');
  t.equal(await codeOf(() => engine.load(GLOSSA, { signal: AbortSignal.abort() })), 'AbortError');

  const model = await engine.load(join(VECTORS, 'wide'));
  const own = files(join(VECTORS, 'wide', 'adapter'));
  const settings = JSON.parse(Buffer.from(own.config).toString());
  const changed = (change: Record<string, unknown>): AdapterFiles => ({
    ...own,
    config: Buffer.from(JSON.stringify({ ...settings, ...change })),
  });
  const opened = (adapter: AdapterFiles): Promise<string | undefined> => codeOf(() => model.openAdapter(adapter));
  t.equal(await opened(files(join(VECTORS, 'deep', 'adapter'))), 'BAD_ADAPTER');
  t.equal(await opened({ ...own, weights: own.weights.subarray(0, 20_000) }), 'BAD_ADAPTER');
  t.equal(await opened({ ...own, weights: new Uint8Array(4) }), 'BAD_ADAPTER');
  t.equal(await opened({ ...own, config: new Uint8Array(4) }), 'BAD_ADAPTER');
  t.equal(await opened(changed({ r: 5 })), 'BAD_ADAPTER');
  t.equal(await opened(changed({ r: 0 })), 'BAD_ADAPTER');
  t.equal(await opened(changed({ target_modules: ['q_proj'] })), 'BAD_ADAPTER', 'tensors without a place');
  t.equal(await opened(changed({ use_dora: true })), 'UNSUPPORTED_ADAPTER');
  t.equal(await opened(changed({ peft_type: 'IA3' })), 'UNSUPPORTED_ADAPTER');
  t.equal(await opened(changed({ rank_pattern: { q_proj: 2 } })), 'UNSUPPORTED_ADAPTER');
  const twin = await engine.load(join(VECTORS, 'wide'));
  const foreign = await twin.openAdapter(own);
  t.equal(await codeOf(() => model.losses(expected.wide.examples, foreign)), 'BAD_ADAPTER');
  const before = twin.metrics().memoryBytes;
  for (let i = 0; i < 40; i++) await (await twin.openAdapter(own)).close();
  t.equal(twin.metrics().memoryBytes, before, 'closed adapters leave nothing');
  await engine.close();
  t.equal(await codeOf(() => engine.load(GLOSSA)), 'ENGINE_CLOSED');
});
