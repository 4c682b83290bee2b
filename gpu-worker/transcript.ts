/**
 * What was asked and said, as a worker keeps it beside a receipt and discloses it to auditors: enough to make the answer
 * and its feature again. The receipt's hashes hold prompt, text and tokens to it.
 */
import { canonical } from '../runtime/primitives/attribution/canonical.ts';
import { MAX_TRANSCRIPT_TOKENS } from '../runtime/primitives/attribution/limits.ts';
import { type Infer, struct, text, u32, u64, vec } from '../runtime/primitives/scale/codec.ts';
import { perbill } from '../runtime/primitives/types.ts';

export const transcript = canonical(
  'transcript/1',
  'Transcript',
  struct({
    /** As the model read it, its template applied. */
    prompt: text(),
    maxTokens: u32,
    /** In parts of 10^9. */
    temperature: u32,
    topP: perbill,
    seed: u64,
    stop: vec(text(256)),
    text: text(),
    /** Everything that was sampled, end tokens included. */
    tokens: vec(u32, MAX_TRANSCRIPT_TOKENS),
  }),
);
export type Transcript = Infer<typeof transcript>;
