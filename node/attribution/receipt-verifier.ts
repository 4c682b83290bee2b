/**
 * What every node does before it passes an inference receipt on: signatures, voucher, lease by the chain's state, all
 * integer arithmetic by the adapter's published rows, which a thread of its own reads. No GPU, no trust in the worker.
 */
import { verifySignature } from '../../runtime/executive/extrinsic.ts';
import { DispatchFailure } from '../../runtime/framework/dispatch.ts';
import type { Hashing, Host } from '../../runtime/host.ts';
import * as attribution from '../../runtime/pallets/ledger/attribution.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { Explanation } from '../../runtime/primitives/attribution/explain.ts';
import type { AdapterId } from '../../runtime/primitives/attribution/ids.ts';
import {
  inferenceReceipt,
  type SignedInferenceReceipt,
  type SignedVoucher,
  termsHold,
  voucher,
} from '../../runtime/primitives/attribution/receipts.ts';
import { asksFor, type RequestTerms } from '../../runtime/primitives/attribution/request.ts';
import type { ReceiptFault } from '../../runtime/primitives/attribution/verify.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import { type Hash, sameAccount } from '../../runtime/primitives/types.ts';
import { BlobError } from '../blobs/blob-store.ts';
import { type Material, OpeningError, Openings } from './openings.ts';

export type VoucherFault = 'OTHER_CHAIN' | 'UNKNOWN_SESSION' | 'BAD_VOUCHER_SIGNATURE' | inference.CoverFault;
export type VerificationFault =
  | ReceiptFault
  | Exclude<VoucherFault, 'SESSION_CLOSING' | 'RELEASING'>
  /** The voucher was signed at a price or markup that is not the adapter's. */
  | 'OTHER_PRICE'
  | 'UNKNOWN_ADAPTER'
  | 'OTHER_TRAINING'
  | 'OTHER_REQUEST'
  | 'OTHER_WORKER'
  | 'NOT_SERVING'
  | 'BAD_SIGNATURE'
  /** The adapter's files are not on this node (yet), or are not what was committed to. */
  | 'NO_DATA'
  | 'BAD_DATA';

/** How long a receipt waits for files that the network has to bring. */
const FILES_MS = 45_000;

export interface VerifierPorts {
  readonly hashing: Hashing;
  /** The state that receipts are held against. */
  state(): Host;
  genesisHash(): Hash;
  /** A published file, or its path. Rejects with a {@link BlobError} where it cannot be had. */
  blob(hash: Hash): Promise<Uint8Array | string>;
}

export class ReceiptVerifier {
  readonly #ports: VerifierPorts;
  readonly #openings = new Openings();

  constructor(ports: VerifierPorts) {
    this.#ports = ports;
  }

  /** Ends what is under way. */
  close(): Promise<void> {
    return this.#openings.close();
  }

  /** The state that receipts are held against. */
  state(): Host {
    return this.#ports.state();
  }

  genesisHash(): Hash {
    return this.#ports.genesisHash();
  }

  /**
   * Whether a session stands behind a voucher and has allocated to its worker what it promises (`undefined`: both). What
   * the worker has answered for it already is the worker's business.
   */
  voucherFault(host: Host, { payload, signature }: SignedVoucher): VoucherFault | undefined {
    if (!equalBytes(payload.chain, this.#ports.genesisHash())) return 'OTHER_CHAIN';
    const session = inference.sessionOf(host, payload.session);
    if (session === undefined) return 'UNKNOWN_SESSION';
    if (!verifySignature(host, signature, hashOf(host, voucher, payload), session.key)) return 'BAD_VOUCHER_SIGNATURE';
    const reserved = inference.allocationOf(host, payload.session, payload.worker);
    return inference.coverFault(session, reserved, payload.cumulative);
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
    // What was answered before it was asked back is still paid.
    if (fault !== undefined && fault !== 'SESSION_CLOSING' && fault !== 'RELEASING') return fault;
    if (asked !== undefined && !asksFor(host, promise, asked)) return 'OTHER_REQUEST';
    if (!sameAccount(promise.worker, payload.worker)) return 'OTHER_WORKER';
    const adapter = known(() => models.adapterOf(host, promise.adapter));
    if (adapter === undefined) return 'UNKNOWN_ADAPTER';
    if (!equalBytes(adapter.training, payload.training)) return 'OTHER_TRAINING';
    if (!termsHold(models.termsOf(host, promise.adapter), promise)) return 'OTHER_PRICE';
    if (inference.servingOf(host, promise.adapter, payload.worker)?.lease !== payload.lease) return 'NOT_SERVING';
    if (!verifySignature(host, signature, hashOf(host, inferenceReceipt, payload), payload.worker))
      return 'BAD_SIGNATURE';
    const inForce = attribution.rulesInForce(host);
    const rules = inForce.map((each) => ({ rules: each, markup: adapter.markup }));
    try {
      const faults = await this.#openings.verify(await this.#materialOf(host, promise.adapter), payload, rules);
      return faults.includes(undefined) ? undefined : faults[0];
    } catch (problem) {
      if (problem instanceof OpeningError) return problem.code === 'BAD_DATA' ? 'BAD_DATA' : 'NO_DATA';
      if (problem instanceof BlobError) return 'NO_DATA';
      throw problem;
    }
  }

  /** Why a receipt pays whom. Verify it first. Rejects with {@link OpeningError} or {@link BlobError}. */
  async explain({ payload }: SignedInferenceReceipt, top: number): Promise<Explanation> {
    return this.#openings.explain(await this.#materialOf(this.state(), payload.voucher.payload.adapter), payload, top);
  }

  async #materialOf(host: Host, adapter: AdapterId): Promise<Material> {
    const commitment = models.receiptOf(host, adapter).payload.features;
    const late = new Promise<never>((_, reject) => {
      setTimeout(() => reject(new BlobError('NOT_FOUND', 'the files did not come in time')), FILES_MS).unref();
    });
    const files = [commitment.featureFile, commitment.frequencyFile].map((blob) => this.#ports.blob(blob));
    const [features, frequencies] = await Promise.race([Promise.all(files), late]);
    const key = toHex(commitment.featureFile) + toHex(commitment.sumFile);
    return { key, commitment, features: features!, frequencies: frequencies! };
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
