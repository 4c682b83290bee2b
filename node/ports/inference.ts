/** What RPC may ask of the inference hub, as `client.ts` is for the chain. */

import type { Explanation } from '../../runtime/primitives/attribution/explain.ts';
import type { AdapterId } from '../../runtime/primitives/attribution/ids.ts';
import type {
  GenerationRequest,
  SignedAttachment,
  SignedProgress,
} from '../../runtime/primitives/attribution/messages.ts';
import type { SignedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import type { RequestTerms } from '../../runtime/primitives/attribution/request.ts';
import type { AccountId } from '../../runtime/primitives/types.ts';

export {
  type GenerationRequest,
  generationRequest,
  type SignedAttachment,
  type SignedProgress,
  signedProgress,
} from '../../runtime/primitives/attribution/messages.ts';

export type HubErrorCode =
  /** Whoever attaches is no registered worker with a whole bond. */
  | 'NOT_REGISTERED'
  | 'NO_WORKER'
  | 'NOT_SERVED'
  | 'WRONG_PRICE'
  | 'BAD_VOUCHER'
  | 'ASKED_AGAIN'
  | 'DEPOSIT_SPENT'
  | 'OVERLOADED'
  | 'WORKER_LEFT'
  | 'WORKER_REFUSED'
  | 'TIMED_OUT'
  | 'BAD_RECEIPT'
  | 'UNKNOWN_JOB';

export class HubError extends Error {
  readonly code: HubErrorCode;
  /** The worker's own code for a refusal, the verifier's for a receipt. */
  readonly reason: string | undefined;
  constructor(code: HubErrorCode, message: string, reason?: string) {
    super(message);
    this.code = code;
    this.reason = reason;
  }
}

export type JobMessage =
  | { readonly type: 'generate'; readonly job: string; readonly request: GenerationRequest }
  | { readonly type: 'cancel'; readonly job: string };

/** A worker's line to this node. */
export interface AttachedWorker {
  readonly account: AccountId;
  readonly adapters: readonly number[];
  /** By which other nodes see that the worker is here; the line renews it. */
  readonly attachment: SignedAttachment;
  send(message: JobMessage): void;
}

export interface JobListener {
  delta(text: string): void;
  answer(receipt: SignedInferenceReceipt, text: string): void;
  fail(error: HubError): void;
}

export interface HubJob {
  /** Known to whoever asked alone: names the job for {@link InferenceHub.stop}. */
  readonly id: string;
  /**
   * Whoever asked is gone. The answer is made to its end, since it may be asked for again under its voucher; who wants no more
   * of it says {@link InferenceHub.stop} first.
   */
  cancel(): void;
}

export interface ServedModel {
  readonly adapter: AdapterId;
  readonly name: string;
  readonly worker: AccountId;
  readonly waiting: number;
}

/** Training as its worker tells it. */
export interface ProgressReport {
  readonly order: number;
  readonly phase: string;
  readonly done: number;
  readonly step?: number;
  readonly total?: number;
  readonly loss?: number;
  readonly tokensPerSecond?: number;
}

/** Why a report of progress is not taken; `STALE`: a later one of the lease is known, or it is not of this time. */
export type ProgressFault = 'OTHER_CHAIN' | 'NOT_LEASED' | 'BAD_SIGNATURE' | 'STALE';

export interface InferenceHub {
  /**
   * Takes a worker in whose key is proven; one line an account, the newest counts. Returns how it leaves. Throws {@link HubError}
   * `NOT_REGISTERED`.
   */
  attach(worker: AttachedWorker): () => void;
  models(): readonly ServedModel[];
  /**
   * Throws {@link HubError}; later failures reach the listener. The same request under the same voucher may be asked again, for
   * instance after a connection was lost: it is the same job then, and its answer is paid once.
   */
  generate(request: GenerationRequest, listener: JobListener): HubJob;
  /** Ends an answer early: its receipt, for what was said until then, still comes. Throws {@link HubError}. */
  stop(job: string): void;
  delta(job: string, account: AccountId, text: string): void;
  refuse(job: string, account: AccountId, code: string, message: string): void;
  answer(job: string, account: AccountId, receipt: SignedInferenceReceipt, text: string): Promise<void>;
  /** A worker's word on its training: undefined when it is taken, and told to those who watch. */
  progress(report: SignedProgress): ProgressFault | undefined;
  watch(order: number, tell: (report: ProgressReport) => void): () => void;
  /** Receipts from anywhere in the network that this node has verified. Returns how to hear no more. */
  watchReceipts(tell: (receipt: SignedInferenceReceipt) => void): () => void;
}

/** Receipts checked and explained by the chain's state and the adapter's published files. */
export interface ReceiptChecks {
  /** A code for what is wrong; undefined for a receipt that holds. */
  verify(receipt: SignedInferenceReceipt, asked?: RequestTerms): Promise<string | undefined>;
  explain(receipt: SignedInferenceReceipt, top: number): Promise<Explanation>;
}
