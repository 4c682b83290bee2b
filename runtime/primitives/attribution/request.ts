/**
 * What an application asks for, in full. Its hash stands in the voucher that pays for the answer, so that the payer's
 * signature covers it: a worker cannot claim to have been asked something else, nor a payer to have asked it.
 */
import { equalBytes } from '../bytes.ts';
import { type Infer, struct, text, u32, u64, variants, vec } from '../scale/codec.ts';
import { perbill } from '../types.ts';
import { type Blake, canonical, hashOf, part } from './canonical.ts';
import type { Voucher } from './receipts.ts';

export const MAX_PROMPT_BYTES = 65_536;
export const MAX_STOPS = 16;
export const MAX_MESSAGES = 256;

/** Text to go on from, or a conversation that is put into the model's own template. */
export const requestInput = part(
  'RequestInput',
  variants({
    Text: text(MAX_PROMPT_BYTES),
    Chat: vec(struct({ role: text(32), content: text(MAX_PROMPT_BYTES) }), MAX_MESSAGES),
  }),
);
export type RequestInput = Infer<typeof requestInput>;

export const requestFields = {
  input: requestInput,
  maxTokens: u32,
  /** In parts of 10^9 of 1; 0 is greedy. At most 4. */
  temperature: u32,
  topP: perbill,
  /** Chosen at random where the application names none, it also keeps the hash from telling what was asked. */
  seed: u64,
  stop: vec(text(256), MAX_STOPS),
};

export const requestTerms = canonical('request/1', 'RequestTerms', struct(requestFields));
export type RequestTerms = Infer<typeof requestTerms>;

/** Whether a voucher was signed for just this. Whose signature it bears is the chain's state's to say. */
export const asksFor = (hashing: Blake, { request }: Pick<Voucher, 'request'>, terms: RequestTerms): boolean =>
  equalBytes(request, hashOf(hashing, requestTerms, terms));
