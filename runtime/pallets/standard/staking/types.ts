/** What Staking keeps, in the shapes that wallets know (`pallet_staking`, `sp_staking`). */
import {
  bool,
  type Codec,
  compact,
  type Infer,
  named,
  option,
  pairs,
  struct,
  tuple,
  u8,
  u32,
  u64,
  unit,
  variants,
  vec,
} from '../../../primitives/scale/codec.ts';
import { accountId, type Balance, balance, perbill } from '../../../primitives/types.ts';

/** Whom one nominator can back. */
export const MAX_NOMINATIONS = 16;
/** Amounts of one stash that are on their way out at a time. */
export const MAX_UNLOCKING_CHUNKS = 32;
/** Nominators of one payout. */
export const MAX_EXPOSURE_PAGE_SIZE = 256;
/** What one election can take: about half a second of a slow machine. Lower limits are governance's. */
export const MAX_VALIDATORS = 256;
export const MAX_NOMINATORS = 2_048;
/** No minimum bond can be set below these: a place is worth more than dust, whatever the chain. */
export const LEAST_NOMINATOR_BOND: Balance = 10n ** 18n;
export const LEAST_VALIDATOR_BOND: Balance = 10n * 10n ** 18n;
/** Part of the places, in parts per hundred, from which on whoever stakes too little can be chilled, unless root says otherwise. */
export const DEFAULT_CHILL_THRESHOLD = 75;
/** Validators of one set. */
export const MAX_VALIDATOR_SET = 100;
/** Slashes that wait for one era; what is more is taken at once. And reporters of one slash. */
export const MAX_UNAPPLIED_SLASHES = MAX_VALIDATOR_SET;
export const MAX_REPORTERS = 16;

/** Parts per hundred. */
export const percent = named('sp_arithmetic::per_things::Percent', u8);

const balanceParam = [{ name: 'Balance', type: balance.type }];
const accountBalanceParams = [{ name: 'AccountId', type: accountId.type }, ...balanceParam];

export const rewardDestination = named(
  'pallet_staking::RewardDestination',
  variants({ Staked: null, Stash: null, Controller: null, Account: accountId, None: null }),
  { params: [{ name: 'AccountId', type: accountId.type }] },
);
export type RewardDestination = Infer<typeof rewardDestination>;

const unlockChunk = named('pallet_staking::UnlockChunk', struct({ value: compact(balance), era: compact(u32) }), {
  params: balanceParam,
});
export type UnlockChunk = Infer<typeof unlockChunk>;

/** `total` is `active` and all that is unlocking; the same is on hold in Balances. */
export const stakingLedger = named(
  'pallet_staking::ledger::StakingLedger',
  struct({
    stash: accountId,
    total: compact(balance),
    active: compact(balance),
    unlocking: vec(unlockChunk, MAX_UNLOCKING_CHUNKS),
    legacyClaimedRewards: vec(u32, 0),
  }),
);
export type Ledger = Infer<typeof stakingLedger>;

export const validatorPrefs = named(
  'pallet_staking::ValidatorPrefs',
  struct({ commission: compact(perbill), blocked: bool }),
);
export type ValidatorPrefs = Infer<typeof validatorPrefs>;

export const nominations = named(
  'pallet_staking::Nominations',
  struct({ targets: vec(accountId, MAX_NOMINATIONS), submittedIn: u32, suppressed: bool }),
);
export type Nominations = Infer<typeof nominations>;

export const activeEraInfo = named('pallet_staking::ActiveEraInfo', struct({ index: u32, start: option(u64) }));
export type ActiveEra = Infer<typeof activeEraInfo>;

const individualExposure = named(
  'sp_staking::IndividualExposure',
  struct({ who: accountId, value: compact(balance) }),
  { params: accountBalanceParams },
);
export type IndividualExposure = Infer<typeof individualExposure>;

export const exposureOverview = named(
  'sp_staking::PagedExposureMetadata',
  struct({ total: compact(balance), own: compact(balance), nominatorCount: u32, pageCount: u32 }),
  { params: balanceParam },
);
export type ExposureOverview = Infer<typeof exposureOverview>;

export const exposurePage = named(
  'sp_staking::ExposurePage',
  struct({ pageTotal: compact(balance), others: vec(individualExposure, MAX_EXPOSURE_PAGE_SIZE) }),
  { params: accountBalanceParams },
);

/** What backs a validator in an era. */
export interface Exposure {
  readonly total: bigint;
  readonly own: bigint;
  readonly others: readonly IndividualExposure[];
}

/** `BTreeMap`, which the writer keeps sorted by key. */
const sortedMap = <K, V>(key: Codec<K>, value: Codec<V>): Codec<[K, V][]> =>
  named('BTreeMap', pairs(key, value), {
    params: [
      { name: 'K', type: key.type },
      { name: 'V', type: value.type },
    ],
  });

export const eraRewardPoints = named(
  'pallet_staking::EraRewardPoints',
  struct({ total: u32, individual: sortedMap(accountId, u32) }),
  { params: [{ name: 'AccountId', type: accountId.type }] },
);
export type EraRewardPoints = Infer<typeof eraRewardPoints>;

export const forcing = named(
  'pallet_staking::Forcing',
  variants({ NotForcing: null, ForceNew: null, ForceNone: null, ForceAlways: null }),
);
export type Forcing = Infer<typeof forcing>;

/** Decided and not yet taken. */
export const unappliedSlash = named(
  'pallet_staking::UnappliedSlash',
  struct({
    validator: accountId,
    own: balance,
    others: vec(tuple(accountId, balance)),
    reporters: vec(accountId, MAX_REPORTERS),
    payout: balance,
  }),
  { params: accountBalanceParams },
);
export type UnappliedSlash = Infer<typeof unappliedSlash>;

/** Leaves a setting, sets it, or goes back to none. */
export const configOp = <T>(of: Codec<T>) =>
  named('pallet_staking::pallet::pallet::ConfigOp', variants({ Noop: null, Set: of, Remove: null }), {
    params: [{ name: 'T', type: of.type }],
  });

/** What the chain spec sets for good. */
export const eraParameters = named(
  'pallet_staking::EraParameters',
  struct({
    sessionsPerEra: u32,
    /** Eras until what was unbonded is free, and in which offences count. */
    bondingDuration: u32,
    /** Eras between an offence and its slash, in which root can cancel it. */
    slashDeferDuration: u32,
  }),
);
export type EraParameters = Infer<typeof eraParameters>;

export const nothing = unit;
