/**
 * Recovery of secp256k1 keys, as Substrate's `secp256k1_ecdsa_recover_compressed` (host API version 2) does it, in
 * WebAssembly. The library around that module costs some 150 MB where it is imported, for every thread; the module
 * alone costs one, and is put to work by the first signature of this kind only.
 */
import { createRequire } from 'node:module';
import { inflateSync } from 'node:zlib';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';

interface Exports {
  readonly memory: WebAssembly.Memory;
  __wbindgen_malloc(size: number): number;
  __wbindgen_free(at: number, size: number): void;
  __wbindgen_add_to_stack_pointer(delta: number): number;
  ext_secp_recover(result: number, hash: number, hashLen: number, sig: number, sigLen: number, id: number): void;
}

export type RecoverEcdsa = (signature: Uint8Array, messageHash: Uint8Array) => Uint8Array | undefined;

const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
/** A module that has trapped this often is replaced: a trap leaks what was under way. */
const TRAPS_PER_INSTANCE = 128;

function loadModule(): WebAssembly.Module {
  const { bytes } = createRequire(import.meta.url)('@polkadot/wasm-crypto-wasm/cjs/cjs/bytes') as { bytes: string };
  return new WebAssembly.Module(inflateSync(Buffer.from(bytes, 'base64')));
}

/** The compressed key, or none. `signature`: 64 bytes with a low `s`. */
function createRecover(): (hash: Uint8Array, signature: Uint8Array, id: number) => Uint8Array | undefined {
  const module = loadModule();
  // Recovery needs nothing from outside; what is called is the hook that reports a panic.
  const panic = () => {
    throw new WebAssembly.RuntimeError('panic');
  };
  const imports: Record<string, Record<string, () => never>> = {};
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    imports[from] ??= {};
    imports[from][name] = panic;
  }
  const instantiate = () => new WebAssembly.Instance(module, imports).exports as unknown as Exports;
  let wasm = instantiate();
  let stack = wasm.__wbindgen_add_to_stack_pointer(0);
  let traps = 0;

  const pass = (bytes: Uint8Array): number => {
    const at = wasm.__wbindgen_malloc(bytes.length) >>> 0;
    new Uint8Array(wasm.memory.buffer).set(bytes, at);
    return at;
  };

  return (hash, signature, id) => {
    try {
      const result = wasm.__wbindgen_add_to_stack_pointer(-16);
      // The callee frees what is passed, the caller what is returned.
      wasm.ext_secp_recover(result, pass(hash), hash.length, pass(signature), signature.length, id);
      const view = new DataView(wasm.memory.buffer);
      const [at, length] = [view.getUint32(result, true), view.getUint32(result + 4, true)];
      const key = new Uint8Array(wasm.memory.buffer).slice(at, at + length);
      wasm.__wbindgen_free(at, length);
      wasm.__wbindgen_add_to_stack_pointer(16);
      return key.length === 33 ? key : undefined;
    } catch {
      if (++traps >= TRAPS_PER_INSTANCE) {
        wasm = instantiate();
        stack = wasm.__wbindgen_add_to_stack_pointer(0);
        traps = 0;
      } else wasm.__wbindgen_add_to_stack_pointer(stack - wasm.__wbindgen_add_to_stack_pointer(0));
      return undefined;
    }
  };
}

/**
 * The function gives the compressed key (33 bytes) that signed a 32-byte hash; undefined when there is none. The last
 * of the 65 bytes is the recovery id, 0 to 3, or 27 to 30 as Ethereum writes it. Never throws.
 */
export function createRecoverEcdsa(): RecoverEcdsa {
  let recover: ReturnType<typeof createRecover> | undefined;
  return (signature, messageHash) => {
    if (signature.length !== 65 || messageHash.length !== 32) return undefined;
    const tag = signature[64]!;
    const id = tag > 26 ? tag - 27 : tag;
    if (id > 3) return undefined;
    recover ??= createRecover();
    const s = BigInt(toHex(signature.subarray(32, 64)));
    const compact = signature.slice(0, 64);
    // The library refuses the higher of the two equivalent signatures, Substrate does not: recover from the lower one.
    const isHigh = s > ORDER / 2n && s < ORDER;
    if (isHigh) compact.set(fromHex((ORDER - s).toString(16).padStart(64, '0')), 32);
    return recover(messageHash, compact, isHigh ? id ^ 1 : id);
  };
}
