/** A JSON-RPC server before a {@link FakeChain}, and callers that hear what it notifies one by one. */
import type { Test } from 'tap';
import { rpcServer } from '../../rpc/server/server.ts';
import { standardGroups } from '../../rpc/standard-groups.ts';
import { RpcClient } from '../bench/support/rpc-client.ts';
import { type Entries, FakeChain, fakeContext } from './fake.ts';

/** Notifications of one subscription, in their order. */
export class Heard<T> {
  readonly id: string;
  readonly #events: T[];
  readonly #wake: { up: () => void };

  private constructor(id: string, events: T[], wake: { up: () => void }) {
    this.id = id;
    this.#events = events;
    this.#wake = wake;
  }

  static async subscribe<T>(rpc: RpcClient, method: string, ...params: unknown[]): Promise<Heard<T>> {
    const events: T[] = [];
    const wake = { up: (): void => {} };
    const id = await rpc.subscribe<T>(method, params, (event) => {
      events.push(event);
      wake.up();
    });
    return new Heard(id, events, wake);
  }

  /** The next one that has come or will come. */
  async next(): Promise<T> {
    while (this.#events.length === 0) {
      await new Promise<void>((resolve) => {
        this.#wake.up = resolve;
      });
    }
    return this.#events.shift() as T;
  }

  /** The next few. */
  async take(count: number): Promise<T[]> {
    const out: T[] = [];
    while (out.length < count) out.push(await this.next());
    return out;
  }

  /** What has come and nobody has taken. */
  get waiting(): number {
    return this.#events.length;
  }
}

export interface Caller {
  readonly rpc: RpcClient;
  call<T = unknown>(method: string, ...params: unknown[]): Promise<T>;
  hear<T>(method: string, ...params: unknown[]): Promise<Heard<T>>;
  close(): void;
}

export async function serveFake(test: Test, entries: Entries = []) {
  const chain = new FakeChain(entries);
  const context = fakeContext(chain);
  const stop = new AbortController();
  const server = rpcServer({ port: 0, groups: standardGroups(context), log: context.log });
  const { ws, http } = await server.listen();
  const ended = server.run(stop.signal);
  const callers: Caller[] = [];
  test.teardown(async () => {
    for (const each of callers) each.close();
    stop.abort();
    await ended;
    if (context.faults.length > 0) throw new Error(`the server's fault: ${context.faults.join('; ')}`);
  });
  const connect = async (): Promise<Caller> => {
    const rpc = await RpcClient.connect(ws);
    const caller: Caller = {
      rpc,
      call: (method, ...params) => rpc.call(method, ...params),
      hear: (method, ...params) => Heard.subscribe(rpc, method, ...params),
      close: () => rpc.close(),
    };
    callers.push(caller);
    return caller;
  };
  return { chain, context, connect, http };
}
