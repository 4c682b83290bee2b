/**
 * LoRA training: AdamW (Loshchilov & Hutter 2019) with decoupled decay, warm-up and cosine, gradient clipping. A batch's
 * objective is the mean over its examples of ν · mean loss of the example, so that an example's part in the gradient is
 * what attribution takes for it. A step is synchronous; between steps the caller does as it likes.
 */
import { createHash } from 'node:crypto';
import type { Example, TrainingJob, TrainingSettings } from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import { checkLora } from '../lora.ts';
import { LoraMemory } from './adapter.ts';
import { loraModules } from './config.ts';
import type { Model } from './model.ts';
import { checkExample, pass } from './pass.ts';
import { random, shuffled } from './random.ts';

const EPSILON = 1e-8;
const FACTOR_STREAM = 1;
/** The epoch is added. */
const ORDER_STREAM = 1024;
const MAGIC = 'embedded-checkpoint-1';

export interface StepResult {
  readonly step: number;
  readonly loss: number;
  readonly learningRate: number;
  /** Tokens read. */
  readonly tokens: number;
}

export class Trainer {
  readonly adapter: LoraMemory;
  readonly total: number;
  readonly #model: Model;
  readonly #settings: TrainingSettings;
  readonly #examples: readonly Example[];
  readonly #weights: readonly number[];
  readonly #stepsPerEpoch: number;
  readonly #gradient: number;
  readonly #first: Float32Array;
  readonly #second: Float32Array;
  readonly #digest: string;
  #middle: Float32Array | undefined;
  #losses: number[] = [];
  #step = 0;
  #tokens = 0;
  #epoch = -1;
  #order: Int32Array = new Int32Array(0);
  #sums = { loss: 0, tokens: 0, read: 0 };

  constructor(model: Model, job: TrainingJob) {
    const { settings } = job;
    checkSettings(settings);
    if (job.weights !== undefined && job.weights.length !== job.examples.length) {
      throw new EngineError('BAD_SETTINGS', `${job.weights.length} weights for ${job.examples.length} examples`);
    }
    const longest = Math.min(settings.sequenceLength, model.shape.maxPositions + 1);
    const kept: { example: Example; weight: number }[] = [];
    for (const [i, example] of job.examples.entries()) {
      const weight = job.weights?.[i] ?? 1;
      if (!(weight >= 0 && weight <= 1)) throw new EngineError('BAD_SETTINGS', `weight ${weight} of example ${i}`);
      const tokens = example.tokens.length > longest ? example.tokens.slice(0, longest) : example.tokens;
      const cut = { tokens, from: example.from };
      // A response that is cut away whole has no loss.
      if (weight === 0 || (tokens !== example.tokens && example.from >= tokens.length)) continue;
      checkExample(model, cut);
      kept.push({ example: cut, weight });
    }
    if (kept.length === 0) throw new EngineError('BAD_EXAMPLE', 'no example with a response and a weight');
    this.#model = model;
    this.#settings = settings;
    this.#examples = kept.map(({ example }) => example);
    this.#weights = kept.map(({ weight }) => weight);
    this.#stepsPerEpoch = Math.ceil(kept.length / settings.batch);
    this.total = settings.steps ?? settings.epochs * this.#stepsPerEpoch;
    this.#digest = digestOf(model, settings, this.#examples, this.#weights);
    this.adapter = new LoraMemory(model, settings.lora);
    const { size } = this.adapter.layout;
    this.#first = new Float32Array(size);
    this.#second = new Float32Array(size);
    try {
      this.#gradient = model.heap.alloc(size);
      if (job.resume === undefined) this.#initialise();
      else this.#restore(job.resume);
      this.adapter.refresh();
    } catch (error) {
      this.adapter.close();
      throw error;
    }
  }

  get step(): number {
    return this.#step;
  }

  get tokens(): number {
    return this.#tokens;
  }

  /** Parameters at the end and at mid-run, and the loss of the last epoch's worth of steps. */
  result(): { readonly final: Float32Array; readonly middle: Float32Array; readonly loss: number } {
    const last = this.#losses.slice(-this.#stepsPerEpoch);
    return {
      final: this.adapter.values().slice(),
      middle: this.#middle ?? this.adapter.values().slice(),
      loss: last.reduce((sum, loss) => sum + loss, 0) / Math.max(1, last.length),
    };
  }

  close(): void {
    this.#model.heap.free(this.#gradient);
    this.adapter.close();
  }

  /** The next step: one slice an example, so that a thread can look around between them. */
  *slices(): Generator<void, StepResult> {
    const batch = this.#batch();
    const { heap } = this.#model;
    const { size } = this.adapter.layout;
    heap.view(this.#gradient, size).fill(0);
    const { places } = this.adapter.placesFrom(0);
    const gradient = (part: Parameters<typeof places>[0]): { a: number; b: number } => {
      const { a, b } = places(part);
      return { a: this.#gradient + a * 4, b: this.#gradient + b * 4 };
    };
    this.#sums = { loss: 0, tokens: 0, read: 0 };
    for (const index of batch) {
      const example = this.#examples[index]!;
      const factor = this.#weights[index]! / (example.tokens.length - example.from) / batch.length;
      const { loss, tokens } = pass(this.#model, example, this.adapter, { factor, fromLayer: 0, stride: 1, gradient });
      this.#sums.loss += loss;
      this.#sums.tokens += tokens;
      this.#sums.read += example.tokens.length;
      yield;
    }
    return this.#update();
  }

  #batch(): Int32Array {
    const epoch = Math.floor(this.#step / this.#stepsPerEpoch);
    if (epoch !== this.#epoch) {
      this.#order = shuffled(this.#examples.length, random(this.#settings.seed, ORDER_STREAM + epoch));
      this.#epoch = epoch;
    }
    const from = (this.#step % this.#stepsPerEpoch) * this.#settings.batch;
    return this.#order.subarray(from, from + this.#settings.batch);
  }

  #update(): StepResult {
    const { weightDecay = 0, betas = [0.9, 0.999], clip = 1 } = this.#settings;
    const { size } = this.adapter.layout;
    const loss = this.#sums.loss / this.#sums.tokens;
    const gradient = this.#model.heap.view(this.#gradient, size);
    let square = 0;
    for (let i = 0; i < size; i++) square += gradient[i]! * gradient[i]!;
    if (!Number.isFinite(loss) || !Number.isFinite(square)) {
      throw new EngineError('DIVERGED', `step ${this.#step + 1}: loss ${loss}, gradient norm ${Math.sqrt(square)}`);
    }
    const norm = Math.sqrt(square);
    const shrink = clip > 0 ? Math.min(1, clip / (norm + 1e-6)) : 1;
    const rate = rateAt(this.#settings, this.#step, this.total);
    const [beta1, beta2] = betas;
    const t = this.#step + 1;
    const stepSize = rate / (1 - beta1 ** t);
    const root = Math.sqrt(1 - beta2 ** t);
    const parameters = this.adapter.values();
    const first = this.#first;
    const second = this.#second;
    for (let i = 0; i < size; i++) {
      const g = gradient[i]! * shrink;
      const m = beta1 * first[i]! + (1 - beta1) * g;
      const v = beta2 * second[i]! + (1 - beta2) * g * g;
      first[i] = m;
      second[i] = v;
      parameters[i] = parameters[i]! * (1 - rate * weightDecay) - (stepSize * m) / (Math.sqrt(v) / root + EPSILON);
    }
    this.adapter.refresh();
    this.#step = t;
    this.#tokens += this.#sums.read;
    this.#losses.push(loss);
    if (t === Math.ceil(this.total / 2)) this.#middle = parameters.slice();
    return { step: t, loss, learningRate: rate, tokens: this.#sums.read };
  }

  /** As PEFT: A uniform in ± 1 / √in (Kaiming's with a = √5), B zero. */
  #initialise(): void {
    const source = random(this.#settings.seed, FACTOR_STREAM);
    const parameters = this.adapter.values();
    const isA = new Set(loraModules(this.#model.shape, this.#settings.lora).map(({ a }) => a));
    for (const { name, rank, hidden, offset } of this.adapter.layout.matrices) {
      if (!isA.has(name)) continue;
      const bound = 1 / Math.sqrt(hidden);
      for (let i = 0; i < rank * hidden; i++) parameters[offset + i] = (source.unit() * 2 - 1) * bound;
    }
  }

  // ---- checkpoints ---------------------------------------------------------------------------------------------------

  /** JSON line, then float32: parameters, both moments, parameters at mid-run if past; then float64 losses. */
  checkpoint(): Uint8Array {
    const head = {
      magic: MAGIC,
      job: this.#digest,
      step: this.#step,
      tokens: this.#tokens,
      middle: this.#middle !== undefined,
    };
    const parts = [
      new TextEncoder().encode(`${JSON.stringify(head)}\n`),
      ...[this.adapter.values(), this.#first, this.#second, ...(this.#middle === undefined ? [] : [this.#middle])].map(
        bytesOf,
      ),
      bytesOf(Float64Array.from(this.#losses)),
    ];
    return new Uint8Array(Buffer.concat(parts));
  }

  #restore(state: Uint8Array): void {
    const bad = (message: string, cause?: unknown): EngineError =>
      new EngineError('BAD_CHECKPOINT', message, { cause });
    const end = state.indexOf(10);
    let head: { magic?: unknown; job?: unknown; step?: unknown; tokens?: unknown; middle?: unknown };
    try {
      head = JSON.parse(new TextDecoder().decode(state.subarray(0, Math.max(0, end))));
    } catch (cause) {
      throw bad('not a checkpoint', cause);
    }
    if (head?.magic !== MAGIC) throw bad('not a checkpoint of this engine');
    if (head.job !== this.#digest) throw bad('a checkpoint of another job');
    const { step, tokens, middle } = head;
    const count = (n: unknown): n is number => Number.isSafeInteger(n) && (n as number) >= 0;
    if (!count(step) || !count(tokens) || step > this.total) throw bad(`step ${String(step)} of ${this.total}`);
    const { size } = this.adapter.layout;
    const blocks = middle === true ? 4 : 3;
    if (state.length !== end + 1 + blocks * size * 4 + step * 8) throw bad(`${state.length} bytes`);
    const body = new Uint8Array(state.subarray(end + 1)).buffer;
    const block = (index: number): Float32Array => new Float32Array(body, index * size * 4, size);
    this.adapter.values().set(block(0));
    this.#first.set(block(1));
    this.#second.set(block(2));
    if (middle === true) this.#middle = block(3).slice();
    this.#losses = [...new Float64Array(body.slice(blocks * size * 4))];
    this.#step = step;
    this.#tokens = tokens;
  }
}

const bytesOf = (values: Float32Array | Float64Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** The rate of step `index` (from 0). */
export function rateAt(settings: TrainingSettings, index: number, total: number): number {
  const rising = Math.ceil(settings.warmup * total);
  if (index < rising) return (settings.learningRate * (index + 1)) / rising;
  return settings.learningRate * 0.5 * (1 + Math.cos((Math.PI * (index - rising)) / (total - rising)));
}

function checkSettings(settings: TrainingSettings): void {
  const { weightDecay = 0, betas = [0.9, 0.999], clip = 1, checkpointEvery = 1, steps = 1 } = settings;
  checkLora(settings.lora, 'BAD_SETTINGS');
  const checks: readonly (readonly [string, boolean])[] = [
    ['learningRate', Number.isFinite(settings.learningRate) && settings.learningRate >= 0],
    ['epochs', settings.steps !== undefined || (Number.isSafeInteger(settings.epochs) && settings.epochs >= 1)],
    ['steps', Number.isSafeInteger(steps) && steps >= 1],
    ['batch', Number.isSafeInteger(settings.batch) && settings.batch >= 1],
    ['sequenceLength', Number.isSafeInteger(settings.sequenceLength) && settings.sequenceLength >= 2],
    ['warmup', settings.warmup >= 0 && settings.warmup <= 1],
    ['weightDecay', Number.isFinite(weightDecay) && weightDecay >= 0],
    ['betas', betas.length === 2 && betas.every((beta) => beta >= 0 && beta < 1)],
    ['clip', Number.isFinite(clip) && clip >= 0],
    ['seed', typeof settings.seed === 'bigint' && settings.seed >= 0n && settings.seed < 1n << 64n],
    ['checkpointEvery', Number.isSafeInteger(checkpointEvery) && checkpointEvery >= 1],
  ];
  for (const [name, good] of checks) if (!good) throw new EngineError('BAD_SETTINGS', name);
}

/** What must be the same for a checkpoint to go on: everything but where checkpoints are made. */
function digestOf(
  model: Model,
  settings: TrainingSettings,
  examples: readonly Example[],
  weights: readonly number[],
): string {
  const { lora, seed, checkpointEvery: _, ...rest } = settings;
  const hash = createHash('sha256');
  const entries = Object.entries(rest).sort(([x], [y]) => (x < y ? -1 : 1));
  hash.update(
    JSON.stringify([model.info.files, lora.rank, lora.alpha, [...lora.targets].sort(), String(seed), entries]),
  );
  hash.update(bytesOf(Float64Array.from(weights)));
  for (const { tokens, from } of examples) {
    hash.update(Int32Array.of(from, tokens.length));
    hash.update(Int32Array.from(tokens));
  }
  return hash.digest('hex');
}
