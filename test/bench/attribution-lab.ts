/**
 * A small Llama-style model with LoRA on all linear maps, for the hundreds of retrainings that the protocol needs: the
 * embedded engine's mathematics (jax-js, float32), at a size at which a training takes seconds. jax-js arrays move: an
 * operation consumes its operands unless they are passed as `.ref`.
 */
import { blockUntilReady, defaultDevice, init, jit, nn, numpy as np, tree, valueAndGrad } from '@jax-js/jax';
import { type GradientLayout, gradientLayout } from '../../gpu-worker/attribution/layout.ts';
import { uniforms } from '../../gpu-worker/attribution/seeded.ts';

export interface LabShape {
  readonly vocabulary: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  readonly hidden: number;
  readonly rank: number;
  /** Tokens a sequence, sequences a batch. */
  readonly length: number;
  readonly batch: number;
}

type Tensor = np.Array;
const TARGETS = ['wq', 'wk', 'wv', 'wo', 'wg', 'wu', 'wd'] as const;
type Target = (typeof TARGETS)[number];
/** Parameters by name, in a fixed order. */
type Named = Record<string, Tensor>;
export type Weights = Record<string, { readonly shape: readonly number[]; data: Float32Array }>;

function mapsOf({ width, hidden }: LabShape): Record<Target, readonly [number, number]> {
  const square = [width, width] as const;
  return {
    wq: square,
    wk: square,
    wv: square,
    wo: square,
    wg: [width, hidden],
    wu: [width, hidden],
    wd: [hidden, width],
  };
}

function normals(seed: bigint): (size: number, deviation: number) => Float32Array {
  const next = uniforms(seed);
  return (size, deviation) =>
    Float32Array.from({ length: size }, () => {
      let sum = -6;
      for (let i = 0; i < 12; i++) sum += next();
      return sum * deviation;
    });
}

export function freshBase(shape: LabShape, seed: bigint): Weights {
  const normal = normals(seed);
  const weights: Weights = {};
  const put = (name: string, dims: readonly number[], deviation: number, offset = 0): void => {
    const size = dims.reduce((product, each) => product * each, 1);
    weights[name] = { shape: dims, data: normal(size, deviation).map((value) => value + offset) };
  };
  put('embedding', [shape.vocabulary, shape.width], 0.05);
  put('norm', [shape.width], 0, 1);
  for (let l = 0; l < shape.layers; l++) {
    put(`${l}.norm1`, [shape.width], 0, 1);
    put(`${l}.norm2`, [shape.width], 0, 1);
    for (const [target, dims] of Object.entries(mapsOf(shape))) {
      put(`${l}.${target}`, dims, (target === 'wo' || target === 'wd' ? 0.5 : 1) / Math.sqrt(dims[0]));
    }
  }
  return weights;
}

export function freshLora(shape: LabShape, seed: bigint): Weights {
  const normal = normals(seed);
  const weights: Weights = {};
  for (let l = 0; l < shape.layers; l++) {
    for (const [target, [inputs, outputs]] of Object.entries(mapsOf(shape))) {
      weights[`${l}.${target}.a`] = {
        shape: [inputs, shape.rank],
        data: normal(inputs * shape.rank, 1 / Math.sqrt(inputs)),
      };
      weights[`${l}.${target}.b`] = { shape: [shape.rank, outputs], data: new Float32Array(shape.rank * outputs) };
    }
  }
  return weights;
}

const copyOf = (weights: Weights): Weights =>
  Object.fromEntries(Object.entries(weights).map(([name, { shape, data }]) => [name, { shape, data: data.slice() }]));

const upload = (weights: Weights): Named =>
  Object.fromEntries(
    Object.entries(weights).map(([name, { shape, data }]) => [
      name,
      np.array(data as Float32Array<ArrayBuffer>, { shape: [...shape] }),
    ]),
  );

/** Identity that makes the backward pass write its operand out before a matmul (engine rule 2). */
function barrier(x: Tensor): Tensor {
  const rows = x.shape[0]!;
  const padding = x.shape.map((_, axis): [number, number] => (axis === 0 ? [0, 1] : [0, 0]));
  return np.pad(x, padding).slice([0, rows]);
}
const product = (x: Tensor, y: Tensor): Tensor => barrier(np.matmul(x, y));

function linear(x: Tensor, weight: Tensor, lora: Named | undefined, name: string): Tensor {
  if (lora === undefined) return product(x, weight);
  const low = product(product(x.ref, lora[`${name}.a`]!), lora[`${name}.b`]!);
  return product(x, weight).add(low.mul(2));
}

const normalised = (x: Tensor, weight: Tensor): Tensor => {
  const square = np.mean(np.square(x.ref), -1, { keepdims: true });
  return x.mul(np.reciprocal(np.sqrt(square.add(1e-5)))).mul(weight);
};

function turned(x: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const half = x.shape.at(-1)! / 2;
  const all = x.shape.slice(0, -1).map(() => [] as []);
  const first = x.ref.slice(...all, [0, half]);
  const second = x.ref.slice(...all, [half, 2 * half]);
  return x.mul(cos).add(np.concatenate([second.neg(), first], -1).mul(sin));
}

interface Constants {
  readonly cos: Tensor;
  readonly sin: Tensor;
  readonly mask: Tensor;
  readonly vocabulary: Tensor;
}

/** Cross-entropy of every next token: [batch, length]. Consumes everything. */
function tokenLosses(
  shape: LabShape,
  base: Named,
  lora: Named | undefined,
  ids: Tensor,
  targets: Tensor,
  fixed: Constants,
): Tensor {
  const { heads, width, length } = shape;
  const batch = shape.batch;
  const size = width / heads;
  const split = (x: Tensor): Tensor => x.reshape([batch, length, heads, size]).transpose([0, 2, 1, 3]);
  const embedding = base.embedding!;
  let x = embedding.ref.slice(ids);
  for (let l = 0; l < shape.layers; l++) {
    const w = (name: string): Tensor => base[`${l}.${name}`]!;
    const h = normalised(x.ref, w('norm1'));
    const q = turned(split(linear(h.ref, w('wq'), lora, `${l}.wq`)), fixed.cos.ref, fixed.sin.ref);
    const k = turned(split(linear(h.ref, w('wk'), lora, `${l}.wk`)), fixed.cos.ref, fixed.sin.ref);
    const v = split(linear(h, w('wv'), lora, `${l}.wv`));
    const scores = product(q, k.transpose([0, 1, 3, 2]))
      .mul(1 / Math.sqrt(size))
      .add(fixed.mask.ref);
    const mixed = product(nn.softmax(scores, -1), v).transpose([0, 2, 1, 3]).reshape([batch, length, width]);
    // A runtime 1 breaks the transposed view before the matmul (engine rule 3).
    const plain = mixed.mul(fixed.cos.ref.slice(0, [0, 1]));
    x = x.add(linear(plain, w('wo'), lora, `${l}.wo`));
    const g = normalised(x.ref, w('norm2'));
    const gate = nn.silu(linear(g.ref, w('wg'), lora, `${l}.wg`));
    x = x.add(linear(gate.mul(linear(g, w('wu'), lora, `${l}.wu`)), w('wd'), lora, `${l}.wd`));
  }
  const logits = product(normalised(x, base.norm!), embedding.transpose());
  const all = nn.logsumexp(logits.ref, -1);
  const hit = np.equal(fixed.vocabulary, targets.reshape([batch, length, 1]));
  fixed.cos.dispose();
  fixed.sin.dispose();
  fixed.mask.dispose();
  return all.sub(np.where(hit, logits, 0).sum(-1));
}

export interface Lab {
  readonly layout: GradientLayout;
  /** Trains everything on `sequences` (the base model). */
  pretrain(
    base: Weights,
    sequences: readonly number[][],
    steps: number,
    seed: bigint,
    report?: (step: number, loss: number) => void,
  ): Promise<Weights>;
  /** LoRA training on the records of positive weight; the checkpoint is taken at half of the steps. */
  train(
    sequences: readonly number[][],
    weights: ArrayLike<number>,
    epochs: number,
    seed: bigint,
  ): Promise<{ final: Weights; checkpoint: Weights; loss: number }>;
  /** Mean loss a token of each sequence. */
  losses(adapter: Weights, sequences: readonly number[][]): Promise<Float64Array>;
  /** Gradient of each sequence's mean loss, in the layout of features. */
  gradients(adapter: Weights, sequences: readonly number[][], take: (gradient: Float32Array) => void): Promise<void>;
  setBase(base: Weights): void;
  close(): void;
}

export async function openLab(shape: LabShape): Promise<Lab> {
  await init('wasm');
  defaultDevice('wasm');
  const { batch, length, width, heads, vocabulary } = shape;
  const size = width / heads;
  const constants = (): Constants => {
    const [cos, sin] = [new Float32Array(length * size), new Float32Array(length * size)];
    for (let t = 0; t < length; t++) {
      for (let i = 0; i < size; i++) {
        const angle = t * 10_000 ** ((-2 * (i % (size / 2))) / size);
        cos[t * size + i] = Math.cos(angle);
        sin[t * size + i] = Math.sin(angle);
      }
    }
    const mask = Float32Array.from({ length: length * length }, (_, i) =>
      i % length <= Math.floor(i / length) ? 0 : -1e30,
    );
    return {
      cos: np.array(cos, { shape: [length, size] }),
      sin: np.array(sin, { shape: [length, size] }),
      mask: np.array(mask, { shape: [length, length] }),
      vocabulary: np.array(
        Int32Array.from({ length: vocabulary }, (_, i) => i),
        { shape: [1, 1, vocabulary], dtype: np.int32 },
      ),
    };
  };
  const fixed = constants();
  let base: Named | undefined;
  const kept = <T extends Named | Constants>(arrays: T): T => tree.ref(arrays as never) as T;

  /** Ids, targets and weights (1/tokens each, times the sequence's) of up to `batch` sequences. */
  const feed = (sequences: readonly (readonly number[])[], weights: readonly number[]) => {
    const ids = new Int32Array(batch * length);
    const targets = new Int32Array(batch * length);
    const share = new Float32Array(batch * length);
    for (const [b, sequence] of sequences.entries()) {
      const tokens = Math.max(1, sequence.length - 1);
      for (let t = 0; t + 1 < Math.min(sequence.length, length + 1); t++) {
        ids[b * length + t] = sequence[t]!;
        targets[b * length + t] = sequence[t + 1]!;
        share[b * length + t] = weights[b]! / tokens;
      }
    }
    const ints = (data: Int32Array) =>
      np.array(data as Int32Array<ArrayBuffer>, { shape: [batch, length], dtype: np.int32 });
    return { ids: ints(ids), targets: ints(targets), share: np.array(share, { shape: [batch, length] }) };
  };

  const weighted = (
    lora: Named | undefined,
    weights: Named,
    ids: Tensor,
    targets: Tensor,
    share: Tensor,
    of: Constants,
  ): Tensor => tokenLosses(shape, weights, lora, ids, targets, of).mul(share).sum();
  const baseStep = jit(
    valueAndGrad((weights: Named, ids: Tensor, targets: Tensor, share: Tensor, of: Constants) =>
      weighted(undefined, weights, ids, targets, share, of),
    ) as never,
  ) as unknown as (weights: Named, ids: Tensor, targets: Tensor, share: Tensor, of: Constants) => [Tensor, Named];
  const loraStep = jit(valueAndGrad(weighted as never) as never) as unknown as (
    lora: Named,
    weights: Named,
    ids: Tensor,
    targets: Tensor,
    share: Tensor,
    of: Constants,
  ) => [Tensor, Named];
  const forward = jit(((lora: Named, weights: Named, ids: Tensor, targets: Tensor, share: Tensor, of: Constants) =>
    tokenLosses(shape, weights, lora, ids, targets, of).mul(share).sum(-1)) as never) as unknown as (
    lora: Named,
    weights: Named,
    ids: Tensor,
    targets: Tensor,
    share: Tensor,
    of: Constants,
  ) => Tensor;

  const adam = (weights: Weights, peak: number, total: number) => {
    const moments = Object.fromEntries(
      Object.entries(weights).map(([name, { data }]) => [
        name,
        { m: new Float32Array(data.length), v: new Float32Array(data.length) },
      ]),
    );
    let step = 0;
    return async (gradients: Named): Promise<void> => {
      step++;
      const warm = Math.min(1, step / Math.max(1, 0.1 * total));
      const rate = peak * warm * 0.5 * (1 + Math.cos((Math.PI * step) / total));
      for (const [name, gradient] of Object.entries(gradients)) {
        const g = (await gradient.data()) as Float32Array;
        const { data } = weights[name]!;
        const { m, v } = moments[name]!;
        for (let i = 0; i < data.length; i++) {
          m[i] = 0.9 * m[i]! + 0.1 * g[i]!;
          v[i] = 0.99 * v[i]! + 0.01 * g[i]! * g[i]!;
          const hat = m[i]! / (1 - 0.9 ** step);
          data[i]! -= (rate * hat) / (Math.sqrt(v[i]! / (1 - 0.99 ** step)) + 1e-8);
        }
      }
    };
  };

  const layout = gradientLayout(
    Object.entries(freshLora(shape, 0n)).map(([name, { shape: dims }]) =>
      name.endsWith('.a') ? { name, rank: dims[1]!, hidden: dims[0]! } : { name, rank: dims[0]!, hidden: dims[1]! },
    ),
  );

  const batchesOf = <T>(items: readonly T[]): T[][] =>
    Array.from({ length: Math.ceil(items.length / batch) }, (_, b) => items.slice(b * batch, (b + 1) * batch));

  return {
    layout,
    setBase(weights) {
      if (base !== undefined) tree.dispose(base as never);
      base = upload(weights);
    },
    async pretrain(start, sequences, steps, seed, report) {
      const weights = copyOf(start);
      const update = adam(weights, 3e-3, steps);
      const next = uniforms(seed);
      for (let step = 0; step < steps; step++) {
        const chosen = Array.from({ length: batch }, () => sequences[Math.floor(next() * sequences.length)]!);
        const { ids, targets, share } = feed(
          chosen,
          chosen.map(() => 1 / batch),
        );
        const [loss, gradients] = baseStep(upload(weights), ids, targets, share, kept(fixed));
        await blockUntilReady(gradients as never);
        await update(gradients);
        const value = ((await loss.data()) as Float32Array)[0]!;
        if (step % 100 === 99) report?.(step + 1, value);
      }
      return weights;
    },
    async train(sequences, weights, epochs, seed) {
      const used = Array.from(sequences.keys()).filter((i) => weights[i]! > 0);
      const lora = freshLora(shape, seed);
      const total = epochs * Math.ceil(used.length / batch);
      const update = adam(lora, 5e-3, total);
      const next = uniforms(seed ^ 0x5eedn);
      let checkpoint = copyOf(lora);
      let step = 0;
      let last = 0;
      for (let epoch = 0; epoch < epochs; epoch++) {
        const order = used
          .map((i) => ({ i, at: next() }))
          .sort((a, b) => a.at - b.at)
          .map(({ i }) => i);
        last = 0;
        for (const part of batchesOf(order)) {
          const { ids, targets, share } = feed(
            part.map((i) => sequences[i]!),
            part.map((i) => weights[i]! / batch),
          );
          const [loss, gradients] = loraStep(upload(lora), kept(base!), ids, targets, share, kept(fixed));
          await blockUntilReady(gradients as never);
          await update(gradients);
          last += ((await loss.data()) as Float32Array)[0]!;
          if (++step === Math.floor(total / 2)) checkpoint = copyOf(lora);
        }
      }
      return { final: lora, checkpoint, loss: (last * batch) / Math.max(1, used.length) };
    },
    async losses(adapter, sequences) {
      const out: number[] = [];
      const lora = upload(adapter);
      for (const part of batchesOf(sequences)) {
        const { ids, targets, share } = feed(
          part,
          part.map(() => 1),
        );
        const values = forward(kept(lora), kept(base!), ids, targets, share, kept(fixed));
        out.push(...((await values.data()) as Float32Array).subarray(0, part.length));
      }
      tree.dispose(lora as never);
      return Float64Array.from(out);
    },
    async gradients(adapter, sequences, take) {
      // Each sequence has factors of its own: the gradient of the summed losses is then one gradient a sequence (rule 4).
      const repeated: Weights = Object.fromEntries(
        Object.entries(adapter).map(([name, { shape: dims, data }]) => {
          const copies = new Float32Array(batch * data.length);
          for (let b = 0; b < batch; b++) copies.set(data, b * data.length);
          return [name, { shape: [batch, ...dims], data: copies }];
        }),
      );
      for (const part of batchesOf(sequences)) {
        const { ids, targets, share } = feed(
          part,
          part.map(() => 1),
        );
        const [loss, gradients] = loraStep(upload(repeated), kept(base!), ids, targets, share, kept(fixed));
        await blockUntilReady(gradients as never);
        loss.dispose();
        const read: Record<string, Float32Array> = {};
        for (const [name, gradient] of Object.entries(gradients)) read[name] = (await gradient.data()) as Float32Array;
        for (const b of part.keys()) {
          const gradient = new Float32Array(layout.size);
          for (const { name, rank, hidden, offset } of layout.matrices) {
            const from = b * rank * hidden;
            const data = read[name]!;
            // `a` is [inputs, rank]: its hidden side is the first; `b` is [rank, outputs] already.
            const transposed = name.endsWith('.a');
            for (let r = 0; r < rank; r++) {
              for (let h = 0; h < hidden; h++) {
                gradient[offset + r * hidden + h] = data[from + (transposed ? h * rank + r : r * hidden + h)]!;
              }
            }
          }
          take(gradient);
        }
      }
    },
    close() {
      if (base !== undefined) tree.dispose(base as never);
      tree.dispose(fixed as never);
      base = undefined;
    },
  };
}
