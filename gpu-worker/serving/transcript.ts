/**
 * What was asked and said, as a worker keeps it beside a receipt and discloses it to auditors: enough to make the answer
 * and its feature again. The voucher in the receipt holds the request to it, the receipt's hashes text and tokens.
 */
import { canonical } from '../../runtime/primitives/attribution/canonical.ts';
import { MAX_TRANSCRIPT_TOKENS } from '../../runtime/primitives/attribution/limits.ts';
import { requestTerms } from '../../runtime/primitives/attribution/request.ts';
import { type Infer, struct, text, u32, vec } from '../../runtime/primitives/scale/codec.ts';

export const transcript = canonical(
  'transcript/2',
  'Transcript',
  struct({
    /** What the voucher was signed for. */
    request: requestTerms,
    text: text(),
    /** Everything that was sampled, end tokens included. */
    tokens: vec(u32, MAX_TRANSCRIPT_TOKENS),
  }),
);
export type Transcript = Infer<typeof transcript>;
