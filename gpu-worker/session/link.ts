/** A worker's connection to its node, as its parts share it: it comes and goes, and they go on. */
import type { KeyringPair } from '@polkadot/keyring/types';
import type { Log } from '../../node/ports/machine.ts';
import { Ledger, LedgerError, type LedgerEvent } from '../../rpc/client/connection.ts';
import { type AccountId, asAccountId } from '../../runtime/primitives/types.ts';

const RECONNECT_MS = 2_000;

export class NodeLink {
  readonly url: string;
  readonly pair: KeyringPair;
  readonly account: AccountId;
  readonly #log: Log;
  #ledger: Ledger | undefined;
  #waiting: (() => void)[] = [];

  constructor(url: string, pair: KeyringPair, log: Log) {
    this.url = url;
    this.pair = pair;
    this.account = asAccountId(new Uint8Array(pair.publicKey));
    this.#log = log;
  }

  /** Throws a LedgerError `NO_NODE` between two connections. */
  get ledger(): Ledger {
    if (this.#ledger === undefined) throw new LedgerError('NO_NODE', `there is no connection to ${this.url}`);
    return this.#ledger;
  }

  /** Waits for a connection. Rejects with the signal's reason. */
  async ready(signal: AbortSignal): Promise<Ledger> {
    while (this.#ledger === undefined) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
      signal.throwIfAborted();
    }
    return this.#ledger;
  }

  /** Signs a hash as this worker. */
  sign(digest: Uint8Array) {
    return { type: 'Sr25519' as const, value: this.pair.sign(digest) };
  }

  /** A call of this worker by name. Rejects with a LedgerError. */
  submit(pallet: string, call: string, ...args: readonly unknown[]): Promise<LedgerEvent[]> {
    const { ledger } = this;
    return ledger.submit(this.pair, ledger.tx(pallet, call, ...args));
  }

  /** Tells the node something that may be lost. */
  tell(method: string, ...params: readonly unknown[]): void {
    this.#ledger?.rpc.call(method, ...params).catch(() => {});
  }

  /**
   * Keeps a connection until the signal; `session` runs for each, with a signal that ends with it. Rejects when the first
   * one cannot be had, or its session fails before it is up.
   */
  async run(session: (ledger: Ledger, over: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    let ledger: Ledger | undefined = await Ledger.connect(this.url);
    for (;;) {
      if (ledger !== undefined) await this.#session(ledger, session, signal);
      if (signal.aborted) return;
      await pause(RECONNECT_MS, signal);
      ledger = signal.aborted ? undefined : await Ledger.connect(this.url).catch(() => undefined);
    }
  }

  async #session(
    ledger: Ledger,
    session: (ledger: Ledger, over: AbortSignal) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const gone = new AbortController();
    void ledger.closed.then(() => gone.abort(new LedgerError('NO_NODE', 'the connection to the node is gone')));
    this.#ledger = ledger;
    for (const wake of this.#waiting.splice(0)) wake();
    try {
      await session(ledger, AbortSignal.any([signal, gone.signal]));
      if (gone.signal.aborted) this.#log('warn', `lost the node at ${this.url}`);
    } catch (problem) {
      // What the node refuses will be refused again; what came of a lost connection will not.
      if (!gone.signal.aborted && !signal.aborted) throw problem;
      this.#log('warn', `lost the node at ${this.url}: ${(problem as Error).message}`);
    } finally {
      this.#ledger = undefined;
      await ledger.close().catch(() => {});
    }
  }
}

/** Resolves when the time is up or the signal comes. */
export const pause = (milliseconds: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
      return;
    }
    const timer = setTimeout(done, milliseconds);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
    signal.addEventListener('abort', done, { once: true });
  });
