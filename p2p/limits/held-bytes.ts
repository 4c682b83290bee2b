/**
 * Bytes that lie in this node's memory because of peers: frames that have not come whole, answers that are not taken yet. Each
 * peer has so many, and all together have; where that is not enough, the ones that have lain the longest go first.
 */
import type { PeerId } from '../host/peer-scores.ts';

export interface HeldLimits {
  readonly peer: number;
  readonly all: number;
}

/** What one stream holds. */
export interface Hold {
  /** Now holds so many bytes. False when they are too many: `drop` was called, and nothing more is to be kept. */
  set(bytes: number): boolean;
  release(): void;
}

interface Entry {
  readonly peer: PeerId;
  readonly drop: (why: string) => void;
  bytes: number;
  over: boolean;
}

export class HeldBytes {
  readonly #limits: HeldLimits;
  /** Those that hold something, in the order in which they began to. */
  readonly #entries = new Set<Entry>();
  readonly #ofPeer = new Map<PeerId, number>();
  #all = 0;

  constructor(limits: HeldLimits) {
    this.#limits = limits;
  }

  /** Held now by all. */
  get bytes(): number {
    return this.#all;
  }

  heldOf(peer: PeerId): number {
    return this.#ofPeer.get(peer) ?? 0;
  }

  /** `drop`: makes whoever holds the bytes let go of them. It is called at most once, and not after `release`. */
  open(peer: PeerId, drop: (why: string) => void): Hold {
    const entry: Entry = { peer, drop, bytes: 0, over: false };
    return {
      set: (bytes) => {
        if (entry.over) return false;
        this.#resize(entry, bytes);
        const { peer: most, all } = this.#limits;
        if (this.heldOf(peer) > most) this.#drop(entry, 'its peer makes this node hold too much');
        while (this.#all > all) {
          const [oldest] = this.#entries;
          if (oldest === undefined) break;
          this.#drop(oldest, 'peers make this node hold too much');
        }
        return !entry.over;
      },
      release: () => {
        entry.over = true;
        this.#resize(entry, 0);
      },
    };
  }

  #drop(entry: Entry, why: string): void {
    entry.over = true;
    this.#resize(entry, 0);
    entry.drop(why);
  }

  #resize(entry: Entry, bytes: number): void {
    const more = bytes - entry.bytes;
    if (more === 0) return;
    entry.bytes = bytes;
    this.#all += more;
    const left = this.heldOf(entry.peer) + more;
    if (left > 0) this.#ofPeer.set(entry.peer, left);
    else this.#ofPeer.delete(entry.peer);
    if (bytes === 0) this.#entries.delete(entry);
    else this.#entries.add(entry);
  }
}
