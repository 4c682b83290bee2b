/** How paid questions fail: typed by code, and whether another try may do better. */

export type PaidFailureCode =
  /** There is no such session, or none is given. */
  | 'NO_SESSION'
  /** The session's vouchers are signed by another key. */
  | 'OTHER_KEY'
  /** The session's deposit does not cover the question, and nobody adds to it. */
  | 'DEPOSIT_SPENT'
  | 'SESSION_CLOSED'
  /** The payer cannot add to the deposit. */
  | 'NO_FUNDS'
  /** The adapter's price, the question or the day would cost more than the user allows. */
  | 'PRICE_LIMIT'
  | 'REQUEST_LIMIT'
  | 'DAY_LIMIT'
  /** Nobody serves such an adapter. */
  | 'NOT_SERVED'
  /** The node is not reachable. */
  | 'NO_NODE'
  /** A worker's refusal; `reason` is its own code. */
  | 'WORKER_REFUSED'
  /** The worker is certain never to be paid for its promise. */
  | 'VOID'
  /** The second half of an answer does not go on from its first. */
  | 'ANSWER_CHANGED'
  /** The connection to the node went while the answer came. */
  | 'NODE_LEFT'
  | 'NO_WORKER'
  | 'OVERLOADED'
  | 'TIMED_OUT'
  | 'WORKER_LEFT'
  | 'BAD_RECEIPT'
  | 'ASKED_AGAIN'
  | 'WRONG_PRICE'
  | 'BAD_VOUCHER'
  | 'UNKNOWN_JOB'
  /** A code of the node's that this client does not know; `reason` has it. */
  | 'FAILED';

export class PaidFailure extends Error {
  readonly code: PaidFailureCode;
  /** The worker's or the node's own code, where there is one. */
  readonly reason: string | undefined;
  /** Whether the promise is left open: what it came to is not known, and nobody else may be asked. */
  open = false;
  constructor(code: PaidFailureCode, message: string, reason?: string | null) {
    super(message);
    this.code = code;
    this.reason = reason ?? undefined;
  }
}

/** Codes of the node's hub, as they come over the wire. */
const HUB_CODES: readonly PaidFailureCode[] = [
  ...(['NO_WORKER', 'NOT_SERVED', 'WRONG_PRICE', 'BAD_VOUCHER', 'ASKED_AGAIN', 'DEPOSIT_SPENT', 'OVERLOADED'] as const),
  ...(['WORKER_LEFT', 'WORKER_REFUSED', 'TIMED_OUT', 'BAD_RECEIPT', 'UNKNOWN_JOB'] as const),
];

/** What the node says of a job. */
export function jobFailure(code: string, message: string, reason?: string | null): PaidFailure {
  const known = HUB_CODES.find((each) => each === code);
  return known === undefined
    ? new PaidFailure('FAILED', message, reason ?? code)
    : new PaidFailure(known, message, reason);
}

export const nodeLeft = (): PaidFailure => new PaidFailure('NODE_LEFT', 'the connection to the node is gone');

/** Outcomes that leave open what the worker said and will settle: it is asked again, under the same voucher. */
export const DOUBTFUL: ReadonlySet<string> = new Set<PaidFailureCode>([
  'TIMED_OUT',
  'WORKER_LEFT',
  'BAD_RECEIPT',
  'NODE_LEFT',
  'ASKED_AGAIN',
  'ANSWER_CHANGED',
]);
/** Outcomes of a later try that may be better soon: the worker or its node is not back yet. */
export const PASSING: ReadonlySet<string> = new Set<PaidFailureCode>([
  ...(['TIMED_OUT', 'WORKER_LEFT', 'NODE_LEFT', 'NO_WORKER', 'NOT_SERVED', 'OVERLOADED'] as const),
]);
/** Outcomes, or refusals by the worker's names, after which another worker may do better. */
export const ELSEWHERE: ReadonlySet<string> = new Set([
  ...['NO_WORKER', 'WORKER_LEFT', 'OVERLOADED', 'NOT_SERVED', 'STOPPING', 'VOID', 'WRONG_PRICE'],
]);
/** By these a worker says that it has not answered and will not, under a voucher that it was asked under before. */
export const VOID: ReadonlySet<string> = new Set(['STALE_VOUCHER', 'VOUCHER_TOO_SMALL']);
