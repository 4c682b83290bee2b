/** Attribution methods side by side: each gives a score of every training record for every query. */

import { symmetricEigen } from '../../../gpu-worker/attribution/eigen.ts';
import { buildBases, type FeatureSettings, featureExtractor } from '../../../gpu-worker/attribution/extractor.ts';
import type { GradientLayout } from '../../../gpu-worker/attribution/layout.ts';
import { divisors, type MatrixCovariance, rotation } from '../../../gpu-worker/attribution/precondition.ts';
import { sjlt } from '../../../gpu-worker/attribution/sketch.ts';
import type { VectorSpool } from '../../../gpu-worker/attribution/spool.ts';
import { suffixIndex } from '../../../gpu-worker/attribution/suffix-index.ts';

/** `scores[query][record]`. */
export type Scores = Float64Array[];

export interface Method {
  readonly name: string;
  /** Bytes kept a record. */
  readonly bytes: number;
  readonly scores: Scores;
  /** Milliseconds a query, everything after its gradient. */
  readonly queryMs: number;
}

/** Gradients in the engine's layout: of the records, of the queries; the factors of the preconditioner. */
export interface Gradients {
  readonly layout: GradientLayout;
  readonly rows: VectorSpool;
  readonly queryGradients: VectorSpool;
  readonly covariances: readonly MatrixCovariance[];
}

const each = (spool: VectorSpool): Float32Array[] => Array.from({ length: spool.length }, (_, i) => spool.at(i));

function dot(a: ArrayLike<number>, b: ArrayLike<number>, from = 0, to = a.length): number {
  let sum = 0;
  for (let j = from; j < to; j++) sum += a[j]! * b[j]!;
  return sum;
}

function unit(vector: Float64Array): Float64Array {
  const norm = Math.sqrt(dot(vector, vector));
  return norm === 0 ? vector : vector.map((value) => value / norm);
}

function timed(queries: number, compute: () => Scores): { readonly scores: Scores; readonly queryMs: number } {
  const start = performance.now();
  const scores = compute();
  return { scores, queryMs: (performance.now() - start) / queries };
}

const allDots = (rows: readonly ArrayLike<number>[], queries: readonly ArrayLike<number>[]): Scores =>
  queries.map((query) => Float64Array.from(rows, (row) => dot(row, query)));

export function gradientDot({ layout, rows, queryGradients: queries }: Gradients): Method {
  const [r, q] = [each(rows), each(queries)];
  return { name: 'gradient dot product', bytes: 4 * layout.size, ...timed(q.length, () => allDots(r, q)) };
}

export function gradientCosine({ layout, rows, queryGradients: queries }: Gradients): Method {
  const r = each(rows).map((row) => unit(Float64Array.from(row)));
  const q = each(queries);
  return { name: 'gradient cosine', bytes: 4 * layout.size, ...timed(q.length, () => allDots(r, q)) };
}

/** DataInf (Kwon et al. 2024, eq. 5), a matrix at a time, λ = c · mean square gradient. */
export function dataInf({ layout, rows, queryGradients: queries }: Gradients, c = 0.1): Method {
  const [r, q] = [each(rows), each(queries)];
  const { queryMs, scores } = timed(q.length, () =>
    q.map((query) => {
      const total = new Float64Array(r.length);
      for (const { offset, rank, hidden } of layout.matrices) {
        const end = offset + rank * hidden;
        const squares = r.map((row) => dot(row, row, offset, end));
        const lambda = (c * squares.reduce((sum, value) => sum + value, 0)) / (r.length * (end - offset)) || 1e-30;
        const inverse = new Float64Array(end - offset);
        for (const [i, row] of r.entries()) {
          const factor = dot(row, query, offset, end) / (lambda + squares[i]!);
          for (let j = 0; j < inverse.length; j++) inverse[j]! += query[offset + j]! - factor * row[offset + j]!;
        }
        for (const [i, row] of r.entries()) {
          let sum = 0;
          for (let j = 0; j < inverse.length; j++) sum += inverse[j]! * row[offset + j]!;
          total[i]! += sum / (r.length * lambda);
        }
      }
      return total;
    }),
  );
  return { name: `DataInf (c = ${c})`, bytes: 4 * layout.size, scores, queryMs };
}

/** TRAK (Park et al. 2023), one model: project the raw gradients, then precondition with the projected Gram matrix. */
export function trakLike({ layout, rows, queryGradients: queries }: Gradients, k: number, seed = 17n): Method {
  const ones = new Float64Array(layout.size).fill(1);
  const { add } = sjlt(seed, layout.size, k);
  const project = (gradient: Float32Array): Float64Array => {
    const out = new Float64Array(k);
    add(Float64Array.from(gradient), ones, out);
    return out;
  };
  const r = each(rows).map(project);
  const gram = new Float64Array(k * k);
  for (const row of r) for (let i = 0; i < k; i++) for (let j = 0; j <= i; j++) gram[i * k + j]! += row[i]! * row[j]!;
  const { values, vectors } = symmetricEigen(gram, k);
  const floor = (0.1 * values.reduce((sum, value) => sum + Math.max(0, value), 0)) / k;
  const turn = (x: Float64Array): Float64Array =>
    Float64Array.from({ length: k }, (_, c) => {
      return dot(vectors.subarray(c * k, (c + 1) * k), x) / Math.sqrt(Math.max(0, values[c]!) + floor);
    });
  const turned = r.map(turn);
  const q = each(queries);
  return {
    name: `TRAK-like k = ${k}`,
    bytes: 4 * k,
    ...timed(q.length, () =>
      allDots(
        turned,
        q.map((g) => turn(project(g))),
      ),
    ),
  };
}

/**
 * LoGra (Choe et al. 2024), `side` × `side` a linear map of the base: activations and gradients at its output are projected
 * by random matrices, and the damped inverse of each map's Gram matrix preconditions what is left. The engine gives these
 * gradients as those of a second LoRA beside the trained one (`probes`), whose A is the projection and whose B is zero.
 */
export function logra(rows: readonly Float64Array[], queries: readonly Float64Array[], part: number): Method {
  const size = rows[0]!.length;
  const inverse = new Float64Array(size);
  const q = queries.map((query) => query.slice());
  return {
    name: `LoGra ${Math.sqrt(part)} × ${Math.sqrt(part)}`,
    bytes: 4 * size,
    ...timed(q.length, () => {
      for (let from = 0; from < size; from += part) {
        const gram = new Float64Array(part * part);
        for (const row of rows) {
          for (let i = 0; i < part; i++)
            for (let j = 0; j <= i; j++) gram[i * part + j]! += row[from + i]! * row[from + j]!;
        }
        const { values, vectors } = symmetricEigen(gram, part);
        const floor = (0.1 * values.reduce((sum, value) => sum + Math.max(0, value), 0)) / part || 1e-30;
        for (const query of q) {
          inverse.fill(0);
          for (let c = 0; c < part; c++) {
            const vector = vectors.subarray(c * part, (c + 1) * part);
            let along = 0;
            for (let j = 0; j < part; j++) along += vector[j]! * query[from + j]!;
            along /= Math.max(0, values[c]!) + floor;
            for (let j = 0; j < part; j++) inverse[j]! += along * vector[j]!;
          }
          query.set(inverse.subarray(0, part), from);
        }
      }
      return allDots(rows, q);
    }),
  };
}

/** EK-FAC with nothing left out: full float vectors of unit norm. */
export async function uncompressed(material: Gradients, settings: FeatureSettings, normalise = true): Promise<Method> {
  const { layout, rows, queryGradients: queries, covariances } = material;
  const { eigenbases } = await buildBases(layout, rows, covariances, { ...settings, projectionRows: 1 });
  const { turn } = rotation(layout, eigenbases);
  const factors = divisors(layout, eigenbases.lambda, eigenbases.damping);
  const precondition = (gradient: Float32Array): Float64Array => {
    const out = new Float64Array(layout.size);
    turn(gradient, out);
    for (let j = 0; j < out.length; j++) out[j]! *= factors[j]!;
    return out;
  };
  const r = each(rows).map(precondition);
  const kept = normalise ? r.map(unit) : r;
  const q = each(queries);
  const name = normalise ? 'ours, uncompressed' : 'EK-FAC, rows not normalised';
  return { name, bytes: 4 * layout.size, ...timed(q.length, () => allDots(kept, q.map(precondition))) };
}

/** Ours: the worker's own path, in float before quantisation and in int8. */
export async function ours(material: Gradients, settings: FeatureSettings): Promise<{ float: Method; int8: Method }> {
  const { layout, rows, queryGradients: queries, covariances } = material;
  const extractor = featureExtractor(await buildBases(layout, rows, covariances, settings));
  const z = each(rows).map((gradient) => unit(extractor.reduced(gradient)));
  const quantised = each(rows).map((gradient) => extractor.feature(gradient));
  const q = each(queries);
  const k = settings.k;
  return {
    float: {
      name: `ours, float, k = ${k}`,
      bytes: 4 * k,
      ...timed(q.length, () =>
        allDots(
          z,
          q.map((g) => extractor.reduced(g)),
        ),
      ),
    },
    int8: {
      name: `ours, int8, k = ${k}`,
      bytes: k + 4,
      ...timed(q.length, () =>
        q.map((gradient) => {
          const { values } = extractor.feature(gradient);
          return Float64Array.from(quantised, (row) => row.scale * dot(row.values, values));
        }),
      ),
    },
  };
}

/** Span match alone: every maximal span's mass, shared by all records that hold it. */
export function spanMatch(tokens: readonly number[][], outputs: readonly number[][], vocabulary: number): Method {
  const index = suffixIndex(tokens, vocabulary);
  const scored = timed(outputs.length, () =>
    outputs.map((output) => {
      const scores = new Float64Array(tokens.length);
      for (const { mass, matches } of index.maximalSpans(output)) {
        for (const { record } of matches) scores[record]! += mass / matches.length;
      }
      return scores;
    }),
  );
  return { name: 'span match', bytes: Number.NaN, ...scored };
}
