/** OpenAI's API in front of the ledger: the model is an adapter, every answer carries its attribution and is paid by voucher. */
import { randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { KeyringPair } from '@polkadot/keyring/types';
import { encodeAddress } from '@polkadot/util-crypto';
import type { Log } from '../../consensus/ports.ts';
import type { Hashing } from '../../runtime/host.ts';
import * as models from '../../runtime/pallets/models.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId, SessionId } from '../../runtime/primitives/attribution/ids.ts';
import {
  feeOf,
  inferenceReceipt,
  type SignedInferenceReceipt,
  signedInferenceReceipt,
} from '../../runtime/primitives/attribution/receipts.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId, PERBILL } from '../../runtime/primitives/types.ts';
import { JsonRpcError } from '../client/json-rpc.ts';
import { Ledger } from '../client/ledger.ts';
import { generationRequest } from '../inference-codecs.ts';
import { ApiError, type CompletionRequest, parseCompletion } from './openai.ts';
import { type Funding, Purse } from './purse.ts';

export interface GatewayOptions {
  readonly node: string;
  readonly host: string;
  readonly port: number;
  /** Undefined: the one that the state file remembers, or a new one that `funding` pays. */
  readonly session: SessionId | undefined;
  /** Signs the session's vouchers. */
  readonly key: KeyringPair;
  /** Opens the session, tops it up and replaces it when needed; undefined: requests end with the deposit. */
  readonly funding: Funding | undefined;
  /** Applications must send it as a bearer token; undefined: nobody is asked. */
  readonly apiKey: string | undefined;
  readonly stateFile: string | undefined;
  readonly hashing: Hashing;
  readonly log: Log;
}

export interface Gateway {
  readonly url: string;
  close(): Promise<void>;
}

interface Served {
  readonly adapter: AdapterId;
  readonly name: string;
  readonly worker: AccountId;
}

const MAX_BODY = 1 << 20;
/** By the hub's names: what an application is told. */
const FAILURES: Readonly<Record<string, readonly [status: number, type: string, code: string]>> = {
  DEPOSIT_SPENT: [402, 'insufficient_quota', 'insufficient_quota'],
  OVERLOADED: [429, 'rate_limit_error', 'overloaded'],
  NO_WORKER: [503, 'server_error', 'no_worker'],
  NOT_SERVED: [404, 'invalid_request_error', 'model_not_found'],
  TIMED_OUT: [504, 'server_error', 'timeout'],
  WORKER_LEFT: [502, 'server_error', 'worker_left'],
  BAD_RECEIPT: [502, 'server_error', 'bad_receipt'],
};

function failure(name: unknown, message: string): ApiError {
  if (/PROMPT_TOO_LONG/.test(message)) {
    return new ApiError(400, 'invalid_request_error', 'context_length_exceeded', message);
  }
  const [status, type, code] = FAILURES[String(name)] ?? [502, 'server_error', String(name).toLowerCase()];
  return new ApiError(status, type, code, message);
}

/** The attribution object of an answer: amounts in OPEN's smallest unit, as decimal text. */
export function attributionObject(hashing: Hashing, receipt: SignedInferenceReceipt) {
  const { payload } = receipt;
  const paid = payload.pool - payload.remainder;
  const address = (account: Uint8Array) => encodeAddress(account, 42);
  return {
    receipt: toHex(encode(signedInferenceReceipt, receipt)),
    id: toHex(hashOf(hashing, inferenceReceipt, payload)),
    worker: address(payload.worker),
    adapter: payload.voucher.payload.adapter,
    fee: payload.fee.toString(),
    pool: payload.pool.toString(),
    contributors: payload.shares
      .map(({ contributor, influence, spanMass, amount }) => ({
        account: address(contributor),
        share: paid === 0n ? 0 : Number((amount * 1_000_000n) / paid) / 1e6,
        amount: amount.toString(),
        influence: influence.toString(),
        span_mass: spanMass.toString(),
      }))
      .sort((a, b) => b.share - a.share),
    spans: payload.spans.map(({ start, length, matches }) => ({
      start,
      length,
      records: matches.map(({ record, share }) => ({ record, account: address(payload.shares[share]!.contributor) })),
    })),
  };
}

class Service {
  readonly #options: GatewayOptions;
  readonly #purse: Purse;
  #ledger: Ledger;
  #reconnecting: Promise<void> | undefined;
  #closed = false;

  constructor(options: GatewayOptions, ledger: Ledger, purse: Purse) {
    this.#options = options;
    this.#ledger = ledger;
    this.#purse = purse;
    this.#watch();
  }

  get ledger(): Ledger {
    return this.#ledger;
  }

  #watch(): void {
    void this.#ledger.rpc.closed.then(() => {
      if (!this.#closed) this.#reconnecting = this.#reconnect();
    });
  }

  async #reconnect(): Promise<void> {
    await this.#ledger.close().catch(() => {});
    while (!this.#closed) {
      try {
        this.#ledger = await Ledger.connect(this.#options.node);
        this.#reconnecting = undefined;
        this.#watch();
        return;
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 1_000));
      }
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#ledger.close();
  }

  async #served(): Promise<Served[]> {
    if (this.#reconnecting !== undefined)
      throw new ApiError(503, 'server_error', 'no_node', 'the node is not reachable');
    const list = await this.#ledger.rpc.call<{ adapter: number; name: string; worker: string }[]>('inference_models');
    return list.map(({ adapter, name, worker }) => ({
      adapter: adapter as AdapterId,
      name,
      worker: asAccountId(fromHex(worker)),
    }));
  }

  async models() {
    const seen = new Map((await this.#served()).map((each) => [each.adapter, each]));
    return {
      object: 'list',
      data: [...seen.values()].map(({ adapter, name }) => ({
        id: name,
        object: 'model',
        created: 0,
        owned_by: 'openledger',
        adapter,
      })),
    };
  }

  /** By name, or by id as `adapter:7`; the least busy worker first. */
  async #choose(model: string): Promise<Served> {
    const served = await this.#served();
    const found = served.find(({ name, adapter }) => name === model || `adapter:${adapter}` === model);
    if (found !== undefined) return found;
    throw new ApiError(
      404,
      'invalid_request_error',
      'model_not_found',
      `the model ${model} is not served here`,
      'model',
    );
  }

  /** Resolves with the whole answer; `delta` hears it before. */
  async complete(
    request: CompletionRequest,
    delta: (text: string) => void,
    signal: AbortSignal,
  ): Promise<{ text: string; receipt: SignedInferenceReceipt }> {
    const { adapter, worker } = await this.#choose(request.model);
    const state = await this.#ledger.read('models', 'adapters', models.adapter, adapter);
    const { price } = state!;
    // A token has at least one byte, and a template adds a handful a message.
    const { input } = request;
    const tokensIn =
      Buffer.byteLength(JSON.stringify(input.value)) + 16 * (input.type === 'Chat' ? input.value.length + 1 : 1);
    const most = feeOf(price, tokensIn, request.maxTokens);
    const promised = await this.#purse.promise(worker, adapter, price, most);
    let fee = 0n;
    try {
      const encoded = encode(generationRequest, {
        voucher: promised.voucher,
        input,
        maxTokens: request.maxTokens,
        temperature: Math.round(request.temperature * 1e9),
        topP: Math.round(request.topP * PERBILL),
        seed: request.seed ?? randomBytes(8).readBigUInt64LE(),
        stop: request.stop,
      });
      const answered = await this.#ask(toHex(encoded), delta, signal);
      fee = answered.receipt.payload.fee;
      return answered;
    } finally {
      await promised.spend(fee);
    }
  }

  #ask(encoded: string, delta: (text: string) => void, signal: AbortSignal) {
    return new Promise<{ text: string; receipt: SignedInferenceReceipt }>((resolve, reject) => {
      let stop: (() => void) | undefined;
      const cancel = (): void => {
        stop?.();
        reject(new ApiError(499, 'invalid_request_error', 'cancelled', 'the caller is gone'));
      };
      signal.addEventListener('abort', cancel, { once: true });
      void this.#ledger.rpc.closed.then(() => reject(failure('NO_WORKER', 'the connection to the node is gone')));
      const hear = (event: unknown): void => {
        const told = event as { type: string; text: string; receipt: string; code: string; message: string };
        if (told.type === 'delta') delta(told.text);
        else if (told.type === 'answer') {
          resolve({ text: told.text, receipt: decode(signedInferenceReceipt, fromHex(told.receipt)) });
        } else reject(failure(told.code, told.message));
      };
      this.#ledger.rpc
        .subscribe('inference_generate', 'inference_cancel', [encoded], hear)
        .then((unsubscribe) => {
          stop = unsubscribe;
          if (signal.aborted) cancel();
        })
        .catch((problem: unknown) => {
          reject(problem instanceof JsonRpcError ? failure(problem.data, problem.message) : problem);
        });
    });
  }
}

const FINISH_REASONS = ['stop', 'length', 'stop'] as const;

async function body(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request) {
    size += (part as Buffer).length;
    if (size > MAX_BODY) throw new ApiError(413, 'invalid_request_error', 'too_large', `at most ${MAX_BODY} bytes`);
    parts.push(part as Buffer);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString('utf8'));
  } catch {
    throw new ApiError(400, 'invalid_request_error', 'invalid_json', 'the body is no JSON');
  }
}

function json(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

async function completion(
  service: Service,
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
  const { text, receipt } = await service.complete(wanted, wanted.stream ? say : () => {}, gone.signal);
  const { payload } = receipt;
  const finish = FINISH_REASONS[payload.finish] ?? 'stop';
  const usage = {
    prompt_tokens: payload.tokensIn,
    completion_tokens: payload.tokensOut,
    total_tokens: payload.tokensIn + payload.tokensOut,
  };
  const attribution = attributionObject(hashing, receipt);
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

async function route(
  service: Service,
  options: GatewayOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const path = (request.url ?? '').split('?', 1)[0];
  const { apiKey, hashing } = options;
  if (apiKey !== undefined && request.headers.authorization !== `Bearer ${apiKey}`) {
    throw new ApiError(401, 'invalid_request_error', 'invalid_api_key', 'the API key is missing or wrong');
  }
  if (request.method === 'GET' && path === '/v1/models') json(response, 200, await service.models());
  else if (request.method === 'POST' && path === '/v1/chat/completions')
    await completion(service, hashing, 'chat', request, response);
  else if (request.method === 'POST' && path === '/v1/completions')
    await completion(service, hashing, 'text', request, response);
  else throw new ApiError(404, 'invalid_request_error', 'not_found', `there is no ${request.method} ${path}`);
}

function refuse(response: ServerResponse, problem: unknown, log: Log): void {
  const known =
    problem instanceof ApiError ? problem : new ApiError(500, 'server_error', 'internal', 'the request failed');
  if (known.code === 'internal') log('error', `gateway: ${(problem as Error).stack}`);
  if (!response.headersSent) {
    json(response, known.status, known.body);
    return;
  }
  response.end(`data: ${JSON.stringify(known.body)}\n\n`);
}

/** Rejects when there is no node, no session, or the port is taken. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const { node, session, key, funding, hashing, stateFile: file, log } = options;
  const ledger = await Ledger.connect(node);
  let service: Service | undefined;
  try {
    const purse = await Purse.open({ ledger: () => service?.ledger ?? ledger, session, key, funding, file, hashing });
    service = new Service(options, ledger, purse);
  } catch (problem) {
    await ledger.close();
    throw problem;
  }
  const running = service;
  const server: Server = createServer((request, response) => {
    route(running, options, request, response).catch((problem: unknown) => refuse(response, problem, log));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, options.host, resolve);
  });
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://${options.host}:${port}/v1`,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await running.close();
    },
  };
}
