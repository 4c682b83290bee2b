/**
 * JSON-RPC 2.0 over the platform's own WebSocket, in Node and in browsers. With `reconnect`, a connection that is lost
 * is made again, and the subscriptions that were open on it go on.
 */

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
  readonly code = 'CONNECTION_LOST';
  constructor() {
    super('the connection to the node is gone');
  }
}

/** There is no node at the address, or no longer. */
export class NoNodeError extends Error {
  readonly code = 'NO_NODE';
}

export interface JsonRpcOptions {
  /** Whether a connection that is lost is made again, for as long as the client is not closed. */
  readonly reconnect?: boolean;
}

export interface SubscriptionHooks {
  /** Hears every notification. */
  readonly listener: (result: unknown) => void;
  /** The connection is gone. Without this, a reconnecting client subscribes again by itself. */
  readonly lost?: () => void;
}

interface Message {
  readonly id?: number;
  readonly result?: unknown;
  readonly error?: { readonly code: number; readonly message: string; readonly data?: unknown };
  readonly params?: { readonly subscription: string; readonly result: unknown };
}

interface Pending {
  resolve(result: unknown): void;
  reject(problem: Error): void;
}

interface Subscription extends SubscriptionHooks {
  readonly method: string;
  readonly unsubscribe: string;
  readonly params: readonly unknown[];
  /** The node's name for it on the connection of now. */
  id: string | undefined;
  ended: boolean;
}

const CONNECT_MS = 10_000;
/** Silence after which the node is asked whether it is still there, and after which it is given up. */
const HEARTBEAT_MS = 15_000;
const FIRST_RETRY_MS = 250;
const LAST_RETRY_MS = 8_000;
/** How long a call waits for a connection to come back. */
const PATIENCE_MS = 30_000;
/** Notifications kept for a subscription whose answer is not there yet. */
const MAX_EARLY = 256;

function open(url: string): Promise<WebSocket> {
  return new Promise((resolve, reject) => {
    let socket: WebSocket;
    const refuse = (why: string): void => {
      clearTimeout(timer);
      socket?.close();
      reject(new NoNodeError(`no node answers at ${url}: ${why}`));
    };
    const timer = setTimeout(() => refuse(`nothing came within ${CONNECT_MS / 1_000} s`), CONNECT_MS);
    try {
      socket = new WebSocket(url);
    } catch (problem) {
      clearTimeout(timer);
      reject(new NoNodeError(`${url} is not the address of a WebSocket`, { cause: problem }));
      return;
    }
    socket.addEventListener('error', () => refuse('the connection failed'), { once: true });
    socket.addEventListener('open', () => {
      clearTimeout(timer);
      resolve(socket);
    });
  });
}

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;

/** Undefined for what no JSON-RPC server sends. */
function messageIn(data: string): Message | undefined {
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    return undefined;
  }
  if (!isObject(value) || Array.isArray(value)) return undefined;
  const { params, error } = value as { readonly params?: unknown; readonly error?: unknown };
  const sound = (params === undefined || isObject(params)) && (error === undefined || isObject(error));
  return sound ? (value as Message) : undefined;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export class JsonRpcClient {
  readonly url: string;
  readonly #reconnect: boolean;
  readonly #pending = new Map<number, Pending>();
  readonly #subscriptions = new Set<Subscription>();
  readonly #byId = new Map<string, Subscription>();
  /** Notifications that came before the answer with their subscription's id was looked at. */
  readonly #early = new Map<string, unknown[]>();
  readonly #returned = new Set<() => void>();
  #socket: WebSocket | undefined;
  #next = 1;
  #heard = true;
  #heartbeat: ReturnType<typeof setInterval> | undefined;
  #isClosed = false;
  #settleClosed: () => void = () => {};
  /** Settles when the connection is gone for good: at once where it is not made again. */
  readonly closed: Promise<void>;

  private constructor(url: string, socket: WebSocket, reconnect: boolean) {
    this.url = url;
    this.#reconnect = reconnect;
    this.closed = new Promise((resolve) => {
      this.#settleClosed = resolve;
    });
    this.#attach(socket);
  }

  /** Rejects with {@link NoNodeError} when there is no node at the address now. */
  static async connect(url: string, { reconnect = false }: JsonRpcOptions = {}): Promise<JsonRpcClient> {
    return new JsonRpcClient(url, await open(url), reconnect);
  }

  get isConnected(): boolean {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  #attach(socket: WebSocket): void {
    this.#socket = socket;
    this.#heard = true;
    socket.addEventListener('message', ({ data }) => {
      if (this.#socket !== socket) return;
      this.#heard = true;
      const message = typeof data === 'string' ? messageIn(data) : undefined;
      // Whatever sends something else is no node.
      if (message === undefined) {
        this.#lose(socket);
        return;
      }
      try {
        this.#receive(message);
      } catch {
        // A listener can make nothing of it. Nothing that a node sends may end this process.
        this.#lose(socket);
      }
    });
    socket.addEventListener('close', () => this.#lose(socket));
    socket.addEventListener('error', () => this.#lose(socket));
    this.#heartbeat = setInterval(() => {
      if (!this.#heard) this.#lose(socket);
      else {
        this.#heard = false;
        this.call('system_chain').catch(() => {});
      }
    }, HEARTBEAT_MS);
  }

  /** What was under way is lost; what is subscribed waits for the next connection, or ends. */
  #lose(socket: WebSocket): void {
    if (this.#socket !== socket) return;
    clearInterval(this.#heartbeat);
    this.#socket = undefined;
    socket.close();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    this.#byId.clear();
    this.#early.clear();
    for (const { reject } of pending) reject(new ConnectionLost());
    for (const subscription of [...this.#subscriptions]) {
      subscription.id = undefined;
      if (subscription.lost === undefined && this.#reconnect && !this.#isClosed) continue;
      this.#subscriptions.delete(subscription);
      subscription.ended = true;
      subscription.lost?.();
    }
    if (this.#isClosed || !this.#reconnect) this.#end();
    else void this.#comeBack();
  }

  async #comeBack(): Promise<void> {
    for (let wait = FIRST_RETRY_MS; !this.#isClosed; wait = Math.min(2 * wait, LAST_RETRY_MS)) {
      // Clients that one node lost together do not all come back in the same moment.
      await pause(wait * (0.75 + Math.random() / 2));
      if (this.#isClosed) return;
      try {
        const socket = await open(this.url);
        if (this.#isClosed) {
          socket.close();
          return;
        }
        this.#attach(socket);
      } catch {
        continue;
      }
      for (const subscription of [...this.#subscriptions]) {
        this.#begin(subscription).catch((problem: unknown) => {
          if (problem instanceof ConnectionLost) return;
          this.#subscriptions.delete(subscription);
          subscription.ended = true;
          subscription.lost?.();
        });
      }
      for (const wake of [...this.#returned]) wake();
      return;
    }
  }

  #end(): void {
    this.#isClosed = true;
    for (const wake of [...this.#returned]) wake();
    this.#settleClosed();
  }

  #receive(message: Message): void {
    if (message.params !== undefined) {
      const { subscription: id, result } = message.params;
      const subscription = this.#byId.get(id);
      if (subscription !== undefined) subscription.listener(result);
      else {
        const early = this.#early.get(id) ?? [];
        if (this.#early.size < MAX_EARLY && early.length < MAX_EARLY) this.#early.set(id, [...early, result]);
      }
      return;
    }
    const pending = this.#pending.get(message.id ?? 0);
    this.#pending.delete(message.id ?? 0);
    const { error } = message;
    if (error !== undefined) pending?.reject(new JsonRpcError(error.code, error.message, error.data));
    else pending?.resolve(message.result);
  }

  /** Settles when there is a connection; rejects with {@link ConnectionLost} when there will be none in time. */
  async #connection(): Promise<WebSocket> {
    const ready = (): WebSocket | undefined => (this.isConnected ? this.#socket : undefined);
    if (ready() === undefined && this.#reconnect && !this.#isClosed) {
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          clearTimeout(timer);
          this.#returned.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, PATIENCE_MS);
        this.#returned.add(wake);
      });
    }
    const socket = ready();
    if (socket === undefined) throw new ConnectionLost();
    return socket;
  }

  /**
   * Rejects with {@link JsonRpcError}, or with {@link ConnectionLost} when the connection goes: whether the node did what
   * was asked is then not known.
   */
  async call<T = unknown>(method: string, ...params: readonly unknown[]): Promise<T> {
    const socket = this.isConnected && this.#socket ? this.#socket : await this.#connection();
    const id = this.#next++;
    return new Promise<T>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as (result: unknown) => void, reject });
      socket.send(JSON.stringify({ jsonrpc: '2.0', id, method, params }));
    });
  }

  /** For what may be asked twice: asks once more on a new connection when the first one goes. */
  async ask<T = unknown>(method: string, ...params: readonly unknown[]): Promise<T> {
    try {
      return await this.call<T>(method, ...params);
    } catch (problem) {
      if (!(problem instanceof ConnectionLost) || !this.#reconnect || this.#isClosed) throw problem;
      return this.call<T>(method, ...params);
    }
  }

  /** Returns how to end it; `unsubscribe` is the method for that. Rejects as {@link call} does. */
  async subscribe(
    method: string,
    unsubscribe: string,
    params: readonly unknown[],
    hooks: SubscriptionHooks | ((result: unknown) => void),
  ): Promise<() => void> {
    const subscription: Subscription = {
      ...(typeof hooks === 'function' ? { listener: hooks } : hooks),
      method,
      unsubscribe,
      params,
      id: undefined,
      ended: false,
    };
    this.#subscriptions.add(subscription);
    try {
      await this.#begin(subscription);
    } catch (problem) {
      this.#subscriptions.delete(subscription);
      subscription.ended = true;
      throw problem;
    }
    return () => {
      if (subscription.ended) return;
      subscription.ended = true;
      this.#subscriptions.delete(subscription);
      if (subscription.id !== undefined) this.#release(subscription.unsubscribe, subscription.id);
    };
  }

  #release(unsubscribe: string, id: string): void {
    this.#byId.delete(id);
    if (this.isConnected) this.call(unsubscribe, id).catch(() => {});
  }

  async #begin(subscription: Subscription): Promise<void> {
    const id = await this.call<string>(subscription.method, ...subscription.params);
    const early = this.#early.get(id) ?? [];
    this.#early.delete(id);
    if (subscription.ended) {
      this.#release(subscription.unsubscribe, id);
      return;
    }
    subscription.id = id;
    this.#byId.set(id, subscription);
    for (const result of early) subscription.listener(result);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const socket = this.#socket;
    if (socket === undefined) this.#end();
    else this.#lose(socket);
  }
}
