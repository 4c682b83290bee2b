/**
 * The glue between QuickJS and Substrate's host API, as WebAssembly text: QuickJS' host calls become calls of `env.ext_*`, the
 * runtime's entry points become calls of the guest's `dispatch`, and what the engine asks of a system is answered the same
 * everywhere. It also holds what WebAssembly's first version lacks.
 *
 * A JavaScript value is an i64 with its tag in the upper half (QuickJS-ng without NaN boxing of integers: tag 0 is an integer, 1 a
 * truth value, 3 undefined, 6 an exception).
 */
import {
  BYTES_TO_TEXT,
  FIRST_LETTER,
  HOST_FUNCTION_NAMES,
  HOST_FUNCTIONS,
  type HostFunction,
  type Parameter,
  TEXT_TO_BYTES,
} from './host-functions.ts';

const MODULE = (parts: readonly string[]): string => `(module\n${parts.join('\n')}\n)\n`;

const RESULT_TYPE = (result: HostFunction['result']): string =>
  result === 'nothing' ? '' : result === 'flag' || typeof result === 'number' ? '(result i32)' : '(result i64)';
const PARAMETER_TYPE: Readonly<Record<Parameter, string>> = { bytes: 'i64', pointer: 'i32', int: 'i32' };

const externs = (): string[] =>
  Object.values(HOST_FUNCTIONS as Readonly<Record<string, HostFunction>>).map(
    ({ extern, parameters, result, constants = [] }) =>
      `(import "env" "${extern}" (func $${extern} (param ${[
        ...parameters.map((each) => PARAMETER_TYPE[each]),
        ...constants.map(() => 'i32'),
      ].join(' ')}) ${RESULT_TYPE(result)}))`,
  );

/** One function a host function: takes the arguments of a JavaScript call, gives a JavaScript value. */
const adapters = (): string[] =>
  HOST_FUNCTION_NAMES.map((name) => {
    const { extern, parameters, result, constants = [] }: HostFunction = HOST_FUNCTIONS[name];
    const given = [
      ...parameters.map((each, i) => `(call $${each} (local.get $arguments) (i32.const ${4 * i}))`),
      ...constants.map((each) => `(i32.const ${each})`),
    ];
    const call = `(call $${extern} ${given.join(' ')})`;
    const value =
      result === 'nothing'
        ? `${call} (call $undefined)`
        : result === 'flag'
          ? `(call $truth ${call})`
          : result === 'optional'
            ? `(call $optional ${call})`
            : result === 'bytes'
              ? `(call $taken ${call})`
              : `(call $takenFrom ${call} (i32.const ${result}))`;
    return `(func $host.${name} (param $arguments i32) (result i64) ${value})`;
  });

/** Leads from the letter that names a host function to its adapter. */
function hostCall(): string {
  const targets = [...HOST_FUNCTION_NAMES.map((name) => `$host.${name}`)];
  targets[TEXT_TO_BYTES] = '$textToBytes';
  targets[BYTES_TO_TEXT] = '$bytesToText';
  const labels = targets.map((_, i) => `$l${i}`);
  const open = [...labels].reverse().map((label) => `(block ${label}`);
  const cases = targets.map((target) => `) (return (call $boxed (call ${target} (local.get $arguments))))`);
  return `(func (export "host_call") (param $name i32) (param i32 i32 i32) (param $arguments i32) (result i32)
    (block $unknown ${open.join(' ')}
      (br_table ${labels.join(' ')} $unknown (i32.sub (i32.load8_u (local.get $name)) (i32.const ${FIRST_LETTER})))
    ${cases.join('\n')}
    ) unreachable)`;
}

const QUICKJS = `
  (import "quickjs" "qjs_get_context_ptr" (func $context (result i32)))
  (import "quickjs" "JS_GetUint8Array" (func $getBytes (param i32 i32 i64) (result i32)))
  (import "quickjs" "JS_NewUint8ArrayCopy" (func $newBytes (param i32 i32 i32) (result i64)))
  (import "quickjs" "JS_NewStringLen" (func $newString (param i32 i32 i32) (result i64)))
  (import "quickjs" "JS_Call" (func $callValue (param i32 i64 i64 i32 i32) (result i64)))
  (import "quickjs" "JS_GetException" (func $exception (param i32) (result i64)))
  (import "quickjs" "JS_ToCStringLen2" (func $characters (param i32 i32 i64 i32) (result i32)))
  (import "quickjs" "JS_FreeCString" (func $freeCharacters (param i32 i32)))
  (import "quickjs" "JS_FreeValue" (func $freeValue (param i32 i64)))
  (import "quickjs" "malloc" (func $malloc (param i32) (result i32)))
  (import "quickjs" "free" (func $freeBytes (param i32)))`;

const ALLOCATOR = `
  (import "env" "ext_allocator_malloc_version_1" (func $hostMalloc (param i32) (result i32)))
  (import "env" "ext_allocator_free_version_1" (func $hostFree (param i32)))
  (import "env" "ext_panic_handler_abort_on_panic_version_1" (func $panic (param i64)))`;

const VALUES = `
  (func $undefined (result i64) (i64.const 0x300000000))
  ;; Eight bytes of scratch at the far end of the engine's stack, which grows down towards them.
  (global $scratch i32 (i32.const 32))
  (func $argument (param $arguments i32) (param $at i32) (result i64)
    (i64.load (i32.load (i32.add (local.get $arguments) (local.get $at)))))
  (func $fat (param $at i32) (param $length i32) (result i64)
    (i64.or (i64.shl (i64.extend_i32_u (local.get $length)) (i64.const 32)) (i64.extend_i32_u (local.get $at))))
  (func $low (param $fat i64) (result i32) (i32.wrap_i64 (local.get $fat)))
  (func $high (param $fat i64) (result i32) (i32.wrap_i64 (i64.shr_u (local.get $fat) (i64.const 32))))
  (func $bytes (param $arguments i32) (param $at i32) (result i64) (local $data i32)
    (local.set $data (call $getBytes (call $context) (global.get $scratch)
      (call $argument (local.get $arguments) (local.get $at))))
    (call $fat (local.get $data) (i32.load (global.get $scratch))))
  (func $pointer (param $arguments i32) (param $at i32) (result i32)
    (call $low (call $bytes (local.get $arguments) (local.get $at))))
  (func $int (param $arguments i32) (param $at i32) (result i32)
    (call $low (call $argument (local.get $arguments) (local.get $at))))
  (func $boxed (param $value i64) (result i32) (local $at i32)
    (local.set $at (call $malloc (i32.const 8)))
    (i64.store (local.get $at) (local.get $value))
    (local.get $at))
  (func $truth (param $flag i32) (result i64)
    (i64.or (i64.const 0x100000000) (i64.extend_i32_u (i32.ne (local.get $flag) (i32.const 0)))))
  ;; Bytes of the host's allocator become an array of the engine's.
  (func $takenFrom (param $at i32) (param $length i32) (result i64) (local $value i64)
    (local.set $value (call $newBytes (call $context) (local.get $at) (local.get $length)))
    (call $hostFree (local.get $at))
    (local.get $value))
  (func $taken (param $fat i64) (result i64)
    (call $takenFrom (call $low (local.get $fat)) (call $high (local.get $fat))))
  ;; An encoded Option<Vec<u8>>: undefined, or the bytes behind their compact length.
  (func $optional (param $fat i64) (result i64) (local $at i32) (local $mode i32) (local $head i32) (local $length i32) (local $value i64)
    (local.set $at (call $low (local.get $fat)))
    (if (i32.eqz (i32.load8_u (local.get $at)))
      (then (call $hostFree (local.get $at)) (return (call $undefined))))
    (local.set $mode (i32.and (i32.load8_u offset=1 (local.get $at)) (i32.const 3)))
    (if (i32.eqz (local.get $mode))
      (then (local.set $head (i32.const 2))
        (local.set $length (i32.shr_u (i32.load8_u offset=1 (local.get $at)) (i32.const 2))))
      (else (if (i32.eq (local.get $mode) (i32.const 1))
        (then (local.set $head (i32.const 3))
          (local.set $length (i32.shr_u (i32.load16_u offset=1 (local.get $at)) (i32.const 2))))
        (else (local.set $head (i32.const 5))
          (local.set $length (i32.shr_u (i32.load offset=1 (local.get $at)) (i32.const 2)))))))
    (local.set $value (call $newBytes (call $context) (i32.add (local.get $at) (local.get $head)) (local.get $length)))
    (call $hostFree (local.get $at))
    (local.get $value))
  ;; Text as UTF-8 and back: the engine has no TextEncoder.
  (func $textToBytes (param $arguments i32) (result i64) (local $text i32) (local $value i64)
    (local.set $text (call $characters (call $context) (global.get $scratch)
      (call $argument (local.get $arguments) (i32.const 0)) (i32.const 0)))
    (local.set $value (call $newBytes (call $context) (local.get $text) (i32.load (global.get $scratch))))
    (call $freeCharacters (call $context) (local.get $text))
    (local.get $value))
  (func $bytesToText (param $arguments i32) (result i64) (local $fat i64)
    (local.set $fat (call $bytes (local.get $arguments) (i32.const 0)))
    (call $newString (call $context) (call $low (local.get $fat)) (call $high (local.get $fat))))`;

const DISPATCH = `
  ;; Address of the guest's function that runs an API's method, and what it gave last, which is freed with the next call.
  (global $guest (export "glue_guest") (mut i32) (i32.const 0))
  (global $lastTag (export "glue_last_tag") (mut i32) (i32.const 0))
  (global $lastValue (export "glue_last_value") (mut i32) (i32.const 0))
  (func (export "glue_set_guest") (param $value i32) (global.set $guest (local.get $value)))
  (func $forget (export "glue_forget")
    (call $freeValue (call $context) (call $fat (global.get $lastValue) (global.get $lastTag)))
    (global.set $lastTag (i32.const 0)))
  (func $dispatch (param $method i32) (param $at i32) (param $length i32) (result i64)
    (local $context i32) (local $arguments i32) (local $text i32) (local $value i64)
    (local.set $context (call $context))
    (call $forget)
    (local.set $arguments (call $malloc (i32.const 16)))
    (i64.store (local.get $arguments) (i64.extend_i32_u (local.get $method)))
    (i64.store offset=8 (local.get $arguments) (call $newBytes (local.get $context) (local.get $at) (local.get $length)))
    (local.set $value (call $callValue (local.get $context) (i64.load (global.get $guest)) (call $undefined)
      (i32.const 2) (local.get $arguments)))
    (call $freeValue (local.get $context) (i64.load offset=8 (local.get $arguments)))
    (call $freeBytes (local.get $arguments))
    (global.set $lastTag (call $high (local.get $value)))
    (global.set $lastValue (call $low (local.get $value)))
    (if (i32.eq (global.get $lastTag) (i32.const 6))
      (then
        (local.set $text (call $characters (local.get $context) (global.get $scratch) (call $exception (local.get $context)) (i32.const 0)))
        (call $panic (call $fat (local.get $text) (i32.load (global.get $scratch))))
        unreachable))
    (local.set $text (call $getBytes (local.get $context) (global.get $scratch) (local.get $value)))
    (call $fat (local.get $text) (i32.load (global.get $scratch))))`;

const SYSTEM = `
  ;; The system that is not there: no clock, no chance, no files, no modules, no promises.
  (func (export "host_get_timezone_offset") (param i32 i32) (result i32) (i32.const 0))
  (func (export "host_interrupt") (result i32) (i32.const 0))
  (func (export "host_promise_rejection") (param i32 i32 i32))
  (func (export "host_module_normalize") (param i32 i32) (result i32) (i32.const 0))
  (func (export "host_module_load") (param i32 i32) (result i32) (i32.const 0))
  (func (export "clock_time_get") (param i32 i64) (param $out i32) (result i32)
    (i64.store (local.get $out) (i64.const 0)) (i32.const 0))
  (func (export "fd_close") (param i32) (result i32) (i32.const 52))
  (func (export "fd_fdstat_get") (param i32 i32) (result i32) (i32.const 52))
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) (i32.const 52))
  (func (export "fd_write") (param i32 i32 i32 i32) (result i32) (i32.const 52))
  (func (export "random_get") (param $at i32) (param $count i32) (result i32)
    (call $memoryFill (local.get $at) (i32.const 7) (local.get $count)) (i32.const 0))`;

/** Pages of memory for the engine's malloc: an arena first, then arenas of the host's allocator. */
const MEMORY = (firstPage: number): string => `
  (global $next (export "glue_next") (mut i32) (i32.const ${firstPage}))
  (global $end (export "glue_end") (mut i32) (i32.const 0))
  (func (export "glue_set_arena_end") (param $page i32) (global.set $end (local.get $page)))
  (func (export "glue_next_page") (result i32) (global.get $next))
  (func (export "glue_memory_size") (result i32) (global.get $next))
  (func (export "glue_memory_grow") (param $pages i32) (result i32) (local $chunk i32) (local $at i32)
    (if (i32.eqz (local.get $pages)) (then (return (global.get $next))))
    (if (i32.le_u (i32.add (global.get $next) (local.get $pages)) (global.get $end))
      (then
        (local.set $at (global.get $next))
        (global.set $next (i32.add (local.get $at) (local.get $pages)))
        (return (local.get $at))))
    ;; A further arena, of at least four megabytes. The engine must find sbrk(0) right behind what it was given last.
    (local.set $chunk (select (local.get $pages) (i32.const 62) (i32.gt_u (local.get $pages) (i32.const 62))))
    (local.set $at (call $hostMalloc (i32.sub (i32.shl (i32.add (local.get $chunk) (i32.const 1)) (i32.const 16)) (i32.const 16))))
    (if (i32.eqz (local.get $at)) (then (return (i32.const -1))))
    (local.set $at (i32.shr_u (i32.add (local.get $at) (i32.const 0xffff)) (i32.const 16)))
    (global.set $next (i32.add (local.get $at) (local.get $pages)))
    (global.set $end (i32.add (local.get $at) (local.get $chunk)))
    (local.get $at))
  (func (export "glue_memory_copy") (param $to i32) (param $from i32) (param $count i32)
    (if (i32.le_u (local.get $to) (local.get $from))
      (then
        (block $words (loop $more
          (br_if $words (i32.lt_u (local.get $count) (i32.const 8)))
          (i64.store align=1 (local.get $to) (i64.load align=1 (local.get $from)))
          (local.set $to (i32.add (local.get $to) (i32.const 8)))
          (local.set $from (i32.add (local.get $from) (i32.const 8)))
          (local.set $count (i32.sub (local.get $count) (i32.const 8)))
          (br $more)))
        (block $bytes (loop $more
          (br_if $bytes (i32.eqz (local.get $count)))
          (i32.store8 (local.get $to) (i32.load8_u (local.get $from)))
          (local.set $to (i32.add (local.get $to) (i32.const 1)))
          (local.set $from (i32.add (local.get $from) (i32.const 1)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $more))))
      (else
        (block $words (loop $more
          (br_if $words (i32.lt_u (local.get $count) (i32.const 8)))
          (local.set $count (i32.sub (local.get $count) (i32.const 8)))
          (i64.store align=1 (i32.add (local.get $to) (local.get $count)) (i64.load align=1 (i32.add (local.get $from) (local.get $count))))
          (br $more)))
        (block $bytes (loop $more
          (br_if $bytes (i32.eqz (local.get $count)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (i32.store8 (i32.add (local.get $to) (local.get $count)) (i32.load8_u (i32.add (local.get $from) (local.get $count))))
          (br $more))))))
  (func $memoryFill (export "glue_memory_fill") (param $at i32) (param $value i32) (param $count i32) (local $word i64)
    (local.set $word (i64.mul (i64.extend_i32_u (i32.and (local.get $value) (i32.const 0xff))) (i64.const 0x0101010101010101)))
    (block $words (loop $more
      (br_if $words (i32.lt_u (local.get $count) (i32.const 8)))
      (i64.store align=1 (local.get $at) (local.get $word))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (local.set $count (i32.sub (local.get $count) (i32.const 8)))
      (br $more)))
    (block $bytes (loop $more
      (br_if $bytes (i32.eqz (local.get $count)))
      (i32.store8 (local.get $at) (local.get $value))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br $more))))`;

/** Conversions of f64 that give the nearest bound instead of a trap, and 0 for what is no number. */
const SATURATING: readonly { readonly code: number; readonly to: string; readonly signed: boolean }[] = [
  { code: 2, to: 'i32', signed: true },
  { code: 3, to: 'i32', signed: false },
  { code: 6, to: 'i64', signed: true },
  { code: 7, to: 'i64', signed: false },
];
const BOUNDS: Readonly<Record<string, readonly [least: string, most: string, below: string, above: string]>> = {
  'i32.true': ['-2147483648', '2147483647', '-2147483649', '2147483648'],
  'i32.false': ['0', '-1', '-1', '4294967296'],
  // 2^63 below zero is itself a number of 64 bits with a sign: only what lies below it is out of bounds.
  'i64.true': ['-9223372036854775808', '9223372036854775807', '-9223372036854777856', '9223372036854775808'],
  'i64.false': ['0', '-1', '-1', '18446744073709551616'],
};
const saturating = (): string[] =>
  SATURATING.map(({ code, to, signed }) => {
    const [least, most, below, above] = BOUNDS[`${to}.${signed}`]!;
    return `(func (export "glue_saturating_${code}") (param $x f64) (result ${to})
      (if (f64.ne (local.get $x) (local.get $x)) (then (return (${to}.const 0))))
      (if (f64.le (local.get $x) (f64.const ${below})) (then (return (${to}.const ${least}))))
      (if (f64.ge (local.get $x) (f64.const ${above})) (then (return (${to}.const ${most}))))
      (${to}.trunc_f64_${signed ? 's' : 'u'} (local.get $x)))`;
  });
export const SATURATING_CODES = SATURATING.map(({ code }) => code);

/**
 * `methods`: names of the runtime's entry points, each exported; `firstPage`: where the engine's own memory ends.
 * Exports beside them start with `glue_` or answer the engine's imports.
 */
export function glueText(methods: readonly string[], firstPage: number): string {
  return MODULE([
    QUICKJS,
    ...externs(),
    ALLOCATOR,
    // Linked, it is the engine's memory.
    '(memory 0)',
    VALUES,
    ...adapters(),
    hostCall(),
    DISPATCH,
    SYSTEM,
    MEMORY(firstPage),
    ...saturating(),
    ...methods.map(
      (method, index) =>
        `(func (export "${method}") (param $at i32) (param $length i32) (result i64)
          (call $dispatch (i32.const ${index}) (local.get $at) (local.get $length)))`,
    ),
  ]);
}
