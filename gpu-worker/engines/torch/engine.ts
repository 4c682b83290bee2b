/**
 * The torch engine: models that transformers loads, on CUDA or the CPU, in a Python process a model (`openledger_torch`). Results are
 * equal to other engines' within tolerances, not to the bit.
 */
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type Engine,
  LORA_TARGETS,
  type LoadedModel,
  type LoraTarget,
  type ModelInfo,
  type ServingLimits,
} from '../engine.ts';
import { EngineError } from '../engine-error.ts';
import { type LoraModule, loraModule } from '../lora.ts';
import { checkedLimits, OpenModels } from '../open-models.ts';
import { readTokenizer } from '../text/tokenizer-files.ts';
import type { ChildOptions, Hello } from './child.ts';
import { TorchModel } from './model.ts';
import { readModelConfig } from './model-config.ts';
import type { Header } from './protocol.ts';
import { Supervisor } from './supervisor.ts';

export interface TorchOptions {
  /** The Python program, of an environment with torch (see `python.ts`). */
  readonly python: string;
  /** `auto` (default): CUDA if there is a usable one, else the CPU. */
  readonly device?: string;
  /** `auto` (default): bf16 where the GPU computes in it, else fp32. */
  readonly dtype?: 'auto' | 'bf16' | 'fp32';
  /** Threads of the CPU's matrix products. */
  readonly threads?: number;
  /** Adapters in device memory (default 128 on CUDA, 64 on the CPU), and bytes of those in host memory (default 4 GiB). */
  readonly slots?: number;
  readonly hostBytes?: number;
  /** Tokens of one forward and backward pass (default 8,192 on CUDA, 2,048 on the CPU). */
  readonly microTokens?: number;
  /** Processes that a training is spread over by accelerate, a GPU each (default 1: the engine's own). */
  readonly trainProcesses?: number;
  /** Where large tensors and adapters lie while the engine runs. */
  readonly scratch?: string;
  readonly timeouts?: Pick<ChildOptions, 'helloMs' | 'silenceMs' | 'stallMs' | 'stopMs'>;
  readonly backoffMs?: number;
  readonly log?: (line: string) => void;
  /** Another child than `openledger_torch`: for tests. */
  readonly command?: readonly string[];
}

/** What a loaded model runs on. */
export interface TorchDevice {
  readonly device: string;
  readonly dtype: string;
  readonly hello: Hello;
  /** Whether the Triton kernel for decoding was found good. */
  readonly kernel: boolean;
}

/**
 * glibc would give the memory of large tensors back at every free, and have each page faulted in anew by the next pass: on the CPU a
 * third of a fit's time. Bytes below which it is kept, and how much of it at most.
 */
const KEPT_MEMORY = { MALLOC_MMAP_THRESHOLD_: String(256 << 20), MALLOC_TRIM_THRESHOLD_: String(512 << 20) };
const PACKAGE = fileURLToPath(new URL('.', import.meta.url));

export function torchEngine(options: TorchOptions): TorchEngine {
  return new TorchEngine(options);
}

export class TorchEngine implements Engine {
  readonly kind = 'torch';
  readonly exact = false;
  readonly #options: TorchOptions;
  readonly #models = new OpenModels<TorchModel>();
  readonly #devices = new WeakMap<LoadedModel, TorchDevice>();

  constructor(options: TorchOptions) {
    this.#options = options;
  }

  async load(
    directory: string,
    options: { readonly serving?: Partial<ServingLimits>; readonly signal?: AbortSignal } = {},
  ): Promise<LoadedModel> {
    const {
      python,
      timeouts,
      scratch,
      backoffMs,
      log,
      command,
      device,
      dtype,
      threads,
      slots,
      hostBytes,
      microTokens,
      trainProcesses,
    } = this.#options;
    return this.#models.open(options.signal, async (signal, gone) => {
      const serving = options.serving && checkedLimits(options.serving);
      const tokenizer = await readTokenizer(directory, await readModelConfig(directory));
      const load: Header = {
        // The process works in a directory of its own.
        directory: resolve(directory),
        eos: tokenizer.eos,
        ...defined({ device, dtype, threads, slots, hostBytes, microTokens, trainProcesses, serving }),
      };
      const { supervisor, hello, loaded } = await Supervisor.start(
        {
          command: command ?? [python, '-m', 'openledger_torch'],
          environment: { ...KEPT_MEMORY, PYTHONPATH: PACKAGE, PYTHONDONTWRITEBYTECODE: '1', PYTHONUNBUFFERED: '1' },
          ...timeouts,
          ...defined({ scratch, backoffMs, log }),
        },
        load,
        signal,
      );
      let made: ReturnType<typeof readLoaded>;
      try {
        made = readLoaded(loaded);
      } catch (error) {
        await supervisor.close();
        throw error;
      }
      const model = new TorchModel(supervisor, made.info, made.modules, tokenizer, () => gone(model));
      this.#devices.set(model, {
        device: String(loaded.device),
        dtype: String(loaded.dtype),
        hello,
        kernel: loaded.kernel === true,
      });
      return model;
    });
  }

  deviceOf(model: LoadedModel): TorchDevice | undefined {
    return this.#devices.get(model);
  }

  processOf(model: LoadedModel): number | undefined {
    return model instanceof TorchModel ? model.processId : undefined;
  }

  close(): Promise<void> {
    return this.#models.close();
  }
}

function readLoaded(value: Header): { info: ModelInfo; modules: LoraModule[] } {
  const bad = (what: string): EngineError => new EngineError('ENGINE_FAILED', `load: ${what}`);
  const text = (key: string): string => {
    const found = value[key];
    if (typeof found !== 'string') throw bad(key);
    return found;
  };
  const count = (key: string): number => {
    const found = value[key];
    if (!Number.isSafeInteger(found) || (found as number) < 1) throw bad(key);
    return found as number;
  };
  const files = (value.files ?? {}) as Record<'config' | 'weights' | 'tokenizer', unknown>;
  const hash = (key: keyof typeof files): string => {
    const found = files[key];
    if (typeof found !== 'string' || !/^[0-9a-f]{64}$/.test(found)) throw bad(`files.${key}`);
    return found;
  };
  if (!Array.isArray(value.sites)) throw bad('sites');
  const modules = value.sites.map((row): LoraModule => {
    const [layer, target, inputs, outputs] = row as [number, LoraTarget, number, number];
    if (![layer, inputs, outputs].every(Number.isSafeInteger) || !LORA_TARGETS.includes(target)) throw bad('sites');
    return loraModule(layer, target, inputs, outputs);
  });
  return {
    modules,
    info: {
      architecture: text('architecture'),
      name: text('name'),
      parameters: count('parameters'),
      vocabulary: count('vocabulary'),
      width: count('width'),
      layers: count('layers'),
      maxPositions: count('maxPositions'),
      files: { config: hash('config'), weights: hash('weights'), tokenizer: hash('tokenizer') },
    },
  };
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function defined<T extends Record<string, unknown>>(values: T): Defined<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>;
}
