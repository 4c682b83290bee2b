/**
 * Span matches: stretches of the output, at least 3 tokens long, that stand in training records (Infini-gram, OLMoTrace).
 * A span weighs the inverse document frequencies of its tokens; the records that it stands in share that mass by their
 * novelty. Everything here is integer arithmetic over what the receipt says; what it says about tokens can be disputed
 * with the record's tokens (committed in its feature row) and the token frequencies (committed in the training receipt).
 */
import { compact, encode, type Infer, struct, tuple, u16, u32, vec } from '../scale/codec.ts';
import type { Hash } from '../types.ts';
import { type Blake, canonical, part } from './canonical.ts';
import { novelty } from './features.ts';
import {
  LOG_ONE,
  MAX_CONTRIBUTORS,
  MAX_MATCHES,
  MAX_RECORD_TOKENS,
  MAX_SPAN_TOKENS,
  MAX_SPANS,
  MIN_SPAN_TOKENS,
} from './limits.ts';
import { leafHash, merkleRoot } from './merkle.ts';

/** Token ids of a record or an output, as the adapter's tokenizer makes them, without special tokens. */
export const tokenSequence = canonical('tokens/1', 'TokenSequence', vec(compact(u32), MAX_RECORD_TOKENS));

export const spanMatch = part(
  'SpanMatch',
  struct({
    /** Index of the record in the snapshot, and of the span's first token in it. */
    record: compact(u32),
    offset: compact(u16),
    /** Position of the record's contributor in the receipt's shares. */
    share: compact(u16),
    /** ν of the record. */
    novelty,
  }),
);
export type SpanMatch = Infer<typeof spanMatch>;

export const span = part(
  'Span',
  struct({
    /** First token of the span in the output, and its length in tokens. */
    start: compact(u16),
    length: compact(u16),
    /** Σ idf of its tokens, in units of 2^−16. */
    mass: compact(u32),
    /** The first (hence earliest contributed) records that hold it, ascending; at most {@link MAX_MATCHES}. */
    matches: vec(spanMatch, MAX_MATCHES),
  }),
);
export type Span = Infer<typeof span>;
export const spans = vec(span, MAX_SPANS);

/** In how many records each token stands; absent tokens stand in none. Published as a blob, committed by its root. */
export const frequencyFile = canonical(
  'frequency-file/1',
  'FrequencyFile',
  struct({
    /** Records in the snapshot. */
    records: u32,
    /** By token id: `frequencies[id]`. */
    frequencies: vec(compact(u32), 1 << 20),
  }),
);
export type FrequencyFile = Infer<typeof frequencyFile>;

const frequencyEntry = tuple(u32, u32);
export const frequencyLeaf = (hashing: Blake, token: number, frequency: number): Hash =>
  leafHash(hashing, 'frequencies', encode(frequencyEntry, [token, frequency]));

export const frequencyRoot = (hashing: Blake, frequencies: readonly number[]): Hash =>
  merkleRoot(
    hashing,
    'frequencies',
    frequencies.map((frequency, token) => frequencyLeaf(hashing, token, frequency)),
  );

/** `⌊log2(value) · 2^16⌋` for 1 ≤ value < 2^32, bit by bit by squaring (Turner 2010). */
export function log2Fixed(value: number): number {
  const whole = 31 - Math.clz32(value);
  let mantissa = BigInt(value) << BigInt(62 - whole);
  let result = whole;
  for (let bit = 0; bit < 16; bit++) {
    mantissa = (mantissa * mantissa) >> 62n;
    result *= 2;
    if (mantissa >> 63n) {
      result += 1;
      mantissa >>= 1n;
    }
  }
  return result;
}

/** `log2((N + 1) / (df + 1))` in units of 2^−16: a token of every record weighs nothing. */
export const inverseFrequency = (records: number, frequency: number): number =>
  Math.max(0, log2Fixed(records + 1) - log2Fixed(Math.min(frequency, records) + 1));

/** At most 64 tokens · 32 · 2^16 = 2^27. */
export function spanMass(records: number, frequencies: readonly number[]): number {
  let mass = 0;
  for (const frequency of frequencies) mass += inverseFrequency(records, frequency);
  return mass;
}

export const MAX_SPAN_MASS = MAX_SPAN_TOKENS * 32 * LOG_ONE;

export type SpanFault = 'SPAN_LENGTH' | 'SPAN_ORDER' | 'SPAN_MASS' | 'SPAN_MATCHES' | 'SPAN_SHARE';

/** What is wrong with the list by itself: bounds, order, double mentions (`undefined`: nothing). */
export function spansFault(list: readonly Span[], outputTokens: number, shares: number): SpanFault | undefined {
  let lastStart = -1;
  let lastEnd = 0;
  for (const { start, length, mass, matches } of list) {
    if (length < MIN_SPAN_TOKENS || length > MAX_SPAN_TOKENS || start + length > outputTokens) return 'SPAN_LENGTH';
    // Maximal spans may overlap, but none lies within another.
    if (start <= lastStart || start + length <= lastEnd) return 'SPAN_ORDER';
    lastStart = start;
    lastEnd = start + length;
    if (mass > MAX_SPAN_MASS) return 'SPAN_MASS';
    if (matches.length === 0) return 'SPAN_MATCHES';
    let before = -1;
    for (const match of matches) {
      if (match.record <= before || match.offset + length > MAX_RECORD_TOKENS) return 'SPAN_MATCHES';
      if (match.share >= shares || match.share >= MAX_CONTRIBUTORS) return 'SPAN_SHARE';
      before = match.record;
    }
  }
  return undefined;
}

/** `T_c` for each share: a span's mass goes to its records by novelty, rounded down each. */
export function spanMasses(list: readonly Span[], shares: number): bigint[] {
  const total: bigint[] = new Array(shares).fill(0n);
  for (const { mass, matches } of list) {
    let all = 0;
    for (const match of matches) all += match.novelty;
    if (all === 0) continue;
    // mass · ν < 2^27 · 2^16: exact in a double.
    for (const match of matches) total[match.share]! += BigInt(Math.floor((mass * match.novelty) / all));
  }
  return total;
}
