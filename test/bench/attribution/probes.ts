/** LoGra's projected gradients, from the engine's own gradients of a LoRA that stands beside the trained one. */

import { uniforms } from '../../../gpu-worker/attribution/seeded.ts';
import { readTensors, writeTensors } from '../../../gpu-worker/engines/embedded/safetensors.ts';
import type { AdapterFiles, Example, LoadedModel } from '../../../gpu-worker/engines/engine.ts';

const DIRECTIONS = 8;

/** Nearly normal numbers of variance 1. */
function normals(seed: bigint): () => number {
  const next = uniforms(seed);
  return () => {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += next();
    return sum;
  };
}

export interface ProbeGradients {
  /** `side²` entries a linear map of the base. */
  readonly part: number;
  of(examples: readonly Example[]): Promise<Float64Array[]>;
  close(): Promise<void>;
}

/**
 * `checkpoint` with {@link DIRECTIONS} more directions of rank: random A, B zero, so that the model's outputs stay what they
 * are and the gradient of the new B is `Σ (P x) δᵀ`. Its output side is projected to as many entries.
 */
export async function probeGradients(
  model: LoadedModel,
  { config, weights }: AdapterFiles,
  seed: bigint,
): Promise<ProbeGradients> {
  const read = JSON.parse(new TextDecoder().decode(config)) as { r: number; lora_alpha: number };
  const rank = read.r;
  const wide = rank + DIRECTIONS;
  const normal = normals(seed);
  const tensors = [...readTensors(weights, 'BAD_ADAPTER')].map(([name, { shape, values }]) => {
    const isA = name.includes('.lora_A.');
    const long = isA ? shape[1]! : shape[0]!;
    const out = new Float32Array(wide * long);
    if (isA) {
      out.set(values);
      for (let i = values.length; i < out.length; i++) out[i] = normal() / Math.sqrt(long);
    } else for (let i = 0; i < long; i++) out.set(values.subarray(i * rank, (i + 1) * rank), i * wide);
    return { name, shape: isA ? [wide, long] : [long, wide], values: out };
  });
  const widened = { ...read, r: wide, lora_alpha: (read.lora_alpha * wide) / rank };
  const files = { config: new TextEncoder().encode(JSON.stringify(widened)), weights: writeTensors(tensors) };
  const adapter = await model.openAdapter(files);
  const outputs = model.layout(adapter.lora).matrices.filter(({ name }) => name.includes('.lora_B.'));
  const projections = outputs.map(({ hidden }) =>
    Float64Array.from({ length: DIRECTIONS * hidden }, () => normal() / Math.sqrt(hidden)),
  );
  const part = DIRECTIONS * DIRECTIONS;
  return {
    part,
    async of(examples) {
      const all: Float64Array[] = [];
      for await (const { gradient } of model.gradients(examples, adapter)) {
        const out = new Float64Array(outputs.length * part);
        for (const [m, { hidden, offset }] of outputs.entries()) {
          const projection = projections[m]!;
          for (let r = 0; r < DIRECTIONS; r++) {
            const from = offset + (rank + r) * hidden;
            for (let c = 0; c < DIRECTIONS; c++) {
              let sum = 0;
              for (let h = 0; h < hidden; h++) sum += gradient[from + h]! * projection[c * hidden + h]!;
              out[m * part + r * DIRECTIONS + c] = sum;
            }
          }
        }
        all.push(out);
      }
      return all;
    },
    close: () => adapter.close(),
  };
}
