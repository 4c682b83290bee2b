/** One caller: a WebSocket connection with its subscriptions, or a single HTTP request. */
import { randomBytes } from 'node:crypto';
import { tooManySubscriptions } from './errors.ts';
import type { Share } from './shares.ts';
import { Subscription } from './subscription.ts';
import { Caller, Turns } from './turns.ts';

/** How much of its answers a caller has left unread. */
export interface Flow {
  /** Whether another call may be begun for it now. */
  mayBegin(): boolean;
  /** Runs a function when the caller has read what it was sent, or is gone. */
  whenRead(run: () => void): void;
}

/** What a session may have of the room that all share. */
export interface Portions {
  readonly subscriptions: Share;
  /** Storage keys that are followed: their bytes, and a fixed amount for each. */
  readonly watched: Share;
  /** Blocks that are pinned by `chainHead_v1_follow`. */
  readonly pinned: Share;
}

export interface SessionOptions {
  /** Whether unsafe methods are allowed. */
  readonly unsafe: boolean;
  readonly maxSubscriptions: number;
  /** Undefined where nothing can be sent but the answer. */
  readonly send: ((text: string) => void) | undefined;
  /** Characters of one answer (default: no limit). */
  readonly maxResponse?: number;
  readonly caller?: Caller;
  readonly flow?: Flow;
  /** Undefined: nothing is shared with others. */
  readonly portions?: Portions;
  readonly turns?: Turns;
}

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';

/** 16 characters of 6 random bits. */
export const randomId = (): string => {
  let id = '';
  for (const byte of randomBytes(16)) id += ALPHABET[byte & 63];
  return id;
};

const UNHINDERED: Flow = { mayBegin: () => true, whenRead: (run) => run() };

export class Session {
  readonly unsafe: boolean;
  readonly caller: Caller;
  readonly flow: Flow;
  readonly portions: Portions | undefined;
  readonly maxResponse: number;
  readonly #options: SessionOptions;
  readonly #turns: Turns;
  readonly #subscriptions = new Map<string, { readonly name: string; readonly subscription: Subscription }>();
  readonly #closing = new Set<() => void>();
  #closed = false;

  constructor(options: SessionOptions) {
    this.unsafe = options.unsafe;
    this.caller = options.caller ?? new Caller();
    this.flow = options.flow ?? UNHINDERED;
    this.portions = options.portions;
    this.maxResponse = options.maxResponse ?? Number.POSITIVE_INFINITY;
    this.#options = options;
    this.#turns = options.turns ?? new Turns();
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

  /** Counts processor time that another thread has spent for this session. */
  charge(ms: number): void {
    this.#turns.charge(this.caller, ms);
  }

  /** Does a part of a long piece of work when it is the caller's turn. Undefined when the caller is gone. */
  turn<T>(work: () => T): Promise<T | undefined> {
    return new Promise((resolve, reject) => {
      const dismiss = this.onClose(() => resolve(undefined));
      if (this.#closed) return;
      this.#turns.run(this.caller, () => {
        dismiss();
        try {
          resolve(work());
        } catch (problem) {
          reject(problem);
        }
      });
    });
  }

  /** Resolves when another part of a long answer may be sent, or when the caller is gone. */
  async read(): Promise<void> {
    while (!this.#closed && !this.flow.mayBegin()) {
      await new Promise<void>((resolve) => this.flow.whenRead(resolve));
    }
  }

  /** Throws {@link RpcError} when there are too many. `name`: of the method that subscribes. */
  subscribe(name: string, notification: string): Subscription {
    const { maxSubscriptions, send } = this.#options;
    if (this.#subscriptions.size >= maxSubscriptions || this.portions?.subscriptions.take(1) === false) {
      throw tooManySubscriptions(maxSubscriptions);
    }
    const subscription = new Subscription(randomId(), notification, send ?? (() => {}), ({ id }) => {
      if (this.#subscriptions.delete(id)) this.portions?.subscriptions.give(1);
    });
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
