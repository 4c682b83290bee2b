/**
 * Checking an inference receipt's arithmetic without a GPU: influence, span credit, shares, to the last unit. Signatures,
 * vouchers and leases are the caller's business (they need chain state); whether `feature` is the true one is audits'.
 */
import { compareBytes } from '../bytes.ts';
import type { AccountId } from '../types.ts';
import { accountKey, type FeatureTable } from './features.ts';
import { influenceByRows, type QueryFeature } from './influence.ts';
import { feeOf, type InferenceReceipt, type Share } from './receipts.ts';
import { type Blend, type Split, type Standing, splitPool } from './shares.ts';
import { type Span, type SpanFault, spanMasses, spansFault } from './spans.ts';
import { type ContributorSums, influenceBySums } from './sums.ts';

/** What a verifier knows of an adapter's rows. */
export interface AttributionModel {
  readonly k: number;
  readonly rows: number;
  /** In ascending order. */
  readonly contributors: readonly AccountId[];
  /** By row: position in `contributors`, and ν. */
  readonly owner: Uint32Array;
  readonly novelty: Uint32Array;
  /** I_c for each contributor. */
  influence(u: QueryFeature): bigint[];
}

/** Influence over all rows, or (with sums that were checked against the rows) over the contributors' sums. */
export const attributionModel = (table: FeatureTable, sums?: ContributorSums): AttributionModel => ({
  k: table.k,
  rows: table.rows,
  contributors: table.contributors,
  owner: table.owner,
  novelty: table.novelty,
  influence: sums === undefined ? (u) => influenceByRows(table, u) : (u) => influenceBySums(sums, u),
});

/** The parameters of the chain that a receipt was made under. */
export interface ReceiptRules {
  readonly blend: Blend;
  /** The contributors' part of a fee. */
  poolOf(fee: bigint): bigint;
}

export type ReceiptFault =
  | SpanFault
  | 'FEE'
  | 'OVER_MOST'
  | 'POOL'
  | 'SHARE_ORDER'
  | 'IDLE_SHARE'
  | 'SPAN_TOTAL'
  | 'AMOUNT'
  | 'FEATURE_WIDTH'
  | 'UNKNOWN_CONTRIBUTOR'
  | 'INFLUENCE'
  | 'MISSING_SHARE'
  | 'MATCH_ROW';

/** What is wrong with a receipt by its own words: no rows needed, so the chain can always decide it. */
export function receiptFault(receipt: InferenceReceipt, rules: ReceiptRules): ReceiptFault | undefined {
  const { voucher, tokensIn, tokensOut, fee, pool, shares, spans } = receipt;
  if (fee !== feeOf(voucher.payload.price, tokensIn, tokensOut)) return 'FEE';
  if (fee > voucher.payload.most) return 'OVER_MOST';
  if (pool !== rules.poolOf(fee)) return 'POOL';
  for (let c = 1; c < shares.length; c++) {
    if (compareBytes(shares[c - 1]!.contributor, shares[c]!.contributor) >= 0) return 'SHARE_ORDER';
  }
  const fault = spansFault(spans, tokensOut, shares.length);
  if (fault !== undefined) return fault;
  const masses = spanMasses(spans, shares.length);
  const matched = new Uint8Array(shares.length);
  for (const { matches } of spans) for (const match of matches) matched[match.share] = 1;
  for (const [c, share] of shares.entries()) {
    if (share.spanMass !== masses[c]) return 'SPAN_TOTAL';
    if (share.influence <= 0n && matched[c] === 0) return 'IDLE_SHARE';
  }
  const split = splitPool(pool, shares, rules.blend);
  if (split.remainder !== receipt.remainder) return 'AMOUNT';
  return shares.every((share, c) => share.amount === split.amounts[c]) ? undefined : 'AMOUNT';
}

/** Everything: {@link receiptFault}, then influence over all rows, nobody left out, matches as the rows say. */
export function verifyInferenceReceipt(
  receipt: InferenceReceipt,
  model: AttributionModel,
  rules: ReceiptRules,
): ReceiptFault | undefined {
  const fault = receiptFault(receipt, rules);
  if (fault !== undefined) return fault;
  if (receipt.feature.length !== model.k) return 'FEATURE_WIDTH';
  return influenceFault(receipt, model, model.influence(receipt.feature));
}

/** The part of {@link verifyInferenceReceipt} after the scores, for callers that compute those in batches. */
export function influenceFault(
  receipt: InferenceReceipt,
  model: AttributionModel,
  influence: readonly bigint[],
): ReceiptFault | undefined {
  const { shares, spans } = receipt;
  const position = new Int32Array(shares.length);
  let at = 0;
  for (const [c, account] of model.contributors.entries()) {
    const share = shares[at];
    if (share !== undefined && compareBytes(share.contributor, account) === 0) {
      if (share.influence !== influence[c]) return 'INFLUENCE';
      position[at++] = c;
    } else if (influence[c]! > 0n) return 'MISSING_SHARE';
  }
  if (at !== shares.length) return 'UNKNOWN_CONTRIBUTOR';
  for (const { matches } of spans) {
    for (const match of matches) {
      if (match.record >= model.rows) return 'MATCH_ROW';
      if (model.owner[match.record] !== position[match.share]) return 'MATCH_ROW';
      if (model.novelty[match.record] !== match.novelty) return 'MATCH_ROW';
    }
  }
  return undefined;
}

/** A span before shares are known: matches name records only. */
export interface FoundSpan {
  readonly start: number;
  readonly length: number;
  readonly mass: number;
  readonly matches: readonly { readonly record: number; readonly offset: number }[];
}

export interface Attribution extends Split {
  readonly spans: Span[];
  readonly shares: Share[];
}

/** What an honest worker writes into the receipt. `influence`: as `model.influence(u)` gives it. */
export function attribute(
  model: AttributionModel,
  influence: readonly bigint[],
  found: readonly FoundSpan[],
  pool: bigint,
  blend: Blend,
): Attribution {
  const matched = new Set<number>();
  for (const { matches } of found) for (const { record } of matches) matched.add(model.owner[record]!);
  const payees = model.contributors
    .map((contributor, c) => ({ contributor, c }))
    .filter(({ c }) => influence[c]! > 0n || matched.has(c));
  const position = new Map(payees.map(({ c }, at) => [c, at]));
  const spans = found.map(({ start, length, mass, matches }) => ({
    start,
    length,
    mass,
    matches: matches.map(({ record, offset }) => ({
      record,
      offset,
      share: position.get(model.owner[record]!)!,
      novelty: model.novelty[record]!,
    })),
  }));
  const masses = spanMasses(spans, payees.length);
  const standings: Standing[] = payees.map(({ c }, at) => ({ influence: influence[c]!, spanMass: masses[at]! }));
  const { amounts, remainder } = splitPool(pool, standings, blend);
  const shares = payees.map(({ contributor }, at) => ({ contributor, ...standings[at]!, amount: amounts[at]! }));
  return { spans, shares, amounts, remainder };
}

/** Amounts by account, for settlement and display. */
export const amountsOf = (receipt: InferenceReceipt): Map<string, bigint> =>
  new Map(receipt.shares.map((share) => [accountKey(share.contributor), share.amount]));
