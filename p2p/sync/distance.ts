/**
 * Whether this node is far behind. Heights are what peers say, and saying costs nothing: that someone is ahead counts for a
 * short while, and from then on only as long as blocks come in. A node that believed more could be kept from authoring.
 */

/** This many blocks ahead is far. */
export const FAR = 16;
/** How long words alone count, and how often. */
const DOUBT_MS = 15_000;
const DOUBT_EVERY_MS = 10 * 60_000;
/** How long after the last range of blocks more are still expected. */
const PROGRESS_MS = 15_000;

export class Distance {
  readonly #now: () => number;
  #doubtAt = Number.NEGATIVE_INFINITY;
  #progressAt = Number.NEGATIVE_INFINITY;

  /** `now` in milliseconds, never going back. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Someone says to be far ahead, and has not been caught at not having the blocks. */
  claimed(): void {
    const now = this.#now();
    if (now - this.#doubtAt > DOUBT_EVERY_MS) this.#doubtAt = now;
  }

  /** Blocks that brought this node nearer were imported. */
  progressed(): void {
    this.#progressAt = this.#now();
  }

  /** Whether a claim is to be believed now. */
  get credible(): boolean {
    const now = this.#now();
    return now - this.#doubtAt < DOUBT_MS || now - this.#progressAt < PROGRESS_MS;
  }
}
