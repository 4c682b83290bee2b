/** Ready transactions in the order in which they should go into a block. */
import type { Entry, PoolTransaction } from './entry.ts';
import type { Heap } from './heap.ts';

/**
 * The best transaction of those whose predecessors were all given out, one after the other. Starting costs a copy of a
 * list of pointers, each step O(log n). What leaves the pool meanwhile is passed over; what comes in may be given out.
 */
export class BestFirst {
  readonly #next: Heap<Entry>;
  readonly #given = new Set<Entry>();
  #last: Entry | undefined;

  constructor(roots: Heap<Entry>) {
    this.#next = roots;
  }

  next(): PoolTransaction | undefined {
    this.#release();
    for (let entry = this.#next.pop(); entry !== undefined; entry = this.#next.pop()) {
      if (entry.where !== 'ready' || this.#given.has(entry)) continue;
      this.#last = entry;
      return entry;
    }
    return undefined;
  }

  /** The transaction given out last does not fit: nothing that comes after it will be given out. */
  markInvalid(): void {
    this.#last = undefined;
  }

  /** Only now, so that the caller can say first that the last one was no good. */
  #release(): void {
    const last = this.#last;
    if (last === undefined) return;
    this.#last = undefined;
    this.#given.add(last);
    for (const child of last.children) {
      let waits = false;
      for (const parent of child.parents) if (!this.#given.has(parent)) waits = true;
      if (!waits) this.#next.push(child);
    }
  }
}
