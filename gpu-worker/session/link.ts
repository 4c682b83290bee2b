/** A worker's connection to its node, as its parts share it: it comes and goes, and they go on. */
import type { Log } from '../../node/ports/machine.ts';
import type { CallArgs } from '../../rpc/client/call.ts';
import { LedgerError } from '../../rpc/client/errors.ts';
import { Ledger } from '../../rpc/client/ledger.ts';
import type { Made } from '../../rpc/client/made.ts';
import { type LocalSigner, multiSignatureOf } from '../../rpc/client/signer.ts';
import type { CallDef } from '../../runtime/framework/pallet.ts';
import type { Hashing } from '../../runtime/host.ts';
import type { AccountId, MultiSignature } from '../../runtime/primitives/types.ts';
import type { WorkerOptions } from '../options.ts';

const RECONNECT_MS = 2_000;

export class NodeLink {
  readonly url: string;
  readonly key: LocalSigner;
  readonly account: AccountId;
  readonly #hashing: Hashing;
  readonly #log: Log;
  #ledger: Ledger | undefined;
  #waiting: (() => void)[] = [];

  constructor({ node, key, hashing, log }: Pick<WorkerOptions, 'node' | 'key' | 'hashing' | 'log'>) {
    this.url = node;
    this.key = key;
    this.account = key.account;
    this.#hashing = hashing;
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
  sign(digest: Uint8Array): MultiSignature {
    return multiSignatureOf(this.key.scheme, this.key.sign(digest));
  }

  /** A call of this worker. Rejects with a LedgerError. */
  async submit<A>(definition: CallDef<A>, ...args: CallArgs<NoInfer<A>>): Promise<Made> {
    return this.ledger.submit(this.key, definition, ...args);
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
    let ledger: Ledger | undefined = await this.#connect();
    for (;;) {
      if (ledger !== undefined) await this.#session(ledger, session, signal);
      if (signal.aborted) return;
      await pause(RECONNECT_MS, signal);
      ledger = signal.aborted ? undefined : await this.#connect().catch(() => undefined);
    }
  }

  #connect(): Promise<Ledger> {
    return Ledger.connect(this.url, { hashing: this.#hashing });
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
      ledger.close();
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
