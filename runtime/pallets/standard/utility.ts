/** Utility: several calls in one, and calls of derived accounts (`pallet_utility`). */
import type { OuterCalls } from '../../framework/assembly.ts';
import {
  actualWeight,
  addWeight,
  BAD_ORIGIN,
  cost,
  type DispatchClass,
  DispatchFailure,
  type DispatchInfo,
  type DispatchOutcome,
  dispatchError,
  dispatchResult,
  ensure,
  ensureRoot,
  ensureSigned,
  error,
  filtered,
  NONE,
  type Origin,
  ROOT,
  resultOf,
  signed,
  ZERO_WEIGHT,
} from '../../framework/dispatch.ts';
import { type CallContext, call, constant, event, pallet } from '../../framework/pallet.ts';
import type { RuntimeCall } from '../../framework/runtime-call.ts';
import type { Hashing } from '../../host.ts';
import { utf8 } from '../../primitives/bytes.ts';
import { encode, fixedBytes, named, tuple, u16, u32, variants, vec } from '../../primitives/scale/codec.ts';
import { MAX_NESTED } from '../../primitives/scale/io.ts';
import { type AccountId, accountId, asAccountId, type Weight, weight } from '../../primitives/types.ts';

/** Calls that one batch may hold: all that an extrinsic may. */
export const BATCHED_CALLS_LIMIT = MAX_NESTED;

export const events = {
  BatchInterrupted: event(
    0,
    { index: u32, error: dispatchError },
    'Batch of dispatches did not complete fully. Index of first failing dispatch given, as well as the error.',
  ),
  BatchCompleted: event(1, 'Batch of dispatches completed fully with no error.'),
  BatchCompletedWithErrors: event(2, 'Batch of dispatches completed but has errors.'),
  ItemCompleted: event(3, 'A single item within a Batch of dispatches has completed with no error.'),
  ItemFailed: event(
    4,
    { error: dispatchError },
    'A single item within a Batch of dispatches has completed with error.',
  ),
  DispatchedAs: event(5, { result: dispatchResult }, 'A call was dispatched.'),
  IfElseMainSuccess: event(6, 'Main call was dispatched.'),
  IfElseFallbackCalled: event(7, { mainError: dispatchError }, 'The fallback call was dispatched.'),
};

export const errors = {
  TooManyCalls: error(0, 'Too many calls batched.'),
};

// ---- derived accounts ----------------------------------------------------------------------------------------

const PREFIX = utf8('modlpy/utilisuba');
const derivation = tuple(fixedBytes(16), accountId, u16);

/** The account number `index` that `who` alone acts for. */
export const derivativeAccount = (host: Hashing, who: AccountId, index: number): AccountId =>
  asAccountId(host.blake2_256(encode(derivation, [PREFIX, who, index])));

// ---- origins as arguments ------------------------------------------------------------------------------------

const rawOrigin = named('frame_support::dispatch::RawOrigin', variants({ Root: null, Signed: accountId, None: null }), {
  params: [{ name: 'AccountId', type: accountId.type }],
});
const originCaller = named('openledger_runtime::OriginCaller', variants({ system: rawOrigin }));

const originOf = ({ value }: { readonly value: { type: string; value?: unknown } }): Origin => {
  switch (value.type) {
    case 'Root':
      return ROOT;
    case 'Signed':
      return signed(value.value as AccountId);
    default:
      return NONE;
  }
};

// ---- batches -------------------------------------------------------------------------------------------------

const BATCH = cost(6_000_000n);
const EACH = cost(4_000_000n);
const batchWeight = (count: number): Weight => ({
  refTime: BATCH.refTime + EACH.refTime * BigInt(count),
  proofSize: BATCH.proofSize,
});

type InfoOf = (call: RuntimeCall) => DispatchInfo;

/** The sum of what is inside; operational only where everything inside is. */
function batchInfo(calls: readonly RuntimeCall[], infoOf: InfoOf): { weight: Weight; class: DispatchClass } {
  const infos = calls.map((each) => infoOf(each));
  const operational = infos.length > 0 && infos.every((info) => info.class === 'Operational');
  return {
    weight: addWeight(
      infos.reduce((sum, info) => addWeight(sum, info.weight), ZERO_WEIGHT),
      batchWeight(calls.length),
    ),
    class: operational ? 'Operational' : 'Normal',
  };
}

const wrapped = (own: Weight) => (inner: RuntimeCall, infoOf: InfoOf) => {
  const info = infoOf(inner);
  return { weight: addWeight(own, info.weight), class: info.class };
};

/** Runs items in turn until `next` says no. Returns what they used. */
function runItems(
  context: CallContext,
  calls: readonly RuntimeCall[],
  origin: Origin,
  next: (outcome: DispatchOutcome, index: number, used: Weight) => boolean,
): Weight {
  ensure(origin.type !== 'None', BAD_ORIGIN);
  ensure(calls.length <= BATCHED_CALLS_LIMIT, errors.TooManyCalls);
  let used = ZERO_WEIGHT;
  let done = 0;
  for (const [index, each] of calls.entries()) {
    const outcome = context.dispatch(each, origin);
    used = addWeight(used, usedBy(context, each, outcome));
    done++;
    if (!next(outcome, index, addWeight(used, batchWeight(done)))) break;
  }
  return addWeight(used, batchWeight(done));
}

/** What was announced is asked for only where a call does not say what it used: nested batches always do. */
const usedBy = (context: CallContext, inner: RuntimeCall, outcome: DispatchOutcome): Weight =>
  outcome.post.actualWeight ?? actualWeight(outcome, context.infoOf(inner));

const isBatchAll = ({ type, value }: RuntimeCall): boolean => type === 'Utility' && value.type === 'batch_all';

const DERIVATIVE = wrapped(cost(5_000_000n));
const OWN_DISPATCH_AS = cost(8_000_000n);
const DISPATCH_AS = wrapped(OWN_DISPATCH_AS);

// ---- the pallet ----------------------------------------------------------------------------------------------

export const utility = ({ codec }: OuterCalls) => {
  const calls = vec(codec);
  return pallet({
    name: 'Utility',
    index: 40,
    docs: 'Batches of calls, and calls of derived accounts.',
    events,
    errors,
    constants: {
      batched_calls_limit: constant(u32, BATCHED_CALLS_LIMIT, 'The limit on the number of batched calls.'),
    },
    calls: {
      batch: call({
        index: 0,
        args: { calls },
        weight: ({ calls }, infoOf) => batchInfo(calls, infoOf),
        docs: 'Send a batch of dispatch calls. The first one that fails ends it; those before it stand.',
        run(context, { calls }) {
          let interrupted = false;
          const used = runItems(context, calls, context.origin, (outcome, index) => {
            if (outcome.ok) context.emit(events.ItemCompleted);
            else context.emit(events.BatchInterrupted, { index, error: outcome.error });
            interrupted = !outcome.ok;
            return outcome.ok;
          });
          if (!interrupted) context.emit(events.BatchCompleted);
          return { actualWeight: used };
        },
      }),
      asDerivative: call({
        index: 1,
        args: { index: u16, call: codec },
        weight: ({ call: inner }, infoOf) => DERIVATIVE(inner, infoOf),
        docs: 'Send a call through an indexed pseudonym of the sender.',
        run(context, { index, call: inner }) {
          const account = derivativeAccount(context.host, ensureSigned(context.origin), index);
          const outcome = context.dispatch(inner, { ...context.origin, type: 'Signed', account });
          const post = { actualWeight: addWeight(cost(5_000_000n), usedBy(context, inner, outcome)) };
          if (!outcome.ok) throw new DispatchFailure(outcome.error, post);
          return post;
        },
      }),
      batchAll: call({
        index: 2,
        args: { calls },
        weight: ({ calls }, infoOf) => batchInfo(calls, infoOf),
        docs: 'Send a batch of dispatch calls and atomically execute them: all of them or none.',
        run(context, { calls }) {
          const origin = filtered(context.origin, (each) => !isBatchAll(each));
          const used = runItems(context, calls, origin, (outcome, _index, soFar) => {
            if (!outcome.ok) throw new DispatchFailure(outcome.error, { actualWeight: soFar });
            context.emit(events.ItemCompleted);
            return true;
          });
          context.emit(events.BatchCompleted);
          return { actualWeight: used };
        },
      }),
      dispatchAs: call({
        index: 3,
        args: { asOrigin: originCaller, call: codec },
        weight: ({ call: inner }, infoOf) => DISPATCH_AS(inner, infoOf),
        docs: 'Dispatches a function call with a provided origin. Root only.',
        run(context, { asOrigin, call: inner }) {
          ensureRoot(context.origin);
          const outcome = context.dispatch(inner, originOf(asOrigin));
          context.emit(events.DispatchedAs, { result: resultOf(outcome) });
          return { actualWeight: addWeight(OWN_DISPATCH_AS, usedBy(context, inner, outcome)) };
        },
      }),
      forceBatch: call({
        index: 4,
        args: { calls },
        weight: ({ calls }, infoOf) => batchInfo(calls, infoOf),
        docs: "Send a batch of dispatch calls. Unlike `batch`, it allows errors and won't interrupt.",
        run(context, { calls }) {
          let failed = false;
          const used = runItems(context, calls, context.origin, (outcome) => {
            if (outcome.ok) context.emit(events.ItemCompleted);
            else context.emit(events.ItemFailed, { error: outcome.error });
            failed ||= !outcome.ok;
            return true;
          });
          if (failed) context.emit(events.BatchCompletedWithErrors);
          else context.emit(events.BatchCompleted);
          return { actualWeight: used };
        },
      }),
      withWeight: call({
        index: 5,
        args: { call: codec, weight },
        weight: ({ call: inner, weight: given }, infoOf) => ({ weight: given, class: infoOf(inner).class }),
        docs: 'Dispatch a function call with a specified weight. Root only.',
        run(context, { call: inner }) {
          ensureRoot(context.origin);
          const outcome = context.dispatch(inner, ROOT);
          if (!outcome.ok) throw new DispatchFailure(outcome.error);
        },
      }),
      ifElse: call({
        index: 6,
        args: { main: codec, fallback: codec },
        weight: ({ main, fallback }, infoOf) => batchInfo([main, fallback], infoOf),
        docs: 'Dispatch a fallback call in the event the main call fails to execute.',
        run(context, { main, fallback }) {
          ensure(context.origin.type !== 'None', BAD_ORIGIN);
          const first = context.dispatch(main, context.origin);
          const afterMain = addWeight(batchWeight(2), usedBy(context, main, first));
          if (first.ok) {
            context.emit(events.IfElseMainSuccess);
            return { actualWeight: afterMain };
          }
          const second = context.dispatch(fallback, context.origin);
          const post = { actualWeight: addWeight(afterMain, usedBy(context, fallback, second)) };
          if (!second.ok) throw new DispatchFailure(second.error, post);
          context.emit(events.IfElseFallbackCalled, { mainError: first.error });
          return post;
        },
      }),
      dispatchAsFallible: call({
        index: 7,
        args: { asOrigin: originCaller, call: codec },
        weight: ({ call: inner }, infoOf) => DISPATCH_AS(inner, infoOf),
        docs: 'As `dispatch_as`, but fails where the call does. Root only.',
        run(context, { asOrigin, call: inner }) {
          ensureRoot(context.origin);
          const outcome = context.dispatch(inner, originOf(asOrigin));
          const post = { actualWeight: addWeight(OWN_DISPATCH_AS, usedBy(context, inner, outcome)) };
          if (!outcome.ok) throw new DispatchFailure(outcome.error, post);
          context.emit(events.DispatchedAs, { result: resultOf(outcome) });
          return post;
        },
      }),
    },
  });
};
