/** What nodes say to each other about answering: who serves what, questions, and answers as they come. */
import { generationRequest } from '../../node/ports/inference.ts';
import { signedAttachment } from '../../runtime/primitives/attribution/messages.ts';
import { signedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import {
  fixedBytes,
  type Infer,
  option,
  struct,
  text,
  u32,
  u64,
  variants,
  vec,
} from '../../runtime/primitives/scale/codec.ts';
import { hash } from '../../runtime/primitives/types.ts';

export const MAX_TEXT = 1 << 20;
const MAX_WORKERS = 64;
const MAX_ADAPTERS = 2_048;

/**
 * One node's word on the workers that are attached to it, each with the worker's own word that it is. The newest one replaces those
 * before.
 */
export const advert = struct({
  chain: hash,
  /** The node's ed25519 key, which its peer id is made of. */
  node: fixedBytes(32),
  /** Unix time in milliseconds. */
  at: u64,
  /** Multiaddresses, for those who are not connected to it. */
  addresses: vec(text(256), 16),
  workers: vec(struct({ attachment: signedAttachment, waiting: u32, adapters: vec(u32, MAX_ADAPTERS) }), MAX_WORKERS),
});
export type Advert = Infer<typeof advert>;
/** The signature is the node's over `openledger/advert/2` and the encoded advert. */
export const signedAdvert = struct({ advert, signature: fixedBytes(64) });
export const MAX_ADVERT_BYTES = 64 * 1024;

/** Frames of whoever asks. `Stop` ends an answer early; its receipt still comes. */
export const question = variants({ Ask: generationRequest, Stop: null });
export const MAX_QUESTION_BYTES = 1 << 20;

/** Frames of whoever answers; the last is `Answer` or `Failed`. */
export const reply = variants({
  /** The question is with the worker. It comes at once, so that another way can be tried when it does not. */
  Taken: null,
  Delta: text(MAX_TEXT),
  Answer: struct({ text: text(MAX_TEXT), receipt: signedInferenceReceipt }),
  Failed: struct({ code: text(32), message: text(1_024), reason: option(text(64)) }),
});
export type Reply = Infer<typeof reply>;
/** An answer with its text and the receipt of up to all contributors that are named in it. */
export const MAX_REPLY_BYTES = 4 << 20;
