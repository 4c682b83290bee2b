/** Examples, settings and arrays as the protocol carries them. */
import { asFloats } from '../../attribution/basis-files.ts';
import type { FeatureBases, FeatureSettings, Projected } from '../../attribution/extractor.ts';
import { blockEntries, type GradientLayout } from '../../attribution/layout.ts';
import type { Example, FitPhase, TrainingProgress, TrainingSettings } from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import type { Header } from './protocol.ts';

/** int32: of each example its start, its number of tokens, its tokens. */
export function examplesPart(examples: readonly Example[]): Uint8Array {
  const size = examples.reduce((sum, { tokens }) => sum + 2 + tokens.length, 0);
  const numbers = new Int32Array(size);
  let at = 0;
  for (const { tokens, from } of examples) {
    if (!Number.isInteger(from)) throw new EngineError('BAD_EXAMPLE', `the response begins at token ${from}`);
    numbers[at++] = from;
    numbers[at++] = tokens.length;
    for (const id of tokens) {
      if (!Number.isInteger(id) || id < 0 || id >= 2 ** 31) throw new EngineError('BAD_EXAMPLE', `token ${id}`);
      numbers[at++] = id;
    }
  }
  return new Uint8Array(numbers.buffer);
}

/** The seed goes as text: JSON's numbers end at 2⁵³. */
export const jsonSettings = (settings: TrainingSettings): Header => ({ ...settings, seed: String(settings.seed) });

export function progressOf({ step, total, loss, learningRate, tokensPerSecond }: Header): TrainingProgress {
  const progress = { step, total, loss, learningRate, tokensPerSecond };
  for (const [name, value] of Object.entries(progress)) {
    if (typeof value !== 'number') throw new EngineError('ENGINE_FAILED', `progress without ${name}`);
  }
  return progress as TrainingProgress;
}

/** `count`: how many there must be, if that is known. */
export function doublesOf(part: Uint8Array | undefined, count?: number): Float64Array {
  if (part === undefined || part.length % 8 !== 0 || (count !== undefined && part.length !== count * 8)) {
    throw new EngineError('ENGINE_FAILED', `${part?.length ?? 0} bytes for ${count ?? 'some'} numbers`);
  }
  return new Float64Array(part.buffer, part.byteOffset, part.length / 8);
}

export function floatsOf(part: Uint8Array): Float32Array {
  if (part.length % 4 !== 0) throw new EngineError('ENGINE_FAILED', `${part.length} bytes of float32`);
  return asFloats(part);
}

/** Rows of k coordinates and a squared norm. */
export function projectedOf(part: Uint8Array, k: number): Projected[] {
  const values = floatsOf(part);
  if (values.length % (k + 1) !== 0) throw new EngineError('ENGINE_FAILED', `rows of ${k + 1} in ${values.length}`);
  return Array.from({ length: values.length / (k + 1) }, (_, i) => ({
    along: values.subarray(i * (k + 1), i * (k + 1) + k),
    energy: values[i * (k + 1) + k]!,
  }));
}

/** What `fitFeatures` answers with. */
export function fittedOf(
  parts: readonly Uint8Array[],
  layout: GradientLayout,
  { k, sketchWidth: width, sketchSeed, rotationSeed, damping }: FeatureSettings,
  count: number,
): { readonly bases: FeatureBases; readonly projected: readonly Projected[] } {
  const ranks = layout.matrices.map(({ rank }) => rank ** 2);
  const blocks = layout.matrices.map(({ hidden }) => blockEntries(hidden, layout.block));
  const sum = (lengths: readonly number[]): number => lengths.reduce((total, each) => total + each, 0);
  const wanted = [sum(ranks), sum(blocks), layout.size, k * width, k, count * (k + 1)];
  if (parts.length !== wanted.length || parts.some((part, i) => part.length !== 4 * wanted[i]!)) {
    throw new EngineError('ENGINE_FAILED', `fitFeatures: ${parts.map(({ length }) => length).join(', ')} bytes`);
  }
  const [rank, hidden, lambda, vectors, energy] = parts.map(floatsOf) as [
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
    Float32Array,
  ];
  const eigenbases = { rank: cut(rank, ranks), hidden: cut(hidden, blocks), lambda, damping };
  const projection = { k, width, vectors, energy };
  return {
    bases: { layout, eigenbases, projection, sketchSeed, rotationSeed },
    projected: projectedOf(parts[5]!, k),
  };
}

function cut(values: Float32Array, lengths: readonly number[]): Float32Array[] {
  let at = 0;
  return lengths.map((length) => {
    at += length;
    return values.subarray(at - length, at);
  });
}

const FIT_PHASES: readonly FitPhase[] = ['gradients', 'bases', 'features'];

/** How far a fit has got at most: a process that takes over begins further back. */
export class FitMilestone {
  #phase = 0;
  #done = -1;

  /** What there is to tell; undefined for what was told before. */
  reached({ phase, done }: Header): [FitPhase, number] | undefined {
    const at = FIT_PHASES.indexOf(phase as FitPhase);
    if (at < 0 || typeof done !== 'number') throw new EngineError('ENGINE_FAILED', 'progress of an unknown kind');
    if (at < this.#phase || (at === this.#phase && done <= this.#done)) return undefined;
    this.#phase = at;
    this.#done = done;
    return [FIT_PHASES[at]!, done];
  }
}
