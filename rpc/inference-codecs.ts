/** What travels between applications, nodes and workers beside the canonical structures: SCALE in hex, as they are. */
import { canonical } from '../runtime/primitives/attribution/canonical.ts';
import { signedVoucher } from '../runtime/primitives/attribution/receipts.ts';
import { requestFields } from '../runtime/primitives/attribution/request.ts';
import { fixedBytes, type Infer, struct } from '../runtime/primitives/scale/codec.ts';
import { accountId, hash } from '../runtime/primitives/types.ts';

/** One paid request, whose voucher names it by its hash. The worker that the voucher names answers it. */
export const generationRequest = struct({ voucher: signedVoucher, ...requestFields });
export type GenerationRequest = Infer<typeof generationRequest>;

/** What a worker signs to prove its key to a node; the challenge is the connection's own. */
export const attachment = canonical(
  'attach/1',
  'Attachment',
  struct({ chain: hash, challenge: fixedBytes(32), worker: accountId }),
);
