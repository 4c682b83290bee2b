/**
 * SCALE codecs as values. A codec carries the TypeScript type, the encoding and what the metadata says of it,
 * so that no shape is written twice.
 */
import { fromUtf8, utf8 } from '../bytes.ts';
import { ScaleError, Sink, Source } from './io.ts';
import type { FieldDef, PrimitiveName, TypeDef, VariantDef } from './type.ts';

export interface Codec<T> {
  readonly type: TypeDef;
  /** Fewest bytes that a value takes: bounds what a hostile length prefix can make a decoder allocate. */
  readonly minSize: number;
  encodeTo(sink: Sink, value: T): void;
  /** Throws {@link ScaleError}. Byte strings come back as views of the input. */
  decodeFrom(source: Source): T;
}

export type Infer<C> = C extends Codec<infer T> ? T : never;

export function encode<T>(codec: Codec<T>, value: T): Uint8Array {
  const sink = new Sink();
  codec.encodeTo(sink, value);
  return sink.finish();
}

/** Decodes the whole of `bytes`; anything left over is an error. */
export function decode<T>(codec: Codec<T>, bytes: Uint8Array): T {
  const source = new Source(bytes);
  const value = codec.decodeFrom(source);
  if (source.remaining > 0) throw new ScaleError('TRAILING_BYTES', `${source.remaining} bytes after the value`);
  return value;
}

const primitive = (name: PrimitiveName): TypeDef => ({ shape: { kind: 'primitive', name } });

function unsigned(bits: 8 | 16 | 32): NumberCodec {
  const max = 2 ** bits - 1;
  const check = (value: number): number => {
    if (!(value >= 0 && value <= max && Number.isInteger(value))) {
      throw new ScaleError('OUT_OF_RANGE', `${value} is not a u${bits}`);
    }
    return value;
  };
  const name = `u${bits}` as const;
  return {
    type: primitive(name),
    minSize: bits / 8,
    max,
    encodeTo: (sink, value) => sink[name](check(value)),
    decodeFrom: (source) => source[name](),
  };
}

function bigUnsigned(bits: 64 | 128): BigIntCodec {
  const max = (1n << BigInt(bits)) - 1n;
  const low = (1n << 64n) - 1n;
  return {
    type: primitive(`u${bits}`),
    minSize: bits / 8,
    max,
    encodeTo(sink, value) {
      if (value < 0n || value > max) throw new ScaleError('OUT_OF_RANGE', `${value} is not a u${bits}`);
      sink.u64(value & low);
      if (bits === 128) sink.u64(value >> 64n);
    },
    decodeFrom(source) {
      const value = source.u64();
      return bits === 64 ? value : value | (source.u64() << 64n);
    },
  };
}

export interface NumberCodec<T extends number = number> extends Codec<T> {
  readonly max: T;
}
export interface BigIntCodec<T extends bigint = bigint> extends Codec<T> {
  readonly max: T;
}

export const u8 = unsigned(8);
export const u16 = unsigned(16);
export const u32 = unsigned(32);
export const u64 = bigUnsigned(64);
export const u128 = bigUnsigned(128);

export const bool: Codec<boolean> = {
  type: primitive('bool'),
  minSize: 1,
  encodeTo: (sink, value) => sink.u8(value ? 1 : 0),
  decodeFrom(source) {
    const byte = source.u8();
    if (byte > 1) throw new ScaleError('INVALID_BOOL', `byte ${byte} is not a bool`);
    return byte === 1;
  },
};

/** Signed two's complement integers: `i8`–`i32` as numbers, `i64` and `i128` as bigints. */
export const i8: Codec<number> = {
  type: primitive('i8'),
  minSize: 1,
  encodeTo: (sink, value) => u8.encodeTo(sink, signedIn(value, 0x80) & 0xff),
  decodeFrom: (source) => (source.u8() << 24) >> 24,
};
export const i32: Codec<number> = {
  type: primitive('i32'),
  minSize: 4,
  encodeTo: (sink, value) => sink.u32(signedIn(value, 0x80000000) >>> 0),
  decodeFrom: (source) => source.u32() | 0,
};
export const i64 = bigSigned(64);
export const i128 = bigSigned(128);

function signedIn(value: number, limit: number): number {
  if (!Number.isInteger(value) || value < -limit || value >= limit) {
    throw new ScaleError('OUT_OF_RANGE', `${value} is out of range`);
  }
  return value;
}

function bigSigned(bits: 64 | 128): Codec<bigint> {
  const raw = bits === 64 ? u64 : u128;
  return {
    type: primitive(`i${bits}`),
    minSize: bits / 8,
    encodeTo(sink, value) {
      if (BigInt.asIntN(bits, value) !== value) throw new ScaleError('OUT_OF_RANGE', `${value} is not an i${bits}`);
      raw.encodeTo(sink, BigInt.asUintN(bits, value));
    },
    decodeFrom: (source) => BigInt.asIntN(bits, raw.decodeFrom(source)),
  };
}

/** Compact form of an unsigned integer, or of a named type that is one. */
export function compact<T extends number>(inner: NumberCodec<T>): NumberCodec<T>;
export function compact<T extends bigint>(inner: BigIntCodec<T>): BigIntCodec<T>;
export function compact(inner: NumberCodec<any> | BigIntCodec<any>): unknown {
  const max: number | bigint = inner.max;
  const check = <N extends number | bigint>(value: N): N => {
    if (!(value >= 0 && value <= max)) throw new ScaleError('OUT_OF_RANGE', `${value} is out of range`);
    return value;
  };
  const common = { type: { shape: { kind: 'compact', of: inner.type } } as TypeDef, minSize: 1, max };
  if (typeof max === 'number') {
    return {
      ...common,
      encodeTo: (sink: Sink, value: number) => sink.compact(check(value)),
      decodeFrom: (source: Source) => source.compact(max),
    };
  }
  return {
    ...common,
    encodeTo: (sink: Sink, value: bigint) => sink.compactBig(check(value)),
    decodeFrom: (source: Source) => source.compactBig(max),
  };
}

const readLength = (source: Source, itemMinSize: number, max: number): number => {
  const length = source.compact(0xffffffff);
  if (length > max) throw new ScaleError('TOO_LONG', `${length} items where at most ${max} may stand`);
  if (length * itemMinSize > source.remaining) {
    throw new ScaleError('UNEXPECTED_END', `${length} items announced, ${source.remaining} bytes left`);
  }
  return length;
};

const u8Sequence: TypeDef = { shape: { kind: 'sequence', of: u8.type } };

/** `Vec<u8>` of at most `max` bytes. */
export function bytes(max = 0xffffffff): Codec<Uint8Array> {
  return {
    type: u8Sequence,
    minSize: 1,
    encodeTo(sink, value) {
      if (value.length > max) throw new ScaleError('TOO_LONG', `${value.length} bytes where at most ${max} may stand`);
      sink.compact(value.length);
      sink.bytes(value);
    },
    decodeFrom: (source) => source.bytes(readLength(source, 1, max)),
  };
}

/** UTF-8 text of at most `max` bytes. */
export function text(max = 0xffffffff): Codec<string> {
  const raw = bytes(max);
  return {
    type: primitive('str'),
    minSize: 1,
    encodeTo: (sink, value) => raw.encodeTo(sink, utf8(value)),
    decodeFrom(source) {
      const value = raw.decodeFrom(source);
      try {
        return fromUtf8(value);
      } catch {
        throw new ScaleError('INVALID_UTF8', 'text is not valid UTF-8');
      }
    },
  };
}

/** `[u8; length]`. */
export function fixedBytes(length: number): Codec<Uint8Array> {
  return {
    type: { shape: { kind: 'array', of: u8.type, length } },
    minSize: length,
    encodeTo(sink, value) {
      if (value.length !== length) throw new ScaleError('OUT_OF_RANGE', `${value.length} bytes instead of ${length}`);
      sink.bytes(value);
    },
    decodeFrom: (source) => source.bytes(length),
  };
}

/** Zero-size items are refused beyond this many, since no byte would pay for them. */
const MAX_ZERO_SIZE_ITEMS = 65_536;

/** `Vec<T>` of at most `max` items. */
export function vec<T>(item: Codec<T>, max = 0xffffffff): Codec<T[]> {
  return {
    get type(): TypeDef {
      return { shape: { kind: 'sequence', of: item.type } };
    },
    minSize: 1,
    encodeTo(sink, value) {
      if (value.length > max) throw new ScaleError('TOO_LONG', `${value.length} items where at most ${max} may stand`);
      sink.compact(value.length);
      for (const each of value) item.encodeTo(sink, each);
    },
    decodeFrom(source) {
      const bound = item.minSize === 0 ? Math.min(max, MAX_ZERO_SIZE_ITEMS) : max;
      const length = readLength(source, item.minSize, bound);
      source.takeItems(length);
      const out: T[] = [];
      for (let i = 0; i < length; i++) out.push(item.decodeFrom(source));
      return out;
    },
  };
}

/** `[T; length]`. */
export function array<T>(item: Codec<T>, length: number): Codec<T[]> {
  return {
    get type(): TypeDef {
      return { shape: { kind: 'array', of: item.type, length } };
    },
    minSize: item.minSize * length,
    encodeTo(sink, value) {
      if (value.length !== length) throw new ScaleError('OUT_OF_RANGE', `${value.length} items instead of ${length}`);
      for (const each of value) item.encodeTo(sink, each);
    },
    decodeFrom: (source) => Array.from({ length }, () => item.decodeFrom(source)),
  };
}

/** `Option<T>`; nothing is `undefined`, so that an option of an option, or of nothing, does not compile. */
export function option<T extends NonNullable<unknown>>(some: Codec<T>): Codec<T | undefined> {
  return {
    get type(): TypeDef {
      return {
        path: ['Option'],
        params: [{ name: 'T', type: some.type }],
        shape: {
          kind: 'variant',
          variants: [
            { name: 'None', index: 0, fields: [] },
            { name: 'Some', index: 1, fields: [{ type: some.type }] },
          ],
        },
      };
    },
    minSize: 1,
    encodeTo(sink, value) {
      if (value === undefined) {
        sink.u8(0);
        return;
      }
      sink.u8(1);
      some.encodeTo(sink, value);
    },
    decodeFrom(source) {
      const tag = source.u8();
      if (tag === 0) return undefined;
      if (tag !== 1) throw new ScaleError('INVALID_OPTION', `byte ${tag} is not an Option`);
      return some.decodeFrom(source);
    },
  };
}

export type Result<T, E> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly error: E };

/** `Result<T, E>`. */
export function result<T, E>(ok: Codec<T>, error: Codec<E>): Codec<Result<T, E>> {
  return {
    get type(): TypeDef {
      return {
        path: ['Result'],
        params: [
          { name: 'T', type: ok.type },
          { name: 'E', type: error.type },
        ],
        shape: {
          kind: 'variant',
          variants: [
            { name: 'Ok', index: 0, fields: [{ type: ok.type }] },
            { name: 'Err', index: 1, fields: [{ type: error.type }] },
          ],
        },
      };
    },
    minSize: 1,
    encodeTo(sink, value) {
      sink.u8(value.ok ? 0 : 1);
      if (value.ok) ok.encodeTo(sink, value.value);
      else error.encodeTo(sink, value.error);
    },
    decodeFrom(source) {
      const tag = source.u8();
      if (tag === 0) return { ok: true, value: ok.decodeFrom(source) };
      if (tag === 1) return { ok: false, error: error.decodeFrom(source) };
      throw new ScaleError('INVALID_VARIANT', `byte ${tag} is not a Result`);
    },
  };
}

export type Fields = Readonly<Record<string, Codec<never>>>;
type AnyFields = { readonly [name: string]: Codec<any> };
export type StructValue<F extends AnyFields> = { -readonly [K in keyof F]: Infer<F[K]> };

/** The names of a metadata field are snake_case, as Rust writes them. */
export const snakeCase = (name: string): string => name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toLowerCase();

/** Fields in the order written. camelCase here is snake_case in the metadata. */
export function struct<F extends AnyFields>(fields: F): Codec<StructValue<F>> {
  const entries = Object.entries(fields);
  return {
    get type(): TypeDef {
      return {
        shape: {
          kind: 'composite',
          fields: entries.map(([name, codec]): FieldDef => ({ name: snakeCase(name), type: codec.type })),
        },
      };
    },
    get minSize() {
      return entries.reduce((sum, [, codec]) => sum + codec.minSize, 0);
    },
    encodeTo(sink, value) {
      for (const [name, codec] of entries) codec.encodeTo(sink, value[name as keyof F]);
    },
    decodeFrom(source) {
      const out: Record<string, unknown> = {};
      for (const [name, codec] of entries) out[name] = codec.decodeFrom(source);
      return out as StructValue<F>;
    },
  };
}

type TupleValue<C extends readonly Codec<any>[]> = { -readonly [K in keyof C]: Infer<C[K]> };

export function tuple<const C extends readonly Codec<any>[]>(...items: C): Codec<TupleValue<C>> {
  return {
    get type(): TypeDef {
      return { shape: { kind: 'tuple', of: items.map((codec) => codec.type) } };
    },
    get minSize() {
      return items.reduce((sum, codec) => sum + codec.minSize, 0);
    },
    encodeTo(sink, value) {
      for (let i = 0; i < items.length; i++) items[i]!.encodeTo(sink, (value as readonly unknown[])[i]);
    },
    decodeFrom: (source) => items.map((codec) => codec.decodeFrom(source)) as TupleValue<C>,
  };
}

export const unit: Codec<undefined> = {
  type: { shape: { kind: 'tuple', of: [] } },
  minSize: 0,
  encodeTo: () => {},
  decodeFrom: () => undefined,
};

type VariantSpec = Codec<any> | null | readonly [index: number, codec: Codec<any> | null];
type VariantBody<S> = S extends readonly [number, infer B] ? B : S;
type VariantCase<Name, B> =
  B extends Codec<infer T> ? { readonly type: Name; readonly value: T } : { readonly type: Name };
export type VariantsValue<V> = { [K in keyof V]: VariantCase<K, VariantBody<V[K]>> }[keyof V];

/** The fields of a variant in the metadata: an anonymous struct or tuple is spread, anything else is one field. */
export function variantFields(codec: Codec<unknown> | null): readonly FieldDef[] {
  if (codec === null) return [];
  const { path, shape } = codec.type;
  if (path === undefined && shape.kind === 'composite') return shape.fields;
  if (path === undefined && shape.kind === 'tuple') return shape.of.map((type) => ({ type }));
  return [{ type: codec.type }];
}

/**
 * A Rust enum. Each variant is `null` (no fields) or a codec; indices follow the order written unless given as
 * `[index, codec]`. Values are `{ type: 'Name' }` or `{ type: 'Name', value }`.
 */
export function variants<const V extends { readonly [name: string]: VariantSpec }>(spec: V): Codec<VariantsValue<V>> {
  const cases = Object.entries(spec).map(([name, entry], position) => {
    const [index, codec] = Array.isArray(entry) ? (entry as [number, Codec<unknown> | null]) : [position, entry];
    return { name, index, codec: codec as Codec<unknown> | null };
  });
  const byName = new Map(cases.map((each) => [each.name, each]));
  const byIndex: (typeof cases)[number][] = [];
  for (const each of cases) byIndex[each.index] = each;
  return {
    get type(): TypeDef {
      return {
        shape: {
          kind: 'variant',
          variants: cases.map(({ name, index, codec }): VariantDef => ({ name, index, fields: variantFields(codec) })),
        },
      };
    },
    minSize: 1,
    encodeTo(sink, value) {
      const chosen = byName.get(value.type as string);
      if (chosen === undefined) throw new ScaleError('INVALID_VARIANT', `no variant ${String(value.type)}`);
      sink.u8(chosen.index);
      chosen.codec?.encodeTo(sink, (value as { value?: unknown }).value);
    },
    decodeFrom(source) {
      const index = source.u8();
      const chosen = byIndex[index];
      if (chosen === undefined) throw new ScaleError('INVALID_VARIANT', `no variant with index ${index}`);
      const value =
        chosen.codec === null ? { type: chosen.name } : { type: chosen.name, value: chosen.codec.decodeFrom(source) };
      return value as VariantsValue<V>;
    },
  };
}

/** A codec for recursive types, looked up when first used. */
export function lazy<T>(resolve: () => Codec<T>): Codec<T> {
  let found: Codec<T> | undefined;
  const inner = (): Codec<T> => {
    found ??= resolve();
    return found;
  };
  return {
    get type(): TypeDef {
      return inner().type;
    },
    minSize: 1,
    encodeTo: (sink, value) => inner().encodeTo(sink, value),
    decodeFrom: (source) => source.nested(() => inner().decodeFrom(source)),
  };
}

interface Naming {
  readonly params?: NonNullable<TypeDef['params']>;
  readonly docs?: string;
}

/**
 * Gives a type its path in the metadata. A path on something other than a composite or variant makes it a
 * newtype (`struct Name(Inner)`), as Rust would have it. Numeric codecs stay numeric, for `compact`.
 */
export function named<C extends Codec<any>>(path: string, codec: C, naming: Naming = {}): C {
  let type: TypeDef | undefined;
  const described = (): TypeDef => {
    const { shape, path: innerPath } = codec.type;
    const own = innerPath === undefined && (shape.kind === 'composite' || shape.kind === 'variant');
    return {
      path: path.split('::'),
      ...naming,
      shape: own ? shape : { kind: 'composite', fields: [{ type: codec.type }] },
    };
  };
  return Object.create(codec, {
    type: {
      get(): TypeDef {
        type ??= described();
        return type;
      },
    },
  }) as C;
}

/** Brands the values of a codec, so that a plain number or byte string where an id belongs is a compile error. */
export type Branded<T, Name extends string> = T & { readonly __brand: Name };
export function branded<Name extends string>() {
  return <T>(codec: Codec<T>): Codec<Branded<T, Name>> => codec as unknown as Codec<Branded<T, Name>>;
}

/** Converts values on the way in and out; the encoding stays that of `inner`. `from` may throw {@link ScaleError}. */
export function mapped<A, B>(inner: Codec<A>, from: (raw: A) => B, to: (value: B) => A): Codec<B> {
  return {
    get type(): TypeDef {
      return inner.type;
    },
    get minSize() {
      return inner.minSize;
    },
    encodeTo: (sink, value) => inner.encodeTo(sink, to(value)),
    decodeFrom: (source) => from(inner.decodeFrom(source)),
  };
}

/** `BTreeMap<K, V>` as an array of pairs; the caller keeps them sorted. */
export function pairs<K, V>(key: Codec<K>, value: Codec<V>): Codec<[K, V][]> {
  return vec(tuple(key, value)) as Codec<[K, V][]>;
}
