/** OpenAI's API in front of the ledger: the model is an adapter, every answer carries its attribution and is paid by voucher. */
import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Log } from '../../node/ports/machine.ts';
import type { Hashing } from '../../runtime/host.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { inferenceReceipt, signedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { requestTerms } from '../../runtime/primitives/attribution/request.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { addressOf } from '../client/address.ts';
import { PaidFailure } from '../client/job-failure.ts';
import { ConnectionLost } from '../client/json-rpc.ts';
import { Ledger } from '../client/ledger.ts';
import { type PaidAnswer, PaidQuestions } from '../client/paid-questions.ts';
import type { Funding } from '../client/purse.ts';
import type { Signer } from '../client/signer.ts';
import type { SpendingLimits } from '../client/spending-limits.ts';
import { isWithin } from '../server/json-bounds.ts';
import { Door, demandJson } from './door.ts';
import { apiError } from './failures.ts';
import { ApiError, notServed, parseCompletion } from './openai.ts';
import { stateFile } from './state-file.ts';

export interface GatewayOptions {
  readonly node: string;
  readonly host: string;
  readonly port: number;
  /** Undefined: the one that the state file remembers, or a new one that `funding` pays. */
  readonly session: SessionId | undefined;
  /** Signs the session's vouchers. */
  readonly key: Signer;
  /** Opens the session, tops it up and replaces it when needed; undefined: requests end with the deposit. */
  readonly funding: Funding | undefined;
  /**
   * Applications must send it as a bearer token. Undefined: programs on this machine, but no browser, need none; on other addresses
   * than this machine's own it is a {@link DoorError}.
   */
  readonly apiKey: string | undefined;
  /** Origins of web pages that may ask with the key (default: none). */
  readonly origins?: readonly string[];
  /** Host names that the gateway may be called by (default: `localhost`, and addresses). */
  readonly hosts?: readonly string[];
  readonly stateFile: string | undefined;
  /** What may be spent; undefined: as much as the deposit has. */
  readonly limits?: SpendingLimits | undefined;
  /** How long a request waits for a worker that went away while it answered; a minute where nothing is said. */
  readonly patienceMs?: number;
  readonly hashing: Hashing;
  readonly log: Log;
}

export interface Gateway {
  readonly url: string;
  close(): Promise<void>;
}

const MAX_BODY = 1 << 20;
const JSON_BOUNDS = { depth: 32, values: 65_536 };
/** Questions that are being answered at the same time, and connections. */
const MAX_ASKING = 256;
const MAX_CONNECTIONS = 1_024;
const TIMES = { headersTimeout: 10_000, requestTimeout: 60_000, connectionsCheckingInterval: 5_000 };
/** The attribution object of an answer: amounts in OPEN's smallest unit, as decimal text. */
export function attributionObject(hashing: Hashing, { receipt, terms }: Omit<PaidAnswer, 'text'>) {
  const { payload } = receipt;
  const paid = payload.pool - payload.remainder;
  return {
    receipt: toHex(encode(signedInferenceReceipt, receipt)),
    /** What was asked, as the voucher's signature covers it: for disputes about it, and for `openledger verify`. */
    request: toHex(encode(requestTerms, terms)),
    id: toHex(hashOf(hashing, inferenceReceipt, payload)),
    worker: addressOf(payload.worker),
    adapter: payload.voucher.payload.adapter,
    fee: payload.fee.toString(),
    pool: payload.pool.toString(),
    contributors: payload.shares
      .map(({ contributor, influence, spanMass, amount }) => ({
        account: addressOf(contributor),
        share: paid === 0n ? 0 : Number((amount * 1_000_000n) / paid) / 1e6,
        amount: amount.toString(),
        influence: influence.toString(),
        span_mass: spanMass.toString(),
      }))
      .sort((a, b) => b.share - a.share),
    spans: payload.spans.map(({ start, length, matches }) => ({
      start,
      length,
      records: matches.map(({ record, share }) => ({ record, account: addressOf(payload.shares[share]!.contributor) })),
    })),
  };
}

/** An answer that ended early although its caller waits for it ran into a bound: it took too long. */
const FINISH_REASONS = ['stop', 'length', 'length'] as const;

async function body(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request) {
    size += (part as Buffer).length;
    if (size > MAX_BODY) throw new ApiError(413, 'invalid_request_error', 'too_large', `at most ${MAX_BODY} bytes`);
    parts.push(part as Buffer);
  }
  const bytes = Buffer.concat(parts);
  try {
    if (isWithin(bytes, JSON_BOUNDS)) return JSON.parse(bytes.toString('utf8'));
  } catch {
    // Told below.
  }
  throw new ApiError(400, 'invalid_request_error', 'invalid_json', 'the body is no JSON, or too many values of it');
}

function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

async function completion(
  questions: PaidQuestions,
  hashing: Hashing,
  kind: 'chat' | 'text',
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const wanted = parseCompletion(await body(request), kind);
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  const id = `${kind === 'chat' ? 'chatcmpl' : 'cmpl'}-${randomBytes(12).toString('hex')}`;
  const head = (object: string) => ({ id, object, created: Math.floor(Date.now() / 1000), model: wanted.model });
  const chunk = (choice: object) => ({
    ...head(kind === 'chat' ? 'chat.completion.chunk' : 'text_completion'),
    choices: [{ index: 0, logprobs: null, ...choice }],
  });
  const send = (value: unknown) => response.write(`data: ${JSON.stringify(value)}\n\n`);
  const say = (text: string): void => {
    if (!response.headersSent) {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
      if (kind === 'chat') send(chunk({ delta: { role: 'assistant', content: '' }, finish_reason: null }));
    }
    if (text !== '')
      send(chunk(kind === 'chat' ? { delta: { content: text }, finish_reason: null } : { text, finish_reason: null }));
  };
  const completed = await questions.ask(wanted, { ...(wanted.stream && { delta: say }), signal: gone.signal });
  const { text } = completed;
  const { payload } = completed.receipt;
  const finish = FINISH_REASONS[payload.finish] ?? 'stop';
  const usage = {
    prompt_tokens: payload.tokensIn,
    completion_tokens: payload.tokensOut,
    total_tokens: payload.tokensIn + payload.tokensOut,
  };
  const attribution = attributionObject(hashing, completed);
  if (wanted.stream) {
    say('');
    send({
      ...chunk(kind === 'chat' ? { delta: {}, finish_reason: finish } : { text: '', finish_reason: finish }),
      attribution,
    });
    if (wanted.includeUsage) send({ ...chunk({}), choices: [], usage });
    response.end('data: [DONE]\n\n');
    return;
  }
  const choice = kind === 'chat' ? { message: { role: 'assistant', content: text, refusal: null } } : { text };
  json(response, 200, {
    ...head(kind === 'chat' ? 'chat.completion' : 'text_completion'),
    choices: [{ index: 0, logprobs: null, finish_reason: finish, ...choice }],
    usage,
    attribution,
  });
}

const MODEL_PATH = '/v1/models/';
const modelObject = ({ adapter, name }: { readonly adapter: number; readonly name: string }) => ({
  id: name,
  object: 'model',
  created: 0,
  owned_by: 'openledger',
  adapter,
});

function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Questions under way. */
interface Asking {
  count: number;
}

const ENDPOINTS: Readonly<Record<string, 'chat' | 'text'>> = {
  '/v1/chat/completions': 'chat',
  '/v1/completions': 'text',
};

async function route(
  questions: PaidQuestions,
  { hashing }: GatewayOptions,
  { door, asking }: { readonly door: Door; readonly asking: Asking },
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const path = (request.url ?? '').split('?', 1)[0] as string;
  if (door.greet(request, response)) return;
  if (path === '/health' && (request.method === 'GET' || request.method === 'HEAD')) {
    json(response, 200, { status: 'ok' });
    return;
  }
  const kind = request.method === 'POST' ? ENDPOINTS[path] : undefined;
  door.admit(request, kind !== undefined);
  if (kind !== undefined) {
    demandJson(request);
    if (asking.count >= MAX_ASKING) throw new ApiError(429, 'rate_limit_error', 'overloaded', 'too many questions');
    asking.count++;
    try {
      await completion(questions, hashing, kind, request, response);
    } finally {
      asking.count--;
    }
  } else if (request.method === 'GET' && path === '/v1/models')
    json(response, 200, { object: 'list', data: (await questions.models()).map(modelObject) });
  else if (request.method === 'GET' && path.startsWith(MODEL_PATH)) {
    const id = unescaped(path.slice(MODEL_PATH.length));
    const found = (await questions.models()).find(({ name }) => name === id);
    if (found === undefined) throw notServed(id);
    json(response, 200, modelObject(found));
  } else throw new ApiError(404, 'invalid_request_error', 'not_found', `there is no ${request.method} ${path}`);
}

function refuse(request: IncomingMessage, response: ServerResponse, problem: unknown, log: Log): void {
  const known =
    problem instanceof ApiError
      ? problem
      : problem instanceof PaidFailure
        ? apiError(problem)
        : problem instanceof ConnectionLost
          ? new ApiError(503, 'server_error', 'no_node', 'the node is not reachable')
          : new ApiError(500, 'server_error', 'internal', 'the request failed');
  if (known.code === 'internal') log('error', `gateway: ${(problem as Error).stack}`);
  if (!response.headersSent) {
    // What is left of a refused request is not read, and must not be taken for the next one.
    if (!request.complete) response.setHeader('connection', 'close');
    json(response, known.status, known.body);
    return;
  }
  response.end(`data: ${JSON.stringify(known.body)}\n\n`);
}

/** Rejects when there is no node, no session, or the port is taken, and with a {@link DoorError} for an open door. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const door = new Door(options);
  const { node, session, key, funding, hashing, stateFile: path, patienceMs, limits, log } = options;
  const ledger = await Ledger.connect(node, { hashing, reconnect: true });
  let running: PaidQuestions;
  try {
    const store = path === undefined ? undefined : stateFile(path);
    running = await PaidQuestions.open({ ledger, session, key, funding, store, limits, patienceMs });
  } catch (problem) {
    ledger.close();
    throw problem instanceof PaidFailure ? apiError(problem) : problem;
  }
  const asking: Asking = { count: 0 };
  const server: Server = createServer(TIMES, (request, response) => {
    route(running, options, { door, asking }, request, response).catch((problem: unknown) =>
      refuse(request, response, problem, log),
    );
  });
  server.maxConnections = MAX_CONNECTIONS;
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(options.port, options.host, resolve);
    });
  } catch (problem) {
    await running.close();
    ledger.close();
    throw problem;
  }
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://${options.host}:${port}/v1`,
    async close() {
      running.leave();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await running.close();
      ledger.close();
    },
  };
}
