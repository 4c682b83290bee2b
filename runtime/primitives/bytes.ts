/** Small helpers over `Uint8Array`, shared by every layer. */

const HEX = Array.from({ length: 256 }, (_, n) => n.toString(16).padStart(2, '0'));

export class BytesError extends Error {
  readonly code = 'INVALID_HEX';
}

export function toHex(bytes: Uint8Array): `0x${string}` {
  let out = '';
  for (let i = 0; i < bytes.length; i++) out += HEX[bytes[i]!];
  return `0x${out}`;
}

const nibble = (c: number): number => {
  if (c >= 48 && c <= 57) return c - 48;
  if (c >= 97 && c <= 102) return c - 87;
  if (c >= 65 && c <= 70) return c - 55;
  return -1;
};

/** Parses `0x…` (the prefix is optional; an odd number of digits is an error). Throws {@link BytesError}. */
export function fromHex(hex: string): Uint8Array {
  const start = hex.startsWith('0x') ? 2 : 0;
  if ((hex.length - start) % 2 !== 0) throw new BytesError('odd number of hex digits');
  const out = new Uint8Array((hex.length - start) / 2);
  for (let i = 0; i < out.length; i++) {
    const hi = nibble(hex.charCodeAt(start + 2 * i));
    const lo = nibble(hex.charCodeAt(start + 2 * i + 1));
    if (hi < 0 || lo < 0) throw new BytesError(`not a hex digit at offset ${start + 2 * i}`);
    out[i] = hi * 16 + lo;
  }
  return out;
}

/** For parts that are written out one by one; lists go to {@link joinBytes}. */
export const concatBytes = (...parts: readonly Uint8Array[]): Uint8Array => joinBytes(parts);

/** One byte string of all parts. A list of any length, which must never be spread into arguments: the stack holds some 120,000. */
export function joinBytes(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  const out = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** Lexicographic order, the order of keys in the state. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) {
    const difference = a[i]! - b[i]!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && compareBytes(a, b) === 0;
}

export function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  if (bytes.length < prefix.length) return false;
  for (let i = 0; i < prefix.length; i++) if (bytes[i] !== prefix[i]) return false;
  return true;
}

const utf8Encoder = new TextEncoder();
const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export const utf8 = (text: string): Uint8Array => utf8Encoder.encode(text);
/** Throws a `TypeError` on malformed UTF-8. */
export const fromUtf8 = (bytes: Uint8Array): string => utf8Decoder.decode(bytes);
