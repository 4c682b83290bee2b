/** Addresses of accounts as people read them (SS58: base58 of a network's prefix, the key, and a checksum). */
import { compareBytes, concatBytes, utf8 } from './bytes.ts';

export class Ss58Error extends Error {
  readonly code = 'BAD_ADDRESS';
}

/** BLAKE2b-512, which the checksum is cut from. */
export type Hash512 = (data: Uint8Array) => Uint8Array;

export interface Ss58Address {
  readonly prefix: number;
  readonly key: Uint8Array;
}

const ALPHABET = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
const CHECKSUM_LENGTH = 2;
const KEY_LENGTHS = [32, 33];
/** Prefix, key and checksum of the longest address take fewer characters than this. */
const MAX_CHARACTERS = 64;
const MAX_PREFIX = 16_383;

function fromBase58(text: string): Uint8Array {
  if (text.length > MAX_CHARACTERS) throw new Ss58Error('too long for an address');
  let number = 0n;
  for (const character of text) {
    const digit = ALPHABET.indexOf(character);
    if (digit < 0) throw new Ss58Error('not base58');
    number = number * 58n + BigInt(digit);
  }
  const out: number[] = [];
  for (; number > 0n; number >>= 8n) out.push(Number(number & 255n));
  for (let i = 0; i < text.length && text[i] === ALPHABET[0]; i++) out.push(0);
  return Uint8Array.from(out.reverse());
}

function toBase58(bytes: Uint8Array): string {
  let number = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  let out = '';
  for (; number > 0n; number /= 58n) out = ALPHABET[Number(number % 58n)] + out;
  for (let i = 0; i < bytes.length && bytes[i] === 0; i++) out = ALPHABET[0] + out;
  return out;
}

const checksum = (hash: Hash512, data: Uint8Array): Uint8Array =>
  hash(concatBytes(utf8('SS58PRE'), data)).subarray(0, CHECKSUM_LENGTH);

/** The key (32 or 33 bytes) that an address of any network names. Throws {@link Ss58Error}. */
export function decodeSs58(hash: Hash512, text: string): Ss58Address {
  const bytes = fromBase58(text);
  const [first = 255, second = 0] = bytes;
  const prefixLength = first < 64 ? 1 : 2;
  if (first >= 128) throw new Ss58Error('a prefix that is reserved');
  const end = bytes.length - CHECKSUM_LENGTH;
  if (!KEY_LENGTHS.includes(end - prefixLength)) throw new Ss58Error('not the length of an address');
  if (compareBytes(checksum(hash, bytes.subarray(0, end)), bytes.subarray(end)) !== 0) {
    throw new Ss58Error('the checksum does not match');
  }
  const prefix =
    prefixLength === 1 ? first : ((first & 0b0011_1111) << 2) | (second >> 6) | ((second & 0b0011_1111) << 8);
  return { prefix, key: bytes.slice(prefixLength, end) };
}

/** `prefix`: 0 to 16383. */
export function encodeSs58(hash: Hash512, { prefix, key }: Ss58Address): string {
  if (!Number.isInteger(prefix) || prefix < 0 || prefix > MAX_PREFIX) throw new Ss58Error('no such prefix');
  const head =
    prefix < 64
      ? Uint8Array.of(prefix)
      : Uint8Array.of(((prefix & 0b1111_1100) >> 2) | 0b0100_0000, (prefix >> 8) | ((prefix & 0b11) << 6));
  const data = concatBytes(head, key);
  return toBase58(concatBytes(data, checksum(hash, data)));
}
