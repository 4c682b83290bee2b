/** Parameters: parsed here, trusted inside. Every parser throws {@link RpcError} −32602. */
import type { Hash } from '../../runtime/primitives/types.ts';
import { invalidParams } from './errors.ts';
import { bytesOf, hashOf } from './hex.ts';

export interface Param<T> {
  readonly name: string;
  readonly optional?: true;
  parse(value: unknown): T;
}

export type ArgsOf<P extends readonly Param<unknown>[]> = {
  readonly [K in keyof P]: P[K] extends Param<infer T> ? T : never;
};

const wrong = (name: string, expected: string) => invalidParams(`${name}: expected ${expected}`);

function param<T>(name: string, expected: string, parse: (value: unknown) => T | undefined): Param<T> {
  return {
    name,
    parse(value) {
      const parsed = parse(value);
      if (parsed === undefined) throw wrong(name, expected);
      return parsed;
    },
  };
}

export const hex = (name: string): Param<Uint8Array> =>
  param(name, 'bytes as 0x-prefixed hex', (value) => (typeof value === 'string' ? bytesOf(value) : undefined));

export const hash = (name: string): Param<Hash> =>
  param(name, 'a hash of 32 bytes as 0x-prefixed hex', (value) =>
    typeof value === 'string' ? hashOf(value) : undefined,
  );

export const text = (name: string, max = 4096): Param<string> =>
  param(name, `text of at most ${max} characters`, (value) =>
    typeof value === 'string' && value.length <= max ? value : undefined,
  );

export const flag = (name: string): Param<boolean> =>
  param(name, 'a boolean', (value) => (typeof value === 'boolean' ? value : undefined));

export const u32 = (name: string): Param<number> => param(name, 'an unsigned 32-bit integer', asU32);

const asU32 = (value: unknown): number | undefined =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 0xffffffff ? value : undefined;

/** Milliseconds since 1970, say. */
export const count = (name: string): Param<number> =>
  param(name, 'a whole number below 2^53', (value) =>
    typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined,
  );

/** A number, or the number as hex (Substrate: `NumberOrHex`). */
export const blockNumber = (name: string): Param<number> =>
  param(name, 'a block number, or one in hex', (value) => {
    if (typeof value !== 'string') return asU32(value);
    return /^0x[0-9a-fA-F]{1,16}$/.test(value) ? asU32(Number.parseInt(value, 16)) : undefined;
  });

export const list = <T>(item: Param<T>, max: number): Param<readonly T[]> => ({
  name: item.name,
  parse(value) {
    if (!Array.isArray(value)) throw wrong(item.name, 'an array');
    if (value.length > max) throw invalidParams(`${item.name}: at most ${max} items may be asked for at once`);
    return value.map((each) => item.parse(each));
  },
});

export const optional = <T>(inner: Param<T>): Param<T | undefined> => ({
  name: inner.name,
  optional: true,
  parse: (value) => (value === undefined || value === null ? undefined : inner.parse(value)),
});

/** The first that takes the value. */
export const either = <A, B>(a: Param<A>, b: Param<B>): Param<A | B> => ({
  name: a.name,
  parse(value) {
    try {
      return a.parse(value);
    } catch {
      return b.parse(value);
    }
  },
});

export const oneOf = <const T extends string>(name: string, options: readonly T[]): Param<T> =>
  param(name, `one of ${options.join(', ')}`, (value) => options.find((each) => each === value));

type Shape = Readonly<Record<string, Param<unknown>>>;
export type ObjectOf<S extends Shape> = { readonly [K in keyof S]: S[K] extends Param<infer T> ? T : never };

/** An object with these fields; others are passed over. */
export const object = <S extends Shape>(name: string, shape: S): Param<ObjectOf<S>> => ({
  name,
  parse(value) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(name, 'an object');
    const fields = value as Record<string, unknown>;
    return Object.fromEntries(
      Object.entries(shape).map(([key, each]) => [
        key,
        each.parse(Object.hasOwn(fields, key) ? fields[key] : undefined),
      ]),
    ) as ObjectOf<S>;
  },
});

/** Positional or named parameters, in the order of their definitions. */
export function parseParams(definitions: readonly Param<unknown>[], params: unknown): unknown[] {
  const out: unknown[] = [];
  if (params === undefined || params === null || Array.isArray(params)) {
    const given: readonly unknown[] = params ?? [];
    if (given.length > definitions.length) throw invalidParams(`at most ${definitions.length} parameters`);
    for (let i = 0; i < definitions.length; i++) out.push(definitions[i]!.parse(given[i]));
    return out;
  }
  const named = params as Record<string, unknown>;
  for (const each of definitions) out.push(each.parse(Object.hasOwn(named, each.name) ? named[each.name] : undefined));
  return out;
}
