/** JSON-RPC over WebSocket and HTTP on one port. */
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import type { Service } from '../../node/ports/chain.ts';
import type { Log } from '../../node/ports/machine.ts';
import { access, type Cors, isLoopback, LOCAL_ORIGINS, type MethodPolicy } from './access.ts';
import { Connection } from './connection.ts';
import { Dispatcher } from './dispatcher.ts';
import { httpHandler, type Route } from './http.ts';
import type { Group } from './method.ts';

export interface RpcLimits {
  readonly connections: number;
  /** Bytes of one message or body. */
  readonly request: number;
  /** Characters of one answer. */
  readonly response: number;
  /** Requests in one batch. */
  readonly batch: number;
  /** Per connection. */
  readonly subscriptions: number;
  /** Requests of one connection that wait for their answers. */
  readonly pending: number;
  /** Bytes that a caller may leave unread before it is cut off. */
  readonly buffered: number;
}

const MIB = 1024 * 1024;
export const RPC_LIMITS: RpcLimits = {
  connections: 500,
  request: 15 * MIB,
  response: 64 * MIB,
  batch: 1_000,
  subscriptions: 1_024,
  pending: 4_096,
  buffered: 96 * MIB,
};
/** From so many unread bytes on no further request of the connection is read. */
const PAUSE_AT = MIB;
const CLOSE_MS = 1_000;
/** Clients count silence; the shortest patience seen is 30 s. */
const PING_MS = 12_000;

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
  const gate = access({ host, cors, methods, ...(options.hosts && { hosts: options.hosts }) });
  const dispatcher = new Dispatcher({
    groups: options.groups,
    maxBatch: limits.batch,
    maxResponse: limits.response,
    log,
  });
  const connections = new Set<Connection>();
  const http = createServer(
    { requestTimeout: 30_000, headersTimeout: 10_000, keepAliveTimeout: 30_000, noDelay: true },
    httpHandler({
      access: gate,
      cors,
      dispatcher,
      maxRequest: limits.request,
      routes: options.routes ?? [],
      health: options.health ?? (() => ({ report: {}, ready: true })),
    }),
  );
  http.maxConnections = limits.connections;
  const webSockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    maxPayload: limits.request,
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
    webSockets.handleUpgrade(request, socket, head, (webSocket) => {
      const connection = new Connection(webSocket, socket, dispatcher, {
        unsafe: gate.allowsUnsafe(socket.remoteAddress),
        limits: {
          maxSubscriptions: limits.subscriptions,
          maxPending: limits.pending,
          pauseAt: PAUSE_AT,
          maxBuffered: limits.buffered,
        },
      });
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
      ...dispatcher.counters,
    }),
    async run(signal) {
      if (signal.aborted) return;
      await listen();
      const pings = setInterval(() => {
        for (const connection of connections) connection.ping();
      }, pingMs);
      if (!signal.aborted) {
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      }
      clearInterval(pings);
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
