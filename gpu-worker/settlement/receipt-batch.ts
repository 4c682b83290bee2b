/** A worker's receipts as the batch that it settles. */
import { type Blake, hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { blobName } from '../../runtime/primitives/attribution/commitment.ts';
import type { SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { batchFile, batchLedger, itemRoot, ledgerRoot } from '../../runtime/primitives/attribution/ledger.ts';
import {
  inferenceReceipt,
  type ReceiptBatch,
  type SignedInferenceReceipt,
} from '../../runtime/primitives/attribution/receipts.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';

/** `receipts`: of one worker, session and adapter, by ascending nonce, at least one. */
export function receiptsBatch(
  hashing: Blake,
  receipts: readonly SignedInferenceReceipt[],
): { readonly batch: ReceiptBatch; readonly file: Uint8Array } {
  const first = receipts[0]!.payload.voucher.payload;
  const last = receipts.at(-1)!.payload.voucher;
  const { items, entries, totals, fees, pool, remainder } = batchLedger(receipts);
  const file = encode(batchFile, { items });
  const batch: ReceiptBatch = {
    chain: first.chain,
    worker: first.worker,
    session: first.session as SessionId,
    adapter: first.adapter,
    root: itemRoot(hashing, items),
    receipts: receipts.length,
    firstNonce: first.nonce,
    lastNonce: last.payload.nonce,
    ledgerRoot: ledgerRoot(hashing, entries),
    ledgerEntries: entries.length,
    fees,
    pool,
    remainder,
    totals,
    voucher: last,
    blob: blobName(hashing, file),
  };
  return { batch, file };
}

/** What a receipt is known by. */
export const receiptId = (hashing: Blake, { payload }: SignedInferenceReceipt) =>
  hashOf(hashing, inferenceReceipt, payload);
