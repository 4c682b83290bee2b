/** Key pairs: what schemes there are, which one a purpose uses, and how each signs. */
import { secp256k1 } from '@noble/curves/secp256k1.js';
import { sr25519_sign } from '@polkadot-labs/schnorrkel-wasm';
import sodium from 'sodium-native';
import type { Hashing } from '../../runtime/host.ts';
import { concatBytes } from '../../runtime/primitives/bytes.ts';

export type Scheme = 'sr25519' | 'ed25519' | 'ecdsa';

/**
 * `secret`: for sr25519 the 64 bytes of key and nonce, for ed25519 the 32-byte seed, for ecdsa the 32-byte scalar.
 * Public keys have 32 bytes, for ecdsa 33 (compressed).
 */
export interface KeyPair {
  readonly scheme: Scheme;
  readonly publicKey: Uint8Array;
  readonly secret: Uint8Array;
}

export class KeystoreError extends Error {
  readonly code:
    | 'BAD_URI'
    | 'BAD_KEY_TYPE'
    /** The secret does not belong to the public key. */
    | 'MISMATCH'
    | 'WRONG_PASSWORD'
    /** A file is not as it was written. */
    | 'TAMPERED'
    /** The directory or a file in it cannot be read or written. */
    | 'IO'
    | 'CLOSED';
  constructor(code: KeystoreError['code'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Purposes by their four letters, as `sp_core::crypto::key_types` has them. */
const SCHEMES: Readonly<Record<string, Scheme>> = {
  acco: 'sr25519',
  asgn: 'sr25519',
  audi: 'sr25519',
  aura: 'sr25519',
  babe: 'sr25519',
  beef: 'ecdsa',
  gran: 'ed25519',
  imon: 'sr25519',
  para: 'sr25519',
};

export const ALL_SCHEMES: readonly Scheme[] = ['sr25519', 'ed25519', 'ecdsa'];

/** Throws {@link KeystoreError} unless a key type is four printable ASCII characters without a slash. */
export function checkKeyType(keyType: string): void {
  if (!/^[!-.0-~]{4}$/.test(keyType)) {
    throw new KeystoreError('BAD_KEY_TYPE', 'a key type is four ASCII characters, such as "aura" or "gran"');
  }
}

/** The only scheme that a purpose uses; undefined for purposes that are not known here. */
export const schemeOf = (keyType: string): Scheme | undefined => SCHEMES[keyType];

/** ecdsa signs the blake2b-256 of the message and answers 65 bytes with the recovery id last; the others 64 bytes. */
export function signWith(pair: KeyPair, message: Uint8Array, hashing: Pick<Hashing, 'blake2_256'>): Uint8Array {
  switch (pair.scheme) {
    case 'sr25519':
      return sr25519_sign(pair.publicKey, pair.secret, message);
    case 'ed25519': {
      const publicKey = new Uint8Array(32);
      const secretKey = new Uint8Array(64);
      sodium.crypto_sign_seed_keypair(publicKey, secretKey, pair.secret);
      const signature = new Uint8Array(64);
      sodium.crypto_sign_detached(signature, message, secretKey);
      secretKey.fill(0);
      return signature;
    }
    case 'ecdsa': {
      const made = secp256k1.sign(hashing.blake2_256(message), pair.secret, { prehash: false, format: 'recovered' });
      return concatBytes(made.subarray(1), made.subarray(0, 1));
    }
  }
}
