/** Names of things on the ledger that receipts refer to. */
import { branded, compact, type Infer, struct, u32, u64 } from '../scale/codec.ts';
import { hash } from '../types.ts';
import { part } from './canonical.ts';

export const datanetId = part('DatanetId', branded<'DatanetId'>()(u32));
export type DatanetId = Infer<typeof datanetId>;
/** Batches of a Datanet count from 0. */
export const batchIndex = u32;
export const snapshotVersion = u32;

export const baseModelId = part('BaseModelId', branded<'BaseModelId'>()(u32));
export type BaseModelId = Infer<typeof baseModelId>;
export const orderId = part('OrderId', branded<'OrderId'>()(u32));
export type OrderId = Infer<typeof orderId>;
export const adapterId = part('AdapterId', branded<'AdapterId'>()(u32));
export type AdapterId = Infer<typeof adapterId>;
/** Leases are never reused: a result for an old one is refused. */
export const leaseId = part('LeaseId', branded<'LeaseId'>()(u64));
export type LeaseId = Infer<typeof leaseId>;
export const sessionId = part('SessionId', branded<'SessionId'>()(u64));
export type SessionId = Infer<typeof sessionId>;
export const receiptBatchId = part('ReceiptBatchId', branded<'ReceiptBatchId'>()(u64));
export type ReceiptBatchId = Infer<typeof receiptBatchId>;

/** What commits nodes to keep files: one thing of one account. */
export const claimId = part('ClaimId', branded<'ClaimId'>()(u64));
export type ClaimId = Infer<typeof claimId>;

/** Hash of a blob's bytes (blake2b-256, no domain: blobs are content-addressed by everybody). */
export const blobHash = hash;

/**
 * A blob as somebody claims it to be. Only one size belongs to a hash, but nobody can tell which before the bytes are seen:
 * so a claim names both, and a wrong one hinders nobody else's.
 */
export const blobRef = part('BlobRef', struct({ hash: blobHash, bytes: compact(u64) }));
export type BlobRef = Infer<typeof blobRef>;
