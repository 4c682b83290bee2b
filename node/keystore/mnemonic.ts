/** Mnemonics (BIP-39, English words) and the seeds that Substrate makes of them. */
import { createHash, pbkdf2Sync } from 'node:crypto';
import known from '@polkadot/util-crypto/mnemonic/wordlists/en';

const WORD_BITS = 11n;
const ENTROPY_LENGTHS = [16, 20, 24, 28, 32];

/** The entropy that the words stand for; undefined for wrong words, a wrong number of them or a wrong checksum. */
export function entropyOf(phrase: string): Uint8Array | undefined {
  const words = phrase.normalize('NFKD').split(' ');
  const length = (words.length / 3) * 4;
  if (!ENTROPY_LENGTHS.includes(length)) return undefined;
  let bits = 0n;
  for (const word of words) {
    const index = known.indexOf(word);
    if (index < 0) return undefined;
    bits = (bits << WORD_BITS) | BigInt(index);
  }
  const checksumBits = BigInt(length / 4);
  const entropy = new Uint8Array(length);
  let rest = bits >> checksumBits;
  for (let i = length - 1; i >= 0; i--, rest >>= 8n) entropy[i] = Number(rest & 255n);
  const digest = createHash('sha256').update(entropy).digest();
  const checksum = BigInt(digest[0]!) >> (8n - checksumBits);
  return checksum === (bits & ((1n << checksumBits) - 1n)) ? entropy : undefined;
}

/** The words that stand for 16, 20, 24, 28 or 32 bytes of entropy. */
export function phraseOf(entropy: Uint8Array): string {
  const checksumBits = BigInt(entropy.length / 4);
  const digest = createHash('sha256').update(entropy).digest();
  let bits = entropy.reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  bits = (bits << checksumBits) | (BigInt(digest[0]!) >> (8n - checksumBits));
  const words: string[] = [];
  for (let left = (BigInt(entropy.length * 8) + checksumBits) / WORD_BITS; left > 0n; left--, bits >>= WORD_BITS) {
    words.unshift(known[Number(bits & ((1n << WORD_BITS) - 1n))]!);
  }
  return words.join(' ');
}

/** Substrate's way from a mnemonic to a seed: as BIP-39, but it stretches the entropy and not the words. */
export function miniSecret(phrase: string, password: string): Uint8Array | undefined {
  const entropy = entropyOf(phrase);
  if (entropy === undefined) return undefined;
  const salt = `mnemonic${password}`.normalize('NFKD');
  return new Uint8Array(pbkdf2Sync(entropy, salt, 2_048, 64, 'sha512').subarray(0, 32));
}
