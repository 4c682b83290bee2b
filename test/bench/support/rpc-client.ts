/** JSON-RPC over one WebSocket, as thin as it gets. */
import { WebSocket } from 'ws';

export class RpcFailure extends Error {
  readonly code: number;
  readonly data: unknown;
  constructor({ code, message, data }: { code: number; message: string; data?: unknown }) {
    super(`${message}${data === undefined ? '' : `: ${JSON.stringify(data)}`}`);
    this.code = code;
    this.data = data;
  }
}

interface Waiting {
  readonly resolve: (result: never) => void;
  readonly reject: (problem: Error) => void;
}

export class RpcClient {
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, Waiting>();
  readonly #listeners = new Map<string, (result: never) => void>();
  /** Notifications that came together with the answer that names their subscription. */
  readonly #early = new Map<string, unknown[]>();
  #next = 1;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.on('message', (data: Buffer) => this.#receive(JSON.parse(data.toString())));
    socket.on('close', () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the connection was closed'));
      this.#waiting.clear();
    });
    socket.on('error', () => {});
  }

  static async connect(url: string): Promise<RpcClient> {
    const socket = new WebSocket(url, { perMessageDeflate: false, maxPayload: 256 * 1024 * 1024 });
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    return new RpcClient(socket);
  }

  /** How many calls have no answer yet. */
  get pending(): number {
    return this.#waiting.size;
  }

  /** Rejects with {@link RpcFailure}, or another error when the connection is gone. */
  call<T>(method: string, ...params: unknown[]): Promise<T> {
    // A closed socket swallows what is sent, and its end was told already.
    if (this.#socket.readyState !== WebSocket.OPEN) return Promise.reject(new Error('the connection was closed'));
    const id = this.#next++;
    this.#socket.send(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
    return new Promise<T>((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  async subscribe<T>(method: string, params: readonly unknown[], listener: (result: T) => void): Promise<string> {
    const id = await this.call<string>(method, ...params);
    this.#listeners.set(id, listener as (result: never) => void);
    for (const result of this.#early.get(id) ?? []) listener(result as T);
    this.#early.delete(id);
    return id;
  }

  #receive(message: {
    readonly id?: number;
    readonly result?: unknown;
    readonly error?: { code: number; message: string; data?: unknown };
    readonly params?: { readonly subscription: string; readonly result: unknown };
  }): void {
    if (message.params !== undefined) {
      const { subscription, result } = message.params;
      const listener = this.#listeners.get(subscription);
      if (listener === undefined) this.#early.set(subscription, [...(this.#early.get(subscription) ?? []), result]);
      else listener(result as never);
      return;
    }
    const waiting = this.#waiting.get(message.id ?? 0);
    if (waiting === undefined) return;
    this.#waiting.delete(message.id ?? 0);
    if (message.error !== undefined) waiting.reject(new RpcFailure(message.error));
    else waiting.resolve(message.result as never);
  }

  close(): void {
    this.#socket.terminate();
  }
}
