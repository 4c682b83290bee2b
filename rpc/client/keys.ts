/** Keys in JavaScript alone, where there is no native code: in browsers. Secrets lie in memory as long as the key does. */
import { ed25519 } from '@noble/curves/ed25519.js';
import { secp256k1 } from '@noble/curves/secp256k1.js';
import { HDKD, secretFromSeed, getPublicKey as sr25519PublicKey, sign as sr25519Sign } from '@scure/sr25519';
import { concatBytes } from '../../runtime/primitives/bytes.ts';
import type { AccountId } from '../../runtime/primitives/types.ts';
import { addressOf } from './address.ts';
import { hashing } from './hashing.ts';
import { badUri, hardDerived, type Junction, parsePath, parseSecretUri } from './secret-uri.ts';
import { accountOfKey, type LocalSigner, type Scheme } from './signer.ts';

function walk(scheme: Scheme, root: Uint8Array, path: readonly Junction[]): Uint8Array {
  if (scheme === 'sr25519') {
    return path.reduce(
      (secret, { isSoft, chainCode }) =>
        isSoft ? HDKD.secretSoft(secret, chainCode) : HDKD.secretHard(secret, chainCode),
      root,
    );
  }
  if (path.some(({ isSoft }) => isSoft)) {
    throw badUri(`${scheme} keys have no soft derivations (/), only hard ones (//)`);
  }
  const secret = hardDerived(scheme === 'ed25519' ? 'Ed25519HDKD' : 'Secp256k1HDKD', root, path);
  if (scheme === 'ecdsa' && !secp256k1.utils.isValidSecretKey(secret)) throw badUri('its seed is no secp256k1 key');
  return secret;
}

function publicKeyOf(scheme: Scheme, secret: Uint8Array): Uint8Array {
  switch (scheme) {
    case 'sr25519':
      return sr25519PublicKey(secret);
    case 'ed25519':
      return ed25519.getPublicKey(secret);
    case 'ecdsa':
      return secp256k1.getPublicKey(secret, true);
  }
}

export class LocalKey implements LocalSigner {
  readonly scheme: Scheme;
  readonly publicKey: Uint8Array;
  readonly account: AccountId;
  readonly #secret: Uint8Array;

  private constructor(scheme: Scheme, secret: Uint8Array) {
    this.scheme = scheme;
    this.publicKey = publicKeyOf(scheme, secret);
    this.account = accountOfKey(hashing, scheme, this.publicKey);
    this.#secret = secret;
  }

  /** `uri`: a mnemonic, a 0x-seed, `//Alice` …, with a path. Throws a SecretUriError `BAD_URI`. */
  static fromUri(uri: string, scheme: Scheme = 'sr25519'): LocalKey {
    const { seed, path } = parseSecretUri(uri);
    return new LocalKey(scheme, walk(scheme, scheme === 'sr25519' ? secretFromSeed(seed) : seed, path));
  }

  get address(): string {
    return addressOf(this.account);
  }

  /** 64 bytes; for ecdsa 65 over the blake2b-256 of the message, with the recovery id last. */
  sign(message: Uint8Array): Uint8Array {
    switch (this.scheme) {
      case 'sr25519':
        return sr25519Sign(this.#secret, message);
      case 'ed25519':
        return ed25519.sign(message, this.#secret);
      case 'ecdsa': {
        const digest = hashing.blake2_256(message);
        const made = secp256k1.sign(digest, this.#secret, { prehash: false, format: 'recovered' });
        return concatBytes(made.subarray(1), made.subarray(0, 1));
      }
    }
  }

  /** Throws a SecretUriError `BAD_URI`. */
  derive(path: string): LocalKey {
    return new LocalKey(this.scheme, walk(this.scheme, this.#secret, parsePath(path)));
  }
}
