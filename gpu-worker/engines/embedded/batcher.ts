/**
 * Continuous batching (Yu et al. 2022, Orca): each step decodes one token of every running sequence, and reads some of the
 * prompts of new ones; sequences join and leave between steps, each with its own adapter. A row is computed the same
 * whatever is beside it, and each request draws from its own numbers: the batch does not show in the tokens.
 */
import { splitMix64 } from '../../attribution/seeded.ts';
import type {
  FinishReason,
  GeneratedToken,
  Generation,
  GenerationRequest,
  LoraTarget,
  ServingLimits,
} from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import { TextStream } from '../text/text-stream.ts';
import type { StreamingTokenizer } from '../text/tokenizer.ts';
import type { LoraMemory } from './adapter.ts';
import { linear, lowRank } from './layers.ts';
import { type Model, pad4 } from './model.ts';
import { sample } from './sampler.ts';

/** Prompt tokens read a step, so that those who decode do not wait long. */
const PROMPT_ROWS = 128;

export type PlainRequest = Omit<GenerationRequest, 'adapter'>;

interface Sequence {
  readonly request: PlainRequest;
  readonly adapter: LoraMemory | undefined;
  readonly limit: number;
  readonly stream: TextStream;
  readonly started: number;
  readonly token: ((token: GeneratedToken) => void) | undefined;
  readonly resolve: (generation: Generation) => void;
  readonly reject: (error: unknown) => void;
  /** Positions that the cache holds at most. */
  readonly capacity: number;
  cache: number;
  /** Positions in the cache. */
  filled: number;
  readonly tokens: number[];
  text: string;
  firstToken: number;
}

interface Segment {
  readonly sequence: Sequence;
  /** First row in the step's matrices. */
  readonly row: number;
  readonly count: number;
}

export interface ServerCounters {
  generated: number;
  prompt: number;
}

export class Server {
  readonly counters: ServerCounters = { generated: 0, prompt: 0 };
  readonly #model: Model;
  readonly #tokenizer: StreamingTokenizer;
  readonly #limits: ServingLimits;
  readonly #eos: ReadonlySet<number>;
  #active: Sequence[] = [];
  #waiting: Sequence[] = [];

  constructor(model: Model, tokenizer: StreamingTokenizer, limits: ServingLimits) {
    this.#model = model;
    this.#tokenizer = tokenizer;
    this.#limits = limits;
    this.#eos = new Set(tokenizer.eos);
  }

  get active(): number {
    return this.#active.length;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  generate(
    request: PlainRequest,
    adapter: LoraMemory | undefined,
    hooks: { readonly signal?: AbortSignal; token?(token: GeneratedToken): void },
  ): Promise<Generation> {
    const { promise, resolve, reject } = Promise.withResolvers<Generation>();
    checkRequest(this.#model, request);
    if (this.#active.length + this.#waiting.length >= this.#limits.batch + this.#limits.queue) {
      throw new EngineError('OVERLOADED', `${this.#waiting.length} requests are waiting`);
    }
    const limit = Math.min(request.maxTokens, this.#model.shape.maxPositions - request.prompt.length);
    const sequence: Sequence = {
      ...{ request, adapter, limit, resolve, reject },
      stream: new TextStream(this.#tokenizer, request.stop ?? []),
      started: performance.now(),
      token: hooks.token,
      capacity: pad4(request.prompt.length + limit),
      cache: 0,
      filled: 0,
      tokens: [],
      text: '',
      firstToken: 0,
    };
    if (hooks.signal?.aborted === true) {
      this.#finish(sequence, 'aborted');
      return promise;
    }
    const abort = (): void => this.#finish(sequence, 'aborted');
    hooks.signal?.addEventListener('abort', abort, { once: true });
    this.#waiting.push(sequence);
    return promise.finally(() => hooks.signal?.removeEventListener('abort', abort));
  }

  /** One step. False when there was nothing to do. */
  step(): boolean {
    this.#admit();
    if (this.#active.length === 0) return false;
    const segments = this.#segments();
    try {
      this.#run(segments);
    } catch (error) {
      for (const { sequence } of segments) this.#drop(sequence).reject(error);
    }
    return true;
  }

  /** Ends everything as aborted. */
  close(): void {
    for (const sequence of [...this.#active, ...this.#waiting]) this.#finish(sequence, 'aborted');
  }

  #admit(): void {
    const { shape, heap } = this.#model;
    while (this.#active.length < this.#limits.batch && this.#waiting.length > 0) {
      const sequence = this.#waiting[0]!;
      try {
        sequence.cache = heap.alloc(shape.layers * 2 * shape.groups * shape.headSize * sequence.capacity);
      } catch (error) {
        // Those that run will make room.
        if (this.#active.length > 0) return;
        this.#waiting.shift();
        sequence.reject(error);
        continue;
      }
      this.#waiting.shift();
      this.#active.push(sequence);
    }
  }

  #drop(sequence: Sequence): Sequence {
    this.#active = this.#active.filter((other) => other !== sequence);
    this.#waiting = this.#waiting.filter((other) => other !== sequence);
    if (sequence.cache !== 0) this.#model.heap.free(sequence.cache);
    sequence.cache = 0;
    return sequence;
  }

  #finish(sequence: Sequence, finish: FinishReason): void {
    const now = performance.now();
    this.#drop(sequence).resolve({
      tokens: sequence.tokens,
      text: sequence.text,
      finish,
      promptTokens: sequence.request.prompt.length,
      firstTokenMilliseconds: (sequence.firstToken || now) - sequence.started,
      milliseconds: now - sequence.started,
    });
  }

  /** Who takes part in the next step with how many tokens; equal adapters side by side. */
  #segments(): Segment[] {
    const adapters = new Map<LoraMemory | undefined, Sequence[]>();
    for (const sequence of this.#active) {
      const group = adapters.get(sequence.adapter);
      if (group === undefined) adapters.set(sequence.adapter, [sequence]);
      else group.push(sequence);
    }
    const segments: Segment[] = [];
    let row = 0;
    let budget = PROMPT_ROWS;
    for (const sequence of [...adapters.values()].flat()) {
      const left = sequence.request.prompt.length + sequence.tokens.length - sequence.filled;
      const decoding = sequence.tokens.length > 0;
      const count = decoding ? left : Math.min(left, budget);
      if (count === 0) continue;
      if (!decoding) budget -= count;
      segments.push({ sequence, row, count });
      row += count;
    }
    return segments;
  }

  #run(segments: readonly Segment[]): void {
    const model = this.#model;
    const { heap, kernels, shape, embedding } = model;
    const { width, heads, groups, headSize, inner, eps, vocabulary } = shape;
    const rows = segments.reduce((sum, { count }) => sum + count, 0);
    const widest = largest(segments, ({ sequence, count }) => pad4(sequence.filled + count) * count);
    const padded = Math.max(
      4,
      largest(segments, ({ sequence }) => sequence.adapter?.padded ?? 0),
    );
    const columns = pad4(vocabulary);
    const scope = heap.scope();
    try {
      const x = scope.alloc(rows * width);
      const h = scope.alloc(rows * width);
      const roots = scope.alloc(rows);
      const q = scope.alloc(rows * heads * headSize);
      const k = scope.alloc(rows * groups * headSize);
      const v = scope.alloc(rows * groups * headSize);
      const attention = scope.alloc(rows * heads * headSize);
      const gate = scope.alloc(rows * inner);
      const up = scope.alloc(rows * inner);
      const low = scope.alloc(rows * padded);
      const scores = scope.alloc(widest);
      const logits = scope.alloc(segments.length * columns);
      const floats = heap.floats;
      for (const { sequence, row, count } of segments) {
        for (let i = 0; i < count; i++) {
          const at = sequence.filled + i;
          const { prompt } = sequence.request;
          const id = at < prompt.length ? prompt[at]! : sequence.tokens[at - prompt.length]!;
          const from = embedding / 4 + id * width;
          floats.copyWithin(x / 4 + (row + i) * width, from, from + width);
        }
      }
      const runs = runsOf(segments);
      const apply = (layer: number, target: LoraTarget, input: number, output: number, add: 0 | 1): void => {
        const weights = model.layers[layer]!.linears[target];
        linear(model, input, rows, weights, output, add);
        for (const { adapter, row, count } of runs) {
          const part = adapter.part(layer, target);
          if (part === undefined) continue;
          lowRank(model, adapter, part, input + row * weights.in * 4, count, low, output + row * weights.out * 4);
        }
      };
      for (const [layer, weights] of model.layers.entries()) {
        kernels.rmsNorm(x, weights.norm1, h, roots, rows, width, eps);
        apply(layer, 'q_proj', h, q, 0);
        apply(layer, 'k_proj', h, k, 0);
        apply(layer, 'v_proj', h, v, 0);
        for (const segment of segments) this.#attend(layer, segment, q, k, v, scores, attention);
        apply(layer, 'o_proj', attention, x, 1);
        kernels.rmsNorm(x, weights.norm2, h, roots, rows, width, eps);
        apply(layer, 'gate_proj', h, gate, 0);
        apply(layer, 'up_proj', h, up, 0);
        kernels.gated(gate, up, gate, rows * inner);
        apply(layer, 'down_proj', gate, x, 1);
      }
      const ready: Sequence[] = [];
      for (const { sequence, row, count } of segments) {
        const { length } = sequence.request.prompt;
        if (sequence.filled < length) this.counters.prompt += Math.min(length - sequence.filled, count);
        sequence.filled += count;
        if (sequence.filled < length) continue;
        const last = x / 4 + (row + count - 1) * width;
        floats.copyWithin(h / 4 + ready.length * width, last, last + width);
        ready.push(sequence);
      }
      if (ready.length === 0) return;
      kernels.rmsNorm(h, model.finalNorm, h, roots, ready.length, width, eps);
      linear(model, h, ready.length, model.head, logits, 0);
      for (const [i, sequence] of ready.entries()) {
        // Aborted by what another one's token set off.
        if (sequence.cache === 0) continue;
        this.#next(sequence, heap.view(logits + i * columns * 4, vocabulary));
      }
    } finally {
      scope.close();
    }
  }

  /** Keys and values of a segment's tokens go to its cache, and its tokens look at all that is there. */
  #attend(
    layer: number,
    { sequence, row, count }: Segment,
    queries: number,
    keys: number,
    values: number,
    scores: number,
    attention: number,
  ): void {
    const { kernels, heap, shape, cosines, sines } = this.#model;
    const { heads, groups, headSize } = shape;
    const { filled, capacity } = sequence;
    const stride = heads * headSize * 4;
    const shared = groups * headSize * 4;
    const half = headSize / 2;
    const table = filled * half * 4;
    const q = queries + row * stride;
    const k = keys + row * shared;
    kernels.rotary(q, cosines + table, sines + table, count, stride, heads, half, 1);
    kernels.rotary(k, cosines + table, sines + table, count, shared, groups, half, 1);
    // Keys [group][headSize][capacity], values [capacity][group][headSize].
    const keyCache = sequence.cache + layer * 2 * capacity * shared;
    const valueCache = keyCache + capacity * shared;
    kernels.transpose(k, shared, keyCache + filled * 4, capacity * 4, count, groups * headSize);
    const from = (values + row * shared) / 4;
    heap.floats.copyWithin((valueCache + filled * shared) / 4, from, from + (count * shared) / 4);
    const total = filled + count;
    const wide = pad4(total);
    for (let head = 0; head < heads; head++) {
      const group = Math.floor((head * groups) / heads) * headSize * 4;
      const own = head * headSize * 4;
      const turned = keyCache + group * capacity;
      const out = attention + row * stride + own;
      kernels.gemm(count, wide, headSize, q + own, stride, 4, turned, 32, capacity * 4, scores, wide * 4, 1, 0);
      kernels.softmax(scores, count, wide * 4, filled + 1, wide, 1 / Math.sqrt(headSize));
      kernels.gemm(count, headSize, total, scores, wide * 4, 4, valueCache + group, 32, shared, out, stride, 1, 0);
    }
  }

  #next(sequence: Sequence, logits: Float32Array): void {
    const { request, tokens } = sequence;
    const index = tokens.length;
    let id: number;
    try {
      id = sample(
        logits,
        request.temperature,
        request.topP,
        () => Number(splitMix64(request.seed, index) >> 11n) / 2 ** 53,
      );
    } catch (error) {
      this.#drop(sequence).reject(error);
      return;
    }
    if (index === 0) sequence.firstToken = performance.now();
    tokens.push(id);
    this.counters.generated++;
    const ended = this.#eos.has(id);
    const full = tokens.length >= sequence.limit;
    const { delta, stopped } = ended
      ? { delta: sequence.stream.flush(), stopped: false }
      : sequence.stream.push(id, full);
    sequence.text += delta;
    try {
      sequence.token?.({ id, index, delta });
    } catch (error) {
      this.#drop(sequence).reject(error);
      return;
    }
    if (ended || stopped) this.#finish(sequence, 'stop');
    else if (full) this.#finish(sequence, 'length');
  }
}

/** Neighbouring segments of one adapter. */
function runsOf(segments: readonly Segment[]): { adapter: LoraMemory; row: number; count: number }[] {
  const runs: { adapter: LoraMemory; row: number; count: number }[] = [];
  for (const { sequence, row, count } of segments) {
    const last = runs.at(-1);
    if (sequence.adapter === undefined) continue;
    if (last?.adapter === sequence.adapter) last.count += count;
    else runs.push({ adapter: sequence.adapter, row, count });
  }
  return runs;
}

function checkRequest(model: Model, request: PlainRequest): void {
  const { prompt, maxTokens, temperature, topP, seed, stop = [] } = request;
  const { vocabulary, maxPositions } = model.shape;
  const bad = (message: string): EngineError => new EngineError('BAD_REQUEST', message);
  if (prompt.length === 0) throw bad('the prompt has no token');
  for (const id of prompt) if (!Number.isInteger(id) || id < 0 || id >= vocabulary) throw bad(`token ${id}`);
  if (prompt.length >= maxPositions) {
    throw new EngineError('PROMPT_TOO_LONG', `${prompt.length} tokens for a model of ${maxPositions} positions`);
  }
  if (!Number.isInteger(maxTokens) || maxTokens < 1) throw bad(`maxTokens ${maxTokens}`);
  if (!(temperature >= 0 && temperature <= 100)) throw bad(`temperature ${temperature}`);
  if (!(topP > 0 && topP <= 1)) throw bad(`topP ${topP}`);
  if (typeof seed !== 'bigint' || seed < 0n || seed >= 1n << 64n) throw bad('seed');
  if (stop.length > 16 || stop.some((text) => typeof text !== 'string' || text === '')) throw bad('stop sequences');
}

const largest = <T>(of: readonly T[], size: (each: T) => number): number =>
  of.reduce((most, each) => Math.max(most, size(each)), 0);
