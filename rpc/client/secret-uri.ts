/**
 * Secret URIs, `<phrase or 0x seed>//hard/soft///password`, as every Substrate tool understands them. Without a phrase
 * the well-known development phrase is meant, so that `//Alice` is Alice everywhere.
 */
import { blake2b } from '@noble/hashes/blake2.js';
import { concatBytes, fromHex } from '../../runtime/primitives/bytes.ts';
import { encode, text } from '../../runtime/primitives/scale/codec.ts';
import { miniSecret } from './mnemonic.ts';

/** Its message never repeats any part of the URI. */
export class SecretUriError extends Error {
  readonly code = 'BAD_URI';
}

/** What is meant where a URI begins with its path, and the seed that it stretches to: known to everybody. */
const DEVELOPMENT_PHRASE = 'bottom drive obey lake curtain smoke basket hold race lonely fit walk';
const DEVELOPMENT_SEED = fromHex('fac7959dbfe72f052e5a0c3c8d6530f202b02fd8f9f5ca3580ec8deb7797479e');
const MAX_LENGTH = 2_048;

/** A step from a key to another. */
export interface Junction {
  readonly isSoft: boolean;
  readonly chainCode: Uint8Array;
}

export interface ParsedUri {
  readonly seed: Uint8Array;
  readonly path: readonly Junction[];
}

export const badUri = (reason: string): SecretUriError => new SecretUriError(`the secret URI is not valid: ${reason}`);

const URI = /^(?<phrase>0x[\da-fA-F]+|[\p{L}\d]+(?: [\p{L}\d]+)*)(?<path>(?:\/\/?[^/]+)*)(?:\/\/\/(?<password>.*))?$/u;
const MAX_INDEX = 2n ** 64n;

/** Numbers stand for themselves, other names for their encoding: both cut to 32 bytes (`sp_core::crypto::DeriveJunction`). */
function junction(step: string): Junction {
  const isSoft = !step.startsWith('//');
  const name = step.slice(isSoft ? 1 : 2);
  const chainCode = new Uint8Array(32);
  if (/^\d+$/.test(name) && BigInt(name) < MAX_INDEX) {
    new DataView(chainCode.buffer).setBigUint64(0, BigInt(name), true);
  } else {
    const encoded = encode(text(), name);
    chainCode.set(encoded.length > 32 ? blake2b(encoded, { dkLen: 32 }) : encoded);
  }
  return { isSoft, chainCode };
}

/** Throws {@link SecretUriError}. */
export function parseSecretUri(uri: string): ParsedUri {
  if (uri.length > MAX_LENGTH) throw badUri('it is too long');
  const withPhrase = uri === '' || uri.startsWith('/') ? `${DEVELOPMENT_PHRASE}${uri}` : uri;
  const parts = URI.exec(withPhrase.normalize('NFC'))?.groups;
  if (parts === undefined) {
    throw badUri('it should be a mnemonic or 0x-seed, then /soft and //hard derivations, then ///password');
  }
  const { phrase = '', password = '' } = parts;
  const path = junctions(parts.path ?? '');
  if (phrase.startsWith('0x')) {
    if (phrase.length !== 66) throw badUri('a seed has 64 hex digits');
    return { seed: fromHex(phrase), path };
  }
  const isDevelopment = phrase === DEVELOPMENT_PHRASE && password === '';
  const seed = isDevelopment ? DEVELOPMENT_SEED.slice() : miniSecret(phrase, password);
  if (seed === undefined) throw badUri('the mnemonic has wrong words, a wrong number of them or a wrong checksum');
  return { seed, path };
}

/** Ed25519 and secp256k1 know hard derivations only: the next seed is a hash of the last. */
export const hardDerived = (name: string, seed: Uint8Array, path: readonly Junction[]): Uint8Array =>
  path.reduce(
    (last, { chainCode }) => blake2b(concatBytes(encode(text(), name), last, chainCode), { dkLen: 32 }),
    seed,
  );

const junctions = (path: string): Junction[] => (path.match(/\/\/?[^/]+/g) ?? []).map(junction);

/** The steps of a path such as `//hard/soft`. Throws {@link SecretUriError}. */
export function parsePath(path: string): Junction[] {
  if (!/^(?:\/\/?[^/]+)+$/.test(path)) throw badUri('a path has the form //hard/soft');
  return junctions(path);
}
