/**
 * Forward and backward over one sequence: losses of its response tokens, and the gradient of its LoRA matrices by hand.
 * The base stays as it is, so no weight's gradient is computed but theirs.
 */
import { EngineError, type Example, type LoraTarget } from '../engine.ts';
import type { GradientPlace, LoraMemory, LoraPart } from './adapter.ts';
import type { Scope } from './heap.ts';
import { ATTENTION_ROWS, linear, linearBackward, lowRank } from './layers.ts';
import { type LayerWeights, type Model, pad4 } from './model.ts';

/** Rows of logits at a time. */
const HEAD_ROWS = 64;

/** What the forward pass of a layer leaves for its backward pass: addresses. */
interface LayerTape {
  readonly x: number;
  readonly roots1: number;
  readonly h1: number;
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
    return new Pass(model, example, adapter, scope, backward !== undefined).run(backward);
  } finally {
    scope.close();
  }
}

class Pass {
  readonly #model: Model;
  readonly #adapter: LoraMemory | undefined;
  readonly #scope: Scope;
  readonly #example: Example;
  readonly #rows: number;
  readonly #tapes: LayerTape[] = [];
  /** Output of the last layer. */
  readonly #last: number;
  /** Scores of some rows of one head, and their gradient. */
  readonly #scores: number;
  readonly #scoreSlopes: number;
  readonly #turned: number;
  readonly #turned2: number;

  constructor(model: Model, example: Example, adapter: LoraMemory | undefined, scope: Scope, keep: boolean) {
    this.#model = model;
    this.#adapter = adapter;
    this.#scope = scope;
    this.#example = example;
    this.#rows = example.tokens.length - 1;
    const { width, layers, headSize } = model.shape;
    const rows = this.#rows;
    let x = scope.alloc(rows * width);
    let shared: LayerTape | undefined;
    for (let layer = 0; layer < layers; layer++) {
      if (keep || shared === undefined) shared = this.#tape(layer, x, keep);
      this.#tapes.push(shared);
      if (keep) x = scope.alloc(rows * width);
    }
    this.#last = x;
    const wide = pad4(rows);
    this.#scores = scope.alloc(ATTENTION_ROWS * wide);
    this.#scoreSlopes = keep ? scope.alloc(ATTENTION_ROWS * wide) : 0;
    this.#turned = scope.zeros(headSize * wide);
    this.#turned2 = keep ? scope.zeros(headSize * wide) : 0;
  }

  #tape(layer: number, x: number, keep: boolean): LayerTape {
    const { width, heads, groups, headSize, inner } = this.#model.shape;
    const scope = this.#scope;
    const rows = this.#rows;
    const low: Partial<Record<LoraTarget, number>> = {};
    const adapter = this.#adapter;
    for (const target of adapter?.lora.targets ?? []) {
      if (adapter?.part(layer, target) !== undefined) low[target] = scope.alloc(rows * adapter.padded);
    }
    return {
      x,
      roots1: scope.alloc(rows),
      h1: scope.alloc(rows * width),
      q: scope.alloc(rows * heads * headSize),
      k: scope.alloc(rows * groups * headSize),
      v: scope.alloc(rows * groups * headSize),
      attention: scope.alloc(rows * heads * headSize),
      x2: keep ? scope.alloc(rows * width) : x,
      roots2: scope.alloc(rows),
      h2: scope.alloc(rows * width),
      gate: scope.alloc(rows * inner),
      up: scope.alloc(rows * inner),
      act: scope.alloc(rows * inner),
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
    const slope = backward === undefined ? 0 : this.#scope.zeros(this.#rows * width);
    const result = this.#head(backward?.factor ?? 0, slope, backward?.stride ?? 1);
    if (backward !== undefined) this.#backward(slope, backward);
    return result;
  }

  #apply(layer: number, target: LoraTarget, tape: LayerTape, x: number, y: number, add: 0 | 1): void {
    linear(this.#model, x, this.#rows, this.#model.layers[layer]!.linears[target], y, add);
    const part = this.#adapter?.part(layer, target);
    if (part !== undefined) lowRank(this.#model, this.#adapter!, part, x, this.#rows, tape.low[target]!, y);
  }

  #forward(layer: number, weights: LayerWeights, tape: LayerTape, next: number): void {
    const { kernels, heap, shape, cosines, sines } = this.#model;
    const { width, heads, groups, headSize, inner, eps } = shape;
    const rows = this.#rows;
    const { x, x2 } = tape;
    kernels.rmsNorm(x, weights.norm1, tape.h1, tape.roots1, rows, width, eps);
    this.#apply(layer, 'q_proj', tape, tape.h1, tape.q, 0);
    this.#apply(layer, 'k_proj', tape, tape.h1, tape.k, 0);
    this.#apply(layer, 'v_proj', tape, tape.h1, tape.v, 0);
    kernels.rotary(tape.q, cosines, sines, rows, heads * headSize * 4, heads, headSize / 2, 1);
    kernels.rotary(tape.k, cosines, sines, rows, groups * headSize * 4, groups, headSize / 2, 1);
    this.#attend(tape);
    if (x2 !== x) heap.floats.copyWithin(x2 / 4, x / 4, x / 4 + rows * width);
    this.#apply(layer, 'o_proj', tape, tape.attention, x2, 1);
    kernels.rmsNorm(x2, weights.norm2, tape.h2, tape.roots2, rows, width, eps);
    this.#apply(layer, 'gate_proj', tape, tape.h2, tape.gate, 0);
    this.#apply(layer, 'up_proj', tape, tape.h2, tape.up, 0);
    kernels.gated(tape.gate, tape.up, tape.act, rows * inner);
    if (next !== x2) heap.floats.copyWithin(next / 4, x2 / 4, x2 / 4 + rows * width);
    this.#apply(layer, 'down_proj', tape, tape.act, next, 1);
  }

  /** Calls back with each head's blocks of rows [start, end), columns to attend to filled up to a multiple of 4. */
  #blocks(body: (start: number, end: number, columns: number) => void): void {
    for (let start = 0; start < this.#rows; start += ATTENTION_ROWS) {
      const end = Math.min(this.#rows, start + ATTENTION_ROWS);
      body(start, end, pad4(end));
    }
  }

  /** Attention weights of rows [start, end) of a head into `#scores`. */
  #weigh(tape: LayerTape, head: number, start: number, end: number, columns: number): void {
    const { kernels, shape } = this.#model;
    const { heads, headSize } = shape;
    const stride = heads * headSize * 4;
    const wide = pad4(this.#rows) * 4;
    const q = tape.q + start * stride + head * headSize * 4;
    kernels.gemm(end - start, columns, headSize, q, stride, 4, this.#turned, 32, wide, this.#scores, wide, 1, 0);
    kernels.softmax(this.#scores, end - start, wide, start + 1, columns, 1 / Math.sqrt(headSize));
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
      this.#blocks((start, end, columns) => {
        this.#weigh(tape, head, start, end, columns);
        const out = tape.attention + start * stride + head * headSize * 4;
        kernels.gemm(end - start, headSize, end, this.#scores, wide, 4, v, 32, shared, out, stride, 1, 0);
      });
    }
  }

  /** Losses of the response; with a factor also their gradient at the last layer's output. */
  #head(factor: number, slope: number, stride: number): PassLoss {
    const model = this.#model;
    const { kernels, shape, finalNorm, head } = model;
    const { width, vocabulary, eps } = shape;
    const { tokens, from } = this.#example;
    const first = from - 1;
    const count = this.#rows - first;
    const columns = pad4(vocabulary);
    const scope = model.heap.scope();
    try {
      const chunk = Math.min(HEAD_ROWS, count);
      const normed = scope.alloc(chunk * width);
      const roots = scope.alloc(chunk);
      const logits = scope.alloc(chunk * columns);
      const factors = scope.alloc(chunk);
      const sums = scope.alloc(chunk * 2);
      const dNormed = slope === 0 ? 0 : scope.alloc(chunk * width);
      const f = model.heap.floats;
      let loss = 0;
      for (let at = 0; at < count; at += chunk) {
        const rows = Math.min(chunk, count - at);
        const x = this.#last + (first + at) * width * 4;
        kernels.rmsNorm(x, finalNorm, normed, roots, rows, width, eps);
        linear(model, normed, rows, head, logits, 0);
        const bears = (row: number): boolean => (at + row) % stride === 0;
        for (let row = 0; row < rows; row++) f[factors / 4 + row] = bears(row) ? factor : 0;
        const entry = (row: number): number => logits / 4 + row * columns + tokens[from + at + row]!;
        const targets = Array.from({ length: rows }, (_, row) => f[entry(row)]!);
        kernels.crossEntropy(logits, rows, columns * 4, vocabulary, factors, sums);
        for (let row = 0; row < rows; row++) {
          if (!bears(row)) continue;
          loss += Math.log(f[sums / 4 + row * 2 + 1]!) + f[sums / 4 + row * 2]! - targets[row]!;
        }
        if (slope === 0) continue;
        for (let row = 0; row < rows; row++) f[entry(row)]! -= f[factors / 4 + row]!;
        linearBackward(model, logits, rows, head, dNormed, 0);
        const dx = slope + (first + at) * width * 4;
        kernels.rmsNormBackward(x, finalNorm, roots, dNormed, dx, rows, width);
      }
      return { loss, tokens: Math.ceil(count / stride) };
    } finally {
      scope.close();
    }
  }

  // ---- backward ------------------------------------------------------------------------------------------------------

  #backward(d: number, options: BackwardOptions): void {
    const { kernels, shape, layers, cosines, sines } = this.#model;
    const { width, heads, groups, headSize, inner } = shape;
    const rows = this.#rows;
    const scope = this.#scope;
    const dInner = scope.alloc(rows * inner);
    const dGate = scope.alloc(rows * inner);
    const dh = scope.alloc(rows * width);
    const dAttention = scope.alloc(rows * heads * headSize);
    const dq = scope.alloc(rows * heads * headSize);
    const dk = scope.alloc(rows * groups * headSize);
    const dv = scope.alloc(rows * groups * headSize);
    const slopes = scope.alloc(rows * (this.#adapter?.padded ?? 0));
    for (let layer = shape.layers - 1; layer >= options.fromLayer; layer--) {
      const tape = this.#tapes[layer]!;
      const weights = layers[layer]!;
      const back = (target: LoraTarget, x: number, dy: number, dx: number, add: 0 | 1): void => {
        if (dx !== 0) linearBackward(this.#model, dy, rows, weights.linears[target], dx, add);
        const part = this.#adapter?.part(layer, target);
        if (part !== undefined) this.#lowRankBackward(part, x, tape.low[target]!, dy, slopes, dx, options);
      };
      back('down_proj', tape.act, d, dInner, 0);
      kernels.gatedBackward(tape.gate, tape.up, dInner, dGate, dInner, rows * inner);
      back('gate_proj', tape.h2, dGate, dh, 0);
      back('up_proj', tape.h2, dInner, dh, 1);
      kernels.rmsNormBackward(tape.x2, weights.norm2, tape.roots2, dh, d, rows, width);
      back('o_proj', tape.attention, d, dAttention, 0);
      this.#attendBackward(tape, dAttention, dq, dk, dv);
      kernels.rotary(dq, cosines, sines, rows, heads * headSize * 4, heads, headSize / 2, -1);
      kernels.rotary(dk, cosines, sines, rows, groups * headSize * 4, groups, headSize / 2, -1);
      const into = layer > options.fromLayer ? dh : 0;
      back('q_proj', tape.h1, dq, into, 0);
      back('k_proj', tape.h1, dk, into, 1);
      back('v_proj', tape.h1, dv, into, 1);
      if (into !== 0) kernels.rmsNormBackward(tape.x, weights.norm1, tape.roots1, dh, d, rows, width);
    }
  }

  /** Gradients of A and B, and `dx += scale · dy B A`. */
  #lowRankBackward(
    part: LoraPart,
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
    const rows = this.#rows;
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
      this.#blocks((start, end, columns) => {
        const count = end - start;
        const dOut = dAttention + start * stride + own;
        this.#weigh(tape, head, start, end, columns);
        kernels.gemm(count, columns, headSize, dOut, stride, 4, this.#turned2, 32, wide, dScores, wide, 1, 0);
        // dV += Pᵀ dOut, before P's gradient is turned into that of the scores.
        kernels.gemm(end, headSize, count, scores, 4, wide, dOut, 32, stride, dv + common, shared, 1, 1);
        kernels.softmaxBackward(scores, dScores, count, wide, columns, 1 / Math.sqrt(headSize));
        const k = tape.k + common;
        kernels.gemm(count, headSize, end, dScores, wide, 4, k, 32, shared, dq + start * stride + own, stride, 1, 0);
        const q = tape.q + start * stride + own;
        kernels.gemm(end, headSize, count, dScores, 4, wide, q, 32, stride, dk + common, shared, 1, 1);
      });
    }
  }
}
