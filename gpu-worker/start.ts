/** A worker from its settings: the engine, the base model, then the process itself. */
import { mkdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { embeddedEngine } from './engines/embedded/engine.ts';
import type { WorkerOptions } from './options.ts';
import { runWorker } from './worker.ts';

/** The base model that comes with the ledger. */
export const SHIPPED_MODEL = fileURLToPath(new URL('./models/glossa-3m', import.meta.url));

export type WorkerStart = Omit<WorkerOptions, 'model' | 'engine' | 'exact'>;

/** Runs until the signal; rejects when it cannot start. */
export async function startWorker(options: WorkerStart, signal: AbortSignal): Promise<void> {
  const engine = await embeddedEngine();
  try {
    await mkdir(options.directory, { recursive: true });
    const model = await engine.load(options.modelDirectory);
    const { name, parameters } = model.info;
    options.log('info', `embedded engine with ${name} (${(parameters / 1e6).toFixed(1)} M parameters)`);
    await runWorker({ ...options, model, engine: engine.kind, exact: engine.exact }, signal);
  } finally {
    await engine.close();
  }
}
