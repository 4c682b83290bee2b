/** Reading JSON field by field, with the path of whatever is wrong. */
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { badField, ChainSpecError } from './errors.ts';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };
export type JsonObject = { readonly [key: string]: Json };

export function asObject(value: Json | undefined, path: string): JsonObject {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw badField(path, 'an object');
  return value as JsonObject;
}

export function asArray(value: Json | undefined, path: string): readonly Json[] {
  if (!Array.isArray(value)) throw badField(path, 'a list');
  return value;
}

export function asString(value: Json | undefined, path: string): string {
  if (typeof value !== 'string') throw badField(path, 'a string');
  return value;
}

export function asInteger(value: Json | undefined, path: string, min: number, max: number): number {
  if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
    throw badField(path, `a whole number from ${min} to ${max}`);
  }
  return value as number;
}

/** Amounts are decimal strings, since JSON numbers lose digits beyond 2^53; smaller ones may be numbers. */
export function asAmount(value: Json | undefined, path: string): bigint {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value === 'string' && /^\d{1,39}$/.test(value)) {
    const amount = BigInt(value);
    if (amount < 2n ** 128n) return amount;
  }
  throw badField(path, 'an amount below 2^128, as a decimal string');
}

export function asHex(value: Json | undefined, path: string): Uint8Array {
  if (typeof value === 'string' && /^0x([0-9a-fA-F]{2})*$/.test(value)) return fromHex(value);
  throw badField(path, 'hex digits after 0x');
}

export function noOthers(value: JsonObject, known: readonly string[], path: string): void {
  const unknown = Object.keys(value).find((key) => !known.includes(key));
  if (unknown !== undefined) throw new ChainSpecError('UNKNOWN_FIELD', `${path}.${unknown} is not known`);
}
