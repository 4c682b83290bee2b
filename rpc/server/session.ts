/** One caller: a WebSocket connection with its subscriptions, or a single HTTP request. */
import { randomBytes } from 'node:crypto';
import { tooManySubscriptions } from './errors.ts';
import { Subscription } from './subscription.ts';

export interface SessionOptions {
  /** Whether unsafe methods are allowed. */
  readonly unsafe: boolean;
  readonly maxSubscriptions: number;
  /** Undefined where nothing can be sent but the answer. */
  readonly send: ((text: string) => void) | undefined;
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** 16 characters of 6 random bits. */
export const randomId = (): string => {
  let id = '';
  for (const byte of randomBytes(16)) id += ALPHABET[byte & 63];
  return id;
};

export class Session {
  readonly unsafe: boolean;
  readonly #options: SessionOptions;
  readonly #subscriptions = new Map<string, { readonly name: string; readonly subscription: Subscription }>();
  readonly #closing = new Set<() => void>();
  #closed = false;

  constructor(options: SessionOptions) {
    this.unsafe = options.unsafe;
    this.#options = options;
  }

  get connected(): boolean {
    return this.#options.send !== undefined;
  }

  get closed(): boolean {
    return this.#closed;
  }

  get subscriptions(): number {
    return this.#subscriptions.size;
  }

  /** Throws {@link RpcError} when there are too many. `name`: of the method that subscribes. */
  subscribe(name: string, notification: string): Subscription {
    const { maxSubscriptions, send } = this.#options;
    if (this.#subscriptions.size >= maxSubscriptions) throw tooManySubscriptions(maxSubscriptions);
    const subscription = new Subscription(randomId(), notification, send ?? (() => {}), ({ id }) =>
      this.#subscriptions.delete(id),
    );
    this.#subscriptions.set(subscription.id, { name, subscription });
    if (this.#closed) subscription.close();
    return subscription;
  }

  /** False if there is none of that id from that method. */
  unsubscribe(name: string, id: string): boolean {
    const found = this.#subscriptions.get(id);
    if (found === undefined || found.name !== name) return false;
    found.subscription.close();
    return true;
  }

  /** Runs when the caller is gone. Returns how to forget about it. */
  onClose(cleanup: () => void): () => void {
    if (this.#closed) cleanup();
    else this.#closing.add(cleanup);
    return () => this.#closing.delete(cleanup);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const { subscription } of [...this.#subscriptions.values()]) subscription.close();
    for (const cleanup of this.#closing) cleanup();
    this.#closing.clear();
  }
}
