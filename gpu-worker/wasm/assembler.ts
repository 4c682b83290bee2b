/**
 * Just enough of an assembler for WebAssembly with SIMD to write numeric kernels as nested expressions. Code is a list of
 * bytes; an expression leaves one value on the stack, a statement none. (WebAssembly core specification 2.0, 5.4.)
 *
 * WebAssembly's arithmetic is IEEE 754 without fused multiply-add, so a kernel gives the same bits on every machine.
 */

export type Code = readonly number[];
export type ValueType = 'i32' | 'f32' | 'v128';
export type Local = { readonly index: number; readonly type: ValueType };

const TYPES = { i32: 0x7f, f32: 0x7d, v128: 0x7b } as const;

function unsigned(value: number): number[] {
  const out: number[] = [];
  do {
    const rest = value >>> 7;
    out.push((value & 0x7f) | (rest === 0 ? 0 : 0x80));
    value = rest;
  } while (value !== 0);
  return out;
}

function signed(value: number): number[] {
  const out: number[] = [];
  for (;;) {
    const low = value & 0x7f;
    value >>= 7;
    if ((value === 0 && (low & 0x40) === 0) || (value === -1 && (low & 0x40) !== 0)) return [...out, low];
    out.push(low | 0x80);
  }
}

const floatBytes = (value: number): number[] => [...new Uint8Array(Float32Array.of(value).buffer)];

// ---- values ----------------------------------------------------------------------------------------------------------

export const get = (local: Local): Code => [0x20, ...unsigned(local.index)];
export const int = (value: number): Code => [0x41, ...signed(value)];
export const float = (value: number): Code => [0x43, ...floatBytes(value)];
/** The same float in all four lanes. */
export const quad = (value: number): Code => {
  const bytes = floatBytes(value);
  return [0xfd, 12, ...bytes, ...bytes, ...bytes, ...bytes];
};
export const quadInt = (value: number): Code => {
  const bytes = [...new Uint8Array(Int32Array.of(value).buffer)];
  return [0xfd, 12, ...bytes, ...bytes, ...bytes, ...bytes];
};

const binary =
  (...opcode: number[]) =>
  (left: Code, right: Code): Code => [...left, ...right, ...opcode];
const unary =
  (...opcode: number[]) =>
  (value: Code): Code => [...value, ...opcode];
const simd = (opcode: number): number[] => [0xfd, ...unsigned(opcode)];

export const i32 = {
  add: binary(0x6a),
  sub: binary(0x6b),
  mul: binary(0x6c),
  and: binary(0x71),
  shl: binary(0x74),
  ltU: binary(0x49),
  geU: binary(0x4f),
  eqz: unary(0x45),
  load: (address: Code, offset = 0): Code => [...address, 0x28, 2, ...unsigned(offset)],
};
export const f32 = {
  add: binary(0x92),
  sub: binary(0x93),
  mul: binary(0x94),
  div: binary(0x95),
  max: binary(0x97),
  sqrt: unary(0x91),
  fromU: unary(0xb3),
  load: (address: Code, offset = 0): Code => [...address, 0x2a, 2, ...unsigned(offset)],
};
export const f32x4 = {
  add: binary(...simd(0xe4)),
  sub: binary(...simd(0xe5)),
  mul: binary(...simd(0xe6)),
  div: binary(...simd(0xe7)),
  min: binary(...simd(0xe8)),
  max: binary(...simd(0xe9)),
  lt: binary(...simd(0x43)),
  nearest: unary(...simd(0x6a)),
  splat: unary(...simd(0x13)),
  lane: (value: Code, lane: number): Code => [...value, ...simd(0x1f), lane],
};
export const i32x4 = {
  add: binary(...simd(0xae)),
  shl: binary(...simd(0xab)),
  fromFloat: unary(...simd(0xf8)),
};
export const v128 = {
  load: (address: Code, offset = 0): Code => [...address, ...simd(0), 2, ...unsigned(offset)],
  loadSplat: (address: Code, offset = 0): Code => [...address, ...simd(9), 2, ...unsigned(offset)],
  /** `yes` where the mask is set, else `no`. */
  select: (yes: Code, no: Code, mask: Code): Code => [...yes, ...no, ...mask, ...simd(0x52)],
  andNot: binary(...simd(0x4f)),
};

// ---- statements ------------------------------------------------------------------------------------------------------

export const set = (local: Local, value: Code): Code => [...value, 0x21, ...unsigned(local.index)];
export const store = (address: Code, value: Code, offset = 0): Code => [
  ...address,
  ...value,
  ...simd(11),
  2,
  ...unsigned(offset),
];
export const storeFloat = (address: Code, value: Code, offset = 0): Code => [
  ...address,
  ...value,
  0x38,
  2,
  ...unsigned(offset),
];
export const seq = (...parts: readonly Code[]): Code => parts.flat();
export const increase = (local: Local, by: Code): Code => set(local, i32.add(get(local), by));
export const when = (condition: Code, ...then: readonly Code[]): Code => [
  ...condition,
  0x04,
  0x40,
  ...then.flat(),
  0x0b,
];
export const otherwise = (condition: Code, then: Code, otherwise: Code): Code => [
  ...condition,
  ...[0x04, 0x40],
  ...then,
  0x05,
  ...otherwise,
  0x0b,
];
/** Runs the body, and again as long as the condition holds after it. */
export const repeat = (body: Code, whileTrue: Code): Code => [0x03, 0x40, ...body, ...whileTrue, 0x0d, 0, 0x0b];
/** The condition is looked at before each round. */
export const loop = (condition: Code, ...body: readonly Code[]): Code => [
  ...[0x02, 0x40, 0x03, 0x40],
  ...i32.eqz(condition),
  ...[0x0d, 1],
  ...body.flat(),
  ...[0x0c, 0, 0x0b, 0x0b],
];
/** `at` from `from` below `to` (both are evaluated: `to` each round) in steps of `by`; unsigned. */
export const each = (at: Local, from: Code, to: Code, by: Code, ...body: readonly Code[]): Code =>
  seq(set(at, from), loop(i32.ltU(get(at), to), ...body, increase(at, by)));

// ---- functions and modules -------------------------------------------------------------------------------------------

export interface Frame {
  local(type: ValueType): Local;
}

export interface Kernel {
  readonly parameters: readonly ValueType[];
  readonly bytes: Code;
}

/** A function without result. `body` gets its parameters as locals, and may ask for more. */
export function kernel(parameters: readonly ValueType[], body: (parameters: Local[], frame: Frame) => Code): Kernel {
  const locals: ValueType[] = [];
  const frame: Frame = {
    local(type) {
      locals.push(type);
      return { index: parameters.length + locals.length - 1, type };
    },
  };
  const code = body(
    parameters.map((type, index) => ({ index, type })),
    frame,
  );
  const declared = locals.flatMap((type) => [1, TYPES[type]]);
  return { parameters, bytes: [...unsigned(locals.length), ...declared, ...code, 0x0b] };
}

const sized = (body: Code): Code => [...unsigned(body.length), ...body];
const section = (id: number, parts: readonly Code[]): Code => [
  id,
  ...sized([...unsigned(parts.length), ...parts.flat()]),
];
const name = (text: string): Code => sized([...new TextEncoder().encode(text)]);

/** A module that imports `env.memory` and exports each kernel under its name. */
export function assemble(kernels: Readonly<Record<string, Kernel>>): Uint8Array<ArrayBuffer> {
  const all = Object.entries(kernels);
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(
      1,
      all.map(([, { parameters }]) => [0x60, ...sized(parameters.map((type) => TYPES[type])), 0]),
    ),
    ...section(2, [[...name('env'), ...name('memory'), 2, 0, 1]]),
    ...section(
      3,
      all.map((_, index) => unsigned(index)),
    ),
    ...section(
      7,
      all.map(([exported], index) => [...name(exported), 0, ...unsigned(index)]),
    ),
    ...section(
      10,
      all.map(([, { bytes }]) => sized(bytes)),
    ),
  ]);
}
