/** Settles receipts: batches by session and adapter, when the time is up or many wait. */
import { failedWith } from '../../rpc/client/errors.ts';
import type { Ledger } from '../../rpc/client/ledger.ts';
import * as attribution from '../../runtime/pallets/ledger/attribution.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId, ReceiptBatchId, SessionId } from '../../runtime/primitives/attribution/ids.ts';
import {
  receiptBatch,
  type ServiceTerms,
  type SignedInferenceReceipt,
  type SignedReceiptBatch,
  termsHold,
} from '../../runtime/primitives/attribution/receipts.ts';
import { sameAccount } from '../../runtime/primitives/types.ts';
import type { WorkerOptions } from '../options.ts';
import type { AdapterServer } from '../serving/adapter-server.ts';
import type { WorkerJournal } from '../session/journal.ts';
import type { NodeLink } from '../session/link.ts';
import type { Uploads } from '../session/uploads.ts';
import { receiptsBatch } from './receipt-batch.ts';

/** Receipts that make the worker settle before the time is up. */
const SETTLE_RECEIPTS = 256;
/** How often it is looked whether payers want something back: in far less time than they leave to settle. */
const URGENCY_MS = 10_000;
/** Refusals of a batch that no later attempt changes. */
const { errors } = attribution;
const FINAL = [
  ...[errors.OtherChain, errors.NotWorker, errors.BadSignature, errors.BadVoucher, errors.EmptyBatch],
  ...[errors.StaleNonce, errors.WrongSums, errors.WrongPool, errors.OtherPrice, errors.OverVoucher],
  errors.OverAllocation,
];

/** What settling needs of the worker's other parts. */
export interface SettlerPorts {
  readonly link: Pick<NodeLink, 'account' | 'sign'> & {
    readonly ledger: Pick<Ledger, 'read' | 'entries' | 'bestNumber'>;
  };
  /** The transaction, `bytes`: of the file of receipts. Rejects with a LedgerError. */
  settle(batch: SignedReceiptBatch, bytes: bigint): Promise<ReceiptBatchId>;
  readonly journal: WorkerJournal;
  readonly uploads: Pick<Uploads, 'look'>;
  readonly options: Pick<WorkerOptions, 'hashing' | 'log' | 'settleMs' | 'telemetry'>;
}

/** By a transaction of the worker's. */
export const settleBy =
  (link: NodeLink): SettlerPorts['settle'] =>
  async (batch, bytes) =>
    (await link.submit(attribution.calls.settle, { batch, bytes })).event(attribution.events.Settled).batch;

export class Settler {
  readonly #settle: SettlerPorts['settle'];
  readonly #link: SettlerPorts['link'];
  readonly #journal: WorkerJournal;
  readonly #options: SettlerPorts['options'];
  readonly #uploads: SettlerPorts['uploads'];
  #fresh = 0;
  #settledAt = Date.now();
  #lookedAt = 0;

  constructor({ link, settle, journal, options, uploads }: SettlerPorts) {
    this.#settle = settle;
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
  async look(server: Pick<AdapterServer, 'closeReceipts'>): Promise<void> {
    const due = Date.now() - this.#settledAt >= this.#options.settleMs || this.#fresh >= SETTLE_RECEIPTS;
    if (due || (await this.#isUrgent())) await this.settle(server);
    for (const [id, batch] of await this.#journal.batches()) {
      const pending = await this.#link.ledger.read(attribution.store.Batches, id);
      if (pending === undefined) await this.#journal.forgetBatch(id, batch);
    }
  }

  /** Whether a payer wants back what receipts that wait are to be paid from. */
  async #isUrgent(): Promise<boolean> {
    if (Date.now() - this.#lookedAt < URGENCY_MS) return false;
    this.#lookedAt = Date.now();
    const { ledger, account } = this.#link;
    for (const session of new Set((await this.#journal.unsettled()).map((group) => group.session))) {
      const found = await ledger.read(inference.store.Sessions, session);
      const reserved = await ledger.read(inference.store.Allocations, [session, account]);
      if (found?.closing !== undefined || reserved?.releasing !== undefined) return true;
    }
    return false;
  }

  /** Everything that can be settled now. What fails in one group keeps no other one from being paid. */
  async settle(server: Pick<AdapterServer, 'closeReceipts'>): Promise<void> {
    this.#settledAt = Date.now();
    this.#fresh = 0;
    let failed: { readonly problem: unknown } | undefined;
    for (const { session, adapter, receipts } of await this.#journal.unsettled()) {
      const ready = server.closeReceipts(session, adapter, receipts);
      if (ready.length === 0) continue;
      try {
        await this.#settleGroup(session, adapter, ready);
      } catch (problem) {
        failed ??= { problem };
      }
    }
    await this.#uploads.look();
    if (failed !== undefined) throw failed.problem;
  }

  async #settleGroup(session: SessionId, adapter: AdapterId, ready: readonly SignedInferenceReceipt[]): Promise<void> {
    const { ledger, account } = this.#link;
    const found = await ledger.read(inference.store.Sessions, session);
    const reserved = await ledger.read(inference.store.Allocations, [session, account]);
    if (found === undefined || reserved === undefined) {
      await this.#giveUp(ready, 'the session is over');
      return;
    }
    // What was settled before a crash is not offered twice.
    const last = inference.nonceIn(reserved, adapter);
    if (last !== undefined) await this.#journal.forgetReceipts(session, adapter, last);
    const waiting = ready.filter(({ payload }) => last === undefined || payload.voucher.payload.nonce > last);
    const serving = await ledger.read(inference.store.Serving, [adapter, account]);
    const terms = await this.#termsOf(adapter);
    // Under another lease they are worth nothing: whoever asked was free to ask others when the lease ended.
    const leased = ({ payload }: SignedInferenceReceipt): boolean => payload.lease === serving?.lease;
    const priced = ({ payload }: SignedInferenceReceipt): boolean => termsHold(terms, payload.voucher.payload);
    await this.#giveUp(
      waiting.filter((each) => !leased(each)),
      'they were answered under another lease',
    );
    await this.#giveUp(
      waiting.filter((each) => leased(each) && !priced(each)),
      'their price is no longer in force',
    );
    const { void: uncovered, covered } = coveredReceipts(
      reserved,
      waiting.filter((each) => leased(each) && priced(each)),
    );
    await this.#giveUp(uncovered, 'the session has taken back what would pay them');
    await this.#settleAll(covered);
  }

  async #termsOf(adapter: AdapterId): Promise<ServiceTerms> {
    const { ledger } = this.#link;
    const listed = await ledger.read(models.store.Adapters, adapter);
    const best = await ledger.bestNumber();
    if (listed === undefined) return { prices: [], markup: 0 };
    const { price, formerPrice, markup } = listed;
    // Of the next block, which the batch is for.
    const both = formerPrice !== undefined && best + 1 < formerPrice.until;
    return { prices: both ? [price, formerPrice.price] : [price], markup };
  }

  /** They stay in the journal, where their worker can look up what it was not paid for. */
  async #giveUp(receipts: readonly SignedInferenceReceipt[], why: string): Promise<void> {
    if (receipts.length === 0) return;
    await this.#journal.setAside(receipts, why);
    const fees = receipts.reduce((sum, { payload }) => sum + payload.fee, 0n);
    const { adapter } = receipts[0]!.payload.voucher.payload;
    this.#options.log(
      'error',
      `${receipts.length} receipts of adapter ${adapter} (${fees} of OPEN’s smallest unit) cannot be settled: ${why}`,
    );
  }

  /** By ascending nonce. Where the chain refuses a batch for good, its halves are tried: one bad receipt costs no other one. */
  async #settleAll(receipts: readonly SignedInferenceReceipt[]): Promise<void> {
    if (receipts.length === 0) return;
    const refusal = await this.#submit(receipts);
    if (refusal === undefined) return;
    if (receipts.length === 1) {
      await this.#giveUp(receipts, refusal);
      return;
    }
    const half = receipts.length >> 1;
    await this.#settleAll(receipts.slice(0, half));
    await this.#settleAll(receipts.slice(half));
  }

  /** Settles them as one batch. Resolves with the chain's reason where no later attempt can do better. */
  async #submit(receipts: readonly SignedInferenceReceipt[]): Promise<string | undefined> {
    const { hashing, log } = this.#options;
    const { batch, file } = receiptsBatch(hashing, receipts);
    const { session, adapter, firstNonce, lastNonce } = batch;
    const signed = { payload: batch, signature: this.#link.sign(hashOf(hashing, receiptBatch, batch)) };
    await this.#journal.keepFiles([{ hash: batch.blob, bytes: file }]);
    try {
      const id = await this.#settle(signed, BigInt(file.length));
      await this.#journal.keepBatch(id, { session, adapter: BigInt(adapter), firstNonce, lastNonce });
    } catch (problem) {
      const final = FINAL.find((each) => failedWith(problem, each));
      if (final === undefined) throw problem;
      await this.#journal.forgetFile(batch.blob);
      return final.docs;
    }
    this.#options.telemetry?.settled(batch.receipts);
    log('info', `settled ${batch.receipts} receipts of adapter ${adapter}`);
    await this.#journal.forgetReceipts(session, adapter, lastNonce);
    return undefined;
  }
}

/**
 * Of receipts by ascending nonce, those that the newest voucher among them (or one that was settled before) and the allocation
 * cover, and those before them that nothing covers any more: vouchers from before an allocation came back are void. Receipts
 * behind the covered ones wait for a newer voucher.
 */
export function coveredReceipts(
  { spent, promised, allocated }: inference.Allocation,
  receipts: readonly SignedInferenceReceipt[],
): { readonly void: readonly SignedInferenceReceipt[]; readonly covered: readonly SignedInferenceReceipt[] } {
  for (let first = 0; first < receipts.length; first++) {
    let need = spent;
    let end = first;
    for (let at = first; at < receipts.length; at++) {
      const { fee, voucher } = receipts[at]!.payload;
      need += fee;
      const { cumulative } = voucher.payload;
      if (need <= allocated && need <= (promised > cumulative ? promised : cumulative)) end = at + 1;
    }
    if (end > first) return { void: receipts.slice(0, first), covered: receipts.slice(first, end) };
  }
  return { void: [], covered: [] };
}
