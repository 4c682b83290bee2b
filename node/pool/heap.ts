/** A binary heap that can tell its items where they are, so that any of them can be taken out in logarithmic time. */
export class Heap<T> {
  readonly #before: (a: T, b: T) => boolean;
  readonly #place: ((item: T, position: number) => void) | undefined;
  #items: T[];

  /** `place` is told the position of every item that moves, and -1 for one that leaves. */
  constructor(before: (a: T, b: T) => boolean, place?: (item: T, position: number) => void) {
    this.#before = before;
    this.#place = place;
    this.#items = [];
  }

  get size(): number {
    return this.#items.length;
  }

  peek(): T | undefined {
    return this.#items[0];
  }

  /** A heap of its own over the same items, which does not tell them anything. */
  snapshot(): Heap<T> {
    const copy = new Heap<T>(this.#before);
    copy.#items = this.#items.slice();
    return copy;
  }

  push(item: T): void {
    this.#items.push(item);
    this.#up(this.#items.length - 1, item);
  }

  pop(): T | undefined {
    return this.#items.length === 0 ? undefined : this.removeAt(0);
  }

  removeAt(position: number): T {
    const items = this.#items;
    const removed = items[position]!;
    const last = items.pop()!;
    if (last !== removed) {
      const parent = items[(position - 1) >> 1];
      if (position > 0 && this.#before(last, parent!)) this.#up(position, last);
      else this.#down(position, last);
    }
    this.#place?.(removed, -1);
    return removed;
  }

  #set(position: number, item: T): void {
    this.#items[position] = item;
    this.#place?.(item, position);
  }

  #up(position: number, item: T): void {
    while (position > 0) {
      const above = (position - 1) >> 1;
      const parent = this.#items[above]!;
      if (!this.#before(item, parent)) break;
      this.#set(position, parent);
      position = above;
    }
    this.#set(position, item);
  }

  #down(position: number, item: T): void {
    const { length } = this.#items;
    for (;;) {
      let below = 2 * position + 1;
      if (below >= length) break;
      if (below + 1 < length && this.#before(this.#items[below + 1]!, this.#items[below]!)) below++;
      const child = this.#items[below]!;
      if (!this.#before(child, item)) break;
      this.#set(position, child);
      position = below;
    }
    this.#set(position, item);
  }
}
