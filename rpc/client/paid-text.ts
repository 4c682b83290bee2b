/** An answer's text as it comes, over all tries at it. */
import { PaidFailure } from './job-failure.ts';

/** What of an answer the caller has had: a later try goes on where the one before broke off. */
export class PaidText {
  readonly #delta: (text: string) => void;
  #told = '';
  #heard = '';

  constructor(delta: (text: string) => void) {
    this.#delta = delta;
  }

  /** The answer comes from its beginning. */
  restart(): void {
    this.#heard = '';
  }

  /** Throws a {@link PaidFailure} where it is not the answer that was begun. */
  hear(delta: string): void {
    this.whole(this.#heard + delta);
  }

  /** `text`: the answer so far. */
  whole(text: string): void {
    this.#heard = text;
    const short = text.length < this.#told.length;
    if (!(short ? this.#told.startsWith(text) : text.startsWith(this.#told)))
      throw new PaidFailure('ANSWER_CHANGED', 'the answer broke off and came out otherwise the second time: ask again');
    if (short) return;
    const rest = text.slice(this.#told.length);
    this.#told = text;
    if (rest !== '') this.#delta(rest);
  }
}
