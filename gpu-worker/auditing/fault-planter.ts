/**
 * Plants faults against auditors that do not look (see `runtime/primitives/attribution/planted.ts`). From time to time the
 * worker asks itself something about what its adapters were trained on, has the chain bend the answer's feature, settles it
 * like any other one, and says what it was once all verdicts are in. One fault at a time, journaled before each step: a
 * planted fault that is not revealed costs as much as any other.
 */
import { randomBytes } from 'node:crypto';
import { failedWith, LedgerError } from '../../rpc/client/errors.ts';
import { trainingReceiptOf } from '../../rpc/client/models.ts';
import { allocate, openSession, sessionOf, topUp } from '../../rpc/client/sessions.ts';
import { signVoucher, VoucherNonces } from '../../rpc/client/vouchers.ts';
import * as attribution from '../../runtime/pallets/ledger/attribution.ts';
import * as audits from '../../runtime/pallets/ledger/audits.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId, ReceiptBatchId, SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { batchLedger } from '../../runtime/primitives/attribution/ledger.ts';
import { bentFeature, MIN_PLANTED_K, plantedFault } from '../../runtime/primitives/attribution/planted.ts';
import { feeOf, inferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import type { RequestTerms } from '../../runtime/primitives/attribution/request.ts';
import { equalBytes, fromHex, fromUtf8 } from '../../runtime/primitives/bytes.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import type { Planting, WorkerOptions } from '../options.ts';
import type { AdapterServer } from '../serving/adapter-server.ts';
import { transcript } from '../serving/transcript.ts';
import type { WorkerJournal } from '../session/journal.ts';
import type { NodeLink } from '../session/link.ts';
import { snapshotRecords } from '../session/materials.ts';
import type { PlantedState } from '../session/planted-state.ts';

const DEPOSIT = 10n ** 18n;
const SAMPLING = [0, 700_000_000, 1_000_000_000] as const;
/** Blocks before the end of a batch's window, in which a fault that nobody has looked at is taken back. */
const REVEAL_MARGIN = 4;

export class FaultPlanter {
  readonly #link: NodeLink;
  readonly #journal: WorkerJournal;
  readonly #options: WorkerOptions;
  readonly #server: AdapterServer;
  readonly #planting: Planting;
  readonly #nonces = new VoucherNonces();
  #plantedAt = 0;
  /** The batch that its payer has asked an audit for. */
  #asked: ReceiptBatchId | undefined;

  constructor(
    link: NodeLink,
    journal: WorkerJournal,
    options: WorkerOptions,
    server: AdapterServer,
    planting: Planting,
  ) {
    this.#link = link;
    this.#journal = journal;
    this.#options = options;
    this.#server = server;
    this.#planting = planting;
  }

  async look(): Promise<void> {
    const state = await this.#journal.planted();
    if (state === undefined) {
      if (Date.now() - this.#plantedAt >= this.#planting.everyMs) await this.#begin();
    } else if (state.receipt === undefined) await this.#bend(state);
    else await this.#reveal(state);
  }

  /** Asks, and has the payer commit to what will be said. */
  async #begin(): Promise<void> {
    const { adapters } = this.#server;
    const adapter = adapters[Math.floor(Math.random() * adapters.length)] as AdapterId | undefined;
    const serving = adapter === undefined ? undefined : this.#server.served(adapter);
    if (adapter === undefined || serving === undefined) return;
    this.#plantedAt = Date.now();
    const { hashing, model } = this.#options;
    const { ledger, account } = this.#link;
    const { payer } = this.#planting;
    const { price, markup } = (await ledger.read(models.store.Adapters, adapter))!;
    const terms = await this.#question(adapter);
    const most = feeOf(price, model.info.maxPositions, terms.maxTokens);
    const session = await this.#session(most);
    const spent = (await ledger.read(inference.store.Allocations, [session, account]))?.spent ?? 0n;
    const nonce = this.#nonces.next();
    const promise = await signVoucher(hashing, payer, {
      chain: ledger.genesisHash,
      session,
      worker: account,
      nonce,
      cumulative: spent + most,
      ...{ most, adapter, price, markup },
      terms,
    });
    const { lease, rules } = serving;
    const made = await serving.adapter.answer({ voucher: promise, ...terms }, { worker: account, lease, rules });
    const { feature, outputTokensHash } = made.receipt;
    if (feature.length < MIN_PLANTED_K || feature.every((each) => each === 0)) {
      this.#options.log('debug', `adapter ${adapter} has features of ${feature.length} entries: no fault is planted`);
      return;
    }
    const planted = {
      ...{ worker: account, adapter, request: promise.payload.request, outputTokensHash, feature },
      salt: new Uint8Array(randomBytes(32)),
    };
    const said = { request: terms, text: made.text, tokens: [...made.tokens] };
    await this.#journal.keepPlanted({ session, planted, honest: made.receipt, said, receipt: undefined });
    await this.#commit(hashOf(hashing, plantedFault, planted));
  }

  async #commit(commitment: Hash): Promise<void> {
    await this.#link.ledger.submit(this.#planting.payer, audits.calls.plant, { commitment });
  }

  /** The request of somebody who is interested in what the adapter knows. */
  async #question(adapter: AdapterId): Promise<RequestTerms> {
    const { snapshot } = (await trainingReceiptOf(this.#link.ledger, adapter)).payload;
    const records = await snapshotRecords(this.#link, snapshot.datanet, snapshot.version);
    const { line } = records[Math.floor(Math.random() * records.length)]!;
    const { prompt, text = '' } = JSON.parse(fromUtf8(line)) as { prompt?: string; text?: string };
    const words = text.split(' ');
    return {
      input:
        prompt === undefined
          ? { type: 'Text', value: words.slice(0, Math.ceil(words.length / 2)).join(' ') }
          : { type: 'Chat', value: [{ role: 'user', content: prompt }] },
      maxTokens: 24 + Math.floor(Math.random() * 48),
      temperature: SAMPLING[Math.floor(Math.random() * SAMPLING.length)]!,
      topP: 1_000_000_000,
      seed: randomBytes(8).readBigUInt64LE(),
      stop: [],
    };
  }

  /** The payer's session, with enough allocated to this worker. */
  async #session(least: bigint): Promise<SessionId> {
    const { ledger, account } = this.#link;
    const { payer } = this.#planting;
    const kept = await this.#journal.plantSession();
    const id = kept as SessionId | undefined;
    const state = id === undefined ? undefined : await sessionOf(ledger, id);
    const usable =
      id !== undefined && state?.closing === undefined && state !== undefined && equalBytes(state.key, payer.publicKey);
    const amount = least > DEPOSIT ? least : DEPOSIT;
    if (usable) {
      const reserved = await ledger.read(inference.store.Allocations, [id, account]);
      if (reserved !== undefined && reserved.allocated - reserved.spent >= least) return id;
      await topUp(ledger, payer, id, amount + inference.ENTRY_DEPOSIT);
      await allocate(ledger, payer, id, account, amount);
      return id;
    }
    const opened = await openSession(ledger, payer, payer.publicKey, amount + inference.ENTRY_DEPOSIT);
    await this.#journal.keepPlantSession(opened);
    await allocate(ledger, payer, opened, account, amount);
    return opened;
  }

  /** Once the commitment's block is final: what its hash makes of the feature is settled like any other answer. */
  async #bend(state: PlantedState): Promise<void> {
    const { hashing, log } = this.#options;
    const { ledger } = this.#link;
    const { planted, honest, said } = state;
    const commitment = hashOf(hashing, plantedFault, planted);
    const plants = await ledger.read(audits.store.Plants, this.#planting.payer.account);
    const found = plants.find((each) => equalBytes(each.commitment, commitment));
    if (found === undefined) {
      // The process died between journal and chain.
      await this.#commit(commitment);
      return;
    }
    const head = await ledger.rpc.call<string>('chain_getFinalizedHead');
    const { number } = await ledger.rpc.call<{ number: string }>('chain_getHeader', head);
    if (Number(number) < found.at) return;
    const block = asHash(fromHex(await ledger.rpc.call<string>('chain_getBlockHash', found.at)));
    const serving = this.#server.served(planted.adapter);
    if (serving === undefined || serving.lease !== honest.lease) {
      await this.#journal.forgetPlanted();
      return;
    }
    const feature = bentFeature(hashing, planted, block);
    const payload = serving.adapter.withFeature(honest, said.tokens, feature, serving.rules.blend);
    const receipt = { payload, signature: this.#link.sign(hashOf(hashing, inferenceReceipt, payload)) };
    await this.#journal.keepPlanted({ ...state, receipt });
    await this.#journal.keep(receipt, encode(transcript, said), said.text);
    this.#server.settleSoon();
    log('info', `a fault is planted: receipt ${honest.voucher.payload.nonce} of adapter ${planted.adapter}`);
  }

  /** The batch whose window is open and that holds the receipt. */
  async #batchWith(session: SessionId, nonce: bigint): Promise<{ id: ReceiptBatchId; until: number } | undefined> {
    for await (const [id, { batch, until }] of this.#link.ledger.entries(attribution.store.Batches)) {
      if (batch.session === session && batch.firstNonce <= nonce && nonce <= batch.lastNonce) return { id, until };
    }
    return undefined;
  }

  /** When nobody can change a verdict any more, or nobody was drawn to give one. */
  async #reveal(state: PlantedState): Promise<void> {
    const { ledger } = this.#link;
    const receipt = state.receipt!;
    const { nonce } = receipt.payload.voucher.payload;
    const { account } = this.#link;
    // In this order: what is settled by then is among the batches, or its window is over.
    const reserved = await ledger.read(inference.store.Allocations, [state.session, account]);
    const last = reserved && inference.nonceIn(reserved, state.planted.adapter);
    const open = await this.#batchWith(state.session, nonce);
    if (open === undefined) {
      if (last !== undefined && last >= nonce) await this.#journal.forgetPlanted();
      // A crash may have come between the two notes in the journal.
      else await this.#journal.keep(receipt, encode(transcript, state.said), state.said.text);
      return;
    }
    const { id, until } = open;
    const best = await ledger.bestNumber();
    const found = (await Array.fromAsync(ledger.entries(audits.store.Audits))).find(
      ([, { subject }]) => subject.type === 'Batch' && subject.value === id,
    );
    if (found === undefined && best + REVEAL_MARGIN < until) {
      await this.#askForAudit(id);
      return;
    }
    if (found !== undefined && best < found[1].commitUntil) return;
    const [item] = batchLedger([receipt]).items;
    const audit = found?.[0];
    try {
      const { planted } = state;
      await this.#link.submit(attribution.calls.revealFault, { batch: id, receipt: item!, planted, audit });
      this.#options.log(
        'info',
        `the fault in batch ${id} was planted: told${audit === undefined ? '' : ` to audit ${audit}`}`,
      );
    } catch (problem) {
      if (!failedWith(problem, audits.errors.UnknownAudit)) throw problem;
    }
    await this.#journal.forgetPlanted();
  }

  /** Chance alone would have few faults looked at: the payer pays for it, as anybody may. */
  async #askForAudit(id: ReceiptBatchId): Promise<void> {
    const { ledger } = this.#link;
    if (this.#asked === id) return;
    this.#asked = id;
    try {
      const subject = { type: 'Batch' as const, value: id };
      await ledger.submit(this.#planting.payer, attribution.calls.requestAudit, { subject });
    } catch (problem) {
      if (!(problem instanceof LedgerError)) throw problem;
      // It was drawn by chance, or nobody is there who could look.
      this.#options.log('debug', `no audit of batch ${id} was ordered: ${problem.code}`);
    }
  }
}
