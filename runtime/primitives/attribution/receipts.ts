/** What workers and payers sign. Every signature is over `hashOf(…)` of the structure beside it. */
import { compact, fixedBytes, type Infer, i128, option, struct, u8, u16, u32, u64, u128, vec } from '../scale/codec.ts';
import { accountId, balance, hash, multiSignature, perbill } from '../types.ts';
import { type Blake, canonical, hashOf, int8s, part, signed } from './canonical.ts';
import { adapterId, baseModelId, blobHash, datanetId, leaseId, orderId, sessionId, snapshotVersion } from './ids.ts';
import { MAX_BATCH_CONTRIBUTORS, MAX_CONTRIBUTORS, MAX_K, MAX_SEGMENTS } from './limits.ts';
import { spans } from './spans.ts';

// ---- training ------------------------------------------------------------------------------------------------

export const snapshotRef = part(
  'SnapshotRef',
  struct({ datanet: datanetId, version: snapshotVersion, root: hash, count: u32 }),
);
export type SnapshotRef = Infer<typeof snapshotRef>;

/** Losses in units of 2^−16 nats a token. */
export const lossSummary = part(
  'LossSummary',
  struct({ first: u32, last: u32, best: u32, heldOutBase: option(u32), heldOut: option(u32), steps: u32, tokens: u64 }),
);
export type LossSummary = Infer<typeof lossSummary>;

/** What another worker needs to recompute a feature: the files by hash, the seeds by value. */
export const featureBasis = part(
  'FeatureBasis',
  struct({
    /** The adapter's checkpoint that gradients are taken at (mid-run). */
    checkpoint: blobHash,
    /** Eigenbases of both sides, Λ and damping. */
    eigenbases: blobHash,
    /** V_k, and the spectrum it was cut from. */
    projection: blobHash,
    sketchSeed: u64,
    rotationSeed: u64,
    sketchWidth: u32,
    k: u16,
  }),
);
export type FeatureBasis = Infer<typeof featureBasis>;

/** What is committed about the rows; disputes are decided against these roots. */
export const featureCommitment = part(
  'FeatureCommitment',
  struct({
    /** Merkle root over the rows, one for each record of the snapshot. */
    featureRoot: hash,
    rows: u32,
    k: u16,
    /** Root and length of the running sums. */
    sumRoot: hash,
    sumEntries: u32,
    /** Root and length (vocabulary) of the token frequencies. */
    frequencyRoot: hash,
    vocabulary: u32,
    /** The three published files. */
    featureFile: blobHash,
    sumFile: blobHash,
    frequencyFile: blobHash,
  }),
);
export type FeatureCommitment = Infer<typeof featureCommitment>;

export const trainingReceipt = canonical(
  'training-receipt/1',
  'TrainingReceipt',
  struct({
    /** Genesis hash of the chain: a receipt means nothing on another one. */
    chain: hash,
    order: orderId,
    lease: leaseId,
    /** The nonce that the lease was given out with. */
    nonce: fixedBytes(32),
    worker: accountId,
    snapshot: snapshotRef,
    baseModel: baseModelId,
    /** Hash of the base model's manifest, as registered. */
    baseModelHash: hash,
    /** Hash of the LoRA and optimiser configuration, as ordered. */
    configHash: hash,
    trainingSeed: u64,
    /** The final adapter (`adapter_model.safetensors`) and its configuration. */
    adapter: blobHash,
    adapterConfig: blobHash,
    basis: featureBasis,
    features: featureCommitment,
    /**
     * The engine's states after every {@link segmentSteps} steps but the last, where all bits of a training can be made again:
     * an auditor goes from one to the next. Kept while the receipt can be disputed.
     */
    segments: vec(blobHash, MAX_SEGMENTS - 1),
    loss: lossSummary,
  }),
);
export type TrainingReceipt = Infer<typeof trainingReceipt>;
export const signedTrainingReceipt = signed(trainingReceipt);
export type SignedTrainingReceipt = Infer<typeof signedTrainingReceipt>;

// ---- inference -----------------------------------------------------------------------------------------------

/** OPEN a token, in its smallest unit. */
export const price = part('Price', struct({ input: balance, output: balance }));
export type Price = Infer<typeof price>;

export const feeOf = (each: Price, tokensIn: number, tokensOut: number): bigint =>
  each.input * BigInt(tokensIn) + each.output * BigInt(tokensOut);

/** What an adapter costs by the chain's word: prices in force (more than one for a while after a change), and the markup in them. */
export const serviceTerms = part('ServiceTerms', struct({ prices: vec(price, 2), markup: perbill }));
export type ServiceTerms = Infer<typeof serviceTerms>;

/** Whether a voucher was signed at a price that is in force. */
export const termsHold = (
  { prices, markup }: ServiceTerms,
  signed: { readonly price: Price; readonly markup: number },
): boolean =>
  signed.markup === markup &&
  prices.some(({ input, output }) => input === signed.price.input && output === signed.price.output);

/**
 * The payer's promise, signed by the session's key. `cumulative` is all that the session may owe the worker after this
 * request, counted from when something was first allocated to it, so only the newest voucher matters and none needs a
 * transaction of its own. It is covered by what the session has allocated to the worker on the chain, and by nothing else.
 */
export const voucher = canonical(
  'voucher/3',
  'Voucher',
  struct({
    chain: hash,
    session: sessionId,
    /** Nobody else can be paid for the request. */
    worker: accountId,
    /** Counts the session's requests; each is served once. */
    nonce: u64,
    cumulative: balance,
    /** What this request may cost at most. */
    most: balance,
    adapter: adapterId,
    /** The adapter's when this was signed, the owner's markup in it. */
    price,
    markup: perbill,
    /** Hash of what is asked for (`request.ts`): prompt, sampling settings, bounds. */
    request: hash,
  }),
);
export type Voucher = Infer<typeof voucher>;
export const signedVoucher = part('SignedVoucher', signed(voucher));
export type SignedVoucher = Infer<typeof signedVoucher>;

/** One contributor's standing and income. In ascending order of account ids; nobody with neither influence nor spans. */
export const share = part(
  'Share',
  struct({ contributor: accountId, influence: i128, spanMass: compact(u64), amount: compact(u128) }),
);
export type Share = Infer<typeof share>;

export const finishReason = u8;
export const FINISH = { stop: 0, length: 1, cancelled: 2 } as const;

export const inferenceReceipt = canonical(
  'inference-receipt/1',
  'InferenceReceipt',
  struct({
    voucher: signedVoucher,
    worker: accountId,
    /** The serving lease. */
    lease: leaseId,
    /** Hash of the training receipt whose rows the influence is over. */
    training: hash,
    /** Hashes of the request's and the answer's text ({@link textDigest}) and of the answer's tokens. */
    promptHash: hash,
    outputHash: hash,
    outputTokensHash: hash,
    tokensIn: compact(u32),
    tokensOut: compact(u32),
    finish: finishReason,
    /** The query's feature; empty if the adapter has no rows. */
    feature: int8s(MAX_K),
    spans,
    /** `price · tokens`, and the contributors' part of it, which the shares and the remainder add up to. */
    fee: compact(u128),
    pool: compact(u128),
    shares: vec(share, MAX_CONTRIBUTORS),
    remainder: compact(u128),
  }),
);
export type InferenceReceipt = Infer<typeof inferenceReceipt>;
export const signedInferenceReceipt = part('SignedInferenceReceipt', signed(inferenceReceipt));
export type SignedInferenceReceipt = Infer<typeof signedInferenceReceipt>;

const textBody = canonical('text/1', 'Text', struct({ length: u32, bytes: hash }));
/** Hash of a prompt's or output's UTF-8 bytes, bound to what it is the hash of. */
export const textDigest = (hashing: Blake, bytes: Uint8Array) =>
  hashOf(hashing, textBody, { length: bytes.length, bytes: hashing.blake2_256(bytes) as Infer<typeof hash> });

// ---- settlement ----------------------------------------------------------------------------------------------

export const contributorTotal = part('ContributorTotal', struct({ contributor: accountId, amount: compact(u128) }));
export type ContributorTotal = Infer<typeof contributorTotal>;

/**
 * Receipts of one worker, session and adapter that are settled together, in ascending order of their voucher nonces. The
 * two trees (see `ledger.ts`) make all sums disputable in bounded work.
 */
export const receiptBatch = canonical(
  'receipt-batch/1',
  'ReceiptBatch',
  struct({
    chain: hash,
    worker: accountId,
    session: sessionId,
    adapter: adapterId,
    /** Merkle root over the receipts with their running sums, and their number. */
    root: hash,
    receipts: u32,
    /** Of the first and the last receipt: a later batch of the three must begin above. */
    firstNonce: u64,
    lastNonce: u64,
    /** Root and length of the ledger of shares. */
    ledgerRoot: hash,
    ledgerEntries: u32,
    /** Σ fee, Σ pool, Σ remainder over the receipts. */
    fees: balance,
    pool: balance,
    remainder: balance,
    /** In ascending order of account ids; `Σ totals + remainder = pool`. */
    totals: vec(contributorTotal, MAX_BATCH_CONTRIBUTORS),
    /** The newest voucher. */
    voucher: signedVoucher,
    /** The published file of receipts. */
    blob: blobHash,
  }),
);
export type ReceiptBatch = Infer<typeof receiptBatch>;
export const signedReceiptBatch = part(
  'SignedReceiptBatch',
  struct({ payload: receiptBatch, signature: multiSignature }),
);
export type SignedReceiptBatch = Infer<typeof signedReceiptBatch>;
