/**
 * Drops blobs that the chain has no claim on any more: records of batches that are gone, adapters that are retired, receipts
 * whose window is closed. A blob goes when it was unclaimed at two looks in a row, so that a short fork costs no file.
 */
import { toHex } from '../../runtime/primitives/bytes.ts';
import type { BlobStore } from '../blobs/blob-store.ts';
import type { ChainEvents, Service } from '../ports/chain.ts';
import type { Log } from '../ports/machine.ts';

/** Blocks from one look to the next. */
const LOOK_BLOCKS = 100;

export interface KeeperPorts {
  readonly events: ChainEvents;
  readonly blobs: Pick<BlobStore, 'review' | 'remove'>;
  /** While it syncs, a node does not know yet what is claimed. */
  readonly isMajorSyncing: () => boolean;
  readonly log: Log;
}

export class BlobKeeper implements Service {
  readonly name = 'blob keeper';
  readonly #ports: KeeperPorts;
  #unclaimed = new Set<string>();
  #blocks = 0;
  #work: Promise<void> = Promise.resolve();

  constructor(ports: KeeperPorts) {
    this.#ports = ports;
  }

  async run(signal: AbortSignal): Promise<void> {
    const { events, isMajorSyncing, log } = this.#ports;
    const unsubscribe = events.subscribe((event) => {
      if (event.type !== 'imported' || !event.isNewBest) return;
      if (isMajorSyncing()) {
        this.#blocks = 0;
        this.#unclaimed.clear();
      } else if (++this.#blocks % LOOK_BLOCKS === 0) {
        this.#work = this.#look().catch((problem: unknown) =>
          log('warn', 'blobs could not be dropped', { problem: String(problem) }),
        );
      }
    });
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    unsubscribe();
    await this.#work;
  }

  async #look(): Promise<void> {
    const { blobs, log } = this.#ports;
    const seen = new Set<string>();
    for (const blob of blobs.review()) {
      if (this.#unclaimed.has(toHex(blob))) await blobs.remove(blob);
      else seen.add(toHex(blob));
    }
    const dropped = this.#unclaimed.size - [...this.#unclaimed].filter((each) => seen.has(each)).length;
    this.#unclaimed = seen;
    if (dropped > 0) log('debug', 'blobs were dropped that nobody claims', { dropped });
  }
}
