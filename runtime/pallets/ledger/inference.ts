/**
 * Inference: sessions with a deposit, whose key signs a voucher for every request, and the leases under which workers
 * serve adapters. No transaction is needed per request; the attribution pallet settles receipts in batches.
 */
import { cost, ensure, ensureRoot, ensureSigned, error, fail } from '../../framework/dispatch.ts';
import { call, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import { blake2_128Concat, map, nMap, nMapWithDefault, storage, twox64Concat, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { part } from '../../primitives/attribution/canonical.ts';
import { type AdapterId, adapterId, leaseId, type SessionId, sessionId } from '../../primitives/attribution/ids.ts';
import { type Infer, option, struct, u32, u64 } from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, type Balance, balance, sameAccount } from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import * as system from '../standard/system.ts';
import * as compute from './compute.ts';
import * as models from './models.ts';

/** Entries of a closed session that are removed with it; ids are not used again, so more of them do no harm. */
const CLEARED_AT_ONCE = 256;

const DEPOSIT: Reason = { pallet: 23, reason: 0 };

// ---- types ---------------------------------------------------------------------------------------------------

export const session = part(
  'Session',
  struct({
    owner: accountId,
    /** Signs the vouchers; it needs no account of its own. */
    key: accountId,
    /** On hold and not settled yet. */
    deposit: balance,
    /** Paid out of it so far. */
    settled: balance,
    /** Block from which on the rest can be taken back, once asked for; workers settle before it. */
    closing: option(u32),
  }),
);
export type Session = Infer<typeof session>;

export const serving = part('Serving', struct({ lease: leaseId, since: u32 }));
export type Serving = Infer<typeof serving>;

const parameters = part(
  'InferenceParameters',
  struct({
    minDeposit: balance,
    /** Blocks that workers have to settle when a session closes. */
    closingBlocks: u32,
  }),
);
export type InferenceParameters = Infer<typeof parameters>;
const DEFAULT_PARAMETERS: InferenceParameters = { minDeposit: 10n ** 18n, closingBlocks: 200 };

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Inference', {
  NextSession: value(sessionId, 0n as SessionId, 'Id of the next session.'),
  Sessions: map(twox64Concat(sessionId), session, 'Open and closing sessions.'),
  SettledWith: nMapWithDefault(
    [twox64Concat(sessionId), blake2_128Concat(accountId)],
    balance,
    0n,
    'What a session has paid to a worker’s batches: its vouchers’ cumulative amounts bound it.',
  ),
  PromisedTo: nMapWithDefault(
    [twox64Concat(sessionId), blake2_128Concat(accountId)],
    balance,
    0n,
    'The most that a settled voucher of a session promises a worker: batches may come in any order.',
  ),
  LastNonce: nMap(
    [twox64Concat(sessionId), blake2_128Concat(accountId), twox64Concat(adapterId)],
    u64,
    'Voucher nonces up to this one are settled.',
  ),
  Serving: nMap([twox64Concat(adapterId), blake2_128Concat(accountId)], serving, 'Who serves which adapter.'),
  Parameters: value(parameters, DEFAULT_PARAMETERS, 'What governance can change.'),
});

export const events = {
  Opened: event(0, { session: sessionId, owner: accountId, key: accountId, deposit: balance }, 'A session was opened.'),
  ToppedUp: event(1, { session: sessionId, deposit: balance }, 'The deposit grew.'),
  Closing: event(2, { session: sessionId, until: u32 }, 'The session takes no more requests.'),
  Closed: event(3, { session: sessionId, returned: balance }, 'The session is over; the rest went back.'),
  ServingStarted: event(4, { adapter: adapterId, worker: accountId, lease: leaseId }, 'A worker serves an adapter.'),
  ServingStopped: event(5, { adapter: adapterId, worker: accountId }, 'A worker no longer serves an adapter.'),
  ParametersChanged: event(6, { parameters }, 'Governance changed the parameters.'),
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
};

// ---- what other pallets build on -----------------------------------------------------------------------------

export const sessionOf = (host: Host, id: SessionId): Session | undefined => store.Sessions.get(host, id);
export const servingOf = (host: Host, adapter: AdapterId, worker: AccountId): Serving | undefined =>
  store.Serving.get(host, [adapter, worker]);
export const settledWith = (host: Host, id: SessionId, worker: AccountId): Balance =>
  store.SettledWith.get(host, [id, worker]);
/** What the session has promised the worker at most, by the vouchers that the chain has seen. */
export const promisedTo = (host: Host, id: SessionId, worker: AccountId): Balance =>
  store.PromisedTo.get(host, [id, worker]);
export const lastNonce = (host: Host, id: SessionId, worker: AccountId, adapter: AdapterId): bigint | undefined =>
  store.LastNonce.get(host, [id, worker, adapter]);

const known = (host: Host, id: SessionId): Session => store.Sessions.get(host, id) ?? fail(errors.UnknownSession);

/** Fees of a batch that turned out wrong go back where they came from. False, without effect, if that is impossible. */
export function refund(env: Env, id: SessionId, owner: AccountId, pot: AccountId, fees: Balance): boolean {
  const { host } = env;
  if (balances.freeBalance(host, owner) + fees < balances.EXISTENTIAL_DEPOSIT) return false;
  balances.transfer(env, pot, owner, fees, 'KeepAlive');
  const found = store.Sessions.get(host, id);
  if (found === undefined) return true;
  balances.hold(env, DEPOSIT, owner, fees);
  store.Sessions.insert(host, id, { ...found, deposit: found.deposit + fees, settled: found.settled - fees });
  return true;
}

/** Moves a batch's fees from the deposit to `pot`, and closes its nonces. The caller has checked the voucher. */
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
  const found = known(host, batch.session);
  balances.transferHeld(env, DEPOSIT, found.owner, pot, batch.fees);
  const { deposit, settled } = found;
  store.Sessions.insert(host, batch.session, {
    ...found,
    deposit: deposit - batch.fees,
    settled: settled + batch.fees,
  });
  store.SettledWith.mutate(host, [batch.session, batch.worker], (sum) => sum + batch.fees);
  const { cumulative } = batch;
  store.PromisedTo.mutate(host, [batch.session, batch.worker], (most) => (cumulative > most ? cumulative : most));
  store.LastNonce.insert(host, [batch.session, batch.worker, batch.adapter], batch.lastNonce);
}

// ---- calls ---------------------------------------------------------------------------------------------------

export const calls = {
  openSession: call({
    index: 0,
    args: { key: accountId, deposit: balance },
    weight: cost(60_000_000n, 4, 4),
    docs: 'Put down a deposit that requests are paid from. `key` signs their vouchers.',
    run({ origin, ...env }, { key, deposit }) {
      const { host } = env;
      const owner = ensureSigned(origin);
      ensure(deposit >= store.Parameters.get(host).minDeposit, errors.DepositTooSmall);
      balances.hold(env, DEPOSIT, owner, deposit);
      const id = store.NextSession.get(host);
      store.NextSession.put(host, (id + 1n) as SessionId);
      store.Sessions.insert(host, id, { owner, key, deposit, settled: 0n, closing: undefined });
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
      const until = system.blockNumber(host) + store.Parameters.get(host).closingBlocks;
      store.Sessions.insert(host, id, { ...found, closing: until });
      emit(events.Closing, { session: id, until });
    },
  }),
  withdrawDeposit: call({
    index: 3,
    args: { session: sessionId },
    weight: cost(60_000_000n, 4, 4),
    docs: 'Take back what is left of a closed session’s deposit. Owner only.',
    run({ origin, ...env }, { session: id }) {
      const { host } = env;
      const found = owned(host, id, ensureSigned(origin));
      ensure(found.closing !== undefined && system.blockNumber(host) >= found.closing, errors.NotClosing);
      balances.release(env, DEPOSIT, found.owner, found.deposit);
      store.Sessions.remove(host, id);
      store.SettledWith.clear(host, [id], CLEARED_AT_ONCE);
      store.PromisedTo.clear(host, [id], CLEARED_AT_ONCE);
      store.LastNonce.clear(host, [id], CLEARED_AT_ONCE);
      env.emit(events.Closed, { session: id, returned: found.deposit });
    },
  }),
  serve: call({
    index: 4,
    args: { adapter: adapterId },
    weight: cost(60_000_000n, 5, 3),
    docs: 'Serve an adapter from now on. The lease in the event stands in every receipt.',
    run({ origin, host, emit }, { adapter }) {
      const worker = ensureSigned(origin);
      const { capabilities } = compute.ensureActive(host, worker);
      const { baseModel } = models.ensureLive(host, adapter);
      ensure(capabilities.serving && capabilities.baseModels.includes(baseModel), errors.NotCapable);
      ensure(!store.Serving.has(host, [adapter, worker]), errors.AlreadyServing);
      const lease = compute.nextLease(host);
      store.Serving.insert(host, [adapter, worker], { lease, since: system.blockNumber(host) });
      compute.oblige(host, worker, 1);
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
      ensure(store.Serving.has(host, [adapter, worker]), errors.NotServing);
      store.Serving.remove(host, [adapter, worker]);
      compute.oblige(host, worker, -1);
      emit(events.ServingStopped, { adapter, worker });
    },
  }),
  setParameters: call({
    index: 6,
    args: { parameters },
    weight: cost(10_000_000n, 0, 1),
    docs: 'Change the parameters. Root only.',
    run({ origin, host, emit }, { parameters: next }) {
      ensureRoot(origin);
      store.Parameters.put(host, next);
      emit(events.ParametersChanged, { parameters: next });
    },
  }),
};

function owned(host: Host, id: SessionId, who: AccountId): Session {
  const found = known(host, id);
  ensure(sameAccount(found.owner, who), errors.NotOwner);
  return found;
}

export const inference = pallet({
  name: 'Inference',
  index: 23,
  docs: 'Paid requests: sessions, vouchers, who serves what.',
  storage: store,
  calls,
  events,
  errors,
  holdReasons: { Deposit: DEPOSIT },
});
