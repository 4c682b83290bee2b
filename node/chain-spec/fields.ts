/** Keys, accounts and lists in the JSON of chain specs. */
import { blake2b } from '@noble/hashes/blake2.js';
import { decodeSs58 } from '../../runtime/primitives/ss58.ts';
import { type AccountId, asAccountId } from '../../runtime/primitives/types.ts';
import { badField } from './errors.ts';
import { asArray, asString, type Json } from './json.ts';

/** A 32-byte key as an address, which is how chain specs write them. */
export function asKey(value: Json | undefined, path: string): Uint8Array {
  const text = asString(value, path);
  try {
    const { key } = decodeSs58(blake2b, text);
    if (key.length === 32) return key;
  } catch {
    // Told below.
  }
  throw badField(path, 'the SS58 address of a 32-byte key');
}

export const asAccount = (value: Json | undefined, path: string): AccountId => asAccountId(asKey(value, path));

export function list<T>(value: Json | undefined, path: string, item: (value: Json, path: string) => T): T[] {
  return value === undefined ? [] : asArray(value, path).map((each, i) => item(each, `${path}[${i}]`));
}

export function unique<T>(items: readonly T[], path: string, keyOf: (item: T) => Uint8Array): readonly T[] {
  const seen = new Set(items.map((item) => Buffer.from(keyOf(item)).toString('hex')));
  if (seen.size !== items.length) throw badField(path, 'without repetitions');
  return items;
}
