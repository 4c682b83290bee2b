/** Hex at native speed: the strings of this interface are long and many. */
import { Sink, Source } from '../../runtime/primitives/scale/io.ts';
import type { Hash } from '../../runtime/primitives/types.ts';

export const hexOf = (bytes: Uint8Array): `0x${string}` =>
  `0x${Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex')}`;

/** Undefined for anything but an even number of hex digits after `0x`; a bare empty string is no bytes. */
export function bytesOf(text: string): Uint8Array | undefined {
  if (text.length === 0) return new Uint8Array(0);
  if (text.length % 2 !== 0 || text.charCodeAt(0) !== 48 || text.charCodeAt(1) !== 120) return undefined;
  const bytes = Buffer.from(text.slice(2), 'hex');
  // Node stops at the first thing that is no digit.
  return bytes.length * 2 === text.length - 2 ? bytes : undefined;
}

export const hashOf = (text: string): Hash | undefined => {
  if (text.length !== 66) return undefined;
  return bytesOf(text) as Hash | undefined;
};

/** A string that maps can use for a key. */
export const keyOf = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');

/** An extrinsic as the wire has it, with the prefix of its length. */
export function withLength(extrinsic: Uint8Array): Uint8Array {
  const sink = new Sink(extrinsic.length + 5);
  sink.compact(extrinsic.length);
  sink.bytes(extrinsic);
  return sink.finish();
}

/** The reverse of {@link withLength}. Throws `ScaleError`. */
export function withoutLength(wire: Uint8Array): Uint8Array | undefined {
  const source = new Source(wire);
  const length = source.compact(0xffffffff);
  return length === source.remaining ? source.bytes(length) : undefined;
}
