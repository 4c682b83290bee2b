/**
 * The room of receipts: whatever a worker signs for an answer is told to every node, and each verifies it in full (signature,
 * voucher, lease, all integer arithmetic over the adapter's rows) before it passes it on. A voucher is answered once, so
 * a worker that signs two receipts under one has cheated somebody: both stand in the node's log, by name and number.
 */
import { LRUCache } from 'lru-cache';
import { type Blake, hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import {
  inferenceReceipt,
  type SignedInferenceReceipt,
  signedInferenceReceipt,
} from '../../runtime/primitives/attribution/receipts.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { Places } from '../limits/places.ts';
import { ACCEPT, IGNORE, malformed, type Room, type Verdict } from '../wire/gossip.ts';
import type { Wire } from '../wire/wire.ts';

/** What a node knows of receipts. */
export interface ReceiptPorts {
  /** A code for what is wrong with a receipt; undefined for one that holds. */
  verify(receipt: SignedInferenceReceipt): Promise<string | undefined>;
  /** Whether the chain has settled it, or a later one: it is no news then. */
  isSettled(receipt: SignedInferenceReceipt): boolean;
  /** Takes delivery of one that holds. */
  noteReceipt(receipt: SignedInferenceReceipt): void;
  readonly hashing: Blake;
}

/** With the shares of as many contributors as a receipt may name. */
const MAX_RECEIPT_BYTES = 2 << 20;
/** Receipts that are remembered, by the voucher that pays for them. */
const MAX_SEEN = 16_384;
/** Verified at the same time; each may wait for files that come over the network, or for a large adapter to be opened. */
const CHECKS = { all: 32, peer: 8 } as const;

/** Faults that a node which is behind, or lacks files, sees in receipts that hold: nobody is to blame for passing them on. */
const EXCUSED: ReadonlySet<string> = new Set([
  'UNKNOWN_SESSION',
  'OVER_DEPOSIT',
  'UNKNOWN_ADAPTER',
  'OTHER_TRAINING',
  'NOT_SERVING',
  'NO_DATA',
  'BAD_DATA',
]);

export class ReceiptRoom {
  readonly #wire: Wire;
  readonly #ports: ReceiptPorts;
  readonly #room: Room;
  /** By its voucher, what the receipt is known by: a second one is told from the same one again. */
  readonly #seen = new LRUCache<string, string>({ max: MAX_SEEN });
  /** Vouchers whose second receipt was told of. */
  readonly #doubled = new LRUCache<string, true>({ max: MAX_SEEN });
  readonly #checks: Places;

  constructor(wire: Wire, ports: ReceiptPorts) {
    this.#wire = wire;
    this.#ports = ports;
    this.#checks = new Places(CHECKS, (peer) => wire.limits.origins.groupOf(peer));
    this.#room = wire.join({
      name: 'receipts',
      maxMessage: MAX_RECEIPT_BYTES,
      perSecond: 100,
      burst: 500,
      validate: (from, bytes) => this.heard(from, bytes),
    });
  }

  /** One of a worker that is attached here, which this node has verified. */
  publish(receipt: SignedInferenceReceipt): void {
    const bytes = encode(signedInferenceReceipt, receipt);
    const before = this.#seen.get(voucherOf(receipt));
    if (before !== undefined) {
      if (before !== this.#idOf(receipt)) this.#accuse(receipt, before);
      return;
    }
    if (bytes.length > MAX_RECEIPT_BYTES) return;
    this.#remember(receipt);
    this.#room.publish(bytes);
  }

  leave(): void {
    this.#room.leave();
  }

  async heard(from: PeerId, bytes: Uint8Array): Promise<Verdict> {
    let receipt: SignedInferenceReceipt;
    try {
      receipt = decode(signedInferenceReceipt, bytes.slice());
    } catch (problem) {
      return malformed('a malformed receipt', problem);
    }
    const { isSettled, noteReceipt, verify } = this.#ports;
    const voucher = voucherOf(receipt);
    const before = this.#seen.get(voucher);
    const second = before !== undefined && before !== this.#idOf(receipt) && !this.#doubled.has(voucher);
    if ((before !== undefined && !second) || isSettled(receipt)) return IGNORE;
    // Who is made way for is judged all the same; the verdict is not waited for.
    let displaced = false;
    const vacate = this.#checks.take(from, () => {
      displaced = true;
    });
    if (vacate === undefined) return IGNORE;
    let fault: string | undefined;
    try {
      fault = await verify(receipt);
    } finally {
      vacate();
    }
    if (displaced) return IGNORE;
    if (fault !== undefined) {
      return EXCUSED.has(fault)
        ? IGNORE
        : { type: 'reject', reason: `a receipt that does not hold: ${fault}`, cost: FEE.badResponse };
    }
    // One of them may have come while this one was verified.
    const known = this.#seen.get(voucher);
    if (known !== undefined) {
      if (known !== this.#idOf(receipt)) this.#accuse(receipt, known);
      // It pays once: the first one is passed on, and no other.
      return IGNORE;
    }
    this.#remember(receipt);
    noteReceipt(receipt);
    return ACCEPT;
  }

  /** `receipt` holds, and so did `before`, which the worker signed under the same voucher. Told once a voucher. */
  #accuse(receipt: SignedInferenceReceipt, before: string): void {
    const name = voucherOf(receipt);
    if (this.#doubled.has(name)) return;
    this.#doubled.set(name, true);
    const { worker, voucher } = receipt.payload;
    const { session, nonce } = voucher.payload;
    this.#wire.log('warn', `a worker signed two receipts under voucher ${nonce} of session ${session}`, {
      ...{ worker: toHex(worker), first: before, second: this.#idOf(receipt) },
    });
  }

  #remember(receipt: SignedInferenceReceipt): void {
    this.#seen.set(voucherOf(receipt), this.#idOf(receipt));
  }

  #idOf({ payload }: SignedInferenceReceipt): string {
    return toHex(hashOf(this.#ports.hashing, inferenceReceipt, payload));
  }
}

function voucherOf({ payload: { voucher, worker } }: SignedInferenceReceipt): string {
  const { session, adapter, nonce } = voucher.payload;
  return `${session}/${toHex(worker)}/${adapter}/${nonce}`;
}
