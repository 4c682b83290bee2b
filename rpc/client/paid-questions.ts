/**
 * Paid questions, for any application: an adapter is chosen, a worker of it asked under a voucher, the answer heard, and
 * what it came to booked. The money is in `purse.ts`.
 */
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId } from '../../runtime/primitives/attribution/ids.ts';
import { generationRequest } from '../../runtime/primitives/attribution/messages.ts';
import {
  FINISH,
  feeOf,
  type SignedInferenceReceipt,
  signedInferenceReceipt,
  signedVoucher,
} from '../../runtime/primitives/attribution/receipts.ts';
import { type RequestInput, type RequestTerms, requestTerms } from '../../runtime/primitives/attribution/request.ts';
import { equalBytes, fromHex, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { type AccountId, PERBILL, sameAccount } from '../../runtime/primitives/types.ts';
import { DOUBTFUL, ELSEWHERE, jobFailure, nodeLeft, PASSING, PaidFailure, VOID } from './job-failure.ts';
import { ConnectionLost, JsonRpcError } from './json-rpc.ts';
import type { Ledger } from './ledger.ts';
import { PaidText } from './paid-text.ts';
import { type Promised, Purse, type PurseOptions } from './purse.ts';
import { chooseAdapter, type ServedAdapter, servedAdapters } from './served-adapters.ts';
import type { SpendingLimits } from './spending-limits.ts';

export interface Question {
  /** `adapter:7`, or the name that the adapter bears on the chain. */
  readonly model: string;
  readonly input: RequestInput;
  readonly maxTokens: number;
  /** 0 … 4; 0 (the default) is the likeliest answer. */
  readonly temperature?: number;
  /** 0 … 1, default 1. */
  readonly topP?: number;
  /** Random where there is none. */
  readonly seed?: bigint | undefined;
  readonly stop?: readonly string[];
  /** For this question, beside those of the purse. */
  readonly limits?: SpendingLimits | undefined;
}

export interface PaidQuestionsOptions extends PurseOptions {
  /** How long a question waits for a worker that went away while it answered; a minute where nothing is said. */
  readonly patienceMs?: number | undefined;
}

/** An answer, and what it was asked for: the receipt's voucher names the terms by their hash. */
export interface PaidAnswer {
  readonly text: string;
  readonly receipt: SignedInferenceReceipt;
  readonly terms: RequestTerms;
}

/** The part of the deposit for one worker does not suffice. */
const POOR: ReadonlySet<string> = new Set(['DEPOSIT_SPENT', 'NO_FUNDS']);
/** Vouchers for one request. */
const TRIES = 3;
/** Between two tries under one voucher: the first pause, and the longest. */
const PAUSE_MS = 250;
const MAX_PAUSE_MS = 4_000;
/** How long the receipt of a stopped answer is waited for. */
const STOP_MS = 10_000;

const PATIENCE_MS = 60_000;

const termsOf = ({ input, maxTokens, temperature = 0, topP = 1, stop = [] }: Question, seed: bigint): RequestTerms => ({
  input,
  maxTokens,
  temperature: Math.round(temperature * 1e9),
  topP: Math.round(topP * PERBILL),
  seed,
  stop: [...stop],
});

const randomSeed = (): bigint => crypto.getRandomValues(new BigUint64Array(1))[0] ?? 0n;

const pause = (milliseconds: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    if (signal.aborted) done();
    else signal.addEventListener('abort', done, { once: true });
  });

export class PaidQuestions {
  readonly #ledger: Ledger;
  readonly #purse: Purse;
  readonly #patienceMs: number;
  readonly #closing = new AbortController();
  /** Questions under way, by worker. */
  readonly #active = new Map<string, number>();
  readonly #underWay = new Set<Promise<PaidAnswer>>();

  private constructor(ledger: Ledger, purse: Purse, patienceMs: number) {
    this.#ledger = ledger;
    this.#purse = purse;
    this.#patienceMs = patienceMs;
  }

  /**
   * The ledger should be one that reconnects. Rejects with a {@link PaidFailure} when there is no session to pay from and
   * nobody to open one.
   */
  static async open(options: PaidQuestionsOptions): Promise<PaidQuestions> {
    const { ledger, patienceMs = PATIENCE_MS } = options;
    return new PaidQuestions(ledger, await Purse.open(options), patienceMs);
  }

  get purse(): Purse {
    return this.#purse;
  }

  /** What is under way is left to whoever takes over: it is not ended, and can be asked for again. */
  leave(): void {
    this.#closing.abort();
  }

  /** Settles when what is under way has been left and all that was spent is remembered. The ledger stays open. */
  async close(): Promise<void> {
    this.leave();
    await Promise.allSettled([...this.#underWay]);
    await this.#purse.written();
  }

  async #served(): Promise<ServedAdapter[]> {
    if (!this.#ledger.rpc.isConnected) throw new PaidFailure('NO_NODE', 'the node is not reachable');
    try {
      return await servedAdapters(this.#ledger);
    } catch (problem) {
      if (problem instanceof ConnectionLost) throw new PaidFailure('NO_NODE', 'the node is not reachable');
      throw problem;
    }
  }

  /** Adapters that somebody serves, each once. */
  async models(): Promise<{ readonly adapter: AdapterId; readonly name: string }[]> {
    return [...new Map((await this.#served()).map(({ adapter, name }) => [adapter, { adapter, name }])).values()];
  }

  /** Workers of the adapter that is meant, the least busy first, those that failed last. At least one. */
  async #choose(model: string, failed: readonly AccountId[]): Promise<readonly ServedAdapter[]> {
    const served = await this.#served();
    const adapter = await chooseAdapter(this.#ledger, served, model);
    // Requests of this moment have not reached the node yet.
    const load = ({ worker, waiting }: ServedAdapter): number =>
      (failed.some((each) => sameAccount(each, worker)) ? 1e6 : 0) +
      Math.max(waiting, this.#active.get(toHex(worker)) ?? 0) +
      Math.random();
    const found = served
      .filter((each) => each.adapter === adapter)
      .map((each) => ({ each, load: load(each) }))
      .sort((a, b) => a.load - b.load)
      .map(({ each }) => each);
    if (found.length === 0) throw new PaidFailure('NOT_SERVED', `nobody serves ${model}`);
    return found;
  }

  /**
   * Resolves with the whole answer; `delta`, where there is one, hears it before, from its beginning and each part once. A
   * worker that goes away while it answers is waited for and asked again under the same voucher: it knows what it has answered
   * (`purse.ts` says why that is paid once). Another worker is asked only when it is certain that the one before signed nothing.
   * Rejects with a {@link PaidFailure}.
   */
  ask(
    request: Question,
    {
      delta,
      signal = new AbortController().signal,
    }: { readonly delta?: (text: string) => void; signal?: AbortSignal } = {},
  ): Promise<PaidAnswer> {
    const asking = this.#pursue(request, delta, signal).finally(() => this.#underWay.delete(asking));
    this.#underWay.add(asking);
    return asking;
  }

  async #pursue(
    request: Question,
    delta: ((text: string) => void) | undefined,
    signal: AbortSignal,
  ): Promise<PaidAnswer> {
    const telling = delta === undefined ? undefined : new PaidText(delta);
    const question = this.#nameOf(request);
    const failed: AccountId[] = [];
    let promised = this.#purse.again(question);
    // One seed for all tries, so that a second one says what the first one said.
    const seed = promised?.seed ?? request.seed ?? randomSeed();
    let before = promised !== undefined;
    let last: PaidFailure | undefined;
    for (;;) {
      try {
        promised ??= await this.#promise(request, question, seed, failed);
      } catch (problem) {
        // Nobody else serves it: what the one who did said tells more.
        throw last !== undefined && problem instanceof PaidFailure && problem.code === 'NOT_SERVED' ? last : problem;
      }
      const { worker } = promised.voucher.payload;
      const terms = termsOf(request, promised.seed);
      const name = toHex(worker);
      this.#active.set(name, (this.#active.get(name) ?? 0) + 1);
      try {
        const answered = await this.#answered(promised, terms, { telling, signal, asked: before });
        // Somebody who asked before had it ended early: that was paid, and is not what this one asks for.
        const ended = before && answered.receipt.payload.finish === FINISH.cancelled && !signal.aborted;
        if (!ended) return { ...answered, terms };
      } catch (problem) {
        if (!(problem instanceof PaidFailure)) throw problem;
        failed.push(worker);
        last = problem;
        const over = problem.open || signal.aborted || failed.length >= TRIES;
        if (over || !ELSEWHERE.has(problem.reason ?? problem.code)) throw problem;
      } finally {
        const left = (this.#active.get(name) ?? 1) - 1;
        if (left > 0) this.#active.set(name, left);
        else this.#active.delete(name);
      }
      promised = undefined;
      before = false;
    }
  }

  /** What is asked, without what only says how the answer is sent. */
  #nameOf(request: Question): string {
    const { model, seed } = request;
    const asked = hashOf(this.#ledger.hashing, requestTerms, termsOf(request, seed ?? 0n));
    return `${toHex(asked)}/${seed === undefined ? 'any' : 'seeded'}/${model}`;
  }

  async #promise(request: Question, question: string, seed: bigint, failed: readonly AccountId[]): Promise<Promised> {
    let poor: PaidFailure | undefined;
    for (const served of await this.#choose(request.model, failed)) {
      try {
        return await this.#promiseTo(served, request, question, seed);
      } catch (problem) {
        // Another worker may have a part of the deposit that is not used up.
        if (!(problem instanceof PaidFailure && POOR.has(problem.code))) throw problem;
        poor ??= problem;
      }
    }
    throw poor ?? new PaidFailure('NOT_SERVED', `nobody serves ${request.model}`);
  }

  async #promiseTo(
    { adapter, worker }: ServedAdapter,
    request: Question,
    question: string,
    seed: bigint,
  ): Promise<Promised> {
    const found = await this.#ledger.read(models.store.Adapters, adapter);
    if (found === undefined) throw new PaidFailure('NOT_SERVED', `there is no adapter ${adapter}`);
    const { price, markup } = found;
    // A token has at least one byte, and a template adds a handful a message.
    const { input } = request;
    const tokensIn =
      utf8(JSON.stringify(input.value)).length + 16 * (input.type === 'Chat' ? input.value.length + 1 : 1);
    const most = feeOf(price, tokensIn, request.maxTokens);
    const terms = termsOf(request, seed);
    return this.#purse.promise({ worker, adapter, price, markup, question, terms }, most, request.limits);
  }

  /**
   * What a promise comes to: asks under its voucher until it is answered, its worker says that it will not be, or patience is
   * over. `asked`: somebody asked under it before. Rejects with {@link PaidFailure}.
   */
  async #answered(
    promised: Promised,
    terms: RequestTerms,
    call: { readonly telling: PaidText | undefined; readonly signal: AbortSignal; readonly asked: boolean },
  ): Promise<{ readonly text: string; readonly receipt: SignedInferenceReceipt }> {
    const { telling, signal } = call;
    const encoded = toHex(encode(generationRequest, { voucher: promised.voucher, ...terms }));
    const over = AbortSignal.any([signal, this.#closing.signal]);
    let { asked } = call;
    let until: number | undefined;
    for (let wait = PAUSE_MS; ; wait = Math.min(2 * wait, MAX_PAUSE_MS)) {
      let failure: PaidFailure;
      try {
        telling?.restart();
        const answered = await this.#ask(encoded, (text) => telling?.hear(text), signal);
        telling?.whole(answered.text);
        this.#checkReceipt(promised, answered.receipt);
        await promised.spend(answered.receipt.payload.fee);
        return answered;
      } catch (problem) {
        if (!(problem instanceof PaidFailure)) {
          await promised.leave();
          throw problem;
        }
        failure = problem;
      }
      // A worker that refuses has looked into its journal first.
      const refused = failure.code === 'WORKER_REFUSED';
      if (refused || !(asked || DOUBTFUL.has(failure.code))) {
        await promised.spend(0n);
        throw asked && VOID.has(failure.reason ?? '') ? new PaidFailure('VOID', failure.message) : failure;
      }
      asked = true;
      if (failure.code === 'BAD_RECEIPT' && failure.reason !== 'NO_DATA') {
        // It will not get better, but the worker may settle it.
        await promised.spend(promised.most);
        throw failure;
      }
      if (await this.#serves(promised)) {
        until ??= Date.now() + this.#patienceMs;
        const passing = PASSING.has(failure.code) || failure.reason === 'NO_DATA';
        if (passing && !over.aborted && Date.now() < until) {
          await pause(wait, over);
          continue;
        }
        await promised.leave();
        const open = DOUBTFUL.has(failure.code)
          ? failure
          : new PaidFailure(
              'WORKER_LEFT',
              `the worker went away while it answered, and is not back: ${failure.message}`,
            );
        open.open = true;
        throw open;
      }
      await promised.spend(0n);
      throw new PaidFailure('VOID', 'the worker no longer serves the adapter');
    }
  }

  /** Throws when a receipt is not that of the promise, whatever the node says of it. */
  #checkReceipt({ voucher, most }: Promised, { payload }: SignedInferenceReceipt): void {
    const same = equalBytes(encode(signedVoucher, payload.voucher), encode(signedVoucher, voucher));
    if (same && payload.fee <= most && sameAccount(payload.worker, voucher.payload.worker)) return;
    throw new PaidFailure('BAD_RECEIPT', 'the receipt is not that of the question', 'OTHER_VOUCHER');
  }

  /** Whether the voucher's worker may still be paid for it, as far as is known. */
  async #serves({ voucher }: Promised): Promise<boolean> {
    const { adapter, worker } = voucher.payload;
    if (!this.#ledger.rpc.isConnected) return true;
    try {
      return (await this.#ledger.read(inference.store.Serving, [adapter, worker])) !== undefined;
    } catch {
      // The node is away.
      return true;
    }
  }

  /** Rejects with {@link PaidFailure}. When the caller goes, the answer is ended, and what it came to is still heard. */
  #ask(encoded: string, delta: (text: string) => void, signal: AbortSignal) {
    const { rpc } = this.#ledger;
    return new Promise<{ text: string; receipt: SignedInferenceReceipt }>((resolve, reject) => {
      let unsubscribe: (() => void) | undefined;
      let job: string | undefined;
      let patience: ReturnType<typeof setTimeout> | undefined;
      const stop = (): void => {
        if (job === undefined || !signal.aborted || patience !== undefined || this.#closing.signal.aborted) return;
        rpc.call('inference_stop', job).catch(() => {});
        patience = setTimeout(
          () =>
            over(() => reject(new PaidFailure('TIMED_OUT', 'the worker did not say what the ended answer came to'))),
          STOP_MS,
        );
      };
      let ended = false;
      const left = (): void => over(() => reject(nodeLeft()));
      const over = (settle: () => void): void => {
        ended = true;
        clearTimeout(patience);
        signal.removeEventListener('abort', stop);
        this.#closing.signal.removeEventListener('abort', left);
        unsubscribe?.();
        settle();
      };
      signal.addEventListener('abort', stop, { once: true });
      this.#closing.signal.addEventListener('abort', left, { once: true });
      if (!rpc.isConnected) {
        left();
        return;
      }
      const hear = (event: unknown): void => {
        const told = event as JobEvent;
        switch (told.type) {
          case 'job':
            job = told.job;
            stop();
            return;
          case 'delta':
            try {
              delta(told.text);
            } catch (problem) {
              over(() => reject(problem));
            }
            return;
          case 'answer': {
            const receipt = receiptIn(told.receipt);
            if (receipt !== undefined) over(() => resolve({ text: told.text, receipt }));
            else over(() => reject(new PaidFailure('BAD_RECEIPT', 'the node sent no receipt', 'MALFORMED')));
            return;
          }
          default:
            over(() => reject(jobFailure(told.code, told.message, told.reason)));
        }
      };
      rpc
        .subscribe('inference_generate', 'inference_cancel', [encoded], { listener: hear, lost: left })
        .then((end) => {
          if (ended) end();
          else unsubscribe = end;
        })
        .catch((problem: unknown) => {
          const refused = problem instanceof JsonRpcError;
          const failure = refused ? jobFailure(String(problem.data), problem.message) : nodeLeft();
          over(() => reject(failure));
        });
    });
  }
}

/** Undefined for what is none: a node may send anything. */
function receiptIn(hex: string): SignedInferenceReceipt | undefined {
  try {
    return decode(signedInferenceReceipt, fromHex(hex));
  } catch {
    return undefined;
  }
}

type JobEvent =
  | { readonly type: 'job'; readonly job: string }
  | { readonly type: 'delta'; readonly text: string }
  | { readonly type: 'answer'; readonly text: string; readonly receipt: string }
  | { readonly type: 'error'; readonly code: string; readonly reason: string | null; readonly message: string };
