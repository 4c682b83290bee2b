/** A small JSON-RPC 2.0 client over one WebSocket, for the methods that general libraries do not know. */
import { WebSocket } from 'ws';

export class JsonRpcError extends Error {
  readonly code: number;
  /** The node's name for the failure, where it gives one. */
  readonly data: unknown;
  constructor(code: number, message: string, data?: unknown) {
    super(message);
    this.code = code;
    this.data = data;
  }
}

/** The connection went before the answer came, or was gone before. */
export class ConnectionLost extends Error {
  constructor() {
    super('the connection to the node is gone');
  }
}

/** There is no node at the address, or no longer. */
export class NoNodeError extends Error {
  readonly code = 'NO_NODE';
}

interface Pending {
  resolve(result: unknown): void;
  reject(problem: Error): void;
}

const CONNECT_MS = 10_000;
const PING_MS = 15_000;

export class JsonRpcClient {
  readonly #socket: WebSocket;
  readonly #pending = new Map<number, Pending>();
  readonly #listeners = new Map<string, (result: unknown) => void>();
  /** Notifications that came before the answer with their id was looked at. */
  readonly #early = new Map<string, unknown[]>();
  #next = 1;
  #alive = true;
  /** Settles when the connection is gone, for whatever reason. */
  readonly closed: Promise<void>;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    const pings = setInterval(() => {
      if (!this.#alive) socket.terminate();
      this.#alive = false;
      if (socket.readyState === WebSocket.OPEN) socket.ping();
    }, PING_MS);
    socket.on('pong', () => {
      this.#alive = true;
    });
    socket.on('message', (data) => {
      this.#alive = true;
      this.#receive(String(data));
    });
    socket.on('error', () => socket.terminate());
    this.closed = new Promise((resolve) =>
      socket.on('close', () => {
        clearInterval(pings);
        for (const { reject } of this.#pending.values()) reject(new ConnectionLost());
        this.#pending.clear();
        resolve();
      }),
    );
  }

  /** Rejects when there is no node at the address. */
  static async connect(url: string): Promise<JsonRpcClient> {
    const socket = new WebSocket(url, { handshakeTimeout: CONNECT_MS, maxPayload: 64 * 2 ** 20 });
    await new Promise<void>((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', (problem) => reject(new NoNodeError(`no node answers at ${url}: ${problem.message}`)));
    });
    socket.removeAllListeners('error');
    return new JsonRpcClient(socket);
  }

  #receive(text: string): void {
    const message = JSON.parse(text) as {
      id?: number;
      result?: unknown;
      error?: { code: number; message: string; data?: unknown };
      params?: { subscription: string; result: unknown };
    };
    if (message.params !== undefined) {
      const { subscription, result } = message.params;
      const listener = this.#listeners.get(subscription);
      if (listener !== undefined) listener(result);
      else this.#early.set(subscription, [...(this.#early.get(subscription) ?? []), result]);
      return;
    }
    const pending = this.#pending.get(message.id ?? 0);
    this.#pending.delete(message.id ?? 0);
    const { error } = message;
    if (error !== undefined) pending?.reject(new JsonRpcError(error.code, error.message, error.data));
    else pending?.resolve(message.result);
  }

  /** Rejects with {@link JsonRpcError}, or when the connection goes. */
  call<T = unknown>(method: string, ...params: readonly unknown[]): Promise<T> {
    if (this.#socket.readyState !== WebSocket.OPEN) return Promise.reject(new ConnectionLost());
    const id = this.#next++;
    return new Promise<T>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (result: unknown) => void, reject });
      this.#socket.send(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
    });
  }

  /** Returns how to end it; `unsubscribe` is the method for that. */
  async subscribe(
    method: string,
    unsubscribe: string,
    params: readonly unknown[],
    listener: (result: unknown) => void,
  ): Promise<() => void> {
    const id = await this.call<string>(method, ...params);
    this.#listeners.set(id, listener);
    for (const result of this.#early.get(id) ?? []) listener(result);
    this.#early.delete(id);
    return () => {
      if (!this.#listeners.delete(id)) return;
      if (this.#socket.readyState === WebSocket.OPEN) this.call(unsubscribe, id).catch(() => {});
    };
  }

  close(): void {
    this.#socket.close();
  }
}
