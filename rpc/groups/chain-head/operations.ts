/** Operations of `chainHead_v1`: work that goes on in turns, at the pace of the one who asked. */
import { setImmediate as nextTurn } from 'node:timers/promises';

/** How long this thread may be busy at a stretch. */
const SLICE_MS = 5;
/** Items in one notification. */
const ITEMS = 256;
/** Notifications before the caller has to ask for more. */
const EVENTS = 16;

export interface Operation {
  readonly id: string;
  stopped: boolean;
  /** Set while the operation waits to be continued. */
  proceed: (() => void) | undefined;
}

/** The operations of one follower. */
export class Operations {
  readonly #running = new Map<string, Operation>();
  readonly #limit: number;
  #next = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Undefined when too many run. */
  start(): Operation | undefined {
    if (this.#running.size >= this.#limit) return undefined;
    const operation: Operation = { id: String(this.#next++), stopped: false, proceed: undefined };
    this.#running.set(operation.id, operation);
    return operation;
  }

  finish(operation: Operation): void {
    this.#running.delete(operation.id);
  }

  stop(id: string): void {
    const operation = this.#running.get(id);
    if (operation === undefined) return;
    operation.stopped = true;
    this.#running.delete(id);
    operation.proceed?.();
  }

  stopAll(): void {
    for (const id of [...this.#running.keys()]) this.stop(id);
  }

  /** False if there is such an operation and it does not wait. */
  proceed(id: string): boolean {
    const operation = this.#running.get(id);
    if (operation === undefined) return true;
    const { proceed } = operation;
    // Asked twice, it is no longer waiting.
    operation.proceed = undefined;
    proceed?.();
    return proceed !== undefined;
  }
}

/** Sends items in parts until there are no more (true) or nobody wants them (false). */
export async function stream<T>(
  items: Iterable<T | undefined>,
  operation: Operation,
  tell: { readonly items: (items: readonly T[]) => void; readonly waiting: () => void },
): Promise<boolean> {
  let collected: T[] = [];
  let events = 0;
  let start = performance.now();
  const flush = (): void => {
    if (collected.length === 0) return;
    tell.items(collected);
    collected = [];
    events++;
  };
  for (const item of items) {
    if (item !== undefined && collected.push(item) === ITEMS) flush();
    if (events === EVENTS) {
      events = 0;
      tell.waiting();
      await new Promise<void>((resolve) => {
        operation.proceed = resolve;
      });
      start = performance.now();
    } else if (performance.now() - start > SLICE_MS) {
      await nextTurn();
      start = performance.now();
    }
    if (operation.stopped) return false;
  }
  flush();
  return true;
}
