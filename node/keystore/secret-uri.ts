/**
 * Secret URIs, `<phrase or 0x seed>//hard/soft///password`, as every Substrate tool understands them. Without a phrase
 * the well-known development phrase is meant, so that `//Alice` is Alice everywhere.
 */
import {
  ed25519PairFromSeed,
  keyExtractSuri,
  keyFromPath,
  mnemonicToMiniSecret,
  mnemonicValidate,
  secp256k1PairFromSeed,
  sr25519PairFromSeed,
} from '@polkadot/util-crypto';
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
  if (phrase.startsWith('0x')) {
    if (phrase.length !== 66) throw badUri('a seed has 64 hex digits');
    return { seed: fromHex(phrase), path };
  }
  if (!mnemonicValidate(phrase))
    throw badUri('the mnemonic has wrong words, a wrong number of them or a wrong checksum');
  return { seed: mnemonicToMiniSecret(phrase, password), path };
}

/** Throws {@link KeystoreError} `BAD_URI`. */
export function derive(uri: string, scheme: Scheme): KeyPair {
  const { seed, path } = parse(uri);
  if (scheme !== 'sr25519' && path.some(({ isSoft }) => isSoft)) {
    throw badUri(`${scheme} keys have no soft derivations (/), only hard ones (//)`);
  }
  switch (scheme) {
    case 'sr25519': {
      const { publicKey, secretKey } = keyFromPath(sr25519PairFromSeed(seed), path, 'sr25519');
      return { scheme, publicKey, secret: secretKey };
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
