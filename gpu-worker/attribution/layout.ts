/**
 * How the gradient of one record is laid out: all LoRA matrices one after the other, in ascending order of their names
 * (UTF-16 units), each as [rank][hidden]. `lora_A` (rank × in) is so already; `lora_B` (out × rank) is transposed. Both
 * engines must agree on this, since the sketch hashes positions.
 */

export interface LoraMatrix {
  /** PEFT's name, for example `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`. */
  readonly name: string;
  readonly rank: number;
  readonly hidden: number;
}

export interface GradientLayout {
  readonly matrices: readonly (LoraMatrix & { readonly offset: number })[];
  readonly size: number;
  /** Width of the blocks that the hidden side's eigenbasis is cut into (the last block of a side may be narrower). */
  readonly block: number;
}

export class LayoutError extends Error {
  readonly code = 'BAD_LAYOUT';
}

export function gradientLayout(matrices: readonly LoraMatrix[], block = 32): GradientLayout {
  const sorted = [...matrices].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  let offset = 0;
  const placed = sorted.map((matrix, at) => {
    if (at > 0 && sorted[at - 1]!.name === matrix.name) throw new LayoutError(`two matrices named ${matrix.name}`);
    const here = offset;
    offset += matrix.rank * matrix.hidden;
    return { ...matrix, offset: here };
  });
  return { matrices: placed, size: offset, block };
}

/** First column and width of each block of a hidden side. */
export function blocksOf(hidden: number, block: number): { readonly start: number; readonly width: number }[] {
  const out: { start: number; width: number }[] = [];
  for (let start = 0; start < hidden; start += block) out.push({ start, width: Math.min(block, hidden - start) });
  return out;
}

/** Entries of all diagonal blocks of a hidden side, one after the other, row-major. */
export const blockEntries = (hidden: number, block: number): number =>
  blocksOf(hidden, block).reduce((sum, { width }) => sum + width * width, 0);
