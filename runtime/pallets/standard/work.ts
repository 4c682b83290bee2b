/** Work: what hooks and queues of work of all pallets fail with, and what root can do about it. */
import { cost, dispatchError, ensure, ensureRoot, error, fail } from '../../framework/dispatch.ts';
import { call, event, pallet } from '../../framework/pallet.ts';
import type { AnyQueue } from '../../framework/work-queue.ts';
import { option, text, u8, u32 } from '../../primitives/scale/codec.ts';
import * as system from './system.ts';

/** `Pallet.Queue`, such as `Attribution.Windows`. */
const queueName = text(64);
const hookName = text(64);

export const events = {
  HookFailed: event(
    0,
    { hook: hookName, error: dispatchError },
    'A hook (`Pallet.hook`) failed: what it did in this block is undone, and the block went on.',
  ),
  ItemFailed: event(
    1,
    { queue: queueName, block: u32, index: u32, failures: u8, retryAt: option(u32), error: dispatchError },
    'An item of work failed and left no trace. It is tried again in the block named, or was set aside.',
  ),
  SetAside: event(
    2,
    { queue: queueName, id: u32, error: dispatchError },
    'An item of work failed too often, or is too heavy. It waits for root to retry or drop it.',
  ),
  Unreadable: event(
    3,
    { queue: queueName, block: u32, index: u32 },
    'An item of work cannot be decoded by this runtime. It stays in the state.',
  ),
  Retried: event(4, { queue: queueName, id: u32 }, 'Root put an item that was set aside back into its queue.'),
  Dropped: event(5, { queue: queueName, id: u32 }, 'Root gave an item up that was set aside.'),
};

export const errors = {
  UnknownQueue: error(0, 'There is no queue of that name.'),
  UnknownItem: error(1, 'No item of that number was set aside.'),
};

const WEIGHT = cost(30_000_000n, 3, 4);

/** `queues` by their names; asked for when first used, since all pallets belong to it. */
export const work = (queues: () => ReadonlyMap<string, AnyQueue>) => {
  const queueOf = (name: string): AnyQueue => queues().get(name) ?? fail(errors.UnknownQueue);
  return pallet({
    name: 'Work',
    index: 4,
    docs: 'What hooks and queues of work fail with, and what root can do about it.',
    events,
    errors,
    calls: {
      retry: call({
        index: 0,
        args: { queue: queueName, id: u32 },
        weight: WEIGHT,
        class: 'Operational',
        docs: 'Put an item that was set aside back into its queue, due in the next block. Root only.',
        run({ origin, host, emit }, { queue, id }) {
          ensureRoot(origin);
          ensure(queueOf(queue).retry(host, system.blockNumber(host), id), errors.UnknownItem);
          emit(events.Retried, { queue, id });
        },
      }),
      drop: call({
        index: 1,
        args: { queue: queueName, id: u32 },
        weight: WEIGHT,
        class: 'Operational',
        docs: 'Give an item up that was set aside. Root only.',
        run({ origin, host, emit }, { queue, id }) {
          ensureRoot(origin);
          ensure(queueOf(queue).drop(host, id), errors.UnknownItem);
          emit(events.Dropped, { queue, id });
        },
      }),
    },
  });
};
