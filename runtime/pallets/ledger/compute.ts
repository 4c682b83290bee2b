/**
 * Compute: workers with a bond, and the leases under which they train. A task is leased to one worker at a time; the lease
 * has an id that is never used again and a nonce that the result must carry, so a late or replayed result is refused. A
 * lease that runs out is taken away by itself, and the task is open again.
 *
 * The bond stands for everything that a worker has open at once: each lease, each adapter that it serves and each batch in
 * its window puts a part of it at stake ({@link pledge}), and no part stands for two things. A worker whose bond is below
 * the least one, or below what it stands for, is given nothing to do until the bond is topped up.
 */
import { addWeight, cost, ensure, ensureSigned, error, fail, PS_PER_MS } from '../../framework/dispatch.ts';
import { call, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import { boundedParameters, type ParametersConfig, type ParametersOf } from '../../framework/parameters.ts';
import { blake2_128Concat, map, storage, twox64Concat, value } from '../../framework/storage.ts';
import { workQueue } from '../../framework/work-queue.ts';
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
import {
  type AccountId,
  accountId,
  asHash,
  type Balance,
  balance,
  hash,
  PERBILL,
  perbill,
  sameAccount,
} from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import * as system from '../standard/system.ts';

const MAX_AUDITORS = 4_096;
/** Workers that had a task and brought no result, each at its own cost: the newest ones are not given it again. */
const MAX_RETURNED = 32;
const OPEN: Balance = 10n ** 18n;

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
    /** Leases, audits, adapters served and unsettled work that the bond stands for. */
    obligations: u32,
    /** The part of the bond that they put at stake together. More than the bond where it was slashed since. */
    atStake: balance,
    /** Block from which on the bond can be withdrawn, once asked for. */
    leaving: option(u32),
    slashed: balance,
  }),
);
export type Worker = Infer<typeof worker>;

export const lease = part(
  'Lease',
  struct({
    id: leaseId,
    worker: accountId,
    nonce: hash,
    since: u32,
    expires: u32,
    /** The part of the worker's bond that stands for it. */
    stake: balance,
  }),
);
export type Lease = Infer<typeof lease>;
const taskStatus = part(
  'TaskStatus',
  variants({
    Open: null,
    Leased: lease,
    /** The result of that lease is in its window. */
    Submitted: lease,
    /** The owner asked for the order back while it was leased; the lease ended without a result. */
    Cancelled: null,
  }),
);
export const task = part(
  'Task',
  struct({
    baseModel: baseModelId,
    /** What the order pays its worker. */
    budget: balance,
    status: taskStatus,
    attempts: u32,
    /** The owner has asked for the order back: nobody gets another lease of it. */
    cancelling: bool,
    /** Workers that had it and brought no result that held. */
    returned: vec(accountId, MAX_RETURNED),
  }),
);
export type Task = Infer<typeof task>;

const bounds = boundedParameters(
  'openledger_primitives::attribution::ComputeParameters',
  {
    minBond: {
      codec: balance,
      initial: 1_000n * OPEN,
      min: OPEN,
      max: 10_000_000n * OPEN,
      docs: 'The least bond of a worker, in OPEN’s smallest unit.',
    },
    leaseBlocks: {
      codec: u32,
      initial: 40,
      min: 2,
      max: 28_800,
      docs: 'Blocks that a lease lasts unless it is renewed.',
    },
    maxLeaseBlocks: { codec: u32, initial: 28_800, min: 2, max: 864_000, docs: 'Blocks that a lease lasts in all.' },
    unbondingBlocks: {
      codec: u32,
      initial: 28_800,
      min: 1,
      max: 1_728_000,
      docs: 'Blocks from asking for the bond to having it.',
    },
    expirySlash: {
      codec: balance,
      initial: OPEN,
      min: OPEN / 1_000n,
      max: 1_000_000n * OPEN,
      docs: 'Taken from a worker whose lease runs out, beside what holding it costs.',
    },
    returnSlash: {
      codec: balance,
      initial: OPEN / 10n,
      min: OPEN / 1_000n,
      max: 1_000_000n * OPEN,
      docs: 'Taken from a worker that hands a task back, beside what holding it costs.',
    },
    holdCost: {
      codec: perbill,
      initial: 500_000,
      min: 1_000,
      max: PERBILL,
      docs: 'Part of a lease’s stake that each full `leaseBlocks` of holding it without a result costs.',
    },
    leaseStake: {
      codec: balance,
      initial: 250n * OPEN,
      min: OPEN,
      max: 10_000_000n * OPEN,
      docs: 'Part of the bond that each lease puts at stake, beside its order’s budget.',
    },
    servingStake: {
      codec: balance,
      initial: OPEN,
      min: OPEN / 1_000n,
      max: 10_000n * OPEN,
      docs: 'Part of the bond that each adapter a worker serves puts at stake.',
    },
  },
  { 'a lease lasts no longer than it may in all': ({ leaseBlocks, maxLeaseBlocks }) => leaseBlocks <= maxLeaseBlocks },
);
export const parameters = bounds.codec;
export type ComputeParameters = ParametersOf<typeof bounds>;
export const DEFAULT_PARAMETERS: ComputeParameters = bounds.initial;

/** Looking at a lease, and ending it. */
const EXPIRY = cost(150_000_000n, 12, 9);
/** Leases are looked at when they end, whoever else's end in the same block. */
const expiries = workQueue({
  name: 'Expiries',
  docs: 'Leases to look at, by block.',
  item: struct({ order: orderId, lease: leaseId }),
  budget: 20n * PS_PER_MS,
  weight: () => EXPIRY,
  run: (env, { order, lease: id }) => expire(env, order, id),
});

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Compute', {
  Workers: map(blake2_128Concat(accountId), worker, 'Registered workers.'),
  AuditorCount: value(u32, 0, 'How many workers audits are drawn from.'),
  AuditorAt: map(twox64Concat(u32), accountId, 'Workers that audits are drawn from, numbered without a gap.'),
  AuditorIndex: map(blake2_128Concat(accountId), u32, 'The number of each of them.'),
  Tasks: map(twox64Concat(orderId), task, 'The training task of each order that is neither done nor taken back.'),
  NextLease: value(leaseId, 0n as LeaseId, 'Id of the next lease, of training and of serving.'),
  Parameters: bounds.item,
  ...expiries.storage,
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
  ParametersChanged: bounds.changed(10),
  Cancelling: event(11, { order: orderId }, 'The owner wants the order back: nobody gets another lease of it.'),
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
  TooManyAuditors: error(12, 'No more auditors can be taken in.'),
  BadParameters: bounds.refused(13),
  NotCovered: error(14, 'The bond does not cover this beside what it stands for already: top it up, or end something.'),
  HadIt: error(15, 'The worker had the task before and brought no result: it is another one’s.'),
};

// ---- what other pallets build on -----------------------------------------------------------------------------

export const parametersOf = (host: Host): ComputeParameters => bounds.get(host);
export const workerOf = (host: Host, who: AccountId): Worker | undefined => store.Workers.get(host, who);
export const taskOf = (host: Host, order: OrderId): Task | undefined => store.Tasks.get(host, order);
/** Workers that audits can be drawn from: `auditorAt(host, 0)` … `auditorAt(host, auditorCount(host) − 1)`. */
export const auditorCount = (host: Host): number => store.AuditorCount.get(host);
export const auditorAt = (host: Host, index: number): AccountId | undefined => store.AuditorAt.get(host, index);

const known = (host: Host, who: AccountId): Worker => store.Workers.get(host, who) ?? fail(errors.NotRegistered);
const knownTask = (host: Host, order: OrderId): Task => store.Tasks.get(host, order) ?? fail(errors.UnknownTask);

// ---- bonds ---------------------------------------------------------------------------------------------------

/** What the bond stands for at once, in OPEN's smallest unit. */
export const atStake = (host: Host, who: AccountId): Balance => store.Workers.get(host, who)?.atStake ?? 0n;

/** Whether the bond is the least one at least, and covers all that it stands for. */
export const hasFullBond = (
  { bond, atStake: staked }: Pick<Worker, 'bond' | 'atStake'>,
  { minBond }: Pick<ComputeParameters, 'minBond'>,
): boolean => bond >= minBond && bond >= staked;
const isBonded = (host: Host, found: Worker): boolean => hasFullBond(found, parametersOf(host));

/** Whether the worker is on the ledger, stays, and has its full bond: only then it is given anything to do. */
export function isActive(host: Host, who: AccountId): boolean {
  const found = store.Workers.get(host, who);
  return found !== undefined && found.leaving === undefined && isBonded(host, found);
}

/** A registered worker with its full bond, perhaps on its way out: for what it began before. */
export function ensureBonded(host: Host, who: AccountId): Worker {
  const found = known(host, who);
  ensure(isBonded(host, found), errors.BondTooSmall);
  return found;
}

/** A registered worker with its full bond that is not on its way out. */
export function ensureActive(host: Host, who: AccountId): Worker {
  const found = known(host, who);
  ensure(found.leaving === undefined, errors.IsLeaving);
  ensure(isBonded(host, found), errors.BondTooSmall);
  return found;
}

/** An active worker whose bond covers `more` beside all that it stands for. */
export function requireBond(host: Host, who: AccountId, more: Balance): Worker {
  const found = ensureActive(host, who);
  ensure(found.bond - found.atStake >= more, errors.NotCovered);
  return found;
}

/** Puts `amount` of an active worker's bond at stake for one thing more. Fails where the bond does not cover it. */
export function pledge(host: Host, who: AccountId, amount: Balance): void {
  const found = requireBond(host, who, amount);
  const { obligations, atStake: staked } = found;
  store.Workers.insert(host, who, { ...found, obligations: obligations + 1, atStake: staked + amount });
}

/** That thing is over: the same `amount` is free again. Never fails. */
export function unpledge(host: Host, who: AccountId, amount: Balance): void {
  const found = store.Workers.get(host, who);
  if (found === undefined) return;
  const left = found.atStake > amount ? found.atStake - amount : 0n;
  store.Workers.insert(host, who, { ...found, obligations: Math.max(0, found.obligations - 1), atStake: left });
}

/** The bond stands for one thing more (`+1`) or less (`−1`) that puts nothing at stake. */
export function oblige(host: Host, who: AccountId, change: 1 | -1): void {
  store.Workers.mutate(
    host,
    who,
    (found) => found && { ...found, obligations: Math.max(0, found.obligations + change) },
  );
}

const least = (...amounts: readonly [Balance, ...Balance[]]): Balance =>
  amounts.reduce((low, each) => (each < low ? each : low));

/**
 * Takes up to `amount` of the bond: to `finder` the part `reward`, the rest to the treasury. What an account cannot take in,
 * since it would not come alive on it, goes to the treasury, and what that cannot take in is burnt. Never fails, whatever
 * has become of the accounts. Returns what was taken.
 */
export function slash(env: Env, who: AccountId, amount: Balance, finder?: AccountId, reward: Balance = 0n): Balance {
  const { host } = env;
  const found = store.Workers.get(host, who);
  if (found === undefined) return 0n;
  const taken = least(amount, found.bond, balances.heldOf(host, BOND, who));
  if (taken <= 0n) return 0n;
  balances.takeFromHold(env, BOND, who, taken);
  const wanted = finder === undefined ? 0n : least(reward, taken);
  const given = finder !== undefined && balances.give(env, finder, wanted) ? wanted : 0n;
  if (!balances.give(env, TREASURY, taken - given)) balances.rescind(env, taken - given);
  store.Workers.insert(host, who, { ...found, bond: found.bond - taken, slashed: found.slashed + taken });
  env.emit(events.Slashed, { worker: who, amount: taken });
  return taken;
}

function setAuditing(host: Host, who: AccountId, auditing: boolean): void {
  const index = store.AuditorIndex.get(host, who);
  const count = store.AuditorCount.get(host);
  if (auditing === (index !== undefined)) return;
  if (index === undefined) {
    ensure(count < MAX_AUDITORS, errors.TooManyAuditors);
    store.AuditorAt.insert(host, count, who);
    store.AuditorIndex.insert(host, who, count);
    store.AuditorCount.put(host, count + 1);
    return;
  }
  // The last one takes the place.
  const last = store.AuditorAt.get(host, count - 1) ?? who;
  store.AuditorAt.insert(host, index, last);
  store.AuditorIndex.insert(host, last, index);
  store.AuditorAt.remove(host, count - 1);
  store.AuditorIndex.remove(host, who);
  store.AuditorCount.put(host, count - 1);
}

// ---- leases --------------------------------------------------------------------------------------------------

export function nextLease(host: Host): LeaseId {
  const id = store.NextLease.get(host);
  store.NextLease.put(host, (id + 1n) as LeaseId);
  return id;
}

/** What a lease of an order with that budget puts at stake: all that its worker could gain, and something beside it. */
export const leaseStakeOf = (host: Host, budget: Balance): Balance => parametersOf(host).leaseStake + budget;

export function openTask(env: Env, order: OrderId, baseModel: BaseModelId, budget: Balance): void {
  const status = { type: 'Open' } as const;
  store.Tasks.insert(env.host, order, { baseModel, budget, status, attempts: 0, cancelling: false, returned: [] });
  env.emit(events.TaskOpened, { order });
}

/** The task is open for others, or its owner's where it was asked for. */
function putBack(env: Env, order: OrderId, found: Task, worker: AccountId): void {
  const { cancelling, returned } = found;
  const status = cancelling ? ({ type: 'Cancelled' } as const) : ({ type: 'Open' } as const);
  const kept = [...returned, worker].slice(-MAX_RETURNED);
  store.Tasks.insert(env.host, order, { ...found, status, returned: kept });
  if (!cancelling) env.emit(events.TaskOpened, { order });
}

/** Work that turned out bad is done again by somebody else. */
export function reopenTask(env: Env, order: OrderId): void {
  const found = store.Tasks.get(env.host, order);
  if (found?.status.type !== 'Submitted') return;
  const { worker: by, stake } = found.status.value;
  unpledge(env.host, by, stake);
  putBack(env, order, found, by);
}

/**
 * Takes a task back for its owner: at once where nobody works on it, else as soon as its lease ends without a result that
 * holds, and nobody gets another one. True when the task is gone.
 */
export function cancelTask(env: Env, order: OrderId): boolean {
  const found = knownTask(env.host, order);
  const { type } = found.status;
  if (type === 'Open' || type === 'Cancelled') {
    store.Tasks.remove(env.host, order);
    return true;
  }
  ensure(!found.cancelling, errors.NotOpen);
  store.Tasks.insert(env.host, order, { ...found, cancelling: true });
  env.emit(events.Cancelling, { order });
  return false;
}

/** The worker's running lease of the task. */
export function leaseOf(host: Host, order: OrderId, who: AccountId): Lease {
  const status = store.Tasks.get(host, order)?.status;
  ensure(status?.type === 'Leased' && sameAccount(status.value.worker, who), errors.NotLeased);
  return status.value;
}

/** The result is in: the lease is over, what it put at stake stays there until the window closes. */
export function submitTask(host: Host, order: OrderId): void {
  const found = knownTask(host, order);
  ensure(found.status.type === 'Leased', errors.NotLeased);
  store.Tasks.insert(host, order, { ...found, status: { type: 'Submitted', value: found.status.value } });
}

/** The result holds: the worker's bond is free of it, and the task is history. */
export function finishTask(host: Host, order: OrderId): void {
  const status = store.Tasks.get(host, order)?.status;
  if (status?.type === 'Submitted') unpledge(host, status.value.worker, status.value.stake);
  store.Tasks.remove(host, order);
}

/** What a lease that ends without a result costs beside `base`: it grows with the time that others were kept from the task. */
function costOf(host: Host, { since, stake }: Lease, base: Balance): Balance {
  const { leaseBlocks, holdCost } = parametersOf(host);
  const periods = BigInt(Math.floor((system.blockNumber(host) - since) / leaseBlocks));
  return least(base + (stake * BigInt(holdCost) * periods) / BigInt(PERBILL), stake);
}

function endLease(env: Env, order: OrderId, found: Task, ended: Lease, expired: boolean): void {
  const { expirySlash, returnSlash } = parametersOf(env.host);
  slash(env, ended.worker, costOf(env.host, ended, expired ? expirySlash : returnSlash));
  unpledge(env.host, ended.worker, ended.stake);
  env.emit(events.LeaseEnded, { order, lease: ended.id, expired });
  putBack(env, order, found, ended.worker);
}

/** A lease whose time is up ends; one that was renewed since is looked at again when it does. */
function expire(env: Env, order: OrderId, id: LeaseId): undefined {
  const { host } = env;
  const found = store.Tasks.get(host, order);
  if (found?.status.type !== 'Leased' || found.status.value.id !== id) return;
  const running = found.status.value;
  const now = system.blockNumber(host);
  if (running.expires > now) expiries.schedule(host, { now, due: running.expires }, { order, lease: id });
  else endLease(env, order, found, running, true);
}

// ---- calls ---------------------------------------------------------------------------------------------------

export const calls = {
  register: call({
    index: 0,
    args: { bond: balance, capabilities },
    weight: cost(70_000_000n, 7, 7),
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
        atStake: 0n,
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
    weight: cost(50_000_000n, 6, 6),
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
    weight: cost(50_000_000n, 7, 6),
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
    weight: addWeight(cost(80_000_000n, 9, 8), EXPIRY),
    docs: 'Take an open task: the bond stands for it until its result holds. The nonce in the event must stand in the result.',
    run({ origin, host, emit }, { order }) {
      const who = ensureSigned(origin);
      const { capabilities: offered } = ensureActive(host, who);
      const found = knownTask(host, order);
      ensure(found.status.type === 'Open', errors.NotOpen);
      ensure(offered.training && offered.baseModels.includes(found.baseModel), errors.NotCapable);
      ensure(!found.returned.some((each) => sameAccount(each, who)), errors.HadIt);
      const stake = leaseStakeOf(host, found.budget);
      pledge(host, who, stake);
      const since = system.blockNumber(host);
      const id = nextLease(host);
      const expires = since + parametersOf(host).leaseBlocks;
      expiries.schedule(host, { now: since, due: expires }, { order, lease: id });
      const seed = concatBytes(utf8('lease'), system.parentHash(host), encode(leaseId, id), who);
      const given = { id, worker: who, nonce: asHash(host.blake2_256(seed)), since, expires, stake };
      store.Tasks.insert(host, order, {
        ...found,
        attempts: found.attempts + 1,
        status: { type: 'Leased', value: given },
      });
      emit(events.Leased, { order, lease: given });
    },
  }),
  renewLease: call({
    index: 6,
    args: { order: orderId },
    weight: cost(50_000_000n, 5, 2),
    docs: 'Say that the work goes on, so that the lease does not run out.',
    run({ origin, host, emit }, { order }) {
      const who = ensureSigned(origin);
      const running = leaseOf(host, order, who);
      ensureBonded(host, who);
      const { leaseBlocks, maxLeaseBlocks } = parametersOf(host);
      const now = system.blockNumber(host);
      // Its end has come, though nobody has looked at it yet.
      ensure(running.expires > now, errors.NotLeased);
      const latest = running.since + maxLeaseBlocks;
      ensure(running.expires < latest, errors.LeaseTooLong);
      // The block that it was to end in puts a lease that lasts longer off to its new end.
      const expires = Math.max(running.expires, Math.min(now + leaseBlocks, latest));
      const found = knownTask(host, order);
      store.Tasks.insert(host, order, { ...found, status: { type: 'Leased', value: { ...running, expires } } });
      emit(events.Renewed, { order, lease: running.id, expires });
    },
  }),
  giveUpLease: call({
    index: 7,
    args: { order: orderId },
    weight: cost(130_000_000n, 13, 10),
    docs: 'Hand a task back, so that another worker can take it at once. Costs less the sooner it is done; the signer cannot take it again.',
    run({ origin, ...env }, { order }) {
      const running = leaseOf(env.host, order, ensureSigned(origin));
      endLease(env, order, knownTask(env.host, order), running, false);
    },
  }),
  setParameters: bounds.setter(8, events.ParametersChanged, errors.BadParameters),
};

/** Part of the genesis configuration, for chains with other bonds. */
export type ComputeGenesis = ParametersConfig<ComputeParameters>;

export const compute = pallet({
  name: 'Compute',
  index: 22,
  docs: 'Workers, their bonds, and the leases that they work under.',
  storage: store,
  calls,
  events,
  errors,
  constants: bounds.constants,
  holdReasons: { Bond: BOND },
  work: [expiries],
  genesis: ({ host }, config: ComputeGenesis) => bounds.begin(host, config),
});
