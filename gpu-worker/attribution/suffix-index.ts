/**
 * Finding the output's words in the training records (Infini-gram, OLMoTrace): a suffix array over all records' tokens,
 * sorted by the first 64 tokens of each suffix (spans are no longer than that), by prefix doubling with counting sorts.
 */
import {
  MAX_MATCHES,
  MAX_RECORD_TOKENS,
  MAX_SPAN_TOKENS,
  MAX_SPANS,
  MIN_SPAN_TOKENS,
} from '../../runtime/primitives/attribution/limits.ts';
import { inverseFrequency } from '../../runtime/primitives/attribution/spans.ts';
import type { FoundSpan } from '../../runtime/primitives/attribution/verify.ts';

export interface SuffixIndex {
  /** Records that each token stands in, by token id. */
  readonly frequencies: Uint32Array;
  readonly records: number;
  /** The receipt's spans of an output: the heaviest ones, by position. */
  spans(output: readonly number[]): FoundSpan[];
  /** All maximal spans, with every record that holds them: what {@link spans} selects from. */
  maximalSpans(output: readonly number[]): MaximalSpan[];
}

export interface MaximalSpan {
  readonly start: number;
  readonly length: number;
  readonly mass: number;
  /** In ascending order of record; offset of the first occurrence. */
  readonly matches: readonly { readonly record: number; readonly offset: number }[];
}

export class TokenError extends Error {
  readonly code = 'BAD_TOKEN';
}

/** `vocabulary`: token ids lie below it. Records are cut after {@link MAX_RECORD_TOKENS} tokens. */
export function suffixIndex(records: readonly ArrayLike<number>[], vocabulary: number): SuffixIndex {
  const starts = new Int32Array(records.length + 1);
  for (const [i, tokens] of records.entries()) {
    // One place after each record holds the end mark, which no output token equals.
    starts[i + 1] = starts[i]! + Math.min(tokens.length, MAX_RECORD_TOKENS) + 1;
  }
  const total = starts[records.length]!;
  const text = new Int32Array(total);
  const recordAt = new Int32Array(total);
  const frequencies = new Uint32Array(vocabulary);
  const lastSeen = new Int32Array(vocabulary).fill(-1);
  for (const [i, tokens] of records.entries()) {
    const start = starts[i]!;
    const length = starts[i + 1]! - start - 1;
    recordAt.fill(i, start, start + length + 1);
    for (let t = 0; t < length; t++) {
      const token = tokens[t]!;
      if (!(Number.isInteger(token) && token >= 0 && token < vocabulary)) {
        throw new TokenError(`record ${i}: token ${token} at ${t}`);
      }
      text[start + t] = token + 1;
      if (lastSeen[token] !== i) {
        lastSeen[token] = i;
        frequencies[token]!++;
      }
    }
  }
  const order = suffixArray(text, vocabulary + 1);
  const masses = new Map<number, number>();
  const massOf = (token: number): number => {
    let mass = masses.get(token);
    if (mass === undefined) {
      mass = inverseFrequency(records.length, frequencies[token]!);
      masses.set(token, mass);
    }
    return mass;
  };

  /** First place in `order[from … to)` whose suffix has at least `symbol` at `depth`. */
  const lowerBound = (from: number, to: number, depth: number, symbol: number): number => {
    while (from < to) {
      const middle = (from + to) >>> 1;
      if ((text[order[middle]! + depth] ?? -1) < symbol) from = middle + 1;
      else to = middle;
    }
    return from;
  };

  const longestAt = (output: readonly number[], position: number) => {
    let from = 0;
    let to = total;
    let length = 0;
    while (length < MAX_SPAN_TOKENS && position + length < output.length) {
      const symbol = output[position + length]! + 1;
      if (!(symbol > 0)) break;
      const low = lowerBound(from, to, length, symbol);
      const high = lowerBound(low, to, length, symbol + 1);
      if (low === high) break;
      from = low;
      to = high;
      length++;
    }
    return { from, to, length };
  };

  const holders = (from: number, to: number): MaximalSpan['matches'] => {
    const places = order.slice(from, to).sort();
    const matches: { record: number; offset: number }[] = [];
    for (const place of places) {
      const record = recordAt[place]!;
      if (matches.at(-1)?.record !== record) matches.push({ record, offset: place - starts[record]! });
    }
    return matches;
  };

  const maximalSpans = (output: readonly number[]): MaximalSpan[] => {
    const found: MaximalSpan[] = [];
    let end = 0;
    for (let start = 0; start + MIN_SPAN_TOKENS <= output.length; ) {
      const { from, to, length } = longestAt(output, start);
      if (length >= MIN_SPAN_TOKENS && start + length > end) {
        let mass = 0;
        for (let t = start; t < start + length; t++) mass += massOf(output[t]!);
        if (mass > 0) found.push({ start, length, mass, matches: holders(from, to) });
        end = start + length;
      }
      // A span of the full length is a piece of a longer copy: go on behind it, not one token further.
      start = length === MAX_SPAN_TOKENS ? start + length : start + 1;
    }
    return found;
  };

  return {
    frequencies,
    records: records.length,
    maximalSpans,
    spans: (output) =>
      maximalSpans(output)
        .sort((a, b) => b.mass - a.mass || a.start - b.start)
        .slice(0, MAX_SPANS)
        .sort((a, b) => a.start - b.start)
        .map((span) => ({ ...span, matches: span.matches.slice(0, MAX_MATCHES) })),
  };
}

/** Suffixes of `text` in the order of their first 64 symbols (equal ones in any fixed order). Symbols below `alphabet`. */
export function suffixArray(text: Int32Array, alphabet: number): Int32Array {
  const n = text.length;
  const order = new Int32Array(n);
  const spare = new Int32Array(n);
  let rank = new Int32Array(n);
  let nextRank = new Int32Array(n);
  const buckets = new Int32Array(Math.max(alphabet, n) + 1);
  countingSort(text, alphabet, undefined, order, buckets);
  let classes = 0;
  for (let i = 0; i < n; i++) {
    if (i > 0 && text[order[i]!] !== text[order[i - 1]!]) classes++;
    rank[order[i]!] = classes;
  }
  for (let length = 1; length < MAX_SPAN_TOKENS && classes + 1 < n; length *= 2) {
    // By the second half first: suffixes too short for one come first, the others in the order of what follows them.
    let at = 0;
    for (let i = n - Math.min(length, n); i < n; i++) spare[at++] = i;
    for (let i = 0; i < n; i++) if (order[i]! >= length) spare[at++] = order[i]! - length;
    countingSort(rank, classes + 1, spare, order, buckets);
    classes = 0;
    for (let i = 0; i < n; i++) {
      if (i > 0 && !sameHalves(rank, order[i]!, order[i - 1]!, length)) classes++;
      nextRank[order[i]!] = classes;
    }
    [rank, nextRank] = [nextRank, rank];
  }
  return order;
}

function sameHalves(rank: Int32Array, a: number, b: number, length: number): boolean {
  return rank[a] === rank[b] && (rank[a + length] ?? -1) === (rank[b + length] ?? -1);
}

/** Stable sort of `items` (default: all places in order) by `keys[item]`. */
function countingSort(
  keys: Int32Array,
  alphabet: number,
  items: Int32Array | undefined,
  into: Int32Array,
  buckets: Int32Array,
): void {
  const n = keys.length;
  buckets.fill(0, 0, alphabet + 1);
  for (let i = 0; i < n; i++) buckets[keys[i]! + 1]!++;
  for (let key = 0; key < alphabet; key++) buckets[key + 1]! += buckets[key]!;
  for (let i = 0; i < n; i++) {
    const item = items === undefined ? i : items[i]!;
    into[buckets[keys[item]!]!++] = item;
  }
}
