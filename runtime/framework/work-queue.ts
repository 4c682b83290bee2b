/**
 * Work that a pallet does later, by itself: windows that end, payouts, expiries, conclusions, enactments.
 *
 * A hook that walks a list somebody else can fill makes blocks heavy, and one that throws makes a block number
 * impossible. A queue does neither. Its items lie in the state under the block from which on they are due. In each
 * block, the executive takes them one by one, in the order of their due blocks, for as long as the queue's budget of
 * weight lasts; the rest waits for the next block. Each item runs in a storage transaction of its own. One that fails,
 * whatever it throws, is rolled back, told by the event `Work.ItemFailed` and tried again after 1, 10, 100 and 1,000
 * blocks; after that it is set aside, where `Work.retry` and `Work.drop` (root) reach it.
 *
 * An item that is too much for one step does a part and returns the rest, which runs next. Nothing removes an item
 * early: work that is out of date must find that out and return.
 *
 * ```ts
 * export const windows = workQueue({
 *   name: 'Windows',
 *   docs: 'Windows that end.',
 *   item: subject,
 *   budget: 100n * PS_PER_MS,
 *   weight: (of) => cost(90_000_000n, 4, 6),
 *   run: (env, of) => { close(env, of); },
 * });
 * const store = storage('Attribution', { ...windows.storage });
 * pallet({ name: 'Attribution', work: [windows] });
 * windows.schedule(host, { now: system.blockNumber(host), due }, of);   // in a call that weighs windows.weightOf(of)
 * ```
 */
import type { Host } from '../host.ts';
import { type Codec, type StructValue, struct, u8, u32 } from '../primitives/scale/codec.ts';
import { ScaleError } from '../primitives/scale/io.ts';
import type { Weight } from '../primitives/types.ts';
import { addWeight, cost, type DispatchError, dispatchError, minWeight } from './dispatch.ts';
import type { Env } from './env.ts';
import {
  type MapItem,
  map,
  mapWithDefault,
  nMap,
  optionalValue,
  twox64Concat,
  type ValueItem,
  value,
} from './storage.ts';

/** What one step came to. Nothing returned: the item is done and took what was announced. */
export interface Progress<T> {
  /** What is left of the item; it runs before all others of the queue. */
  readonly rest?: T;
  /** What the step took, where it is less than announced. */
  readonly used?: Weight;
}

export interface WorkSpec<N extends string, T> {
  /** First part of the names of its storage items. */
  readonly name: N;
  readonly docs: string;
  readonly item: Codec<T>;
  /** Picoseconds that the items of one block may take together. An item that announces more than this is set aside. */
  readonly budget: bigint;
  /** The most that one step of an item takes, known before it runs. Must not depend on anything that strangers can fill. */
  weight(item: T, host: Host): Weight;
  /** Does an item or a part of it. Whatever it throws undoes this step alone. */
  run(env: Env, item: T): Progress<T> | undefined;
}

/** Blocks after which an item is tried again: after the first failure, the second, and so on. */
export const RETRY_AFTER: readonly number[] = [1, 10, 100, 1_000];

const pendingOf = <T>(item: Codec<T>) => struct({ failures: u8, item });
const setAsideOf = <T>(item: Codec<T>) => struct({ since: u32, error: dispatchError, item });
const cursor = struct({ block: u32, index: u32 });
type Cursor = StructValue<{ block: typeof u32; index: typeof u32 }>;

type Pending<T> = StructValue<{ failures: typeof u8; item: Codec<T> }>;
export type SetAside<T> = StructValue<{ since: typeof u32; error: typeof dispatchError; item: Codec<T> }>;

/** The storage items of a queue, to be spread into `storage()` of its pallet. */
export type QueueStorage<N extends string, T> = Readonly<
  Record<`${N}Items`, MapItem<[number, number], Pending<T>, Pending<T> | undefined>> &
    Record<`${N}Counts`, MapItem<number, number, number>> &
    Record<`${N}Cursor`, ValueItem<Cursor, Cursor | undefined>> &
    Record<`${N}SetAside`, MapItem<number, SetAside<T>, SetAside<T> | undefined>> &
    Record<`${N}SetAsideCount`, ValueItem<number, number>>
>;

export interface Failure {
  /** Where the item lay. */
  readonly block: number;
  readonly index: number;
  /** How often it has failed by now. */
  readonly failures: number;
  /** The block in which it is tried again; undefined: it is set aside. */
  readonly retryAt: number | undefined;
  readonly error: DispatchError;
}

/** Hears of items, and of those that fail. */
export interface WorkObserver {
  /** An item's step begins. */
  begins(): void;
  failed(what: Failure): void;
  setAside(id: number, error: DispatchError): void;
  /** The item cannot be decoded. It stays where it lies. */
  unreadable(block: number, index: number): void;
}

export interface WorkQueue<N extends string = string, T = unknown> {
  readonly name: N;
  readonly docs: string;
  readonly budget: bigint;
  readonly storage: QueueStorage<N, T>;
  /** Enters an item. It runs in block `due` at the earliest, and never in block `now` or before. */
  schedule(host: Host, when: { readonly now: number; readonly due: number }, item: T): void;
  /** What a call that schedules the item must weigh for it: entering it, and its first step. */
  weightOf(item: T, host: Host): Weight;
  /** For the executive: does what is due in block `now` or before, for at most `budget` picoseconds. Returns what that took. */
  drain(env: Env, now: number, budget: bigint, observer: WorkObserver): Weight;
  /** Puts an item that was set aside back, due in the next block. False if there is none of that number. */
  retry(host: Host, now: number, id: number): boolean;
  /** Forgets an item that was set aside. False if there is none of that number. */
  drop(host: Host, id: number): boolean;
}

/** Queues of all item types stand side by side. */
export type AnyQueue = Pick<WorkQueue, 'name' | 'docs' | 'budget' | 'drain' | 'retry' | 'drop'>;

const MAX_BLOCK_NUMBER = 0xffffffff;
/** Looking at a block's count, and what a step takes besides the item's own work: the item read, removed, the cursor. */
const LOOK = cost(1_000_000n, 1, 0);
const STEP = cost(5_000_000n, 1, 2);
const SCHEDULE = cost(4_000_000n, 2, 2);

/** Defines a queue. See the top of this file. */
export function workQueue<const N extends string, T>(spec: WorkSpec<N, T>): WorkQueue<N, T> {
  const items = nMap([twox64Concat(u32), twox64Concat(u32)], pendingOf(spec.item), spec.docs);
  const counts = mapWithDefault(twox64Concat(u32), u32, 0, 'How many items fall due in a block.');
  const position = optionalValue(cursor, 'The first item that is overdue. Nothing while none is.');
  const aside = map(twox64Concat(u32), setAsideOf(spec.item), 'Items that failed too often, until root decides.');
  const asideCount = value(u32, 0, 'How many items were ever set aside.');

  const append = (host: Host, block: number, pending: Pending<T>): void => {
    const index = counts.get(host, block);
    items.insert(host, [block, index], pending);
    counts.insert(host, block, index + 1);
  };

  const putAside = (host: Host, now: number, item: T, error: DispatchError): number => {
    const id = asideCount.get(host);
    asideCount.put(host, id + 1);
    aside.insert(host, id, { since: now, error, item });
    return id;
  };

  /** What is at a place of the queue; `unreadable` where its bytes mean nothing to this runtime. */
  const read = (host: Host, at: Cursor): Pending<T> | 'unreadable' | undefined => {
    try {
      return items.get(host, [at.block, at.index]);
    } catch (problem) {
      if (problem instanceof ScaleError) return 'unreadable';
      throw problem;
    }
  };

  /** One step of the item at a place. Returns what it took, and whether the place is done with. */
  const step = (
    env: Env,
    now: number,
    at: Cursor,
    { item, failures }: Pending<T>,
    announced: Weight,
    observer: WorkObserver,
  ): { used: Weight; done: boolean } => {
    const { host } = env;
    observer.begins();
    try {
      const progress = env.transactional(() => {
        const made = spec.run(env, item);
        if (made?.rest === undefined) items.remove(host, [at.block, at.index]);
        else items.insert(host, [at.block, at.index], { failures: 0, item: made.rest });
        return made;
      });
      const used = progress?.used === undefined ? announced : minWeight(addWeight(STEP, progress.used), announced);
      return { used, done: progress?.rest === undefined };
    } catch (problem) {
      const error = env.failureOf(problem);
      items.remove(host, [at.block, at.index]);
      const wait = RETRY_AFTER[failures];
      const retryAt = wait === undefined ? undefined : Math.min(now + wait, MAX_BLOCK_NUMBER);
      observer.failed({ block: at.block, index: at.index, failures: failures + 1, retryAt, error });
      if (retryAt === undefined) observer.setAside(putAside(host, now, item, error), error);
      else append(host, retryAt, { failures: failures + 1, item });
      return { used: addWeight(announced, SCHEDULE), done: true };
    }
  };

  return {
    name: spec.name,
    docs: spec.docs,
    budget: spec.budget,
    storage: {
      [`${spec.name}Items`]: items,
      [`${spec.name}Counts`]: counts,
      [`${spec.name}Cursor`]: position,
      [`${spec.name}SetAside`]: aside,
      [`${spec.name}SetAsideCount`]: asideCount,
    } as QueueStorage<N, T>,

    schedule(host, { now, due }, item) {
      append(host, Math.min(Math.max(due, now + 1), MAX_BLOCK_NUMBER), { failures: 0, item });
    },

    weightOf: (item, host) => addWeight(addWeight(SCHEDULE, STEP), spec.weight(item, host)),

    drain(env, now, budget, observer) {
      const { host } = env;
      const overdue = position.get(host);
      let at: Cursor = overdue ?? { block: now, index: 0 };
      let used = LOOK;
      while (at.block <= now) {
        const count = counts.get(host, at.block);
        while (at.index < count) {
          const pending = read(host, at);
          if (pending === undefined || pending === 'unreadable') {
            if (pending === 'unreadable') observer.unreadable(at.block, at.index);
            used = addWeight(used, STEP);
            at = { ...at, index: at.index + 1 };
          } else {
            const announced = addWeight(STEP, spec.weight(pending.item, host));
            if (announced.refTime > spec.budget) {
              // It would never fit, and everything behind it would wait for ever.
              items.remove(host, [at.block, at.index]);
              const error: DispatchError = { type: 'Exhausted' };
              observer.setAside(putAside(host, now, pending.item, error), error);
              used = addWeight(used, addWeight(STEP, SCHEDULE));
              at = { ...at, index: at.index + 1 };
            } else if (used.refTime + announced.refTime > budget) {
              position.put(host, at);
              return used;
            } else {
              const made = step(env, now, at, pending, announced, observer);
              used = addWeight(used, made.used);
              if (made.done) at = { ...at, index: at.index + 1 };
            }
          }
          if (used.refTime > budget) {
            position.put(host, at);
            return used;
          }
        }
        if (count > 0) counts.remove(host, at.block);
        at = { block: at.block + 1, index: 0 };
        used = addWeight(used, LOOK);
        if (at.block <= now && used.refTime > budget) {
          position.put(host, at);
          return used;
        }
      }
      if (overdue !== undefined) position.kill(host);
      return used;
    },

    retry(host, now, id) {
      const found = aside.take(host, id);
      if (found === undefined) return false;
      append(host, now + 1, { failures: 0, item: found.item });
      return true;
    },

    drop(host, id) {
      if (!aside.has(host, id)) return false;
      aside.remove(host, id);
      return true;
    },
  };
}

/** Picoseconds that all queues may take of a block together. */
export const totalBudget = (queues: readonly AnyQueue[]): bigint =>
  queues.reduce((sum, { budget }) => sum + budget, 0n);
