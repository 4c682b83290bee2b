/**
 * Balances: OPEN in accounts, on hold, frozen, and in all (`pallet_balances`).
 *
 * An account lives while its free balance reaches the existential deposit; below it, with nothing reserved, the rest is
 * burnt as dust. `reserved` is the sum of holds and reserves. A freeze says how much may not leave the account. It is covered
 * by what is free and by what is staked: a stake leaves its owner by a slash alone. Other holds and reserves are promised to
 * somebody (a budget, a deposit for answers), so they cover no freeze, and nothing frozen can be put on such a hold. That is
 * stricter than `pallet_balances`, where a freeze overlaps with every hold: there the same OPEN could vote, be paid out of
 * its hold, and vote again elsewhere.
 */

import { outerReason } from '../../framework/assembly.ts';
import {
  cost,
  type DispatchError,
  type ErrorDef,
  ensure,
  ensureRoot,
  ensureSigned,
  error,
  fail,
  OVERFLOW,
  tokenFailure,
  UNDERFLOW,
} from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import { blake2_128Concat, map, mapWithDefault, storage, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { type AccountData, accountData, emptyAccountData } from '../../primitives/account-data.ts';
import {
  bool,
  compact,
  fixedBytes,
  type Infer,
  named,
  struct,
  u32,
  variants,
  vec,
} from '../../primitives/scale/codec.ts';
import {
  type AccountId,
  accountId,
  type Balance,
  balance,
  type MultiAddress,
  multiAddress,
  sameAccount,
} from '../../primitives/types.ts';
import { STAKING_HOLD } from './staking/hold.ts';
import * as system from './system.ts';

export const EXISTENTIAL_DEPOSIT: Balance = 10n ** 15n;
const MAX_BALANCE: Balance = (1n << 128n) - 1n;
const MAX_LOCKS = 50;
const MAX_RESERVES = 50;
const MAX_HOLDS = 32;
const MAX_FREEZES = 32;

// ---- types ---------------------------------------------------------------------------------------------------

const holdReason = outerReason('RuntimeHoldReason');
const freezeReason = outerReason('RuntimeFreezeReason');

const idAmount = (id: typeof holdReason) =>
  named('frame_support::traits::tokens::misc::IdAmount', struct({ id, amount: balance }), {
    params: [
      { name: 'Id', type: id.type },
      { name: 'Balance', type: balance.type },
    ],
  });
type IdAmount = Infer<ReturnType<typeof idAmount>>;

const balanceLock = named(
  'pallet_balances::types::BalanceLock',
  struct({
    id: fixedBytes(8),
    amount: balance,
    reasons: named('pallet_balances::types::Reasons', variants({ Fee: null, Misc: null, All: null })),
  }),
  { params: [{ name: 'Balance', type: balance.type }] },
);
const reserveData = named('pallet_balances::types::ReserveData', struct({ id: fixedBytes(8), amount: balance }), {
  params: [
    { name: 'ReserveIdentifier', type: fixedBytes(8).type },
    { name: 'Balance', type: balance.type },
  ],
});
const status = named('frame_support::traits::tokens::misc::BalanceStatus', variants({ Free: null, Reserved: null }));
// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Balances', {
  TotalIssuance: value(balance, 0n, 'The total units issued in the system.'),
  InactiveIssuance: value(balance, 0n, 'The total units of outstanding deactivated balance.'),
  Account: mapWithDefault(
    blake2_128Concat(accountId),
    accountData,
    emptyAccountData,
    'Unused: balances stand in System.Account.',
  ),
  Locks: mapWithDefault(
    blake2_128Concat(accountId),
    vec(balanceLock, MAX_LOCKS),
    [],
    'Unused: freezes take the place of locks.',
  ),
  Reserves: mapWithDefault(
    blake2_128Concat(accountId),
    vec(reserveData, MAX_RESERVES),
    [],
    'Unused: holds take the place of named reserves.',
  ),
  Holds: mapWithDefault(blake2_128Concat(accountId), vec(idAmount(holdReason), MAX_HOLDS), [], 'Holds on balances.'),
  Freezes: map(blake2_128Concat(accountId), vec(idAmount(freezeReason), MAX_FREEZES), 'Freezes on balances.'),
});

export const events = {
  Endowed: event(0, { account: accountId, freeBalance: balance }, 'An account was created with some free balance.'),
  DustLost: event(
    1,
    { account: accountId, amount: balance },
    'An account was removed whose balance was below the existential deposit; the rest was burnt.',
  ),
  Transfer: event(2, { from: accountId, to: accountId, amount: balance }, 'Transfer succeeded.'),
  BalanceSet: event(3, { who: accountId, free: balance }, 'A balance was set by root.'),
  Reserved: event(4, { who: accountId, amount: balance }, 'Some balance was reserved.'),
  Unreserved: event(5, { who: accountId, amount: balance }, 'Some balance was unreserved.'),
  ReserveRepatriated: event(
    6,
    { from: accountId, to: accountId, amount: balance, destinationStatus: status },
    'Some balance was moved from the reserve of the first account to the second account.',
  ),
  Deposit: event(7, { who: accountId, amount: balance }, 'Some amount was deposited (e.g. for transaction fees).'),
  Withdraw: event(8, { who: accountId, amount: balance }, 'Some amount was withdrawn (e.g. for transaction fees).'),
  Slashed: event(9, { who: accountId, amount: balance }, 'Some amount was taken for misbehaviour.'),
  Minted: event(10, { who: accountId, amount: balance }, 'Some amount was minted into an account.'),
  Burned: event(11, { who: accountId, amount: balance }, 'Some amount was burned from an account.'),
  Issued: event(15, { amount: balance }, 'Total issuance was increased by `amount`.'),
  Rescinded: event(16, { amount: balance }, 'Total issuance was decreased by `amount`.'),
  Frozen: event(19, { who: accountId, amount: balance }, 'Some balance was frozen.'),
  Thawed: event(20, { who: accountId, amount: balance }, 'Some balance was thawed.'),
  Held: event(22, { reason: holdReason, who: accountId, amount: balance }, 'Some balance was placed on hold.'),
  BurnedHeld: event(
    23,
    { reason: holdReason, who: accountId, amount: balance },
    'Held balance was burned from an account.',
  ),
  TransferOnHold: event(
    24,
    { reason: holdReason, source: accountId, dest: accountId, amount: balance },
    'A transfer of `amount` on hold from `source` to `dest` was made; it is on hold there too.',
  ),
  Released: event(26, { reason: holdReason, who: accountId, amount: balance }, 'Some balance was released from hold.'),
};

export const errors = {
  VestingBalance: error(0, 'Vesting balance too high to send value.'),
  LiquidityRestrictions: error(1, 'Account liquidity restrictions prevent withdrawal.'),
  InsufficientBalance: error(2, 'Balance too low to send value.'),
  ExistentialDeposit: error(3, 'Value too low to create account due to existential deposit.'),
  Expendability: error(4, 'Transfer/payment would kill account.'),
  ExistingVestingSchedule: error(5, 'A vesting schedule already exists for this account.'),
  DeadAccount: error(6, 'Beneficiary account must pre-exist.'),
  TooManyReserves: error(7, 'Number of named reserves exceed `MaxReserves`.'),
  TooManyHolds: error(8, 'Number of holds exceed the number of hold reasons.'),
  TooManyFreezes: error(9, 'Number of freezes exceed `MaxFreezes`.'),
  IssuanceDeactivated: error(10, 'The issuance cannot be modified since it is already deactivated.'),
};

// ---- one account ---------------------------------------------------------------------------------------------

const lives = (data: AccountData): boolean => data.free >= EXISTENTIAL_DEPOSIT;
const relies = (data: AccountData): boolean => data.reserved > 0n || data.frozen > 0n;

/**
 * Changes the balances of an account and all that follows: its references, its birth, its death with the dust
 * (`try_mutate_account`).
 */
function mutate(env: Env, who: AccountId, change: (data: AccountData) => AccountData): void {
  const { host } = env;
  let info = system.account(host, who);
  const existed = system.isAlive(info);
  const before = info.data;
  const data = change(before);
  if (data.free > MAX_BALANCE - data.reserved) fail(OVERFLOW);

  let endowed = false;
  if (!lives(before) && lives(data)) {
    info = system.incProviders(env, who, info);
    endowed = before.free === 0n && before.reserved === 0n;
  }
  if (!relies(before) && relies(data)) info = system.withConsumer(info);
  if (relies(before) && !relies(data)) info = system.withoutConsumer(info);
  let next: system.AccountInfo | undefined = { ...info, data };
  if (lives(before) && !lives(data)) next = system.decProviders(env, who, next);

  const dust = data.free > 0n && !lives(data) && data.reserved === 0n ? data.free : 0n;
  if (next !== undefined && dust > 0n) next = { ...next, data: { ...data, free: 0n } };
  // Nothing keeps an account that never lived: its dust leaves no trace but the event.
  if (next !== undefined && !system.isAlive(next)) next = undefined;
  if (next !== undefined || existed) system.writeAccount(host, who, next);
  if (endowed) env.emit(events.Endowed, { account: who, freeBalance: data.free });
  if (dust > 0n) {
    store.TotalIssuance.mutate(host, (total) => total - dust);
    env.emit(events.DustLost, { account: who, amount: dust });
  }
}

const canBeRemoved = (info: system.AccountInfo): boolean => info.consumers === 0 || info.providers > 1;

/** `Expendable` may end the account, `Protect` keeps it unless something else does, `Preserve` keeps it always. */
export type Preservation = 'Expendable' | 'Protect' | 'Preserve';

/** What covers freezes beside the free balance. */
const stakedOf = (host: Host, who: AccountId): Balance => heldOf(host, STAKING_HOLD, who);

/** What of the free balance a freeze keeps in the account. */
function frozenFree(host: Host, who: AccountId, { frozen }: AccountData): Balance {
  if (frozen === 0n) return 0n;
  const staked = stakedOf(host, who);
  return frozen > staked ? frozen - staked : 0n;
}

function reducibleOf(
  info: system.AccountInfo,
  preservation: Preservation,
  /** The least that stays, whatever the account's existence needs. */
  frozen: Balance,
): Balance {
  const { free } = info.data;
  const keep =
    preservation === 'Preserve' ||
    (free > 0n && (preservation === 'Protect' ? info.providers === 1 : !canBeRemoved(info)));
  const untouchable = keep && frozen < EXISTENTIAL_DEPOSIT ? EXISTENTIAL_DEPOSIT : frozen;
  return free > untouchable ? free - untouchable : 0n;
}

/** What may leave the free balance. */
function leavable(host: Host, who: AccountId, info: system.AccountInfo, preservation: Preservation): Balance {
  return reducibleOf(info, preservation, frozenFree(host, who, info.data));
}

/** Why `amount` cannot leave the account; undefined when it can (`can_withdraw`). */
function obstacle(host: Host, who: AccountId, amount: Balance, keepAlive: boolean): DispatchError | undefined {
  if (amount === 0n) return undefined;
  const info = system.account(host, who);
  const { free } = info.data;
  if (free < amount) return tokenFailure('FundsUnavailable');
  if (amount > leavable(host, who, info, 'Expendable')) {
    const frozen = amount > leavable(host, who, { ...info, consumers: 0 }, 'Expendable');
    return tokenFailure(frozen ? 'Frozen' : 'OnlyProvider');
  }
  if (free - amount >= EXISTENTIAL_DEPOSIT) return undefined;
  if (!canBeRemoved(info)) return tokenFailure('OnlyProvider');
  return keepAlive ? tokenFailure('NotExpendable') : undefined;
}

/** Fails if a payment would leave the receiver below the existential deposit. */
function ensureCanDeposit(host: Host, who: AccountId, amount: Balance): void {
  if (amount === 0n) return;
  const { data } = system.account(host, who);
  ensure(data.free + amount >= EXISTENTIAL_DEPOSIT, tokenFailure('BelowMinimum'));
}

// ---- what other pallets build on -----------------------------------------------------------------------------

export const totalIssuance = (host: Host): Balance => store.TotalIssuance.get(host);
/** What all accounts together have, and what the ledger says was issued: the same after every block, or OPEN was made or lost. */
export function books(host: Host): { readonly held: Balance; readonly issued: Balance } {
  let held = 0n;
  for (const [, { data }] of system.accounts(host)) held += data.free + data.reserved;
  return { held, issued: totalIssuance(host) };
}
export const freeBalance = (host: Host, who: AccountId): Balance => system.account(host, who).data.free;
export const totalBalance = (host: Host, who: AccountId): Balance => {
  const { free, reserved } = system.account(host, who).data;
  return free + reserved;
};
/** What may leave the account, with (`keepAlive`) or without the account staying alive. */
export const reducible = (host: Host, who: AccountId, keepAlive: boolean): Balance =>
  leavable(host, who, system.account(host, who), keepAlive ? 'Preserve' : 'Expendable');
/** What an account could freeze and answer with: its free balance and its stake. */
export const freezable = (host: Host, who: AccountId): Balance => freeBalance(host, who) + stakedOf(host, who);

/** Fails with `Token` errors; with `KeepAlive` the sender keeps at least the existential deposit. */
export function transfer(
  env: Env,
  from: AccountId,
  to: AccountId,
  amount: Balance,
  existence: 'AllowDeath' | 'KeepAlive',
): void {
  const problem = obstacle(env.host, from, amount, existence === 'KeepAlive');
  if (problem !== undefined) fail(problem);
  ensureCanDeposit(env.host, to, amount);
  if (amount > 0n && !sameAccount(from, to)) {
    mutate(env, from, (data) => ({ ...data, free: data.free - amount }));
    mutate(env, to, (data) => ({ ...data, free: data.free + amount }));
  }
  env.emit(events.Transfer, { from, to, amount });
}

/**
 * Takes from the free balance what will be given elsewhere in the same call ({@link give}, {@link rescind}): the total
 * issuance stays as it is. `Preserve`: the account is kept alive.
 */
export function take(env: Env, who: AccountId, amount: Balance, preservation: Preservation = 'Preserve'): void {
  if (amount === 0n) return;
  const info = system.account(env.host, who);
  ensure(amount <= leavable(env.host, who, info, preservation), tokenFailure('FundsUnavailable'));
  mutate(env, who, (data) => ({ ...data, free: data.free - amount }));
  env.emit(events.Withdraw, { who, amount });
}

/** Puts what was taken into a free balance. False, without effect, if it is too little for an account to live on. */
export function give(env: Env, who: AccountId, amount: Balance): boolean {
  if (amount === 0n) return true;
  const { data } = system.account(env.host, who);
  if (data.free + amount < EXISTENTIAL_DEPOSIT) return false;
  mutate(env, who, (before) => ({ ...before, free: before.free + amount }));
  env.emit(events.Deposit, { who, amount });
  return true;
}

/** Burns what was taken. */
export function rescind(env: Env, amount: Balance): void {
  if (amount === 0n) return;
  store.TotalIssuance.mutate(env.host, (total) => total - amount);
  env.emit(events.Rescinded, { amount });
}

/** Mints new OPEN. Fails with `BelowMinimum` or `Overflow`. */
export function deposit(env: Env, who: AccountId, amount: Balance): void {
  if (amount === 0n) return;
  ensureCanDeposit(env.host, who, amount);
  ensure(totalIssuance(env.host) <= MAX_BALANCE - amount, OVERFLOW);
  mutate(env, who, (data) => ({ ...data, free: data.free + amount }));
  store.TotalIssuance.mutate(env.host, (total) => total + amount);
  env.emit(events.Minted, { who, amount });
}

/** Burns from the free balance. */
export function withdraw(env: Env, who: AccountId, amount: Balance, preservation: Preservation = 'Preserve'): void {
  if (amount === 0n) return;
  const info = system.account(env.host, who);
  ensure(amount <= leavable(env.host, who, info, preservation), tokenFailure('FundsUnavailable'));
  mutate(env, who, (data) => ({ ...data, free: data.free - amount }));
  store.TotalIssuance.mutate(env.host, (total) => total - amount);
  env.emit(events.Burned, { who, amount });
}

// ---- holds ---------------------------------------------------------------------------------------------------

const sameReason = (a: Reason, b: Reason): boolean => a.pallet === b.pallet && a.reason === b.reason;
const amountIn = (entries: readonly IdAmount[], reason: Reason): Balance =>
  entries.find(({ id }) => sameReason(id, reason))?.amount ?? 0n;

function withAmount(entries: IdAmount[], reason: Reason, amount: Balance, max: number, full: ErrorDef): IdAmount[] {
  const others = entries.filter(({ id }) => !sameReason(id, reason));
  if (amount === 0n) return others;
  ensure(others.length < max, full);
  return [...others, { id: reason, amount }];
}

function putHeld(host: Host, reason: Reason, who: AccountId, amount: Balance): void {
  const entries = withAmount(store.Holds.get(host, who), reason, amount, MAX_HOLDS, errors.TooManyHolds);
  if (entries.length === 0) store.Holds.remove(host, who);
  else store.Holds.insert(host, who, entries);
}

export const heldOf = (host: Host, reason: Reason, who: AccountId): Balance =>
  amountIn(store.Holds.get(host, who), reason);

/** The most that could be put on hold for a reason. What is frozen can be staked, and promised to nobody. */
export function holdable(host: Host, who: AccountId, reason: Reason): Balance {
  const info = system.account(host, who);
  const frozen = sameReason(reason, STAKING_HOLD) ? 0n : frozenFree(host, who, info.data);
  return reducibleOf(info, 'Protect', frozen);
}

/** Puts free balance on hold; the existential deposit stays free. Fails with `FundsUnavailable`. */
export function hold(env: Env, reason: Reason, who: AccountId, amount: Balance): void {
  if (amount === 0n) return;
  const { host } = env;
  ensure(amount <= holdable(host, who, reason), tokenFailure('FundsUnavailable'));
  putHeld(host, reason, who, heldOf(host, reason, who) + amount);
  mutate(env, who, (data) => ({ ...data, free: data.free - amount, reserved: data.reserved + amount }));
  env.emit(events.Held, { reason, who, amount });
}

function takeHeld(env: Env, reason: Reason, who: AccountId, amount: Balance): void {
  const held = heldOf(env.host, reason, who);
  ensure(amount <= held, tokenFailure('FundsUnavailable'));
  putHeld(env.host, reason, who, held - amount);
}

/** From hold to free. Fails with `FundsUnavailable` when less is on hold. */
export function release(env: Env, reason: Reason, who: AccountId, amount: Balance): void {
  if (amount === 0n) return;
  takeHeld(env, reason, who, amount);
  mutate(env, who, (data) => ({ ...data, free: data.free + amount, reserved: data.reserved - amount }));
  env.emit(events.Released, { reason, who, amount });
}

/** From hold for one reason to hold for another. Fails with `FundsUnavailable` when less is on hold. */
export function rehold(env: Env, from: Reason, to: Reason, who: AccountId, amount: Balance): void {
  if (amount === 0n || sameReason(from, to)) return;
  takeHeld(env, from, who, amount);
  putHeld(env.host, to, who, heldOf(env.host, to, who) + amount);
  env.emit(events.Released, { reason: from, who, amount });
  env.emit(events.Held, { reason: to, who, amount });
}

/** From hold of one account to the free balance of another. Fails with `Frozen` where that would take what covers a freeze. */
export function transferHeld(env: Env, reason: Reason, from: AccountId, to: AccountId, amount: Balance): void {
  if (amount === 0n) return;
  if (sameAccount(from, to)) {
    release(env, reason, from, amount);
    return;
  }
  if (sameReason(reason, STAKING_HOLD)) {
    const { frozen } = system.account(env.host, from).data;
    ensure(freezable(env.host, from) - amount >= frozen, tokenFailure('Frozen'));
  }
  ensureCanDeposit(env.host, to, amount);
  takeHeld(env, reason, from, amount);
  mutate(env, from, (data) => ({ ...data, reserved: data.reserved - amount }));
  mutate(env, to, (data) => ({ ...data, free: data.free + amount }));
  env.emit(events.Released, { reason, who: from, amount });
  env.emit(events.Transfer, { from, to, amount });
}

/** Takes from hold what will be given elsewhere in the same call ({@link give}, {@link rescind}). */
export function takeFromHold(env: Env, reason: Reason, who: AccountId, amount: Balance): void {
  if (amount === 0n) return;
  takeHeld(env, reason, who, amount);
  mutate(env, who, (data) => ({ ...data, reserved: data.reserved - amount }));
  env.emit(events.Slashed, { who, amount });
}

/** Takes OPEN on hold out of existence. */
export function burnHeld(env: Env, reason: Reason, who: AccountId, amount: Balance): void {
  if (amount === 0n) return;
  takeHeld(env, reason, who, amount);
  mutate(env, who, (data) => ({ ...data, reserved: data.reserved - amount }));
  store.TotalIssuance.mutate(env.host, (total) => total - amount);
  env.emit(events.BurnedHeld, { reason, who, amount });
}

// ---- freezes -------------------------------------------------------------------------------------------------

export const frozenFor = (host: Host, reason: Reason, who: AccountId): Balance =>
  amountIn(store.Freezes.get(host, who) ?? [], reason);

/** At least `amount` of the total stays in the account; 0 thaws. Freezes of several reasons overlap. */
export function setFreeze(env: Env, reason: Reason, who: AccountId, amount: Balance): void {
  const { host } = env;
  const before = store.Freezes.get(host, who) ?? [];
  const entries = withAmount(before, reason, amount, MAX_FREEZES, errors.TooManyFreezes);
  if (entries.length === 0) store.Freezes.remove(host, who);
  else store.Freezes.insert(host, who, entries);
  const highest = (of: readonly IdAmount[]) => of.reduce((most, each) => (each.amount > most ? each.amount : most), 0n);
  const [was, is] = [highest(before), highest(entries)];
  if (was === is) return;
  mutate(env, who, (data) => ({ ...data, frozen: is }));
  if (is > was) env.emit(events.Frozen, { who, amount: is - was });
  else env.emit(events.Thawed, { who, amount: was - is });
}

export const thaw = (env: Env, reason: Reason, who: AccountId): void => setFreeze(env, reason, who, 0n);

// ---- reserves (without a reason: deposits of the standard pallets) ---------------------------------------------

/** Fails with `InsufficientBalance` or `LiquidityRestrictions`; the existential deposit stays free. */
export function reserve(env: Env, who: AccountId, amount: Balance): void {
  if (amount === 0n) return;
  const info = system.account(env.host, who);
  ensure(info.data.free >= amount + EXISTENTIAL_DEPOSIT, errors.InsufficientBalance);
  ensure(amount <= leavable(env.host, who, info, 'Expendable'), errors.LiquidityRestrictions);
  mutate(env, who, (data) => ({ ...data, free: data.free - amount, reserved: data.reserved + amount }));
  env.emit(events.Reserved, { who, amount });
}

/** What is reserved and on hold for no reason of {@link hold}. */
function unheldReserve(host: Host, who: AccountId): Balance {
  const held = store.Holds.get(host, who).reduce((sum, { amount }) => sum + amount, 0n);
  return system.account(host, who).data.reserved - held;
}

/** Frees up to `amount`; returns what could not be freed. */
export function unreserve(env: Env, who: AccountId, amount: Balance): Balance {
  const available = unheldReserve(env.host, who);
  const freed = amount < available ? amount : available;
  if (freed > 0n) {
    mutate(env, who, (data) => ({ ...data, free: data.free + freed, reserved: data.reserved - freed }));
    env.emit(events.Unreserved, { who, amount: freed });
  }
  return amount - freed;
}

/** Moves up to `amount` of what is reserved to another, existing account; returns what could not be moved. */
export function repatriateReserved(
  env: Env,
  from: AccountId,
  to: AccountId,
  amount: Balance,
  into: 'Free' | 'Reserved',
): Balance {
  if (amount === 0n) return 0n;
  if (sameAccount(from, to)) return into === 'Free' ? unreserve(env, from, amount) : amount;
  const available = unheldReserve(env.host, from);
  const moved = amount < available ? amount : available;
  ensure(system.accountExists(env.host, to), errors.DeadAccount);
  mutate(env, from, (data) => ({ ...data, reserved: data.reserved - moved }));
  mutate(env, to, (data) =>
    into === 'Free' ? { ...data, free: data.free + moved } : { ...data, reserved: data.reserved + moved },
  );
  env.emit(events.ReserveRepatriated, { from, to, amount: moved, destinationStatus: { type: into } });
  return amount - moved;
}

/** Burns up to `amount` of what is reserved; returns what could not be taken. */
export function slashReserved(env: Env, who: AccountId, amount: Balance): Balance {
  const available = unheldReserve(env.host, who);
  const taken = amount < available ? amount : available;
  if (taken > 0n) {
    mutate(env, who, (data) => ({ ...data, reserved: data.reserved - taken }));
    store.TotalIssuance.mutate(env.host, (total) => total - taken);
    env.emit(events.Slashed, { who, amount: taken });
  }
  return amount - taken;
}

// ---- the pallet ----------------------------------------------------------------------------------------------

const accountOf = (address: MultiAddress): AccountId =>
  address.type === 'Id' ? address.value : fail({ type: 'CannotLookup' });

const TRANSFER_WEIGHT = cost(30_000_000n, 2, 2);

export interface BalancesGenesis {
  readonly balances: readonly { readonly account: AccountId; readonly amount: Balance }[];
}

export const balances = pallet({
  name: 'Balances',
  index: 10,
  docs: 'OPEN in accounts: transfers, holds, freezes, total issuance.',
  storage: store,
  events,
  errors,
  constants: {
    ExistentialDeposit: constant(balance, EXISTENTIAL_DEPOSIT, 'The minimum amount required to keep an account open.'),
    MaxLocks: constant(u32, MAX_LOCKS, 'The maximum number of locks that should exist on an account.'),
    MaxReserves: constant(u32, MAX_RESERVES, 'The maximum number of named reserves that can exist on an account.'),
    MaxFreezes: constant(u32, MAX_FREEZES, 'The maximum number of freezes that can exist on an account at any time.'),
  },
  calls: {
    transferAllowDeath: call({
      index: 0,
      args: { dest: multiAddress, value: compact(balance) },
      weight: TRANSFER_WEIGHT,
      docs: 'Transfer some liquid free balance to another account; the sender may end up below the existential deposit and be reaped.',
      run(context, { dest, value: amount }) {
        transfer(context, ensureSigned(context.origin), accountOf(dest), amount, 'AllowDeath');
      },
    }),
    forceTransfer: call({
      index: 2,
      args: { source: multiAddress, dest: multiAddress, value: compact(balance) },
      weight: TRANSFER_WEIGHT,
      docs: 'As `transfer_allow_death`, but the origin must be root and the source account is given.',
      run(context, { source, dest, value: amount }) {
        ensureRoot(context.origin);
        transfer(context, accountOf(source), accountOf(dest), amount, 'AllowDeath');
      },
    }),
    transferKeepAlive: call({
      index: 3,
      args: { dest: multiAddress, value: compact(balance) },
      weight: TRANSFER_WEIGHT,
      docs: 'As `transfer_allow_death`, with a check that the transfer will not kill the origin account.',
      run(context, { dest, value: amount }) {
        transfer(context, ensureSigned(context.origin), accountOf(dest), amount, 'KeepAlive');
      },
    }),
    transferAll: call({
      index: 4,
      args: { dest: multiAddress, keepAlive: bool },
      weight: TRANSFER_WEIGHT,
      docs: 'Transfer the entire transferable balance from the caller account; with `keep_alive` the account stays alive.',
      run(context, { dest, keepAlive }) {
        const from = ensureSigned(context.origin);
        const amount = reducible(context.host, from, keepAlive);
        transfer(context, from, accountOf(dest), amount, keepAlive ? 'KeepAlive' : 'AllowDeath');
      },
    }),
    forceUnreserve: call({
      index: 5,
      args: { who: multiAddress, amount: balance },
      weight: cost(15_000_000n, 2, 1),
      docs: 'Unreserve some balance from a user by force. Can only be called by root.',
      run(context, { who, amount }) {
        ensureRoot(context.origin);
        unreserve(context, accountOf(who), amount);
      },
    }),
    forceSetBalance: call({
      index: 8,
      args: { who: multiAddress, newFree: compact(balance) },
      weight: cost(20_000_000n, 2, 2),
      docs: 'Set the regular balance of a given account. The dispatch origin for this call is root.',
      run(context, { who, newFree }) {
        ensureRoot(context.origin);
        const account = accountOf(who);
        const { host } = context;
        const free = newFree < EXISTENTIAL_DEPOSIT ? 0n : newFree;
        const before = freeBalance(host, account);
        const total = totalIssuance(host) - before;
        ensure(total <= MAX_BALANCE - free, OVERFLOW);
        mutate(context, account, (data) => ({ ...data, free }));
        store.TotalIssuance.put(host, total + free);
        context.emit(events.BalanceSet, { who: account, free });
      },
    }),
    burn: call({
      index: 10,
      args: { value: compact(balance), keepAlive: bool },
      weight: cost(20_000_000n, 2, 2),
      docs: 'Burn the specified liquid free balance from the origin account; the total issuance is reduced by it.',
      run(context, { value: amount, keepAlive }) {
        const who = ensureSigned(context.origin);
        const problem = obstacle(context.host, who, amount, keepAlive);
        if (problem !== undefined) fail(problem);
        withdraw(context, who, amount, keepAlive ? 'Preserve' : 'Expendable');
      },
    }),
  },
  genesis(env, config: BalancesGenesis) {
    for (const { account, amount } of config.balances) {
      if (amount < EXISTENTIAL_DEPOSIT) fail(UNDERFLOW);
      deposit(env, account, amount);
    }
  },
});

export const { calls } = balances;
