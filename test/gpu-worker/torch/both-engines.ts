/** The torch engine in its Python process and the embedded one, side by side. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { embeddedEngine } from '../../../gpu-worker/engines/embedded/engine.ts';
import {
  type AdapterFiles,
  type Example,
  type ExampleGradient,
  LORA_TARGETS,
  type LoadedModel,
  type LoraSettings,
} from '../../../gpu-worker/engines/engine.ts';
import { torchEngine } from '../../../gpu-worker/engines/torch/engine.ts';
import { findPython } from '../../../gpu-worker/engines/torch/python.ts';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
export const VECTORS = here('../../vectors/embedded');
export const GLOSSA = here('../../../gpu-worker/models/glossa-3m');
export const SEVEN: LoraSettings = { rank: 4, alpha: 8, targets: LORA_TARGETS };

export async function engines(t: Test, directory: string, serving = {}) {
  const search = await findPython();
  if (!search.found) throw new Error(`${search.reason}: ${search.advice}`);
  const scratch = mkdtempSync(join(tmpdir(), 'torch-agreement-'));
  const { program } = search.python;
  const torch = torchEngine({ python: program, device: 'cpu', dtype: 'fp32', threads: 1, scratch, log: () => {} });
  const embedded = await embeddedEngine();
  t.teardown(async () => {
    await Promise.all([torch.close(), embedded.close()]);
    rmSync(scratch, { recursive: true });
  });
  const own = await torch.load(directory, serving);
  const other = await embedded.load(directory, serving);
  return { own, other, torch };
}

export const files = (directory: string): AdapterFiles => ({
  config: readFileSync(join(directory, 'adapter_config.json')),
  weights: readFileSync(join(directory, 'adapter_model.safetensors')),
});

export async function collect(items: AsyncIterable<ExampleGradient>): Promise<ExampleGradient[]> {
  const out: ExampleGradient[] = [];
  for await (const item of items) out.push(item);
  return out;
}

/** ‖a − b‖ / ‖b‖ */
export function apart(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let gap = 0;
  let norm = 1e-60;
  for (let i = 0; i < a.length; i++) {
    gap += (a[i]! - b[i]!) ** 2;
    norm += b[i]! ** 2;
  }
  return Math.sqrt(gap / norm);
}

export function cosine(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return ab / Math.sqrt(aa * bb);
}

export const records = (model: LoadedModel, count: number): Example[] =>
  Array.from({ length: count }, (_, i) =>
    i % 3 === 0
      ? model.tokenizer.plain(
          `${i} little ducks went swimming one day, over the hills and far away, and ${i} came back.`,
        )
      : model.tokenizer.question(
          `What is ${i} times ${i + 1}?`,
          `It is ${i * (i + 1)}, as everybody knows who can count.`,
        ),
  );
