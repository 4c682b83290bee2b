/** The runtime's code as it stands under `:code`: built when its sources have changed, else read from where it was put. */
import { existsSync } from 'node:fs';
import { glob, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { blake2b } from '@noble/hashes/blake2.js';
import { equalBytes, toHex, utf8 } from '../../runtime/primitives/bytes.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** Where tools keep what they can make again; it goes when packages are installed anew. */
const CACHE = join(ROOT, 'node_modules', '.cache', 'openledger');
/** Everything that the code is made of. */
const SOURCES = [
  'runtime/**/*.ts',
  'node/wasm-builder/**/*.ts',
  'node/wasm-executor/**/*.ts',
  'node/chain-spec/built-in.ts',
  'package-lock.json',
];
/** A package brings the code along. */
const SHIPPED = new URL('./runtime.wasm', import.meta.url);
/** In front of the code: a file that was cut short is made again. */
const DIGEST_BYTES = 32;

const blake2_256 = (bytes: Uint8Array): Uint8Array => blake2b(bytes, { dkLen: 32 });

async function keyOf(root: string): Promise<string> {
  const digest = blake2b.create({ dkLen: 16 });
  const files = (await Array.fromAsync(glob(SOURCES, { cwd: root }))).sort();
  for (const file of files) {
    digest.update(utf8(`${file}\n`)).update(blake2_256(await readFile(join(root, file))));
  }
  return toHex(digest.digest()).slice(2);
}

async function stored(file: string): Promise<Uint8Array | undefined> {
  try {
    const bytes = new Uint8Array(await readFile(file));
    const code = bytes.subarray(DIGEST_BYTES);
    return equalBytes(blake2_256(code), bytes.subarray(0, DIGEST_BYTES)) ? code : undefined;
  } catch {
    return undefined;
  }
}

let code: Promise<Uint8Array> | undefined;

/**
 * The code, once a process. Builds it where it is not there yet, which takes some seconds: `building` is called before that.
 * Throws `WasmBuildError`. A cache that cannot be written to only costs time.
 */
export function runtimeCode(building: () => void = () => {}): Promise<Uint8Array> {
  code ??= find(building);
  // A failure is not kept: what it was for may be mended.
  code.catch(() => {
    code = undefined;
  });
  return code;
}

async function find(building: () => void): Promise<Uint8Array> {
  if (existsSync(SHIPPED)) return new Uint8Array(await readFile(SHIPPED));
  const file = join(CACHE, `runtime-${await keyOf(ROOT)}.wasm`);
  const known = await stored(file);
  if (known !== undefined) return known;
  building();
  // Loaded when there is something to build: who starts a node does not wait for the tools.
  const { buildOwnRuntime } = await import('./build.ts');
  const { code: built } = await buildOwnRuntime();
  try {
    await mkdir(CACHE, { recursive: true });
    const whole = Buffer.concat([blake2_256(built), built]);
    const young = `${file}.${process.pid}`;
    await writeFile(young, whole);
    await rename(young, file);
  } catch {
    return built;
  }
  return built;
}
