/** Bounds that keep every receipt, proof and dispute small enough for a block. They are part of the formats. */

/** Entries of a feature row. */
export const MAX_K = 1024;
/** Records of a snapshot that one adapter may be trained on. */
export const MAX_ROWS = 1 << 20;
/** Contributors behind one adapter, hence shares in one receipt. */
export const MAX_CONTRIBUTORS = 1024;
/** Rows behind one entry of the running sums: what the chain adds up in one dispute. */
export const SUM_CHUNK = 32;

/** Tokens: matches shorter than this say nothing; longer ones are cut into pieces of at most `MAX_SPAN_TOKENS`. */
export const MIN_SPAN_TOKENS = 3;
export const MAX_SPAN_TOKENS = 64;
/** Spans a receipt lists (heaviest first come in; listed by position), and records that share in one of them. */
export const MAX_SPANS = 16;
export const MAX_MATCHES = 8;

/** Tokens of a record or an output that a dispute may reveal. */
export const MAX_RECORD_TOKENS = 4096;
/** Tokens that one answer is sampled from, at most. */
export const MAX_TRANSCRIPT_TOKENS = 65_536;
/** Bytes of one record (one line of canonical JSONL, without its line feed). */
export const MAX_RECORD_BYTES = 65_536;
/** Receipts that are settled together. */
export const MAX_BATCH_RECEIPTS = 4096;
export const MAX_BATCH_CONTRIBUTORS = 4096;

/** Parts that a training is cut into for its audit, and steps that one has at least. */
export const MAX_SEGMENTS = 8;
export const MIN_SEGMENT_STEPS = 64;

/** Response tokens of which at least one bears the loss of a query's gradient: with fewer, chance would say who is paid. */
export const MAX_ATTRIBUTION_STRIDE = 64;

/** Novelty ν = 1 as fixed point. */
export const NOVELTY_ONE = 65_536;
/** How much closer than the named neighbour another earlier record must be for a dispute: MinHash is an estimate. */
export const NOVELTY_TOLERANCE = 6_554;
/**
 * Cosines between feature rows: for rows as wide as there are records, they say nothing up to 1 − {@link COSINE_FREE}, and
 * from 1 − {@link COSINE_COPY} on the later record is the earlier one in other words; for narrower ones see `novelty.ts`.
 * Units of 2^−16.
 */
export const COSINE_FREE = 52_429;
export const COSINE_COPY = 49_152;
/** A row's scale σ counts in units of 2^−32. */
export const SCALE_ONE = 4_294_967_296;
/** The largest σ of a row with unit norm: one entry ±127, all others 0. */
export const MAX_SCALE = 33_818_641;
/** Logarithms (base 2) of document frequencies count in units of 2^−16. */
export const LOG_ONE = 65_536;
