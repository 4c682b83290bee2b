/**
 * Secret URIs, `<phrase or 0x seed>//hard/soft///password`, as every Substrate tool understands them. Without a phrase
 * the well-known development phrase is meant, so that `//Alice` is Alice everywhere.
 */
import { secp256k1 } from '@noble/curves/secp256k1.js';
import { blake2b } from '@noble/hashes/blake2.js';
import * as schnorrkel from '@polkadot-labs/schnorrkel-wasm';
import sodium from 'sodium-native';
import { concatBytes, fromHex } from '../../runtime/primitives/bytes.ts';
import { encode, text } from '../../runtime/primitives/scale/codec.ts';
import { type KeyPair, KeystoreError, type Scheme } from './keys.ts';
import { miniSecret } from './mnemonic.ts';

const DEVELOPMENT_PHRASE = 'bottom drive obey lake curtain smoke basket hold race lonely fit walk';
const MAX_LENGTH = 2_048;

/** A step from a key to another. */
interface Junction {
  readonly isSoft: boolean;
  readonly chainCode: Uint8Array;
}

interface ParsedUri {
  readonly seed: Uint8Array;
  readonly path: readonly Junction[];
}

/** Messages never repeat any part of the URI. */
const badUri = (reason: string) => new KeystoreError('BAD_URI', `the secret URI is not valid: ${reason}`);

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

function parse(uri: string): ParsedUri {
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
  const seed = miniSecret(phrase, password);
  if (seed === undefined) throw badUri('the mnemonic has wrong words, a wrong number of them or a wrong checksum');
  return { seed, path };
}

/** Ed25519 and secp256k1 know hard derivations only: the next seed is a hash of the last. */
const derived = (name: string, seed: Uint8Array, path: readonly Junction[]): Uint8Array =>
  path.reduce(
    (last, { chainCode }) => blake2b(concatBytes(encode(text(), name), last, chainCode), { dkLen: 32 }),
    seed,
  );

const junctions = (path: string): Junction[] => (path.match(/\/\/?[^/]+/g) ?? []).map(junction);

/** `root`: the pair of sr25519 (96 bytes), the seed of the other schemes. */
function walk(scheme: Scheme, root: Uint8Array, path: readonly Junction[]): KeyPair {
  if (scheme !== 'sr25519' && path.some(({ isSoft }) => isSoft)) {
    throw badUri(`${scheme} keys have no soft derivations (/), only hard ones (//)`);
  }
  switch (scheme) {
    case 'sr25519': {
      let pair = root;
      for (const { isSoft, chainCode } of path) {
        const step = isSoft ? schnorrkel.sr25519_derive_keypair_soft : schnorrkel.sr25519_derive_keypair_hard;
        pair = step(pair, chainCode);
      }
      return { scheme, publicKey: pair.slice(64), secret: pair.slice(0, 64) };
    }
    case 'ed25519': {
      const secret = derived('Ed25519HDKD', root, path);
      const publicKey = new Uint8Array(32);
      sodium.crypto_sign_seed_keypair(publicKey, new Uint8Array(64), secret);
      return { scheme, publicKey, secret };
    }
    case 'ecdsa': {
      const secret = derived('Secp256k1HDKD', root, path);
      if (!secp256k1.utils.isValidSecretKey(secret)) throw badUri('its seed is no secp256k1 key');
      return { scheme, publicKey: secp256k1.getPublicKey(secret, true), secret };
    }
  }
}

/** Throws {@link KeystoreError} `BAD_URI`. */
export function derive(uri: string, scheme: Scheme): KeyPair {
  const { seed, path } = parse(uri);
  return walk(scheme, scheme === 'sr25519' ? schnorrkel.sr25519_keypair_from_seed(seed) : seed, path);
}

/** The pair that a path such as `//session` leads to from another. Throws {@link KeystoreError} `BAD_URI`. */
export function deriveFrom({ scheme, publicKey, secret }: KeyPair, path: string): KeyPair {
  if (!/^(?:\/\/?[^/]+)+$/.test(path)) throw badUri('a path has the form //hard/soft');
  return walk(scheme, scheme === 'sr25519' ? concatBytes(secret, publicKey) : secret, junctions(path));
}
