/** Settles receipts: batches by session and adapter, when the time is up or many wait. */
import { failedWith } from '../../rpc/client/errors.ts';
import * as attribution from '../../runtime/pallets/ledger/attribution.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId, SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { receiptBatch, type SignedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
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
const { errors } = attribution;
const FINAL = [
  ...[errors.OtherChain, errors.NotWorker, errors.BadSignature, errors.UnknownSession, errors.BadVoucher],
  ...[errors.NotServing, errors.EmptyBatch, errors.WrongSums, errors.WrongPool, errors.OverVoucher, errors.OverDeposit],
];

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
    for await (const [id, { batch }] of this.#link.ledger.entries(attribution.store.Batches)) {
      const { worker, session, adapter, firstNonce, lastNonce } = batch;
      if (!sameAccount(worker, this.#link.account)) continue;
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
      const pending = await this.#link.ledger.read(attribution.store.Batches, id);
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

  async #settleGroup(session: SessionId, adapter: AdapterId, ready: readonly SignedInferenceReceipt[]): Promise<void> {
    const { hashing, log } = this.#options;
    const { account, ledger } = this.#link;
    // What was settled before a crash is not offered twice.
    const last = await ledger.read(inference.store.LastNonce, [session, account, adapter]);
    if (last !== undefined) await this.#journal.forgetReceipts(session, adapter, last);
    const serving = await ledger.read(inference.store.Serving, [adapter, account]);
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
      const bytes = BigInt(file.length);
      const made = await this.#link.submit(attribution.calls.settle, { batch: signed, bytes });
      const { batch: id } = made.event(attribution.events.Settled);
      const { firstNonce, lastNonce } = batch;
      await this.#journal.keepBatch(id, { session, adapter: BigInt(adapter), firstNonce, lastNonce });
      this.#options.telemetry?.settled(batch.receipts);
      log('info', `settled ${batch.receipts} receipts of adapter ${adapter}`);
    } catch (problem) {
      const final = FINAL.find((each) => failedWith(problem, each));
      if (final === undefined) throw problem;
      log('error', `${batch.receipts} receipts of adapter ${adapter} cannot be settled: ${final.docs}`);
    }
    await this.#journal.forgetReceipts(session, adapter, batch.lastNonce);
  }
}
