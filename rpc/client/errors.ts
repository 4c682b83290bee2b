/** What goes wrong between a client and the ledger, as errors with a code. */
import type { DispatchError, ErrorDef } from '../../runtime/framework/dispatch.ts';
import { placeOf } from '../../runtime/framework/place.ts';

export class LedgerError extends Error {
  /**
   * `Pallet.Error` for a failed call, `BLOB_…` for blobs. For transactions: `REFUSED` (the pool does not take it),
   * `USURPED` (another one with its nonce took its place), `DROPPED` (the pool had no room), `INVALID` (it became so while
   * it waited), `EXPIRED` (no block took it while it was valid), `NOT_INCLUDED` (no block took it in the time given),
   * `UNKNOWN_OUTCOME` (nobody can tell any more). `OTHER_RUNTIME`: the definitions of this client are not the chain's.
   */
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** The transaction is in a block, and its call failed: everything but the fee is as before. */
export class CallFailed extends LedgerError {
  readonly reason: DispatchError;
  /** The pallet's own words. */
  readonly docs: string;

  /** `code`: `Models.NotOwner`, `Token.FundsUnavailable`, `BadOrigin`. */
  constructor(code: string, docs: string, reason: DispatchError) {
    super(code, docs === '' ? `the call failed: ${code}` : docs);
    this.reason = reason;
    this.docs = docs;
  }

  /** Whether this is the failure that a pallet defines: `failure.is(models.errors.NotOwner)`. */
  is(error: ErrorDef): boolean {
    const { reason } = this;
    return (
      reason.type === 'Module' &&
      reason.value.index === placeOf(error).palletIndex &&
      reason.value.error[0] === error.index
    );
  }
}

/** Whether something failed as a pallet defines it. */
export const failedWith = (problem: unknown, error: ErrorDef): problem is CallFailed =>
  problem instanceof CallFailed && problem.is(error);

/** The code of a pallet's error, `Models.NotOwner`, and its words: for what a client finds out by itself. */
export function palletError(error: ErrorDef, message = error.docs): LedgerError {
  const { pallet, name } = placeOf(error);
  return new LedgerError(`${pallet}.${name}`, message);
}
