/** QuickJS with the glue, lowered to WebAssembly's first version: a module that runs, and is frozen later. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { blake2b } from '@noble/hashes/blake2.js';
import wabt from 'wabt';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { readModule, type WasmModule } from './binary.ts';
import { glueText, SATURATING_CODES } from './glue.ts';
import { link } from './link.ts';

/** blake2b-256 of `quickjs.wasm` in quickjs-wasi 3.7.0: what stands under `:code` hangs on every byte of it. */
const QUICKJS_HASH = '0xbf61fd87dddbfecdb974486c19a47e8caa6de57cde5f3b1d7196afc0618bf81d';

export class WasmBuildError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'WasmBuildError';
  }
}

/** Throws {@link WasmBuildError} when the engine that is installed is another one. */
function quickjs(): Uint8Array {
  const file = fileURLToPath(import.meta.resolve('quickjs-wasi/quickjs.wasm'));
  const bytes = new Uint8Array(readFileSync(file));
  const hash = toHex(blake2b(bytes, { dkLen: 32 }));
  if (hash !== QUICKJS_HASH) throw new WasmBuildError(`the engine is ${hash}, not ${QUICKJS_HASH}`);
  return bytes;
}

/** `methods`: the runtime's entry points, in the order in which the guest's `dispatch` counts them. */
export async function linkEngine(methods: readonly string[]): Promise<WasmModule> {
  const engine = readModule(quickjs());
  const assembler = await wabt();
  const glue = assembler.parseWat('glue.wat', glueText(methods, engine.memoryPages ?? 0));
  try {
    const { module } = link(
      engine,
      readModule(glue.toBinary({}).buffer),
      { first: ['quickjs'], second: ['env', 'wasi_snapshot_preview1'] },
      (exported) => ({
        memorySize: exported('glue_memory_size'),
        memoryGrow: exported('glue_memory_grow'),
        memoryCopy: exported('glue_memory_copy'),
        memoryFill: exported('glue_memory_fill'),
        saturating: new Map(SATURATING_CODES.map((code) => [code, exported(`glue_saturating_${code}`)])),
      }),
    );
    return module;
  } finally {
    glue.destroy();
  }
}
