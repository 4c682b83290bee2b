/**
 * Where workers and applications meet: workers attach and hear of jobs, applications ask, the hub passes jobs to the
 * worker that the voucher names, hands the text on as it comes, and checks the receipt before anybody relies on it.
 */
import { randomBytes } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import { verifySignature } from '../../runtime/executive/extrinsic.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import { type Blake, hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import {
  type GenerationRequest,
  generationRequest,
  trainingProgress,
} from '../../runtime/primitives/attribution/messages.ts';
import {
  type SignedInferenceReceipt,
  signedInferenceReceipt,
  signedVoucher,
  termsHold,
  textDigest,
} from '../../runtime/primitives/attribution/receipts.ts';
import { asksFor } from '../../runtime/primitives/attribution/request.ts';
import { equalBytes, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import type { AccountId } from '../../runtime/primitives/types.ts';
import {
  type AttachedWorker,
  HubError,
  type HubJob,
  type InferenceHub,
  type JobListener,
  type ProgressFault,
  type ProgressReport,
  type ServedModel,
  type SignedProgress,
} from '../ports/inference.ts';
import type { ReceiptVerifier } from './receipt-verifier.ts';
import { ServedByChain } from './served.ts';

interface Job {
  readonly worker: string;
  readonly request: GenerationRequest;
  /** What is asked under which voucher, to the bit. */
  readonly asked: string;
  readonly timer: NodeJS.Timeout;
  /** Undefined: whoever asked is gone, and may ask again. */
  listener: JobListener | undefined;
  /** For those who ask again. */
  said: string;
}

interface Answered {
  readonly receipt: SignedInferenceReceipt;
  readonly text: string;
}

const MAX_JOBS_A_WORKER = 256;
const JOB_MS = 120_000;
const TEXT_BYTES = 1 << 20;
/** Answers for those who ask again: of how many bytes, and how long. */
const KEPT_BYTES = 16 << 20;
const KEPT_MS = 600_000;
/** Leases whose last word is remembered. */
const MAX_TRAININGS = 1_024;
/** How far a worker's clock may be apart. */
const MAX_SKEW_MS = 60_000;

export class WorkerHub implements InferenceHub {
  readonly #verifier: ReceiptVerifier;
  readonly #hashing: Blake;
  readonly #workers = new Map<string, { worker: AttachedWorker; jobs: number }>();
  readonly #jobs = new Map<string, Job>();
  /** Jobs by what they ask under which voucher: who asks the same again hears the same answer, which is paid once. */
  readonly #asked = new Map<string, string>();
  readonly #answers = new LRUCache<string, Answered>({ maxSize: KEPT_BYTES, ttl: KEPT_MS });
  readonly #watchers = new Map<number, Set<(report: ProgressReport) => void>>();
  readonly #receiptWatchers = new Set<(receipt: SignedInferenceReceipt) => void>();
  /** The last report by order. */
  readonly #progress = new LRUCache<
    number,
    { readonly lease: bigint; readonly at: bigint; readonly report: ProgressReport }
  >({
    max: MAX_TRAININGS,
  });

  readonly #served: ServedByChain;

  constructor(verifier: ReceiptVerifier, hashing: Blake) {
    this.#verifier = verifier;
    this.#hashing = hashing;
    this.#served = new ServedByChain(() => verifier.state());
  }

  attach(worker: AttachedWorker): () => void {
    if (this.obligationsOf(worker.account) === undefined) {
      throw new HubError('NOT_REGISTERED', 'the account is no registered worker with a whole bond');
    }
    const key = toHex(worker.account);
    const entry = { worker, jobs: 0 };
    this.#dropJobs(key, 'the worker attached anew');
    this.#workers.set(key, entry);
    return () => {
      if (this.#workers.get(key) !== entry) return;
      this.#workers.delete(key);
      this.#dropJobs(key, 'the worker’s connection is gone');
    };
  }

  get attached(): number {
    return this.#workers.size;
  }

  #dropJobs(worker: string, why: string): void {
    for (const [id, job] of this.#jobs) {
      if (job.worker === worker) this.#end(id)?.listener?.fail(new HubError('WORKER_LEFT', why));
    }
  }

  /** What attached workers serve by the chain's word, those with the fewest jobs first. */
  models(): ServedModel[] {
    const served: ServedModel[] = [];
    for (const { worker, jobs } of this.#workers.values()) {
      const most = this.obligationsOf(worker.account) ?? 0;
      for (const adapter of worker.adapters.slice(0, most)) {
        const model = this.served(adapter, worker.account, jobs);
        if (model !== undefined) served.push(model);
      }
    }
    return served.sort((a, b) => a.adapter - b.adapter || a.waiting - b.waiting);
  }

  /** Workers that are attached here, with the jobs that wait for them. */
  lines(): readonly { readonly worker: AttachedWorker; readonly waiting: number }[] {
    return [...this.#workers.values()].map(({ worker, jobs }) => ({ worker, waiting: jobs }));
  }

  /** By the chain's word; undefined when the worker does not serve that adapter, or has not its full bond. */
  served(adapter: number, worker: AccountId, waiting: number): ServedModel | undefined {
    return this.#served.model(adapter, worker, waiting);
  }

  /** See {@link ServedByChain.obligationsOf}. */
  obligationsOf(worker: AccountId): number | undefined {
    return this.#served.obligationsOf(worker);
  }

  generate(request: GenerationRequest, listener: JobListener): HubJob {
    const asked = toHex(this.#hashing.blake2_256(encode(generationRequest, request)));
    const again = this.#again(asked, listener);
    if (again !== undefined) return again;
    const { payload } = request.voucher;
    const key = toHex(payload.worker);
    const entry = this.#workers.get(key);
    if (entry === undefined) throw new HubError('NO_WORKER', 'the voucher’s worker is not attached to this node');
    const host = this.#verifier.state();
    const serving = inference.servingOf(host, payload.adapter, payload.worker);
    if (serving === undefined || !entry.worker.adapters.includes(payload.adapter)) {
      throw new HubError('NOT_SERVED', `the worker does not serve adapter ${payload.adapter}`);
    }
    if (!compute.isActive(host, payload.worker)) {
      throw new HubError('NOT_SERVED', 'the worker has not its full bond, or is about to leave');
    }
    const { price, markup } = models.adapterOf(host, payload.adapter);
    if (!termsHold({ prices: [price], markup }, payload)) {
      throw new HubError('WRONG_PRICE', 'the voucher’s price is not the adapter’s');
    }
    const fault = this.#verifier.voucherFault(host, request.voucher);
    if (fault === 'OVER_ALLOCATION' || fault === 'NOT_ALLOCATED') {
      throw new HubError(
        'DEPOSIT_SPENT',
        'the voucher promises more than the session has allocated to the worker',
        fault,
      );
    }
    if (fault !== undefined) throw new HubError('BAD_VOUCHER', `the voucher does not hold: ${fault}`, fault);
    if (!asksFor(this.#hashing, payload, request)) {
      throw new HubError('BAD_VOUCHER', 'the voucher was signed for another request', 'OTHER_REQUEST');
    }
    if (entry.jobs >= MAX_JOBS_A_WORKER) throw new HubError('OVERLOADED', 'too many requests wait for this worker');

    const job = randomBytes(16).toString('hex');
    const timer = setTimeout(() => {
      this.#end(job)?.listener?.fail(new HubError('TIMED_OUT', 'the worker took too long'));
      entry.worker.send({ type: 'cancel', job });
    }, JOB_MS);
    this.#jobs.set(job, { worker: key, request, asked, timer, listener, said: '' });
    this.#asked.set(asked, job);
    entry.jobs++;
    entry.worker.send({ type: 'generate', job, request });
    return this.#handle(job, listener);
  }

  /** What was answered already, or is being answered: whoever asked before hears no more of it. */
  #again(asked: string, listener: JobListener): HubJob | undefined {
    const answered = this.#answers.get(asked);
    if (answered !== undefined) {
      listener.answer(answered.receipt, answered.text);
      return { id: randomBytes(16).toString('hex'), cancel() {} };
    }
    const id = this.#asked.get(asked);
    const job = id === undefined ? undefined : this.#jobs.get(id);
    if (id === undefined || job === undefined) return undefined;
    const before = job.listener;
    job.listener = listener;
    before?.fail(new HubError('ASKED_AGAIN', 'the same was asked again under the same voucher'));
    if (job.said !== '') listener.delta(job.said);
    return this.#handle(id, listener);
  }

  #handle(id: string, listener: JobListener): HubJob {
    return {
      id,
      cancel: () => {
        const job = this.#jobs.get(id);
        if (job !== undefined && job.listener === listener) job.listener = undefined;
      },
    };
  }

  stop(id: string): void {
    const job = this.#jobs.get(id);
    if (job === undefined) throw new HubError('UNKNOWN_JOB', 'no such job');
    this.#workers.get(job.worker)?.worker.send({ type: 'cancel', job: id });
  }

  #end(id: string): Job | undefined {
    const job = this.#jobs.get(id);
    if (job === undefined) return undefined;
    this.#jobs.delete(id);
    if (this.#asked.get(job.asked) === id) this.#asked.delete(job.asked);
    clearTimeout(job.timer);
    const entry = this.#workers.get(job.worker);
    if (entry !== undefined && entry.jobs > 0) entry.jobs--;
    return job;
  }

  #own(id: string, account: AccountId): Job {
    const job = this.#jobs.get(id);
    if (job === undefined || job.worker !== toHex(account))
      throw new HubError('UNKNOWN_JOB', 'no such job of this worker');
    return job;
  }

  delta(id: string, account: AccountId, text: string): void {
    const job = this.#own(id, account);
    if (job.said.length + text.length > TEXT_BYTES)
      throw new HubError('BAD_RECEIPT', 'more text than an answer may have');
    job.said += text;
    job.listener?.delta(text);
  }

  refuse(id: string, account: AccountId, code: string, message: string): void {
    this.#own(id, account);
    this.#end(id)?.listener?.fail(new HubError('WORKER_REFUSED', message, code));
  }

  /** Verifies before it passes on. Throws {@link HubError} to the worker when the receipt is wrong. */
  async answer(id: string, account: AccountId, receipt: SignedInferenceReceipt, text: string): Promise<void> {
    const { request, asked } = this.#own(id, account);
    const fault = await this.faultOf(request, receipt, text);
    if (fault === undefined) {
      const size = encode(signedInferenceReceipt, receipt).length + 2 * text.length;
      this.#answers.set(asked, { receipt, text }, { size });
      const job = this.#end(id);
      this.noteReceipt(receipt);
      job?.listener?.answer(receipt, text);
      return;
    }
    const job = this.#end(id);
    const error = new HubError('BAD_RECEIPT', `the receipt does not hold: ${fault}`, fault);
    job?.listener?.fail(error);
    throw error;
  }

  /** A code for what is wrong with an answer; undefined for one that holds. */
  async faultOf(
    request: GenerationRequest,
    receipt: SignedInferenceReceipt,
    text: string,
  ): Promise<string | undefined> {
    return this.#foreign(request, receipt, text) ?? (await this.#verifier.verify(receipt));
  }

  /** Whether a receipt is about something else than what was asked and said. */
  #foreign(request: GenerationRequest, { payload }: SignedInferenceReceipt, text: string): string | undefined {
    if (text.length > TEXT_BYTES) return 'TEXT_TOO_LONG';
    const asked = encode(signedVoucher, request.voucher);
    if (!equalBytes(encode(signedVoucher, payload.voucher), asked)) return 'OTHER_VOUCHER';
    if (!equalBytes(payload.outputHash, textDigest(this.#hashing, utf8(text)))) return 'OTHER_TEXT';
    if (payload.tokensOut > request.maxTokens) return 'TOO_MANY_TOKENS';
    // A conversation goes through the model's template, which nodes need not know.
    const { input } = request;
    const samePrompt =
      input.type === 'Chat' || equalBytes(payload.promptHash, textDigest(this.#hashing, utf8(input.value)));
    return samePrompt ? undefined : 'OTHER_PROMPT';
  }

  /** One that holds. */
  noteReceipt(receipt: SignedInferenceReceipt): void {
    for (const tell of this.#receiptWatchers) tell(receipt);
  }

  watchReceipts(tell: (receipt: SignedInferenceReceipt) => void): () => void {
    this.#receiptWatchers.add(tell);
    return () => this.#receiptWatchers.delete(tell);
  }

  /** Whether the chain has settled it, or a later one of its session and worker. */
  isSettled({ payload: { voucher, worker } }: SignedInferenceReceipt): boolean {
    const { session, adapter, nonce } = voucher.payload;
    const last = inference.lastNonce(this.#verifier.state(), session, worker, adapter);
    return last !== undefined && nonce <= last;
  }

  progress({ payload, signature }: SignedProgress): ProgressFault | undefined {
    const { chain, order, lease, at, phase, done, step, total, loss, tokensPerSecond } = payload;
    if (!equalBytes(chain, this.#verifier.genesisHash())) return 'OTHER_CHAIN';
    const host = this.#verifier.state();
    const status = compute.taskOf(host, order)?.status;
    if (status?.type !== 'Leased' || status.value.id !== lease) return 'NOT_LEASED';
    const before = this.#progress.get(order);
    if (before?.lease === lease && before.at >= at) return 'STALE';
    if (Math.abs(Number(at) - Date.now()) > MAX_SKEW_MS) return 'STALE';
    const digest = hashOf(this.#hashing, trainingProgress, payload);
    if (!verifySignature(host, signature, digest, status.value.worker)) return 'BAD_SIGNATURE';
    const report: ProgressReport = {
      order,
      phase,
      done: done / 1_000,
      ...(step !== undefined && { step }),
      ...(total !== undefined && { total }),
      ...(loss !== undefined && { loss: loss / 1_000 }),
      ...(tokensPerSecond !== undefined && { tokensPerSecond }),
    };
    this.#progress.set(order, { lease, at, report });
    for (const tell of this.#watchers.get(order) ?? []) tell(report);
    return undefined;
  }

  watch(order: number, tell: (report: ProgressReport) => void): () => void {
    const watchers = this.#watchers.get(order) ?? new Set();
    this.#watchers.set(order, watchers);
    watchers.add(tell);
    // Whoever comes late need not wait for the next one.
    const last = this.#progress.get(order);
    if (last !== undefined) tell(last.report);
    return () => {
      watchers.delete(tell);
      if (watchers.size === 0) this.#watchers.delete(order);
    };
  }
}
