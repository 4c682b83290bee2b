/**
 * Who may have the gateway spend its payer's money. A web page that somebody opens on this machine must not, whatever it sends:
 * browsers send forms and `no-cors` requests to 127.0.0.1 without asking, and names of strangers can be made to point there.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { access, isForwarded, isLoopback } from '../server/access.ts';
import { ApiError } from './openai.ts';

export interface DoorOptions {
  /** Where the gateway listens. */
  readonly host: string;
  /** Applications send it as bearer token. Undefined: programs on this machine need none, and nobody else is let in. */
  readonly apiKey: string | undefined;
  /** Origins of web pages that may ask, with the key; patterns with `*` in them. */
  readonly origins?: readonly string[];
  /** Names that the gateway may be called by, besides `localhost` and addresses. */
  readonly hosts?: readonly string[];
}

/** The gateway's address and what it demands do not go together. */
export class DoorError extends Error {
  readonly code = 'KEY_NEEDED';
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
const refusal = (status: number, code: string, message: string): ApiError =>
  new ApiError(status, 'invalid_request_error', code, message);

export class Door {
  readonly #options: DoorOptions;
  readonly #access: ReturnType<typeof access>;
  readonly #key: Buffer | undefined;

  /** Throws {@link DoorError} for a gateway that strangers reach and that has no key. */
  constructor(options: DoorOptions) {
    const { host, apiKey, origins = [], hosts = [] } = options;
    const open = !isLoopback(host) || origins.length > 0 || hosts.length > 0;
    if (apiKey === undefined && open) {
      throw new DoorError(`a gateway at ${host} that others can reach needs an API key`);
    }
    this.#options = options;
    this.#access = access({ host, cors: origins, methods: 'safe', hosts });
    this.#key = apiKey === undefined ? undefined : digest(`Bearer ${apiKey}`);
  }

  /**
   * Sees to the names and origins of a request, and answers a browser's question whether a page may ask; true when nothing more
   * is due. Throws {@link ApiError}.
   */
  greet(request: IncomingMessage, response: ServerResponse): boolean {
    const { host, origin } = request.headers;
    if (!this.#access.allowsHost(host))
      throw refusal(403, 'unknown_host', `this gateway is not called ${host ?? 'so'}`);
    if (!this.#access.allowsOrigin(origin)) {
      throw refusal(403, 'unknown_origin', `pages of ${origin} may not ask this gateway`);
    }
    if (origin !== undefined) {
      response.setHeader('access-control-allow-origin', origin);
      response.setHeader('vary', 'origin');
    }
    if (request.method !== 'OPTIONS') return false;
    response.setHeader('access-control-allow-methods', 'GET, POST');
    response.setHeader('access-control-allow-headers', 'authorization, content-type');
    response.setHeader('access-control-max-age', '600');
    response.writeHead(204).end();
    return true;
  }

  /** Throws {@link ApiError} unless the request has the key. `spends`: whether it costs money; reading needs less. */
  admit(request: IncomingMessage, spends: boolean): void {
    const given = request.headers.authorization;
    if (this.#key !== undefined && given !== undefined && timingSafeEqual(digest(given), this.#key)) return;
    if ((this.#key === undefined || !spends) && given === undefined && this.#isLocalProgram(request)) return;
    throw refusal(401, 'invalid_api_key', 'the API key is missing or wrong');
  }

  /** A program of this machine that is no browser. A page cannot leave these headers out. */
  #isLocalProgram({ headers, socket }: IncomingMessage): boolean {
    if (!isLoopback(this.#options.host) || !isLoopback(socket.remoteAddress ?? '')) return false;
    return headers.origin === undefined && headers['sec-fetch-site'] === undefined && !isForwarded(headers);
  }
}

/** Throws {@link ApiError}. Pages may send other types without asking first. */
export function demandJson({ headers }: IncomingMessage): void {
  const type = headers['content-type'];
  if (type === undefined || !/^application\/json\s*(;|$)/i.test(type)) {
    throw refusal(415, 'unsupported_media_type', 'content-type must be application/json');
  }
}
