/**
 * Blobs over HTTP: `GET` and `HEAD /blobs/0x…` with a single byte range (RFC 9110, section 14), `PUT /blobs/0x…` to hand
 * one in. Names never change their meaning, so answers may be cached for ever.
 */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { BlobError, type BlobErrorCode, type BlobStore } from './blob-store.ts';

const PATH = /^\/blobs\/(?:0x)?([0-9a-f]{64})$/;
const STATUS: Readonly<Record<BlobErrorCode, number>> = {
  NOT_EXPECTED: 403,
  TOO_LARGE: 413,
  TRUNCATED: 400,
  WRONG_HASH: 422,
  TOO_SLOW: 408,
  BUSY: 503,
  STORE_FULL: 507,
  NOT_FOUND: 404,
  BAD_RANGE: 416,
};
/** An upload that stands still so long is given up. */
const IDLE_MS = 30_000;

function refuse(response: ServerResponse, status: number, code: string, message: string): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const body = JSON.stringify({ error: { code, message } });
  // What is left of a refused upload is not read, so the connection cannot go on.
  response.writeHead(status, { 'content-type': 'application/json', connection: 'close' }).end(body);
}

/** First and last byte of a `Range` header; undefined for the whole, `null` if it cannot be satisfied. */
export function parseRange(header: string | undefined, size: number): readonly [number, number] | undefined | null {
  const match = header === undefined ? null : /^bytes=(\d*)-(\d*)$/.exec(header.trim());
  if (match === null || (match[1] === '' && match[2] === '')) return undefined;
  const [, from, to] = match as unknown as [string, string, string];
  if (from === '') return Number(to) === 0 || size === 0 ? null : [Math.max(0, size - Number(to)), size - 1];
  const first = Number(from);
  const last = to === '' ? size - 1 : Math.min(Number(to), size - 1);
  return first >= size ? null : last < first ? undefined : [first, last];
}

/** What a request says of its length; undefined where it comes in chunks. */
function sizeOf({ headers }: IncomingMessage): number | undefined {
  const length = headers['content-length'];
  return length === undefined ? undefined : Number(length);
}

/** Gets a blob from other nodes; false when it cannot be had. */
export type FetchBlob = (hash: Hash) => Promise<boolean>;

/**
 * Answers requests under `/blobs/`; false if the path is none of its own. What is asked for and is not here is fetched from
 * other nodes first, where there are any.
 */
export function blobHandler(
  store: BlobStore,
  fetch?: FetchBlob,
): (request: IncomingMessage, response: ServerResponse) => boolean {
  return (request, response) => {
    const path = (request.url ?? '').split('?', 1)[0] as string;
    if (!path.startsWith('/blobs/')) return false;
    const name = PATH.exec(path)?.[1];
    if (name === undefined) {
      refuse(response, 400, 'BAD_NAME', 'a blob is named by 64 lower-case hex digits');
      return true;
    }
    serve(store, fetch, name, request, response).catch((problem: unknown) => {
      if (problem instanceof BlobError) refuse(response, STATUS[problem.code], problem.code, problem.message);
      else if (request.destroyed || response.destroyed) response.destroy();
      else refuse(response, 500, 'INTERNAL', 'the request failed');
    });
    return true;
  };
}

async function serve(
  store: BlobStore,
  fetch: FetchBlob | undefined,
  name: string,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const hash = asHash(fromHex(name));
  switch (request.method) {
    case 'PUT': {
      const known = store.has(hash);
      request.setTimeout(IDLE_MS, () => request.destroy());
      if (known) request.resume();
      else await store.put(hash, request, sizeOf(request));
      response.writeHead(known ? 200 : 201, { 'content-length': 0 }).end();
      return;
    }
    case 'GET':
    case 'HEAD': {
      if (request.method === 'GET' && !store.has(hash)) await fetch?.(hash);
      const size = store.size(hash);
      if (size === undefined) throw new BlobError('NOT_FOUND', `no blob 0x${name} here`);
      const range = parseRange(request.headers.range, size);
      if (range === null) {
        response.setHeader('content-range', `bytes */${size}`);
        throw new BlobError('BAD_RANGE', `the blob has ${size} bytes`);
      }
      const [first, last] = range ?? [0, size - 1];
      response.writeHead(range === undefined ? 200 : 206, {
        'content-type': 'application/octet-stream',
        'content-length': last - first + 1,
        'accept-ranges': 'bytes',
        etag: `"${name}"`,
        'cache-control': 'public, max-age=31536000, immutable',
        ...(range !== undefined && { 'content-range': `bytes ${first}-${last}/${size}` }),
      });
      if (request.method === 'HEAD') response.end();
      else await pipeline(store.stream(hash, first, last - first + 1), response);
      return;
    }
    default:
      response.setHeader('allow', 'GET, HEAD, PUT');
      refuse(response, 405, 'BAD_METHOD', `${request.method} is not possible here`);
  }
}
