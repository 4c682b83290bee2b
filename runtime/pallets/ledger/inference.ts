/**
 * Inference: sessions with a deposit, whose key signs a voucher for every request, and the leases under which workers
 * serve adapters. No transaction is needed per request; the attribution pallet settles receipts in batches.
 *
 * A deposit is divided among workers: what is allocated to one can be paid to nobody else, and comes back only after the
 * worker had time to settle. So a worker knows before it answers that a voucher is covered: by its own allocation, whatever
 * the session promises to others. Amounts in vouchers and allocations count from the first allocation to the worker on;
 * what comes back counts as spent, so that vouchers signed before are worth nothing afterwards.
 */
import {
  addWeight,
  cost,
  ensure,
  ensureSigned,
  error,
  fail,
  PS_PER_MS,
  scaleWeight,
} from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import { boundedParameters, type ParametersConfig, type ParametersOf } from '../../framework/parameters.ts';
import { blake2_128Concat, map, nMap, storage, twox64Concat, value } from '../../framework/storage.ts';
import { workQueue } from '../../framework/work-queue.ts';
import type { Host } from '../../host.ts';
import { part } from '../../primitives/attribution/canonical.ts';
import { type AdapterId, adapterId, leaseId, type SessionId, sessionId } from '../../primitives/attribution/ids.ts';
import { stateDeposit } from '../../primitives/deposit.ts';
import { type Infer, option, struct, u32, u64, vec } from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, type Balance, balance, sameAccount } from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import * as system from '../standard/system.ts';
import * as compute from './compute.ts';
import * as models from './models.ts';

/** Workers that one session has allocations for: they are removed with it. */
export const MAX_ALLOCATIONS = 128;
/** Adapters of one worker that one session pays for. */
export const MAX_NONCES = 64;
/** Held for a session, and for each of its allocations, while they are in the state. */
export const ENTRY_DEPOSIT: Balance = stateDeposit(1, 900);
const OPEN: Balance = 10n ** 18n;

const DEPOSIT: Reason = { pallet: 23, reason: 0 };

// ---- types ---------------------------------------------------------------------------------------------------

export const session = part(
  'Session',
  struct({
    owner: accountId,
    /** Signs the vouchers and divides the deposit. It needs an account of its own only for the fees of the latter. */
    key: accountId,
    /** On hold and not settled yet; what is allocated to workers is part of it. */
    deposit: balance,
    allocated: balance,
    /** Paid out of it so far. */
    settled: balance,
    /** On hold beside the deposit, for what the session takes of the state. */
    storageDeposit: balance,
    allocations: u32,
    /** Block from which on the rest can be taken back, once asked for; workers settle before it. */
    closing: option(u32),
  }),
);
export type Session = Infer<typeof session>;

const settledNonce = part('SettledNonce', struct({ adapter: adapterId, last: u64 }));
/** What a session keeps for one worker. Amounts count from the first allocation on. */
export const allocation = part(
  'Allocation',
  struct({
    /** All that was allocated; no voucher is covered beyond it. */
    allocated: balance,
    /** What of it was paid to the worker's batches, or came back. */
    spent: balance,
    /** The most that a settled voucher promises: batches may come in any order. */
    promised: balance,
    /** Block in which what is left comes back, once asked for; the worker settles before it. */
    releasing: option(u32),
    /** By adapter, the one that was settled last at the end: voucher nonces up to this one are settled. */
    nonces: vec(settledNonce, MAX_NONCES),
  }),
);
export type Allocation = Infer<typeof allocation>;

export const serving = part('Serving', struct({ lease: leaseId, since: u32, stake: balance }));
export type Serving = Infer<typeof serving>;

const bounds = boundedParameters('openledger_primitives::attribution::InferenceParameters', {
  minDeposit: {
    codec: balance,
    initial: OPEN,
    min: OPEN / 100n,
    max: 1_000_000n * OPEN,
    docs: 'The least deposit of a session, in OPEN’s smallest unit.',
  },
  minAllocation: {
    codec: balance,
    initial: OPEN / 100n,
    min: OPEN / 1_000n,
    max: 1_000_000n * OPEN,
    docs: 'The least that is allocated to a worker at a time.',
  },
  closingBlocks: {
    codec: u32,
    initial: 200,
    min: 20,
    max: 864_000,
    docs: 'Blocks that workers have to settle when a session closes or an allocation is asked back.',
  },
});
export const parameters = bounds.codec;
export type InferenceParameters = ParametersOf<typeof bounds>;
export const DEFAULT_PARAMETERS: InferenceParameters = bounds.initial;

/** The end of a release. */
const RELEASE = cost(60_000_000n, 2, 2);
const releases = workQueue({
  name: 'Releases',
  docs: 'Allocations that come back, by block.',
  item: struct({ session: sessionId, worker: accountId }),
  budget: 10n * PS_PER_MS,
  weight: () => RELEASE,
  run: (env, { session: id, worker }) => endRelease(env, id, worker),
});

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Inference', {
  NextSession: value(sessionId, 0n as SessionId, 'Id of the next session.'),
  Sessions: map(twox64Concat(sessionId), session, 'Open and closing sessions.'),
  Allocations: nMap(
    [twox64Concat(sessionId), blake2_128Concat(accountId)],
    allocation,
    'What sessions keep for workers.',
  ),
  Serving: nMap([twox64Concat(adapterId), blake2_128Concat(accountId)], serving, 'Who serves which adapter.'),
  Parameters: bounds.item,
  ...releases.storage,
});

export const events = {
  Opened: event(0, { session: sessionId, owner: accountId, key: accountId, deposit: balance }, 'A session was opened.'),
  ToppedUp: event(1, { session: sessionId, deposit: balance }, 'The deposit grew.'),
  Closing: event(2, { session: sessionId, until: u32 }, 'The session takes no more requests.'),
  Closed: event(3, { session: sessionId, returned: balance }, 'The session is over; the rest went back.'),
  ServingStarted: event(4, { adapter: adapterId, worker: accountId, lease: leaseId }, 'A worker serves an adapter.'),
  ServingStopped: event(5, { adapter: adapterId, worker: accountId }, 'A worker no longer serves an adapter.'),
  ParametersChanged: bounds.changed(6),
  Allocated: event(
    7,
    { session: sessionId, worker: accountId, allocated: balance },
    'More of the deposit can be paid to that worker alone: so much in all.',
  ),
  Releasing: event(
    8,
    { session: sessionId, worker: accountId, until: u32 },
    'The worker answers no more for the session; what it has not settled by then comes back.',
  ),
  Released: event(
    9,
    { session: sessionId, worker: accountId, returned: balance },
    'What was left of the allocation is free for others.',
  ),
};

export const errors = {
  UnknownSession: error(0, 'There is no such session.'),
  NotOwner: error(1, 'Only the owner of the session may do this.'),
  DepositTooSmall: error(2, 'The deposit is below the least deposit.'),
  IsClosing: error(3, 'The session is closing.'),
  NotClosing: error(4, 'The session was not asked to close, or workers still have time to settle.'),
  AlreadyServing: error(5, 'The worker serves the adapter already.'),
  NotServing: error(6, 'The worker does not serve the adapter.'),
  NotCapable: error(7, 'The worker has not declared that it serves adapters of this base model.'),
  BadParameters: bounds.refused(8),
  AllocationTooSmall: error(9, 'The amount is below the least allocation.'),
  DepositAllocated: error(10, 'The rest of the deposit is smaller, or allocated to workers already.'),
  TooManyAllocations: error(11, 'The session has allocations for as many workers as it may.'),
  IsReleasing: error(12, 'The allocation was asked back: allocate anew when it has come back.'),
  UnknownAllocation: error(13, 'The session has allocated nothing to that worker.'),
  TooManyAdapters: error(14, 'The session has paid the worker for as many adapters as it may.'),
  UnknownWorker: error(15, 'The account is no worker, or is given nothing to do.'),
};

// ---- what other pallets build on -----------------------------------------------------------------------------

export const sessionOf = (host: Host, id: SessionId): Session | undefined => store.Sessions.get(host, id);
export const allocationOf = (host: Host, id: SessionId, worker: AccountId): Allocation | undefined =>
  store.Allocations.get(host, [id, worker]);
export const servingOf = (host: Host, adapter: AdapterId, worker: AccountId): Serving | undefined =>
  store.Serving.get(host, [adapter, worker]);
export const nonceIn = ({ nonces }: Allocation, adapter: AdapterId): bigint | undefined =>
  nonces.find((each) => each.adapter === adapter)?.last;
/** Voucher nonces up to this one are settled. */
export function lastNonce(host: Host, id: SessionId, worker: AccountId, adapter: AdapterId): bigint | undefined {
  const found = allocationOf(host, id, worker);
  return found && nonceIn(found, adapter);
}

/** Why a worker should not answer under a voucher that promises so much in all (`undefined`: it is covered). */
export type CoverFault = 'NOT_ALLOCATED' | 'OVER_ALLOCATION' | 'RELEASING' | 'SESSION_CLOSING';
export function coverFault(
  { closing }: Session,
  found: Allocation | undefined,
  cumulative: Balance,
): CoverFault | undefined {
  if (found === undefined) return 'NOT_ALLOCATED';
  if (cumulative > found.allocated) return 'OVER_ALLOCATION';
  if (closing !== undefined) return 'SESSION_CLOSING';
  return found.releasing === undefined ? undefined : 'RELEASING';
}

const known = (host: Host, id: SessionId): Session => store.Sessions.get(host, id) ?? fail(errors.UnknownSession);

/**
 * Fees of a batch that turned out wrong go back where they came from: on hold for the session while there is one and the
 * owner's account can have a hold, else to the owner's free balance. What an account does not come alive on is left in the
 * pot, and false is returned. Never fails.
 */
export function refund(env: Env, id: SessionId, owner: AccountId, pot: AccountId, fees: Balance): boolean {
  const { host } = env;
  if (balances.freeBalance(host, owner) + fees < balances.EXISTENTIAL_DEPOSIT) return false;
  balances.take(env, pot, fees);
  balances.give(env, owner, fees);
  const found = store.Sessions.get(host, id);
  if (found === undefined) return true;
  const holdable = balances.holdable(host, owner, DEPOSIT);
  const back = fees < holdable ? fees : holdable;
  balances.hold(env, DEPOSIT, owner, back);
  store.Sessions.insert(host, id, { ...found, deposit: found.deposit + back, settled: found.settled - fees });
  return true;
}

/** Of the nonces that were not used for the longest time, so many are looked at when a place is needed. */
const NONCES_LOOKED_AT = 4;

/** The nonces of other adapters, with a place free: one that is neither live nor served any more is never settled again. */
function otherNonces(host: Host, worker: AccountId, { nonces }: Allocation, adapter: AdapterId): Allocation['nonces'] {
  const others = nonces.filter((each) => each.adapter !== adapter);
  if (others.length < MAX_NONCES) return others;
  const idle = others
    .slice(0, NONCES_LOOKED_AT)
    .find((each) => !models.isLive(host, each.adapter) && !store.Serving.has(host, [each.adapter, worker]));
  return idle === undefined ? fail(errors.TooManyAdapters) : others.filter((each) => each !== idle);
}

/** Moves a batch's fees from the allocation to `pot`, and closes its nonces. The caller has checked voucher and nonces. */
export function pay(
  env: Env,
  batch: {
    readonly session: SessionId;
    readonly worker: AccountId;
    readonly adapter: AdapterId;
    readonly lastNonce: bigint;
    readonly fees: Balance;
    /** What its voucher promises in all. */
    readonly cumulative: Balance;
  },
  pot: AccountId,
): void {
  const { host } = env;
  const { session: id, worker, adapter, lastNonce: last, fees, cumulative } = batch;
  const found = known(host, id);
  const reserved = allocationOf(host, id, worker) ?? fail(errors.UnknownAllocation);
  balances.transferHeld(env, DEPOSIT, found.owner, pot, fees);
  const { deposit, allocated, settled } = found;
  store.Sessions.insert(host, id, {
    ...found,
    deposit: deposit - fees,
    allocated: allocated - fees,
    settled: settled + fees,
  });
  store.Allocations.insert(host, [id, worker], {
    ...reserved,
    spent: reserved.spent + fees,
    promised: cumulative > reserved.promised ? cumulative : reserved.promised,
    nonces: [...otherNonces(host, worker, reserved, adapter), { adapter, last }],
  });
}

/** What was not settled in time is free for other workers; vouchers that were signed before are worth nothing from here on. */
function endRelease(env: Env, id: SessionId, worker: AccountId): undefined {
  const { host } = env;
  const [found, reserved] = [sessionOf(host, id), allocationOf(host, id, worker)];
  if (found === undefined || reserved?.releasing === undefined) return;
  if (reserved.releasing > system.blockNumber(host)) return;
  const returned = reserved.allocated - reserved.spent;
  store.Sessions.insert(host, id, { ...found, allocated: found.allocated - returned });
  store.Allocations.insert(host, [id, worker], { ...reserved, spent: reserved.allocated, releasing: undefined });
  env.emit(events.Released, { session: id, worker, returned });
}

// ---- calls ---------------------------------------------------------------------------------------------------

const CLOSE = cost(60_000_000n, 4, 4);
const perAllocation = cost(1_000_000n, 1, 1);

export const calls = {
  openSession: call({
    index: 0,
    args: { key: accountId, deposit: balance },
    weight: cost(60_000_000n, 4, 4),
    docs: 'Put down a deposit that requests are paid from, once it is allocated to workers. `key` signs their vouchers.',
    run({ origin, ...env }, { key, deposit }) {
      const { host } = env;
      const owner = ensureSigned(origin);
      ensure(deposit >= bounds.get(host).minDeposit, errors.DepositTooSmall);
      balances.hold(env, DEPOSIT, owner, deposit + ENTRY_DEPOSIT);
      const id = store.NextSession.get(host);
      store.NextSession.put(host, (id + 1n) as SessionId);
      store.Sessions.insert(host, id, {
        ...{ owner, key, deposit, allocated: 0n, settled: 0n, storageDeposit: ENTRY_DEPOSIT, allocations: 0 },
        closing: undefined,
      });
      env.emit(events.Opened, { session: id, owner, key, deposit });
    },
  }),
  topUp: call({
    index: 1,
    args: { session: sessionId, amount: balance },
    weight: cost(50_000_000n, 3, 3),
    docs: 'Add to the deposit. Owner only.',
    run({ origin, ...env }, { session: id, amount }) {
      const found = owned(env.host, id, ensureSigned(origin));
      ensure(found.closing === undefined, errors.IsClosing);
      balances.hold(env, DEPOSIT, found.owner, amount);
      store.Sessions.insert(env.host, id, { ...found, deposit: found.deposit + amount });
      env.emit(events.ToppedUp, { session: id, deposit: found.deposit + amount });
    },
  }),
  closeSession: call({
    index: 2,
    args: { session: sessionId },
    weight: cost(30_000_000n, 2, 1),
    docs: 'Take no more requests; workers have some blocks to settle. Owner only.',
    run({ origin, host, emit }, { session: id }) {
      const found = owned(host, id, ensureSigned(origin));
      ensure(found.closing === undefined, errors.IsClosing);
      const until = system.blockNumber(host) + bounds.get(host).closingBlocks;
      store.Sessions.insert(host, id, { ...found, closing: until });
      emit(events.Closing, { session: id, until });
    },
  }),
  withdrawDeposit: call({
    index: 3,
    args: { session: sessionId },
    weight: addWeight(CLOSE, scaleWeight(perAllocation, BigInt(MAX_ALLOCATIONS))),
    docs: 'Take back what is left of a closed session’s deposit. Owner only.',
    run({ origin, ...env }, { session: id }) {
      const { host } = env;
      const found = owned(host, id, ensureSigned(origin));
      ensure(found.closing !== undefined && system.blockNumber(host) >= found.closing, errors.NotClosing);
      balances.release(env, DEPOSIT, found.owner, found.deposit + found.storageDeposit);
      store.Sessions.remove(host, id);
      store.Allocations.clear(host, [id], MAX_ALLOCATIONS);
      env.emit(events.Closed, { session: id, returned: found.deposit });
      return { actualWeight: addWeight(CLOSE, scaleWeight(perAllocation, BigInt(found.allocations))) };
    },
  }),
  serve: call({
    index: 4,
    args: { adapter: adapterId },
    weight: cost(60_000_000n, 6, 3),
    docs: 'Serve an adapter from now on. The lease in the event stands in every receipt.',
    run({ origin, host, emit }, { adapter }) {
      const worker = ensureSigned(origin);
      const { capabilities } = compute.ensureActive(host, worker);
      const { baseModel } = models.ensureLive(host, adapter);
      ensure(capabilities.serving && capabilities.baseModels.includes(baseModel), errors.NotCapable);
      ensure(!store.Serving.has(host, [adapter, worker]), errors.AlreadyServing);
      const { servingStake: stake } = compute.parametersOf(host);
      compute.pledge(host, worker, stake);
      const lease = compute.nextLease(host);
      store.Serving.insert(host, [adapter, worker], { lease, since: system.blockNumber(host), stake });
      emit(events.ServingStarted, { adapter, worker, lease });
    },
  }),
  stopServing: call({
    index: 5,
    args: { adapter: adapterId },
    weight: cost(40_000_000n, 2, 2),
    docs: 'Serve an adapter no longer. Settle what was answered first: receipts of an ended lease are refused.',
    run({ origin, host, emit }, { adapter }) {
      const worker = ensureSigned(origin);
      const { stake } = servingOf(host, adapter, worker) ?? fail(errors.NotServing);
      store.Serving.remove(host, [adapter, worker]);
      compute.unpledge(host, worker, stake);
      emit(events.ServingStopped, { adapter, worker });
    },
  }),
  setParameters: bounds.setter(6, events.ParametersChanged, errors.BadParameters),
  allocate: call({
    index: 7,
    args: { session: sessionId, worker: accountId, amount: balance },
    weight: cost(60_000_000n, 4, 2),
    docs: 'Keep more of the deposit for one worker, which answers for no more than that. The first time, `EntryDeposit` of the deposit is set aside until the session ends. The session’s owner or its key.',
    run({ origin, host, emit }, { session: id, worker, amount }) {
      const found = entrusted(host, id, ensureSigned(origin));
      ensure(found.closing === undefined, errors.IsClosing);
      ensure(amount >= bounds.get(host).minAllocation, errors.AllocationTooSmall);
      const before = allocationOf(host, id, worker);
      ensure(before?.releasing === undefined, errors.IsReleasing);
      ensure(compute.isActive(host, worker), errors.UnknownWorker);
      const entry = before === undefined ? ENTRY_DEPOSIT : 0n;
      ensure(found.deposit - found.allocated >= amount + entry, errors.DepositAllocated);
      const allocations = found.allocations + (before === undefined ? 1 : 0);
      ensure(allocations <= MAX_ALLOCATIONS, errors.TooManyAllocations);
      store.Sessions.insert(host, id, {
        ...found,
        deposit: found.deposit - entry,
        storageDeposit: found.storageDeposit + entry,
        allocated: found.allocated + amount,
        allocations,
      });
      const reserved = before ?? { allocated: 0n, spent: 0n, promised: 0n, releasing: undefined, nonces: [] };
      const allocated = reserved.allocated + amount;
      store.Allocations.insert(host, [id, worker], { ...reserved, allocated });
      emit(events.Allocated, { session: id, worker, allocated });
    },
  }),
  release: call({
    index: 8,
    args: { session: sessionId, worker: accountId },
    weight: addWeight(cost(50_000_000n, 6, 5), RELEASE),
    docs: 'Ask an allocation back. The worker answers no more and has some blocks to settle; then the rest is free for others. The session’s owner or its key.',
    run({ origin, host, emit }, { session: id, worker }) {
      const found = entrusted(host, id, ensureSigned(origin));
      ensure(found.closing === undefined, errors.IsClosing);
      const reserved = allocationOf(host, id, worker) ?? fail(errors.UnknownAllocation);
      ensure(reserved.releasing === undefined, errors.IsReleasing);
      const now = system.blockNumber(host);
      const until = now + bounds.get(host).closingBlocks;
      store.Allocations.insert(host, [id, worker], { ...reserved, releasing: until });
      releases.schedule(host, { now, due: until }, { session: id, worker });
      emit(events.Releasing, { session: id, worker, until });
    },
  }),
};

function owned(host: Host, id: SessionId, who: AccountId): Session {
  const found = known(host, id);
  ensure(sameAccount(found.owner, who), errors.NotOwner);
  return found;
}

/** For its owner, and for the key, which could spend what it divides. */
function entrusted(host: Host, id: SessionId, who: AccountId): Session {
  const found = known(host, id);
  ensure(sameAccount(found.owner, who) || sameAccount(found.key, who), errors.NotOwner);
  return found;
}

/** Part of the genesis configuration, for chains that cannot wait so long. */
export type InferenceGenesis = ParametersConfig<InferenceParameters>;

export const inference = pallet({
  name: 'Inference',
  index: 23,
  docs: 'Paid requests: sessions, vouchers, who serves what.',
  storage: store,
  calls,
  events,
  errors,
  constants: {
    ...bounds.constants,
    EntryDeposit: constant(balance, ENTRY_DEPOSIT, 'Held for a session, and for each of its allocations.'),
    MaxAllocations: constant(u32, MAX_ALLOCATIONS, 'Workers that one session has allocations for.'),
    MaxAdaptersPaid: constant(u32, MAX_NONCES, 'Adapters of one worker that one session pays for.'),
  },
  holdReasons: { Deposit: DEPOSIT },
  work: [releases],
  genesis: ({ host }, config: InferenceGenesis) => bounds.begin(host, config),
});
