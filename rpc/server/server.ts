/** JSON-RPC over WebSocket and HTTP on one port. */
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { LRUCache } from 'lru-cache';
import { WebSocketServer } from 'ws';
import type { Service } from '../../node/ports/chain.ts';
import type { Log } from '../../node/ports/machine.ts';
import { access, addressOf, type Cors, isLoopback, LOCAL_ORIGINS, type MethodPolicy } from './access.ts';
import { Arriving } from './arriving.ts';
import { Connection } from './connection.ts';
import { Dispatcher } from './dispatcher.ts';
import { Guest } from './guest.ts';
import { httpHandler, type Route } from './http.ts';
import { PAUSE_AT, RPC_LIMITS, type RpcLimits, SHARES, SMALL_REQUEST } from './limits.ts';
import type { Group } from './method.ts';
import { Shares } from './shares.ts';
import { Caller, Turns, Usage } from './turns.ts';
import { Unread } from './unread.ts';
import { Visitors } from './visitors.ts';

const CLOSE_MS = 1_000;
/** Clients count silence; the shortest patience seen is 30 s. */
const PING_MS = 12_000;
/** How often it is looked at who stands still. */
const LOOK_MS = 1_000;
/** Foreign addresses whose use of processor time is remembered. */
const MAX_USAGES = 4_096;
/** Bytes that a request must bring in each window of `stallMs`. */
const LEAST_BYTES = 16_384;
/** Buffers and fragments of one message on a WebSocket, however small. */
const MAX_CHUNKS = 16_384;
const MAX_FRAGMENTS = 1_024;

export interface RpcServerOptions {
  readonly groups: readonly Group[];
  /** Address to listen on (127.0.0.1 unless told otherwise). */
  readonly host?: string;
  /** 0: any free one. */
  readonly port: number;
  readonly cors?: Cors;
  /** `auto`: all methods on a loopback address, safe ones elsewhere. */
  readonly methods?: MethodPolicy;
  /** Allows `methods: 'unsafe'` on an address that is not this machine's own. */
  readonly unsafeExternal?: boolean;
  /** Further host names that callers may use. */
  readonly hosts?: readonly string[];
  /** Further origins whose pages may call safe methods. */
  readonly guests?: readonly string[];
  readonly limits?: Partial<RpcLimits>;
  readonly pingMs?: number;
  /** Other things served on the port, asked before JSON-RPC. */
  readonly routes?: readonly Route[];
  /** What `/health` says. */
  readonly health?: () => { readonly report: unknown; readonly ready: boolean };
  readonly log: Log;
}

export interface RpcStats {
  readonly connections: number;
  readonly subscriptions: number;
  /** Bytes of answers that wait to be read, and of large requests that are on their way in. */
  readonly unread: number;
  readonly arriving: number;
  /** Since the start: requests, those answered with an error, and those of them that were this node's fault. */
  readonly requests: number;
  readonly failures: number;
  readonly faults: number;
}

export class RpcStartError extends Error {
  readonly code: 'PORT_TAKEN' | 'ADDRESS_NOT_AVAILABLE' | 'NOT_PERMITTED' | 'UNSAFE_ON_PUBLIC_ADDRESS' | 'FAILED';
  constructor(code: RpcStartError['code'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

export interface RpcAddress {
  readonly host: string;
  readonly port: number;
  readonly ws: string;
  readonly http: string;
}

export interface RpcServer extends Service {
  /** Opens the port. Rejects with {@link RpcStartError}. */
  listen(): Promise<RpcAddress>;
  /** Serves, opening the port if {@link listen} has not, until the signal; resolves when every connection is closed. */
  run(signal: AbortSignal): Promise<void>;
  readonly address: RpcAddress | undefined;
  readonly methods: readonly string[];
  stats(): RpcStats;
}

/** Why a port could not be opened. `where`: host and port. */
export const listenError = (problem: NodeJS.ErrnoException, where: string): RpcStartError => {
  switch (problem.code) {
    case 'EADDRINUSE':
      return new RpcStartError('PORT_TAKEN', `${where} is in use by another program`, { cause: problem });
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return new RpcStartError('ADDRESS_NOT_AVAILABLE', `this machine has no address for ${where}`, { cause: problem });
    case 'EACCES':
      return new RpcStartError('NOT_PERMITTED', `no permission to listen on ${where}`, { cause: problem });
    default:
      return new RpcStartError('FAILED', `cannot listen on ${where}: ${problem.message}`, { cause: problem });
  }
};

export function rpcServer(options: RpcServerOptions): RpcServer {
  const { host = '127.0.0.1', port, cors = LOCAL_ORIGINS, methods = 'auto', log, pingMs = PING_MS } = options;
  const limits: RpcLimits = { ...RPC_LIMITS, ...options.limits };
  if (methods === 'unsafe' && !isLoopback(host) && options.unsafeExternal !== true) {
    throw new RpcStartError('UNSAFE_ON_PUBLIC_ADDRESS', `unsafe RPC methods must not be offered on ${host}`);
  }
  const { hosts, guests, unsafeExternal } = options;
  const gate = access({
    ...{ host, cors, methods },
    ...(hosts !== undefined && { hosts }),
    ...(guests !== undefined && { guests }),
    ...(unsafeExternal !== undefined && { unsafeExternal }),
  });
  const turns = new Turns();
  const unread = new Unread({ hold: limits.unread / 2, cut: limits.unread });
  const arriving = new Arriving({
    ...{ free: SMALL_REQUEST, shared: limits.arriving, leastBytes: LEAST_BYTES, windowMs: limits.stallMs },
  });
  const visitors = new Visitors({
    connections: limits.connections,
    perAddress: Math.max(1, Math.ceil(limits.connections / 4)),
    // Those who run the node get in when others have taken all the rest.
    foreign: Math.max(1, limits.connections - Math.min(16, Math.floor(limits.connections / 10))),
  });
  const shares = {
    subscriptions: new Shares({ ...SHARES.subscriptions, most: limits.subscriptions }),
    watched: new Shares(SHARES.watched),
    pinned: new Shares(SHARES.pinned),
  };
  const usages = new LRUCache<string, Usage>({ max: MAX_USAGES });
  const callerAt = (of: string | undefined): Caller => {
    if (of === undefined) return new Caller();
    const usage = usages.get(of) ?? new Usage();
    usages.set(of, usage);
    return new Caller(usage);
  };
  const dispatcher = new Dispatcher({
    groups: options.groups,
    maxBatch: limits.batch,
    maxResponse: limits.response,
    turns,
    unread,
    log,
  });
  const connections = new Set<Connection>();
  const guestsBySocket = new WeakMap<Socket, Guest>();
  const http = createServer(
    {
      // The whole of an upload counts against it, however well it goes on: what stands still is ended by `timeout` and `arriving`.
      requestTimeout: 0,
      headersTimeout: 10_000,
      keepAliveTimeout: 30_000,
      connectionsCheckingInterval: 2_000,
      noDelay: true,
    },
    httpHandler({
      ...{ access: gate, cors, dispatcher, turns, unread },
      guestOf: ({ socket }) => guestsBySocket.get(socket),
      maxRequest: limits.request,
      maxResponse: limits.response,
      routes: options.routes ?? [],
      health: options.health ?? (() => ({ report: {}, ready: true })),
    }),
  );
  http.on('connection', (socket: Socket) => {
    const guest = new Guest(socket, { arriving, unread, callerAt });
    if (!visitors.admit(guest)) {
      guest.left(unread);
      socket.destroy();
      return;
    }
    guestsBySocket.set(socket, guest);
    socket.on('close', () => {
      visitors.leave(guest);
      guest.left(unread);
    });
  });
  http.timeout = limits.stallMs;
  http.on('timeout', (socket: Socket) => {
    if (socket.writableLength > 0) socket.destroy();
    else socket.setTimeout(limits.stallMs);
  });
  const webSockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: limits.request,
    maxBufferedChunks: MAX_CHUNKS,
    maxFragments: MAX_FRAGMENTS,
    clientTracking: false,
  });

  const reject = (socket: Duplex, status: string): void => {
    socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
  };
  http.on('upgrade', (request: IncomingMessage, stream: Duplex, head: Buffer) => {
    // Until the WebSocket has it, nobody else would listen for errors.
    stream.on('error', () => stream.destroy());
    if (!gate.allowsHost(request.headers.host) || !gate.allowsOrigin(request.headers.origin)) {
      reject(stream, '403 Forbidden');
      return;
    }
    const socket = stream as Socket;
    const guest = guestsBySocket.get(socket);
    if (guest === undefined) {
      stream.destroy();
      return;
    }
    webSockets.handleUpgrade(request, socket, head, (webSocket) => {
      const connection = new Connection(
        webSocket,
        socket,
        { dispatcher, turns, unread, arriving },
        {
          unsafe: gate.allowsUnsafe(socket.remoteAddress, request.headers),
          caller: callerAt(addressOf(socket.remoteAddress, request.headers)),
          portions: {
            subscriptions: shares.subscriptions.enter(),
            watched: shares.watched.enter(),
            pinned: shares.pinned.enter(),
          },
          limits: {
            maxSubscriptions: limits.subscriptions,
            maxPending: limits.pending,
            maxResponse: limits.response,
            pauseAt: PAUSE_AT,
            maxBuffered: limits.buffered,
            stallMs: limits.stallMs,
          },
        },
      );
      guest.upgraded(connection);
      connections.add(connection);
      webSocket.on('close', () => connections.delete(connection));
    });
  });
  http.on('clientError', (_problem, socket) => {
    if (socket.writable) reject(socket, '400 Bad Request');
    else socket.destroy();
  });

  let address: RpcAddress | undefined;
  const listen = async (): Promise<RpcAddress> => {
    if (address !== undefined) return address;
    const literal = host.replace(/^\[|\]$/g, '');
    await new Promise<void>((resolve, fail) => {
      const failed = (problem: NodeJS.ErrnoException): void => fail(listenError(problem, `${host}:${port}`));
      http.once('error', failed);
      http.listen(port, literal, () => {
        http.off('error', failed);
        http.on('error', (problem) => log('error', 'the RPC server failed', { problem: String(problem) }));
        resolve();
      });
    });
    const bound = http.address() as AddressInfo;
    const at = `${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`;
    address = { host: bound.address, port: bound.port, ws: `ws://${at}`, http: `http://${at}` };
    return address;
  };

  return {
    name: 'rpc',
    listen,
    get address() {
      return address;
    },
    methods: dispatcher.names,
    stats: () => ({
      connections: connections.size,
      subscriptions: [...connections].reduce((sum, { session }) => sum + session.subscriptions, 0),
      unread: unread.total,
      arriving: arriving.used,
      ...dispatcher.counters,
    }),
    async run(signal) {
      if (signal.aborted) return;
      await listen();
      const pings = setInterval(() => {
        for (const connection of connections) connection.ping();
      }, pingMs);
      const looks = setInterval(() => {
        arriving.look();
        for (const connection of connections) connection.look();
      }, LOOK_MS);
      if (!signal.aborted) {
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      }
      clearInterval(pings);
      clearInterval(looks);
      const closed = new Promise<void>((resolve) => http.close(() => resolve()));
      for (const connection of connections) connection.close();
      http.closeIdleConnections();
      const patience = setTimeout(() => {
        for (const connection of connections) connection.terminate();
        http.closeAllConnections();
      }, CLOSE_MS);
      await closed;
      clearTimeout(patience);
    },
  };
}
