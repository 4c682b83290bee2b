/** The running of calls and hooks over one host: events with their phase, storage transactions, dispatch. */
import type { Assembly } from '../framework/assembly.ts';
import {
  type DispatchError,
  DispatchFailure,
  type DispatchInfo,
  type DispatchOutcome,
  type ErrorDef,
  fail,
  NONE,
  type Origin,
} from '../framework/dispatch.ts';
import type { CallContext, Env, EventDef } from '../framework/env.ts';
import type { RuntimeCall } from '../framework/runtime-call.ts';
import { type Host, isHostFault } from '../host.ts';
import * as system from '../pallets/standard/system.ts';
import { encode } from '../primitives/scale/codec.ts';
import { Sink } from '../primitives/scale/io.ts';
import type { Weight } from '../primitives/types.ts';
import { encodeBare } from './extrinsic.ts';

/** Dispatches within dispatches. Decoders follow fewer levels; this holds for calls that the runtime makes itself. */
const MAX_DISPATCH_DEPTH = 40;

/** What the events of one extrinsic, hook or item of work may come to. What emits more fails with `Exhausted`. */
const MAX_EVENTS = 20_000;
const MAX_EVENT_BYTES = 4 * 1024 * 1024;
/** Picoseconds of an event and of each of its bytes: encoded, kept, written into the state, hashed. */
const EVENT_PS = 1_000_000n;
const EVENT_BYTE_PS = 5_000n;

export class Execution implements Env {
  readonly host: Host;
  readonly #assembly: Assembly;
  readonly #recordsEvents: boolean;
  #phase: Uint8Array | undefined;
  #events: number;
  /** Events since {@link beginEvents}, and their bytes. */
  #emitted = 0;
  #emittedBytes = 0;
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
    const record = sink.finish();
    this.#emitted++;
    this.#emittedBytes += record.length;
    if (this.#emitted > MAX_EVENTS || this.#emittedBytes > MAX_EVENT_BYTES) fail({ type: 'Exhausted' });
    this.host.append(system.eventsKey(this.host), record);
    this.#events++;
  };

  /** From here on events count against the limits anew. */
  beginEvents(): void {
    this.#emitted = 0;
    this.#emittedBytes = 0;
  }

  /** What the events since {@link beginEvents} weigh, those that were rolled back included. */
  eventWeight(): Weight {
    return {
      refTime: EVENT_PS * BigInt(this.#emitted) + EVENT_BYTE_PS * BigInt(this.#emittedBytes),
      proofSize: 0n,
    };
  }

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

  readonly dispatch = (call: RuntimeCall, origin: Origin): DispatchOutcome =>
    // What the author must put in, nobody else may make, root and votes included: the author's own would fail then.
    this.infoOf(call).class === 'Mandatory'
      ? { ok: false, error: this.#assembly.moduleError(system.CALL_FILTERED), post: {} }
      : this.#dispatch(call, origin);

  /** Dispatches a call of the block's author. */
  dispatchInherent(call: RuntimeCall): DispatchOutcome {
    return this.#dispatch(call, NONE);
  }

  #dispatch(call: RuntimeCall, origin: Origin): DispatchOutcome {
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
  }

  readonly failureOf = (problem: unknown): DispatchError => {
    if (isHostFault(problem)) throw problem;
    return problem instanceof DispatchFailure ? this.#resolve(problem.reason) : { type: 'Other' };
  };

  #resolve(reason: DispatchError | ErrorDef): DispatchError {
    return 'type' in reason ? reason : this.#assembly.moduleError(reason);
  }
}
