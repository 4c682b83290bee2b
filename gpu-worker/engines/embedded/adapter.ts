/** A LoRA adapter: PEFT's two files, and its matrices in the heap. */
import { type GradientLayout, gradientLayout } from '../../attribution/layout.ts';
import type { AdapterFiles, LoraSettings, LoraTarget } from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import { checkLora, type LoraModule, loraMatrices } from '../lora.ts';
import { jsonObject, type LlamaShape, loraModules } from './config.ts';
import { type Model, pad4 } from './model.ts';
import { readTensors, writeTensors } from './safetensors.ts';

/** One module's matrices; each in the form that each product wants. Ranks are filled up to a multiple of 4 with zeros. */
export interface LoraPart {
  readonly module: LoraModule;
  /** A [rank][in]. */
  readonly a: number;
  /** Aᵀ [in][padded]. */
  readonly aTurned: number;
  /** Bᵀ [rank][out]. */
  readonly b: number;
  /** B [out][padded]. */
  readonly bTurned: number;
}

/** Addresses of a gradient's two matrices of one module. */
export interface GradientPlace {
  readonly a: number;
  readonly b: number;
}

export class LoraMemory {
  readonly lora: LoraSettings;
  readonly layout: GradientLayout;
  readonly scale: number;
  readonly padded: number;
  /** `layout.size` floats, in the layout of gradients. */
  readonly parameters: number;
  readonly #model: Model;
  readonly #turned: number;
  readonly #turnedSize: number;
  readonly #parts: readonly (Readonly<Partial<Record<LoraTarget, LoraPart>>> | undefined)[];

  constructor(model: Model, lora: LoraSettings) {
    this.lora = lora;
    this.#model = model;
    this.scale = lora.alpha / lora.rank;
    this.padded = pad4(lora.rank);
    const modules = loraModules(model.shape, lora);
    this.layout = gradientLayout(loraMatrices(modules, lora.rank));
    this.#turnedSize = modules.reduce((sum, { in: input, out }) => sum + (input + out) * this.padded, 0);
    this.parameters = model.heap.zeros(this.layout.size);
    try {
      this.#turned = model.heap.zeros(this.#turnedSize);
    } catch (error) {
      model.heap.free(this.parameters);
      throw error;
    }
    const offsets = new Map(this.layout.matrices.map(({ name, offset }) => [name, offset]));
    const parts: Partial<Record<LoraTarget, LoraPart>>[] = [];
    let turned = this.#turned;
    for (const module of modules) {
      const aTurned = turned;
      const bTurned = aTurned + module.in * this.padded * 4;
      turned = bTurned + module.out * this.padded * 4;
      parts[module.layer] ??= {};
      parts[module.layer]![module.target] = {
        ...{ module, aTurned, bTurned },
        a: this.parameters + offsets.get(module.a)! * 4,
        b: this.parameters + offsets.get(module.b)! * 4,
      };
    }
    this.#parts = parts;
  }

  get bytes(): number {
    return (this.layout.size + this.#turnedSize) * 4;
  }

  part(layer: number, target: LoraTarget): LoraPart | undefined {
    return this.#parts[layer]?.[target];
  }

  /** The layout of gradients from a layer on, and where each module's two matrices lie in it (floats). */
  placesFrom(layer: number): { readonly layout: GradientLayout; readonly places: (part: LoraPart) => GradientPlace } {
    const modules = loraModules(this.#model.shape, this.lora, layer);
    const layout = layer === 0 ? this.layout : gradientLayout(loraMatrices(modules, this.lora.rank));
    const offsets = new Map(layout.matrices.map(({ name, offset }) => [name, offset]));
    const places = new Map(modules.map(({ a, b }) => [a, { a: offsets.get(a)!, b: offsets.get(b)! }]));
    return { layout, places: (part) => places.get(part.module.a)! };
  }

  values(): Float32Array<ArrayBuffer> {
    return this.#model.heap.view(this.parameters, this.layout.size);
  }

  /** After any change of the parameters. */
  refresh(): void {
    const { kernels } = this.#model;
    const { rank } = this.lora;
    for (const parts of this.#parts) {
      for (const { module, a, aTurned, b, bTurned } of Object.values(parts ?? {})) {
        kernels.transpose(a, module.in * 4, aTurned, this.padded * 4, rank, module.in);
        kernels.transpose(b, module.out * 4, bTurned, this.padded * 4, rank, module.out);
      }
    }
  }

  close(): void {
    this.#model.heap.free(this.parameters);
    this.#model.heap.free(this.#turned);
  }
}

// ---- files -----------------------------------------------------------------------------------------------------------

const encoder = new TextEncoder();

export function writeAdapter(
  shape: LlamaShape,
  lora: LoraSettings,
  layout: GradientLayout,
  parameters: Float32Array,
  base: string,
): AdapterFiles {
  const modules = new Map(loraModules(shape, lora).flatMap((module) => [module.a, module.b].map((n) => [n, module])));
  const tensors = layout.matrices.map(({ name, rank, hidden, offset }) => {
    const values = parameters.slice(offset, offset + rank * hidden);
    const isA = modules.get(name)!.a === name;
    return { name, shape: isA ? [rank, hidden] : [hidden, rank], values: isA ? values : turned(values, rank, hidden) };
  });
  const config = {
    base_model_name_or_path: base,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    lora_alpha: lora.alpha,
    lora_dropout: 0,
    modules_to_save: null,
    peft_type: 'LORA',
    r: lora.rank,
    target_modules: [...lora.targets].sort(),
    task_type: 'CAUSAL_LM',
    use_dora: false,
    use_rslora: false,
  };
  return { config: encoder.encode(`${JSON.stringify(config, null, 2)}\n`), weights: writeTensors(tensors) };
}

/** Keys of `adapter_config.json` that change what the adapter computes, and their values that do not. */
const NEUTRAL: readonly (readonly [string, (value: unknown) => boolean])[] = [
  ...['use_rslora', 'use_dora', 'use_qalora', 'use_bdlora', 'fan_in_fan_out', 'lora_bias'].map(
    (key) => [key, (value: unknown) => value === false] as const,
  ),
  ['bias', (value) => value === 'none'],
  ...['modules_to_save', 'layers_to_transform', 'layer_replication', 'rank_pattern', 'alpha_pattern'].map(
    (key) => [key, (value: unknown) => typeof value === 'object' && Object.keys(value ?? {}).length === 0] as const,
  ),
  ...['exclude_modules', 'target_parameters', 'trainable_token_indices', 'alora_invocation_tokens'].map(
    (key) => [key, (value: unknown) => Array.isArray(value) && value.length === 0] as const,
  ),
];

export function parseAdapterConfig(bytes: Uint8Array): LoraSettings {
  const config = jsonObject(new TextDecoder().decode(bytes), 'BAD_ADAPTER', 'adapter_config.json');
  if (config.peft_type !== 'LORA') throw new EngineError('UNSUPPORTED_ADAPTER', `a PEFT ${String(config.peft_type)}`);
  for (const [key, isNeutral] of NEUTRAL) {
    const value = config[key];
    if (value != null && !isNeutral(value))
      throw new EngineError('UNSUPPORTED_ADAPTER', `${key}: ${JSON.stringify(value)}`);
  }
  const targets = config.target_modules;
  if (!Array.isArray(targets)) throw new EngineError('UNSUPPORTED_ADAPTER', 'target_modules is not a list of names');
  const lora = { rank: config.r, alpha: config.lora_alpha, targets } as LoraSettings;
  checkLora(lora, 'BAD_ADAPTER');
  return lora;
}

export function openAdapter(model: Model, files: AdapterFiles): LoraMemory {
  const lora = parseAdapterConfig(files.config);
  const tensors = readTensors(files.weights, 'BAD_ADAPTER');
  const memory = new LoraMemory(model, lora);
  try {
    const modules = loraModules(model.shape, lora);
    const isA = new Set(modules.map(({ a }) => a));
    const parameters = memory.values();
    for (const { name, rank, hidden, offset } of memory.layout.matrices) {
      const tensor = tensors.get(name);
      if (tensor === undefined) throw new EngineError('BAD_ADAPTER', `no tensor ${name}`);
      const [rows, columns] = isA.has(name) ? [rank, hidden] : [hidden, rank];
      if (tensor.shape.length !== 2 || tensor.shape[0] !== rows || tensor.shape[1] !== columns) {
        throw new EngineError('BAD_ADAPTER', `${name} is ${tensor.shape.join(' × ')}, not ${rows} × ${columns}`);
      }
      if (!tensor.values.every(Number.isFinite)) throw new EngineError('BAD_ADAPTER', `${name} is not finite`);
      parameters.set(isA.has(name) ? tensor.values : turned(tensor.values, hidden, rank), offset);
      tensors.delete(name);
    }
    const [extra] = tensors.keys();
    if (extra !== undefined) throw new EngineError('BAD_ADAPTER', `tensor ${extra} has no place in this base model`);
    memory.refresh();
    return memory;
  } catch (error) {
    memory.close();
    throw error;
  }
}

/** [rows][columns] to [columns][rows]. */
function turned(values: Float32Array, rows: number, columns: number): Float32Array {
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[c * rows + r] = values[r * columns + c]!;
  return out;
}
