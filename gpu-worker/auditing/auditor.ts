/**
 * A worker's side of audits: it discloses what is asked of its own answers, and where it is drawn, makes the work of
 * others again, commits to what it found and reveals it. A verdict is journaled before its commitment leaves.
 */
import { randomBytes } from 'node:crypto';
import { LedgerError } from '../../rpc/client/errors.ts';
import * as attribution from '../../runtime/pallets/ledger/attribution.ts';
import * as audits from '../../runtime/pallets/ledger/audits.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import { api } from '../../runtime/pallets/standard/aura.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { blobName } from '../../runtime/primitives/attribution/commitment.ts';
import type { AdapterId, ReceiptBatchId } from '../../runtime/primitives/attribution/ids.ts';
import { batchFile } from '../../runtime/primitives/attribution/ledger.ts';
import { receiptRules } from '../../runtime/primitives/attribution/split.ts';
import { decode } from '../../runtime/primitives/scale/codec.ts';
import { type AccountId, sameAccount } from '../../runtime/primitives/types.ts';
import type { WorkerOptions } from '../options.ts';
import { ServedAdapter } from '../serving/served-adapter.ts';
import type { WorkerJournal } from '../session/journal.ts';
import type { NodeLink } from '../session/link.ts';
import { adapterMaterial, orderTerms, snapshotRecords } from '../session/materials.ts';
import type { Uploads } from '../session/uploads.ts';
import { type Fault, judgeAnswer, judgeTraining } from './judge.ts';

/** Blocks that a commitment needs to get into one. */
const MARGIN = 2;

export class Auditor {
  readonly #link: NodeLink;
  readonly #journal: WorkerJournal;
  readonly #options: WorkerOptions;
  readonly #uploads: Uploads;
  /** One at a time: the engine has other work as well. */
  #judging: { readonly audit: number; readonly done: Promise<void> } | undefined;

  constructor(link: NodeLink, journal: WorkerJournal, options: WorkerOptions, uploads: Uploads) {
    this.#link = link;
    this.#journal = journal;
    this.#options = options;
    this.#uploads = uploads;
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    await this.#judging?.done;
  }

  async look(signal: AbortSignal): Promise<void> {
    const { ledger } = this.#link;
    const best = await ledger.bestNumber();
    const entries = await Array.fromAsync(ledger.entries(audits.store.Audits));
    // Each step waits for a block: one after the other, some would come too late.
    await Promise.all(entries.map(([id, audit]) => this.#step(id, audit, best, signal)));
    const open = new Set(entries.map(([id]) => id));
    for (const id of (await this.#journal.verdicts()).keys()) {
      if (!open.has(Number(id))) await this.#journal.forgetVerdict(Number(id));
    }
  }

  /** What this worker has to do in an audit now, if anything. */
  async #step(id: number, audit: audits.Audit, best: number, signal: AbortSignal): Promise<void> {
    const { account } = this.#link;
    if (sameAccount(audit.accused, account)) await this.#disclose(id, audit, best);
    const own = audit.auditors.find((each) => sameAccount(each.account, account));
    if (own === undefined || own.verdict !== undefined || own.unavailable) return;
    if (own.commitment === undefined) {
      if (best + MARGIN <= audit.commitUntil) await this.#commit(id, audit, best, signal);
    } else if (best >= audit.commitUntil && best + 1 < audit.revealUntil) await this.#reveal(id);
  }

  // ---- as the accused ------------------------------------------------------------------------------------------

  async #disclose(id: number, { subject, item, disclosed, discloseUntil }: audits.Audit, best: number): Promise<void> {
    if (subject.type !== 'Batch' || disclosed !== undefined || best >= discloseUntil) return;
    const { ledger } = this.#link;
    const pending = await ledger.read(attribution.store.Batches, subject.value);
    if (pending === undefined) return;
    const { session, adapter, blob } = pending.batch;
    const file = (await this.#journal.file(blob)) ?? (await ledger.blobs.get(blob));
    const { items } = decode(batchFile, file);
    const { nonce } = items[item % items.length]!.receipt.payload.voucher.payload;
    const bytes = await this.#journal.transcript(session, adapter, nonce);
    if (bytes === undefined) {
      this.#options.log('error', `audit ${id}: what was said for request ${nonce} is not in the journal`);
      return;
    }
    const hash = blobName(this.#options.hashing, bytes);
    await this.#journal.keepFiles([{ hash, bytes }]);
    await this.#link.submit(audits.calls.disclose, { audit: id, blob: hash, bytes: BigInt(bytes.length) });
    await this.#uploads.look();
  }

  // ---- as an auditor -------------------------------------------------------------------------------------------

  async #commit(id: number, audit: audits.Audit, best: number, signal: AbortSignal): Promise<void> {
    const { hashing } = this.#options;
    const verdict = await this.#journal.verdict(id);
    if (verdict === undefined) {
      this.#begin(id, audit, best, signal);
      return;
    }
    const made = { audit: id, auditor: this.#link.account, ...verdict };
    await this.#link.submit(audits.calls.commit, {
      audit: id,
      commitment: hashOf(hashing, audits.auditVerdict, made),
    });
  }

  async #reveal(id: number): Promise<void> {
    const verdict = await this.#journal.verdict(id);
    if (verdict === undefined) return;
    await this.#link.submit(audits.calls.reveal, { audit: id, ...verdict });
  }

  /** Begins to look into an audit, if nothing else is under way. */
  #begin(id: number, audit: audits.Audit, best: number, signal: AbortSignal): void {
    if (this.#judging !== undefined) return;
    const { log } = this.#options;
    const done = this.#judge(audit, best, signal)
      .then(async (fault) => {
        if (fault === 'LATER') return;
        if (fault === 'UNAVAILABLE') {
          // Whose fault that is, the chain knows: validators attest what is there.
          await this.#link.submit(audits.calls.abstain, { audit: id });
          log('warn', `audit ${id}: what it needs cannot be had`);
          return;
        }
        const faulty = fault !== undefined;
        this.#options.telemetry?.audited(faulty);
        log(faulty ? 'warn' : 'info', `audit ${id}: ${fault ?? 'nothing wrong'}`);
        await this.#journal.keepVerdict(id, { faulty, salt: new Uint8Array(randomBytes(32)) });
      })
      .catch((problem: Error) => {
        if (!signal.aborted) log('error', `audit ${id}: ${problem.message}`);
      })
      .finally(() => {
        this.#judging = undefined;
      });
    this.#judging = { audit: id, done };
  }

  /** `LATER`: files or a disclosure may still come. */
  async #judge(audit: audits.Audit, best: number, signal: AbortSignal): Promise<Fault | 'LATER' | undefined> {
    const { subject, commitUntil, disclosed, discloseUntil } = audit;
    if (subject.type === 'Batch' && disclosed === undefined && best < discloseUntil) return 'LATER';
    const left = (commitUntil - best - MARGIN) * (await this.#slotMs());
    try {
      if (subject.type === 'Training') return await this.#judgeTraining(subject.value, audit, left, signal);
      return await this.#judgeAnswer(subject.value, audit);
    } catch (problem) {
      if (!(problem instanceof LedgerError && problem.code === 'BLOB_NOT_FOUND')) throw problem;
      return best + MARGIN + 1 >= commitUntil ? 'UNAVAILABLE' : 'LATER';
    }
  }

  async #slotMs(): Promise<number> {
    return Number(await this.#link.ledger.ask(api.methods.slot_duration, {}));
  }

  /** Whether the accused says that it works with the same engine, so that all bits must agree. */
  async #isExact(accused: AccountId): Promise<boolean> {
    const { exact, engine } = this.#options;
    if (!exact) return false;
    const found = await this.#link.ledger.read(compute.store.Workers, accused);
    return found?.capabilities.engine === engine;
  }

  async #judgeTraining(
    id: AdapterId,
    { accused, item }: audits.Audit,
    left: number,
    signal: AbortSignal,
  ): Promise<Fault | undefined> {
    const { hashing, model } = this.#options;
    const material = await adapterMaterial(this.#link, id);
    const { order, snapshot } = material.training;
    const { base, net } = await orderTerms(this.#link, order);
    const records = await snapshotRecords(this.#link, snapshot.datanet, snapshot.version);
    return judgeTraining(hashing, model, {
      material,
      contributors: records.map(({ contributor }) => contributor),
      item,
      dedupThreshold: net.dedupThreshold,
      baseName: base.manifest.name,
      exact: await this.#isExact(accused),
      state: (blob) => this.#link.ledger.blobs.get(blob),
      deadline: AbortSignal.any([signal, AbortSignal.timeout(Math.max(0, left))]),
    });
  }

  async #judgeAnswer(id: ReceiptBatchId, { accused, item, disclosed }: audits.Audit): Promise<Fault | undefined> {
    const { hashing, signatures, model } = this.#options;
    const { ledger } = this.#link;
    const pending = await ledger.read(attribution.store.Batches, id);
    // Struck by a challenge meanwhile: nothing hangs on the verdict.
    if (pending === undefined) return undefined;
    const { batch, key, terms, rules } = pending;
    const file = await ledger.blobs.get(batch.blob);
    const served = await ServedAdapter.open(hashing, model, await adapterMaterial(this.#link, batch.adapter));
    try {
      return await judgeAnswer({ ...hashing, ...signatures }, model, served, {
        batch,
        file,
        item,
        disclosed: disclosed === undefined ? undefined : await ledger.blobs.get(disclosed.blob),
        sessionKey: key,
        rules: receiptRules(rules, terms.markup),
        exact: await this.#isExact(accused),
      });
    } finally {
      await served.close();
    }
  }
}
