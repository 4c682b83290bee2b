/** Steps that the pass over a sequence and the serving of many share. Matrices are row-major; addresses in bytes. */
import type { LoraTarget } from '../engine.ts';
import type { LoraMemory, LoraPart } from './adapter.ts';
import type { Linear, Model } from './model.ts';

/** `y = (y +) x Wᵀ` for `rows` rows. */
export function linear(model: Model, x: number, rows: number, weights: Linear, y: number, add: 0 | 1): void {
  const { in: input, out } = weights;
  const columns = (out + 3) & ~3;
  model.kernels.gemm(
    ...([rows, columns, input] as const),
    ...([x, input * 4, 4, weights.forward, input * 32, 32, y, columns * 4, 1, add] as const),
  );
}

/** `dx = (dx +) dy W`. */
export function linearBackward(model: Model, dy: number, rows: number, weights: Linear, dx: number, add: 0 | 1): void {
  const { in: input, out } = weights;
  const k = (out + 3) & ~3;
  model.kernels.gemm(
    ...([rows, input, k] as const),
    ...([dy, k * 4, 4, weights.backward, k * 32, 32, dx, input * 4, 1, add] as const),
  );
}

/** `h = x Aᵀ`, [rows][padded], and `y += scale · h Bᵀ`. */
export function lowRank(
  model: Model,
  adapter: LoraMemory,
  part: LoraPart,
  x: number,
  rows: number,
  h: number,
  y: number,
): void {
  const { in: input, out } = part.module;
  const { gemm } = model.kernels;
  const wide = adapter.padded * 4;
  gemm(rows, adapter.padded, input, x, input * 4, 4, part.aTurned, 32, wide, h, wide, 1, 0);
  gemm(rows, out, adapter.lora.rank, h, wide, 4, part.b, 32, out * 4, y, out * 4, adapter.scale, 1);
}

/** Which inputs and outputs a module has, by name of the buffers of a layer. */
export const TARGETS_AT_INPUT: readonly LoraTarget[] = ['q_proj', 'k_proj', 'v_proj'];

/** Rows of the causal attention that are computed at a time: each as wide as its last row needs. */
export const ATTENTION_ROWS = 32;
