/** Mnemonics (BIP-39, English words) and the seeds that Substrate makes of them. */
import { pbkdf2 } from '@noble/hashes/pbkdf2.js';
import { sha512 } from '@noble/hashes/sha2.js';
import { entropyToMnemonic, mnemonicToEntropy } from '@scure/bip39';
import { wordlist } from '@scure/bip39/wordlists/english.js';
import { utf8 } from '../../runtime/primitives/bytes.ts';

/** The entropy that the words stand for; undefined for wrong words, a wrong number of them or a wrong checksum. */
export function entropyOf(phrase: string): Uint8Array | undefined {
  try {
    return mnemonicToEntropy(phrase, wordlist);
  } catch {
    return undefined;
  }
}

/** The words that stand for 16, 20, 24, 28 or 32 bytes of entropy. */
export const phraseOf = (entropy: Uint8Array): string => entropyToMnemonic(entropy, wordlist);

/** Substrate's way from a mnemonic to a seed: as BIP-39, but it stretches the entropy and not the words. */
export function miniSecret(phrase: string, password: string): Uint8Array | undefined {
  const entropy = entropyOf(phrase);
  if (entropy === undefined) return undefined;
  const salt = utf8(`mnemonic${password}`.normalize('NFKD'));
  return pbkdf2(sha512, entropy, salt, { c: 2_048, dkLen: 64 }).subarray(0, 32);
}
