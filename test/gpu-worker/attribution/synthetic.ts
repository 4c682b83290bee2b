/** Made-up gradients and what the worker makes of them, for tests in this and in other processes. */
import { createHash } from 'node:crypto';
import { writeEigenbases, writeProjection } from '../../../gpu-worker/attribution/basis-files.ts';
import { buildBases, extractRows, featureExtractor } from '../../../gpu-worker/attribution/extractor.ts';
import { gradientLayout } from '../../../gpu-worker/attribution/layout.ts';
import { GradientCovariances } from '../../../gpu-worker/attribution/precondition.ts';
import type { QuantisedRow } from '../../../gpu-worker/attribution/quantise.ts';
import { VectorSpool } from '../../../gpu-worker/attribution/spool.ts';
import { random } from '../../runtime/attribution/world.ts';

/** Nearly normal numbers. */
export function normal(seed: number): () => number {
  const { next } = random(seed);
  return () => {
    let sum = -6;
    for (let i = 0; i < 12; i++) sum += next();
    return sum;
  };
}

/** Gradients with a few strong directions, as real ones have. */
export async function synthetic(count: number, memory?: number) {
  const layout = gradientLayout(
    [
      { name: 'layers.0.q.lora_A', rank: 8, hidden: 48 },
      { name: 'layers.0.q.lora_B', rank: 8, hidden: 48 },
      { name: 'layers.1.q.lora_A', rank: 8, hidden: 50 },
    ],
    32,
  );
  const next = normal(99);
  const factors = Array.from({ length: 20 }, (_, f) =>
    Float64Array.from({ length: layout.size }, () => next() / (1 + f)),
  );
  const spool = memory === undefined ? new VectorSpool(layout.size) : new VectorSpool(layout.size, memory);
  const covariances = new GradientCovariances(layout);
  for (let i = 0; i < count; i++) {
    const gradient = new Float32Array(layout.size);
    for (const factor of factors) {
      const weight = next();
      for (let j = 0; j < gradient.length; j++) gradient[j]! += weight * factor[j]!;
    }
    for (let j = 0; j < gradient.length; j++) gradient[j]! += 0.02 * next();
    spool.append(gradient);
    covariances.add(gradient);
  }
  const settings = { k: 64, sketchWidth: 2048, sketchSeed: 5n, rotationSeed: 6n, damping: 0.01, projectionRows: 100 };
  const bases = await buildBases(layout, spool, covariances.finish(), settings);
  const rows: QuantisedRow[] = [];
  for await (const row of extractRows(featureExtractor(bases), spool)) rows.push(row);
  return { layout, spool, bases, rows };
}

export function fingerprint({ layout, bases, rows }: Awaited<ReturnType<typeof synthetic>>): string {
  const digest = createHash('sha256');
  digest.update(writeEigenbases(layout, bases.eigenbases)).update(writeProjection(bases.projection));
  for (const { scale, values } of rows) digest.update(String(scale)).update(values);
  return digest.digest('hex');
}
