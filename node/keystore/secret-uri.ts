/** The keys that secret URIs stand for, by native code. */
import { secp256k1 } from '@noble/curves/secp256k1.js';
import * as schnorrkel from '@polkadot-labs/schnorrkel-wasm';
import sodium from 'sodium-native';
import {
  badUri,
  hardDerived,
  type Junction,
  parsePath,
  parseSecretUri,
  SecretUriError,
} from '../../rpc/client/secret-uri.ts';
import { concatBytes } from '../../runtime/primitives/bytes.ts';
import { type KeyPair, KeystoreError, type Scheme } from './keys.ts';

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
      const secret = hardDerived('Ed25519HDKD', root, path);
      const publicKey = new Uint8Array(32);
      sodium.crypto_sign_seed_keypair(publicKey, new Uint8Array(64), secret);
      return { scheme, publicKey, secret };
    }
    case 'ecdsa': {
      const secret = hardDerived('Secp256k1HDKD', root, path);
      if (!secp256k1.utils.isValidSecretKey(secret)) throw badUri('its seed is no secp256k1 key');
      return { scheme, publicKey: secp256k1.getPublicKey(secret, true), secret };
    }
  }
}

function checked<T>(body: () => T): T {
  try {
    return body();
  } catch (problem) {
    if (problem instanceof SecretUriError) throw new KeystoreError('BAD_URI', problem.message);
    throw problem;
  }
}

/** Throws {@link KeystoreError} `BAD_URI`. */
export const derive = (uri: string, scheme: Scheme): KeyPair =>
  checked(() => {
    const { seed, path } = parseSecretUri(uri);
    return walk(scheme, scheme === 'sr25519' ? schnorrkel.sr25519_keypair_from_seed(seed) : seed, path);
  });

/** The pair that a path such as `//session` leads to from another. Throws {@link KeystoreError} `BAD_URI`. */
export const deriveFrom = ({ scheme, publicKey, secret }: KeyPair, path: string): KeyPair =>
  checked(() => walk(scheme, scheme === 'sr25519' ? concatBytes(secret, publicKey) : secret, parsePath(path)));
