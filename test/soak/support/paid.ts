/** Batches of receipts as they come to the chain: what was paid for, and how often. */
import { setTimeout as pause } from 'node:timers/promises';
import { Ledger } from '../../../rpc/client/ledger.ts';
import { store as attribution } from '../../../runtime/pallets/ledger/attribution.ts';
import { hashOf } from '../../../runtime/primitives/attribution/canonical.ts';
import { batchFile } from '../../../runtime/primitives/attribution/ledger.ts';
import {
  inferenceReceipt,
  type ReceiptBatch,
  type SignedInferenceReceipt,
} from '../../../runtime/primitives/attribution/receipts.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { decode } from '../../../runtime/primitives/scale/codec.ts';
import { hashing } from '../../main-job/support.ts';

const POLL_MS = 300;

/** A connection that is made again when the node comes back. */
export class Reconnecting {
  readonly #url: string;
  #ledger: Ledger | undefined;

  constructor(url: string) {
    this.#url = url;
  }

  async get(): Promise<Ledger> {
    for (;;) {
      if (this.#ledger !== undefined) return this.#ledger;
      try {
        const ledger = await Ledger.connect(this.#url);
        this.#ledger = ledger;
        void ledger.closed.then(() => {
          this.#ledger = undefined;
          ledger.close();
        });
        return ledger;
      } catch {
        await pause(POLL_MS);
      }
    }
  }

  async close(): Promise<void> {
    this.#ledger?.close();
  }
}

export class PaidReceipts {
  readonly #node: Reconnecting;
  readonly #batches = new Map<bigint, ReceiptBatch>();
  readonly #files = new Map<bigint, readonly SignedInferenceReceipt[]>();
  #watching: Promise<void> = Promise.resolve();

  constructor(node: Reconnecting) {
    this.#node = node;
  }

  /** Looks until the signal: a batch stands on the chain as long as its window. */
  watch(signal: AbortSignal): void {
    this.#watching = (async () => {
      for (; !signal.aborted; await pause(POLL_MS)) {
        try {
          await this.#look(await this.#node.get());
        } catch {
          // The node is away.
        }
      }
    })();
  }

  stopped(): Promise<void> {
    return this.#watching;
  }

  async #look(ledger: Ledger): Promise<void> {
    for await (const [id, { batch }] of ledger.entries(attribution.Batches)) this.#batches.set(id, batch);
    for (const [id, { blob }] of this.#batches) {
      if (this.#files.has(id) || !(await ledger.blobs.has(blob))) continue;
      const { items } = decode(batchFile, await ledger.blobs.get(blob));
      this.#files.set(
        id,
        items.map(({ receipt }) => receipt),
      );
    }
  }

  /** Batches whose receipts are not published. */
  get unpublished(): number {
    return this.#batches.size - this.#files.size;
  }

  get all(): SignedInferenceReceipt[] {
    return [...this.#files.values()].flat();
  }

  /** How often each receipt was paid, by its id. */
  get times(): Map<string, number> {
    const times = new Map<string, number>();
    for (const { payload } of this.all) {
      const id = toHex(hashOf(hashing, inferenceReceipt, payload));
      times.set(id, (times.get(id) ?? 0) + 1);
    }
    return times;
  }
}
