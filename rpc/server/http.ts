/** The HTTP side of the port: JSON-RPC by POST, health by GET, and what others hang in. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Access, Cors } from './access.ts';
import { type Dispatcher, failureText } from './dispatcher.ts';
import { requestTooBig } from './errors.ts';
import type { Guest } from './guest.ts';
import { Session } from './session.ts';
import type { Turns } from './turns.ts';
import type { Unread } from './unread.ts';

/** Answers the request and returns true, or leaves it to the next and returns false. */
export type Route = (request: IncomingMessage, response: ServerResponse) => boolean;

export interface HttpOptions {
  readonly access: Access;
  readonly cors: Cors;
  readonly dispatcher: Dispatcher;
  readonly turns: Turns;
  readonly unread: Unread;
  readonly guestOf: (request: IncomingMessage) => Guest | undefined;
  readonly maxRequest: number;
  readonly maxResponse: number;
  readonly routes: readonly Route[];
  /** JSON for `/health`, and whether the node is ready to be used. */
  readonly health: () => { readonly report: unknown; readonly ready: boolean };
}

const JSON_TYPE = { 'content-type': 'application/json; charset=utf-8' };

const answer = (
  response: ServerResponse,
  status: number,
  body: string | Buffer,
  headers: Record<string, string> = {},
): void => {
  response.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(body) }).end(body);
};

/** What is left of a refused request is not read, so the connection cannot go on. */
const refuse = (response: ServerResponse, status: number, why: string): void =>
  answer(response, status, `${why}\n`, { 'content-type': 'text/plain; charset=utf-8', connection: 'close' });

export function httpHandler(options: HttpOptions): (request: IncomingMessage, response: ServerResponse) => void {
  const { access, cors, dispatcher, turns, unread, guestOf, maxRequest, maxResponse, routes, health } = options;

  const call = (guest: Guest, request: IncomingMessage, response: ServerResponse, body: Buffer): void => {
    guest.answer((done) => {
      // The caller left while the answers before were read.
      if (response.destroyed) return done();
      const caller = guest.callerOf(request.headers);
      const session = new Session({
        unsafe: access.allowsUnsafe(request.socket.remoteAddress, request.headers),
        maxSubscriptions: 0,
        send: undefined,
        maxResponse,
        caller,
        turns,
      });
      response.on('close', () => {
        session.close();
        guest.arrival.release(body.length);
        done();
      });
      dispatcher.handle(session, body, (text) => {
        if (response.destroyed) return;
        if (text === undefined) response.writeHead(204).end();
        else {
          const bytes = Buffer.from(text);
          answer(response, 200, bytes, JSON_TYPE);
          guest.sent(bytes.length);
          unread.grew(bytes.length);
        }
      });
    });
  };

  const post = (guest: Guest, request: IncomingMessage, response: ServerResponse): void => {
    const type = request.headers['content-type'];
    if (type === undefined || !/^application\/(json|json-rpc|jsonrequest)\b/i.test(type)) {
      request.resume();
      refuse(response, 415, 'content-type must be application/json');
      return;
    }
    const tooBig = (): void =>
      answer(response, 413, failureText(requestTooBig(maxRequest)), { ...JSON_TYPE, connection: 'close' });
    if (Number(request.headers['content-length'] ?? 0) > maxRequest) {
      tooBig();
      return;
    }
    const chunks: Buffer[] = [];
    let size = 0;
    guest.begins(request);
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size <= maxRequest) {
        chunks.push(chunk);
        guest.arrival.grow(chunk.length);
      } else if (!response.headersSent) {
        guest.arrival.release(size - chunk.length);
        chunks.length = 0;
        tooBig();
      }
    });
    request.on('end', () => {
      if (response.headersSent) return;
      guest.arrival.whole();
      call(guest, request, response, chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks));
    });
    request.on('error', () => response.destroy());
  };

  return (request, response) => {
    const guest = guestOf(request);
    if (guest === undefined) return void response.destroy();
    const { origin, host } = request.headers;
    if (!access.allowsHost(host)) return refuse(response, 403, 'this host name is not allowed');
    if (!access.allowsOrigin(origin)) return refuse(response, 403, 'this origin is not allowed');
    if (origin !== undefined) {
      response.setHeader('access-control-allow-origin', cors === 'all' ? '*' : origin);
      if (cors !== 'all') response.setHeader('vary', 'origin');
    }
    if (request.method === 'OPTIONS') {
      response.setHeader('access-control-allow-methods', 'GET, HEAD, POST, PUT, DELETE, OPTIONS');
      response.setHeader(
        'access-control-allow-headers',
        request.headers['access-control-request-headers'] ?? 'content-type',
      );
      response.setHeader('access-control-max-age', '86400');
      response.writeHead(204).end();
      return;
    }
    for (const route of routes) {
      if (!route(request, response)) continue;
      // It has an end of its own for what stands still.
      guest.answer((done) => response.on('close', done));
      return;
    }
    const [path] = (request.url ?? '/').split('?', 1);
    const reading = request.method === 'GET' || request.method === 'HEAD';
    if (reading && (path === '/health' || path === '/health/readiness')) {
      const { report, ready } = health();
      answer(response, path === '/health' || ready ? 200 : 500, JSON.stringify(report), JSON_TYPE);
    } else if (request.method === 'POST' && path === '/') {
      post(guest, request, response);
    } else if (path === '/') {
      refuse(response, 405, 'JSON-RPC 2.0 by POST, or by WebSocket');
    } else {
      refuse(response, 404, 'nothing here');
    }
  };
}
