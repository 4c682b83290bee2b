/** One stream of notifications to one connection. */
import { resultText } from './result.ts';

export type Cleanup = () => void;

/**
 * What the end of a subscription answers: whether there was one (Substrate's own methods), nothing in any case, or nothing
 * but an error if there was none (JSON-RPC interface specification).
 */
export type EndAnswer = 'whether' | 'nothing' | 'nothingOrError';

export class Subscription {
  readonly id: string;
  readonly #head: string;
  readonly #send: (text: string) => void;
  readonly #onClose: (subscription: Subscription) => void;
  /** What was said before the caller knew the id. */
  #early: string[] | undefined = [];
  #cleanup: Cleanup | undefined;
  #closed = false;

  constructor(
    id: string,
    notification: string,
    send: (text: string) => void,
    onClose: (subscription: Subscription) => void,
  ) {
    this.id = id;
    this.#head = `{"jsonrpc":"2.0","method":"${notification}","params":{"subscription":"${id}","result":`;
    this.#send = send;
    this.#onClose = onClose;
  }

  get closed(): boolean {
    return this.#closed;
  }

  notify(result: unknown): void {
    if (this.#closed) return;
    const text = `${this.#head}${resultText(result)}}}`;
    if (this.#early === undefined) this.#send(text);
    else this.#early.push(text);
  }

  /** After the answer with the id has gone out. */
  open(): void {
    const early = this.#early;
    this.#early = undefined;
    for (const text of early ?? []) this.#send(text);
  }

  /** Says what to do at the end, which may have come already. */
  onEnd(cleanup: Cleanup): void {
    if (this.#closed) cleanup();
    else this.#cleanup = cleanup;
  }

  /** Ends it; what was notified so far still goes out. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClose(this);
    const cleanup = this.#cleanup;
    this.#cleanup = undefined;
    cleanup?.();
  }
}
