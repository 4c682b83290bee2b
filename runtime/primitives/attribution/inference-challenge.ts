/**
 * Disputes about inference receipts and their batches. A receipt that lies about integers has a small witness: its own
 * words (shares, totals), one contributor's running sum, one row, or one record's tokens.
 */
import { compareBytes, equalBytes } from '../bytes.ts';
import { type Infer, struct, u8, u32, variants, vec } from '../scale/codec.ts';
import { type Blake, hashOf, part } from './canonical.ts';
import { dismissed, provenIf, upheld, type Verdict } from './challenge.ts';
import {
  type BatchItem,
  batchItem,
  itemLeaf,
  itemStepHolds,
  type LedgerEntry,
  ledgerEntry,
  ledgerLeaf,
  ledgerOrder,
  ledgerOrderHolds,
  ledgerStepHolds,
} from './ledger.ts';
import { MAX_MATCHES, MAX_SPAN_TOKENS } from './limits.ts';
import { type MerkleProof, merkleProof, verifyLeaf, verifyRange } from './merkle.ts';
import {
  type InferenceReceipt,
  type ReceiptBatch,
  type ServiceTerms,
  type SignedInferenceReceipt,
  type TrainingReceipt,
  termsHold,
} from './receipts.ts';
import { frequencyLeaf, spanMass, tokenSequence } from './spans.ts';
import { influenceOfEntry, sumEntry } from './sums.ts';
import { provesEntries, provesRow, rowEvidence } from './training-challenge.ts';
import { type ReceiptRules, receiptFault } from './verify.ts';

/** How often a token stands in the training data, with its place under the frequency root (`first` is the token). */
const frequencyEvidence = part('FrequencyEvidence', struct({ frequency: u32, proof: merkleProof }));

export const receiptChallenge = part(
  'ReceiptChallenge',
  variants({
    /** Fee, pool, order, span totals or amounts do not follow from the receipt itself. */
    Arithmetic: null,
    /** The feature has another width than the rows. */
    FeatureWidth: null,
    /** A contributor's influence is wrong, or a contributor with positive influence is left out. */
    Influence: struct({ entry: sumEntry, proof: merkleProof }),
    /** A share for somebody who contributed no row: shown by the two entries (or the end) around where theirs would be. */
    UnknownContributor: struct({ share: u32, entries: vec(sumEntry, 2), proof: merkleProof }),
    /** A span's match names the wrong contributor or novelty for its record, or a record that is none. */
    MatchRow: struct({ span: u8, match: u8, row: rowEvidence }),
    MatchBeyond: struct({ span: u8, match: u8 }),
    /** The record does not hold the span's tokens at that place. */
    MatchTokens: struct({ span: u8, match: u8, row: rowEvidence, record: tokenSequence, output: tokenSequence }),
    /** The span's mass is not what its tokens' frequencies make it. */
    SpanMass: struct({
      span: u8,
      match: u8,
      row: rowEvidence,
      record: tokenSequence,
      frequencies: vec(frequencyEvidence, MAX_SPAN_TOKENS),
    }),
    /** An earlier record (or one more, where there is room) holds the span too, and is not among its matches. */
    MatchOmitted: struct({ span: u8, row: rowEvidence, record: tokenSequence, offset: u32, output: tokenSequence }),
  }),
);
export type ReceiptChallenge = Infer<typeof receiptChallenge>;

export interface ReceiptContext {
  readonly training: TrainingReceipt;
  readonly rules: ReceiptRules;
}

export function decideReceipt(
  hashing: Blake,
  { training, rules }: ReceiptContext,
  receipt: InferenceReceipt,
  challenge: ReceiptChallenge,
): Verdict {
  const { features } = training;
  switch (challenge.type) {
    case 'Arithmetic': {
      const fault = receiptFault(receipt, rules);
      return provenIf(fault !== undefined, fault ?? '');
    }
    case 'FeatureWidth':
      return provenIf(receipt.feature.length !== features.k, 'FEATURE_WIDTH');
    case 'Influence': {
      const { entry, proof } = challenge.value;
      if (!provesEntries(hashing, training, { entries: [entry], proof })) return dismissed('BadProof');
      if (!entry.last || receipt.feature.length !== features.k) return dismissed('BadEvidence');
      const influence = influenceOfEntry(entry, receipt.feature);
      const share = receipt.shares.find((each) => equalBytes(each.contributor, entry.contributor));
      if (share === undefined) return provenIf(influence > 0n, 'MISSING_SHARE');
      return provenIf(share.influence !== influence, 'INFLUENCE');
    }
    case 'UnknownContributor': {
      const { share: at, entries, proof } = challenge.value;
      const share = receipt.shares[at];
      if (share === undefined) return dismissed('BadEvidence');
      if (features.sumEntries === 0) return upheld('UNKNOWN_CONTRIBUTOR');
      if (!provesEntries(hashing, training, { entries, proof })) return dismissed('BadProof');
      const order = entries.map((entry) => compareBytes(entry.contributor, share.contributor));
      const between = order.length === 2 && order[0]! < 0 && order[1]! > 0;
      const before = order.length === 1 && proof.first === 0 && order[0]! > 0;
      const after = order.length === 1 && proof.first === features.sumEntries - 1 && order[0]! < 0;
      return provenIf(between || before || after, 'UNKNOWN_CONTRIBUTOR');
    }
    case 'MatchBeyond': {
      const found = matchOf(receipt, challenge.value);
      return found === undefined
        ? dismissed('BadEvidence')
        : provenIf(found.match.record >= features.rows, 'MATCH_ROW');
    }
    case 'MatchRow': {
      const { row } = challenge.value;
      const found = matchOf(receipt, challenge.value);
      if (found === undefined || row.proof.first !== found.match.record) return dismissed('BadEvidence');
      if (!provesRow(hashing, training, row)) return dismissed('BadProof');
      const share = receipt.shares[found.match.share];
      const same = share !== undefined && equalBytes(share.contributor, row.row.contributor);
      return provenIf(!same || row.row.novelty !== found.match.novelty, 'MATCH_ROW');
    }
    case 'MatchTokens': {
      const { row, record, output } = challenge.value;
      const found = matchOf(receipt, challenge.value);
      if (found === undefined || row.proof.first !== found.match.record) return dismissed('BadEvidence');
      if (!provesRow(hashing, training, row)) return dismissed('BadProof');
      if (!equalBytes(hashOf(hashing, tokenSequence, record), row.row.tokens)) return dismissed('BadEvidence');
      if (!equalBytes(hashOf(hashing, tokenSequence, output), receipt.outputTokensHash))
        return dismissed('BadEvidence');
      const { start, length } = found.span;
      return provenIf(!sameRun(output, start, record, found.match.offset, length), 'MATCH_TOKENS');
    }
    case 'SpanMass': {
      const { row, record, frequencies } = challenge.value;
      const found = matchOf(receipt, challenge.value);
      if (found === undefined || row.proof.first !== found.match.record) return dismissed('BadEvidence');
      if (!provesRow(hashing, training, row)) return dismissed('BadProof');
      if (!equalBytes(hashOf(hashing, tokenSequence, record), row.row.tokens)) return dismissed('BadEvidence');
      const { offset } = found.match;
      const tokens = record.slice(offset, offset + found.span.length);
      if (tokens.length !== found.span.length) return upheld('MATCH_TOKENS');
      if (frequencies.length !== tokens.length) return dismissed('BadEvidence');
      for (const [at, { frequency, proof }] of frequencies.entries()) {
        const leaf = frequencyLeaf(hashing, tokens[at]!, frequency);
        if (proof.first !== tokens[at]) return dismissed('BadEvidence');
        if (!verifyLeaf(hashing, 'frequencies', features.frequencyRoot, features.vocabulary, leaf, proof)) {
          return dismissed('BadProof');
        }
      }
      const mass = spanMass(
        features.rows,
        frequencies.map((each) => each.frequency),
      );
      return provenIf(mass !== found.span.mass, 'SPAN_MASS');
    }
    case 'MatchOmitted': {
      const { span: at, row, record, offset, output } = challenge.value;
      const span = receipt.spans[at];
      if (span === undefined) return dismissed('BadEvidence');
      if (!provesRow(hashing, training, row)) return dismissed('BadProof');
      if (!equalBytes(hashOf(hashing, tokenSequence, record), row.row.tokens)) return dismissed('BadEvidence');
      if (!equalBytes(hashOf(hashing, tokenSequence, output), receipt.outputTokensHash))
        return dismissed('BadEvidence');
      if (!sameRun(output, span.start, record, offset, span.length)) return dismissed('NotProven');
      const index = row.proof.first;
      const listed = span.matches.some((match) => match.record === index);
      const belongs = span.matches.length < MAX_MATCHES || index < span.matches.at(-1)!.record;
      return provenIf(!listed && belongs, 'MATCH_OMITTED');
    }
  }
}

function matchOf(receipt: InferenceReceipt, at: { readonly span: number; readonly match: number }) {
  const span = receipt.spans[at.span];
  const match = span?.matches[at.match];
  return span && match && { span, match };
}

function sameRun(a: readonly number[], from: number, b: readonly number[], at: number, length: number): boolean {
  if (from + length > a.length || at + length > b.length) return false;
  for (let i = 0; i < length; i++) if (a[from + i] !== b[at + i]) return false;
  return true;
}

// ---- batches -------------------------------------------------------------------------------------------------

const itemEvidence = part('ItemEvidence', struct({ item: batchItem, proof: merkleProof }));
/** One item, or two adjacent ones. */
const itemsEvidence = part('ItemsEvidence', struct({ items: vec(batchItem, 2), proof: merkleProof }));
const ledgerEvidence = part('LedgerEvidence', struct({ entries: vec(ledgerEntry, 2), proof: merkleProof }));

export const batchChallenge = part(
  'BatchChallenge',
  variants({
    /** A receipt of the batch is wrong. */
    Receipt: struct({ item: itemEvidence, challenge: receiptChallenge }),
    /**
     * A receipt is of another worker, session or adapter, at another price or markup, over other rows, or not signed by
     * worker and payer.
     */
    ForeignReceipt: struct({ item: itemEvidence }),
    /** Nonces do not ascend from the batch's first to its last. */
    ItemOrder: struct({ items: itemsEvidence }),
    /** The last of the items is not its predecessor plus its receipt. One item alone must be the first. */
    ItemStep: struct({ items: itemsEvidence }),
    /** The batch's sums are not those of its last item. */
    ItemTotal: struct({ item: itemEvidence }),
    /** The last of the entries is not its predecessor plus the receipt's share. */
    LedgerStep: struct({ entries: ledgerEvidence, item: itemEvidence }),
    LedgerOrder: struct({ entries: ledgerEvidence }),
    /** A share of the receipt has no entry: it would stand between these two, before the first or after the last. */
    LedgerGap: struct({ entries: ledgerEvidence, item: itemEvidence, share: u32 }),
    /** The batch's total for a contributor is not their last cumulative amount. */
    LedgerTotal: struct({ entry: ledgerEvidence }),
    /** A total for somebody who is not in the ledger. */
    UnknownTotal: struct({ total: u32, entries: ledgerEvidence }),
  }),
);
export type BatchChallenge = Infer<typeof batchChallenge>;

export interface BatchContext extends ReceiptContext {
  readonly batch: ReceiptBatch;
  /** Hash of the training receipt behind the batch's adapter. */
  readonly trainingHash: Uint8Array;
  /** What vouchers for it may say that an answer costs. */
  readonly terms: ServiceTerms;
  /** Whether the worker's signature and the session key's signature on the voucher hold. */
  signaturesHold(receipt: SignedInferenceReceipt): boolean;
}

export function decideBatch(hashing: Blake, context: BatchContext, challenge: BatchChallenge): Verdict {
  const { batch } = context;
  const provesItems = (items: readonly BatchItem[], proof: MerkleProof): boolean =>
    verifyRange(
      hashing,
      'receipts',
      batch.root,
      batch.receipts,
      items.map((item) => itemLeaf(hashing, item)),
      proof,
    );
  const provesItem = ({ item, proof }: Infer<typeof itemEvidence>): boolean => provesItems([item], proof);
  const provesLedger = ({ entries, proof }: { entries: readonly LedgerEntry[]; proof: MerkleProof }): boolean =>
    verifyRange(
      hashing,
      'ledger',
      batch.ledgerRoot,
      batch.ledgerEntries,
      entries.map((entry) => ledgerLeaf(hashing, entry)),
      proof,
    );
  switch (challenge.type) {
    case 'Receipt': {
      const { item, challenge: inner } = challenge.value;
      if (!provesItem(item)) return dismissed('BadProof');
      return decideReceipt(hashing, context, item.item.receipt.payload, inner);
    }
    case 'ForeignReceipt': {
      const { item } = challenge.value;
      if (!provesItem(item)) return dismissed('BadProof');
      const { receipt } = item.item;
      if (!belongs(context, receipt)) return upheld('FOREIGN_RECEIPT');
      if (!termsHold(context.terms, receipt.payload.voucher.payload)) return upheld('OTHER_TERMS');
      return provenIf(!context.signaturesHold(receipt), 'BAD_SIGNATURE');
    }
    case 'ItemOrder': {
      const { items, proof } = challenge.value.items;
      if (!provesItems(items, proof)) return dismissed('BadProof');
      const nonces = items.map((item) => item.receipt.payload.voucher.payload.nonce);
      const outside = nonces.some((nonce) => nonce < batch.firstNonce || nonce > batch.lastNonce);
      return provenIf(outside || (nonces.length === 2 && nonces[0]! >= nonces[1]!), 'ITEM_ORDER');
    }
    case 'ItemStep': {
      const { items, proof } = challenge.value.items;
      if (!provesItems(items, proof)) return dismissed('BadProof');
      if (items.length === 1 && proof.first !== 0) return dismissed('BadEvidence');
      return provenIf(!itemStepHolds(items.at(-1)!, items.length === 2 ? items[0] : undefined), 'ITEM_STEP');
    }
    case 'ItemTotal': {
      const { item } = challenge.value;
      if (!provesItem(item)) return dismissed('BadProof');
      if (item.proof.first !== batch.receipts - 1) return dismissed('BadEvidence');
      const { fees, pool, remainder } = item.item;
      return provenIf(fees !== batch.fees || pool !== batch.pool || remainder !== batch.remainder, 'ITEM_TOTAL');
    }
    case 'LedgerStep': {
      const { entries, item } = challenge.value;
      if (!provesLedger(entries) || !provesItem(item)) return dismissed('BadProof');
      const entry = entries.entries.at(-1)!;
      if (entries.entries.length === 1 && entries.proof.first !== 0) return dismissed('BadEvidence');
      if (item.proof.first !== entry.receipt) return dismissed('BadEvidence');
      const before = entries.entries.length === 2 ? entries.entries[0] : undefined;
      return provenIf(!ledgerStepHolds(entry, before, item.item.receipt), 'LEDGER_STEP');
    }
    case 'LedgerOrder': {
      const { entries } = challenge.value;
      if (!provesLedger(entries)) return dismissed('BadProof');
      const [entry, after] = entries.entries as [LedgerEntry, LedgerEntry?];
      if (after === undefined && entries.proof.first !== batch.ledgerEntries - 1) return dismissed('BadEvidence');
      const beyond = entries.entries.some((each) => each.receipt >= batch.receipts);
      return provenIf(beyond || !ledgerOrderHolds(entry, after), 'LEDGER_ORDER');
    }
    case 'LedgerGap': {
      const { entries, item, share: at } = challenge.value;
      if (!provesItem(item)) return dismissed('BadProof');
      const share = item.item.receipt.payload.shares[at];
      if (share === undefined || share.amount === 0n) return dismissed('BadEvidence');
      if (batch.ledgerEntries === 0) return upheld('LEDGER_GAP');
      if (!provesLedger(entries)) return dismissed('BadProof');
      const place = { contributor: share.contributor, receipt: item.proof.first };
      const order = entries.entries.map((entry) => ledgerOrder(entry, place));
      return provenIf(aroundPlace(order, entries.proof.first, batch.ledgerEntries), 'LEDGER_GAP');
    }
    case 'LedgerTotal': {
      const { entry: evidence } = challenge.value;
      if (!provesLedger(evidence)) return dismissed('BadProof');
      const entry = evidence.entries[0]!;
      if (evidence.entries.length !== 1 || !entry.last) return dismissed('BadEvidence');
      const total = batch.totals.find((each) => equalBytes(each.contributor, entry.contributor));
      return provenIf(total?.amount !== entry.cumulative, 'LEDGER_TOTAL');
    }
    case 'UnknownTotal': {
      const { total: at, entries } = challenge.value;
      const total = batch.totals[at];
      if (total === undefined) return dismissed('BadEvidence');
      if (batch.ledgerEntries === 0) return upheld('UNKNOWN_TOTAL');
      if (!provesLedger(entries)) return dismissed('BadProof');
      const order = entries.entries.map((entry) => compareBytes(entry.contributor, total.contributor));
      return provenIf(aroundPlace(order, entries.proof.first, batch.ledgerEntries), 'UNKNOWN_TOTAL');
    }
  }
}

/** Whether entries that compare so with a place surround it without holding it. */
function aroundPlace(order: readonly number[], first: number, total: number): boolean {
  if (order.length === 2) return order[0]! < 0 && order[1]! > 0;
  return (first === 0 && order[0]! > 0) || (first === total - 1 && order[0]! < 0);
}

function belongs({ batch, trainingHash }: BatchContext, { payload }: SignedInferenceReceipt): boolean {
  const { session, adapter, worker, chain } = payload.voucher.payload;
  return (
    session === batch.session &&
    adapter === batch.adapter &&
    equalBytes(payload.worker, batch.worker) &&
    equalBytes(worker, batch.worker) &&
    equalBytes(chain, batch.chain) &&
    equalBytes(payload.training, trainingHash)
  );
}

/** Whether a batch's totals and sums fit each other; what the chain checks before it takes the batch. */
export function batchFault(batch: ReceiptBatch): 'TOTAL_ORDER' | 'TOTAL_SUM' | undefined {
  let sum = batch.remainder;
  for (const [at, { contributor, amount }] of batch.totals.entries()) {
    if (at > 0 && compareBytes(batch.totals[at - 1]!.contributor, contributor) >= 0) return 'TOTAL_ORDER';
    sum += amount;
  }
  return sum === batch.pool ? undefined : 'TOTAL_SUM';
}
