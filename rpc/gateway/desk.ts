/** Requests as paid jobs: a worker is chosen, a voucher signed, the answer heard, what it came to booked. */
import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { encodeAddress } from '@polkadot/util-crypto';
import type { Hashing } from '../../runtime/host.ts';
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
} from '../../runtime/primitives/attribution/receipts.ts';
import { type RequestTerms, requestTerms } from '../../runtime/primitives/attribution/request.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId, PERBILL, sameAccount } from '../../runtime/primitives/types.ts';
import { Ledger } from '../client/connection.ts';
import { JsonRpcError } from '../client/json-rpc.ts';
import { DOUBTFUL, ELSEWHERE, JobFailure, lost, PASSING, VOID } from './failures.ts';
import { ApiError, type CompletionRequest, notServed } from './openai.ts';
import type { Promised, Purse } from './purse.ts';
import { Telling } from './telling.ts';

interface Served {
  readonly adapter: AdapterId;
  readonly name: string;
  readonly worker: AccountId;
  /** Requests that wait for the worker at the node, whoever asked. */
  readonly waiting: number;
}

/** An answer, and what it was asked for: the receipt's voucher names the terms by their hash. */
export interface Completed {
  readonly text: string;
  readonly receipt: SignedInferenceReceipt;
  readonly terms: RequestTerms;
}

/** Vouchers for one request. */
const TRIES = 3;
/** Between two tries under one voucher: the first pause, and the longest. */
const PAUSE_MS = 250;
const MAX_PAUSE_MS = 4_000;
/** How long the receipt of a stopped answer is waited for. */
const STOP_MS = 10_000;

const termsOf = (request: CompletionRequest, seed: bigint): RequestTerms => ({
  input: request.input,
  maxTokens: request.maxTokens,
  temperature: Math.round(request.temperature * 1e9),
  topP: Math.round(request.topP * PERBILL),
  seed,
  stop: request.stop,
});

/** What a gateway asks of its node: which adapters there are, and paid answers of them. */
export class Desk {
  readonly #node: string;
  readonly #purse: Purse;
  readonly #hashing: Hashing;
  readonly #patienceMs: number;
  #ledger: Ledger;
  #reconnecting: Promise<void> | undefined;
  readonly #closing = new AbortController();
  /** Requests under way, by worker. */
  readonly #active = new Map<string, number>();
  /** Told when the connection is gone. */
  readonly #asking = new Set<() => void>();

  /**
   * `node`: where to connect to again when `ledger` is gone. `patienceMs`: how long a request waits for a worker that went away
   * while it answered.
   */
  constructor(
    { node, hashing, patienceMs }: { readonly node: string; readonly hashing: Hashing; readonly patienceMs: number },
    ledger: Ledger,
    purse: Purse,
  ) {
    this.#node = node;
    this.#hashing = hashing;
    this.#patienceMs = patienceMs;
    this.#ledger = ledger;
    this.#purse = purse;
    this.#watch();
  }

  get ledger(): Ledger {
    return this.#ledger;
  }

  #watch(): void {
    void this.#ledger.closed.then(() => {
      for (const tell of [...this.#asking]) tell();
      if (!this.#closing.signal.aborted) this.#reconnecting = this.#reconnect();
    });
  }

  async #reconnect(): Promise<void> {
    await this.#ledger.close().catch(() => {});
    while (!this.#closing.signal.aborted) {
      try {
        this.#ledger = await Ledger.connect(this.#node);
        this.#reconnecting = undefined;
        this.#watch();
        return;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 1_000));
      }
    }
  }

  /** What is under way is left to whoever takes over: it is not ended, and can be asked for again. */
  leave(): void {
    this.#closing.abort();
  }

  async close(): Promise<void> {
    this.leave();
    await this.#ledger.close();
    await this.#purse.written();
  }

  async #served(): Promise<Served[]> {
    if (this.#reconnecting !== undefined)
      throw new ApiError(503, 'server_error', 'no_node', 'the node is not reachable');
    const list =
      await this.#ledger.rpc.call<{ adapter: number; name: string; worker: string; waiting: number }[]>(
        'inference_models',
      );
    return list.map(({ adapter, name, worker, waiting }) => ({
      adapter: adapter as AdapterId,
      name,
      worker: asAccountId(fromHex(worker)),
      waiting,
    }));
  }

  /** Adapters that somebody serves, each once. */
  async models(): Promise<{ readonly adapter: AdapterId; readonly name: string }[]> {
    return [...new Map((await this.#served()).map(({ adapter, name }) => [adapter, { adapter, name }])).values()];
  }

  /** By name, or by id as `adapter:7`; of the least busy worker, those that failed last. */
  async #choose(model: string, failed: readonly AccountId[]): Promise<Served> {
    const served = (await this.#served()).filter(
      ({ name, adapter }) => name === model || `adapter:${adapter}` === model,
    );
    // Requests of this moment have not reached the node yet.
    const load = ({ worker, waiting }: Served): number =>
      (failed.some((each) => sameAccount(each, worker)) ? 1e6 : 0) +
      Math.max(waiting, this.#active.get(toHex(worker)) ?? 0) +
      Math.random();
    const [found] = served.map((each) => ({ each, load: load(each) })).sort((a, b) => a.load - b.load);
    if (found !== undefined) return found.each;
    throw notServed(model);
  }

  /**
   * Resolves with the whole answer; `delta`, where there is one, hears it before, from its beginning and each part once. A
   * worker that goes away while it answers is waited for and asked again under the same voucher: it knows what it has answered
   * (`purse.ts` says why that is paid once). Another worker is asked only when it is certain that the one before signed nothing.
   * Throws {@link ApiError}.
   */
  async complete(
    request: CompletionRequest,
    delta: ((text: string) => void) | undefined,
    signal: AbortSignal,
  ): Promise<Completed> {
    const telling = delta === undefined ? undefined : new Telling(delta);
    const question = this.#nameOf(request);
    const failed: AccountId[] = [];
    let promised = this.#purse.again(question);
    // One seed for all tries, so that a second one says what the first one said.
    const seed = promised?.seed ?? request.seed ?? randomBytes(8).readBigUInt64LE();
    let before = promised !== undefined;
    let last: JobFailure | undefined;
    for (;;) {
      try {
        promised ??= await this.#promise(request, question, seed, failed);
      } catch (problem) {
        // Nobody else serves it: what the one who did said tells more.
        throw last !== undefined && problem instanceof ApiError && problem.status === 404 ? last.told : problem;
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
        if (!(problem instanceof JobFailure)) throw problem;
        failed.push(worker);
        last = problem;
        const over = problem.open || signal.aborted || failed.length >= TRIES;
        if (over || !ELSEWHERE.has(problem.reason ?? problem.code)) throw problem.told;
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
  #nameOf(request: CompletionRequest): string {
    const { model, seed } = request;
    const asked = hashOf(this.#hashing, requestTerms, termsOf(request, seed ?? 0n));
    return `${toHex(asked)}/${seed === undefined ? 'any' : 'seeded'}/${model}`;
  }

  async #promise(
    request: CompletionRequest,
    question: string,
    seed: bigint,
    failed: readonly AccountId[],
  ): Promise<Promised> {
    const { adapter, worker } = await this.#choose(request.model, failed);
    const { price } = (await this.#ledger.read('models', 'adapters', models.adapter, adapter))!;
    // A token has at least one byte, and a template adds a handful a message.
    const { input } = request;
    const tokensIn =
      Buffer.byteLength(JSON.stringify(input.value)) + 16 * (input.type === 'Chat' ? input.value.length + 1 : 1);
    const most = feeOf(price, tokensIn, request.maxTokens);
    return this.#purse.promise({ worker, adapter, price, question, terms: termsOf(request, seed) }, most);
  }

  /**
   * What a promise comes to: asks under its voucher until it is answered, its worker says that it will not be, or patience is
   * over. `asked`: somebody asked under it before. Rejects with {@link JobFailure}.
   */
  async #answered(
    promised: Promised,
    terms: RequestTerms,
    call: { readonly telling: Telling | undefined; readonly signal: AbortSignal; readonly asked: boolean },
  ): Promise<{ readonly text: string; readonly receipt: SignedInferenceReceipt }> {
    const { telling, signal } = call;
    const encoded = toHex(encode(generationRequest, { voucher: promised.voucher, ...terms }));
    const over = AbortSignal.any([signal, this.#closing.signal]);
    let { asked } = call;
    let until: number | undefined;
    for (let wait = PAUSE_MS; ; wait = Math.min(2 * wait, MAX_PAUSE_MS)) {
      let failure: JobFailure;
      try {
        telling?.restart();
        const answered = await this.#ask(encoded, (text) => telling?.hear(text), signal);
        telling?.whole(answered.text);
        await promised.spend(answered.receipt.payload.fee);
        return answered;
      } catch (problem) {
        if (!(problem instanceof JobFailure)) {
          await promised.leave();
          throw problem;
        }
        failure = problem;
      }
      // A worker that refuses has looked into its journal first.
      const refused = failure.code === 'WORKER_REFUSED';
      if (refused || !(asked || DOUBTFUL.has(failure.code))) {
        await promised.spend(0n);
        throw asked && VOID.has(failure.reason ?? '') ? new JobFailure('VOID', failure.message) : failure;
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
          await pause(wait, undefined, { signal: over }).catch(() => {});
          continue;
        }
        await promised.leave();
        const open = DOUBTFUL.has(failure.code)
          ? failure
          : new JobFailure(
              'WORKER_LEFT',
              `the worker went away while it answered, and is not back: ${failure.message}`,
            );
        open.open = true;
        throw open;
      }
      await promised.spend(0n);
      throw new JobFailure('VOID', 'the worker no longer serves the adapter');
    }
  }

  /** Whether the voucher's worker may still be paid for it, as far as is known. */
  async #serves({ voucher }: Promised): Promise<boolean> {
    const { adapter, worker } = voucher.payload;
    const address = encodeAddress(worker, 42);
    try {
      return (await this.#ledger.read('inference', 'serving', inference.serving, adapter, address)) !== undefined;
    } catch {
      // The node is away.
      return true;
    }
  }

  /** Rejects with {@link JobFailure}. When the caller goes, the answer is ended, and what it came to is still heard. */
  #ask(encoded: string, delta: (text: string) => void, signal: AbortSignal) {
    const { rpc } = this.#ledger;
    return new Promise<{ text: string; receipt: SignedInferenceReceipt }>((resolve, reject) => {
      let unsubscribe: (() => void) | undefined;
      let job: string | undefined;
      let patience: NodeJS.Timeout | undefined;
      const stop = (): void => {
        if (job === undefined || !signal.aborted || patience !== undefined || this.#closing.signal.aborted) return;
        rpc.call('inference_stop', job).catch(() => {});
        patience = setTimeout(
          () => over(() => reject(new JobFailure('TIMED_OUT', 'the worker did not say what the ended answer came to'))),
          STOP_MS,
        );
      };
      let ended = false;
      const left = (): void => over(() => reject(lost()));
      const over = (settle: () => void): void => {
        ended = true;
        this.#asking.delete(left);
        clearTimeout(patience);
        signal.removeEventListener('abort', stop);
        unsubscribe?.();
        settle();
      };
      signal.addEventListener('abort', stop, { once: true });
      this.#asking.add(left);
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
            const receipt = decode(signedInferenceReceipt, fromHex(told.receipt));
            over(() => resolve({ text: told.text, receipt }));
            return;
          }
          default:
            over(() => reject(new JobFailure(told.code, told.message, told.reason)));
        }
      };
      rpc
        .subscribe('inference_generate', 'inference_cancel', [encoded], hear)
        .then((end) => {
          if (ended) end();
          else unsubscribe = end;
        })
        .catch((problem: unknown) => {
          const refused = problem instanceof JsonRpcError;
          const failure = refused ? new JobFailure(String(problem.data), problem.message) : lost();
          over(() => reject(failure));
        });
    });
  }
}

type JobEvent =
  | { readonly type: 'job'; readonly job: string }
  | { readonly type: 'delta'; readonly text: string }
  | { readonly type: 'answer'; readonly text: string; readonly receipt: string }
  | { readonly type: 'error'; readonly code: string; readonly reason: string | null; readonly message: string };
