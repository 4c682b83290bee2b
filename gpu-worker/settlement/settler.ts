/** Settles receipts: batches by session and adapter, when the time is up or many wait. */
import { LedgerError } from '../../rpc/client/connection.ts';
import { pendingBatch } from '../../runtime/pallets/ledger/attribution.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { receiptBatchId } from '../../runtime/primitives/attribution/ids.ts';
import {
  receiptBatch,
  type SignedInferenceReceipt,
  signedReceiptBatch,
} from '../../runtime/primitives/attribution/receipts.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode, u64 } from '../../runtime/primitives/scale/codec.ts';
import { sameAccount } from '../../runtime/primitives/types.ts';
import type { WorkerOptions } from '../options.ts';
import type { AdapterServer } from '../serving/adapter-server.ts';
import type { WorkerJournal } from '../session/journal.ts';
import type { NodeLink } from '../session/link.ts';
import type { Uploads } from '../session/uploads.ts';
import { receiptsBatch } from './receipt-batch.ts';

/** Receipts that make the worker settle before the time is up. */
const SETTLE_RECEIPTS = 256;
/** Refusals that no later attempt changes: the receipts are lost to this worker. */
const FINAL = new Set(
  [
    ...['OtherChain', 'NotWorker', 'BadSignature', 'UnknownSession', 'BadVoucher', 'NotServing', 'EmptyBatch'],
    ...['WrongSums', 'WrongPool', 'OverVoucher', 'OverDeposit'],
  ].map((name) => `Attribution.${name}`),
);

export class Settler {
  readonly #link: NodeLink;
  readonly #journal: WorkerJournal;
  readonly #options: WorkerOptions;
  readonly #uploads: Uploads;
  #fresh = 0;
  #settledAt = Date.now();

  constructor(link: NodeLink, journal: WorkerJournal, options: WorkerOptions, uploads: Uploads) {
    this.#link = link;
    this.#journal = journal;
    this.#options = options;
    this.#uploads = uploads;
  }

  /** After a crash: which batches' windows are open is what the chain says. Once, before anything is answered. */
  async recover(): Promise<void> {
    const open = await this.#link.ledger.entries('attribution', 'batches', pendingBatch);
    for (const { key, value } of open) {
      const { worker, session, adapter, firstNonce, lastNonce } = value.batch;
      if (!sameAccount(worker, this.#link.account)) continue;
      const id = decode(receiptBatchId, key.subarray(-8));
      await this.#journal.keepBatch(id, { session, adapter: BigInt(adapter), firstNonce, lastNonce });
    }
    await this.#journal.forgetTranscripts();
  }

  /** One receipt more waits. */
  kept(): void {
    this.#fresh++;
  }

  /** Settles when it is time; forgets what was said for batches whose window is over. */
  async look(server: AdapterServer): Promise<void> {
    const due = Date.now() - this.#settledAt >= this.#options.settleMs || this.#fresh >= SETTLE_RECEIPTS;
    if (due) await this.settle(server);
    for (const [id, batch] of await this.#journal.batches()) {
      const pending = await this.#link.ledger.read('attribution', 'batches', pendingBatch, id);
      if (pending === undefined) await this.#journal.forgetBatch(id, batch);
    }
  }

  /** Everything that can be settled now. */
  async settle(server: AdapterServer): Promise<void> {
    this.#settledAt = Date.now();
    this.#fresh = 0;
    for (const { session, adapter, receipts } of await this.#journal.unsettled()) {
      const ready = server.closeReceipts(session, adapter, receipts);
      if (ready.length > 0) await this.#settleGroup(session, adapter, ready);
    }
    await this.#uploads.look();
  }

  async #settleGroup(session: bigint, adapter: number, ready: readonly SignedInferenceReceipt[]): Promise<void> {
    const { hashing, log } = this.#options;
    const { pair } = this.#link;
    // What was settled before a crash is not offered twice.
    const last = await this.#link.ledger.read('inference', 'lastNonce', u64, session, pair.address, adapter);
    if (last !== undefined) await this.#journal.forgetReceipts(session, adapter, last);
    const serving = await this.#link.ledger.read('inference', 'serving', inference.serving, adapter, pair.address);
    // Under another lease they are worth nothing: whoever asked was free to ask others when the lease ended.
    const fresh = ready.filter(
      ({ payload }) =>
        (last === undefined || payload.voucher.payload.nonce > last) &&
        (serving === undefined || payload.lease === serving.lease),
    );
    if (fresh.length === 0) {
      await this.#journal.forgetReceipts(session, adapter, ready.at(-1)!.payload.voucher.payload.nonce);
      return;
    }
    const { batch, file } = receiptsBatch(hashing, fresh);
    const signed = { payload: batch, signature: this.#link.sign(hashOf(hashing, receiptBatch, batch)) };
    await this.#journal.keepFiles([{ hash: batch.blob, bytes: file }]);
    try {
      const encoded = toHex(encode(signedReceiptBatch, signed));
      const events = await this.#link.submit('attribution', 'settle', encoded, file.length);
      const settled = events.find(({ name }) => name === 'Attribution.Settled');
      if (settled !== undefined) {
        const { firstNonce, lastNonce } = batch;
        const id = decode(receiptBatchId, settled.data.subarray(0, 8));
        await this.#journal.keepBatch(id, { session, adapter: BigInt(adapter), firstNonce, lastNonce });
      }
      this.#options.telemetry?.settled(batch.receipts);
      log('info', `settled ${batch.receipts} receipts of adapter ${adapter}`);
    } catch (problem) {
      if (!(problem instanceof LedgerError && FINAL.has(problem.code))) throw problem;
      log('error', `${batch.receipts} receipts of adapter ${adapter} cannot be settled: ${problem.code}`);
    }
    await this.#journal.forgetReceipts(session, adapter, batch.lastNonce);
  }
}
