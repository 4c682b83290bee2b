/** What all engines know of LoRA: which settings make sense, PEFT's names, and where matrices lie in a gradient. */
import { type GradientLayout, gradientLayout, type LoraMatrix } from '../attribution/layout.ts';
import { LORA_TARGETS, type LoraSettings, type LoraTarget } from './engine.ts';
import { EngineError } from './engine-error.ts';

/** A linear layer that LoRA can be put on. */
export interface LoraModule {
  readonly layer: number;
  readonly target: LoraTarget;
  readonly in: number;
  readonly out: number;
  /** PEFT's names of the two matrices. */
  readonly a: string;
  readonly b: string;
}

/** The name in the base model, without `.weight`. */
export const modulePath = (layer: number, target: LoraTarget): string =>
  `model.layers.${layer}.${/^[qkvo]_/.test(target) ? 'self_attn' : 'mlp'}.${target}`;

export function loraModule(layer: number, target: LoraTarget, input: number, output: number): LoraModule {
  const path = `base_model.model.${modulePath(layer, target)}`;
  return { layer, target, in: input, out: output, a: `${path}.lora_A.weight`, b: `${path}.lora_B.weight` };
}

export const loraMatrices = (modules: readonly LoraModule[], rank: number): LoraMatrix[] =>
  modules.flatMap((module) => [
    { name: module.a, rank, hidden: module.in },
    { name: module.b, rank, hidden: module.out },
  ]);

export function checkLora(lora: LoraSettings, code: 'BAD_SETTINGS' | 'BAD_ADAPTER'): void {
  if (!Number.isInteger(lora.rank) || lora.rank < 1 || lora.rank > 1024)
    throw new EngineError(code, `rank ${lora.rank}`);
  if (!(Number.isFinite(lora.alpha) && lora.alpha > 0)) throw new EngineError(code, `alpha ${lora.alpha}`);
  const known = new Set<string>(LORA_TARGETS);
  if (lora.targets.length === 0) throw new EngineError(code, 'no target modules');
  for (const target of lora.targets) if (!known.has(target)) throw new EngineError(code, `target module ${target}`);
  if (new Set(lora.targets).size !== lora.targets.length) throw new EngineError(code, 'target modules twice');
}

/** The layout of `LoadedModel`, for a model that has `modules`. */
export function adapterLayout(
  { layers, architecture }: { readonly layers: number; readonly architecture: string },
  modules: readonly LoraModule[],
  lora: LoraSettings,
  { fromLayer = 0, block = 32 }: { readonly block?: number; readonly fromLayer?: number } = {},
): GradientLayout {
  checkLora(lora, 'BAD_SETTINGS');
  if (!Number.isInteger(fromLayer) || fromLayer < 0 || fromLayer >= layers) {
    throw new EngineError('BAD_REQUEST', `layer ${fromLayer} of ${layers}`);
  }
  const known = new Set(modules.map(({ target }) => target));
  for (const target of lora.targets) {
    if (!known.has(target)) throw new EngineError('BAD_SETTINGS', `${architecture} has no ${target}`);
  }
  const wanted = modules.filter(({ layer, target }) => layer >= fromLayer && lora.targets.includes(target));
  return gradientLayout(loraMatrices(wanted, lora.rank), block);
}
