/** Operations of `chainHead_v1`: work that goes on in turns, at the pace of the one who asked. */
import type { Session } from '../../server/session.ts';

/** How long one turn lasts, about. */
const TURN_MS = 2;
/** Items in one notification, and characters of them about. */
const ITEMS = 256;
const CHARACTERS = 512 * 1024;
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

/** Sends items in parts until there are no more (true) or nobody wants them (false). Promises among them are waited for. */
export async function stream<T extends Record<string, unknown>>(
  session: Session,
  items: Iterable<T | undefined | Promise<void>>,
  operation: Operation,
  tell: {
    readonly items: (items: readonly T[]) => void;
    /** Undefined: the caller is not asked whether it wants more. */
    readonly waiting?: () => void;
  },
): Promise<boolean> {
  const left = items[Symbol.iterator]();
  let collected: T[] = [];
  let characters = 0;
  let events = 0;
  const flush = (): void => {
    if (collected.length === 0) return;
    tell.items(collected);
    collected = [];
    characters = 0;
    events++;
  };
  /** Goes on for a turn; what it returns is to be waited for, or says that there is no more. */
  const turn = (): { readonly until: Promise<void> } | 'again' | 'over' => {
    const end = performance.now() + TURN_MS;
    while (performance.now() < end) {
      const { done, value } = left.next();
      if (done === true) {
        flush();
        return 'over';
      }
      if (value instanceof Promise) return { until: value };
      if (value === undefined) continue;
      collected.push(value);
      for (const each of Object.values(value)) characters += typeof each === 'string' ? each.length : 0;
      if (collected.length < ITEMS && characters < CHARACTERS) continue;
      flush();
      break;
    }
    return 'again';
  };
  for (;;) {
    // Nothing more is read for one who has not read what there is.
    await session.read();
    if (operation.stopped) return false;
    const next = await session.turn(turn);
    if (operation.stopped || next === undefined) return false;
    if (next === 'over') return true;
    if (next !== 'again') await next.until;
    if (events < EVENTS || tell.waiting === undefined) continue;
    events = 0;
    tell.waiting();
    await new Promise<void>((resolve) => {
      operation.proceed = resolve;
    });
  }
}
