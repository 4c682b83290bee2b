/** A worker from its settings: the engine, the base model, then the process itself. */

import { chmod, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { EngineChoice } from './engines/choice.ts';
import { chooseEngine } from './engines/choose.ts';
import { TorchEngine } from './engines/torch/engine.ts';
import { Telemetry } from './operator/telemetry.ts';
import type { WorkerOptions } from './options.ts';
import { runWorker } from './worker.ts';

/** The base model that comes with the ledger. */
export const SHIPPED_MODEL = fileURLToPath(new URL('./models/glossa-3m', import.meta.url));

export interface WorkerStart extends Omit<WorkerOptions, 'model' | 'engine' | 'exact'> {
  readonly engineChoice: EngineChoice;
  /** Of a vLLM server, for the engine `vllm`. */
  readonly vllmUrl?: string;
  /** Of the torch engine: processes that a training is spread over, a GPU each. */
  readonly trainProcesses?: number;
  /** Of metrics and status, on the loopback; 0 is any that is free. */
  readonly telemetryPort: number;
}

/** Runs until the signal; rejects when it cannot start. */
export async function startWorker(options: WorkerStart, signal: AbortSignal): Promise<void> {
  const { log } = options;
  const { engine, why } = await chooseEngine(options.engineChoice, {
    log: (line) => log('debug', `engine: ${line}`),
    ...(options.trainProcesses !== undefined && { trainProcesses: options.trainProcesses }),
    ...(options.vllmUrl !== undefined && {
      vllm: { url: options.vllmUrl, adapters: join(options.directory, 'vllm-adapters') },
    }),
  });
  log('info', `engine: ${why}`);
  try {
    // Prompts and answers lie in it, and verdicts that are not revealed.
    await mkdir(options.directory, { recursive: true, mode: 0o700 });
    await chmod(options.directory, 0o700);
    const model = await engine.load(options.modelDirectory, { signal }).catch((problem: unknown) => {
      if (signal.aborted) return undefined;
      throw problem;
    });
    if (model === undefined) return;
    const { name, parameters } = model.info;
    const device = engine instanceof TorchEngine ? engine.deviceOf(model) : undefined;
    const on = device === undefined ? '' : ` on ${device.device} in ${device.dtype}`;
    log('info', `${engine.kind} engine with ${name} (${(parameters / 1e6).toFixed(1)} M parameters)${on}`);
    const kind = device === undefined ? engine.kind : `${engine.kind} ${device.device}`;
    const telemetry = new Telemetry(model, {
      address: options.key.address,
      node: options.node,
      engine: kind,
    });
    const { url } = await telemetry.serve(options.directory, options.telemetryPort, signal);
    log('info', `metrics at ${url}/metrics`);
    await runWorker({ ...options, model, engine: kind, exact: engine.exact, telemetry }, signal);
  } finally {
    await engine.close();
  }
}
