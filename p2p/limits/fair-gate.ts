/** Lets so many pieces of work through at a time that others do, each group of peers in its turn, and few wait. */
import { NetworkError } from '../host/errors.ts';
import type { PeerId } from '../host/peer-scores.ts';

export interface FairGateLimits {
  /** Under way at a time. */
  readonly open: number;
  /** That wait, of a peer and of all. */
  readonly waiting: { readonly peer: number; readonly all: number };
}

interface Waiting {
  readonly peer: PeerId;
  readonly enter: () => void;
}

export class FairGate {
  readonly #limits: FairGateLimits;
  readonly #groupOf: (peer: PeerId) => string;
  /** In the order of their turns: a group that was served goes to the end. */
  readonly #groups = new Map<string, Waiting[]>();
  #waiting = 0;
  #open = 0;

  constructor(limits: FairGateLimits, groupOf: (peer: PeerId) => string) {
    this.#limits = limits;
    this.#groupOf = groupOf;
  }

  get load(): { readonly open: number; readonly waiting: number } {
    return { open: this.#open, waiting: this.#waiting };
  }

  /** Rejects with {@link NetworkError} `BUSY` before anything is done, or with what `work` rejects with. */
  async do<T>(peer: PeerId, work: () => Promise<T>): Promise<T> {
    if (this.#open >= this.#limits.open) await this.#wait(peer);
    else this.#open++;
    try {
      return await work();
    } finally {
      // The place goes to the next one as it is.
      if (!this.#next()) this.#open--;
    }
  }

  #wait(peer: PeerId): Promise<void> {
    const key = this.#groupOf(peer);
    const group = this.#groups.get(key) ?? [];
    const { waiting } = this.#limits;
    let own = 0;
    for (const each of group) if (each.peer === peer) own++;
    // A group of which nothing waits may always have one wait: no crowd of others keeps it out.
    if (own >= waiting.peer || (this.#waiting >= waiting.all && group.length > 0)) {
      return Promise.reject(new NetworkError('BUSY', 'too much waits'));
    }
    this.#groups.set(key, group);
    this.#waiting++;
    return new Promise((enter) => group.push({ peer, enter }));
  }

  #next(): boolean {
    const [first] = this.#groups;
    if (first === undefined) return false;
    const [key, group] = first;
    const { enter } = group.shift()!;
    this.#waiting--;
    this.#groups.delete(key);
    if (group.length > 0) this.#groups.set(key, group);
    enter();
    return true;
  }
}
