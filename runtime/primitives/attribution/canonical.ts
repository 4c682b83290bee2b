/**
 * Everything that is signed or committed to has one SCALE encoding and one domain. Its hash is
 * `blake2b-256(domain ++ SCALE(value))`; a signature is over those 32 bytes.
 */
import type { Hashing } from '../../host.ts';
import { concatBytes, utf8 } from '../bytes.ts';
import { type Codec, encode, named, type StructValue, struct } from '../scale/codec.ts';
import { ScaleError, type Sink, type Source } from '../scale/io.ts';
import { asHash, type Hash, multiSignature } from '../types.ts';

export type Blake = Pick<Hashing, 'blake2_256'>;

/** Bytes of every domain: fixed, so that no domain is a prefix of another one with data behind it. */
export const DOMAIN_BYTES = 32;

export function domainTag(name: string): Uint8Array {
  const out = new Uint8Array(DOMAIN_BYTES);
  const text = utf8(`openledger/${name}`);
  if (text.length > DOMAIN_BYTES) throw new ScaleError('TOO_LONG', `domain ${name} is too long`);
  out.set(text);
  return out;
}

/** A codec whose values have a hash of their own. */
export interface Canonical<T> extends Codec<T> {
  readonly domain: Uint8Array;
}

/** `name` goes into the domain (with a version), `path` into the metadata. */
export function canonical<T>(name: string, path: string, codec: Codec<T>): Canonical<T> {
  const described = named(`openledger_primitives::attribution::${path}`, codec);
  return Object.create(described, { domain: { value: domainTag(name), enumerable: true } }) as Canonical<T>;
}

/** The bytes that {@link hashOf} hashes, for signers that hash themselves. */
export const preimageOf = <T>(codec: Canonical<T>, value: T): Uint8Array =>
  concatBytes(codec.domain, encode(codec, value));

/** The hash that identifies a value and that its signature is over. */
export const hashOf = <T>(hashing: Blake, codec: Canonical<T>, value: T): Hash =>
  asHash(hashing.blake2_256(preimageOf(codec, value)));

export type Signed<T> = StructValue<{ readonly payload: Codec<T>; readonly signature: typeof multiSignature }>;

/** A value beside the signature over its hash; who must have signed follows from the value or the chain state. */
export const signed = <T>(payload: Codec<T>): Codec<Signed<T>> => struct({ payload, signature: multiSignature });

/**
 * int8 vector of at most `max` entries as `Vec<i8>`. −128 is refused: quantisation is symmetric, and without it a
 * dot product over k = 1,024 stays below 2^24.
 */
export function int8s(max: number): Codec<Int8Array> {
  return {
    type: { shape: { kind: 'sequence', of: { shape: { kind: 'primitive', name: 'i8' } } } },
    minSize: 1,
    encodeTo(sink: Sink, value: Int8Array) {
      if (value.length > max)
        throw new ScaleError('TOO_LONG', `${value.length} entries where at most ${max} may stand`);
      checkSymmetric(value);
      sink.compact(value.length);
      sink.bytes(new Uint8Array(value.buffer, value.byteOffset, value.length));
    },
    decodeFrom(source: Source) {
      const length = source.compact(0xffffffff);
      if (length > max) throw new ScaleError('TOO_LONG', `${length} entries where at most ${max} may stand`);
      const raw = source.bytes(length);
      const value = new Int8Array(raw.buffer, raw.byteOffset, length);
      checkSymmetric(value);
      return value;
    },
  };
}

function checkSymmetric(value: Int8Array): void {
  if (value.includes(-128)) throw new ScaleError('OUT_OF_RANGE', 'feature entries lie within −127 … 127');
}

/** Names a struct for the metadata without giving it a hash of its own. */
export const part = <T>(path: string, codec: Codec<T>): Codec<T> =>
  named(`openledger_primitives::attribution::${path}`, codec);
