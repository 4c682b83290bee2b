/** What travels between applications, nodes and workers beside the canonical structures: SCALE in hex, as they are. */
import { canonical } from '../runtime/primitives/attribution/canonical.ts';
import { signedVoucher } from '../runtime/primitives/attribution/receipts.ts';
import { fixedBytes, type Infer, struct, text, u32, u64, variants, vec } from '../runtime/primitives/scale/codec.ts';
import { accountId, hash, perbill } from '../runtime/primitives/types.ts';

export const MAX_PROMPT_BYTES = 65_536;
export const MAX_STOPS = 16;
export const MAX_MESSAGES = 256;

/** One paid request. The worker that the voucher names answers it. */
export const generationRequest = struct({
  voucher: signedVoucher,
  /** Text to go on from, or a conversation that the worker puts into the model's own template. */
  input: variants({
    Text: text(MAX_PROMPT_BYTES),
    Chat: vec(struct({ role: text(32), content: text(MAX_PROMPT_BYTES) }), MAX_MESSAGES),
  }),
  maxTokens: u32,
  /** In parts of 10^9 of 1; 0 is greedy. At most 4. */
  temperature: u32,
  topP: perbill,
  seed: u64,
  stop: vec(text(256), MAX_STOPS),
});
export type GenerationRequest = Infer<typeof generationRequest>;

/** What a worker signs to prove its key to a node; the challenge is the connection's own. */
export const attachment = canonical(
  'attach/1',
  'Attachment',
  struct({ chain: hash, challenge: fixedBytes(32), worker: accountId }),
);
