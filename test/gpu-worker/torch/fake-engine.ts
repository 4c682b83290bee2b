/** The torch engine over a child that misbehaves on demand: `fake-child.mjs`. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import type { GenerationRequest, LoadedModel } from '../../../gpu-worker/engines/engine.ts';
import type { EngineErrorCode } from '../../../gpu-worker/engines/engine-error.ts';
import { torchEngine } from '../../../gpu-worker/engines/torch/engine.ts';

export const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
export const MODEL = here('../../vectors/embedded/wide');
export const FILES = { config: new Uint8Array([1, 2]), weights: new Uint8Array(5 << 20).fill(7) };

export interface Started {
  readonly heard: string[];
  load(): Promise<LoadedModel>;
  end(): Promise<void>;
}

export function start(t: Test, mode: string, timeouts: Record<string, number> = {}): Started {
  const scratch = mkdtempSync(join(tmpdir(), 'torch-protocol-'));
  const heard: string[] = [];
  const engine = torchEngine({
    python: 'none',
    scratch,
    backoffMs: 50,
    command: [process.execPath, here('fake-child.mjs'), mode],
    timeouts: { silenceMs: 10_000, stopMs: 5_000, ...timeouts },
    log: (line) => heard.push(line),
  });
  t.teardown(async () => {
    await engine.close();
    rmSync(scratch, { recursive: true });
  });
  const end = async (): Promise<void> => {
    await engine.close();
    t.same(readdirSync(scratch), [], `${mode}: nothing is left on disk`);
  };
  return { heard, load: () => engine.load(MODEL), end };
}

export const REQUEST: GenerationRequest = { prompt: [3, 4], maxTokens: 12, temperature: 0, topP: 1, seed: 9n };
/** What the fake makes of a request. */
export const tokensOf = ({ prompt, maxTokens, seed }: GenerationRequest): number[] =>
  Array.from({ length: maxTokens }, (_, i) => 5 + ((Number(seed) + prompt.reduce((x, y) => x + y, 0) + i * 7) % 250));

export const failure = (body: Promise<unknown>): Promise<{ code?: EngineErrorCode; message: string; name: string }> =>
  body.then(
    () => ({ message: 'it went well', name: '' }),
    (error) => error,
  );
