/** The running of calls and hooks over one host: events with their phase, storage transactions, dispatch. */
import type { Assembly } from '../framework/assembly.ts';
import {
  type DispatchError,
  DispatchFailure,
  type DispatchInfo,
  type DispatchOutcome,
  type ErrorDef,
  type Origin,
} from '../framework/dispatch.ts';
import type { CallContext, Env, EventDef } from '../framework/env.ts';
import type { RuntimeCall } from '../framework/runtime-call.ts';
import { type Host, isHostFault } from '../host.ts';
import * as system from '../pallets/standard/system.ts';
import { encode } from '../primitives/scale/codec.ts';
import { Sink } from '../primitives/scale/io.ts';
import { encodeBare } from './extrinsic.ts';

/** Storage transactions that dispatches may nest (`frame_support::storage::transactional`). */
const MAX_DISPATCH_DEPTH = 255;

export class Execution implements Env {
  readonly host: Host;
  readonly #assembly: Assembly;
  readonly #recordsEvents: boolean;
  #phase: Uint8Array | undefined;
  #events: number;
  #depth = 0;

  /** Without `recordsEvents`, as at genesis and in queries, events vanish. */
  constructor(assembly: Assembly, host: Host, recordsEvents = true) {
    this.#assembly = assembly;
    this.host = host;
    this.#recordsEvents = recordsEvents;
    this.#events = recordsEvents ? system.eventCount(host) : 0;
  }

  readonly emit = <T>(event: EventDef<T>, ...fields: T extends undefined ? [] : [fields: T]): void => {
    if (!this.#recordsEvents) return;
    const { pallet, index } = this.#assembly.outerEvent(event as EventDef<unknown>);
    const sink = new Sink(96);
    sink.bytes(this.#currentPhase());
    sink.u8(pallet);
    sink.u8(index);
    event.codec?.encodeTo(sink, fields[0] as T);
    sink.compact(0);
    this.host.append(system.eventsKey(this.host), sink.finish());
    this.#events++;
  };

  #currentPhase(): Uint8Array {
    this.#phase ??= encode(system.phase, system.executionPhase(this.host) ?? { type: 'Initialization' });
    return this.#phase;
  }

  /** Writes the events' count down, since the phase ends here or the runtime is about to be left. */
  flush(): void {
    this.#phase = undefined;
    if (this.#recordsEvents) system.putEventCount(this.host, this.#events);
  }

  readonly transactional = <T>(body: () => T): T => {
    const events = this.#events;
    this.host.beginTransaction();
    try {
      const value = body();
      this.host.commitTransaction();
      return value;
    } catch (failure) {
      this.host.rollbackTransaction();
      this.#events = events;
      throw failure;
    }
  };

  readonly infoOf = (call: RuntimeCall): DispatchInfo => this.#assembly.infoOf(call);

  readonly submitUnsigned = (call: RuntimeCall): boolean =>
    this.host.submitTransaction(encodeBare(this.#assembly.call, call));

  readonly dispatch = (call: RuntimeCall, origin: Origin): DispatchOutcome => {
    if (origin.type === 'Signed' && origin.filter?.(call) === false) {
      return { ok: false, error: this.#assembly.moduleError(system.CALL_FILTERED), post: {} };
    }
    if (this.#depth >= MAX_DISPATCH_DEPTH) {
      return { ok: false, error: { type: 'Transactional', value: { type: 'LimitReached' } }, post: {} };
    }
    const def = this.#assembly.callDef(call);
    const { host, emit, transactional, dispatch, infoOf, failureOf, submitUnsigned } = this;
    const context: CallContext = { host, emit, transactional, dispatch, infoOf, failureOf, submitUnsigned, origin };
    this.#depth++;
    try {
      return { ok: true, post: transactional(() => def.run(context, call.value.value ?? {})) ?? {} };
    } catch (failure) {
      if (!(failure instanceof DispatchFailure)) throw failure;
      return { ok: false, error: this.#resolve(failure.reason), post: failure.post };
    } finally {
      this.#depth--;
    }
  };

  readonly failureOf = (problem: unknown): DispatchError => {
    if (isHostFault(problem)) throw problem;
    return problem instanceof DispatchFailure ? this.#resolve(problem.reason) : { type: 'Other' };
  };

  #resolve(reason: DispatchError | ErrorDef): DispatchError {
    return 'type' in reason ? reason : this.#assembly.moduleError(reason);
  }
}
