/**
 * Answers that wait to be read by their callers, over all connections. What one connection may leave unread is bounded by its
 * own back-pressure; here is the bound for all of them together: the callers that read nothing are cut off before the node
 * runs out of memory.
 */

/** One connection with answers on their way. */
export interface Reader {
  /** Bytes that wait for the caller. */
  readonly unread: number;
  cut(): void;
}

export interface UnreadLimits {
  /** Bytes over all connections from which on a connection with unread answers begins no further call. */
  readonly hold: number;
  /** Bytes over all connections at which those with the most unread are cut off, until it is below `hold` again. */
  readonly cut: number;
}

export class Unread {
  readonly #limits: UnreadLimits;
  readonly #readers = new Set<Reader>();
  /** Parts of batches whose answers are not complete. */
  #collected = 0;
  /** At least what is unread: counted anew when it matters. */
  #estimate = 0;

  constructor(limits: UnreadLimits) {
    this.#limits = limits;
  }

  enter(reader: Reader): void {
    this.#readers.add(reader);
  }

  leave(reader: Reader): void {
    this.#readers.delete(reader);
  }

  /** Bytes that wait to be read, and those of batches that are under way. */
  get total(): number {
    let sum = this.#collected;
    for (const { unread } of this.#readers) sum += unread;
    this.#estimate = sum;
    return sum;
  }

  /** To be told when bytes were handed to a connection. */
  grew(bytes: number): void {
    this.#estimate += bytes;
    if (this.#estimate > this.#limits.cut && this.total > this.#limits.cut) this.#relieve();
  }

  /** A part of a batch's answer is kept until the whole is complete. False: there is no room for it. */
  collect(bytes: number): boolean {
    this.#collected += bytes;
    this.grew(bytes);
    return this.#estimate <= this.#limits.cut || this.total <= this.#limits.cut;
  }

  release(bytes: number): void {
    this.#collected -= bytes;
    this.#estimate -= bytes;
  }

  /** Whether a caller with `unread` bytes of its own may have another call begun. */
  mayBegin(unread: number): boolean {
    return unread === 0 || this.#estimate <= this.#limits.hold || this.total <= this.#limits.hold;
  }

  #relieve(): void {
    const order = [...this.#readers]
      .map((reader) => ({ reader, unread: reader.unread }))
      .filter(({ unread }) => unread > 0)
      .sort((a, b) => b.unread - a.unread);
    let left = this.total;
    for (const { reader, unread } of order) {
      if (left <= this.#limits.hold) return;
      left -= unread;
      this.#readers.delete(reader);
      reader.cut();
    }
  }
}
