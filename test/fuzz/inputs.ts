/** Inputs: encodings made from what a type says of itself, and what becomes of bytes in bad hands. */
import { Sink } from '../../runtime/primitives/scale/io.ts';
import type { TypeDef } from '../../runtime/primitives/scale/type.ts';
import type { Random } from './random.ts';

/** Finds the types that only the assembled runtime knows. */
export type Outer = (name: string) => TypeDef;

const SIZES: Readonly<Record<string, number>> = { bool: 1, char: 4, u8: 1, i8: 1, u16: 2, i16: 2, u32: 4, i32: 4 };
const WIDE: Readonly<Record<string, number>> = { u64: 8, i64: 8, u128: 16, i128: 16, u256: 32, i256: 32 };
const MAX_ITEMS = 6;
/** From this depth on lists are empty and the shortest variant is taken. */
const MAX_DEPTH = 24;

/** A value of a type, chosen at random and encoded as its metadata says. */
export function encodingOf(type: TypeDef, random: Random, outer: Outer): Uint8Array {
  const sink = new Sink();
  write(sink, type, random, outer, 0);
  return sink.finish();
}

function write(sink: Sink, type: TypeDef, random: Random, outer: Outer, depth: number): void {
  const { shape } = type;
  const part = (of: TypeDef): void => write(sink, of, random, outer, depth + 1);
  switch (shape.kind) {
    case 'outer':
      write(sink, outer(shape.name), random, outer, depth);
      return;
    case 'primitive':
      primitive(sink, shape.name, random);
      return;
    case 'composite':
      for (const { type: of } of shape.fields) part(of);
      return;
    case 'tuple':
      for (const of of shape.of) part(of);
      return;
    case 'array':
      for (let i = 0; i < shape.length; i++) part(shape.of);
      return;
    case 'sequence': {
      const length = depth > MAX_DEPTH ? 0 : random.below(MAX_ITEMS);
      sink.compact(length);
      for (let i = 0; i < length; i++) part(shape.of);
      return;
    }
    case 'compact':
      compact(sink, shape.of, random);
      return;
    case 'variant': {
      const { variants } = shape;
      const plain = variants.filter(({ fields }) => fields.length === 0);
      const chosen = random.pick(depth > MAX_DEPTH && plain.length > 0 ? plain : variants);
      sink.u8(chosen.index);
      for (const { type: of } of chosen.fields) part(of);
    }
  }
}

function primitive(sink: Sink, name: string, random: Random): void {
  if (name === 'str') {
    const text = new TextEncoder().encode(random.pick(['', 'OPEN', 'Straße', '数据', '{"text":"a"}\n']));
    sink.compact(text.length);
    sink.bytes(text);
  } else if (name === 'bool') sink.u8(random.below(2));
  else sink.bytes(integer(SIZES[name] ?? WIDE[name]!, random));
}

/** Small ones, large ones and those at the borders. */
function integer(size: number, random: Random): Uint8Array {
  const out = new Uint8Array(size);
  if (random.chance(0.1)) return out.fill(0xff);
  const used = random.below(size + 1);
  out.set(random.bytes(used));
  return out;
}

function compact(sink: Sink, of: TypeDef, random: Random): void {
  const { shape } = of;
  if (shape.kind === 'primitive') {
    const bytes = integer(SIZES[shape.name] ?? WIDE[shape.name]!, random);
    sink.compactBig(bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n));
  } else if (shape.kind === 'composite' && shape.fields[0] !== undefined) compact(sink, shape.fields[0].type, random);
  else if (shape.kind === 'tuple' && shape.of[0] !== undefined) compact(sink, shape.of[0], random);
}

/** Lengths that lie: compact integers up to 2^32 - 1, and beyond. */
const LIES = [
  [0xfe, 0xff, 0xff, 0xff],
  [0x03, 0xff, 0xff, 0xff, 0xff],
  [0x13, 0, 0, 0, 0, 0, 0, 0, 0x80],
  [0xfd, 0xff],
  [0xfc],
  [0x01, 0x00],
];

/** Some bytes changed, taken away, repeated, or put in. */
export function mutate(bytes: Uint8Array, random: Random): Uint8Array {
  let out = Uint8Array.from(bytes);
  for (let rounds = 1 + random.length(7); rounds > 0; rounds--) out = once(out, random);
  return out;
}

function once(bytes: Uint8Array<ArrayBuffer>, random: Random): Uint8Array<ArrayBuffer> {
  const at = random.below(bytes.length + 1);
  const splice = (from: number, to: number, inserted: Uint8Array): Uint8Array<ArrayBuffer> => {
    const out = new Uint8Array(from + inserted.length + bytes.length - to);
    out.set(bytes.subarray(0, from));
    out.set(inserted, from);
    out.set(bytes.subarray(to), from + inserted.length);
    return out;
  };
  switch (random.below(7)) {
    case 0:
      if (at < bytes.length) bytes[at]! ^= 1 << random.below(8);
      return bytes;
    case 1:
      if (at < bytes.length) bytes[at] = random.pick([0, 1, 3, 0x7f, 0x80, 0xff, random.below(256)]);
      return bytes;
    case 2:
      return bytes.slice(0, at);
    case 3:
      return splice(at, Math.min(bytes.length, at + random.length(16)), new Uint8Array());
    case 4:
      return splice(at, at, random.bytes(random.length(32)));
    case 5: {
      const end = Math.min(bytes.length, at + random.length(64));
      return splice(at, at, bytes.slice(at, end));
    }
    default:
      return splice(at, Math.min(bytes.length, at + random.below(3)), Uint8Array.from(random.pick(LIES)));
  }
}
