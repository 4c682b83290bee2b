/**
 * What every node does before it passes an inference receipt on: signatures, voucher, lease by the chain's state, all
 * integer arithmetic by the adapter's published rows. No GPU, no trust in the worker.
 */
import { LRUCache } from 'lru-cache';
import { verifySignature } from '../../runtime/executive/extrinsic.ts';
import { DispatchFailure } from '../../runtime/framework/dispatch.ts';
import type { Hashing, Host } from '../../runtime/host.ts';
import * as attribution from '../../runtime/pallets/ledger/attribution.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import {
  type AttributionData,
  CommitmentError,
  openCommitment,
} from '../../runtime/primitives/attribution/commitment.ts';
import { Explainer, type Explanation } from '../../runtime/primitives/attribution/explain.ts';
import { FeatureError } from '../../runtime/primitives/attribution/features.ts';
import type { AdapterId } from '../../runtime/primitives/attribution/ids.ts';
import {
  inferenceReceipt,
  type SignedInferenceReceipt,
  type SignedVoucher,
  voucher,
} from '../../runtime/primitives/attribution/receipts.ts';
import { asksFor, type RequestTerms } from '../../runtime/primitives/attribution/request.ts';
import { receiptRules } from '../../runtime/primitives/attribution/split.ts';
import { type ReceiptFault, verifyInferenceReceipt } from '../../runtime/primitives/attribution/verify.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import { type Hash, sameAccount } from '../../runtime/primitives/types.ts';
import { BlobError } from '../blobs/blob-store.ts';

export type VoucherFault =
  | 'OTHER_CHAIN'
  | 'UNKNOWN_SESSION'
  | 'SESSION_CLOSING'
  | 'BAD_VOUCHER_SIGNATURE'
  | 'OVER_DEPOSIT';
export type VerificationFault =
  | ReceiptFault
  | Exclude<VoucherFault, 'SESSION_CLOSING'>
  | 'UNKNOWN_ADAPTER'
  | 'OTHER_TRAINING'
  | 'OTHER_REQUEST'
  | 'OTHER_WORKER'
  | 'NOT_SERVING'
  | 'BAD_SIGNATURE'
  /** The adapter's files are not on this node (yet), or are not what was committed to. */
  | 'NO_DATA'
  | 'BAD_DATA';

/** Adapters whose rows are kept in memory. */
const KEPT_ADAPTERS = 16;

export interface VerifierPorts {
  readonly hashing: Hashing;
  /** The state that receipts are held against. */
  state(): Host;
  genesisHash(): Hash;
  /** A published file. Throws a {@link BlobError} where it cannot be had. */
  blob(hash: Hash): Promise<Uint8Array>;
}

interface Opened {
  readonly data: AttributionData;
  readonly explainer: Explainer;
}

export class ReceiptVerifier {
  readonly #ports: VerifierPorts;
  readonly #opened = new LRUCache<string, Promise<Opened>>({ max: KEPT_ADAPTERS });

  constructor(ports: VerifierPorts) {
    this.#ports = ports;
  }

  /** The state that receipts are held against. */
  state(): Host {
    return this.#ports.state();
  }

  genesisHash(): Hash {
    return this.#ports.genesisHash();
  }

  /** Whether a session stands behind a voucher (`undefined`: it does). Who has used it up is the worker's business. */
  voucherFault(host: Host, { payload, signature }: SignedVoucher): VoucherFault | undefined {
    if (!equalBytes(payload.chain, this.#ports.genesisHash())) return 'OTHER_CHAIN';
    const session = inference.sessionOf(host, payload.session);
    if (session === undefined) return 'UNKNOWN_SESSION';
    if (!verifySignature(host, signature, hashOf(host, voucher, payload), session.key)) return 'BAD_VOUCHER_SIGNATURE';
    if (payload.cumulative > session.deposit + session.settled) return 'OVER_DEPOSIT';
    return session.closing === undefined ? undefined : 'SESSION_CLOSING';
  }

  /**
   * What is wrong with a receipt (`undefined`: nothing). `asked`: what somebody says that its voucher was signed for; where
   * that is not so, or so against somebody's word, the session key's signature tells.
   */
  async verify(receipt: SignedInferenceReceipt, asked?: RequestTerms): Promise<VerificationFault | undefined> {
    const { payload, signature } = receipt;
    const promise = payload.voucher.payload;
    const host = this.state();
    const fault = this.voucherFault(host, payload.voucher);
    if (fault !== undefined && fault !== 'SESSION_CLOSING') return fault;
    if (asked !== undefined && !asksFor(host, promise, asked)) return 'OTHER_REQUEST';
    if (!sameAccount(promise.worker, payload.worker)) return 'OTHER_WORKER';
    const adapter = known(() => models.adapterOf(host, promise.adapter));
    if (adapter === undefined) return 'UNKNOWN_ADAPTER';
    if (!equalBytes(adapter.training, payload.training)) return 'OTHER_TRAINING';
    if (inference.servingOf(host, promise.adapter, payload.worker)?.lease !== payload.lease) return 'NOT_SERVING';
    if (!verifySignature(host, signature, hashOf(host, inferenceReceipt, payload), payload.worker))
      return 'BAD_SIGNATURE';
    const inForce = attribution.rulesInForce(host);
    let opened: Opened;
    try {
      opened = await this.#open(host, promise.adapter);
    } catch (problem) {
      if (problem instanceof CommitmentError || problem instanceof FeatureError) return 'BAD_DATA';
      if (problem instanceof BlobError) return 'NO_DATA';
      throw problem;
    }
    const { model } = opened.data;
    const faults = inForce.map((rules) => verifyInferenceReceipt(payload, model, receiptRules(rules, adapter.markup)));
    return faults.includes(undefined) ? undefined : faults[0];
  }

  /** Why a receipt pays whom. Verify it first. */
  async explain({ payload }: SignedInferenceReceipt, top: number): Promise<Explanation> {
    const { explainer } = await this.#open(this.state(), payload.voucher.payload.adapter);
    return explainer.explain(payload, top);
  }

  #open(host: Host, adapter: AdapterId): Promise<Opened> {
    const { features } = models.receiptOf(host, adapter).payload;
    const key = toHex(features.featureFile) + toHex(features.sumFile);
    const before = this.#opened.get(key);
    if (before !== undefined) return before;
    const { hashing } = this.#ports;
    const opening = (async () => {
      const [rows, sums, frequencies] = await Promise.all(
        [features.featureFile, features.sumFile, features.frequencyFile].map((blob) => this.#ports.blob(blob)),
      );
      const data = openCommitment(hashing, features, { features: rows!, sums: sums!, frequencies: frequencies! });
      return { data, explainer: new Explainer(hashing, data) };
    })();
    this.#opened.set(key, opening);
    // Files may arrive later: a failure is not kept.
    opening.catch(() => this.#opened.delete(key));
    return opening;
  }
}

/** The value, or undefined where a pallet's reader fails as expected. */
function known<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (problem) {
    if (problem instanceof DispatchFailure) return undefined;
    throw problem;
  }
}
