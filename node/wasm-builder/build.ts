/**
 * The runtime as a Substrate runtime in WebAssembly: bundled, read by QuickJS, frozen, compressed. The same sources give the same
 * bytes on every machine.
 */
import { constants, zstdCompressSync } from 'node:zlib';
import type { Host } from '../../runtime/host.ts';
import { concatBytes, equalBytes, fromHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { encode, u32 } from '../../runtime/primitives/scale/codec.ts';
import { runtimeVersion } from '../../runtime/primitives/types.ts';
import type { Runtime } from '../../runtime/runtime.ts';
import { newRuntime, writeGenesis } from '../chain/genesis.ts';
import { runtimeHost } from '../chain/runtime-host.ts';
import { presetSpec } from '../chain-spec/built-in.ts';
import { createHashing } from '../crypto/hashing.ts';
import { createSignatures } from '../crypto/signatures.ts';
import { Overlay } from '../state/overlay.ts';
import { inMemory, Trie } from '../state/trie.ts';
import { writeModule } from './binary.ts';
import { bundleGuest } from './bundle.ts';
import { linkEngine, WasmBuildError } from './engine.ts';
import { freeze } from './snapshot.ts';

/** In front of code that is compressed by zstd (`sp_maybe_compressed_blob`). */
const COMPRESSED = fromHex('0x52bc537646db8e05');
const LEVEL = 19;

export interface BuiltRuntime {
  /** What stands under `:code`. */
  readonly code: Uint8Array;
  /** The module before it was compressed. */
  readonly module: Uint8Array;
  /** The script that was frozen. */
  readonly bundle: string;
}

/**
 * `runtime` is the same runtime, natively: its version and entry points are taken from it. `host` is a state that its methods can be
 * tried on: a genesis state. Throws {@link WasmBuildError}.
 */
export async function buildRuntime(runtime: Runtime, host: Host): Promise<BuiltRuntime> {
  const methods = runtime.apis.flatMap((api) => Object.keys(api.methods).map((name) => `${api.name}_${name}`));
  const bundle = await bundleGuest();
  const linked = await linkEngine(methods);
  const { module } = freeze(linked, bundle, methods, host, (call) => {
    const version = encode(runtimeVersion, runtime.version);
    if (!equalBytes(call('Core_version', new Uint8Array()), version)) {
      throw new WasmBuildError('the frozen runtime says another version of itself');
    }
    for (const wanted of [14, 15, 16]) call('Metadata_metadata_at_version', encode(u32, wanted));
  });
  const apis = runtime.version.apis.map(([id, version]) => concatBytes(id, encode(u32, version)));
  const bytes = writeModule(
    module,
    new Map([
      // The version itself names no APIs: these have a section of their own.
      ['runtime_version', encode(runtimeVersion, { ...runtime.version, apis: [] })],
      ['runtime_apis', apis.reduce((all, each) => concatBytes(all, each), new Uint8Array())],
      ['openledger_bundle', utf8(bundle)],
    ]),
  );
  const packed = zstdCompressSync(bytes, { params: { [constants.ZSTD_c_compressionLevel]: LEVEL } });
  return { code: concatBytes(COMPRESSED, packed), module: bytes, bundle };
}

/** The runtime of these sources, tried on the genesis of the development chain. */
export async function buildOwnRuntime(): Promise<BuiltRuntime> {
  const runtime = newRuntime();
  const hashing = createHashing();
  const overlay = new Overlay(new Trie(hashing.blake2_256, inMemory), undefined);
  const host = runtimeHost(overlay, hashing, await createSignatures(), () => {});
  writeGenesis(host, runtime, presetSpec('dev').genesis, new Uint8Array());
  return buildRuntime(runtime, host);
}
