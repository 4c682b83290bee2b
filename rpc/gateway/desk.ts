/** Requests as paid jobs: a worker is chosen, a voucher signed, the answer heard, what it came to booked. */
import { randomBytes } from 'node:crypto';
import type { Hashing } from '../../runtime/host.ts';
import * as models from '../../runtime/pallets/models.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId } from '../../runtime/primitives/attribution/ids.ts';
import {
  feeOf,
  type SignedInferenceReceipt,
  signedInferenceReceipt,
} from '../../runtime/primitives/attribution/receipts.ts';
import { type RequestTerms, requestTerms } from '../../runtime/primitives/attribution/request.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId, PERBILL, sameAccount } from '../../runtime/primitives/types.ts';
import { JsonRpcError } from '../client/json-rpc.ts';
import { Ledger } from '../client/ledger.ts';
import { generationRequest } from '../inference-codecs.ts';
import { ApiError, type CompletionRequest, notServed } from './openai.ts';
import type { Purse } from './purse.ts';

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

/** By the hub's names: what an application is told. */
const FAILURES: Readonly<Record<string, readonly [status: number, type: string, code: string]>> = {
  DEPOSIT_SPENT: [402, 'insufficient_quota', 'insufficient_quota'],
  OVERLOADED: [429, 'rate_limit_error', 'overloaded'],
  NO_WORKER: [503, 'server_error', 'no_worker'],
  NOT_SERVED: [404, 'invalid_request_error', 'model_not_found'],
  TIMED_OUT: [504, 'server_error', 'timeout'],
  WORKER_LEFT: [502, 'server_error', 'worker_left'],
  BAD_RECEIPT: [502, 'server_error', 'bad_receipt'],
  NODE_LEFT: [503, 'server_error', 'no_node'],
};

/** By the worker's names. */
const REFUSALS: Readonly<Record<string, readonly [status: number, type: string, code: string]>> = {
  PROMPT_TOO_LONG: [400, 'invalid_request_error', 'context_length_exceeded'],
  BAD_REQUEST: [400, 'invalid_request_error', 'invalid_value'],
  BAD_TEMPLATE: [400, 'invalid_request_error', 'invalid_value'],
  VOUCHER_TOO_SMALL: [402, 'insufficient_quota', 'insufficient_quota'],
  NOT_SERVED: [404, 'invalid_request_error', 'model_not_found'],
  OVERLOADED: [429, 'rate_limit_error', 'overloaded'],
};
/** Outcomes that leave open what the worker said and will settle. */
const DOUBTFUL = new Set(['TIMED_OUT', 'WORKER_LEFT', 'BAD_RECEIPT', 'NODE_LEFT']);
/** Outcomes after which another worker may do better. */
const ELSEWHERE = new Set(['NO_WORKER', 'WORKER_LEFT', 'OVERLOADED', 'NOT_SERVED']);
const TRIES = 3;
/** How long the receipt of a stopped answer is waited for. */
const STOP_MS = 10_000;

/** A failed job by the hub's name for it. */
class JobFailure extends Error {
  readonly code: string;
  readonly reason: string | undefined;
  constructor(code: string, message: string, reason?: string | null) {
    super(message);
    this.code = code;
    this.reason = reason ?? undefined;
  }

  get told(): ApiError {
    const { reason, message } = this;
    const named = this.code === 'WORKER_REFUSED' ? REFUSALS[reason ?? ''] : FAILURES[this.code];
    const [status, type, code] = named ?? [502, 'server_error', (reason ?? this.code).toLowerCase()];
    return new ApiError(status, type, code, message);
  }
}

/** What a gateway asks of its node: which adapters there are, and paid answers of them. */
export class Desk {
  readonly #node: string;
  readonly #purse: Purse;
  readonly #hashing: Hashing;
  #ledger: Ledger;
  #reconnecting: Promise<void> | undefined;
  #closed = false;
  /** Requests under way, by worker. */
  readonly #active = new Map<string, number>();

  /** `node`: where to connect to again when `ledger` is gone. */
  constructor(node: string, ledger: Ledger, purse: Purse, hashing: Hashing) {
    this.#node = node;
    this.#hashing = hashing;
    this.#ledger = ledger;
    this.#purse = purse;
    this.#watch();
  }

  get ledger(): Ledger {
    return this.#ledger;
  }

  #watch(): void {
    void this.#ledger.closed.then(() => {
      if (!this.#closed) this.#reconnecting = this.#reconnect();
    });
  }

  async #reconnect(): Promise<void> {
    await this.#ledger.close().catch(() => {});
    while (!this.#closed) {
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

  async close(): Promise<void> {
    this.#closed = true;
    await this.#ledger.close();
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

  /** Resolves with the whole answer; `delta` hears it before. Throws {@link ApiError}. */
  async complete(request: CompletionRequest, delta: (text: string) => void, signal: AbortSignal): Promise<Completed> {
    const failed: AccountId[] = [];
    let said = false;
    for (;;) {
      const chosen = await this.#choose(request.model, failed);
      const hear = (text: string): void => {
        said = true;
        delta(text);
      };
      const worker = toHex(chosen.worker);
      this.#active.set(worker, (this.#active.get(worker) ?? 0) + 1);
      try {
        return await this.#attempt(chosen, request, hear, signal);
      } catch (problem) {
        if (!(problem instanceof JobFailure)) throw problem;
        failed.push(chosen.worker);
        // What was said already cannot be taken back.
        if (said || signal.aborted || failed.length >= TRIES || !ELSEWHERE.has(problem.reason ?? problem.code))
          throw problem.told;
      } finally {
        this.#active.set(worker, (this.#active.get(worker) ?? 1) - 1);
      }
    }
  }

  async #attempt(
    { adapter, worker }: Served,
    request: CompletionRequest,
    delta: (text: string) => void,
    signal: AbortSignal,
  ): Promise<Completed> {
    const state = await this.#ledger.read('models', 'adapters', models.adapter, adapter);
    const { price } = state!;
    // A token has at least one byte, and a template adds a handful a message.
    const { input } = request;
    const tokensIn =
      Buffer.byteLength(JSON.stringify(input.value)) + 16 * (input.type === 'Chat' ? input.value.length + 1 : 1);
    const most = feeOf(price, tokensIn, request.maxTokens);
    const terms: RequestTerms = {
      input,
      maxTokens: request.maxTokens,
      temperature: Math.round(request.temperature * 1e9),
      topP: Math.round(request.topP * PERBILL),
      seed: request.seed ?? randomBytes(8).readBigUInt64LE(),
      stop: request.stop,
    };
    const hash = hashOf(this.#hashing, requestTerms, terms);
    const promised = await this.#purse.promise({ worker, adapter, price, request: hash }, most);
    let fee: bigint | undefined;
    try {
      const encoded = encode(generationRequest, { voucher: promised.voucher, ...terms });
      const answered = await this.#ask(toHex(encoded), delta, signal);
      fee = answered.receipt.payload.fee;
      return { ...answered, terms };
    } catch (problem) {
      if (problem instanceof JobFailure && !DOUBTFUL.has(problem.code)) fee = 0n;
      throw problem;
    } finally {
      await promised.spend(fee);
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
        if (job === undefined || !signal.aborted || patience !== undefined) return;
        rpc.call('inference_stop', job).catch(() => {});
        patience = setTimeout(() => {
          unsubscribe?.();
          reject(new JobFailure('TIMED_OUT', 'the worker did not say what the ended answer came to'));
        }, STOP_MS);
      };
      const over = (settle: () => void): void => {
        clearTimeout(patience);
        signal.removeEventListener('abort', stop);
        settle();
      };
      signal.addEventListener('abort', stop, { once: true });
      void this.#ledger.closed.then(() =>
        over(() => reject(new JobFailure('NODE_LEFT', 'the connection to the node is gone'))),
      );
      const hear = (event: unknown): void => {
        const told = event as JobEvent;
        switch (told.type) {
          case 'job':
            job = told.job;
            stop();
            return;
          case 'delta':
            delta(told.text);
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
          unsubscribe = end;
        })
        .catch((problem: unknown) => {
          const refused = problem instanceof JsonRpcError;
          over(() => reject(refused ? new JobFailure(String(problem.data), problem.message) : problem));
        });
    });
  }
}

type JobEvent =
  | { readonly type: 'job'; readonly job: string }
  | { readonly type: 'delta'; readonly text: string }
  | { readonly type: 'answer'; readonly text: string; readonly receipt: string }
  | { readonly type: 'error'; readonly code: string; readonly reason: string | null; readonly message: string };
