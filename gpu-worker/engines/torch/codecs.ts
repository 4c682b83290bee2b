/** Examples, settings and arrays as the protocol carries them. */
import { EngineError, type Example, type TrainingProgress, type TrainingSettings } from '../engine.ts';
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
  return new Float32Array(part.buffer, part.byteOffset, part.length / 4);
}
