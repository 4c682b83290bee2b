/** `config.json` of a Llama in Hugging Face layout, parsed; what the engine cannot compute is refused by name. */

import { LORA_TARGETS, type LoraSettings, type LoraTarget } from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import { type LoraModule, loraModule } from '../lora.ts';

export interface LlamaShape {
  readonly architecture: string;
  readonly vocabulary: number;
  readonly width: number;
  readonly layers: number;
  readonly heads: number;
  /** Heads of keys and values; each serves `heads / groups` heads. */
  readonly groups: number;
  readonly headSize: number;
  readonly inner: number;
  readonly eps: number;
  readonly maxPositions: number;
  readonly tied: boolean;
  /** Turns a position of 1 makes in each pair of a head's halves, radians (headSize / 2 entries). */
  readonly frequencies: Float64Array;
  readonly bos: number | undefined;
  readonly eos: readonly number[];
}

type Json = Readonly<Record<string, unknown>>;

const unsupported = (message: string): EngineError => new EngineError('UNSUPPORTED_MODEL', message);

export function parseConfig(text: string): LlamaShape {
  const config = jsonObject(text, 'BAD_CONFIG', 'config.json');
  const architecture = Array.isArray(config.architectures) ? config.architectures[0] : undefined;
  if (architecture !== 'LlamaForCausalLM')
    throw unsupported(`architecture ${String(architecture ?? config.model_type)}`);
  if ((config.hidden_act ?? 'silu') !== 'silu') throw unsupported(`activation ${String(config.hidden_act)}`);
  for (const key of ['attention_bias', 'mlp_bias']) if (config[key] === true) throw unsupported(`${key} is true`);
  if (config.quantization_config != null) throw unsupported('quantised weights');
  const width = count(config, 'hidden_size');
  const heads = count(config, 'num_attention_heads');
  const groups = count(config, 'num_key_value_heads', heads);
  const headSize = count(config, 'head_dim', Math.floor(width / heads));
  const inner = count(config, 'intermediate_size');
  if (heads % groups !== 0) throw new EngineError('BAD_CONFIG', `${heads} heads over ${groups} of keys and values`);
  if (headSize % 8 !== 0) throw unsupported(`heads of ${headSize}: not a multiple of 8`);
  if (width % 4 !== 0 || inner % 4 !== 0) throw unsupported(`widths ${width} and ${inner}: not multiples of 4`);
  const eps = config.rms_norm_eps ?? 1e-6;
  if (typeof eps !== 'number' || !(eps >= 0 && eps < 1)) throw new EngineError('BAD_CONFIG', 'rms_norm_eps');
  return {
    architecture,
    vocabulary: count(config, 'vocab_size'),
    width,
    layers: count(config, 'num_hidden_layers'),
    heads,
    groups,
    headSize,
    inner,
    eps,
    maxPositions: count(config, 'max_position_embeddings', 2048),
    tied: config.tie_word_embeddings === true,
    frequencies: rotaryFrequencies(config, headSize),
    bos: tokenIds(config.bos_token_id, 'bos_token_id')[0],
    eos: tokenIds(config.eos_token_id, 'eos_token_id'),
  };
}

/** Plain, `linear` and `llama3` rotary positions, under the old keys or transformers 5's `rope_parameters`. */
function rotaryFrequencies(config: Json, headSize: number): Float64Array {
  const scaling = (config.rope_parameters ?? config.rope_scaling ?? {}) as Json;
  const theta = scaling.rope_theta ?? config.rope_theta ?? 10_000;
  if (typeof theta !== 'number' || !(theta > 0)) throw new EngineError('BAD_CONFIG', 'rope_theta');
  const half = headSize / 2;
  const plain = Float64Array.from({ length: half }, (_, i) => 1 / theta ** ((2 * i) / headSize));
  const kind = scaling.rope_type ?? scaling.type ?? 'default';
  if (kind === 'default') return plain;
  const factor = scaling.factor;
  if (typeof factor !== 'number' || !(factor > 0)) throw new EngineError('BAD_CONFIG', 'rope scaling without factor');
  if (kind === 'linear') return plain.map((f) => f / factor);
  if (kind !== 'llama3') throw unsupported(`rotary positions of kind ${String(kind)}`);
  const low = numberOf(scaling, 'low_freq_factor');
  const high = numberOf(scaling, 'high_freq_factor');
  const original = numberOf(scaling, 'original_max_position_embeddings');
  return plain.map((f) => {
    const length = (2 * Math.PI) / f;
    if (length < original / high) return f;
    if (length > original / low) return f / factor;
    const smooth = (original / length - low) / (high - low);
    return ((1 - smooth) * f) / factor + smooth * f;
  });
}

export function linearSizes(shape: LlamaShape): Readonly<Record<LoraTarget, readonly [number, number]>> {
  const { width, inner } = shape;
  const queries = shape.heads * shape.headSize;
  const keys = shape.groups * shape.headSize;
  return {
    ...{ q_proj: [width, queries], k_proj: [width, keys], v_proj: [width, keys], o_proj: [queries, width] },
    ...{ gate_proj: [width, inner], up_proj: [width, inner], down_proj: [inner, width] },
  };
}

/** Modules of an adapter from layer `from` on, ascending by layer. */
export function loraModules(shape: LlamaShape, lora: LoraSettings, from = 0): LoraModule[] {
  const sizes = linearSizes(shape);
  return Array.from({ length: shape.layers - from }, (_, i) => from + i).flatMap((layer) =>
    LORA_TARGETS.filter((target) => lora.targets.includes(target)).map((target) => {
      const [input, output] = sizes[target];
      return loraModule(layer, target, input, output);
    }),
  );
}

export function jsonObject(text: string, code: EngineError['code'], what: string): Json {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new EngineError(code, `${what} is not JSON`, { cause });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new EngineError(code, `${what} is not an object`);
  }
  return value as Json;
}

function count(config: Json, key: string, otherwise?: number): number {
  const value = config[key] ?? otherwise;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > 2 ** 31) {
    throw new EngineError('BAD_CONFIG', `${key}: ${String(value)}`);
  }
  return value;
}

function numberOf(config: Json, key: string): number {
  const value = config[key];
  if (typeof value !== 'number' || !(value > 0)) throw new EngineError('BAD_CONFIG', `${key}: ${String(value)}`);
  return value;
}

export function tokenIds(value: unknown, key: string): number[] {
  const all = value == null ? [] : Array.isArray(value) ? value : [value];
  for (const id of all) {
    if (!Number.isInteger(id) || id < 0) throw new EngineError('BAD_CONFIG', `${key}: ${String(id)}`);
  }
  return all;
}
