/**
 * Secret URIs, `<phrase or 0x seed>//hard/soft///password`, as every Substrate tool understands them. Without a phrase
 * the well-known development phrase is meant, so that `//Alice` is Alice everywhere.
 */
import { pbkdf2Sync } from 'node:crypto';
import {
  ed25519PairFromSeed,
  keyExtractSuri,
  keyFromPath,
  mnemonicToEntropy,
  secp256k1PairFromSeed,
} from '@polkadot/util-crypto';
import * as schnorrkel from '@polkadot-labs/schnorrkel-wasm';
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { type KeyPair, KeystoreError, type Scheme } from './keys.ts';

const DEVELOPMENT_PHRASE = 'bottom drive obey lake curtain smoke basket hold race lonely fit walk';
const MAX_LENGTH = 2_048;

interface ParsedUri {
  readonly seed: Uint8Array;
  readonly path: ReturnType<typeof keyExtractSuri>['path'];
}

/** Messages never repeat any part of the URI. */
const badUri = (reason: string) => new KeystoreError('BAD_URI', `the secret URI is not valid: ${reason}`);

function parse(uri: string): ParsedUri {
  if (uri.length > MAX_LENGTH) throw badUri('it is too long');
  const withPhrase = uri === '' || uri.startsWith('/') ? `${DEVELOPMENT_PHRASE}${uri}` : uri;
  let parts: ReturnType<typeof keyExtractSuri>;
  try {
    parts = keyExtractSuri(withPhrase);
  } catch {
    throw badUri('it should be a mnemonic or 0x-seed, then /soft and //hard derivations, then ///password');
  }
  const { phrase, path, password } = parts;
  if (!phrase.startsWith('0x')) return { seed: miniSecret(phrase, password ?? ''), path };
  if (phrase.length !== 66) throw badUri('a seed has 64 hex digits');
  return { seed: fromHex(phrase), path };
}

/** Substrate's way from a mnemonic to a seed: as BIP-39, but it stretches the entropy and not the words. */
function miniSecret(phrase: string, password: string): Uint8Array {
  let entropy: Uint8Array;
  try {
    entropy = mnemonicToEntropy(phrase);
  } catch {
    throw badUri('the mnemonic has wrong words, a wrong number of them or a wrong checksum');
  }
  const salt = `mnemonic${password}`.normalize('NFKD');
  return new Uint8Array(pbkdf2Sync(entropy, salt, 2_048, 64, 'sha512').subarray(0, 32));
}

/** Throws {@link KeystoreError} `BAD_URI`. */
export function derive(uri: string, scheme: Scheme): KeyPair {
  const { seed, path } = parse(uri);
  if (scheme !== 'sr25519' && path.some(({ isSoft }) => isSoft)) {
    throw badUri(`${scheme} keys have no soft derivations (/), only hard ones (//)`);
  }
  switch (scheme) {
    case 'sr25519': {
      let pair = schnorrkel.sr25519_keypair_from_seed(seed);
      for (const { isSoft, chainCode } of path) {
        const step = isSoft ? schnorrkel.sr25519_derive_keypair_soft : schnorrkel.sr25519_derive_keypair_hard;
        pair = step(pair, chainCode);
      }
      return { scheme, publicKey: pair.slice(64), secret: pair.slice(0, 64) };
    }
    case 'ed25519': {
      const { publicKey, secretKey } = keyFromPath(ed25519PairFromSeed(seed), path, 'ed25519');
      return { scheme, publicKey, secret: secretKey.slice(0, 32) };
    }
    case 'ecdsa': {
      const { publicKey, secretKey } = keyFromPath(secp256k1PairFromSeed(seed), path, 'ecdsa');
      return { scheme, publicKey, secret: secretKey };
    }
  }
}
