/** Values followed on the best chain: all of them together by one storage subscription of the node. */
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import type { JsonRpcClient } from './json-rpc.ts';
import type { Query } from './storage.ts';

interface Watched {
  /** As the node told last, in hex; undefined before it did. */
  last: string | null | undefined;
  readonly listeners: Set<(stored: string | null) => void>;
}

interface ChangeSet {
  readonly changes: readonly (readonly [key: string, value: string | null])[];
}

/** Keys that begin and end to be watched in one go cost one subscription. */
const SETTLE_MS = 5;

export class StorageWatcher {
  readonly #rpc: JsonRpcClient;
  readonly #watched = new Map<string, Watched>();
  #stop: (() => void) | undefined;
  #following = new Set<string>();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #changing: Promise<void> = Promise.resolve();

  constructor(rpc: JsonRpcClient) {
    this.#rpc = rpc;
  }

  /** How many keys the one subscription has. */
  get size(): number {
    return this.#watched.size;
  }

  /** The value as it is, then each change; of several changes at once only the last. Ends with the signal or the client. */
  async *follow<Q>({ key, decode }: Query<Q>, signal?: AbortSignal): AsyncGenerator<Q> {
    const name = toHex(key);
    let fresh: { readonly stored: string | null } | undefined;
    let wake: () => void = () => {};
    let over = signal?.aborted ?? false;
    const end = (): void => {
      over = true;
      wake();
    };
    const release = this.#listen(name, (stored) => {
      fresh = { stored };
      wake();
    });
    signal?.addEventListener('abort', end, { once: true });
    void this.#rpc.closed.then(end);
    try {
      while (!over) {
        const next = fresh;
        fresh = undefined;
        if (next === undefined) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        } else yield decode(next.stored === null ? undefined : fromHex(next.stored));
      }
    } finally {
      signal?.removeEventListener('abort', end);
      release();
    }
  }

  #listen(name: string, listener: (stored: string | null) => void): () => void {
    const watched = this.#watched.get(name) ?? { last: undefined, listeners: new Set() };
    this.#watched.set(name, watched);
    watched.listeners.add(listener);
    if (watched.last !== undefined) listener(watched.last);
    else this.#settle();
    return () => {
      watched.listeners.delete(listener);
      if (watched.listeners.size === 0) this.#settle();
    };
  }

  #settle(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#changing = this.#changing.then(() => this.#subscribe()).catch(() => this.#retry());
    }, SETTLE_MS);
  }

  /** The node did not take the subscription: it is asked again, as long as there is a node to ask. */
  async #retry(): Promise<void> {
    const closed = await Promise.race([
      this.#rpc.closed.then(() => true),
      new Promise<false>((resolve) => setTimeout(() => resolve(false), 1_000)),
    ]);
    if (!closed) this.#settle();
  }

  /** The subscription for all keys of now; the one before ends when it is there, so that nothing is missed between. */
  async #subscribe(): Promise<void> {
    // Values that nobody listens to any more are forgotten only now: one that is asked for again at once is still known.
    for (const [key, { listeners }] of this.#watched) if (listeners.size === 0) this.#watched.delete(key);
    const keys = [...this.#watched.keys()];
    if (keys.length === this.#following.size && keys.every((key) => this.#following.has(key))) return;
    const before = this.#stop;
    const stop =
      keys.length === 0
        ? undefined
        : await this.#rpc.subscribe('state_subscribeStorage', 'state_unsubscribeStorage', [keys], (result) =>
            this.#hear((result as ChangeSet).changes),
          );
    this.#stop = stop;
    this.#following = new Set(keys);
    before?.();
  }

  #hear(changes: ChangeSet['changes']): void {
    for (const [key, stored] of changes) {
      const watched = this.#watched.get(key);
      if (watched === undefined || watched.last === stored) continue;
      watched.last = stored;
      for (const listener of [...watched.listeners]) listener(stored);
    }
  }
}
