/**
 * Schnorr signatures on Ristretto (schnorrkel, signing context `substrate`), in WebAssembly.
 *
 * The package's own bindings panic on malformed input: every panic prints a stack and leaks memory until the instance
 * dies, and a stranger could feed it such input at will. So checks run in instances of their own, malformed signatures
 * are told apart beforehand, and an instance that has trapped too often (undecodable public keys) is replaced.
 */
import { readFileSync } from 'node:fs';
import { isCanonicalScalar } from './scalars.ts';

interface Exports {
  readonly memory: WebAssembly.Memory;
  __wbindgen_malloc(size: number, align: number): number;
  __wbindgen_add_to_stack_pointer(delta: number): number;
  sr25519_verify(key: number, keyLen: number, message: number, messageLen: number, sig: number, sigLen: number): number;
}

const TRAPS_PER_INSTANCE = 128;
/** Marks signatures of schnorrkel, as against ed25519's, in the last byte. */
const SCHNORRKEL_MARK = 0x80;

function loadModule(): WebAssembly.Module {
  const entry = import.meta.resolve('@polkadot-labs/schnorrkel-wasm');
  return new WebAssembly.Module(readFileSync(new URL('./schnorrkel_bg.wasm', entry)));
}

export type Sr25519Verify = (signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array) => boolean;

/** Compiles the module (about a millisecond). The function returned never throws. */
export function createSr25519Verify(): Sr25519Verify {
  const module = loadModule();
  // Verification needs nothing from outside; what is called is the hook that reports a panic.
  const panic = () => {
    throw new WebAssembly.RuntimeError('panic');
  };
  const imports: Record<string, Record<string, () => never>> = {};
  for (const { module: from, name } of WebAssembly.Module.imports(module)) {
    imports[from] ??= {};
    imports[from][name] = panic;
  }

  let wasm: Exports;
  let memory: Uint8Array;
  let stack: number;
  let traps: number;
  const renew = () => {
    wasm = new WebAssembly.Instance(module, imports).exports as unknown as Exports;
    memory = new Uint8Array(wasm.memory.buffer);
    stack = wasm.__wbindgen_add_to_stack_pointer(0);
    traps = 0;
  };
  renew();

  /** The callee frees it. */
  const pass = (bytes: Uint8Array): number => {
    const at = wasm.__wbindgen_malloc(bytes.length, 1) >>> 0;
    if (memory.byteLength === 0) memory = new Uint8Array(wasm.memory.buffer);
    memory.set(bytes, at);
    return at;
  };

  return (signature, message, publicKey) => {
    if (signature.length !== 64 || publicKey.length !== 32) return false;
    const top = signature[63]!;
    if ((top & SCHNORRKEL_MARK) === 0 || !isCanonicalScalar(signature, 32, top & ~SCHNORRKEL_MARK)) return false;
    try {
      const key = pass(publicKey);
      const text = pass(message);
      const proof = pass(signature);
      return wasm.sr25519_verify(key, 32, text, message.length, proof, 64) !== 0;
    } catch {
      if (++traps >= TRAPS_PER_INSTANCE) renew();
      else wasm.__wbindgen_add_to_stack_pointer(stack - wasm.__wbindgen_add_to_stack_pointer(0));
      return false;
    }
  };
}
