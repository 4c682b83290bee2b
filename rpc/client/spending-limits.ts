/** What a user allows to be spent: looked at before a promise is signed. */
import type { Price } from '../../runtime/primitives/attribution/receipts.ts';
import type { Balance } from '../../runtime/primitives/types.ts';
import { PaidFailure } from './job-failure.ts';

/** Amounts in OPEN's smallest unit; what is left out has no limit. */
export interface SpendingLimits {
  /** Of a token of a question. */
  readonly inputPrice?: Balance | undefined;
  /** Of a token of an answer. */
  readonly outputPrice?: Balance | undefined;
  /** What one question may cost at most: what its voucher promises. */
  readonly request?: Balance | undefined;
  /** What all questions of a day (UTC) may cost: what was paid, and what is promised. */
  readonly day?: Balance | undefined;
}

interface Intended {
  readonly price: Price;
  readonly most: Balance;
  readonly today: Balance;
}

/** The limit that a promise would break. */
export function exceededLimit(limits: SpendingLimits, { price, most, today }: Intended): PaidFailure | undefined {
  const { inputPrice, outputPrice, request, day } = limits;
  const over = (limit: Balance | undefined, amount: Balance): limit is Balance => limit !== undefined && amount > limit;
  if (over(inputPrice, price.input)) {
    return new PaidFailure(
      'PRICE_LIMIT',
      `a token of the question costs ${price.input}, at most ${inputPrice} is allowed`,
    );
  }
  if (over(outputPrice, price.output)) {
    return new PaidFailure(
      'PRICE_LIMIT',
      `a token of the answer costs ${price.output}, at most ${outputPrice} is allowed`,
    );
  }
  if (over(request, most)) {
    return new PaidFailure('REQUEST_LIMIT', `the question may cost ${most}, at most ${request} is allowed`);
  }
  if (over(day, today + most)) {
    return new PaidFailure(
      'DAY_LIMIT',
      `today came to ${today}, with this question ${today + most}: ${day} is allowed`,
    );
  }
  return undefined;
}
