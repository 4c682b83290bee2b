/** The HTTP side of the port: JSON-RPC by POST, health by GET, and what others hang in. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Access, Cors } from './access.ts';
import { type Dispatcher, failureText } from './dispatcher.ts';
import { requestTooBig } from './errors.ts';
import { Session } from './session.ts';

/** Answers the request and returns true, or leaves it to the next and returns false. */
export type Route = (request: IncomingMessage, response: ServerResponse) => boolean;

export interface HttpOptions {
  readonly access: Access;
  readonly cors: Cors;
  readonly dispatcher: Dispatcher;
  readonly maxRequest: number;
  readonly routes: readonly Route[];
  /** JSON for `/health`, and whether the node is ready to be used. */
  readonly health: () => { readonly report: unknown; readonly ready: boolean };
}

const JSON_TYPE = { 'content-type': 'application/json; charset=utf-8' };

const answer = (response: ServerResponse, status: number, body: string, headers: Record<string, string> = {}): void => {
  response.writeHead(status, { ...headers, 'content-length': Buffer.byteLength(body) }).end(body);
};

const refuse = (response: ServerResponse, status: number, why: string): void =>
  answer(response, status, `${why}\n`, { 'content-type': 'text/plain; charset=utf-8', connection: 'close' });

export function httpHandler(options: HttpOptions): (request: IncomingMessage, response: ServerResponse) => void {
  const { access, cors, dispatcher, maxRequest, routes, health } = options;

  const post = (request: IncomingMessage, response: ServerResponse): void => {
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
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size <= maxRequest) chunks.push(chunk);
      else if (!response.headersSent) tooBig();
    });
    request.on('end', () => {
      if (response.headersSent) return;
      const session = new Session({
        unsafe: access.allowsUnsafe(request.socket.remoteAddress),
        maxSubscriptions: 0,
        send: undefined,
      });
      response.on('close', () => session.close());
      const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
      dispatcher.handle(session, body.toString(), (text) => {
        if (response.destroyed) return;
        if (text === undefined) response.writeHead(204).end();
        else answer(response, 200, text, JSON_TYPE);
      });
    });
    request.on('error', () => response.destroy());
  };

  return (request, response) => {
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
    for (const route of routes) if (route(request, response)) return;
    const [path] = (request.url ?? '/').split('?', 1);
    const reading = request.method === 'GET' || request.method === 'HEAD';
    if (reading && (path === '/health' || path === '/health/readiness')) {
      const { report, ready } = health();
      answer(response, path === '/health' || ready ? 200 : 500, JSON.stringify(report), JSON_TYPE);
    } else if (request.method === 'POST' && path === '/') {
      post(request, response);
    } else if (path === '/') {
      refuse(response, 405, 'JSON-RPC 2.0 by POST, or by WebSocket');
    } else {
      refuse(response, 404, 'nothing here');
    }
  };
}
