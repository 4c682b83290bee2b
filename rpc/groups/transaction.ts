/** `transactionWatch_v1` and `transaction_v1`: transactions by the new JSON-RPC specification. */

import type { Client, TransactionStatus } from '../../node/ports/chain.ts';
import { PoolError } from '../../node/ports/chain.ts';
import type { Log } from '../../node/ports/machine.ts';
import { invalidParams, RpcError, toRpcError } from '../server/errors.ts';
import { hexOf } from '../server/hex.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { hex, text } from '../server/params.ts';
import { randomId, type Session } from '../server/session.ts';
import type { Subscription } from '../server/subscription.ts';
import type { ChainView } from './chain-view.ts';
import { extrinsicOf } from './transactions.ts';

interface TransactionContext {
  readonly view: ChainView;
  readonly client: Client;
  readonly log: Log;
  readonly broadcasts: WeakMap<Session, Map<string, () => void>>;
}

const { method, subscription } = definitions<TransactionContext>();

const MAX_BROADCASTS = 64;
/** Blocks for which a transaction that the pool does not take is offered again. */
const MAX_ATTEMPTS = 256;

/** Tells the events of the specification; returns false after a final one. */
function tell(stream: Subscription, status: TransactionStatus, seen: { validated: boolean }): boolean {
  const place = (block: Uint8Array, index: number) => ({ hash: hexOf(block), index });
  const validated = (): void => {
    if (!seen.validated) stream.notify({ event: 'validated' });
    seen.validated = true;
  };
  switch (status.type) {
    case 'future':
    case 'ready':
      validated();
      return true;
    case 'broadcast':
      return true;
    case 'inBlock':
      validated();
      stream.notify({ event: 'bestChainBlockIncluded', block: place(status.block, status.index) });
      return true;
    case 'retracted':
      stream.notify({ event: 'bestChainBlockIncluded', block: null });
      return true;
    case 'finalized':
      stream.notify({ event: 'finalized', block: place(status.block, status.index) });
      return false;
    case 'finalityTimeout':
      stream.notify({ event: 'dropped', error: 'Maximum number of finality watchers has been reached' });
      return false;
    case 'usurped':
      stream.notify({ event: 'invalid', error: 'Extrinsic was rendered invalid by another extrinsic' });
      return false;
    case 'dropped':
      stream.notify({ event: 'dropped', error: 'Extrinsic dropped from the pool due to exceeding limits' });
      return false;
    case 'invalid':
      stream.notify({ event: 'invalid', error: status.reason });
      return false;
  }
}

function watch({ client, log }: TransactionContext, wire: Uint8Array, stream: Subscription): () => void {
  const end = (event: 'invalid' | 'dropped' | 'error', error: string): void => {
    stream.notify({ event, error });
    stream.close();
  };
  let unwatch: (() => void) | undefined;
  let extrinsic: Uint8Array;
  try {
    extrinsic = extrinsicOf(wire);
  } catch (problem) {
    end('invalid', problem instanceof RpcError ? problem.message : 'Extrinsic has invalid format');
    return () => {};
  }
  const seen = { validated: false };
  client.pool
    .submitAndWatch(extrinsic, (status) => {
      if (!tell(stream, status, seen)) stream.close();
    })
    .then(
      (stop) => {
        if (stream.closed) stop();
        else unwatch = stop;
      },
      (problem) => {
        const known = toRpcError(problem);
        const detail = typeof known?.data === 'string' ? `: ${known.data}` : '';
        // An error is what is wrong with this node; whatever the pool says of a transaction is not.
        const refusal = problem instanceof PoolError ? problem.code : undefined;
        if (known === undefined) log('error', 'a transaction could not be submitted', { problem: String(problem) });
        const event = refusal === undefined ? 'error' : refusal === 'IMMEDIATELY_DROPPED' ? 'dropped' : 'invalid';
        end(event, `${known?.message ?? 'Internal error'}${detail}`);
      },
    );
  return () => unwatch?.();
}

/** Keeps the transaction in the pool until it is final, or the returned function is called. */
function broadcast({ client, view }: TransactionContext, extrinsic: Uint8Array, done: () => void): () => void {
  let unwatch: (() => void) | undefined;
  let state: 'waiting' | 'submitting' | 'watched' | 'over' = 'waiting';
  let attempts = 0;
  const over = (): void => {
    state = 'over';
    unfollow();
    unwatch?.();
  };
  const submit = (): void => {
    state = 'submitting';
    attempts++;
    client.pool
      .submitAndWatch(extrinsic, (status) => {
        if (state === 'over') return;
        if (status.type === 'finalized') {
          over();
          done();
        } else if (['dropped', 'usurped', 'invalid', 'finalityTimeout'].includes(status.type)) {
          state = 'waiting';
        }
      })
      .then(
        (stop) => {
          if (state === 'over') stop();
          else {
            unwatch = stop;
            if (state === 'submitting') state = 'watched';
          }
        },
        () => {
          if (state !== 'over') state = 'waiting';
        },
      );
  };
  const unfollow = view.followBest(() => {
    if (state !== 'waiting') return;
    if (attempts < MAX_ATTEMPTS) submit();
    else {
      over();
      done();
    }
  });
  submit();
  return over;
}

const methods = [
  subscription(
    'transactionWatch_v1_submitAndWatch',
    {
      unsubscribe: 'transactionWatch_v1_unwatch',
      notification: 'transactionWatch_v1_watchEvent',
      end: 'nothingOrError',
    },
    [hex('transaction')],
    (context, [wire], stream) => watch(context, wire, stream),
  ),
  method(
    'transaction_v1_broadcast',
    [hex('transaction')],
    (context, [wire], session) => {
      const own = context.broadcasts.get(session) ?? new Map<string, () => void>();
      if (own.size >= MAX_BROADCASTS) return null;
      const id = randomId();
      context.broadcasts.set(session, own);
      let extrinsic: Uint8Array;
      try {
        extrinsic = extrinsicOf(wire);
      } catch (problem) {
        if (!(problem instanceof RpcError)) throw problem;
        // Whoever broadcasts is not told that a transaction is bad, and it counts for the limit all the same.
        own.set(id, () => {});
        return id;
      }
      let forget = (): unknown => undefined;
      const stop = broadcast(context, extrinsic, () => {
        own.delete(id);
        forget();
      });
      own.set(id, () => {
        stop();
        forget();
      });
      forget = session.onClose(stop);
      return id;
    },
    { connected: true },
  ),
  method(
    'transaction_v1_stop',
    [text('operationId', 64)],
    ({ broadcasts }, [id], session) => {
      const own = broadcasts.get(session);
      const stop = own?.get(id);
      if (stop === undefined) throw invalidParams('no such operation');
      own?.delete(id);
      stop();
      return null;
    },
    { connected: true },
  ),
];

export const transactionGroup = (context: Omit<TransactionContext, 'broadcasts'>): Group =>
  group({ ...context, broadcasts: new WeakMap() }, methods);
