/** How fast a transfer has to go at least: who gives or takes a byte now and then holds a place for nothing. */
import type { Clock } from '../../node/ports/machine.ts';
import { NetworkError } from '../host/errors.ts';

export interface PaceOptions {
  /** How long nothing has to move, at the beginning and ever after: no haste of before buys more. */
  readonly graceMs: number;
  readonly bytesPerSecond: number;
}

export class Pace {
  readonly #options: PaceOptions;
  readonly #clock: Pick<Clock, 'monotonic' | 'after'>;
  readonly #controller = new AbortController();
  #due: number;
  #cancel: () => void = () => {};

  constructor(clock: Pick<Clock, 'monotonic' | 'after'>, options: PaceOptions) {
    this.#options = options;
    this.#clock = clock;
    this.#due = clock.monotonic() + options.graceMs;
    this.#watch();
  }

  /** Aborts with a {@link NetworkError} `TIMEOUT` when it goes too slowly. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Each byte gives a little time, up to the grace. */
  moved(bytes: number): void {
    const { graceMs, bytesPerSecond } = this.#options;
    this.#due = Math.min(this.#due + (bytes / bytesPerSecond) * 1_000, this.#clock.monotonic() + graceMs);
  }

  /** No more is to move. */
  end(): void {
    this.#cancel();
  }

  #watch(): void {
    const left = this.#due - this.#clock.monotonic();
    if (left <= 0) {
      const rate = this.#options.bytesPerSecond;
      this.#controller.abort(new NetworkError('TIMEOUT', `less than ${rate} bytes a second moved`));
    } else this.#cancel = this.#clock.after(left, () => this.#watch());
  }
}
