/** Which engine a worker runs, and why: `auto` takes torch where Python has it, else the embedded one, which needs nothing. */
import type { EngineChoice } from './choice.ts';
import { embeddedEngine } from './embedded/engine.ts';
import type { Engine } from './engine.ts';
import { EngineError } from './engine-error.ts';
import { type TorchOptions, torchEngine } from './torch/engine.ts';
import { findPython } from './torch/python.ts';
import { VllmEngine, type VllmOptions } from './vllm/engine.ts';

export interface ChooseOptions extends Omit<TorchOptions, 'python'> {
  /** Of a vLLM server, for `vllm`, and where it finds adapters. */
  readonly vllm?: Pick<VllmOptions, 'url' | 'model' | 'adapters' | 'apiKey'>;
}

export interface ChosenEngine {
  readonly engine: Engine;
  /** A sentence for people. */
  readonly why: string;
}

/** `torch` that is asked for and not there is `ENGINE_FAILED`, with what is missing and what to do. */
export async function chooseEngine(
  choice: EngineChoice,
  options: ChooseOptions = {},
  environment: NodeJS.ProcessEnv = process.env,
): Promise<ChosenEngine> {
  if (choice === 'vllm') {
    const { vllm, ...rest } = options;
    if (vllm === undefined) throw new EngineError('BAD_SETTINGS', 'the engine vllm needs --url of a server');
    const { engine: behind, why } = await chooseEngine('auto', rest, environment);
    const engine = new VllmEngine({ ...vllm, behind });
    return { engine, why: `vLLM at ${vllm.url} answers; training and attribution by ${why}` };
  }
  if (choice === 'embedded') return { engine: await embeddedEngine(), why: 'the embedded engine, as asked for' };
  const search = await findPython(environment);
  if (search.found) {
    const { program, version, packages } = search.python;
    const asked = choice === 'torch' ? ', as asked for' : '';
    return {
      engine: torchEngine({ python: program, ...options }),
      why: `the torch engine${asked}: ${program} is Python ${version} with torch ${packages.torch}`,
    };
  }
  const { reason, advice } = search;
  if (choice === 'torch') throw new EngineError('ENGINE_FAILED', `no torch engine: ${reason}. To have it, ${advice}.`);
  return {
    engine: await embeddedEngine(),
    why: `the embedded engine, on the CPU: ${reason}. For the torch engine, ${advice}.`,
  };
}
