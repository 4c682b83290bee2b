/**
 * Paid requests at a worker. A voucher is answered once: who asks again under it (the connection was lost, the worker or its
 * node died) joins the answer that is under way, or hears the one in the journal, with the receipt that was signed then. An
 * answer that died with the process before its receipt was journaled is made again. So no voucher ever has two receipts, and
 * the chain pays one: vouchers of a session, worker and adapter are settled by ascending nonce, each nonce once.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { type JsonRpcClient, JsonRpcError } from '../../rpc/client/json-rpc.ts';
import type { LedgerReads } from '../../rpc/client/ledger.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId, SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { MAX_BATCH_RECEIPTS } from '../../runtime/primitives/attribution/limits.ts';
import { type GenerationRequest, generationRequest } from '../../runtime/primitives/attribution/messages.ts';
import {
  feeOf,
  inferenceReceipt,
  type ServiceTerms,
  type SignedInferenceReceipt,
  signedInferenceReceipt,
  signedVoucher,
  termsHold,
  type Voucher,
} from '../../runtime/primitives/attribution/receipts.ts';
import { asksFor } from '../../runtime/primitives/attribution/request.ts';
import type { ReceiptRules } from '../../runtime/primitives/attribution/verify.ts';
import { equalBytes, fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import type { WorkerOptions } from '../options.ts';
import type { WorkerJournal } from '../session/journal.ts';
import type { NodeLink } from '../session/link.ts';
import { promptOf, type ServedAdapter } from './served-adapter.ts';
import { transcript } from './transcript.ts';

/** An adapter as it is served now. */
export interface Served {
  readonly adapter: ServedAdapter;
  readonly lease: inference.Serving['lease'];
  readonly rules: ReceiptRules;
}

/** What a session's answered and accepted requests may cost together, the settled ones included. */
interface Account {
  spent: bigint;
  promised: bigint;
}

/** What a session has allocated, and what the adapter costs. */
interface Covered {
  readonly at: number;
  readonly allocated: bigint;
  readonly terms: ServiceTerms;
}

interface Promised {
  readonly nonce: bigint;
  readonly cumulative: bigint;
}

/** The connection that a request came over, and what it is called there. */
interface Asker {
  readonly line: JsonRpcClient;
  readonly job: string;
}

interface UnderWay extends Promised {
  readonly most: bigint;
  readonly voucher: Uint8Array;
  /** Ends generation; what was said until then is paid. */
  readonly stop: AbortController;
  /** Who hears it: the last one that asked. */
  asker: Asker;
  said: string;
  /** The worker ends: nothing is signed, and whoever asked may ask somebody else. */
  dropped: boolean;
  done: Promise<void>;
}

/** Requests of one session for one adapter, which are settled together. */
interface Group {
  /** Nonces up to this one are settled, or in a batch that is being settled. */
  closed: bigint;
  /** Of the answered ones, the newest: a batch is settled by its promise. */
  newest: Promised | undefined;
  readonly underWay: Map<bigint, UnderWay>;
}

class Refusal extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** Answers that can be asked for again: how long, and how many. */
const KEPT_MS = 900_000;
const MAX_KEPT = 4_096;
/** Receipts that were not paid are kept so long, for people to look at. */
const UNPAID_MS = 30 * 86_400_000;
const TIDY_MS = 60_000;
/** How long a voucher may be ahead of finality: its allocation is in a block, and will be in a final one. */
const FINAL_MS = 30_000;
const LOOK_MS = 500;
/** What was looked up for a request holds for others for so long: in far less time than payers leave to settle. */
const COVERED_MS = 15_000;

const groupName = (session: bigint, adapter: number): string => `${session}/${adapter}`;

export class PaidRequests {
  readonly #link: NodeLink;
  readonly #journal: WorkerJournal;
  readonly #options: WorkerOptions;
  readonly #served: (adapter: number) => Served | undefined;
  /** Told of every receipt that waits for settlement. */
  readonly #kept: () => void;
  readonly #jobs = new Map<string, UnderWay>();
  readonly #accounts = new Map<bigint, Promise<Account>>();
  readonly #groups = new Map<string, Group>();
  readonly #groupReads = new Map<string, Promise<Group>>();
  /** What final blocks said, by session and adapter. */
  readonly #covered = new Map<string, Covered>();
  #tidiedAt = 0;
  #dropped = false;

  constructor(
    link: NodeLink,
    journal: WorkerJournal,
    options: WorkerOptions,
    served: (adapter: number) => Served | undefined,
    kept: () => void,
  ) {
    this.#link = link;
    this.#journal = journal;
    this.#options = options;
    this.#served = served;
    this.#kept = kept;
  }

  /** What sessions owe by receipts that wait in the journal: once, before the first job. */
  async recover(): Promise<void> {
    for (const { session, adapter, receipts } of await this.#journal.unsettled()) {
      const account = await this.#account(session);
      const group = await this.#group(session, adapter);
      // A batch may have been settled without this process living to note it: the chain has counted that.
      const waiting = receipts.filter(({ payload }) => payload.voucher.payload.nonce > group.closed);
      this.#options.telemetry?.waiting(waiting.length);
      for (const { payload } of waiting) account.spent += payload.fee;
      group.newest = waiting.at(-1)?.payload.voucher.payload;
    }
  }

  /** From time to time: answers that nobody asks for any more are forgotten, and receipts that were set aside long ago. */
  async tidy(): Promise<void> {
    const now = Date.now();
    if (now - this.#tidiedAt < TIDY_MS) return;
    this.#tidiedAt = now;
    for (const [name, { at }] of this.#covered) if (now - at >= COVERED_MS) this.#covered.delete(name);
    await this.#journal.forgetAnswers(now - KEPT_MS, MAX_KEPT);
    await this.#journal.forgetUnpaid(now - UNPAID_MS, MAX_KEPT);
  }

  /** Whether something is being answered by that adapter. */
  isBusy(adapter: number): boolean {
    return [...this.#groups].some(([name, { underWay }]) => name.endsWith(`/${adapter}`) && underWay.size > 0);
  }

  /**
   * Of a group's waiting receipts (by ascending nonce), those that can be settled together now: none that is under way comes
   * before them. From here on none is taken that would.
   */
  close(
    session: SessionId,
    adapter: AdapterId,
    receipts: readonly SignedInferenceReceipt[],
  ): readonly SignedInferenceReceipt[] {
    const group = this.#groups.get(groupName(session, adapter)) ?? this.#enter(session, adapter, 0n);
    const open = [...group.underWay.keys()];
    const nonceOf = ({ payload }: SignedInferenceReceipt): bigint => payload.voucher.payload.nonce;
    const first = receipts.findIndex((each) => open.some((nonce) => nonce <= nonceOf(each)));
    const ready = receipts.slice(0, Math.min(first < 0 ? receipts.length : first, MAX_BATCH_RECEIPTS));
    const last = ready.at(-1);
    if (last !== undefined && nonceOf(last) > group.closed) group.closed = nonceOf(last);
    return ready;
  }

  /** Read once, however many ask at the same time: requests keep the order in which they came. */
  #account(session: SessionId): Promise<Account> {
    const before = this.#accounts.get(session);
    if (before !== undefined) return before;
    const reading = (async (): Promise<Account> => {
      return { spent: (await this.#allocation(session))?.spent ?? 0n, promised: 0n };
    })();
    this.#accounts.set(session, reading);
    reading.catch(() => this.#accounts.delete(session));
    return reading;
  }

  #group(session: SessionId, adapter: AdapterId): Promise<Group> {
    const name = groupName(session, adapter);
    const before = this.#groupReads.get(name);
    if (before !== undefined) return before;
    const reading = (async (): Promise<Group> => {
      const reserved = await this.#allocation(session);
      const last = reserved && inference.nonceIn(reserved, adapter);
      return this.#groups.get(name) ?? this.#enter(session, adapter, last ?? 0n);
    })();
    this.#groupReads.set(name, reading);
    reading.catch(() => this.#groupReads.delete(name));
    return reading;
  }

  #allocation(session: SessionId): Promise<inference.Allocation | undefined> {
    const { ledger, account } = this.#link;
    return ledger.read(inference.store.Allocations, [session, account]);
  }

  /**
   * Whether the chain will pay under that voucher, whatever its payer does from now on: by what a final block says, as long
   * as no later one says otherwise. Throws a Refusal.
   */
  async #cover(account: Account, { session, adapter, cumulative, price, markup }: Voucher): Promise<void> {
    const { ledger, account: self } = this.#link;
    const name = groupName(session, adapter);
    const known = this.#covered.get(name);
    const fresh = known !== undefined && Date.now() - known.at < COVERED_MS;
    if (fresh && cumulative <= known.allocated && termsHold(known.terms, { price, markup })) return;
    const look = async (at: Pick<LedgerReads, 'readTogether'>) => {
      const [found, reserved] = await at.readTogether([
        ledger.query(inference.store.Sessions, session),
        ledger.query(inference.store.Allocations, [session, self]),
      ]);
      const fault = found === undefined ? 'UNKNOWN_SESSION' : inference.coverFault(found, reserved, cumulative);
      return { fault, reserved };
    };
    const until = Date.now() + FINAL_MS;
    for (;;) {
      const [best, final, [listed, own, limits]] = await Promise.all([
        look(ledger),
        ledger.rpc.call<string>('chain_getFinalizedHead').then((block) => look(ledger.at(block))),
        ledger.readTogether([
          ledger.query(models.store.Adapters, adapter),
          ledger.query(compute.store.Workers, self),
          ledger.query(compute.store.Parameters),
        ]),
      ]);
      if (listed === undefined || !termsHold({ prices: [listed.price], markup: listed.markup }, { price, markup }))
        throw new Refusal('WRONG_PRICE', 'the voucher was signed at another price than the adapter’s');
      if (own === undefined || own.leaving !== undefined || !compute.hasFullBond(own, limits))
        throw new Refusal('NOT_SERVED', 'the worker is leaving the ledger, or has not its full bond');
      if (best.fault !== undefined || best.reserved === undefined)
        throw new Refusal('NOT_COVERED', `the session has not allocated what the voucher promises: ${best.fault}`);
      if (!this.#hasPlace(session, adapter, best.reserved))
        throw new Refusal('TOO_MANY_ADAPTERS', 'the session pays this worker for as many adapters as it may');
      // More than is known here is spent where an allocation came back: vouchers from before it are worth nothing.
      if (best.reserved.spent > account.spent) account.spent = best.reserved.spent;
      if (final.fault === undefined && final.reserved !== undefined) {
        const terms = { prices: [listed.price], markup: listed.markup };
        this.#covered.set(name, { at: Date.now(), allocated: final.reserved.allocated, terms });
        return;
      }
      if (Date.now() > until) throw new Refusal('NOT_COVERED', `no final block covers the voucher: ${final.fault}`);
      await pause(LOOK_MS);
    }
  }

  /** Whether the chain can note that one more adapter was paid, beside those with receipts that wait. */
  #hasPlace(session: SessionId, adapter: AdapterId, reserved: inference.Allocation): boolean {
    const noted = (id: number): boolean => inference.nonceIn(reserved, id as AdapterId) !== undefined;
    if (noted(adapter)) return true;
    const waiting = [...this.#groups].filter(([name, { newest, underWay }]) => {
      const [of, id] = name.split('/');
      return of === String(session) && !noted(Number(id)) && (newest !== undefined || underWay.size > 0);
    });
    return reserved.nonces.length + waiting.length < inference.MAX_NONCES;
  }

  #enter(session: bigint, adapter: number, closed: bigint): Group {
    const fresh: Group = { closed, newest: undefined, underWay: new Map() };
    this.#groups.set(groupName(session, adapter), fresh);
    return fresh;
  }

  // ---- jobs --------------------------------------------------------------------------------------------------

  /** A message of the node's. `line`: the connection that it came over, and that the answer goes back over. */
  hear(line: JsonRpcClient, message: { readonly type: string; readonly job: string; readonly request?: string }): void {
    const asker = { line, job: message.job };
    if (message.type === 'cancel') this.#jobs.get(message.job)?.stop.abort();
    else this.#take(asker, message.request ?? '').catch((problem: unknown) => this.#refuse(asker, problem));
  }

  #refuse({ line, job }: Asker, problem: unknown): void {
    if (problem instanceof JsonRpcError && problem.data === 'UNKNOWN_JOB') return;
    const code = problem instanceof Refusal ? problem.code : ((problem as { code?: string }).code ?? 'FAILED');
    line.call('worker_refuse', job, String(code), (problem as Error).message.slice(0, 500)).catch(() => {});
  }

  async #take(asker: Asker, encoded: string): Promise<void> {
    const request = decode(generationRequest, fromHex(encoded));
    const { session, adapter, nonce } = request.voucher.payload;
    // The node has looked already, but it is this worker who answers for it.
    if (!asksFor(this.#options.hashing, request.voucher.payload, request))
      throw new Refusal('OTHER_REQUEST', 'the voucher was signed for another request');
    const signed = encode(signedVoucher, request.voucher);
    const [account, group] = [await this.#account(session), await this.#group(session, adapter)];
    const before = this.#again(group, request, signed, asker);
    if (before !== undefined) return before;
    await this.#cover(account, request.voucher.payload);
    // The same may have been asked in the meantime. From here on nothing is waited for: a voucher is answered once.
    const meanwhile = this.#again(group, request, signed, asker);
    if (meanwhile !== undefined) return meanwhile;
    if (this.#dropped) throw new Refusal('STOPPING', 'the worker ends');
    if (nonce <= group.closed) throw new Refusal('STALE_VOUCHER', 'later vouchers are settled: this one pays nothing');
    const served = this.#served(adapter);
    if (served === undefined) throw new Refusal('NOT_SERVED', `adapter ${adapter} is not served here`);
    this.#begin(account, group, served, request, { voucher: signed, asker });
  }

  /** Where that voucher was answered, or is being answered: hands the answer over. Undefined where it was not. */
  #again(
    group: Group,
    { voucher: { payload } }: GenerationRequest,
    signed: Uint8Array,
    asker: Asker,
  ): Promise<void> | undefined {
    const { session, adapter, nonce } = payload;
    if (this.#join(group, nonce, signed, asker)) return Promise.resolve();
    const kept = this.#journal.answer(session, adapter, nonce);
    if (kept === undefined) return undefined;
    if (!equalBytes(encode(signedVoucher, kept.receipt.payload.voucher), signed))
      throw new Refusal('STALE_VOUCHER', 'another voucher of that nonce was answered');
    return this.#deliver(asker, kept.receipt, kept.text);
  }

  /** Whether that voucher is being answered: its answer goes to `asker` from here on. */
  #join(group: Group, nonce: bigint, voucher: Uint8Array, asker: Asker): boolean {
    const found = group.underWay.get(nonce);
    if (found === undefined) return false;
    if (!equalBytes(found.voucher, voucher))
      throw new Refusal('STALE_VOUCHER', 'another voucher of that nonce is being answered');
    found.asker = asker;
    this.#jobs.set(asker.job, found);
    if (found.said !== '') asker.line.call('worker_delta', asker.job, found.said).catch(() => {});
    return true;
  }

  /** Throws a Refusal where the promises made do not cover it; what fails later is told to whoever asked last. */
  #begin(
    account: Account,
    group: Group,
    served: Served,
    request: GenerationRequest,
    { voucher, asker }: { readonly voucher: Uint8Array; readonly asker: Asker },
  ): void {
    const { tokenizer } = this.#options.model;
    const { nonce, cumulative, price, most: signed } = request.voucher.payload;
    const tokensIn = tokenizer.encode(promptOf(tokenizer, request.input)).length;
    // All of it or nothing: an answer that ends for want of money would not be the one that was asked for.
    const most = feeOf(price, tokensIn, request.maxTokens);
    if (most > signed)
      throw new Refusal('VOUCHER_TOO_SMALL', 'the answer may cost more than the voucher allows for it');
    const need = account.spent + account.promised + most;
    // A batch is paid by its newest voucher: each that may come to be that one has to cover this request and those before it.
    const own = group.newest !== undefined && group.newest.nonce > nonce ? group.newest : { nonce, cumulative };
    const open = [...group.underWay.values()];
    const after = (of: bigint): bigint => open.reduce((sum, each) => (each.nonce > of ? sum + each.most : sum), 0n);
    const bounds: Promised[] = [own, ...open.filter((each) => each.nonce > nonce)];
    if (bounds.some((each) => each.cumulative < need - after(each.nonce)))
      throw new Refusal('VOUCHER_TOO_SMALL', 'the voucher does not pay for this request');
    account.promised += most;
    const entry: UnderWay = {
      ...{ nonce, cumulative, most, voucher, asker, stop: new AbortController(), said: '', dropped: false },
      done: Promise.resolve(),
    };
    group.underWay.set(nonce, entry);
    this.#jobs.set(asker.job, entry);
    entry.done = this.#answer(account, group, served, request, entry)
      .finally(() => {
        account.promised -= most;
        group.underWay.delete(nonce);
        for (const [job, each] of this.#jobs) if (each === entry) this.#jobs.delete(job);
      })
      .then((receipt) => this.#deliver(entry.asker, receipt.receipt, receipt.text))
      .catch((problem: unknown) => this.#refuse(entry.asker, problem));
  }

  /** Generates, attributes, signs, journals. */
  async #answer(
    account: Account,
    group: Group,
    { adapter, lease, rules }: Served,
    { voucher, ...asked }: GenerationRequest,
    entry: UnderWay,
  ): Promise<{ readonly receipt: SignedInferenceReceipt; readonly text: string }> {
    const { hashing, telemetry } = this.#options;
    const made = await adapter.answer(
      { voucher, ...asked },
      { worker: this.#link.account, lease, rules },
      {
        signal: entry.stop.signal,
        token: (delta) => {
          if (delta === '') return;
          entry.said += delta;
          entry.asker.line.call('worker_delta', entry.asker.job, delta).catch(() => {});
        },
      },
    );
    if (entry.dropped) throw new Refusal('STOPPING', 'the worker ends');
    const { receipt: payload, text, tokens, generationMs, attributionMs } = made;
    const receipt = { payload, signature: this.#link.sign(hashOf(hashing, inferenceReceipt, payload)) };
    await this.#journal.keep(receipt, encode(transcript, { request: asked, text, tokens: [...tokens] }), text);
    account.spent += payload.fee;
    if (group.newest === undefined || group.newest.nonce < entry.nonce) group.newest = voucher.payload;
    this.#kept();
    const { tokensIn, tokensOut } = payload;
    telemetry?.answered({ tokensIn, tokensOut, generationMs, attributionMs });
    return { receipt, text };
  }

  /** Nobody may be there to hear it: it is in the journal then. */
  async #deliver({ line, job }: Asker, receipt: SignedInferenceReceipt, text: string): Promise<void> {
    await line.call('worker_answer', job, toHex(encode(signedInferenceReceipt, receipt)), text);
  }

  /** The worker ends: what is under way is refused, so that it can be asked of another one and is not paid here. */
  async drop(): Promise<void> {
    this.#dropped = true;
    const all = [...this.#groups.values()].flatMap(({ underWay }) => [...underWay.values()]);
    for (const entry of all) {
      entry.dropped = true;
      entry.stop.abort();
    }
    await Promise.allSettled(all.map(({ done }) => done));
  }
}
