/** The engine after it has read the guest, frozen: its memory becomes the module's data. */
import type { Host } from '../../runtime/host.ts';
import { FreeingBumpAllocator } from '../wasm-executor/allocator.ts';
import { type GuestMemory, hostImports } from '../wasm-executor/host-imports.ts';
import { type WasmModule, writeModule } from './binary.ts';
import { WasmBuildError } from './engine.ts';
import {
  BYTES_TO_TEXT,
  FIRST_LETTER,
  HOST_FUNCTION_NAMES,
  HOST_FUNCTIONS,
  type HostFunction,
  TEXT_TO_BYTES,
} from './host-functions.ts';

const PAGE = 65_536;
/** While the engine is made, its memory ends here and the host's begins: more than it ever needs. */
const BUILD_PAGES = 4_096;
const MAX_PAGES = 16_384;
/** Pages that a frozen engine has to itself before it asks the host for more. */
const ARENA_PAGES = 128;
/** Bytes of zero that end a piece of data: each piece costs some bytes itself. */
const GAP = 16;

/** EVAL (to read the guest), REGEXP, JSON, MAP_SET, TYPED_ARRAYS, BIG_INT: no clock, no chance, nothing that waits. */
const INTRINSICS = 2 | 4 | 8 | 32 | 64 | 256;
/** Nothing is collected: counted references free all but circles, and an instance lives for a block at most. */
const NEVER = -1;
/** QuickJS' own mark of a value that was thrown. */
const CURRENT = 'quickjs';

/** The engine's own functions, by their names in quickjs-wasi. */
type EngineFunctions = Readonly<Record<string, (...values: number[]) => number>>;

class Maker {
  readonly #exports: EngineFunctions;
  readonly memory: WebAssembly.Memory;

  constructor(instance: WebAssembly.Instance) {
    this.#exports = instance.exports as unknown as EngineFunctions;
    this.memory = instance.exports.memory as WebAssembly.Memory;
  }

  call(name: string, ...values: number[]): number {
    const found = this.#exports[name];
    if (found === undefined) throw new WasmBuildError(`the engine has no ${name}`);
    return found(...values);
  }

  #bytes(): Uint8Array {
    return new Uint8Array(this.memory.buffer);
  }

  /** Text in the engine's memory, with a zero behind it. */
  text(value: string): { readonly at: number; readonly length: number } {
    const encoded = new TextEncoder().encode(value);
    const at = this.call('wasm_malloc', encoded.length + 1);
    this.#bytes().set(encoded, at);
    this.#bytes()[at + encoded.length] = 0;
    return { at, length: encoded.length };
  }

  #read(at: number): string {
    const bytes = this.#bytes();
    return new TextDecoder().decode(bytes.subarray(at, bytes.indexOf(0, at)));
  }

  /** Address of the value. Throws {@link WasmBuildError} with what the engine says. */
  evaluate(code: string, name: string): number {
    const [source, file] = [this.text(code), this.text(name)];
    const value = this.call('qjs_eval', source.at, source.length, file.at, 0);
    this.call('wasm_free', source.at);
    this.call('wasm_free', file.at);
    if (this.call('qjs_is_exception', value) !== 0) {
      const thrown = this.call('qjs_get_exception');
      const stack = this.call('qjs_get_prop_string', thrown, this.text('stack').at);
      const said = [thrown, stack].map((each) => this.#read(this.call('qjs_get_string', each))).join('\n');
      throw new WasmBuildError(`${name}: ${said}`);
    }
    return value;
  }

  /** Free memory holds what was there before: all of it is taken, cleared and given back. */
  clearFreeMemory(): void {
    const claimed: number[] = [];
    for (let size = 1 << 22; size >= 16; size = size > 256 ? size >> 1 : size - 8) {
      for (;;) {
        const at = this.call('wasm_malloc', size);
        if (at === 0) break;
        claimed.push(at);
        this.#bytes().fill(0, at, at + size);
      }
    }
    for (const at of claimed) this.call('wasm_free', at);
  }
}

/** Host functions become properties of a global variable `engine`. */
function defineHostFunctions(maker: Maker): void {
  const engine = maker.evaluate('globalThis.engine = {}; engine', CURRENT);
  const define = (name: string, index: number, parameters: number): void => {
    const letter = maker.text(String.fromCharCode(FIRST_LETTER + index));
    const made = maker.call('qjs_new_host_function', letter.at, letter.length, parameters);
    maker.call('qjs_set_prop_string', engine, maker.text(name).at, made);
  };
  HOST_FUNCTION_NAMES.forEach((name, index) => {
    const { parameters }: HostFunction = HOST_FUNCTIONS[name];
    define(name, index, parameters.length);
  });
  define('textToBytes', TEXT_TO_BYTES, 1);
  define('bytesToText', BYTES_TO_TEXT, 1);
}

export interface Frozen {
  readonly module: WasmModule;
  /** Bytes of the frozen memory that are not zero's. */
  readonly dataBytes: number;
}

/**
 * `warm` is run on the engine before it is frozen: what it makes the guest remember need not be made again by every instance. It
 * calls entry points by name.
 */
export function freeze(
  linked: WasmModule,
  guest: string,
  methods: readonly string[],
  host: Host,
  warm: (call: (method: string, parameters: Uint8Array) => Uint8Array) => void,
): Frozen {
  let memory: GuestMemory | undefined;
  let full = false;
  const imports = hostImports(host, () => memory!);
  const allocate = imports.ext_allocator_malloc_version_1 as (size: number) => number;
  const env = { ...imports, ext_allocator_malloc_version_1: (size: number) => (full ? 0 : allocate(size)) };
  const running = new WebAssembly.Module(writeModule({ ...linked, memoryPages: BUILD_PAGES }) as BufferSource);
  const instance = new WebAssembly.Instance(running, { env });
  const maker = new Maker(instance);
  const allocator = new FreeingBumpAllocator(maker.memory, BUILD_PAGES * PAGE, MAX_PAGES);
  memory = { memory: maker.memory, allocator };

  maker.call('glue_set_arena_end', BUILD_PAGES);
  maker.call('_initialize');
  if (maker.call('qjs_init2', INTRINSICS) !== 0) throw new WasmBuildError('the engine does not start');
  maker.call('qjs_set_gc_threshold', NEVER);
  defineHostFunctions(maker);
  maker.evaluate(guest, 'runtime.js');
  maker.evaluate('delete globalThis.eval; delete globalThis.Function; delete Math.random;', CURRENT);
  maker.call('glue_set_guest', maker.evaluate('guest.dispatch', CURRENT));

  const entries = instance.exports as unknown as Readonly<Record<string, (at: number, length: number) => bigint>>;
  warm((method, parameters) => {
    const at = allocator.allocate(parameters.length);
    new Uint8Array(maker.memory.buffer, at, parameters.length).set(parameters);
    const result = BigInt.asUintN(64, entries[method]!(at, parameters.length));
    allocator.release(at);
    return new Uint8Array(maker.memory.buffer, Number(result & 0xffff_ffffn), Number(result >> 32n)).slice();
  });
  maker.call('glue_forget');
  maker.call('qjs_run_gc');

  // From here on nothing is made any more: malloc has what it has.
  maker.call('glue_set_arena_end', maker.call('glue_next_page'));
  full = true;
  maker.clearFreeMemory();

  const next = maker.call('glue_next_page');
  const end = next + ARENA_PAGES;
  maker.call('glue_set_arena_end', end);
  return frozen(linked, instance, methods, next * PAGE, end);
}

/** The stack's deepest bytes hold the glue's scratch; nothing else is on it between calls. */
const STACK_BYTES = 1 << 20;

function frozen(
  linked: WasmModule,
  instance: WebAssembly.Instance,
  methods: readonly string[],
  used: number,
  pages: number,
): Frozen {
  const memory = new Uint8Array((instance.exports.memory as WebAssembly.Memory).buffer, 0, used).slice();
  memory.fill(0, 0, STACK_BYTES);
  const data = pieces(memory);
  const exportedGlobals = linked.exports.filter(({ kind }) => kind === 3);
  const globals = linked.globals.map((global, index) => {
    if (!global.mutable) return global;
    const name = exportedGlobals.find((each) => each.index === index)?.name;
    if (name === undefined) throw new WasmBuildError(`the global variable ${index} cannot be read`);
    return { ...global, value: Number((instance.exports[name] as WebAssembly.Global).value) };
  });
  const heapBase = { type: 0x7f, mutable: false, value: pages * PAGE };
  const kept = new Set(['memory', ...methods]);
  return {
    dataBytes: data.reduce((sum, { bytes }) => sum + bytes.length, 0),
    module: {
      ...linked,
      memoryPages: pages,
      globals: [...globals, heapBase],
      exports: [
        ...linked.exports.filter(({ name, kind }) => kept.has(name) && kind !== 3),
        { name: '__heap_base', kind: 3, index: globals.length },
      ],
      data,
    },
  };
}

function pieces(memory: Uint8Array): { offset: number; bytes: Uint8Array }[] {
  const found: { offset: number; bytes: Uint8Array }[] = [];
  let at = 0;
  for (;;) {
    while (at < memory.length && memory[at] === 0) at++;
    if (at >= memory.length) return found;
    let end = at;
    let zeros = 0;
    let next = at;
    for (; next < memory.length && zeros < GAP; next++) {
      if (memory[next] === 0) zeros++;
      else {
        zeros = 0;
        end = next + 1;
      }
    }
    found.push({ offset: at, bytes: memory.subarray(at, end) });
    at = next;
  }
}
