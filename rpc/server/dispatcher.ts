/**
 * JSON-RPC 2.0: text in, text out. What can be answered at once is answered at once, without a promise; when the thread has
 * other things to do, messages and the calls of batches wait for their turns.
 */
import type { Log } from '../../node/ports/machine.ts';
import {
  batchTooLong,
  busy,
  internalError,
  invalidParams,
  invalidRequest,
  methodNotFound,
  parseError,
  RpcError,
  responseTooBig,
  toRpcError,
  unsafeRefused,
} from './errors.ts';
import { isWithin, type JsonBounds } from './json-bounds.ts';
import type { BoundMethod, Group } from './method.ts';
import { parseParams } from './params.ts';
import { RawJson, resultText } from './result.ts';
import type { Session } from './session.ts';
import type { EndAnswer, Subscription } from './subscription.ts';
import { Turns } from './turns.ts';
import type { Unread } from './unread.ts';

export interface DispatcherOptions {
  readonly groups: readonly Group[];
  readonly maxBatch: number;
  /** Characters of one answer. */
  readonly maxResponse: number;
  /** Of one message (default: {@link JSON_BOUNDS}). */
  readonly bounds?: JsonBounds;
  readonly turns?: Turns;
  /** Counts the parts of batches that are under way. */
  readonly unread?: Unread;
  readonly log: Log;
}

/** Enough for any method of these interfaces, and parsed within some 50 ms. */
export const JSON_BOUNDS: JsonBounds = { depth: 64, values: 65_536 };
/** Texts below this length are parsed without a look at their bounds. */
const SHORT = 4_096;
/** Calls of one batch that wait for other threads at the same time. */
const AT_ONCE = 16;
const MAX_ID = 1_024;

type Unsubscribe = { readonly kind: 'unsubscribe'; readonly of: string; readonly end: EndAnswer };
type Entry = BoundMethod | Unsubscribe;
type Id = string | number | null;

/** `text`: the answer, or undefined if none is due. Afterwards the subscriptions may speak. */
type Done = (text: string | undefined, subscription?: Subscription) => void;

const failure = (id: Id, { code, message, data }: RpcError): string => {
  const rest = data === undefined ? '' : `,"data":${JSON.stringify(data)}`;
  return `{"jsonrpc":"2.0","error":{"code":${code},"message":${JSON.stringify(message)}${rest}},"id":${JSON.stringify(id)}}`;
};

export const failureText = (error: RpcError): string => failure(null, error);

const idText = (id: Id): string => (typeof id === 'number' ? `${id}` : JSON.stringify(id));

/** `1e999` is a number in JSON and infinite here, which no answer could repeat. */
const isId = (id: unknown): id is Id =>
  id === null || (typeof id === 'string' && id.length <= MAX_ID) || (typeof id === 'number' && Number.isFinite(id));

export class Dispatcher {
  readonly counters = { requests: 0, failures: 0, faults: 0 };
  readonly #methods = new Map<string, Entry>();
  readonly #options: DispatcherOptions;
  readonly #turns: Turns;

  constructor(options: DispatcherOptions) {
    this.#options = options;
    this.#turns = options.turns ?? new Turns();
    for (const { methods } of options.groups) for (const each of methods) this.#register(each);
    const names = [...this.#methods.keys(), 'rpc_methods'].sort();
    const list = new RawJson(JSON.stringify({ methods: names }));
    this.#add('rpc_methods', { kind: 'method', name: 'rpc_methods', params: [], run: () => list });
  }

  get names(): readonly string[] {
    return [...this.#methods.keys()];
  }

  #register(method: BoundMethod): void {
    for (const name of [method.name, ...(method.aliases ?? [])]) this.#add(name, method);
    if (method.kind !== 'subscription') return;
    // Subscriptions that share an end (Substrate's aliases) are told apart by it.
    for (const name of [method.unsubscribe, ...(method.unsubscribeAliases ?? [])]) {
      this.#add(name, { kind: 'unsubscribe', of: method.name, end: method.end ?? 'whether' });
    }
  }

  #add(name: string, entry: Entry): void {
    if (this.#methods.has(name)) throw new Error(`two RPC methods are called ${name}`);
    this.#methods.set(name, entry);
  }

  /** `reply` is called once, now or later; not at all when the session is closed before its turn comes. */
  handle(session: Session, data: string | Buffer, reply: (text: string | undefined) => void): void {
    this.#turns.run(session.caller, () => this.#message(session, data, reply));
  }

  #parse(data: string | Buffer): unknown {
    if (data.length > SHORT) {
      const bytes = typeof data === 'string' ? Buffer.from(data) : data;
      const bounds = this.#options.bounds ?? JSON_BOUNDS;
      if (!isWithin(bytes, bounds)) {
        throw invalidRequest(`more than ${bounds.values} values, or nested more than ${bounds.depth} deep`);
      }
    }
    return JSON.parse(typeof data === 'string' ? data : data.toString());
  }

  #message(session: Session, data: string | Buffer, reply: (text: string | undefined) => void): void {
    let message: unknown;
    try {
      message = this.#parse(data);
    } catch (problem) {
      this.counters.failures++;
      reply(failure(null, problem instanceof RpcError ? problem : parseError()));
      return;
    }
    if (Array.isArray(message)) this.#batch(session, message, reply);
    else {
      this.#whenRead(session, () => {
        this.#single(session, message, (answer, subscription) => {
          reply(answer);
          subscription?.open();
        });
      });
    }
  }

  /** Begins a call when its caller has read enough of the answers before. */
  #whenRead(session: Session, begin: () => void): void {
    if (session.flow.mayBegin()) begin();
    else session.flow.whenRead(() => this.#turns.run(session.caller, () => this.#whenRead(session, begin)));
  }

  #batch(session: Session, messages: readonly unknown[], reply: (text: string | undefined) => void): void {
    const { maxBatch, maxResponse, unread } = this.#options;
    if (messages.length === 0 || messages.length > maxBatch) {
      this.counters.failures++;
      reply(failure(null, messages.length === 0 ? invalidRequest() : batchTooLong(maxBatch)));
      return;
    }
    const answers: (string | undefined)[] = new Array(messages.length);
    const subscriptions: Subscription[] = [];
    let next = 0;
    let running = 0;
    let asleep = false;
    let size = 0;
    /** Why the rest of the batch is not begun. */
    let over: RpcError | undefined;
    const forget = (): void => {
      answers.length = 0;
      unread?.release(size);
      size = 0;
    };
    const dismiss = session.onClose(() => {
      over = busy();
      forget();
    });
    const finish = (): void => {
      dismiss();
      const due = answers.filter((each) => each !== undefined);
      const text = over !== undefined ? failure(null, over) : due.length === 0 ? undefined : `[${due.join(',')}]`;
      forget();
      reply(text);
      for (const each of subscriptions) each.open();
    };
    const done = (index: number, answer: string | undefined, subscription: Subscription | undefined): void => {
      running--;
      if (subscription !== undefined) subscriptions.push(subscription);
      const length = answer?.length ?? 0;
      if (over === undefined && length > 0) {
        size += length;
        const room = unread?.collect(length) !== false;
        if (size > maxResponse) over = responseTooBig(maxResponse);
        else if (!room) over = busy();
        else answers[index] = answer;
        if (over !== undefined) forget();
      }
      if (running === 0 && (over !== undefined || next === messages.length)) finish();
      else if (asleep) {
        asleep = false;
        this.#turns.run(session.caller, step);
      }
    };
    const step = (): void => {
      if (over !== undefined || next === messages.length) return;
      const index = next++;
      running++;
      this.#single(session, messages[index], (answer, subscription) => done(index, answer, subscription));
      if (over !== undefined || next === messages.length) return;
      if (running < AT_ONCE) this.#turns.run(session.caller, step);
      else asleep = true;
    };
    this.#whenRead(session, step);
  }

  #single(session: Session, message: unknown, done: Done): void {
    this.counters.requests++;
    if (typeof message !== 'object' || message === null || Array.isArray(message)) {
      done(this.#refuse(null, invalidRequest()));
      return;
    }
    const { jsonrpc, id, method, params } = message as Record<string, unknown>;
    const silent = id === undefined;
    const known = silent || isId(id);
    if (
      jsonrpc !== '2.0' ||
      typeof method !== 'string' ||
      !known ||
      (params !== undefined && typeof params !== 'object')
    ) {
      const code =
        known && jsonrpc === '2.0' && typeof method === 'string'
          ? invalidParams('not a list or an object')
          : invalidRequest();
      done(this.#refuse(known && !silent ? id : null, code));
      return;
    }
    const answerTo = silent ? null : id;
    const answer: Done = silent ? (_text, subscription) => done(undefined, subscription) : done;
    try {
      const entry = this.#methods.get(method);
      if (entry === undefined) throw methodNotFound();
      if (entry.kind === 'unsubscribe') {
        const [wanted] = Array.isArray(params)
          ? params
          : params === undefined || params === null
            ? []
            : Object.values(params);
        if (typeof wanted !== 'string' && typeof wanted !== 'number') throw invalidParams('the id of a subscription');
        const ended = session.unsubscribe(entry.of, String(wanted));
        if (!ended && entry.end === 'nothingOrError') throw invalidParams('no such subscription');
        answer(this.#success(answerTo, entry.end === 'whether' ? ended : null));
        return;
      }
      if (entry.unsafe === true && !session.unsafe) throw unsafeRefused();
      if (entry.connected === true && !session.connected) throw methodNotFound();
      const args = parseParams(entry.params, params);
      if (entry.kind === 'subscription') {
        if (silent) throw invalidRequest();
        this.#subscribe(session, entry, args, answerTo, done);
        return;
      }
      const result = entry.run(args, session);
      if (result instanceof Promise) {
        result.then(
          (value) => answer(this.#success(answerTo, value)),
          (problem) => answer(this.#failed(answerTo, method, problem)),
        );
      } else {
        answer(this.#success(answerTo, result));
      }
    } catch (problem) {
      answer(this.#failed(answerTo, method, problem));
    }
  }

  #subscribe(
    session: Session,
    entry: BoundMethod & { kind: 'subscription' },
    args: readonly unknown[],
    id: Id,
    done: Done,
  ): void {
    const subscription = session.subscribe(entry.name, entry.notification);
    const accept = (cleanup: () => void) => {
      subscription.onEnd(cleanup);
      done(`{"jsonrpc":"2.0","id":${idText(id)},"result":"${subscription.id}"}`, subscription);
    };
    const refuse = (problem: unknown) => {
      subscription.close();
      done(this.#failed(id, entry.name, problem));
    };
    let started: ReturnType<typeof entry.start>;
    try {
      started = entry.start(args, subscription, session);
    } catch (problem) {
      refuse(problem);
      return;
    }
    if (started instanceof Promise) started.then(accept, refuse);
    else accept(started);
  }

  #success(id: Id, result: unknown): string {
    const text = `{"jsonrpc":"2.0","id":${idText(id)},"result":${resultText(result)}}`;
    const { maxResponse } = this.#options;
    return text.length > maxResponse ? this.#refuse(id, responseTooBig(maxResponse)) : text;
  }

  #failed(id: Id, method: string, problem: unknown): string {
    const told = toRpcError(problem);
    if (told !== undefined) return this.#refuse(id, told);
    this.counters.faults++;
    const stack = problem instanceof Error ? problem.stack : undefined;
    this.#options.log('error', 'an RPC method failed', { method, problem: String(problem), stack });
    return this.#refuse(id, internalError());
  }

  #refuse(id: Id, error: RpcError): string {
    this.counters.failures++;
    return failure(id, error);
  }
}
