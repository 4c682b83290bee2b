/**
 * What is wrong with a batch of receipts by its published file, as evidence that the chain decides by itself. All integers
 * of all receipts are made again. Whatever is wrong and cannot be shown with the leaves of a committed tree (a file that is
 * not what was committed to, totals over a ledger that nobody has) is left to auditors.
 */
import { verifySignature } from '../../runtime/executive/extrinsic.ts';
import type { Hashing, Signatures } from '../../runtime/host.ts';
import type { PendingBatch } from '../../runtime/pallets/ledger/attribution.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { AttributionData } from '../../runtime/primitives/attribution/commitment.ts';
import { accountKey, rowLeaf } from '../../runtime/primitives/attribution/features.ts';
import {
  type BatchChallenge,
  type BatchContext,
  decideBatch,
  type ReceiptChallenge,
} from '../../runtime/primitives/attribution/inference-challenge.ts';
import {
  type BatchItem,
  batchFile,
  batchLedger,
  itemLeaf,
  itemRoot,
  ledgerRoot,
} from '../../runtime/primitives/attribution/ledger.ts';
import { proveRange } from '../../runtime/primitives/attribution/merkle.ts';
import {
  type InferenceReceipt,
  inferenceReceipt,
  type SignedInferenceReceipt,
  type TrainingReceipt,
  voucher,
} from '../../runtime/primitives/attribution/receipts.ts';
import { receiptRules } from '../../runtime/primitives/attribution/split.ts';
import { sumLeaf } from '../../runtime/primitives/attribution/sums.ts';
import { compareBytes, equalBytes } from '../../runtime/primitives/bytes.ts';
import { decode } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { type AccountId, type Hash, sameAccount } from '../../runtime/primitives/types.ts';

export type BatchFinding =
  | { readonly type: 'Sound' }
  /** The chain upholds it. */
  | { readonly type: 'Challenge'; readonly challenge: BatchChallenge; readonly fault: string }
  /** Somebody has to look. */
  | { readonly type: 'Audit'; readonly fault: 'FILE' | 'ROOT' | 'LEDGER' };

export interface BatchMaterial {
  readonly pending: PendingBatch;
  readonly file: Uint8Array;
  readonly training: TrainingReceipt;
  readonly trainingHash: Hash;
  /** The adapter's rows and sums; undefined where they are not what was committed to. */
  readonly data: AttributionData | undefined;
}

/** As the chain itself decides about challenges of the batch. */
export function batchContext(
  host: Hashing & Signatures,
  { pending, training, trainingHash }: Omit<BatchMaterial, 'file' | 'data'>,
): BatchContext {
  const { batch, key, terms, rules } = pending;
  const signed = ({ payload, signature }: SignedInferenceReceipt['payload']['voucher'], by: AccountId): boolean =>
    equalBytes(payload.chain, batch.chain) &&
    sameAccount(payload.worker, batch.worker) &&
    payload.session === batch.session &&
    payload.adapter === batch.adapter &&
    verifySignature(host, signature, hashOf(host, voucher, payload), by);
  return {
    batch,
    trainingHash,
    training,
    terms,
    rules: receiptRules(rules, terms.markup),
    signaturesHold: ({ payload, signature }) =>
      verifySignature(host, signature, hashOf(host, inferenceReceipt, payload), batch.worker) &&
      signed(payload.voucher, key),
  };
}

/** The first thing that is wrong. Receipts are looked at one by one; `pause` lets others of this thread have a turn. */
export async function findInBatch(
  host: Hashing & Signatures,
  material: BatchMaterial,
  pause: () => Promise<void> = async () => {},
): Promise<BatchFinding> {
  const { pending, file, data } = material;
  const { batch } = pending;
  let items: readonly BatchItem[];
  try {
    ({ items } = decode(batchFile, file));
  } catch (problem) {
    if (problem instanceof ScaleError) return { type: 'Audit', fault: 'FILE' };
    throw problem;
  }
  if (items.length !== batch.receipts || !equalBytes(itemRoot(host, items), batch.root)) {
    return { type: 'Audit', fault: 'ROOT' };
  }
  const context = batchContext(host, material);
  const leaves = items.map((item) => itemLeaf(host, item));
  const one = (at: number) => ({ item: items[at]!, proof: proveRange(host, 'receipts', leaves, at) });
  const two = (at: number) => ({
    items: items.slice(Math.max(0, at - 1), at + 1),
    proof: proveRange(host, 'receipts', leaves, Math.max(0, at - 1), at === 0 ? 1 : 2),
  });
  const upheld = (challenge: BatchChallenge): BatchFinding | undefined => {
    const verdict = decideBatch(host, context, challenge);
    return verdict.type === 'Upheld' ? { type: 'Challenge', challenge, fault: verdict.fault } : undefined;
  };
  for (let at = 0; at < items.length; at++) {
    const item = one(at);
    const found =
      upheld({ type: 'ForeignReceipt', value: { item } }) ??
      upheld({ type: 'ItemOrder', value: { items: two(at) } }) ??
      upheld({ type: 'ItemStep', value: { items: two(at) } }) ??
      inReceipt(host, items[at]!.receipt.payload, material.training, data, (challenge) =>
        upheld({ type: 'Receipt', value: { item, challenge } }),
      );
    if (found !== undefined) return found;
    if (at % 8 === 7) await pause();
  }
  const last = upheld({ type: 'ItemTotal', value: { item: one(items.length - 1) } });
  if (last !== undefined) return last;
  const sums = batchLedger(items.map(({ receipt }) => receipt));
  const sameTotals =
    sums.totals.length === batch.totals.length &&
    sums.totals.every(({ contributor, amount }, at) => {
      const other = batch.totals[at]!;
      return amount === other.amount && sameAccount(contributor, other.contributor);
    });
  const same =
    sameTotals &&
    sums.entries.length === batch.ledgerEntries &&
    equalBytes(ledgerRoot(host, sums.entries), batch.ledgerRoot);
  // With the right ledger, a wrong total is shown by its last entry; of another ledger, nobody has the leaves.
  return same ? { type: 'Sound' } : { type: 'Audit', fault: 'LEDGER' };
}

function inReceipt<T>(
  host: Hashing,
  receipt: InferenceReceipt,
  training: TrainingReceipt,
  data: AttributionData | undefined,
  upheld: (challenge: ReceiptChallenge) => T | undefined,
): T | undefined {
  const plain = upheld({ type: 'Arithmetic' }) ?? upheld({ type: 'FeatureWidth' });
  if (plain !== undefined || data === undefined || receipt.feature.length !== training.features.k) return plain;
  const { model, entries, rows } = data;
  const influence = model.influence(receipt.feature);
  const shares = new Map(receipt.shares.map((share) => [accountKey(share.contributor), share]));
  for (const [at, contributor] of model.contributors.entries()) {
    const share = shares.get(accountKey(contributor));
    if (share === undefined ? influence[at]! <= 0n : share.influence === influence[at]) continue;
    const place = entries.findIndex((entry) => entry.last && sameAccount(entry.contributor, contributor));
    const proof = proveRange(host, 'sums', sumLeaves(host, data), place);
    return upheld({ type: 'Influence', value: { entry: entries[place]!, proof } });
  }
  const known = new Set(model.contributors.map(accountKey));
  const stranger = receipt.shares.findIndex(({ contributor }) => !known.has(accountKey(contributor)));
  if (stranger >= 0) {
    const { contributor } = receipt.shares[stranger]!;
    const after = entries.findIndex((entry) => compareBytes(entry.contributor, contributor) > 0);
    const from = after < 0 ? entries.length - 1 : Math.max(0, after - 1);
    const count = after <= 0 ? 1 : 2;
    const around = entries.length === 0 ? [] : entries.slice(from, from + count);
    const proof =
      around.length === 0 ? { first: 0, siblings: [] } : proveRange(host, 'sums', sumLeaves(host, data), from, count);
    return upheld({ type: 'UnknownContributor', value: { share: stranger, entries: around, proof } });
  }
  for (const [span, { matches }] of receipt.spans.entries()) {
    for (const [match, { record, share, novelty }] of matches.entries()) {
      const row = rows[record];
      if (row === undefined) return upheld({ type: 'MatchBeyond', value: { span, match } });
      const owner = receipt.shares[share]?.contributor;
      if (owner !== undefined && sameAccount(owner, row.contributor) && row.novelty === novelty) continue;
      const proof = proveRange(
        host,
        'features',
        rows.map((each) => rowLeaf(host, each)),
        record,
      );
      return upheld({ type: 'MatchRow', value: { span, match, row: { row, proof } } });
    }
  }
  return undefined;
}

const sumLeaves = (host: Hashing, { entries }: AttributionData): Hash[] => entries.map((entry) => sumLeaf(host, entry));
