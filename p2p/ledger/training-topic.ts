/** The room of trainings: how far they are, in the words of their workers, for whoever watches at another node. */
import { LRUCache } from 'lru-cache';
import { type ProgressFault, type SignedProgress, signedProgress } from '../../node/ports/inference.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { FEE } from '../host/peer-scores.ts';
import { ACCEPT, IGNORE, malformed, type Room, type Verdict } from '../wire/gossip.ts';
import type { Wire } from '../wire/wire.ts';

const MAX_REPORT_BYTES = 512;
/** From one report of a lease to its next; the last one of a phase is passed on in any case. */
const GAP_MS = 800;
const MAX_LEASES = 1_024;
const DONE = 1_000;

export class TrainingRoom {
  readonly #wire: Wire;
  readonly #take: (report: SignedProgress) => ProgressFault | undefined;
  readonly #room: Room;
  /** When a report of a lease was last passed on or heard. */
  readonly #last = new LRUCache<bigint, number>({ max: MAX_LEASES });

  /** `take`: judges a report by the chain's word and takes delivery of it. */
  constructor(wire: Wire, take: (report: SignedProgress) => ProgressFault | undefined) {
    this.#wire = wire;
    this.#take = take;
    this.#room = wire.join({
      name: 'trainings',
      maxMessage: MAX_REPORT_BYTES,
      perSecond: 50,
      burst: 200,
      validate: (_from, bytes) => this.heard(bytes),
    });
  }

  /** One of a worker that is attached here, which was taken. */
  publish(report: SignedProgress): void {
    const { lease, done } = report.payload;
    if (done < DONE && !this.#isDue(lease, GAP_MS)) return;
    this.#last.set(lease, this.#wire.clock.monotonic());
    this.#room.publish(encode(signedProgress, report));
  }

  leave(): void {
    this.#room.leave();
  }

  heard(bytes: Uint8Array): Verdict {
    let report: SignedProgress;
    try {
      report = decode(signedProgress, bytes.slice());
    } catch (problem) {
      return malformed('a malformed report of progress', problem);
    }
    // Half of what an honest node waits for: messages overtake each other.
    const { lease, done } = report.payload;
    if (done < DONE && !this.#isDue(lease, GAP_MS / 2)) return IGNORE;
    const fault = this.#take(report);
    if (fault === 'BAD_SIGNATURE') {
      return { type: 'reject', reason: 'a report of progress with a wrong signature', cost: FEE.badResponse };
    }
    if (fault !== undefined) return IGNORE;
    this.#last.set(lease, this.#wire.clock.monotonic());
    return ACCEPT;
  }

  #isDue(lease: bigint, gap: number): boolean {
    const last = this.#last.get(lease);
    return last === undefined || this.#wire.clock.monotonic() - last >= gap;
  }
}
