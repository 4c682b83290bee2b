/** Places for what takes a while, such as answers that are being sent: few, and shared out among those who want them. */
import type { PeerId } from '../host/peer-scores.ts';

export interface PlaceLimits {
  readonly all: number;
  readonly peer: number;
}

interface Taken {
  readonly peer: PeerId;
  readonly group: string;
  readonly vacate: () => void;
}

export class Places {
  readonly #limits: PlaceLimits;
  readonly #groupOf: (peer: PeerId) => string;
  /** Sets keep the order in which things came. */
  readonly #taken = new Set<Taken>();

  constructor(limits: PlaceLimits, groupOf: (peer: PeerId) => string) {
    this.#limits = limits;
    this.#groupOf = groupOf;
  }

  get taken(): number {
    return this.#taken.size;
  }

  /**
   * A place, and how it is given back; undefined when there is none. When all are taken, one of the group that has the most goes to
   * a group that has at least two less, and within a group one of the peer that has the most to a peer that has at least two less:
   * `vacate` is called for the one that goes, and no more is to be done on it.
   */
  take(peer: PeerId, vacate: () => void): (() => void) | undefined {
    const group = this.#groupOf(peer);
    const ofGroup = tally(this.#taken, (each) => each.group);
    const ofPeer = tally(this.#taken, (each) => each.peer);
    if ((ofPeer.get(peer) ?? 0) >= this.#limits.peer) return undefined;
    if (this.#taken.size >= this.#limits.all) {
      const [largest, most] = largestOf(ofGroup);
      const foreign = (ofGroup.get(group) ?? 0) <= most - 2;
      if (!foreign && largest !== group) return undefined;
      const [greediest, its] = largestOf(
        tally(
          [...this.#taken].filter((each) => each.group === largest),
          ({ peer }) => peer,
        ),
      );
      if (!foreign && (ofPeer.get(peer) ?? 0) > its - 2) return undefined;
      for (const each of this.#taken) {
        if (each.peer !== greediest) continue;
        this.#taken.delete(each);
        each.vacate();
        break;
      }
    }
    const place: Taken = { peer, group, vacate };
    this.#taken.add(place);
    return () => this.#taken.delete(place);
  }
}

function tally(taken: Iterable<Taken>, keyOf: (each: Taken) => string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const each of taken) counts.set(keyOf(each), (counts.get(keyOf(each)) ?? 0) + 1);
  return counts;
}

const largestOf = (counts: Map<string, number>): readonly [string, number] =>
  [...counts].reduce((a, b) => (b[1] > a[1] ? b : a), ['', 0]);
