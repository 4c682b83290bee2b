/** Code that means harm is refused when it is opened, or ends with an error of its own; the node goes on. */
import { zstdCompressSync } from 'node:zlib';
import t from 'tap';
import wabt from 'wabt';
import { runtimeHost } from '../../../node/chain/runtime-host.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { createSignatures } from '../../../node/crypto/signatures.ts';
import { Overlay } from '../../../node/state/overlay.ts';
import { inMemory, Trie } from '../../../node/state/trie.ts';
import { readModule, writeModule } from '../../../node/wasm-builder/binary.ts';
import { COMPRESSED, MEMORY_PAGES, openCode, RuntimeCodeError } from '../../../node/wasm-executor/code.ts';
import { WasmInstance } from '../../../node/wasm-executor/executor.ts';
import { concatBytes } from '../../../runtime/primitives/bytes.ts';
import { encode } from '../../../runtime/primitives/scale/codec.ts';
import { runtimeVersion } from '../../../runtime/primitives/types.ts';
import { VERSION } from '../../../runtime/version.ts';

const assembler = await wabt();
const hashing = createHashing();
const signatures = await createSignatures();
const host = () =>
  runtimeHost(new Overlay(new Trie(hashing.blake2_256, inMemory), undefined), hashing, signatures, () => {});

const ENTRIES = ['Core_version', 'Core_execute_block', 'Core_initialize_block', 'BlockBuilder_finalize_block'];
const SECTIONS = new Map([
  ['runtime_version', encode(runtimeVersion, { ...VERSION, apis: [] })],
  ['runtime_apis', new Uint8Array()],
]);
const HARMLESS = '(i64.const 0)';

interface Parts {
  readonly body?: string;
  readonly imports?: string;
  readonly rest?: string;
  readonly memory?: string;
  readonly heapBase?: string;
  readonly entries?: readonly string[];
  readonly sections?: ReadonlyMap<string, Uint8Array>;
}

/** A runtime whose `Core_version` does what `body` says. */
function hostile({
  body = HARMLESS,
  imports = '',
  rest = '',
  memory = '(memory (export "memory") 1)',
  heapBase = '(global (export "__heap_base") i32 (i32.const 1024))',
  entries = ENTRIES,
  sections = SECTIONS,
}: Parts): Uint8Array {
  const text = `(module ${imports} ${memory} ${heapBase} ${rest}
    ${entries
      .map(
        (name) => `(func (export "${name}") (param i32 i32) (result i64) ${name === 'Core_version' ? body : HARMLESS})`,
      )
      .join('\n')})`;
  const made = assembler.parseWat('hostile.wat', text);
  const { buffer } = made.toBinary({});
  made.destroy();
  // What the reader refuses must reach it as it is.
  try {
    return writeModule(readModule(buffer), sections);
  } catch {
    return buffer;
  }
}

const refused = (code: Uint8Array): string => {
  try {
    openCode(code);
    return 'opened';
  } catch (problem) {
    if (!(problem instanceof RuntimeCodeError)) throw problem;
    return problem.code;
  }
};

const packed = (bytes: Uint8Array): Uint8Array => concatBytes(COMPRESSED, zstdCompressSync(bytes));

t.test('what is no runtime is refused before anything of it is run', async (test) => {
  const cases: Readonly<Record<string, readonly [Uint8Array, string]>> = {
    nothing: [new Uint8Array(), 'NOT_WASM'],
    rubbish: [new Uint8Array(1_000).fill(7), 'NOT_WASM'],
    'a compressed file that was cut': [packed(hostile({})).subarray(0, 60), 'NOT_WASM'],
    'a bomb that unpacks to 64 MiB': [packed(new Uint8Array(64 * 2 ** 20)), 'TOO_LARGE'],
    'a function that no host has': [
      hostile({ imports: '(import "env" "process_binding" (func (param i32)))' }),
      'UNKNOWN_IMPORT',
    ],
    'a function of another module': [
      hostile({ imports: '(import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))' }),
      'UNKNOWN_IMPORT',
    ],
    'a memory of the host': [
      hostile({ imports: '(import "env" "memory" (memory 1))', memory: '(export "memory" (memory 0))' }),
      'NOT_WASM',
    ],
    'code that runs when it is loaded': [hostile({ rest: '(func $go (loop (br 0))) (start $go)' }), 'NOT_WASM'],
    'a memory that begins too large': [
      hostile({ memory: `(memory (export "memory") ${MEMORY_PAGES + 1})` }),
      'NOT_WASM',
    ],
    'no memory': [hostile({ memory: '(memory 1)' }), 'MISSING_EXPORT'],
    'no base of the heap': [hostile({ heapBase: '' }), 'MISSING_EXPORT'],
    'an entry point left out': [hostile({ entries: ENTRIES.slice(1) }), 'MISSING_EXPORT'],
    'no version': [hostile({ sections: new Map() }), 'NO_VERSION'],
    'half a version': [
      hostile({ sections: new Map([...SECTIONS, ['runtime_version', Uint8Array.of(200, 1)]]) }),
      'NO_VERSION',
    ],
    'APIs that end in the middle': [
      hostile({ sections: new Map([...SECTIONS, ['runtime_apis', new Uint8Array(11)]]) }),
      'NO_VERSION',
    ],
    'a name for the fuel that is taken': [
      hostile({ rest: '(global (export "openledger_fuel") (mut i64) (i64.const 1))' }),
      'NOT_WASM',
    ],
    'a runtime that does nothing': [hostile({}), 'opened'],
  };
  for (const [name, [code, expected]] of Object.entries(cases)) test.equal(refused(code), expected, name);
});

t.test('whatever a runtime does, the call ends, and says why', async (test) => {
  const allocator = '(import "env" "ext_allocator_malloc_version_1" (func $malloc (param i32) (result i32)))';
  const free = '(import "env" "ext_allocator_free_version_1" (func $free (param i32)))';
  const set = '(import "env" "ext_storage_set_version_1" (func $set (param i64 i64)))';
  const commit = '(import "env" "ext_storage_commit_transaction_version_1" (func $commit))';
  const begin = '(import "env" "ext_storage_start_transaction_version_1" (func $begin))';
  const root = '(import "env" "ext_storage_root_version_2" (func $root (param i32) (result i64)))';
  const panic = '(import "env" "ext_panic_handler_abort_on_panic_version_1" (func $panic (param i64)))';
  const prefix = '(import "env" "ext_storage_clear_prefix_version_2" (func $clear (param i64 i64) (result i64)))';
  const cases: Readonly<Record<string, readonly [Parts, string]>> = {
    'a loop without an end': [{ body: '(loop (br 0)) (i64.const 0)' }, 'OUT_OF_FUEL'],
    'two functions that call each other in a loop': [
      { rest: '(func $a (call $b)) (func $b)', body: '(loop (call $a) (br 0)) (i64.const 0)' },
      'OUT_OF_FUEL',
    ],
    'a function that calls itself': [{ rest: '(func $a (call $a))', body: '(call $a) (i64.const 0)' }, 'TRAPPED'],
    unreachable: [{ body: 'unreachable' }, 'TRAPPED'],
    'a division by zero': [{ body: '(drop (i32.div_u (i32.const 1) (i32.const 0))) (i64.const 0)' }, 'TRAPPED'],
    'a result outside of its memory': [{ body: '(i64.const 0x7fffffffffffffff)' }, 'TRAPPED'],
    'all of the memory, by the host': [
      { imports: allocator, body: '(loop (drop (call $malloc (i32.const 1000000))) (br 0)) (i64.const 0)' },
      'OUT_OF_MEMORY',
    ],
    'more than an allocation may be': [
      { imports: allocator, body: '(drop (call $malloc (i32.const -1))) (i64.const 0)' },
      'OUT_OF_MEMORY',
    ],
    'all of the memory, by itself': [
      {
        body: `(loop (br_if 0 (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
          (if (i32.gt_u (memory.size) (i32.const ${MEMORY_PAGES})) (then (loop (br 0)))) unreachable`,
      },
      'TRAPPED',
    ],
    'an address that was never given, given back': [
      { imports: free, body: '(call $free (i32.const 3)) (i64.const 0)' },
      'OUT_OF_MEMORY',
    ],
    'a value that lies outside of its memory': [
      { imports: set, body: '(call $set (i64.const 0x100000000) (i64.const 0x7fffffff00000000)) (i64.const 0)' },
      'TRAPPED',
    ],
    'a transaction that it has not begun': [{ imports: commit, body: '(call $commit) (i64.const 0)' }, 'PANICKED'],
    'a root inside of a transaction': [
      { imports: `${begin} ${root}`, body: '(call $begin) (call $root (i32.const 1))' },
      'PANICKED',
    ],
    'a limit that is none': [
      {
        imports: prefix,
        rest: '(data (i32.const 0) "\\02\\ff")',
        body: '(call $clear (i64.const 0) (i64.const 0x200000000))',
      },
      'TRAPPED',
    ],
    'an error of its own': [
      {
        imports: panic,
        rest: '(data (i32.const 0) "no")',
        body: '(call $panic (i64.const 0x200000000)) (i64.const 0)',
      },
      'PANICKED',
    ],
    'a heap that begins behind all memory': [
      { heapBase: '(global (export "__heap_base") i32 (i32.const -8))' },
      'OUT_OF_MEMORY',
    ],
  };
  for (const [name, [parts, expected]] of Object.entries(cases)) {
    const code = openCode(hostile(parts));
    const run = () => new WasmInstance(code, host(), 20_000_000n).call('Core_version', Uint8Array.of(1, 2, 3));
    test.throws(run, { name: 'WasmExecutionError', code: expected }, name);
  }
  const outside = hostile({ rest: '(data (i32.const 65530) "too long for a page")' });
  test.throws(() => new WasmInstance(openCode(outside), host()), { code: 'TRAPPED' }, 'data outside of the memory');
  const fine = new WasmInstance(openCode(hostile({})), host());
  test.same(fine.call('Core_version', new Uint8Array()), new Uint8Array(), 'and an empty answer is one');
  test.throws(() => fine.call('Core_nothing', new Uint8Array()), { code: 'UNKNOWN_METHOD' });
  test.throws(() => fine.call('memory', new Uint8Array()), { code: 'UNKNOWN_METHOD' });
});
