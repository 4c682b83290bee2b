/** The whole way from gradients to int8 features, for rows, queries and audits alike (docs/method.md, steps 2–5). */
import { featureKernel } from './feature-kernel.ts';
import type { GradientLayout } from './layout.ts';
import {
  divisors,
  type Eigenbases,
  eigenbasesOf,
  type MatrixCovariance,
  PreconditionError,
  rotation,
  SecondMoment,
} from './precondition.ts';
import { type Projection, principalDirections, rotator } from './projection.ts';
import { type QuantisedRow, quantise } from './quantise.ts';
import { dot, seededSample } from './seeded.ts';
import { sjlt } from './sketch.ts';
import type { VectorSpool } from './spool.ts';

export interface FeatureSettings {
  readonly k: number;
  /** Buckets of the sketch, a power of two. */
  readonly sketchWidth: number;
  readonly sketchSeed: bigint;
  readonly rotationSeed: bigint;
  /** Part of each matrix's mean of Λ. */
  readonly damping: number;
  /** Rows that V_k is computed from, at most: its cost grows with their square. */
  readonly projectionRows: number;
}

/**
 * Buckets: two fifths of the adapter's parameters keep what the method is worth (measured on 165,888 of them); a sketch
 * adds noise of 1/√buckets to every cosine, and those that matter are around .03.
 */
export const DEFAULT_FEATURES = { k: 256, sketchWidth: 65_536, damping: 0.01, projectionRows: 1024 } as const;

export interface FeatureBases {
  readonly layout: GradientLayout;
  readonly eigenbases: Eigenbases;
  readonly projection: Projection;
  readonly sketchSeed: bigint;
  readonly rotationSeed: bigint;
  /** Where they were read from files: what `writeEigenbases` and `writeProjection` would make of them again. */
  readonly files?: { readonly eigenbases: Uint8Array; readonly projection: Uint8Array };
}

/** What a projection makes of a gradient, here or on an engine's device; the seeded rotation is still to come. */
export interface Projected {
  /** Coordinates along the vectors of V_k. */
  readonly along: ArrayLike<number>;
  /** Squared norm of the sketch. */
  readonly energy: number;
}

/** The rest of the way to a feature, wherever the first part was gone. */
export interface Finisher {
  /** z before quantisation. */
  reduced(projected: Projected): Float64Array;
  feature(projected: Projected): QuantisedRow;
  /** Part of the sketch's energy that the projection keeps, 0 … 1. */
  captured(projected: Projected): number;
}

export function finisher(k: number, rotationSeed: bigint): Finisher {
  const rotate = rotator(k, rotationSeed);
  return {
    reduced: ({ along }) => rotate(along),
    feature: ({ along }) => quantise(rotate(along)),
    // The rotation keeps norms.
    captured: ({ along, energy }) => (energy === 0 ? 1 : dot(along, along) / energy),
  };
}

export interface FeatureExtractor {
  readonly k: number;
  /** `sketch(a)` of a gradient, a = preconditioned. */
  sketched(gradient: Float32Array): Float64Array;
  /** Its own copy. */
  projected(gradient: Float32Array): Projected;
  /** z before quantisation. */
  reduced(gradient: Float32Array): Float64Array;
  /** Part of the sketch's energy that the projection keeps, 0 … 1. */
  captured(gradient: Float32Array): number;
  /** The int8 feature of a record or a query. */
  feature(gradient: Float32Array): QuantisedRow;
}

export function featureExtractor({
  layout,
  eigenbases,
  projection,
  sketchSeed,
  rotationSeed,
}: FeatureBases): FeatureExtractor {
  const kernel = featureKernel(layout, eigenbases, projection);
  const sketched = sketcher(layout, eigenbases, sketchSeed, projection.width, (gradient) => kernel.turn(gradient));
  const finish = finisher(projection.k, rotationSeed);
  const projected = (gradient: Float32Array): Projected => {
    const sketch = sketched(gradient);
    return { along: kernel.project(sketch).slice(), energy: dot(sketch, sketch) };
  };
  return {
    k: projection.k,
    sketched,
    projected,
    reduced: (gradient) => finish.reduced(projected(gradient)),
    captured: (gradient) => finish.captured(projected(gradient)),
    feature: (gradient) => finish.feature(projected(gradient)),
  };
}

function sketcher(
  layout: GradientLayout,
  eigenbases: Eigenbases,
  seed: bigint,
  width: number,
  turned: (gradient: Float32Array) => ArrayLike<number>,
) {
  const factors = divisors(layout, eigenbases.lambda, eigenbases.damping);
  const sketch = sjlt(seed, layout.size, width);
  return (gradient: Float32Array): Float64Array => {
    const out = new Float64Array(width);
    sketch.add(turned(gradient), factors, out);
    return out;
  };
}

/**
 * Bases from the training rows' gradients. Work: two passes over `gradients`, one decomposition a matrix, one of
 * `projectionRows²`. `progress` is called with 0 … 1; `signal` is looked at between rows.
 */
export async function buildBases(
  layout: GradientLayout,
  gradients: VectorSpool,
  covariances: readonly MatrixCovariance[],
  settings: FeatureSettings,
  { signal, progress }: { readonly signal?: AbortSignal; readonly progress?: (done: number) => void } = {},
): Promise<FeatureBases> {
  if (gradients.length === 0) throw new PreconditionError('NO_ROWS', 'no gradients to build bases from');
  const bases = eigenbasesOf(layout, covariances);
  const { turn } = rotation(layout, bases);
  const moment = new SecondMoment(layout.size);
  const turned = new Float64Array(layout.size);
  const pause = breather(signal);
  for (let i = 0; i < gradients.length; i++) {
    turn(gradients.at(i), turned);
    moment.add(turned);
    progress?.((0.3 * i) / gradients.length);
    await pause();
  }
  const eigenbases: Eigenbases = { ...bases, lambda: moment.mean(), damping: settings.damping };
  const sketched = sketcher(layout, eigenbases, settings.sketchSeed, settings.sketchWidth, (gradient) => {
    turn(gradient, turned);
    return turned;
  });
  const sample = seededSample(settings.rotationSeed, gradients.length, settings.projectionRows);
  const rows: Float64Array[] = [];
  for (const [at, index] of sample.entries()) {
    rows.push(sketched(gradients.at(index)));
    progress?.(0.3 + (0.3 * at) / sample.length);
    await pause();
  }
  const projection = await principalDirections(rows, settings.sketchWidth, settings.k, pause);
  progress?.(1);
  return { layout, eigenbases, projection, sketchSeed: settings.sketchSeed, rotationSeed: settings.rotationSeed };
}

/** Features of all rows, in order. */
export async function* extractRows(
  extractor: FeatureExtractor,
  gradients: VectorSpool,
  signal?: AbortSignal,
): AsyncGenerator<QuantisedRow, void, undefined> {
  const pause = breather(signal);
  for (let i = 0; i < gradients.length; i++) {
    yield extractor.feature(gradients.at(i));
    await pause();
  }
}

/** Lets other work of the process run every so often (leases are kept alive by timers), and heeds the signal. */
function breather(signal: AbortSignal | undefined): () => Promise<void> {
  let last = performance.now();
  return async () => {
    signal?.throwIfAborted();
    if (performance.now() - last < 50) return;
    await new Promise<void>((resolve) => setImmediate(resolve));
    last = performance.now();
  };
}
