/** Per-example gradients, and K-FAC's sums over tokens (Martens & Grosse 2015), of one adapter. */
import { blockEntries, blocksOf, type GradientLayout } from '../../attribution/layout.ts';
import type { MatrixCovariance } from '../../attribution/precondition.ts';
import type { Example } from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import type { LoraMemory } from './adapter.ts';
import { type Model, pad4 } from './model.ts';
import { checkExample, type ModuleSlopes, pass } from './pass.ts';

export function checkLayer(model: Model, fromLayer: number): void {
  if (!Number.isInteger(fromLayer) || fromLayer < 0 || fromLayer >= model.shape.layers) {
    throw new EngineError('BAD_REQUEST', `layer ${fromLayer} of ${model.shape.layers}`);
  }
}

/** What a gradient is of: its matrices' first layer, and which response tokens bear the loss. */
export interface GradientScope {
  readonly fromLayer: number;
  readonly stride: number;
}

export function exampleGradient(
  model: Model,
  example: Example,
  adapter: LoraMemory,
  { fromLayer, stride }: GradientScope,
): { readonly gradient: Float32Array<ArrayBuffer>; readonly loss: number; readonly tokens: number } {
  checkExample(model, example);
  checkLayer(model, fromLayer);
  if (!Number.isInteger(stride) || stride < 1) throw new EngineError('BAD_REQUEST', `a stride of ${stride}`);
  const { layout, places } = adapter.placesFrom(fromLayer);
  const at = model.heap.zeros(layout.size);
  try {
    const { loss, tokens } = pass(model, example, adapter, {
      factor: 1 / Math.ceil((example.tokens.length - example.from) / stride),
      ...{ fromLayer, stride },
      gradient: (part) => {
        const { a, b } = places(part);
        return { a: at + a * 4, b: at + b * 4 };
      },
    });
    return { gradient: model.heap.view(at, layout.size).slice(), loss: loss / tokens, tokens };
  } finally {
    model.heap.free(at);
  }
}

export class Covariances {
  readonly #model: Model;
  readonly #adapter: LoraMemory;
  readonly #fromLayer: number;
  readonly #layout: GradientLayout;
  readonly #block: number;
  readonly #sums: ReadonlyMap<string, { readonly rank: Float64Array; readonly hidden: Float64Array }>;

  constructor(model: Model, adapter: LoraMemory, fromLayer: number, block: number) {
    checkLayer(model, fromLayer);
    if (!Number.isInteger(block) || block < 1) throw new EngineError('BAD_REQUEST', `blocks of ${block}`);
    this.#model = model;
    this.#adapter = adapter;
    this.#fromLayer = fromLayer;
    this.#block = block;
    this.#layout = adapter.placesFrom(fromLayer).layout;
    this.#sums = new Map(
      this.#layout.matrices.map(({ name, rank, hidden }) => [
        name,
        { rank: new Float64Array(rank * rank), hidden: new Float64Array(blockEntries(hidden, block)) },
      ]),
    );
  }

  add(example: Example): void {
    checkExample(this.#model, example);
    pass(this.#model, example, this.#adapter, {
      factor: 1,
      ...{ fromLayer: this.#fromLayer, stride: 1 },
      visit: (slopes) => this.#visit(slopes),
    });
  }

  finish(): MatrixCovariance[] {
    return this.#layout.matrices.map(({ name }) => this.#sums.get(name)!);
  }

  #visit({ part, rows, x, low, slope, dy }: ModuleSlopes): void {
    const { module } = part;
    const { padded, scale, lora } = this.#adapter;
    const a = this.#sums.get(module.a)!;
    const b = this.#sums.get(module.b)!;
    const square = scale * scale;
    this.#product(x, module.in, rows, module.in, this.#block, 1, a.hidden);
    this.#product(slope, padded, rows, lora.rank, lora.rank, square, a.rank);
    this.#product(low, padded, rows, lora.rank, lora.rank, 1, b.rank);
    this.#product(dy, module.out, rows, module.out, this.#block, square, b.hidden);
  }

  /** `into += scale · Σ y yᵀ` over the rows, diagonal blocks of the first `size` columns. */
  #product(
    y: number,
    width: number,
    rows: number,
    size: number,
    block: number,
    scale: number,
    into: Float64Array,
  ): void {
    const { kernels, heap } = this.#model;
    const widest = pad4(Math.min(block, size));
    const out = heap.alloc(widest * widest);
    try {
      let at = 0;
      for (const { start, width: columns } of blocksOf(size, block)) {
        const from = y + start * 4;
        const wide = pad4(columns);
        // Columns filled up to a multiple of 4 read what lies behind and are not taken.
        kernels.gemm(columns, wide, rows, from, 4, width * 4, from, 32, width * 4, out, wide * 4, 1, 0);
        const f = heap.floats;
        for (let i = 0; i < columns; i++) {
          for (let j = 0; j < columns; j++) into[at + i * columns + j]! += scale * f[out / 4 + i * wide + j]!;
        }
        at += columns * columns;
      }
    } finally {
      heap.free(out);
    }
  }
}
