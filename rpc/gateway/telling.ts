import { JobFailure } from './failures.ts';

/** What of an answer the caller has been told, over all tries: a later one goes on where the one before broke off. */
export class Telling {
  readonly #delta: (text: string) => void;
  #told = '';
  #heard = '';

  constructor(delta: (text: string) => void) {
    this.#delta = delta;
  }

  get begun(): boolean {
    return this.#told !== '';
  }

  /** The answer comes from its beginning. */
  restart(): void {
    this.#heard = '';
  }

  /** Throws a {@link JobFailure} where it is not the answer that was begun. */
  hear(delta: string): void {
    this.whole(this.#heard + delta);
  }

  /** `text`: the answer so far. */
  whole(text: string): void {
    this.#heard = text;
    const short = text.length < this.#told.length;
    if (!(short ? this.#told.startsWith(text) : text.startsWith(this.#told)))
      throw new JobFailure('ANSWER_CHANGED', 'the answer broke off and came out otherwise the second time: ask again');
    if (short) return;
    const rest = text.slice(this.#told.length);
    this.#told = text;
    if (rest !== '') this.#delta(rest);
  }
}
