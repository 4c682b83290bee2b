/** Serves adapters: opens what is live, answers the node's jobs, signs and journals a receipt for each answer. */
import { type JsonRpcClient, JsonRpcError } from '../rpc/client/json-rpc.ts';
import { idOfKey, LedgerError } from '../rpc/client/ledger.ts';
import { generationRequest } from '../rpc/inference-codecs.ts';
import * as inference from '../runtime/pallets/inference.ts';
import * as models from '../runtime/pallets/models.ts';
import { hashOf } from '../runtime/primitives/attribution/canonical.ts';
import type { AdapterId } from '../runtime/primitives/attribution/ids.ts';
import {
  feeOf,
  inferenceReceipt,
  type SignedInferenceReceipt,
  signedInferenceReceipt,
} from '../runtime/primitives/attribution/receipts.ts';
import { asksFor } from '../runtime/primitives/attribution/request.ts';
import { DEFAULT_RULES, receiptRules, rules } from '../runtime/primitives/attribution/split.ts';
import type { ReceiptRules } from '../runtime/primitives/attribution/verify.ts';
import { fromHex, toHex } from '../runtime/primitives/bytes.ts';
import { decode, encode, u64 } from '../runtime/primitives/scale/codec.ts';
import { balance } from '../runtime/primitives/types.ts';
import type { WorkerJournal } from './journal.ts';
import type { NodeLink } from './link.ts';
import { adapterMaterial } from './materials.ts';
import type { Standing, WorkerOptions } from './options.ts';
import { isPassing } from './passing.ts';
import { promptOf, ServedAdapter } from './serving.ts';
import { transcript } from './transcript.ts';

interface Serving {
  readonly adapter: ServedAdapter;
  readonly lease: inference.Serving['lease'];
  readonly markup: number;
}

/** What a session's answered and accepted requests may cost together, the settled ones included. */
interface Account {
  spent: bigint;
  promised: bigint;
  nonce: bigint;
}

class Refusal extends Error {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

const max = (a: bigint, b: bigint): bigint => (a > b ? a : b);

export class AdapterServer {
  readonly #link: NodeLink;
  readonly #journal: WorkerJournal;
  readonly #options: WorkerOptions;
  /** Told of every receipt that waits for settlement. */
  readonly #kept: () => void;
  #rules = DEFAULT_RULES;
  readonly #served = new Map<number, Serving>();
  readonly #refused = new Set<number>();
  /** No longer live, with receipts to settle. */
  readonly #ending = new Set<number>();
  readonly #jobs = new Map<string, AbortController>();
  readonly #accounts = new Map<bigint, Account>();
  /** Nonces under way, by session and adapter. */
  readonly #underWay = new Map<string, Set<bigint>>();

  constructor(link: NodeLink, journal: WorkerJournal, options: WorkerOptions, kept: () => void) {
    this.#link = link;
    this.#journal = journal;
    this.#options = options;
    this.#kept = kept;
  }

  get adapters(): number[] {
    return [...this.#served.keys()];
  }

  /** An adapter that is served, with what its receipts are made by. */
  served(id: number): (Omit<Serving, 'markup'> & { readonly rules: ReceiptRules }) | undefined {
    const found = this.#served.get(id);
    return found && { ...found, rules: receiptRules(this.#rules, found.markup) };
  }

  /** A receipt was put into the journal by somebody else. */
  settleSoon(): void {
    this.#kept();
  }

  /** Whether receipts up to that nonce can be settled: none that is under way comes before it. */
  isSettled(session: bigint, adapter: number, nonce: bigint): boolean {
    for (const each of this.#underWay.get(`${session}/${adapter}`) ?? []) if (each <= nonce) return false;
    return true;
  }

  /** What sessions owe by receipts that wait in the journal: once, before the first job. */
  async recover(): Promise<void> {
    for (const { session, receipts } of await this.#journal.unsettled()) {
      const account = await this.#account(session);
      this.#options.telemetry?.waiting(receipts.length);
      for (const { payload } of receipts) {
        account.spent += payload.fee;
        account.nonce = max(account.nonce, payload.voucher.payload.nonce);
      }
    }
  }

  async #account(session: bigint): Promise<Account> {
    const before = this.#accounts.get(session);
    if (before !== undefined) return before;
    const { ledger, pair } = this.#link;
    const [settled, nonces] = await Promise.all([
      ledger.read('inference', 'settledWith', balance, session, pair.address),
      ledger.entries('inference', 'lastNonce', u64, session, pair.address),
    ]);
    const nonce = nonces.reduce((most, { value }) => max(most, value), 0n);
    // Two requests may have asked at the same time.
    const fresh = this.#accounts.get(session) ?? { spent: settled ?? 0n, promised: 0n, nonce };
    this.#accounts.set(session, fresh);
    return fresh;
  }

  // ---- adapters ----------------------------------------------------------------------------------------------

  /** Takes up what is live, gives up what no longer is. */
  async look({ baseModel }: Standing): Promise<void> {
    const { ledger } = this.#link;
    this.#rules = (await ledger.read('attribution', 'rules', rules)) ?? DEFAULT_RULES;
    const known = await ledger.entries('models', 'adapters', models.adapter);
    const before = this.#served.size;
    for (const { key, value } of known) {
      const id = idOfKey(key) as AdapterId;
      if (value.baseModel !== baseModel) continue;
      if (value.status.type !== 'Live') await this.#giveUp(id);
      else if (!this.#served.has(id) && !this.#refused.has(id) && this.#served.size < this.#options.maxAdapters)
        await this.#takeUp(id, value);
    }
    this.#options.telemetry?.serving(this.adapters);
    if (before !== this.#served.size) this.#link.tell('worker_serving', this.adapters);
    await this.#end();
  }

  async #takeUp(id: AdapterId, { name, markup }: models.Adapter): Promise<void> {
    const { hashing, model, log } = this.#options;
    let adapter: ServedAdapter | undefined;
    try {
      adapter = await ServedAdapter.open(hashing, model, await adapterMaterial(this.#link, id));
      if ((await this.#lease(id)) === undefined) await this.#link.submit('inference', 'serve', id);
      const leased = await this.#lease(id);
      if (leased === undefined) throw new LedgerError('NOT_SERVING', 'the chain gave no lease');
      this.#served.set(id, { adapter, lease: leased.lease, markup });
      this.#link.tell('worker_serving', this.adapters);
      log('info', `serving adapter ${id} (${name})`);
    } catch (problem) {
      await adapter?.close().catch(() => {});
      const code = problem instanceof Error && 'code' in problem ? String(problem.code) : '';
      if (code === 'BLOB_NOT_FOUND') return;
      if (isPassing(problem) || code === '') throw problem;
      this.#refused.add(id);
      log('warn', `adapter ${id} cannot be served: ${(problem as Error).message}`);
    }
  }

  async #giveUp(id: AdapterId): Promise<void> {
    const served = this.#served.get(id);
    if (served === undefined) return;
    this.#served.delete(id);
    this.#ending.add(id);
    this.#link.tell('worker_serving', this.adapters);
    await served.adapter.close();
    this.#options.log('info', `adapter ${id} is no longer live`);
  }

  /** The lease goes when nothing is left to settle under it. */
  async #end(): Promise<void> {
    if (this.#ending.size === 0) return;
    const waiting = new Set((await this.#journal.unsettled()).map(({ adapter }) => adapter));
    for (const id of this.#ending) {
      const busy = [...this.#underWay].some(([group, nonces]) => group.endsWith(`/${id}`) && nonces.size > 0);
      if (busy || waiting.has(id)) continue;
      if ((await this.#lease(id)) !== undefined) await this.#link.submit('inference', 'stopServing', id);
      this.#ending.delete(id);
    }
  }

  #lease(id: number): Promise<inference.Serving | undefined> {
    return this.#link.ledger.read('inference', 'serving', inference.serving, id, this.#link.pair.address);
  }

  async close(): Promise<void> {
    for (const { adapter } of this.#served.values()) await adapter.close();
  }

  // ---- jobs --------------------------------------------------------------------------------------------------

  /** A message of the node's. `line`: the connection that it came over, and that the answer goes back over. */
  hear(line: JsonRpcClient, message: { readonly type: string; readonly job: string; readonly request?: string }): void {
    const { type, job } = message;
    if (type === 'cancel') {
      this.#jobs.get(job)?.abort();
      return;
    }
    this.#answer(line, job, message.request ?? '').catch((problem: unknown) => {
      if (problem instanceof JsonRpcError && problem.data === 'UNKNOWN_JOB') return;
      const code = problem instanceof Refusal ? problem.code : ((problem as { code?: string }).code ?? 'FAILED');
      line.call('worker_refuse', job, String(code), (problem as Error).message.slice(0, 500)).catch(() => {});
    });
  }

  /** Nobody waits for what is under way: the connection is gone. What was said until now is paid for. */
  abandon(): void {
    for (const job of this.#jobs.values()) job.abort();
  }

  async #answer(line: JsonRpcClient, job: string, encoded: string): Promise<void> {
    const { hashing, model } = this.#options;
    const request = decode(generationRequest, fromHex(encoded));
    const { session, adapter, nonce, cumulative, price } = request.voucher.payload;
    // The node has looked already, but it is this worker who answers for it.
    if (!asksFor(hashing, request.voucher.payload, request))
      throw new Refusal('OTHER_REQUEST', 'the voucher was signed for another request');
    const served = this.#served.get(adapter);
    if (served === undefined) throw new Refusal('NOT_SERVED', `adapter ${adapter} is not served here`);
    const abort = new AbortController();
    this.#jobs.set(job, abort);
    let release = (): void => {};
    try {
      const account = await this.#account(session);
      if (nonce <= account.nonce) throw new Refusal('STALE_VOUCHER', 'a later voucher was accepted already');
      const { voucher, ...asked } = request;
      const tokensIn = model.tokenizer.encode(promptOf(model.tokenizer, asked.input)).length;
      // All of it or nothing: an answer that ends for want of money would not be the one that was asked for.
      const most = feeOf(price, tokensIn, asked.maxTokens);
      if (cumulative < account.spent + account.promised + most)
        throw new Refusal('VOUCHER_TOO_SMALL', 'the voucher does not pay for this request');
      release = this.#reserve(account, `${session}/${adapter}`, nonce, most);
      // Deltas keep their order: each is sent before the next is made.
      let said: Promise<unknown> = Promise.resolve();
      const {
        receipt: payload,
        text,
        tokens,
        generationMs,
        attributionMs,
      } = await served.adapter.answer(
        { voucher, ...asked },
        { worker: this.#link.account, lease: served.lease, rules: receiptRules(this.#rules, served.markup) },
        {
          signal: abort.signal,
          token: (delta) => {
            if (delta !== '') said = line.call('worker_delta', job, delta).catch(() => {});
          },
        },
      );
      const receipt: SignedInferenceReceipt = {
        payload,
        signature: this.#link.sign(hashOf(hashing, inferenceReceipt, payload)),
      };
      await this.#journal.keep(receipt, encode(transcript, { request: asked, text, tokens: [...tokens] }));
      account.spent += payload.fee;
      this.#kept();
      const { tokensOut } = payload;
      this.#options.telemetry?.answered({ tokensIn, tokensOut, generationMs, attributionMs });
      await said;
      await line.call('worker_answer', job, toHex(encode(signedInferenceReceipt, receipt)), text);
    } finally {
      release();
      this.#jobs.delete(job);
    }
  }

  /** Sets the most that a request may cost aside. Returns how it is given back. */
  #reserve(account: Account, group: string, nonce: bigint, most: bigint): () => void {
    account.nonce = nonce;
    account.promised += most;
    const underWay = this.#underWay.get(group) ?? new Set();
    this.#underWay.set(group, underWay.add(nonce));
    return () => {
      account.promised -= most;
      underWay.delete(nonce);
    };
  }
}
