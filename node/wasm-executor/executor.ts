/** Runs a runtime that is WebAssembly: what stands under `:code`, whoever built it. */
import type { Host } from '../../runtime/host.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { AllocationError, FreeingBumpAllocator } from './allocator.ts';
import { MEMORY_PAGES, type RuntimeCode } from './code.ts';
import { type GuestMemory, hostImports, RuntimePanic } from './host-imports.ts';

/** Functions and rounds of loops that one call of an entry point may take, unless it is said otherwise. */
export const FUEL = 4_000_000_000n;

export type WasmErrorCode =
  /** The runtime stopped with an error of its own: `message` is what it says. */
  | 'PANICKED'
  /** An instruction trapped, or the runtime pointed outside of its memory. */
  | 'TRAPPED'
  | 'OUT_OF_FUEL'
  | 'OUT_OF_MEMORY'
  | 'UNKNOWN_METHOD';

export class WasmExecutionError extends Error {
  readonly code: WasmErrorCode;
  constructor(code: WasmErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'WasmExecutionError';
    this.code = code;
  }
}

type EntryPoint = (at: number, length: number) => bigint;

/**
 * One instance over one host. Calls may follow each other, as those that make a block do; after a call that threw, the instance
 * must not be used any more.
 */
export class WasmInstance {
  readonly #exports: WebAssembly.Exports;
  readonly #guest: GuestMemory;
  readonly #left: WebAssembly.Global<'i64'>;
  readonly #fuel: bigint;

  /** Throws {@link WasmExecutionError} for code that cannot be begun. */
  constructor(code: RuntimeCode, host: Host, fuel = FUEL) {
    let guest: GuestMemory | undefined;
    const env = hostImports(host, () => guest!);
    try {
      this.#exports = new WebAssembly.Instance(code.module, { env }).exports;
    } catch (problem) {
      throw new WasmExecutionError('TRAPPED', `the code cannot be begun: ${(problem as Error).message}`, {
        cause: problem,
      });
    }
    const memory = this.#exports.memory as WebAssembly.Memory;
    const heapBase = Number((this.#exports.__heap_base as WebAssembly.Global).value) >>> 0;
    guest = { memory, allocator: new FreeingBumpAllocator(memory, heapBase, MEMORY_PAGES) };
    this.#guest = guest;
    this.#left = this.#exports[code.fuel] as WebAssembly.Global<'i64'>;
    this.#fuel = fuel;
  }

  /** Runs an entry point; the result is a copy. Throws {@link WasmExecutionError}. */
  call(method: string, parameters: Uint8Array): Uint8Array {
    const entry = this.#exports[method];
    if (typeof entry !== 'function')
      throw new WasmExecutionError('UNKNOWN_METHOD', `the runtime has no method ${method}`);
    const { memory, allocator } = this.#guest;
    this.#left.value = this.#fuel;
    try {
      const at = allocator.allocate(parameters.length);
      new Uint8Array(memory.buffer, at, parameters.length).set(parameters);
      const result = BigInt.asUintN(64, (entry as EntryPoint)(at, parameters.length));
      return new Uint8Array(memory.buffer, Number(result & 0xffff_ffffn), Number(result >> 32n)).slice();
    } catch (problem) {
      throw this.#executionError(method, problem);
    }
  }

  /** Bytes of memory that the instance holds by now. */
  get memoryBytes(): number {
    return this.#guest.memory.buffer.byteLength;
  }

  #executionError(method: string, problem: unknown): unknown {
    const options = { cause: problem };
    if (problem instanceof RuntimePanic) return new WasmExecutionError('PANICKED', problem.message, options);
    if (this.#left.value < 0n) return new WasmExecutionError('OUT_OF_FUEL', `${method} takes too long`, options);
    if (problem instanceof AllocationError) {
      return new WasmExecutionError('OUT_OF_MEMORY', `${method}: ${problem.message}`, options);
    }
    const trapped = [WebAssembly.RuntimeError, RangeError, ScaleError].some((each) => problem instanceof each);
    if (trapped && problem instanceof Error) {
      return new WasmExecutionError('TRAPPED', `${method}: ${problem.message}`, options);
    }
    return problem;
  }
}
