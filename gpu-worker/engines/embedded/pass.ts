/**
 * Forward and backward over one sequence: losses of its response tokens, and the gradient of its LoRA matrices by hand.
 * The base stays as it is, so no weight's gradient is computed but theirs. Behind the last layer's keys and values only the
 * tokens that bear the loss matter: queries, attention, MLP and head are computed for them alone, to the same bits.
 */

import type { Scope } from '../../wasm/heap.ts';
import type { Example, LoraTarget } from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import type { GradientPlace, LoraMemory, LoraPart } from './adapter.ts';
import { ATTENTION_ROWS, linear, linearBackward, lowRank } from './layers.ts';
import { type LayerWeights, type Model, pad4 } from './model.ts';

/** Rows of logits at a time. */
const HEAD_ROWS = 64;

/** What the forward pass of a layer leaves for its backward pass: addresses. */
interface LayerTape {
  /** Tokens that queries are computed for, and all behind them; undefined: all. */
  readonly chosen: readonly number[] | undefined;
  /** How many these are. */
  readonly count: number;
  readonly x: number;
  readonly roots1: number;
  readonly h1: number;
  /** Input of the queries: of h1, the chosen tokens' rows. */
  readonly hq: number;
  readonly q: number;
  readonly k: number;
  readonly v: number;
  readonly attention: number;
  readonly x2: number;
  readonly roots2: number;
  readonly h2: number;
  readonly gate: number;
  readonly up: number;
  readonly act: number;
  /** x Aᵀ of each target. */
  readonly low: Partial<Record<LoraTarget, number>>;
}

/** One LoRA module's tokens on the way back; addresses of [rows][…] matrices. */
export interface ModuleSlopes {
  readonly part: LoraPart;
  readonly rows: number;
  /** [in], input of A. */
  readonly x: number;
  /** [padded], output of A. */
  readonly low: number;
  /** [padded], gradient at the output of A before scaling. */
  readonly slope: number;
  /** [out], gradient at the module's output: times the scale, that at the output of B. */
  readonly dy: number;
}

export interface BackwardOptions {
  /** Gradient of the loss by each response token's loss. */
  readonly factor: number;
  /** The last layer that the backward pass reaches. */
  readonly fromLayer: number;
  /** Response token t (from 0) bears the loss where t ≡ 0 modulo this. */
  readonly stride: number;
  /** Gradients are added here. */
  readonly gradient?: (part: LoraPart) => GradientPlace;
  readonly visit?: (slopes: ModuleSlopes) => void;
}

export interface PassLoss {
  /** Sum over the response tokens that bear the loss, nats. */
  readonly loss: number;
  /** How many these are. */
  readonly tokens: number;
}

/** Refuses what no pass can take. */
export function checkExample(model: Model, example: Example): void {
  const { tokens, from } = example;
  const { vocabulary, maxPositions } = model.shape;
  const bad = (message: string): EngineError => new EngineError('BAD_EXAMPLE', message);
  if (!Number.isInteger(from) || from < 1) throw bad(`the response begins at token ${from}`);
  if (from >= tokens.length) throw bad(`no response token: ${tokens.length} tokens, from ${from}`);
  if (tokens.length - 1 > maxPositions) throw bad(`${tokens.length} tokens for a model of ${maxPositions} positions`);
  for (const id of tokens) if (!Number.isInteger(id) || id < 0 || id >= vocabulary) throw bad(`token ${id}`);
}

/** Losses, and with `backward` gradients. The last token is only predicted, never read. */
export function pass(model: Model, example: Example, adapter?: LoraMemory, backward?: BackwardOptions): PassLoss {
  const scope = model.heap.scope();
  try {
    return new Pass(model, example, adapter, scope, backward).run(backward);
  } finally {
    scope.close();
  }
}

/** Every token has keys and values, whoever looks at them. */
const readsAll = (target: LoraTarget): boolean => target === 'k_proj' || target === 'v_proj';

class Pass {
  readonly #model: Model;
  readonly #adapter: LoraMemory | undefined;
  readonly #scope: Scope;
  readonly #example: Example;
  readonly #rows: number;
  /** Tokens whose next one bears the loss. */
  readonly #bearing: readonly number[];
  readonly #tapes: LayerTape[] = [];
  /** Output of the last layer. */
  readonly #last: number;
  /** Scores of some rows of one head, and their gradient. */
  readonly #scores: number;
  readonly #scoreSlopes: number;
  readonly #turned: number;
  readonly #turned2: number;

  constructor(
    model: Model,
    example: Example,
    adapter: LoraMemory | undefined,
    scope: Scope,
    backward: BackwardOptions | undefined,
  ) {
    this.#model = model;
    this.#adapter = adapter;
    this.#scope = scope;
    this.#example = example;
    this.#rows = example.tokens.length - 1;
    const { width, layers, headSize } = model.shape;
    const rows = this.#rows;
    const first = example.from - 1;
    const stride = backward?.stride ?? 1;
    this.#bearing = Array.from({ length: Math.ceil((rows - first) / stride) }, (_, i) => first + i * stride);
    const keep = backward !== undefined;
    // Whoever looks at every token's activations gets them.
    const chosen = backward?.visit === undefined ? this.#bearing : undefined;
    let x = scope.alloc(rows * width);
    let shared: LayerTape | undefined;
    for (let layer = 0; layer < layers; layer++) {
      if (layer === layers - 1) this.#tapes.push(this.#tape(layer, x, true, chosen));
      else {
        if (keep || shared === undefined) shared = this.#tape(layer, x, keep, undefined);
        this.#tapes.push(shared);
        if (keep) x = scope.alloc(rows * width);
      }
    }
    this.#last = scope.alloc((chosen?.length ?? rows) * width);
    const wide = pad4(rows);
    this.#scores = scope.alloc(ATTENTION_ROWS * wide);
    this.#scoreSlopes = keep ? scope.alloc(ATTENTION_ROWS * wide) : 0;
    this.#turned = scope.zeros(headSize * wide);
    this.#turned2 = keep ? scope.zeros(headSize * wide) : 0;
  }

  #tape(layer: number, x: number, keep: boolean, chosen: readonly number[] | undefined): LayerTape {
    const { width, heads, groups, headSize, inner } = this.#model.shape;
    const scope = this.#scope;
    const rows = this.#rows;
    const count = chosen?.length ?? rows;
    const low: Partial<Record<LoraTarget, number>> = {};
    const adapter = this.#adapter;
    for (const target of adapter?.lora.targets ?? []) {
      if (adapter?.part(layer, target) === undefined) continue;
      low[target] = scope.alloc((readsAll(target) ? rows : count) * adapter.padded);
    }
    const h1 = scope.alloc(rows * width);
    return {
      ...{ chosen, count, x, h1 },
      hq: chosen === undefined ? h1 : scope.alloc(count * width),
      roots1: scope.alloc(rows),
      q: scope.alloc(count * heads * headSize),
      k: scope.alloc(rows * groups * headSize),
      v: scope.alloc(rows * groups * headSize),
      attention: scope.alloc(count * heads * headSize),
      x2: keep ? scope.alloc(count * width) : x,
      roots2: scope.alloc(count),
      h2: scope.alloc(count * width),
      gate: scope.alloc(count * inner),
      up: scope.alloc(count * inner),
      act: scope.alloc(count * inner),
      low,
    };
  }

  run(backward: BackwardOptions | undefined): PassLoss {
    const { heap, embedding, shape } = this.#model;
    const { width } = shape;
    const floats = heap.floats;
    const x = this.#tapes[0]!.x / 4;
    for (let row = 0; row < this.#rows; row++) {
      const from = embedding / 4 + this.#example.tokens[row]! * width;
      floats.copyWithin(x + row * width, from, from + width);
    }
    for (const [layer, tape] of this.#tapes.entries()) {
      this.#forward(layer, this.#model.layers[layer]!, tape, this.#tapes[layer + 1]?.x ?? this.#last);
    }
    const slope = backward === undefined ? 0 : this.#scope.zeros(this.#tapes.at(-1)!.count * width);
    const loss = this.#head(backward?.factor ?? 0, slope);
    if (backward !== undefined) this.#backward(slope, backward);
    return { loss, tokens: this.#bearing.length };
  }

  #apply(layer: number, target: LoraTarget, tape: LayerTape, x: number, y: number, add: 0 | 1): void {
    const rows = readsAll(target) ? this.#rows : tape.count;
    linear(this.#model, x, rows, this.#model.layers[layer]!.linears[target], y, add);
    const part = this.#adapter?.part(layer, target);
    if (part !== undefined) lowRank(this.#model, this.#adapter!, part, x, rows, tape.low[target]!, y);
  }

  /** The chosen rows of [rows][width] into [count][width]. */
  #gather({ chosen, count }: LayerTape, from: number, to: number): void {
    const { heap, shape } = this.#model;
    const { width } = shape;
    const f = heap.floats;
    if (chosen === undefined) {
      if (from !== to) f.copyWithin(to / 4, from / 4, from / 4 + count * width);
      return;
    }
    for (const [i, row] of chosen.entries()) {
      const at = from / 4 + row * width;
      f.copyWithin(to / 4 + i * width, at, at + width);
    }
  }

  /** [count][width] into fresh [rows][width], the other rows zero. */
  #scatter(chosen: readonly number[], from: number): number {
    const { heap, shape } = this.#model;
    const { width } = shape;
    const to = this.#scope.zeros(this.#rows * width);
    const f = heap.floats;
    for (const [i, row] of chosen.entries()) {
      const at = from / 4 + i * width;
      f.copyWithin(to / 4 + row * width, at, at + width);
    }
    return to;
  }

  /** Turns the queries (or their gradients, back) by their tokens' places. */
  #rotateQueries({ chosen, count }: LayerTape, q: number, way: 1 | -1): void {
    const { kernels, shape, cosines, sines } = this.#model;
    const { heads, headSize } = shape;
    const stride = heads * headSize * 4;
    const half = headSize / 2;
    if (chosen === undefined) {
      kernels.rotary(q, cosines, sines, count, stride, heads, half, way);
      return;
    }
    for (const [i, row] of chosen.entries()) {
      const table = row * half * 4;
      kernels.rotary(q + i * stride, cosines + table, sines + table, 1, stride, heads, half, way);
    }
  }

  #forward(layer: number, weights: LayerWeights, tape: LayerTape, next: number): void {
    const { kernels, shape, heap, cosines, sines } = this.#model;
    const { width, groups, headSize, inner, eps } = shape;
    const { x, x2, count } = tape;
    kernels.rmsNorm(x, weights.norm1, tape.h1, tape.roots1, this.#rows, width, eps);
    if (tape.hq !== tape.h1) this.#gather(tape, tape.h1, tape.hq);
    this.#apply(layer, 'q_proj', tape, tape.hq, tape.q, 0);
    this.#apply(layer, 'k_proj', tape, tape.h1, tape.k, 0);
    this.#apply(layer, 'v_proj', tape, tape.h1, tape.v, 0);
    this.#rotateQueries(tape, tape.q, 1);
    kernels.rotary(tape.k, cosines, sines, this.#rows, groups * headSize * 4, groups, headSize / 2, 1);
    this.#attend(tape);
    this.#gather(tape, x, x2);
    this.#apply(layer, 'o_proj', tape, tape.attention, x2, 1);
    kernels.rmsNorm(x2, weights.norm2, tape.h2, tape.roots2, count, width, eps);
    this.#apply(layer, 'gate_proj', tape, tape.h2, tape.gate, 0);
    this.#apply(layer, 'up_proj', tape, tape.h2, tape.up, 0);
    kernels.gated(tape.gate, tape.up, tape.act, count * inner);
    if (next !== x2) heap.floats.copyWithin(next / 4, x2 / 4, x2 / 4 + count * width);
    this.#apply(layer, 'down_proj', tape, tape.act, next, 1);
  }

  /**
   * Calls back with blocks of queries [start, end), how many tokens the last of them looks at, and that up to a multiple of 4.
   * Blocks end where they would if all tokens were there, so that sums over them come out the same.
   */
  #blocks(
    { chosen, count }: LayerTape,
    body: (start: number, end: number, reach: number, columns: number) => void,
  ): void {
    const rowOf = (query: number): number => chosen?.[query] ?? query;
    for (let start = 0, end = 0; start < count; start = end) {
      const border = (Math.floor(rowOf(start) / ATTENTION_ROWS) + 1) * ATTENTION_ROWS;
      while (end < count && rowOf(end) < border) end++;
      const reach = rowOf(end - 1) + 1;
      body(start, end, reach, pad4(reach));
    }
  }

  /** Attention weights of queries [start, end) of a head into `#scores`. */
  #weigh(tape: LayerTape, head: number, start: number, end: number, columns: number): void {
    const { kernels, shape } = this.#model;
    const { heads, headSize } = shape;
    const stride = heads * headSize * 4;
    const wide = pad4(this.#rows) * 4;
    const q = tape.q + start * stride + head * headSize * 4;
    const scale = 1 / Math.sqrt(headSize);
    kernels.gemm(end - start, columns, headSize, q, stride, 4, this.#turned, 32, wide, this.#scores, wide, 1, 0);
    const { chosen } = tape;
    if (chosen === undefined) kernels.softmax(this.#scores, end - start, wide, start + 1, columns, scale);
    else {
      for (let i = start; i < end; i++)
        kernels.softmax(this.#scores + (i - start) * wide, 1, wide, chosen[i]! + 1, columns, scale);
    }
  }

  #turn(from: number, group: number, to: number): void {
    const { groups, headSize } = this.#model.shape;
    const wide = pad4(this.#rows) * 4;
    this.#model.kernels.transpose(from + group * headSize * 4, groups * headSize * 4, to, wide, this.#rows, headSize);
  }

  #attend(tape: LayerTape): void {
    const { kernels, shape } = this.#model;
    const { heads, groups, headSize } = shape;
    const stride = heads * headSize * 4;
    const shared = groups * headSize * 4;
    const wide = pad4(this.#rows) * 4;
    for (let head = 0; head < heads; head++) {
      const group = Math.floor((head * groups) / heads);
      if (head % (heads / groups) === 0) this.#turn(tape.k, group, this.#turned);
      const v = tape.v + group * headSize * 4;
      this.#blocks(tape, (start, end, reach, columns) => {
        this.#weigh(tape, head, start, end, columns);
        const out = tape.attention + start * stride + head * headSize * 4;
        kernels.gemm(end - start, headSize, reach, this.#scores, wide, 4, v, 32, shared, out, stride, 1, 0);
      });
    }
  }

  /** Sum of the losses; with a factor also their gradient at the last layer's output. */
  #head(factor: number, slope: number): number {
    const model = this.#model;
    const { kernels, shape, finalNorm, head } = model;
    const { width, vocabulary, eps } = shape;
    const { tokens } = this.#example;
    const bearing = this.#bearing;
    const columns = pad4(vocabulary);
    // Where the last layer has all rows, those that bear the loss lie side by side.
    const first = this.#tapes.at(-1)!.chosen === undefined ? bearing[0]! : 0;
    const scope = model.heap.scope();
    try {
      const chunk = Math.min(HEAD_ROWS, bearing.length);
      const normed = scope.alloc(chunk * width);
      const roots = scope.alloc(chunk);
      const logits = scope.alloc(chunk * columns);
      const factors = scope.alloc(chunk);
      const sums = scope.alloc(chunk * 2);
      const dNormed = slope === 0 ? 0 : scope.alloc(chunk * width);
      const f = model.heap.floats;
      f.fill(factor, factors / 4, factors / 4 + chunk);
      let loss = 0;
      for (let at = 0; at < bearing.length; at += chunk) {
        const rows = Math.min(chunk, bearing.length - at);
        const x = this.#last + (first + at) * width * 4;
        kernels.rmsNorm(x, finalNorm, normed, roots, rows, width, eps);
        linear(model, normed, rows, head, logits, 0);
        const entry = (row: number): number => logits / 4 + row * columns + tokens[bearing[at + row]! + 1]!;
        const targets = Array.from({ length: rows }, (_, row) => f[entry(row)]!);
        kernels.crossEntropy(logits, rows, columns * 4, vocabulary, factors, sums);
        for (let row = 0; row < rows; row++) {
          loss += Math.log(f[sums / 4 + row * 2 + 1]!) + f[sums / 4 + row * 2]! - targets[row]!;
        }
        if (slope === 0) continue;
        for (let row = 0; row < rows; row++) f[entry(row)]! -= f[factors / 4]!;
        linearBackward(model, logits, rows, head, dNormed, 0);
        const dx = slope + (first + at) * width * 4;
        kernels.rmsNormBackward(x, finalNorm, roots, dNormed, dx, rows, width);
      }
      return loss;
    } finally {
      scope.close();
    }
  }

  // ---- backward ------------------------------------------------------------------------------------------------------

  /** `slope`: at the last layer's output, a row for each of its queries. */
  #backward(slope: number, options: BackwardOptions): void {
    const { kernels, shape, layers, cosines, sines } = this.#model;
    const { width, heads, groups, headSize, inner } = shape;
    const rows = this.#rows;
    const scope = this.#scope;
    const dInner = scope.alloc(rows * inner);
    const dGate = scope.alloc(rows * inner);
    let dh = scope.alloc(rows * width);
    const dAttention = scope.alloc(rows * heads * headSize);
    const dq = scope.alloc(rows * heads * headSize);
    const dk = scope.alloc(rows * groups * headSize);
    const dv = scope.alloc(rows * groups * headSize);
    const slopes = scope.alloc(rows * (this.#adapter?.padded ?? 0));
    let d = slope;
    for (let layer = shape.layers - 1; layer >= options.fromLayer; layer--) {
      const tape = this.#tapes[layer]!;
      const { chosen, count } = tape;
      const weights = layers[layer]!;
      const back = (target: LoraTarget, x: number, dy: number, dx: number, add: 0 | 1): void => {
        const own = readsAll(target) ? rows : count;
        if (dx !== 0) linearBackward(this.#model, dy, own, weights.linears[target], dx, add);
        const part = this.#adapter?.part(layer, target);
        if (part !== undefined) this.#lowRankBackward(part, own, x, tape.low[target]!, dy, slopes, dx, options);
      };
      back('down_proj', tape.act, d, dInner, 0);
      kernels.gatedBackward(tape.gate, tape.up, dInner, dGate, dInner, count * inner);
      back('gate_proj', tape.h2, dGate, dh, 0);
      back('up_proj', tape.h2, dInner, dh, 1);
      kernels.rmsNormBackward(tape.x2, weights.norm2, tape.roots2, dh, d, count, width);
      back('o_proj', tape.attention, d, dAttention, 0);
      this.#attendBackward(tape, dAttention, dq, dk, dv);
      this.#rotateQueries(tape, dq, -1);
      kernels.rotary(dk, cosines, sines, rows, groups * headSize * 4, groups, headSize / 2, -1);
      const goesOn = layer > options.fromLayer;
      back('q_proj', tape.hq, dq, goesOn ? dh : 0, 0);
      if (goesOn && chosen !== undefined) {
        dh = this.#scatter(chosen, dh);
        d = this.#scatter(chosen, d);
      }
      back('k_proj', tape.h1, dk, goesOn ? dh : 0, 1);
      back('v_proj', tape.h1, dv, goesOn ? dh : 0, 1);
      if (goesOn) kernels.rmsNormBackward(tape.x, weights.norm1, tape.roots1, dh, d, rows, width);
    }
  }

  /** Gradients of A and B, and `dx += scale · dy B A`. */
  #lowRankBackward(
    part: LoraPart,
    rows: number,
    x: number,
    low: number,
    dy: number,
    slope: number,
    dx: number,
    options: BackwardOptions,
  ): void {
    const { gemm } = this.#model.kernels;
    const { lora, padded, scale } = this.#adapter!;
    const { in: input, out } = part.module;
    const wide = padded * 4;
    gemm(rows, padded, out, dy, out * 4, 4, part.bTurned, 32, wide, slope, wide, 1, 0);
    if (dx !== 0) gemm(rows, input, lora.rank, slope, wide, 4, part.a, 32, input * 4, dx, input * 4, scale, 1);
    options.visit?.({ part, rows, x, low, slope, dy });
    const place = options.gradient?.(part);
    if (place === undefined) return;
    gemm(lora.rank, input, rows, slope, 4, wide, x, 32, input * 4, place.a, input * 4, scale, 1);
    gemm(lora.rank, out, rows, low, 4, wide, dy, 32, out * 4, place.b, out * 4, scale, 1);
  }

  #attendBackward(tape: LayerTape, dAttention: number, dq: number, dk: number, dv: number): void {
    const { kernels, heap, shape } = this.#model;
    const { heads, groups, headSize } = shape;
    const rows = this.#rows;
    const stride = heads * headSize * 4;
    const shared = groups * headSize * 4;
    const wide = pad4(rows) * 4;
    const scores = this.#scores;
    const dScores = this.#scoreSlopes;
    heap.view(dk, rows * groups * headSize).fill(0);
    heap.view(dv, rows * groups * headSize).fill(0);
    for (let head = 0; head < heads; head++) {
      const group = Math.floor((head * groups) / heads);
      if (head % (heads / groups) === 0) {
        this.#turn(tape.k, group, this.#turned);
        this.#turn(tape.v, group, this.#turned2);
      }
      const own = head * headSize * 4;
      const common = group * headSize * 4;
      this.#blocks(tape, (start, end, reach, columns) => {
        const count = end - start;
        const dOut = dAttention + start * stride + own;
        this.#weigh(tape, head, start, end, columns);
        kernels.gemm(count, columns, headSize, dOut, stride, 4, this.#turned2, 32, wide, dScores, wide, 1, 0);
        // dV += Pᵀ dOut, before P's gradient is turned into that of the scores.
        kernels.gemm(reach, headSize, count, scores, 4, wide, dOut, 32, stride, dv + common, shared, 1, 1);
        kernels.softmaxBackward(scores, dScores, count, wide, columns, 1 / Math.sqrt(headSize));
        const k = tape.k + common;
        kernels.gemm(count, headSize, reach, dScores, wide, 4, k, 32, shared, dq + start * stride + own, stride, 1, 0);
        const q = tape.q + start * stride + own;
        kernels.gemm(reach, headSize, count, dScores, 4, wide, q, 32, stride, dk + common, shared, 1, 1);
      });
    }
  }
}
