/**
 * Staking: OPEN that answers for validators (`pallet_staking`). Whoever bonds stakes, as a validator or behind validators;
 * an election gives the seats of an era, points share out what stakers earn in it, and offences cost a part of the stake.
 *
 * Where today's `pallet_staking` has bags of voters, there is a limit on nominators: all of them take part in every
 * election, and `MinNominatorBond` with `chill_other` keeps the places for those who stake most. Every stash is its own
 * controller. Two calls are this chain's own: `set_inflation`, and nothing of what other pallets of the family add.
 */
import { accountOf, addWeight, cost, ensure, ensureSigned, fail, scaleWeight } from '../../framework/dispatch.ts';
import { apiMethod, call, constant, type Env, pallet, runtimeApi } from '../../framework/pallet.ts';
import { storage } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { bool, compact, u32, vec } from '../../primitives/scale/codec.ts';
import {
  type AccountId,
  accountId,
  type Balance,
  balance,
  multiAddress,
  PERBILL,
  sameAccount,
} from '../../primitives/types.ts';
import * as authorship from './authorship.ts';
import * as balances from './balances.ts';
import { noteStart } from './staking/eras.ts';
import { INDEX, STAKING_HOLD } from './staking/hold.ts';
import * as ledgers from './staking/ledger.ts';
import { hasUnclaimed, noteAuthor, pagesOf, payPage } from './staking/rewards.ts';
import { rootCalls, setMinimumBond, setValidatorCount } from './staking/root-calls.ts';
import { slashes } from './staking/slashing.ts';
import { DEFAULT_ERAS, errors, events, HISTORY_DEPTH, POT, store } from './staking/store.ts';
import {
  DEFAULT_CHILL_THRESHOLD,
  type EraParameters,
  MAX_EXPOSURE_PAGE_SIZE,
  MAX_NOMINATIONS,
  MAX_UNLOCKING_CHUNKS,
  MAX_VALIDATOR_SET,
  rewardDestination,
  validatorPrefs,
} from './staking/types.ts';

export { manager } from './staking/eras.ts';
export { onOffence } from './staking/slashing.ts';

export { POT } from './staking/store.ts';

const STAKE_WEIGHT = cost(60_000_000n, 8, 8);
const perTarget = cost(2_000_000n, 2, 0);
const perPayout = cost(60_000_000n, 5, 4);

function payOut(env: Env, who: AccountId, era: number, page: number): { actualWeight: ReturnType<typeof cost> } {
  const people = payPage(env, who, era, page);
  return { actualWeight: addWeight(STAKE_WEIGHT, scaleWeight(perPayout, BigInt(people + 1))) };
}
const PAYOUT_WEIGHT = addWeight(STAKE_WEIGHT, scaleWeight(perPayout, BigInt(MAX_EXPOSURE_PAGE_SIZE + 1)));

/** Whether a stash takes a place that others need and stakes too little for it. */
function mayBeChilled(host: Host, stash: AccountId): boolean {
  const threshold = store.ChillThreshold.get(host) ?? DEFAULT_CHILL_THRESHOLD;
  const validates = store.Validators.has(host, stash);
  const least = (validates ? store.MinValidatorBond : store.MinNominatorBond).get(host);
  const count = (validates ? store.CounterForValidators : store.CounterForNominators).get(host);
  const most = validates ? ledgers.maxValidators(host) : ledgers.maxNominators(host);
  return count * 100 >= threshold * most && ledgers.activeStake(host, stash) < least;
}

export const calls = {
  bond: call({
    index: 0,
    args: { value: compact(balance), payee: rewardDestination },
    weight: STAKE_WEIGHT,
    docs: 'Take the origin account as a stash and lock up `value` of its balance. `payee` is where its rewards go.',
    run({ origin, ...env }, { value, payee }) {
      ledgers.bond(env, ensureSigned(origin), value, payee);
    },
  }),
  bondExtra: call({
    index: 1,
    args: { maxAdditional: compact(balance) },
    weight: STAKE_WEIGHT,
    docs: 'Add some extra amount that have appeared in the stash `free_balance` into the balance up for staking.',
    run({ origin, ...env }, { maxAdditional }) {
      ledgers.bondExtra(env, ensureSigned(origin), maxAdditional);
    },
  }),
  unbond: call({
    index: 2,
    args: { value: compact(balance) },
    weight: STAKE_WEIGHT,
    docs: 'Schedule a portion of the stash to be unlocked ready for transfer out after the bond period ends.',
    run({ origin, ...env }, { value }) {
      ledgers.unbond(env, ensureSigned(origin), value);
    },
  }),
  withdrawUnbonded: call({
    index: 3,
    args: { numSlashingSpans: u32 },
    weight: STAKE_WEIGHT,
    docs: 'Remove any unlocked chunks from the `unlocking` queue; they are free from then on. The number is of no consequence here.',
    run({ origin, ...env }) {
      ledgers.withdrawUnbonded(env, ensureSigned(origin));
    },
  }),
  validate: call({
    index: 4,
    args: { prefs: validatorPrefs },
    weight: STAKE_WEIGHT,
    docs: 'Declare the desire to validate for the origin controller; effects will be felt at the beginning of the next era.\nOnly validators with session keys can be elected. Where all places are taken, whoever stakes least gives its place to one who stakes more.',
    run({ origin, ...env }, { prefs }) {
      const { host } = env;
      const stash = ensureSigned(origin);
      const { active } = ledgers.ownLedger(host, stash);
      ensure(active >= store.MinValidatorBond.get(host), errors.InsufficientBond);
      ensure(prefs.commission >= store.MinCommission.get(host), errors.CommissionTooLow);
      ensure(prefs.commission <= PERBILL, errors.BoundNotMet);
      ledgers.becomeValidator(env, stash, prefs);
    },
  }),
  nominate: call({
    index: 5,
    args: { targets: vec(multiAddress) },
    weight: ({ targets }) => addWeight(STAKE_WEIGHT, scaleWeight(perTarget, BigInt(targets.length))),
    docs: 'Declare the desire to nominate `targets` for the origin controller; effects will be felt at the beginning of the next era.\nWhere all places are taken, whoever stakes least gives its place to one who stakes more.',
    run({ origin, ...env }, { targets }) {
      const { host } = env;
      const stash = ensureSigned(origin);
      const { active } = ledgers.ownLedger(host, stash);
      ensure(active >= store.MinNominatorBond.get(host), errors.InsufficientBond);
      const before = store.Nominators.get(host, stash);
      ensure(targets.length > 0, errors.EmptyTargets);
      ensure(targets.length <= MAX_NOMINATIONS, errors.TooManyTargets);
      const wanted: AccountId[] = [];
      for (const target of targets.map(accountOf)) {
        if (wanted.some((each) => sameAccount(each, target))) continue;
        const kept = before?.targets.some((each) => sameAccount(each, target)) ?? false;
        const open = store.Validators.has(host, target) && !store.Validators.get(host, target).blocked;
        ensure(kept || open, errors.BadTarget);
        wanted.push(target);
      }
      ledgers.becomeNominator(env, stash, wanted);
    },
  }),
  chill: call({
    index: 6,
    args: {},
    weight: STAKE_WEIGHT,
    docs: 'Declare no desire to either validate or nominate; effects will be felt at the beginning of the next era.',
    run({ origin, ...env }) {
      const stash = ensureSigned(origin);
      ledgers.ownLedger(env.host, stash);
      ledgers.chill(env, stash);
    },
  }),
  setPayee: call({
    index: 7,
    args: { payee: rewardDestination },
    weight: cost(15_000_000n, 1, 1),
    docs: '(Re-)set the payment target for a controller; effects will be felt instantly.',
    run({ origin, host }, { payee }) {
      const stash = ensureSigned(origin);
      ledgers.ownLedger(host, stash);
      store.Payee.insert(host, stash, payee);
    },
  }),
  payoutStakers: call({
    index: 18,
    args: { validatorStash: accountId, era: u32 },
    weight: PAYOUT_WEIGHT,
    docs: 'Pay out next page of the stakers behind a validator for the given era. Anybody may.',
    run({ origin, ...env }, { validatorStash, era }) {
      ensureSigned(origin);
      const claimed = store.ClaimedRewards.get(env.host, [era, validatorStash]);
      const pages = Array.from({ length: pagesOf(env.host, era, validatorStash) }, (_, i) => i);
      const page = pages.find((each) => !claimed.includes(each)) ?? fail(errors.AlreadyClaimed);
      return payOut(env, validatorStash, era, page);
    },
  }),
  rebond: call({
    index: 19,
    args: { value: compact(balance) },
    weight: STAKE_WEIGHT,
    docs: 'Rebond a portion of the stash scheduled to be unlocked.',
    run({ origin, ...env }, { value }) {
      ledgers.rebond(env, ensureSigned(origin), value);
    },
  }),
  reapStash: call({
    index: 20,
    args: { stash: accountId, numSlashingSpans: u32 },
    weight: STAKE_WEIGHT,
    docs: 'Remove all data structures concerning a staker/stash whose stake is below the existential deposit, as after a slash. Anybody may, for free.',
    run({ origin, ...env }, { stash }) {
      ensureSigned(origin);
      const ledger = ledgers.ledgerOf(env.host, stash) ?? fail(errors.NotStash);
      ensure(ledger.total < balances.EXISTENTIAL_DEPOSIT, errors.FundedTarget);
      ledgers.killStash(env, stash);
      return { paysFee: false };
    },
  }),
  kick: call({
    index: 21,
    args: { who: vec(multiAddress) },
    weight: ({ who }) => addWeight(STAKE_WEIGHT, scaleWeight(cost(5_000_000n, 1, 1), BigInt(who.length))),
    docs: 'Remove the given nominations from the calling validator.',
    run({ origin, host, emit }, { who }) {
      const stash = ensureSigned(origin);
      ledgers.ownLedger(host, stash);
      for (const nominator of who.map(accountOf)) {
        const wish = store.Nominators.get(host, nominator);
        const targets = wish?.targets.filter((each) => !sameAccount(each, stash)) ?? [];
        if (wish === undefined || targets.length === wish.targets.length) continue;
        store.Nominators.insert(host, nominator, { ...wish, targets });
        emit(events.Kicked, { nominator, stash });
      }
    },
  }),
  chillOther: call({
    index: 23,
    args: { stash: accountId },
    weight: STAKE_WEIGHT,
    docs: 'Declare a `controller` to stop participating as either a validator or nominator: where places are scarce, one who stakes less than is required now.',
    run({ origin, ...env }, { stash }) {
      const caller = ensureSigned(origin);
      ledgers.ownLedger(env.host, stash);
      ensure(sameAccount(caller, stash) || mayBeChilled(env.host, stash), errors.CannotChillOther);
      ledgers.chill(env, stash);
    },
  }),
  forceApplyMinCommission: call({
    index: 24,
    args: { validatorStash: accountId },
    weight: cost(15_000_000n, 2, 1),
    docs: 'Force a validator to have at least the minimum commission.',
    run({ origin, host }, { validatorStash }) {
      ensureSigned(origin);
      ensure(store.Validators.has(host, validatorStash), errors.NotStash);
      const least = store.MinCommission.get(host);
      const prefs = store.Validators.get(host, validatorStash);
      if (prefs.commission < least) store.Validators.insert(host, validatorStash, { ...prefs, commission: least });
    },
  }),
  payoutStakersByPage: call({
    index: 26,
    args: { validatorStash: accountId, era: u32, page: u32 },
    weight: PAYOUT_WEIGHT,
    docs: 'Pay out a page of the stakers behind the given validator for the given era and page. Anybody may.',
    run({ origin, ...env }, { validatorStash, era, page }) {
      ensureSigned(origin);
      return payOut(env, validatorStash, era, page);
    },
  }),
  ...rootCalls,
};

// ---- genesis -------------------------------------------------------------------------------------------------

export type StakerStatus =
  | { readonly type: 'Validator' | 'Idle' }
  | { readonly type: 'Nominator'; readonly targets: readonly AccountId[] };

export interface StakingGenesis {
  readonly validatorCount: number;
  readonly minimumValidatorCount: number;
  readonly stakers: readonly { readonly stash: AccountId; readonly bond: Balance; readonly status: StakerStatus }[];
  readonly invulnerables: readonly AccountId[];
  readonly minNominatorBond: Balance;
  readonly minValidatorBond: Balance;
  /** Parts per billion. */
  readonly slashRewardFraction?: number | undefined;
  readonly inflation: number;
  readonly eras: Partial<EraParameters>;
}

function minimumFor(host: Host, { type }: StakerStatus): Balance {
  if (type === 'Idle') return 0n;
  return (type === 'Validator' ? store.MinValidatorBond : store.MinNominatorBond).get(host);
}

/** An offence is known, waited for and slashed before the last of its era's stakes is free. */
function ensureEras({ sessionsPerEra, bondingDuration, slashDeferDuration }: EraParameters): void {
  ensure(sessionsPerEra >= 1 && bondingDuration >= 2, errors.BoundNotMet);
  ensure(slashDeferDuration === 0 || slashDeferDuration + 2 <= bondingDuration, errors.BoundNotMet);
}

export const staking = pallet({
  name: 'Staking',
  index: INDEX,
  docs: 'Stakes, validators, nominators, eras, rewards and slashes.',
  storage: storage('Staking', { ...store, ...slashes.storage }),
  work: [slashes],
  calls,
  events,
  errors,
  holdReasons: { Staking: STAKING_HOLD },
  constants: {
    HistoryDepth: constant(u32, HISTORY_DEPTH, 'Number of eras to keep in history.'),
    SessionsPerEra: constant(u32, (host) => store.Eras.get(host).sessionsPerEra, 'Number of sessions per era.'),
    BondingDuration: constant(
      u32,
      (host) => store.Eras.get(host).bondingDuration,
      'Number of eras that staked funds must remain bonded for.',
    ),
    SlashDeferDuration: constant(
      u32,
      (host) => store.Eras.get(host).slashDeferDuration,
      'Number of eras that slashes are deferred by, after computation.',
    ),
    MaxExposurePageSize: constant(u32, MAX_EXPOSURE_PAGE_SIZE, 'The maximum size of each `ExposurePage`.'),
    MaxValidatorSet: constant(
      u32,
      MAX_VALIDATOR_SET,
      'The absolute maximum of winner validators this pallet should return.',
    ),
    MaxUnlockingChunks: constant(
      u32,
      MAX_UNLOCKING_CHUNKS,
      'The maximum number of `unlocking` chunks a ledger can have.',
    ),
    MaxNominations: constant(u32, MAX_NOMINATIONS, 'Maximum number of nominations per nominator.'),
    Pot: constant(accountId, POT, 'The account that holds what stakers earn until it is paid out.'),
  },
  hooks: {
    onInitialize({ host }) {
      const author = authorship.author(host);
      if (author !== undefined) noteAuthor(host, author);
      return cost(10_000_000n, 5, 2);
    },
    onFinalize: ({ host }) => noteStart(host),
  },
  apis: [
    runtimeApi({
      name: 'StakingApi',
      version: 1,
      docs: 'What stakers ask.',
      methods: {
        nominations_quota: apiMethod({
          inputs: { balance },
          output: u32,
          docs: 'Returns the nominations quota for a nominator with a given balance.',
          run: () => MAX_NOMINATIONS,
        }),
        eras_stakers_page_count: apiMethod({
          inputs: { era: u32, account: accountId },
          output: u32,
          docs: 'Returns the page count of exposures for a validator `account` in a given era.',
          run: ({ host }, { era, account }) => pagesOf(host, era, account),
        }),
        pending_rewards: apiMethod({
          inputs: { era: u32, account: accountId },
          output: bool,
          docs: 'Returns true if validator `account` has pages to be claimed for the given era.',
          run: ({ host }, { era, account }) => hasUnclaimed(host, era, account),
        }),
      },
    }),
  ],
  genesis(env, config: StakingGenesis | undefined) {
    const { host } = env;
    // The pot outlives its contents, so that no fee is too small to be paid into it.
    balances.deposit(env, POT, balances.EXISTENTIAL_DEPOSIT);
    if (config === undefined) return;
    const lengths = { ...DEFAULT_ERAS, ...config.eras };
    ensureEras(lengths);
    store.Eras.put(host, lengths);
    setValidatorCount(host, config.validatorCount);
    store.MinimumValidatorCount.put(host, config.minimumValidatorCount);
    store.Invulnerables.put(host, [...config.invulnerables]);
    setMinimumBond(host, 'MinNominatorBond', config.minNominatorBond);
    setMinimumBond(host, 'MinValidatorBond', config.minValidatorBond);
    if (config.slashRewardFraction !== undefined) store.SlashRewardFraction.put(host, config.slashRewardFraction);
    store.Inflation.put(host, config.inflation);
    for (const { stash, bond, status } of config.stakers) {
      ledgers.bond(env, stash, bond, { type: 'Staked' });
      ensure(bond >= minimumFor(host, status), errors.InsufficientBond);
      if (status.type === 'Validator') ledgers.becomeValidator(env, stash, { commission: 0, blocked: false });
      if (status.type === 'Nominator') ledgers.becomeNominator(env, stash, [...status.targets]);
    }
  },
});
