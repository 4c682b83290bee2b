/** Stakes: what a stash has bonded, in which role, and what is on its way out. */
import { type ErrorDef, ensure, fail } from '../../../framework/dispatch.ts';
import type { Env } from '../../../framework/pallet.ts';
import type { Host } from '../../../host.ts';
import { encode } from '../../../primitives/scale/codec.ts';
import { type AccountId, type Balance, balance } from '../../../primitives/types.ts';
import * as balances from '../balances.ts';
import { STAKING_HOLD } from './hold.ts';
import { activeEra, currentEra, eras, errors, events, store } from './store.ts';
import {
  type Ledger,
  MAX_NOMINATORS,
  MAX_UNLOCKING_CHUNKS,
  MAX_VALIDATORS,
  type Nominations,
  type RewardDestination,
  type UnlockChunk,
  type ValidatorPrefs,
} from './types.ts';

const least = (a: bigint, b: bigint): bigint => (a < b ? a : b);
const MINIMUM = balances.EXISTENTIAL_DEPOSIT;

export const ledgerOf = (host: Host, stash: AccountId): Ledger | undefined => store.Ledger.get(host, stash);
/** Fails with `NotController`. */
export const ownLedger = (host: Host, who: AccountId): Ledger => ledgerOf(host, who) ?? fail(errors.NotController);
/** What of a stash votes and works. */
export const activeStake = (host: Host, stash: AccountId): Balance => ledgerOf(host, stash)?.active ?? 0n;

// ---- places by stake -----------------------------------------------------------------------------------------

const VALIDATING = 0;
const NOMINATING = 1;
type Role = typeof VALIDATING | typeof NOMINATING;

function roleOf(host: Host, stash: AccountId): Role | undefined {
  if (store.Validators.has(host, stash)) return VALIDATING;
  return store.Nominators.has(host, stash) ? NOMINATING : undefined;
}

const bigEndian = (amount: Balance): Uint8Array => encode(balance, amount).reverse();
const rank = (host: Host, role: Role, stash: AccountId): void =>
  store.Ranking.insert(host, [role, bigEndian(activeStake(host, stash)), stash], true);
const unrank = (host: Host, role: Role, stash: AccountId): void =>
  store.Ranking.remove(host, [role, bigEndian(activeStake(host, stash)), stash]);

/** The one of a role with the least active stake. */
function poorest(host: Host, role: Role): AccountId | undefined {
  for (const [, , stash] of store.Ranking.keys(host, [role])) return stash;
  return undefined;
}

/** Writes a ledger whose hold is right, with the place that its stake has in its role. */
export function writeLedger(host: Host, ledger: Ledger): void {
  const role = roleOf(host, ledger.stash);
  if (role !== undefined) unrank(host, role, ledger.stash);
  store.Ledger.insert(host, ledger.stash, ledger);
  if (role !== undefined) rank(host, role, ledger.stash);
}

/** Writes the ledger down and puts exactly its total on hold. */
export function putLedger(env: Env, ledger: Ledger): void {
  const { host } = env;
  const held = balances.heldOf(host, STAKING_HOLD, ledger.stash);
  if (ledger.total > held) balances.hold(env, STAKING_HOLD, ledger.stash, ledger.total - held);
  if (ledger.total < held) balances.release(env, STAKING_HOLD, ledger.stash, held - ledger.total);
  writeLedger(host, ledger);
}

// ---- in ------------------------------------------------------------------------------------------------------

/** Fails with `AlreadyBonded`, or `InsufficientBond` below the existential deposit. Takes what there is, up to `value`. */
export function bond(env: Env, stash: AccountId, value: Balance, payee: RewardDestination): void {
  const { host } = env;
  ensure(!store.Bonded.has(host, stash), errors.AlreadyBonded);
  const amount = least(value, balances.holdable(host, stash, STAKING_HOLD));
  ensure(amount >= MINIMUM, errors.InsufficientBond);
  store.Bonded.insert(host, stash, stash);
  store.Payee.insert(host, stash, payee);
  putLedger(env, { stash, total: amount, active: amount, unlocking: [], legacyClaimedRewards: [] });
  env.emit(events.Bonded, { stash, amount });
}

export function bondExtra(env: Env, stash: AccountId, most: Balance): void {
  const { host } = env;
  const ledger = ledgerOf(host, stash) ?? fail(errors.NotStash);
  const extra = least(most, balances.holdable(host, stash, STAKING_HOLD));
  if (extra === 0n) return;
  const active = ledger.active + extra;
  ensure(active >= MINIMUM, errors.InsufficientBond);
  putLedger(env, { ...ledger, active, total: ledger.total + extra });
  env.emit(events.Bonded, { stash, amount: extra });
}

// ---- out -----------------------------------------------------------------------------------------------------

/** The least that the stash's role needs. */
function minimumOf(host: Host, stash: AccountId): Balance {
  if (store.Nominators.has(host, stash)) return store.MinNominatorBond.get(host);
  return store.Validators.has(host, stash) ? store.MinValidatorBond.get(host) : 0n;
}

/** Begins to unlock; what would be left below the existential deposit goes too. */
export function unbond(env: Env, stash: AccountId, value: Balance): void {
  const { host } = env;
  let ledger = ownLedger(host, stash);
  if (ledger.unlocking.length >= MAX_UNLOCKING_CHUNKS) {
    withdrawUnbonded(env, stash);
    ledger = ownLedger(host, stash);
  }
  ensure(ledger.unlocking.length < MAX_UNLOCKING_CHUNKS, errors.NoMoreChunks);
  let amount = least(value, ledger.active);
  if (amount === 0n) return;
  if (ledger.active - amount < MINIMUM) amount = ledger.active;
  const active = ledger.active - amount;
  ensure(active >= minimumOf(host, stash), errors.InsufficientBond);
  const era = (currentEra(host) ?? 0) + eras(host).bondingDuration;
  const last = ledger.unlocking.at(-1);
  const unlocking: UnlockChunk[] =
    last?.era === era
      ? [...ledger.unlocking.slice(0, -1), { era, value: last.value + amount }]
      : [...ledger.unlocking, { era, value: amount }];
  putLedger(env, { ...ledger, active, unlocking });
  env.emit(events.Unbonded, { stash, amount });
}

/** Takes back what is unlocking, the latest first. */
export function rebond(env: Env, stash: AccountId, value: Balance): void {
  const ledger = ownLedger(env.host, stash);
  ensure(ledger.unlocking.length > 0, errors.NoUnlockChunk);
  const unlocking = [...ledger.unlocking];
  let amount = 0n;
  for (let chunk = unlocking.pop(); chunk !== undefined; chunk = unlocking.pop()) {
    const part = least(chunk.value, value - amount);
    amount += part;
    if (part === chunk.value) continue;
    unlocking.push({ ...chunk, value: chunk.value - part });
    break;
  }
  const active = ledger.active + amount;
  ensure(active >= MINIMUM, errors.InsufficientBond);
  putLedger(env, { ...ledger, active, unlocking });
  env.emit(events.Bonded, { stash, amount });
}

/**
 * Frees what has unlocked; a stash with nothing left is forgotten. The active era counts, not the planned one: until it
 * begins, offences of the era in which the stake last worked can be reported, and find it.
 */
export function withdrawUnbonded(env: Env, stash: AccountId): void {
  const { host } = env;
  const ledger = ownLedger(host, stash);
  const now = activeEra(host) ?? 0;
  const unlocking = ledger.unlocking.filter(({ era }) => era > now);
  const total = unlocking.reduce((sum, { value }) => sum + value, ledger.active);
  if (unlocking.length === 0 && ledger.active < MINIMUM) killStash(env, stash);
  else putLedger(env, { ...ledger, total, unlocking });
  const amount = ledgerOf(host, stash) === undefined ? ledger.total : ledger.total - total;
  if (amount > 0n) env.emit(events.Withdrawn, { stash, amount });
}

/** Frees everything at once and forgets the stash. */
export function killStash(env: Env, stash: AccountId): void {
  const { host } = env;
  leaveRole(env, stash);
  balances.release(env, STAKING_HOLD, stash, balances.heldOf(host, STAKING_HOLD, stash));
  store.Ledger.remove(host, stash);
  store.Bonded.remove(host, stash);
  store.Payee.remove(host, stash);
}

// ---- roles ---------------------------------------------------------------------------------------------------

const limit = (set: number | undefined, hard: number): number => Math.min(set ?? hard, hard);
export const maxValidators = (host: Host): number => limit(store.MaxValidatorsCount.get(host), MAX_VALIDATORS);
export const maxNominators = (host: Host): number => limit(store.MaxNominatorsCount.get(host), MAX_NOMINATORS);

function removeValidator(host: Host, stash: AccountId): boolean {
  if (!store.Validators.has(host, stash)) return false;
  unrank(host, VALIDATING, stash);
  store.Validators.remove(host, stash);
  store.CounterForValidators.mutate(host, (count) => count - 1);
  return true;
}

function removeNominator(host: Host, stash: AccountId): boolean {
  if (!store.Nominators.has(host, stash)) return false;
  unrank(host, NOMINATING, stash);
  store.Nominators.remove(host, stash);
  store.CounterForNominators.mutate(host, (count) => count - 1);
  return true;
}

function leaveRole({ host }: Env, stash: AccountId): boolean {
  const validated = removeValidator(host, stash);
  return removeNominator(host, stash) || validated;
}

/** From the next election on the stash neither validates nor nominates. */
export function chill(env: Env, stash: AccountId): void {
  if (leaveRole(env, stash)) env.emit(events.Chilled, { stash });
}

/**
 * Makes room for a stash in a role whose places are all taken: whoever stakes least loses its place, if that is less than
 * the newcomer stakes. Fails with `full` otherwise.
 */
function makeRoom(env: Env, role: Role, stash: AccountId, full: ErrorDef): void {
  const { host } = env;
  const last = poorest(host, role);
  ensure(last !== undefined && activeStake(host, last) < activeStake(host, stash), full);
  chill(env, last);
}

/** Fails with `TooManyValidators`. */
export function becomeValidator(env: Env, stash: AccountId, prefs: ValidatorPrefs): void {
  const { host } = env;
  removeNominator(host, stash);
  if (!store.Validators.has(host, stash)) {
    if (store.CounterForValidators.get(host) >= maxValidators(host)) {
      makeRoom(env, VALIDATING, stash, errors.TooManyValidators);
    }
    store.CounterForValidators.mutate(host, (count) => count + 1);
    rank(host, VALIDATING, stash);
  }
  store.Validators.insert(host, stash, prefs);
  env.emit(events.ValidatorPrefsSet, { stash, prefs });
}

/** Fails with `TooManyNominators`. */
export function becomeNominator(env: Env, stash: AccountId, targets: AccountId[]): void {
  const { host } = env;
  removeValidator(host, stash);
  if (!store.Nominators.has(host, stash)) {
    if (store.CounterForNominators.get(host) >= maxNominators(host)) {
      makeRoom(env, NOMINATING, stash, errors.TooManyNominators);
    }
    store.CounterForNominators.mutate(host, (count) => count + 1);
    rank(host, NOMINATING, stash);
  }
  const wish: Nominations = { targets, submittedIn: currentEra(host) ?? 0, suppressed: false };
  store.Nominators.insert(host, stash, wish);
}
