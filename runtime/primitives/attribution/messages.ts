/** What travels between applications, nodes and workers beside the canonical structures: SCALE in hex, as they are. */

import { fixedBytes, type Infer, option, struct, text, u16, u32, u64 } from '../scale/codec.ts';
import { accountId, hash } from '../types.ts';
import { canonical, signed } from './canonical.ts';
import { leaseId, orderId } from './ids.ts';
import { signedVoucher } from './receipts.ts';
import { requestFields } from './request.ts';

/** One paid request, whose voucher names it by its hash. The worker that the voucher names answers it. */
export const generationRequest = struct({ voucher: signedVoucher, ...requestFields });
export type GenerationRequest = Infer<typeof generationRequest>;

/**
 * What a worker signs when it attaches to a node, and again every so often: to that node it proves the worker's key by the connection's own
 * challenge, to all others that the worker is to be asked there. Of two the later one counts.
 */
export const attachment = canonical(
  'attach/2',
  'Attachment',
  struct({
    chain: hash,
    /** The ed25519 key that the node's peer id is made of. */
    node: fixedBytes(32),
    challenge: fixedBytes(32),
    worker: accountId,
    /** Unix time in milliseconds. */
    at: u64,
  }),
);
export const signedAttachment = signed(attachment);
export type SignedAttachment = Infer<typeof signedAttachment>;

/** How far a training is, as its worker signs it; nodes tell it each other. */
export const trainingProgress = canonical(
  'progress/1',
  'TrainingProgress',
  struct({
    chain: hash,
    order: orderId,
    lease: leaseId,
    /** Unix time in milliseconds; a later report of a lease takes the place of those before. */
    at: u64,
    phase: text(32),
    /** Thousandths. */
    done: u16,
    step: option(u32),
    total: option(u32),
    /** Thousandths of a nat. */
    loss: option(u32),
    tokensPerSecond: option(u32),
  }),
);
export const signedProgress = signed(trainingProgress);
export type SignedProgress = Infer<typeof signedProgress>;
