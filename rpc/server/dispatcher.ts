/** JSON-RPC 2.0: text in, text out. What can be answered at once is answered at once, without a promise. */
import type { Log } from '../../node/ports/machine.ts';
import {
  batchTooLong,
  internalError,
  invalidParams,
  invalidRequest,
  methodNotFound,
  parseError,
  type RpcError,
  responseTooBig,
  toRpcError,
  unsafeRefused,
} from './errors.ts';
import type { BoundMethod, Group } from './method.ts';
import { parseParams } from './params.ts';
import { RawJson, resultText } from './result.ts';
import type { Session } from './session.ts';
import type { EndAnswer, Subscription } from './subscription.ts';

export interface DispatcherOptions {
  readonly groups: readonly Group[];
  readonly maxBatch: number;
  /** Characters of one answer. */
  readonly maxResponse: number;
  readonly log: Log;
}

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

export class Dispatcher {
  readonly counters = { requests: 0, failures: 0, faults: 0 };
  readonly #methods = new Map<string, Entry>();
  readonly #options: DispatcherOptions;

  constructor(options: DispatcherOptions) {
    this.#options = options;
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

  /** `reply` is called once, now or later. */
  handle(session: Session, text: string, reply: (text: string | undefined) => void): void {
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      this.counters.failures++;
      reply(failure(null, parseError()));
      return;
    }
    if (Array.isArray(message)) this.#batch(session, message, reply);
    else {
      this.#single(session, message, (answer, subscription) => {
        reply(answer);
        subscription?.open();
      });
    }
  }

  #batch(session: Session, messages: readonly unknown[], reply: (text: string | undefined) => void): void {
    const { maxBatch, maxResponse } = this.#options;
    if (messages.length === 0 || messages.length > maxBatch) {
      this.counters.failures++;
      reply(failure(null, messages.length === 0 ? invalidRequest() : batchTooLong(maxBatch)));
      return;
    }
    const answers: (string | undefined)[] = new Array(messages.length);
    const subscriptions: Subscription[] = [];
    let waiting = messages.length;
    let size = 0;
    messages.forEach((message, index) => {
      this.#single(session, message, (answer, subscription) => {
        size += answer?.length ?? 0;
        answers[index] = size > maxResponse ? undefined : answer;
        if (subscription !== undefined) subscriptions.push(subscription);
        if (--waiting > 0) return;
        const due = answers.filter((each) => each !== undefined);
        if (size > maxResponse) reply(failure(null, responseTooBig(maxResponse)));
        else reply(due.length === 0 ? undefined : `[${due.join(',')}]`);
        for (const each of subscriptions) each.open();
      });
    });
  }

  #single(session: Session, message: unknown, done: Done): void {
    this.counters.requests++;
    if (typeof message !== 'object' || message === null || Array.isArray(message)) {
      done(this.#refuse(null, invalidRequest()));
      return;
    }
    const { jsonrpc, id, method, params } = message as Record<string, unknown>;
    const silent = id === undefined;
    const known = silent || id === null || typeof id === 'string' || typeof id === 'number';
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
      done(this.#refuse(known && !silent ? (id as Id) : null, code));
      return;
    }
    const answerTo = id as Id;
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
