/** The runtime as one script: what is frozen inside the engine. */
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const GUEST = fileURLToPath(new URL('./guest/entry.ts', import.meta.url));

/** Gives `methods` and `dispatch` as properties of a global variable `guest`. The same sources give the same text everywhere. */
export async function bundleGuest(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [GUEST],
    absWorkingDir: ROOT,
    bundle: true,
    write: false,
    format: 'iife',
    globalName: 'guest',
    platform: 'neutral',
    target: 'es2023',
    minify: true,
    legalComments: 'none',
  });
  return outputFiles[0]!.text;
}
