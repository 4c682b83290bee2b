/**
 * Planted faults against auditors that do not look (docs/method.md, "Keeping workers honest"). A worker and a payer that is
 * in on it make an answer whose feature is wrong by the chain's own hand: first the payer commits to everything that will be
 * said, the right feature among it, and the block that the commitment stands in then decides how the feature is bent. Nobody
 * can steer that towards a right one, so what was planted is a fault whatever had been committed to, and the chain can see it
 * without a model. Nobody else is ever answered wrongly, and an auditor cannot tell such an answer from another one but by
 * computing its feature.
 */
import { concatBytes, equalBytes } from '../bytes.ts';
import { fixedBytes, type Infer, struct } from '../scale/codec.ts';
import { accountId, type Hash, hash } from '../types.ts';
import { type Blake, canonical, domainTag, hashOf, int8s } from './canonical.ts';
import { adapterId } from './ids.ts';
import { MAX_K } from './limits.ts';
import type { InferenceReceipt } from './receipts.ts';

/** What the commitment is the hash of, and what is shown when the verdicts are in. */
export const plantedFault = canonical(
  'planted-fault/1',
  'PlantedFault',
  struct({
    worker: accountId,
    adapter: adapterId,
    /** Of the request's terms, and of the answer's tokens. */
    request: hash,
    outputTokensHash: hash,
    /** The right one, as the worker computed it. */
    feature: int8s(MAX_K),
    salt: fixedBytes(32),
  }),
);
export type PlantedFault = Infer<typeof plantedFault>;

/** Narrower features could be hit by chance. */
export const MIN_PLANTED_K = 16;
const NOISE = domainTag('planted-noise/1');
/** The noise's part of the feature's norm, squared, in hundredths: the cosine to the right feature is around .86. */
const NOISE_HUNDREDTHS = 36n;

/** Bytes that nobody knew before the block: one for each entry, −127 … 127. */
function noise(hashing: Blake, commitment: Hash, block: Hash, k: number): Int8Array {
  const out = new Int8Array(k);
  const counter = new Uint8Array(4);
  for (let at = 0; at < k; ) {
    new DataView(counter.buffer).setUint32(0, at, true);
    for (const byte of hashing.blake2_256(concatBytes(NOISE, commitment, block, counter))) {
      if (at < k) out[at++] = byte === 128 ? 0 : (byte << 24) >> 24;
    }
  }
  return out;
}

const squares = (values: Int8Array): bigint => BigInt(values.reduce((sum, each) => sum + each * each, 0));

/** `⌊√value⌋` by Newton's method: no floating point on the chain. */
function squareRoot(value: bigint): bigint {
  if (value < 2n) return value;
  let root = 1n << BigInt(Math.ceil(value.toString(2).length / 2));
  for (;;) {
    const next = (root + value / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

/** The feature that the answer must bear. `block`: hash of the block that the commitment stands in. */
export function bentFeature(hashing: Blake, planted: PlantedFault, block: Hash): Int8Array {
  const { feature } = planted;
  const added = noise(hashing, hashOf(hashing, plantedFault, planted), block, feature.length);
  const strength = squares(added);
  // In units of 2^−8: below 2^16, so that everything after it fits a double.
  const factor = strength === 0n ? 0n : squareRoot((squares(feature) * NOISE_HUNDREDTHS * 65_536n) / (strength * 100n));
  const bent = Array.from(feature, (value, j) => value * 256 + added[j]! * Number(factor));
  const largest = bent.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  if (largest === 0) return new Int8Array(feature.length);
  return Int8Array.from(bent, (value) => {
    const size = Math.floor((Math.abs(value) * 254 + largest) / (2 * largest));
    return value < 0 ? -size : size;
  });
}

/** Whether a receipt bears just that fault. A feature that is hardly bent (a zero one) is none. */
export function bearsFault(hashing: Blake, receipt: InferenceReceipt, planted: PlantedFault, block: Hash): boolean {
  const { worker, adapter, request, outputTokensHash, feature } = planted;
  const promise = receipt.voucher.payload;
  if (feature.length < MIN_PLANTED_K || receipt.feature.length !== feature.length) return false;
  const dot = BigInt(feature.reduce((sum, value, j) => sum + value * receipt.feature[j]!, 0));
  const both = squares(feature) * squares(receipt.feature);
  if (both === 0n || (dot > 0n && 100n * dot * dot >= 98n * both)) return false;
  const bent = bentFeature(hashing, planted, block);
  return (
    equalBytes(receipt.worker, worker) &&
    promise.adapter === adapter &&
    equalBytes(promise.request, request) &&
    equalBytes(receipt.outputTokensHash, outputTokensHash) &&
    receipt.feature.every((value, j) => value === bent[j])
  );
}
