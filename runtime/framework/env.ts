/** What calls, hooks and work reach while a block runs. */
import type { Host } from '../host.ts';
import type { Codec } from '../primitives/scale/codec.ts';
import type { DispatchError, DispatchInfo, DispatchOutcome, Origin } from './dispatch.ts';
import type { RuntimeCall } from './runtime-call.ts';

export interface EventDef<T> {
  readonly index: number;
  readonly codec: Codec<T> | null;
  readonly docs: string;
}

/** The running of one block, as hooks and functions shared between pallets see it. */
export interface Env {
  readonly host: Host;
  emit<T>(event: EventDef<T>, ...fields: T extends undefined ? [] : [fields: T]): void;
  /** Runs `body` in a storage transaction of its own: whatever it throws rolls it back and is rethrown. */
  transactional<T>(body: () => T): T;
  /** Dispatches a decoded call in a storage transaction of its own. */
  dispatch(call: RuntimeCall, origin: Origin): DispatchOutcome;
  infoOf(call: RuntimeCall): DispatchInfo;
  /** What a caught problem is called on the chain: `Other` unless it is a `DispatchFailure`. Rethrows faults of the host. */
  failureOf(problem: unknown): DispatchError;
  /** Hands an unsigned transaction to the pool of this node. False where there is none, as while a block is executed. */
  submitUnsigned(call: RuntimeCall): boolean;
}

export interface CallContext extends Env {
  readonly origin: Origin;
}
