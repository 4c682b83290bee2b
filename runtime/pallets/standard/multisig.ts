/** Multisig: accounts for which several must agree (`pallet_multisig`). */
import { byCallLength, encodedCall, type OuterCalls } from '../../framework/assembly.ts';
import {
  actingAs,
  addWeight,
  cost,
  DispatchFailure,
  dispatchResult,
  ensure,
  ensureSigned,
  error,
  exceeds,
  fail,
  resultOf,
} from '../../framework/dispatch.ts';
import { type CallContext, call, constant, event, pallet } from '../../framework/pallet.ts';
import type { RuntimeCall } from '../../framework/runtime-call.ts';
import { blake2_128Concat, nMap, storage, twox64Concat } from '../../framework/storage.ts';
import type { Hashing, Host } from '../../host.ts';
import { compareBytes, utf8 } from '../../primitives/bytes.ts';
import {
  type Codec,
  encode,
  fixedBytes,
  type Infer,
  named,
  option,
  struct,
  tuple,
  u16,
  u32,
  vec,
} from '../../primitives/scale/codec.ts';
import {
  type AccountId,
  accountId,
  asAccountId,
  type Balance,
  balance,
  blockNumber,
  sameAccount,
  type Weight,
  weight,
} from '../../primitives/types.ts';
import * as balances from './balances.ts';
import * as system from './system.ts';

const CENT = 10n ** 16n;
/** For a call that waits for approvals: 88 bytes and one more account for each that must agree. */
export const DEPOSIT_BASE: Balance = 20n * CENT;
export const DEPOSIT_FACTOR: Balance = CENT;
export const MAX_SIGNATORIES = 100;

// ---- types, storage ------------------------------------------------------------------------------------------

const callHash = fixedBytes(32);
const timepoint = named('pallet_multisig::Timepoint', struct({ height: blockNumber, index: u32 }), {
  params: [{ name: 'BlockNumber', type: blockNumber.type }],
});
type Timepoint = Infer<typeof timepoint>;

const operation = named(
  'pallet_multisig::Multisig',
  struct({ when: timepoint, deposit: balance, depositor: accountId, approvals: vec(accountId, MAX_SIGNATORIES) }),
  {
    params: [
      { name: 'BlockNumber', type: blockNumber.type },
      { name: 'Balance', type: balance.type },
      { name: 'AccountId', type: accountId.type },
      { name: 'MaxApprovals' },
    ],
  },
);

export const store = storage('Multisig', {
  Multisigs: nMap(
    [twox64Concat(accountId), blake2_128Concat(callHash)],
    operation,
    'The set of open multisig operations.',
  ),
});

export const events = {
  NewMultisig: event(0, { approving: accountId, multisig: accountId, callHash }, 'A new multisig operation has begun.'),
  MultisigApproval: event(
    1,
    { approving: accountId, timepoint, multisig: accountId, callHash },
    'A multisig operation has been approved by someone.',
  ),
  MultisigExecuted: event(
    2,
    { approving: accountId, timepoint, multisig: accountId, callHash, result: dispatchResult },
    'A multisig operation has been executed.',
  ),
  MultisigCancelled: event(
    3,
    { cancelling: accountId, timepoint, multisig: accountId, callHash },
    'A multisig operation has been cancelled.',
  ),
  DepositPoked: event(
    4,
    { who: accountId, callHash, oldDeposit: balance, newDeposit: balance },
    'The deposit for a multisig operation has been updated/poked.',
  ),
};

export const errors = {
  MinimumThreshold: error(0, 'Threshold must be 2 or greater.'),
  AlreadyApproved: error(1, 'Call is already approved by this signatory.'),
  NoApprovalsNeeded: error(2, "Call doesn't need any (more) approvals."),
  TooFewSignatories: error(3, 'There are too few signatories in the list.'),
  TooManySignatories: error(4, 'There are too many signatories in the list.'),
  SignatoriesOutOfOrder: error(5, 'The signatories were provided out of order; they should be ordered.'),
  SenderInSignatories: error(6, "The sender was contained in the other signatories; it shouldn't be."),
  NotFound: error(7, 'Multisig operation not found in storage.'),
  NotOwner: error(8, 'Only the account that originally created the multisig is able to cancel it.'),
  NoTimepoint: error(9, 'No timepoint was given, yet the multisig operation is already underway.'),
  WrongTimepoint: error(10, 'A different timepoint was given to the multisig operation that is underway.'),
  UnexpectedTimepoint: error(11, 'A timepoint was given, yet no multisig operation is underway.'),
  MaxWeightTooLow: error(12, 'The maximum weight information provided was too low.'),
  AlreadyStored: error(13, 'The data to be stored is already stored.'),
};

// ---- accounts and deposits -----------------------------------------------------------------------------------

const PREFIX = utf8('modlpy/utilisuba');
const derivation = tuple(fixedBytes(16), vec(accountId), u16);

/** The account for which `threshold` of the sorted `signatories` must agree. */
export const multisigAccount = (host: Hashing, signatories: readonly AccountId[], threshold: number): AccountId =>
  asAccountId(host.blake2_256(encode(derivation, [PREFIX, [...signatories], threshold])));

export const depositFor = (threshold: number): Balance => DEPOSIT_BASE + DEPOSIT_FACTOR * BigInt(threshold);

/** All signatories in order. */
function withSender(others: readonly AccountId[], who: AccountId): AccountId[] {
  ensure(others.length > 0, errors.TooFewSignatories);
  ensure(others.length < MAX_SIGNATORIES, errors.TooManySignatories);
  let at = 0;
  for (const [i, each] of others.entries()) {
    const last = others[i - 1];
    ensure(last === undefined || compareBytes(last, each) < 0, errors.SignatoriesOutOfOrder);
    const order = compareBytes(each, who);
    ensure(order !== 0, errors.SenderInSignatories);
    if (order < 0) at = i + 1;
  }
  return [...others.slice(0, at), who, ...others.slice(at)];
}

const now = (host: Host): Timepoint => ({ height: system.blockNumber(host), index: system.extrinsicIndex(host) });
const sameTime = (a: Timepoint, b: Timepoint): boolean => a.height === b.height && a.index === b.index;

// ---- approvals -----------------------------------------------------------------------------------------------

const BASE = cost(30_000_000n, 2, 2);
const EACH_SIGNATORY = 200_000n;
const baseWeight = (signatories: number): Weight => ({
  ...BASE,
  refTime: BASE.refTime + EACH_SIGNATORY * BigInt(signatories),
});

interface Approval {
  readonly threshold: number;
  readonly otherSignatories: readonly AccountId[];
  readonly maybeTimepoint: Timepoint | undefined;
  readonly maxWeight: Weight;
  readonly hash: Uint8Array;
  /** Present where the approval may be the last one. */
  readonly call: RuntimeCall | undefined;
}

/** Opens an operation, approves it, or, with the last approval, carries it out. Returns what that took. */
function operate(context: CallContext, approval: Approval): Weight {
  const { host, emit } = context;
  const { threshold, maybeTimepoint, hash } = approval;
  const who = ensureSigned(context.origin);
  ensure(threshold >= 2, errors.MinimumThreshold);
  const signatories = withSender(approval.otherSignatories, who);
  const id = multisigAccount(host, signatories, threshold);
  const own = baseWeight(signatories.length);
  const open = store.Multisigs.get(host, [id, hash]);

  if (open === undefined) {
    ensure(maybeTimepoint === undefined, errors.UnexpectedTimepoint);
    const deposit = depositFor(threshold);
    balances.reserve(context, who, deposit);
    store.Multisigs.insert(host, [id, hash], { when: now(host), deposit, depositor: who, approvals: [who] });
    emit(events.NewMultisig, { approving: who, multisig: id, callHash: hash });
    return own;
  }

  const when = maybeTimepoint ?? fail(errors.NoTimepoint);
  ensure(sameTime(open.when, when), errors.WrongTimepoint);
  const isNew = open.approvals.length < threshold && !open.approvals.some((each) => sameAccount(each, who));
  const approvals = isNew ? [...open.approvals, who].sort(compareBytes) : open.approvals;

  if (approval.call !== undefined && approvals.length >= threshold) {
    const info = context.infoOf(approval.call);
    ensure(!exceeds(info.weight, approval.maxWeight), errors.MaxWeightTooLow);
    // Gone before the call runs, so that the call cannot run it a second time.
    store.Multisigs.remove(host, [id, hash]);
    balances.unreserve(context, open.depositor, open.deposit);
    const outcome = context.dispatch(approval.call, actingAs(context.origin, id));
    const result = resultOf(outcome);
    emit(events.MultisigExecuted, { approving: who, timepoint: when, multisig: id, callHash: hash, result });
    return addWeight(own, outcome.post.actualWeight ?? info.weight);
  }

  ensure(isNew, errors.AlreadyApproved);
  store.Multisigs.insert(host, [id, hash], { ...open, approvals });
  emit(events.MultisigApproval, { approving: who, timepoint: when, multisig: id, callHash: hash });
  return own;
}

// ---- the pallet ----------------------------------------------------------------------------------------------

const hashOf = (host: Hashing, codec: Codec<RuntimeCall>, inner: RuntimeCall): Uint8Array =>
  host.blake2_256(encodedCall(codec, inner));

export const multisig = ({ codec }: OuterCalls) =>
  pallet({
    name: 'Multisig',
    index: 41,
    docs: 'Accounts for which several must agree.',
    storage: store,
    events,
    errors,
    constants: {
      DepositBase: constant(
        balance,
        DEPOSIT_BASE,
        'The base amount of currency needed to reserve for creating a multisig execution or to store a dispatch call for later.',
      ),
      DepositFactor: constant(
        balance,
        DEPOSIT_FACTOR,
        'The amount of currency needed per unit threshold when creating a multisig execution.',
      ),
      MaxSignatories: constant(u32, MAX_SIGNATORIES, 'The maximum amount of signatories allowed in the multisig.'),
    },
    calls: {
      as_multi_threshold_1: call({
        index: 0,
        args: { otherSignatories: vec(accountId, MAX_SIGNATORIES), call: codec },
        weight({ otherSignatories, call: inner }, infoOf) {
          const info = infoOf(inner);
          const own = addWeight(baseWeight(otherSignatories.length), byCallLength(codec, inner));
          return { weight: addWeight(own, info.weight), class: info.class };
        },
        docs: 'Immediately dispatch a multi-signature call using a single approval from the caller.',
        run(context, { otherSignatories, call: inner }) {
          const who = ensureSigned(context.origin);
          const { host } = context;
          const signatories = withSender(otherSignatories, who);
          const id = multisigAccount(host, signatories, 1);
          const outcome = context.dispatch(inner, actingAs(context.origin, id));
          const used = outcome.post.actualWeight ?? context.infoOf(inner).weight;
          const own = addWeight(baseWeight(otherSignatories.length), byCallLength(codec, inner));
          const post = { actualWeight: addWeight(own, used) };
          if (!outcome.ok) throw new DispatchFailure(outcome.error, post);
          context.emit(events.MultisigExecuted, {
            approving: who,
            timepoint: now(host),
            multisig: id,
            callHash: hashOf(host, codec, inner),
            result: resultOf(outcome),
          });
          return post;
        },
      }),
      asMulti: call({
        index: 1,
        args: {
          threshold: u16,
          otherSignatories: vec(accountId, MAX_SIGNATORIES),
          maybeTimepoint: option(timepoint),
          call: codec,
          maxWeight: weight,
        },
        weight: ({ otherSignatories, maxWeight, call: inner }) =>
          addWeight(addWeight(baseWeight(otherSignatories.length + 1), byCallLength(codec, inner)), maxWeight),
        docs: 'Register approval for a dispatch to be made from a deterministic composite account if approved by a total of `threshold - 1` of `other_signatories`. If there are enough, then dispatch the call.',
        run(context, { call: inner, ...args }) {
          const hash = hashOf(context.host, codec, inner);
          const used = operate(context, { ...args, hash, call: inner });
          return { actualWeight: addWeight(used, byCallLength(codec, inner)) };
        },
      }),
      approveAsMulti: call({
        index: 2,
        args: {
          threshold: u16,
          otherSignatories: vec(accountId, MAX_SIGNATORIES),
          maybeTimepoint: option(timepoint),
          callHash,
          maxWeight: weight,
        },
        weight: ({ otherSignatories }) => baseWeight(otherSignatories.length + 1),
        docs: 'Register approval for a dispatch to be made from a deterministic composite account, by the hash of the call.',
        run(context, { callHash: hash, ...args }) {
          return { actualWeight: operate(context, { ...args, hash, call: undefined }) };
        },
      }),
      cancelAsMulti: call({
        index: 3,
        args: { threshold: u16, otherSignatories: vec(accountId, MAX_SIGNATORIES), timepoint, callHash },
        weight: ({ otherSignatories }) => baseWeight(otherSignatories.length + 1),
        docs: 'Cancel a pre-existing, on-going multisig transaction. Any deposit reserved previously for this operation will be unreserved on success.',
        run(context, { threshold, otherSignatories, timepoint: when, callHash: hash }) {
          const { host, emit } = context;
          const who = ensureSigned(context.origin);
          ensure(threshold >= 2, errors.MinimumThreshold);
          const id = multisigAccount(host, withSender(otherSignatories, who), threshold);
          const open = store.Multisigs.get(host, [id, hash]) ?? fail(errors.NotFound);
          ensure(sameTime(open.when, when), errors.WrongTimepoint);
          ensure(sameAccount(open.depositor, who), errors.NotOwner);
          balances.unreserve(context, open.depositor, open.deposit);
          store.Multisigs.remove(host, [id, hash]);
          emit(events.MultisigCancelled, { cancelling: who, timepoint: when, multisig: id, callHash: hash });
        },
      }),
      pokeDeposit: call({
        index: 4,
        args: { threshold: u16, otherSignatories: vec(accountId, MAX_SIGNATORIES), callHash },
        weight: ({ otherSignatories }) => baseWeight(otherSignatories.length + 1),
        docs: 'Poke the deposit reserved for an existing multisig operation: brings it to what the runtime asks for today. Free if that changes anything.',
        run(context, { threshold, otherSignatories, callHash: hash }) {
          const { host, emit } = context;
          const who = ensureSigned(context.origin);
          ensure(threshold >= 2, errors.MinimumThreshold);
          const id = multisigAccount(host, withSender(otherSignatories, who), threshold);
          const open = store.Multisigs.get(host, [id, hash]) ?? fail(errors.NotFound);
          ensure(sameAccount(open.depositor, who), errors.NotOwner);
          const deposit = depositFor(threshold);
          if (deposit === open.deposit) return undefined;
          if (deposit > open.deposit) balances.reserve(context, who, deposit - open.deposit);
          else balances.unreserve(context, who, open.deposit - deposit);
          store.Multisigs.insert(host, [id, hash], { ...open, deposit });
          emit(events.DepositPoked, { who, callHash: hash, oldDeposit: open.deposit, newDeposit: deposit });
          return { paysFee: false };
        },
      }),
    },
  });
