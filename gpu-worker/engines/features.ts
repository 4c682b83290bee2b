/**
 * Features of examples, and the bases they are made in: by the engine, on its device, where it can; else here, from the
 * gradients that it gives (`extractor.ts`, the reference). Rotation and int8 are the same for both. An adapter of tens of millions of
 * parameters has gradients of 80 to 160 MB, which an engine in another process had better keep to itself.
 */

import {
  buildBases,
  extractRows,
  type FeatureBases,
  type FeatureSettings,
  featureExtractor,
  finisher,
  type Projected,
} from '../attribution/extractor.ts';
import type { GradientLayout } from '../attribution/layout.ts';
import type { QuantisedRow } from '../attribution/quantise.ts';
import { VectorSpool } from '../attribution/spool.ts';
import type { Adapter, Example, ExampleGradientOptions, FitHooks, LoadedModel } from './engine.ts';

export interface ExampleFeature {
  readonly index: number;
  readonly row: QuantisedRow;
  /** Part of the sketch's energy that the projection keeps, 0 … 1. */
  readonly captured: number;
}

/** Bases opened on a model. */
export interface FeatureSource {
  readonly k: number;
  /** One an example, in order. Throws what the engine's gradients throw. */
  features(
    examples: readonly Example[],
    adapter: Adapter,
    options?: ExampleGradientOptions,
  ): AsyncGenerator<ExampleFeature, void, undefined>;
  close(): Promise<void>;
}

/** Throws PreconditionError or EngineError `BAD_REQUEST` for bases that are none. */
export async function openFeatures(model: LoadedModel, bases: FeatureBases): Promise<FeatureSource> {
  const { k } = bases.projection;
  const finish = finisher(k, bases.rotationSeed);
  const { projected, close } = await opened(model, bases);
  return {
    k,
    async *features(examples, adapter, options) {
      let index = 0;
      for await (const each of projected(examples, adapter, options)) {
        yield { index: index++, row: finish.feature(each), captured: finish.captured(each) };
      }
    },
    close,
  };
}

/** What of a source depends on where gradients are reduced. */
interface Opened {
  projected(
    examples: readonly Example[],
    adapter: Adapter,
    options: ExampleGradientOptions | undefined,
  ): AsyncIterable<Projected>;
  close(): Promise<void>;
}

async function opened(model: LoadedModel, bases: FeatureBases): Promise<Opened> {
  if (model.openFeatures !== undefined) {
    const reader = await model.openFeatures(bases);
    return {
      projected: (examples, adapter, options) => reader.projected(examples, adapter, options),
      close: () => reader.close(),
    };
  }
  const extractor = featureExtractor(bases);
  return {
    async *projected(examples, adapter, options) {
      for await (const { gradient } of model.gradients(examples, adapter, options)) yield extractor.projected(gradient);
    },
    async close() {},
  };
}

export interface FittedFeatures {
  readonly bases: FeatureBases;
  /** One an example, in order. */
  readonly rows: readonly QuantisedRow[];
}

/** Bases from the gradients of training records at an adapter, and every record's row in them. */
export async function fitFeatures(
  model: LoadedModel,
  examples: readonly Example[],
  adapter: Adapter,
  settings: FeatureSettings,
  hooks: FitHooks,
): Promise<FittedFeatures> {
  if (model.fitFeatures === undefined) return fitHere(model, examples, adapter, settings, hooks);
  const { bases, projected } = await model.fitFeatures(examples, adapter, settings, hooks);
  const finish = finisher(bases.projection.k, bases.rotationSeed);
  return { bases, rows: projected.map((each) => finish.feature(each)) };
}

async function fitHere(
  model: LoadedModel,
  examples: readonly Example[],
  adapter: Adapter,
  settings: FeatureSettings,
  { block, progress, ...options }: FitHooks,
): Promise<FittedFeatures> {
  const { fromLayer = 0, signal } = options;
  const layout: GradientLayout = model.layout(adapter.lora, { block, fromLayer });
  using gradients = new VectorSpool(layout.size);
  for await (const { gradient } of model.gradients(examples, adapter, options)) {
    gradients.append(gradient);
    progress?.('gradients', gradients.length / examples.length);
  }
  const covariances = await model.covariances(examples, adapter, { ...options, block });
  const bases = await buildBases(layout, gradients, covariances, settings, {
    ...(signal !== undefined && { signal }),
    progress: (done) => progress?.('bases', done),
  });
  const rows: QuantisedRow[] = [];
  for await (const row of extractRows(featureExtractor(bases), gradients, signal)) {
    rows.push(row);
    progress?.('features', rows.length / examples.length);
  }
  return { bases, rows };
}
