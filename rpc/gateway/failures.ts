/** What an application is told of a paid question that failed, in OpenAI's words. */
import type { PaidFailure, PaidFailureCode } from '../client/job-failure.ts';
import { ApiError } from './openai.ts';

type Told = readonly [status: number, type: string, code: string];

const FAILURES: Readonly<Record<Exclude<PaidFailureCode, 'WORKER_REFUSED' | 'FAILED'>, Told>> = {
  NO_SESSION: [402, 'insufficient_quota', 'no_session'],
  OTHER_KEY: [402, 'insufficient_quota', 'other_key'],
  DEPOSIT_SPENT: [402, 'insufficient_quota', 'insufficient_quota'],
  SESSION_CLOSED: [402, 'insufficient_quota', 'insufficient_quota'],
  NO_FUNDS: [402, 'insufficient_quota', 'insufficient_quota'],
  PRICE_LIMIT: [402, 'insufficient_quota', 'price_limit'],
  REQUEST_LIMIT: [402, 'insufficient_quota', 'request_limit'],
  DAY_LIMIT: [402, 'insufficient_quota', 'day_limit'],
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
  NO_NODE: [503, 'server_error', 'no_node'],
  WRONG_PRICE: [502, 'server_error', 'wrong_price'],
  BAD_VOUCHER: [502, 'server_error', 'bad_voucher'],
  UNKNOWN_JOB: [502, 'server_error', 'unknown_job'],
};

/** By the worker's names. */
const REFUSALS: Readonly<Record<string, Told>> = {
  PROMPT_TOO_LONG: [400, 'invalid_request_error', 'context_length_exceeded'],
  BAD_REQUEST: [400, 'invalid_request_error', 'invalid_value'],
  BAD_TEMPLATE: [400, 'invalid_request_error', 'invalid_value'],
  NOT_COVERED: [402, 'insufficient_quota', 'insufficient_quota'],
  VOUCHER_TOO_SMALL: [402, 'insufficient_quota', 'insufficient_quota'],
  NOT_SERVED: [404, 'invalid_request_error', 'model_not_found'],
  OVERLOADED: [429, 'rate_limit_error', 'overloaded'],
  STOPPING: [503, 'server_error', 'worker_left'],
};

export function apiError({ code, reason, message }: PaidFailure): ApiError {
  const known = code === 'WORKER_REFUSED' || code === 'FAILED' ? REFUSALS[reason ?? ''] : FAILURES[code];
  const [status, type, name] = known ?? [502, 'server_error', (reason ?? code).toLowerCase()];
  return new ApiError(status, type, name, message, name === 'model_not_found' ? 'model' : null);
}
