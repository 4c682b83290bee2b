/** A blob as it stands under `:code`, opened: checked, metered, compiled, its version read. */
import { zstdDecompressSync } from 'node:zlib';
import { fromHex, startsWith } from '../../runtime/primitives/bytes.ts';
import { decode, fixedBytes, tuple, u32 } from '../../runtime/primitives/scale/codec.ts';
import { Source } from '../../runtime/primitives/scale/io.ts';
import { type RuntimeVersion, runtimeVersion } from '../../runtime/primitives/types.ts';
import { HOST_FUNCTIONS, MEMORY_FUNCTIONS } from '../wasm-builder/host-functions.ts';
import { metered } from './metering.ts';

export type RuntimeCodeErrorCode =
  /** Neither WebAssembly nor compressed WebAssembly. */
  | 'NOT_WASM'
  | 'TOO_LARGE'
  /** It imports what no host function is, or what is no function. */
  | 'UNKNOWN_IMPORT'
  /** It lacks its memory, the base of its heap, or an entry point that every runtime has. */
  | 'MISSING_EXPORT'
  | 'NO_VERSION';

export class RuntimeCodeError extends Error {
  readonly code: RuntimeCodeErrorCode;
  constructor(code: RuntimeCodeErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'RuntimeCodeError';
    this.code = code;
  }
}

/** In front of code that is compressed by zstd (`sp_maybe_compressed_blob`). */
export const COMPRESSED = fromHex('0x52bc537646db8e05');
/** What compressed code may unpack to: Substrate's `CODE_BLOB_BOMB_LIMIT`. */
const MAX_BYTES = 50 * 2 ** 20;

/** Pages of 64 KiB that an instance's memory may grow to: 128 MiB. Blocks of 5,000 transfers take 330. */
export const MEMORY_PAGES = 2_048;

/** What a runtime may import of `env`. */
const HOST_IMPORTS: ReadonlySet<string> = new Set([
  ...Object.values(HOST_FUNCTIONS).map(({ extern }) => extern),
  ...MEMORY_FUNCTIONS,
]);

const REQUIRED = [
  'Core_version',
  'Core_execute_block',
  'Core_initialize_block',
  'BlockBuilder_finalize_block',
] as const;

export interface RuntimeCode {
  readonly module: WebAssembly.Module;
  readonly version: RuntimeVersion;
  /** Name of the export that holds what fuel is left. */
  readonly fuel: string;
}

/** Throws {@link RuntimeCodeError}. */
export function unpack(code: Uint8Array): Uint8Array {
  if (!startsWith(code, COMPRESSED)) return code;
  try {
    return zstdDecompressSync(code.subarray(COMPRESSED.length), { maxOutputLength: MAX_BYTES });
  } catch (problem) {
    const large = problem instanceof Error && 'code' in problem && problem.code === 'ERR_BUFFER_TOO_LARGE';
    throw new RuntimeCodeError(
      large ? 'TOO_LARGE' : 'NOT_WASM',
      large ? `the code unpacks to more than ${MAX_BYTES} bytes` : 'the code cannot be unpacked',
      { cause: problem },
    );
  }
}

const apiEntry = tuple(fixedBytes(8), u32);

/** The version that the code itself names, in its sections. Nothing of it is run. Throws {@link RuntimeCodeError}. */
export function versionOf(module: WebAssembly.Module): RuntimeVersion {
  const [section, apis] = ['runtime_version', 'runtime_apis'].map((name) => {
    const found = WebAssembly.Module.customSections(module, name)[0];
    return found === undefined ? undefined : new Uint8Array(found);
  });
  if (section === undefined || apis === undefined) {
    throw new RuntimeCodeError('NO_VERSION', 'the code has no sections runtime_version and runtime_apis');
  }
  try {
    const source = new Source(apis);
    const list: [Uint8Array, number][] = [];
    while (source.remaining > 0) list.push(apiEntry.decodeFrom(source));
    return { ...decode(runtimeVersion, section), apis: list };
  } catch (problem) {
    throw new RuntimeCodeError('NO_VERSION', 'the version in the code cannot be read', { cause: problem });
  }
}

/** Throws {@link RuntimeCodeError}. Compiling takes V8 some milliseconds a megabyte; nothing of the code is run. */
export function openCode(code: Uint8Array): RuntimeCode {
  const bytes = unpack(code);
  if (bytes.length > MAX_BYTES) throw new RuntimeCodeError('TOO_LARGE', `${bytes.length} bytes of code`);
  const fuel = 'openledger_fuel';
  let module: WebAssembly.Module;
  try {
    module = new WebAssembly.Module(metered(bytes, fuel, MEMORY_PAGES) as BufferSource);
  } catch (problem) {
    const why = problem instanceof Error ? problem.message : String(problem);
    throw new RuntimeCodeError('NOT_WASM', `the code is no WebAssembly that this node runs: ${why}`, {
      cause: problem,
    });
  }
  for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
    if (from !== 'env' || kind !== 'function' || !HOST_IMPORTS.has(name)) {
      throw new RuntimeCodeError('UNKNOWN_IMPORT', `the code imports ${kind} ${from}.${name}`);
    }
  }
  const exports = new Map(WebAssembly.Module.exports(module).map(({ name, kind }) => [name, kind]));
  const missing = [...REQUIRED.map((name) => [name, 'function']), ['memory', 'memory'], ['__heap_base', 'global']].find(
    ([name, kind]) => exports.get(name!) !== kind,
  );
  if (missing !== undefined)
    throw new RuntimeCodeError('MISSING_EXPORT', `the code exports no ${missing.join(', a ')}`);
  return { module, version: versionOf(module), fuel };
}
