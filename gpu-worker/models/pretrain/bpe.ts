/**
 * A byte-level byte-pair-encoding tokenizer learnt from text (Sennrich et al. 2016; the byte alphabet of GPT-2), written as
 * Hugging Face's tokenizer.json. Ties are broken by the pair's text, so the same corpus gives the same file.
 */

/** The pieces that merges never cross, as the `ByteLevel` pre-tokenizer cuts them. */
const PIECES = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;

/** The printable character that stands for each byte. */
export function byteAlphabet(): string[] {
  const printable = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
  let extra = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : 256 + extra++));
}

interface Word {
  symbols: string[];
  readonly count: number;
}

/** Merges, best first. */
export function learnMerges(texts: Iterable<string>, count: number): [string, string][] {
  const alphabet = byteAlphabet();
  const encoder = new TextEncoder();
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const [piece] of text.matchAll(PIECES)) counts.set(piece, (counts.get(piece) ?? 0) + 1);
  }
  const words: Word[] = [...counts].map(([piece, times]) => ({
    symbols: [...encoder.encode(piece)].map((byte) => alphabet[byte]!),
    count: times,
  }));
  const pairs = new Map<string, { count: number; readonly words: Set<Word> }>();
  const change = (word: Word, sign: 1 | -1): void => {
    for (let i = 0; i + 1 < word.symbols.length; i++) {
      const key = `${word.symbols[i]} ${word.symbols[i + 1]}`;
      let pair = pairs.get(key);
      if (pair === undefined) {
        pair = { count: 0, words: new Set() };
        pairs.set(key, pair);
      }
      pair.count += sign * word.count;
      if (sign > 0) pair.words.add(word);
    }
  };
  for (const word of words) change(word, 1);
  const merges: [string, string][] = [];
  while (merges.length < count) {
    let best = '';
    let most = 1;
    for (const [key, pair] of pairs) {
      if (pair.count > most || (pair.count === most && best !== '' && key < best)) {
        best = key;
        most = pair.count;
      }
    }
    if (best === '') break;
    const [left, right] = best.split(' ') as [string, string];
    merges.push([left, right]);
    for (const word of pairs.get(best)!.words) {
      change(word, -1);
      const merged: string[] = [];
      for (let i = 0; i < word.symbols.length; i++) {
        if (word.symbols[i] === left && word.symbols[i + 1] === right) {
          merged.push(left + right);
          i++;
        } else merged.push(word.symbols[i]!);
      }
      word.symbols = merged;
      change(word, 1);
    }
    pairs.delete(best);
  }
  return merges;
}

/** tokenizer.json: special tokens first, then the 256 bytes, then what merges make. */
export function tokenizerJson(special: readonly string[], merges: readonly [string, string][]): object {
  const vocab: Record<string, number> = {};
  for (const token of [...special, ...byteAlphabet(), ...merges.map(([left, right]) => left + right)]) {
    vocab[token] ??= Object.keys(vocab).length;
  }
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => ({
      ...{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true },
    })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      ...{ type: 'BPE', dropout: null, unk_token: null, continuing_subword_prefix: null, end_of_word_suffix: null },
      ...{ fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab, merges },
    },
  };
}
