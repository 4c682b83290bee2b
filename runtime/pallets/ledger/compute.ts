/**
 * Compute: workers with a bond, and the leases under which they train. A task is leased to one worker at a time; the lease
 * has an id that is never used again and a nonce that the result must carry, so a late or replayed result is refused. A
 * lease that runs out is taken away by itself, and the task is open again.
 */
import { cost, DispatchFailure, ensure, ensureRoot, ensureSigned, error, fail } from '../../framework/dispatch.ts';
import { call, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import { blake2_128Concat, map, mapWithDefault, storage, twox64Concat, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { part } from '../../primitives/attribution/canonical.ts';
import {
  type BaseModelId,
  baseModelId,
  type LeaseId,
  leaseId,
  type OrderId,
  orderId,
} from '../../primitives/attribution/ids.ts';
import { concatBytes, utf8 } from '../../primitives/bytes.ts';
import { TREASURY } from '../../primitives/pallet-id.ts';
import { bool, encode, type Infer, option, struct, text, u32, variants, vec } from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, asHash, type Balance, balance, hash, sameAccount } from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import * as system from '../standard/system.ts';

/** Leases that may run out in one block; a taker gets a later block when one is full. */
const MAX_EXPIRIES = 64;
const MAX_AUDITORS = 4_096;
/** How far a busy block's expiries may be put off. */
const SCHEDULE_AHEAD = 64;

const BOND: Reason = { pallet: 22, reason: 0 };

// ---- types ---------------------------------------------------------------------------------------------------

export const capabilities = part(
  'Capabilities',
  struct({
    training: bool,
    serving: bool,
    auditing: bool,
    /** For people: `embedded`, `torch cuda`, … */
    engine: text(64),
    memoryMiB: u32,
    baseModels: vec(baseModelId, 32),
  }),
);
export type Capabilities = Infer<typeof capabilities>;

export const worker = part(
  'Worker',
  struct({
    bond: balance,
    capabilities,
    since: u32,
    /** Leases and unsettled work that the bond stands for. */
    obligations: u32,
    /** Block from which on the bond can be withdrawn, once asked for. */
    leaving: option(u32),
    slashed: balance,
  }),
);
export type Worker = Infer<typeof worker>;

export const lease = part('Lease', struct({ id: leaseId, worker: accountId, nonce: hash, since: u32, expires: u32 }));
export type Lease = Infer<typeof lease>;
const taskStatus = part(
  'TaskStatus',
  variants({ Open: null, Leased: lease, Submitted: null, Final: null, Cancelled: null }),
);
export const task = part('Task', struct({ baseModel: baseModelId, status: taskStatus, attempts: u32 }));
export type Task = Infer<typeof task>;

export const parameters = part(
  'ComputeParameters',
  struct({
    minBond: balance,
    /** Blocks that a lease lasts unless it is renewed, and in all. */
    leaseBlocks: u32,
    maxLeaseBlocks: u32,
    /** Blocks from asking for the bond to having it. */
    unbondingBlocks: u32,
    /** Taken from a worker whose lease runs out. */
    expirySlash: balance,
  }),
);
export type ComputeParameters = Infer<typeof parameters>;
export const DEFAULT_PARAMETERS: ComputeParameters = {
  minBond: 1_000n * 10n ** 18n,
  leaseBlocks: 40,
  maxLeaseBlocks: 28_800,
  unbondingBlocks: 28_800,
  expirySlash: 10n ** 18n,
};

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Compute', {
  Workers: map(blake2_128Concat(accountId), worker, 'Registered workers.'),
  Auditors: value(vec(accountId, MAX_AUDITORS), [], 'Workers that audits are drawn from.'),
  Tasks: map(twox64Concat(orderId), task, 'The training task of each order.'),
  NextLease: value(leaseId, 0n as LeaseId, 'Id of the next lease, of training and of serving.'),
  Expiries: mapWithDefault(twox64Concat(u32), vec(orderId, MAX_EXPIRIES), [], 'Leases to look at, by block.'),
  Parameters: value(parameters, DEFAULT_PARAMETERS, 'What governance can change.'),
});

export const events = {
  Registered: event(0, { worker: accountId, bond: balance, capabilities }, 'A worker offers its services.'),
  Updated: event(1, { worker: accountId, capabilities }, 'A worker offers other services.'),
  Bonded: event(2, { worker: accountId, bond: balance }, 'A worker’s bond grew.'),
  Leaving: event(
    3,
    { worker: accountId, until: u32 },
    'The worker takes no more work; its bond is free at that block.',
  ),
  Withdrawn: event(4, { worker: accountId, bond: balance }, 'The worker is gone.'),
  Slashed: event(5, { worker: accountId, amount: balance }, 'Part of a worker’s bond is lost.'),
  TaskOpened: event(6, { order: orderId }, 'A task waits for a worker.'),
  Leased: event(7, { order: orderId, lease }, 'A worker has the task.'),
  Renewed: event(8, { order: orderId, lease: leaseId, expires: u32 }, 'The worker is still at it.'),
  LeaseEnded: event(9, { order: orderId, lease: leaseId, expired: bool }, 'The task is open again.'),
  ParametersChanged: event(10, { parameters }, 'Governance changed the parameters.'),
};

export const errors = {
  AlreadyRegistered: error(0, 'The account is a worker already.'),
  NotRegistered: error(1, 'The account is no worker.'),
  BondTooSmall: error(2, 'The bond is below the least bond.'),
  IsLeaving: error(3, 'The worker has asked for its bond and takes no more work.'),
  NotLeaving: error(4, 'The worker has not asked for its bond, or not long enough ago.'),
  HasObligations: error(5, 'There is a lease or unsettled work that the bond stands for.'),
  UnknownTask: error(6, 'There is no such task.'),
  NotOpen: error(7, 'The task is leased, done or cancelled.'),
  NotCapable: error(8, 'The worker has not declared that it trains on this base model.'),
  NotLeased: error(9, 'The worker has no lease of this task.'),
  LeaseTooLong: error(10, 'The lease has lasted as long as a lease may.'),
  TooManyLeases: error(11, 'Too many leases run out at the same time: try again in the next block.'),
  TooManyAuditors: error(12, 'No more auditors can be taken in.'),
  BadParameters: error(13, 'A lease lasts at least one block and not longer than it may.'),
};

// ---- what other pallets build on -----------------------------------------------------------------------------

export const parametersOf = (host: Host): ComputeParameters => store.Parameters.get(host);
export const workerOf = (host: Host, who: AccountId): Worker | undefined => store.Workers.get(host, who);
export const taskOf = (host: Host, order: OrderId): Task | undefined => store.Tasks.get(host, order);
export const auditors = (host: Host): readonly AccountId[] => store.Auditors.get(host);

const known = (host: Host, who: AccountId): Worker => store.Workers.get(host, who) ?? fail(errors.NotRegistered);
const knownTask = (host: Host, order: OrderId): Task => store.Tasks.get(host, order) ?? fail(errors.UnknownTask);

/** A registered worker that is not on its way out and has the least bond. */
export function ensureActive(host: Host, who: AccountId): Worker {
  const found = known(host, who);
  ensure(found.leaving === undefined, errors.IsLeaving);
  ensure(found.bond >= parametersOf(host).minBond, errors.BondTooSmall);
  return found;
}

export function nextLease(host: Host): LeaseId {
  const id = store.NextLease.get(host);
  store.NextLease.put(host, (id + 1n) as LeaseId);
  return id;
}

/** The bond stands for one thing more (`+1`) or less (`−1`). */
export function oblige(host: Host, who: AccountId, change: 1 | -1): void {
  store.Workers.mutate(
    host,
    who,
    (found) => found && { ...found, obligations: Math.max(0, found.obligations + change) },
  );
}

/** Takes up to `amount` of the bond: to `finder` the part `reward`, the rest to the treasury. Returns what was taken. */
export function slash(env: Env, who: AccountId, amount: Balance, finder?: AccountId, reward: Balance = 0n): Balance {
  const { host } = env;
  const found = store.Workers.get(host, who);
  if (found === undefined) return 0n;
  const taken = amount < found.bond ? amount : found.bond;
  const toFinder = finder === undefined ? 0n : reward < taken ? reward : taken;
  if (finder !== undefined) balances.transferHeld(env, BOND, who, finder, toFinder);
  // Too little for the treasury to come alive on is burnt.
  if (balances.freeBalance(host, TREASURY) + taken - toFinder >= balances.EXISTENTIAL_DEPOSIT) {
    balances.transferHeld(env, BOND, who, TREASURY, taken - toFinder);
  } else balances.burnHeld(env, BOND, who, taken - toFinder);
  store.Workers.insert(host, who, { ...found, bond: found.bond - taken, slashed: found.slashed + taken });
  env.emit(events.Slashed, { worker: who, amount: taken });
  return taken;
}

export function openTask(env: Env, order: OrderId, baseModel: BaseModelId): void {
  store.Tasks.insert(env.host, order, { baseModel, status: { type: 'Open' }, attempts: 0 });
  env.emit(events.TaskOpened, { order });
}

/** Work that turned out bad is done again by somebody. */
export function reopenTask(env: Env, order: OrderId): void {
  const found = knownTask(env.host, order);
  store.Tasks.insert(env.host, order, { ...found, status: { type: 'Open' } });
  env.emit(events.TaskOpened, { order });
}

/** Only a task that nobody works on can be cancelled. */
export function cancelTask(env: Env, order: OrderId): void {
  const found = knownTask(env.host, order);
  ensure(found.status.type === 'Open', errors.NotOpen);
  store.Tasks.insert(env.host, order, { ...found, status: { type: 'Cancelled' } });
}

/** The worker's running lease of the task. */
export function leaseOf(host: Host, order: OrderId, who: AccountId): Lease {
  const { status } = knownTask(host, order);
  ensure(status.type === 'Leased' && sameAccount(status.value.worker, who), errors.NotLeased);
  return status.value;
}

/** The result is in: the lease is over, the obligation stays until the audit window closes. */
export function submitTask(host: Host, order: OrderId): void {
  store.Tasks.insert(host, order, { ...knownTask(host, order), status: { type: 'Submitted' } });
}
export function finishTask(host: Host, order: OrderId): void {
  store.Tasks.insert(host, order, { ...knownTask(host, order), status: { type: 'Final' } });
}

/** Has the lease looked at in that block, or in the next one where there is room. */
function schedule(host: Host, order: OrderId, wanted: number): number {
  for (let block = wanted; block < wanted + SCHEDULE_AHEAD; block++) {
    const due = store.Expiries.get(host, block);
    if (due.includes(order)) return block;
    if (due.length >= MAX_EXPIRIES) continue;
    store.Expiries.insert(host, block, [...due, order]);
    return block;
  }
  return fail(errors.TooManyLeases);
}

function endLease(env: Env, order: OrderId, found: Task, ended: Lease, expired: boolean): void {
  store.Tasks.insert(env.host, order, { ...found, status: { type: 'Open' } });
  oblige(env.host, ended.worker, -1);
  env.emit(events.LeaseEnded, { order, lease: ended.id, expired });
}

function setAuditing(host: Host, who: AccountId, auditing: boolean): void {
  const listed = store.Auditors.get(host);
  const others = listed.filter((each) => !sameAccount(each, who));
  if (auditing) ensure(others.length < MAX_AUDITORS, errors.TooManyAuditors);
  if (auditing || others.length < listed.length) store.Auditors.put(host, auditing ? [...others, who] : others);
}

// ---- calls ---------------------------------------------------------------------------------------------------

export const calls = {
  register: call({
    index: 0,
    args: { bond: balance, capabilities },
    weight: cost(60_000_000n, 4, 4),
    docs: 'Become a worker: put a bond on hold and say what you offer.',
    run({ origin, ...env }, { bond, capabilities: offered }) {
      const { host } = env;
      const who = ensureSigned(origin);
      ensure(!store.Workers.has(host, who), errors.AlreadyRegistered);
      ensure(bond >= parametersOf(host).minBond, errors.BondTooSmall);
      balances.hold(env, BOND, who, bond);
      const since = system.blockNumber(host);
      store.Workers.insert(host, who, {
        bond,
        capabilities: offered,
        since,
        obligations: 0,
        leaving: undefined,
        slashed: 0n,
      });
      setAuditing(host, who, offered.auditing);
      env.emit(events.Registered, { worker: who, bond, capabilities: offered });
    },
  }),
  update: call({
    index: 1,
    args: { capabilities },
    weight: cost(40_000_000n, 2, 2),
    docs: 'Say what you offer from now on.',
    run({ origin, host, emit }, { capabilities: offered }) {
      const who = ensureSigned(origin);
      const found = ensureActive(host, who);
      store.Workers.insert(host, who, { ...found, capabilities: offered });
      setAuditing(host, who, offered.auditing);
      emit(events.Updated, { worker: who, capabilities: offered });
    },
  }),
  bondMore: call({
    index: 2,
    args: { amount: balance },
    weight: cost(50_000_000n, 3, 3),
    docs: 'Add to the bond.',
    run({ origin, ...env }, { amount }) {
      const who = ensureSigned(origin);
      const found = known(env.host, who);
      balances.hold(env, BOND, who, amount);
      store.Workers.insert(env.host, who, { ...found, bond: found.bond + amount });
      env.emit(events.Bonded, { worker: who, bond: found.bond + amount });
    },
  }),
  leave: call({
    index: 3,
    args: {},
    weight: cost(40_000_000n, 3, 2),
    docs: 'Take no more work and ask for the bond.',
    run({ origin, host, emit }) {
      const who = ensureSigned(origin);
      const found = known(host, who);
      ensure(found.leaving === undefined, errors.IsLeaving);
      const until = system.blockNumber(host) + parametersOf(host).unbondingBlocks;
      store.Workers.insert(host, who, { ...found, leaving: until });
      setAuditing(host, who, false);
      emit(events.Leaving, { worker: who, until });
    },
  }),
  withdraw: call({
    index: 4,
    args: {},
    weight: cost(50_000_000n, 4, 3),
    docs: 'Take the bond back when the time is up and nothing is left that it stands for.',
    run({ origin, ...env }) {
      const { host } = env;
      const who = ensureSigned(origin);
      const found = known(host, who);
      ensure(found.leaving !== undefined && system.blockNumber(host) >= found.leaving, errors.NotLeaving);
      ensure(found.obligations === 0, errors.HasObligations);
      balances.release(env, BOND, who, found.bond);
      store.Workers.remove(host, who);
      env.emit(events.Withdrawn, { worker: who, bond: found.bond });
    },
  }),
  takeLease: call({
    index: 5,
    args: { order: orderId },
    weight: cost(60_000_000n, 6, 4),
    docs: 'Take an open task. The nonce in the event must stand in the result.',
    run({ origin, host, emit }, { order }) {
      const who = ensureSigned(origin);
      const { capabilities: offered } = ensureActive(host, who);
      const found = knownTask(host, order);
      ensure(found.status.type === 'Open', errors.NotOpen);
      ensure(offered.training && offered.baseModels.includes(found.baseModel), errors.NotCapable);
      const since = system.blockNumber(host);
      const id = nextLease(host);
      const expires = schedule(host, order, since + parametersOf(host).leaseBlocks);
      const seed = concatBytes(utf8('lease'), system.parentHash(host), encode(leaseId, id), who);
      const given = { id, worker: who, nonce: asHash(host.blake2_256(seed)), since, expires };
      store.Tasks.insert(host, order, {
        ...found,
        attempts: found.attempts + 1,
        status: { type: 'Leased', value: given },
      });
      oblige(host, who, 1);
      emit(events.Leased, { order, lease: given });
    },
  }),
  renewLease: call({
    index: 6,
    args: { order: orderId },
    weight: cost(40_000_000n, 3, 2),
    docs: 'Say that the work goes on, so that the lease does not run out.',
    run({ origin, host, emit }, { order }) {
      const running = leaseOf(host, order, ensureSigned(origin));
      const { leaseBlocks, maxLeaseBlocks } = parametersOf(host);
      const latest = running.since + maxLeaseBlocks;
      ensure(running.expires < latest, errors.LeaseTooLong);
      const wanted = Math.min(system.blockNumber(host) + leaseBlocks, latest);
      // The block that it was to end in puts a lease that lasts longer off to its new end.
      const expires = Math.max(running.expires, wanted);
      const found = knownTask(host, order);
      store.Tasks.insert(host, order, { ...found, status: { type: 'Leased', value: { ...running, expires } } });
      emit(events.Renewed, { order, lease: running.id, expires });
    },
  }),
  giveUpLease: call({
    index: 7,
    args: { order: orderId },
    weight: cost(40_000_000n, 3, 2),
    docs: 'Hand a task back, so that another worker can take it at once.',
    run({ origin, ...env }, { order }) {
      const running = leaseOf(env.host, order, ensureSigned(origin));
      endLease(env, order, knownTask(env.host, order), running, false);
    },
  }),
  setParameters: call({
    index: 8,
    args: { parameters },
    weight: cost(10_000_000n, 0, 1),
    docs: 'Change the parameters. Root only.',
    run({ origin, host, emit }, { parameters: next }) {
      ensureRoot(origin);
      ensure(next.leaseBlocks >= 1 && next.leaseBlocks <= next.maxLeaseBlocks, errors.BadParameters);
      store.Parameters.put(host, next);
      emit(events.ParametersChanged, { parameters: next });
    },
  }),
};

/** Where not even the later blocks have room, the lease lasts until its worker or its result ends it. */
function reschedule(host: Host, order: OrderId, wanted: number): void {
  try {
    schedule(host, order, wanted);
  } catch (problem) {
    if (!(problem instanceof DispatchFailure)) throw problem;
  }
}

/** Leases whose time is up, and those that were renewed since: these are looked at again when they end. */
function expire(env: Env, now: number): number {
  const { host } = env;
  const due = store.Expiries.get(host, now);
  for (const order of due) {
    const found = store.Tasks.get(host, order);
    if (found?.status.type !== 'Leased') continue;
    const running = found.status.value;
    if (running.expires > now) {
      reschedule(host, order, running.expires);
      continue;
    }
    slash(env, running.worker, parametersOf(host).expirySlash);
    endLease(env, order, found, running, true);
  }
  if (due.length > 0) store.Expiries.remove(host, now);
  return due.length;
}

export const compute = pallet({
  name: 'Compute',
  index: 22,
  docs: 'Workers, their bonds, and the leases that they work under.',
  storage: store,
  calls,
  events,
  errors,
  holdReasons: { Bond: BOND },
  hooks: {
    onInitialize(env, now) {
      const looked = expire(env, now);
      return cost(5_000_000n + 60_000_000n * BigInt(looked), 1 + 5 * looked, looked > 0 ? 1 + 4 * looked : 0);
    },
  },
});
