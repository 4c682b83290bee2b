/** A base model's weights in the heap, laid out for the kernels, and its two passes' common steps. */
import { createHash } from 'node:crypto';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { Heap } from '../../wasm/heap.ts';
import { instantiate, type Kernels } from '../../wasm/kernels.ts';
import type { LoraTarget, ModelInfo } from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import { modulePath } from '../lora.ts';
import { jsonObject, type LlamaShape, linearSizes, parseConfig } from './config.ts';
import { headerLength, parseHeader, type TensorEntry, toFloats } from './safetensors.ts';

/** W [out][in], packed in tiles of 8 columns for `y = x Wᵀ` and for `dx = dy W`. */
export interface Linear {
  readonly in: number;
  readonly out: number;
  readonly forward: number;
  readonly backward: number;
}

export interface LayerWeights {
  readonly norm1: number;
  readonly norm2: number;
  readonly linears: Readonly<Record<LoraTarget, Linear>>;
}

export interface Model {
  readonly info: ModelInfo;
  readonly shape: LlamaShape;
  readonly heap: Heap;
  readonly kernels: Kernels;
  readonly layers: readonly LayerWeights[];
  readonly finalNorm: number;
  /** [vocabulary][width], plain. */
  readonly embedding: number;
  readonly head: Linear;
  /** [maxPositions][headSize / 2]. */
  readonly cosines: number;
  readonly sines: number;
}

export const pad4 = (n: number): number => (n + 3) & ~3;

export async function loadModel(directory: string, signal?: AbortSignal): Promise<Model> {
  const configFile = await readModelFile(directory, 'config.json');
  const tokenizerFile = await readModelFile(directory, 'tokenizer.json');
  const shape = parseConfig(configFile.toString('utf8'));
  const heap = new Heap();
  const files = await openWeights(directory);
  try {
    const reader = new TensorReader(files, signal);
    const { width, vocabulary, layers: depth } = shape;
    const vector = async (name: string): Promise<number> => {
      const at = heap.alloc(width);
      heap.view(at, width).set(await reader.read(name, [width]));
      return at;
    };
    const sizes = linearSizes(shape);
    const layers: LayerWeights[] = [];
    const words = await reader.read('model.embed_tokens.weight', [vocabulary, width]);
    const embedding = heap.alloc(words.length);
    heap.view(embedding, words.length).set(words);
    for (let layer = 0; layer < depth; layer++) {
      const linear = async (target: LoraTarget): Promise<Linear> => {
        const [input, output] = sizes[target];
        const name = `${modulePath(layer, target)}.weight`;
        return packLinear(heap, await reader.read(name, [output, input]), input, output);
      };
      layers.push({
        norm1: await vector(`model.layers.${layer}.input_layernorm.weight`),
        norm2: await vector(`model.layers.${layer}.post_attention_layernorm.weight`),
        linears: {
          q_proj: await linear('q_proj'),
          k_proj: await linear('k_proj'),
          v_proj: await linear('v_proj'),
          o_proj: await linear('o_proj'),
          gate_proj: await linear('gate_proj'),
          up_proj: await linear('up_proj'),
          down_proj: await linear('down_proj'),
        },
      });
    }
    const finalNorm = await vector('model.norm.weight');
    const rows = shape.tied ? words : await reader.read('lm_head.weight', [vocabulary, width]);
    const head = packLinear(heap, rows, width, vocabulary);
    return {
      ...{ shape, heap, layers, finalNorm, embedding, head },
      kernels: instantiate(heap.memory),
      ...rotaryTables(heap, shape),
      info: {
        architecture: shape.architecture,
        name: basename(directory),
        parameters: reader.parameters,
        vocabulary,
        width,
        layers: depth,
        maxPositions: shape.maxPositions,
        files: {
          config: sha256(configFile),
          weights: await hashFiles(files, signal),
          tokenizer: sha256(tokenizerFile),
        },
      },
    };
  } finally {
    for (const { handle } of files) await handle.close();
  }
}

/** Tiles of 8 columns, each [K][8]; the last one is filled up with zeros. */
function packLinear(heap: Heap, weights: Float32Array, input: number, output: number): Linear {
  const outputs = Math.ceil(output / 8) * 8;
  const inputs = Math.ceil(input / 8) * 8;
  const outputRows = pad4(output);
  const forward = heap.zeros(outputs * input);
  const backward = heap.zeros(inputs * outputRows);
  const f = heap.floats;
  for (let o = 0; o < output; o++) {
    const to = forward / 4 + (o >> 3) * 8 * input + (o & 7);
    const there = backward / 4 + o * 8;
    for (let i = 0; i < input; i++) {
      const value = weights[o * input + i]!;
      f[to + i * 8] = value;
      f[there + (i >> 3) * 8 * outputRows + (i & 7)] = value;
    }
  }
  return { in: input, out: output, forward, backward };
}

/** As transformers computes them: frequencies and angles in float32. */
function rotaryTables(heap: Heap, shape: LlamaShape): { cosines: number; sines: number } {
  const half = shape.headSize / 2;
  const cosines = heap.alloc(shape.maxPositions * half);
  const sines = heap.alloc(shape.maxPositions * half);
  const f = heap.floats;
  const frequencies = Float32Array.from(shape.frequencies);
  for (let position = 0; position < shape.maxPositions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = Math.fround(position * frequencies[i]!);
      f[cosines / 4 + position * half + i] = Math.cos(angle);
      f[sines / 4 + position * half + i] = Math.sin(angle);
    }
  }
  return { cosines, sines };
}

// ---- files -----------------------------------------------------------------------------------------------------------

export async function readModelFile(directory: string, name: string): Promise<Buffer> {
  try {
    return await readFile(join(directory, name));
  } catch (cause) {
    throw new EngineError('MODEL_NOT_FOUND', `no ${name} in ${directory}`, { cause });
  }
}

interface WeightFile {
  readonly name: string;
  readonly handle: FileHandle;
  readonly size: number;
  readonly entries: Map<string, TensorEntry>;
}

/** `model.safetensors`, or the shards that `model.safetensors.index.json` names (ascending). */
async function openWeights(directory: string): Promise<WeightFile[]> {
  const names = await weightNames(directory);
  const files: WeightFile[] = [];
  try {
    for (const name of names) {
      let handle: FileHandle;
      try {
        handle = await open(join(directory, name));
      } catch (cause) {
        throw new EngineError('MODEL_NOT_FOUND', `no ${name} in ${directory}`, { cause });
      }
      const { size } = await handle.stat();
      files.push({ name, handle, size, entries: new Map() });
      const length = headerLength(await readRange(handle, 0, Math.min(8, size)), size, 'BAD_TENSORS');
      const entries = parseHeader(await readRange(handle, 8, 8 + length), size, 'BAD_TENSORS');
      for (const [key, entry] of entries) files.at(-1)!.entries.set(key, entry);
    }
    return files;
  } catch (error) {
    for (const { handle } of files) await handle.close();
    throw error;
  }
}

async function weightNames(directory: string): Promise<string[]> {
  let text: string;
  try {
    text = await readFile(join(directory, 'model.safetensors.index.json'), 'utf8');
  } catch {
    return ['model.safetensors'];
  }
  const map = jsonObject(text, 'BAD_TENSORS', 'model.safetensors.index.json').weight_map;
  const names = [...new Set(Object.values((map ?? {}) as Record<string, unknown>))].sort();
  if (names.length === 0 || !names.every((name) => typeof name === 'string' && basename(name) === name)) {
    throw new EngineError('BAD_TENSORS', 'model.safetensors.index.json: weight_map');
  }
  return names as string[];
}

async function readRange(handle: FileHandle, start: number, end: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(end - start);
  let done = 0;
  while (done < bytes.length) {
    const { bytesRead } = await handle.read(bytes, done, bytes.length - done, start + done);
    if (bytesRead === 0) throw new EngineError('BAD_TENSORS', 'the file ended early');
    done += bytesRead;
  }
  return bytes;
}

class TensorReader {
  parameters = 0;
  readonly #files: readonly WeightFile[];
  readonly #signal: AbortSignal | undefined;

  constructor(files: readonly WeightFile[], signal?: AbortSignal) {
    this.#files = files;
    this.#signal = signal;
  }

  async read(name: string, shape: readonly number[]): Promise<Float32Array> {
    this.#signal?.throwIfAborted();
    for (const { handle, entries } of this.#files) {
      const entry = entries.get(name);
      if (entry === undefined) continue;
      if (entry.shape.length !== shape.length || entry.shape.some((n, i) => n !== shape[i])) {
        throw new EngineError('BAD_TENSORS', `${name} is ${entry.shape.join(' × ')}, not ${shape.join(' × ')}`);
      }
      const values = toFloats(await readRange(handle, entry.start, entry.end), entry.type);
      this.parameters += values.length;
      return values;
    }
    throw new EngineError('BAD_TENSORS', `no tensor ${name}`);
  }
}

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** SHA-256 of all files one after the other. */
async function hashFiles(files: readonly WeightFile[], signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for (const { handle, size } of files) {
    for (let at = 0; at < size; at += 1 << 22) {
      signal?.throwIfAborted();
      hash.update(await readRange(handle, at, Math.min(size, at + (1 << 22))));
    }
  }
  return hash.digest('hex');
}
