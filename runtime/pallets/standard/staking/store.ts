/** Storage, events and errors of Staking, as `pallet_staking` names them. */
import { error } from '../../../framework/dispatch.ts';
import { event } from '../../../framework/pallet.ts';
import {
  blake2_128Concat,
  identity,
  map,
  mapWithDefault,
  nMap,
  nMapWithDefault,
  optionalValue,
  storage,
  twox64Concat,
  value,
} from '../../../framework/storage.ts';
import type { Host } from '../../../host.ts';
import { palletAccount } from '../../../primitives/pallet-id.ts';
import { bool, fixedBytes, option, tuple, u8, u32, vec } from '../../../primitives/scale/codec.ts';
import { accountId, balance, perbill } from '../../../primitives/types.ts';
import {
  activeEraInfo,
  type EraParameters,
  eraParameters,
  eraRewardPoints,
  exposureOverview,
  exposurePage,
  forcing,
  LEAST_NOMINATOR_BOND,
  LEAST_VALIDATOR_BOND,
  MAX_UNAPPLIED_SLASHES,
  MAX_VALIDATOR_SET,
  nominations,
  percent,
  rewardDestination,
  stakingLedger,
  unappliedSlash,
  validatorPrefs,
} from './types.ts';

/** Holds what stakers earn until it is paid out: their part of the fees, and what is minted for them. */
export const POT = palletAccount('ol/stake');

/** Eras whose rewards can be claimed. */
export const HISTORY_DEPTH = 84;
/** With slots of three seconds and sessions of half an hour: eras of a day, two weeks of bonding. */
export const DEFAULT_ERAS: EraParameters = { sessionsPerEra: 48, bondingDuration: 14, slashDeferDuration: 7 };

const era = twox64Concat(u32);
const stash = twox64Concat(accountId);

export const store = storage('Staking', {
  ValidatorCount: value(u32, 0, 'The ideal number of active validators.'),
  MinimumValidatorCount: value(
    u32,
    0,
    'Minimum number of staking participants before emergency conditions are imposed.',
  ),
  Invulnerables: value(
    vec(accountId, MAX_VALIDATOR_SET),
    [],
    'Any validators that may never be slashed or forcibly kicked.',
  ),
  Bonded: map(stash, accountId, 'Map from all locked "stash" accounts to the controller account, which is the same.'),
  MinNominatorBond: value(
    balance,
    LEAST_NOMINATOR_BOND,
    'The minimum active bond to become and maintain the role of a nominator.',
  ),
  MinValidatorBond: value(
    balance,
    LEAST_VALIDATOR_BOND,
    'The minimum active bond to become and maintain the role of a validator.',
  ),
  MinimumActiveStake: value(balance, 0n, 'The minimum active nominator stake of the last successful election.'),
  MinCommission: value(perbill, 0, 'The minimum amount of commission that validators can set.'),
  Ledger: map(
    blake2_128Concat(accountId),
    stakingLedger,
    'Map from all (unlocked) "controller" accounts to the info regarding the staking.',
  ),
  Payee: map(stash, rewardDestination, 'Where the reward payment should be made. Keyed by stash.'),
  Validators: mapWithDefault(
    stash,
    validatorPrefs,
    { commission: 0, blocked: false },
    'The map from (wannabe) validator stash key to the preferences of that validator.',
  ),
  CounterForValidators: value(u32, 0, 'Counter for the related counted storage map.'),
  MaxValidatorsCount: optionalValue(u32, 'The maximum validator count before we stop allowing new validators to join.'),
  Nominators: map(
    stash,
    nominations,
    'The map from nominator stash key to their nomination preferences, namely the validators that they wish to support.',
  ),
  CounterForNominators: value(u32, 0, 'Counter for the related counted storage map.'),
  MaxNominatorsCount: optionalValue(u32, 'The maximum nominator count before we stop allowing new nominators to join.'),
  CurrentEra: optionalValue(u32, 'The current era index: the latest planned one, which may not be active yet.'),
  ActiveEra: optionalValue(activeEraInfo, 'The active era information, it holds index and start.'),
  ErasStartSessionIndex: map(era, u32, 'The session index at which the era starts for the last eras.'),
  ErasStakersOverview: nMap([era, stash], exposureOverview, 'Summary of validator exposure at a given era.'),
  ErasStakersPaged: nMap([era, stash, era], exposurePage, 'Paginated exposure of a validator at given era.'),
  ClaimedRewards: nMapWithDefault([era, stash], vec(u32), [], 'History of claimed paged rewards by era and validator.'),
  ErasValidatorPrefs: nMapWithDefault(
    [era, stash],
    validatorPrefs,
    { commission: 0, blocked: false },
    'The preferences of the elected validators of the last eras.',
  ),
  ErasValidatorReward: map(era, balance, 'The total validator era payout for the last eras.'),
  ErasRewardPoints: mapWithDefault(
    era,
    eraRewardPoints,
    { total: 0, individual: [] },
    'Rewards for the last eras. If reward hasn’t been set or has been removed then 0 reward is returned.',
  ),
  ErasTotalStake: mapWithDefault(era, balance, 0n, 'The total amount staked for the last eras.'),
  ForceEra: value(forcing, { type: 'NotForcing' }, 'Mode of era forcing.'),
  MaxStakedRewards: optionalValue(
    percent,
    'Maximum staked rewards, i.e. the percentage of the era inflation that is used for stake rewards.',
  ),
  SlashRewardFraction: value(
    perbill,
    100_000_000,
    'The percentage of the slash that is distributed to reporters; the rest is the treasury’s.',
  ),
  CanceledSlashPayout: value(
    balance,
    0n,
    'The amount of currency given to reporters of a slash event which was canceled by extraordinary circumstances.',
  ),
  UnappliedSlashes: mapWithDefault(
    era,
    vec(unappliedSlash, MAX_UNAPPLIED_SLASHES),
    [],
    'All unapplied slashes that are queued for later, by the era that takes them.',
  ),
  BondedEras: value(
    vec(tuple(u32, u32)),
    [],
    'A mapping from still-bonded eras to the first session index of that era.',
  ),
  ValidatorSlashInEra: nMap(
    [era, stash],
    tuple(perbill, balance),
    'All slashing events on validators, mapped by era to the highest slash proportion and slash value of the era.',
  ),
  NominatorSlashInEra: nMap(
    [era, stash],
    balance,
    'All slashing events on nominators, mapped by era to the slash value of the era.',
  ),
  CurrentPlannedSession: value(u32, 0, 'The last planned session scheduled by the session pallet.'),
  ChillThreshold: optionalValue(
    percent,
    'The threshold for when users can start calling `chill_other` for other validators / nominators.',
  ),
  Ranking: nMap(
    [identity(u8), identity(fixedBytes(16)), identity(accountId)],
    bool,
    'Validators (0) and nominators (1) by their active stake, big-endian: the first of each is the first to lose its place.',
  ),
  Eras: value(eraParameters, DEFAULT_ERAS, 'Lengths of eras and of bonding, set by the chain spec for good.'),
  Inflation: value(perbill, 0, 'Part of the total issuance that is minted for stakers in a year.'),
  ErasUnpaid: mapWithDefault(era, balance, 0n, 'What is left to claim of the payout of an era.'),
  Promised: value(balance, 0n, 'The sum of `ErasUnpaid`: what of the pot belongs to past eras already.'),
});

export const events = {
  EraPaid: event(
    0,
    { eraIndex: u32, validatorPayout: balance, remainder: balance },
    'The era payout has been set; the first balance is the validator-payout; the second is the remainder from the maximum amount of reward.',
  ),
  Rewarded: event(
    1,
    { stash: accountId, dest: rewardDestination, amount: balance },
    'The nominator has been rewarded by this amount to this destination.',
  ),
  Slashed: event(
    2,
    { staker: accountId, amount: balance },
    'A staker (validator or nominator) has been slashed by the given amount.',
  ),
  SlashReported: event(
    3,
    { validator: accountId, fraction: perbill, slashEra: u32 },
    'A slash for the given validator, for the given percentage of their stake, at the given era as been reported.',
  ),
  OldSlashingReportDiscarded: event(
    4,
    { sessionIndex: u32 },
    'An old slashing report from a prior era was discarded because it could not be processed.',
  ),
  StakersElected: event(5, 'A new set of stakers was elected.'),
  Bonded: event(6, { stash: accountId, amount: balance }, 'An account has bonded this amount. [stash, amount]'),
  Unbonded: event(7, { stash: accountId, amount: balance }, 'An account has unbonded this amount.'),
  Withdrawn: event(
    8,
    { stash: accountId, amount: balance },
    'An account has called `withdraw_unbonded` and removed unbonding chunks worth `Balance` from the unlocking queue.',
  ),
  Kicked: event(9, { nominator: accountId, stash: accountId }, 'A nominator has been kicked from a validator.'),
  StakingElectionFailed: event(10, 'The election failed. No new era is planned.'),
  Chilled: event(11, { stash: accountId }, 'An account has stopped participating as either a validator or nominator.'),
  PayoutStarted: event(
    12,
    { eraIndex: u32, validatorStash: accountId, page: u32, next: option(u32) },
    'A page of stakers rewards are getting paid. `next` is the next page to be claimed.',
  ),
  ValidatorPrefsSet: event(13, { stash: accountId, prefs: validatorPrefs }, 'A validator has set their preferences.'),
  ForceEra: event(16, { mode: forcing }, 'A new force era mode was set.'),
  InflationSet: event(40, { annual: perbill }, 'Governance set what is minted for stakers in a year.'),
  SlashCancelled: event(
    41,
    { era: u32, validator: accountId },
    'A slash that waited for an era was cancelled by root.',
  ),
};

export const errors = {
  NotController: error(0, 'Not a controller account.'),
  NotStash: error(1, 'Not a stash account.'),
  AlreadyBonded: error(2, 'Stash is already bonded.'),
  EmptyTargets: error(4, 'Targets cannot be empty.'),
  DuplicateIndex: error(5, 'Duplicate index.'),
  InvalidSlashIndex: error(6, 'Slash record not found.'),
  InsufficientBond: error(
    7,
    'Cannot bond, nominate or validate with value less than the minimum defined by governance (see `MinValidatorBond` and `MinNominatorBond`).',
  ),
  NoMoreChunks: error(8, 'Can not schedule more unlock chunks.'),
  NoUnlockChunk: error(9, 'Can not rebond without unlocking chunks.'),
  FundedTarget: error(10, 'Attempting to target a stash that still has funds.'),
  InvalidEraToReward: error(11, 'Invalid era to reward.'),
  NotSortedAndUnique: error(13, 'Items are not sorted and unique.'),
  AlreadyClaimed: error(14, 'Rewards for this era have already been claimed for this validator.'),
  InvalidPage: error(15, 'No nominators exist on this page.'),
  TooManyTargets: error(19, 'Too many nomination targets supplied.'),
  BadTarget: error(20, 'A nomination target was supplied that was blocked or otherwise not a validator.'),
  CannotChillOther: error(21, 'The user has enough bond and thus cannot be chilled forcefully by an external person.'),
  TooManyNominators: error(22, 'There are too many nominators in the system.'),
  TooManyValidators: error(23, 'There are too many validator candidates in the system.'),
  CommissionTooLow: error(24, 'Commission is too low. Must be at least `MinCommission`.'),
  BoundNotMet: error(25, 'Some bound is not met.'),
};

// ---- eras ----------------------------------------------------------------------------------------------------

export const eras = (host: Host): EraParameters => store.Eras.get(host);
/** The latest planned era; undefined before the first election. */
export const currentEra = (host: Host): number | undefined => store.CurrentEra.get(host);
export const activeEra = (host: Host): number | undefined => store.ActiveEra.get(host)?.index;
