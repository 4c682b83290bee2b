/**
 * Near-duplicates. Texts are cut into words in a way that needs no Unicode tables (two engines of different age must
 * agree): on the UTF-8 bytes, ASCII letters are lower-cased, letters, digits and all bytes from 0x80 on are of a word,
 * everything else separates. A shingle is 5 words in a row; a shorter text is one shingle.
 */
import { NOVELTY_ONE } from './limits.ts';

export const SHINGLE_WORDS = 5;

/** Words as strings of bytes (one UTF-16 unit a byte), joined by spaces into shingles. */
export function shingles(text: Uint8Array): Set<string> {
  const words: string[] = [];
  let word = '';
  for (let i = 0; i <= text.length; i++) {
    const byte = text[i] ?? 32;
    const upper = byte >= 65 && byte <= 90;
    if (upper || (byte >= 97 && byte <= 122) || (byte >= 48 && byte <= 57) || byte >= 128) {
      word += String.fromCharCode(upper ? byte + 32 : byte);
    } else if (word !== '') {
      words.push(word);
      word = '';
    }
  }
  const out = new Set<string>();
  for (let i = 0; i + SHINGLE_WORDS <= words.length; i++) out.add(words.slice(i, i + SHINGLE_WORDS).join(' '));
  if (out.size === 0) out.add(words.join(' '));
  return out;
}

/** `⌊|A∩B| / |A∪B| · 2^16⌋`. */
export function jaccard(a: ReadonlySet<string>, b: ReadonlySet<string>): number {
  const [small, large] = a.size <= b.size ? [a, b] : [b, a];
  let both = 0;
  for (const each of small) if (large.has(each)) both++;
  return Math.floor((both * NOVELTY_ONE) / (a.size + b.size - both));
}
