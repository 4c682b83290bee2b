/** Vouchers as payers make them: a session's key promises a worker what one request may cost at most. */
import { type Blake, hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { type SignedVoucher, type Voucher, voucher } from '../../runtime/primitives/attribution/receipts.ts';
import { type RequestTerms, requestTerms } from '../../runtime/primitives/attribution/request.ts';
import { multiSignatureOf, type Signer } from './signer.ts';

/** `key`: the session's (sr25519). The voucher pays for an answer to `terms`, and to nothing else. */
export async function signVoucher(
  hashing: Blake,
  key: Signer,
  { terms, ...promise }: Omit<Voucher, 'request'> & { readonly terms: RequestTerms },
): Promise<SignedVoucher> {
  const payload: Voucher = { ...promise, request: hashOf(hashing, requestTerms, terms) };
  const signature = await key.sign(hashOf(hashing, voucher, payload));
  return { payload, signature: multiSignatureOf(key.scheme, signature) };
}

/** Numbers of a session's vouchers. They rise from run to run: the clock sees to that. */
export class VoucherNonces {
  #last = 0n;

  next(): bigint {
    const now = BigInt(Date.now()) * 1_000_000n;
    this.#last = now > this.#last ? now : this.#last + 1n;
    return this.#last;
  }
}
