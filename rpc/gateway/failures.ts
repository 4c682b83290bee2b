/** How paid requests fail: what an application is told, and whether another try may do better. */
import { ApiError } from './openai.ts';

/** What an application is told, by the name of a failure. */
type Told = Readonly<Record<string, readonly [status: number, type: string, code: string]>>;

/** By the hub's names. */
const FAILURES: Told = {
  DEPOSIT_SPENT: [402, 'insufficient_quota', 'insufficient_quota'],
  OVERLOADED: [429, 'rate_limit_error', 'overloaded'],
  NO_WORKER: [503, 'server_error', 'no_worker'],
  NOT_SERVED: [404, 'invalid_request_error', 'model_not_found'],
  TIMED_OUT: [504, 'server_error', 'timeout'],
  WORKER_LEFT: [502, 'server_error', 'worker_left'],
  BAD_RECEIPT: [502, 'server_error', 'bad_receipt'],
  ASKED_AGAIN: [409, 'invalid_request_error', 'asked_again'],
  ANSWER_CHANGED: [502, 'server_error', 'answer_changed'],
  VOID: [502, 'server_error', 'worker_left'],
  NODE_LEFT: [503, 'server_error', 'no_node'],
};

/** By the worker's names. */
const REFUSALS: Told = {
  PROMPT_TOO_LONG: [400, 'invalid_request_error', 'context_length_exceeded'],
  BAD_REQUEST: [400, 'invalid_request_error', 'invalid_value'],
  BAD_TEMPLATE: [400, 'invalid_request_error', 'invalid_value'],
  VOUCHER_TOO_SMALL: [402, 'insufficient_quota', 'insufficient_quota'],
  NOT_SERVED: [404, 'invalid_request_error', 'model_not_found'],
  OVERLOADED: [429, 'rate_limit_error', 'overloaded'],
  STOPPING: [503, 'server_error', 'worker_left'],
};

/** Outcomes that leave open what the worker said and will settle: it is asked again, under the same voucher. */
export const DOUBTFUL = new Set([
  'TIMED_OUT',
  'WORKER_LEFT',
  'BAD_RECEIPT',
  'NODE_LEFT',
  'ASKED_AGAIN',
  'ANSWER_CHANGED',
]);
/** Outcomes of a later try that may be better soon: the worker or its node is not back yet. */
export const PASSING = new Set(['TIMED_OUT', 'WORKER_LEFT', 'NODE_LEFT', 'NO_WORKER', 'NOT_SERVED', 'OVERLOADED']);
/** Outcomes after which another worker may do better. */
export const ELSEWHERE = new Set(['NO_WORKER', 'WORKER_LEFT', 'OVERLOADED', 'NOT_SERVED', 'STOPPING', 'VOID']);
/** By these a worker says that it has not answered and will not, under a voucher that it was asked under before. */
export const VOID = new Set(['STALE_VOUCHER', 'VOUCHER_TOO_SMALL']);

/** A failed job by the hub's name for it. */
export class JobFailure extends Error {
  readonly code: string;
  readonly reason: string | undefined;
  /** Whether the promise is left open: what it came to is not known, and nobody else may be asked. */
  open = false;
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

export const lost = (): JobFailure => new JobFailure('NODE_LEFT', 'the connection to the node is gone');
