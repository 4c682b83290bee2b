/** The next token from a row of logits. */
import { EngineError } from '../engine-error.ts';

/** `uniform` in [0, 1). Temperature 0 is greedy; of equal logits the lowest id wins. */
export function sample(logits: Float32Array, temperature: number, topP: number, uniform: () => number): number {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i]! > logits[best]!) best = i;
  const top = logits[best]!;
  if (!Number.isFinite(top)) throw new EngineError('DIVERGED', `the largest logit is ${top}`);
  if (temperature === 0) return best;
  const weights = new Float64Array(logits.length);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) {
    weights[i] = Math.exp((logits[i]! - top) / temperature);
    sum += weights[i]!;
  }
  if (topP >= 1) return pick(weights, undefined, uniform() * sum);
  // A token below this part can't be needed to reach topP: all that are together make less than 1 − topP.
  const least = (sum * (1 - topP)) / logits.length;
  const likely: number[] = [];
  for (let i = 0; i < weights.length; i++) if (weights[i]! >= least) likely.push(i);
  likely.sort((x, y) => weights[y]! - weights[x]! || x - y);
  let mass = 0;
  let count = 0;
  while (count < likely.length && mass < topP * sum) mass += weights[likely[count++]!]!;
  return pick(weights, likely.slice(0, Math.max(1, count)), uniform() * mass);
}

function pick(weights: Float64Array, among: readonly number[] | undefined, point: number): number {
  const count = among?.length ?? weights.length;
  let last = 0;
  for (let i = 0; i < count; i++) {
    const id = among?.[i] ?? i;
    if (weights[id]! > 0) last = id;
    point -= weights[id]!;
    if (point < 0) return id;
  }
  return last;
}
