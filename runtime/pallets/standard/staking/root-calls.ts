/** What root alone may do with Staking: by a vote of governance, or with the sudo key of a development chain. */
import { addWeight, cost, type ErrorDef, ensure, ensureRoot, fail, scaleWeight } from '../../../framework/dispatch.ts';
import { call, type Env } from '../../../framework/pallet.ts';
import type { Host } from '../../../host.ts';
import { compact, u32, vec } from '../../../primitives/scale/codec.ts';
import { accountId, type Balance, balance, PERBILL, perbill } from '../../../primitives/types.ts';
import * as ledgers from './ledger.ts';
import { onOffence } from './slashing.ts';
import { errors, events, store } from './store.ts';
import {
  configOp,
  type Forcing,
  LEAST_NOMINATOR_BOND,
  LEAST_VALIDATOR_BOND,
  MAX_EXPOSURE_PAGE_SIZE,
  MAX_VALIDATOR_SET,
  percent,
} from './types.ts';

const STAKE_WEIGHT = cost(60_000_000n, 8, 8);
const perSlash = cost(60_000_000n, 5, 4);
const root = { class: 'Operational' } as const;

function force(env: Env, type: Forcing['type']): void {
  store.ForceEra.put(env.host, { type });
  env.emit(events.ForceEra, { mode: { type } });
}

export function setValidatorCount(host: Host, count: number): void {
  ensure(count <= MAX_VALIDATOR_SET, errors.TooManyValidators);
  store.ValidatorCount.put(host, count);
}

const LEAST_BONDS = { MinNominatorBond: LEAST_NOMINATOR_BOND, MinValidatorBond: LEAST_VALIDATOR_BOND } as const;

/** Fails with `BoundNotMet` below what every chain asks for, so that no place costs mere dust. */
export function setMinimumBond(host: Host, which: keyof typeof LEAST_BONDS, amount: Balance): void {
  ensure(amount >= LEAST_BONDS[which], errors.BoundNotMet);
  store[which].put(host, amount);
}

const minimumBond = (which: keyof typeof LEAST_BONDS): Setting<Balance> => ({
  put: (host, amount) => setMinimumBond(host, which, amount),
  kill: (host) => store[which].kill(host),
});

type Op<T> = { readonly type: 'Noop' | 'Remove' } | { readonly type: 'Set'; readonly value: T };
interface Setting<T> {
  put(host: Host, value: T): void;
  kill(host: Host): void;
}
function change<T>(host: Host, setting: Setting<T>, op: Op<T>): void {
  if (op.type === 'Set') setting.put(host, op.value);
  if (op.type === 'Remove') setting.kill(host);
}

function ensureWithin(value: number, most: number, otherwise: ErrorDef): void {
  ensure(value <= most, otherwise);
}

export const rootCalls = {
  setValidatorCount: call({
    index: 9,
    args: { new: compact(u32) },
    weight: cost(8_000_000n, 0, 1),
    ...root,
    docs: 'Sets the ideal number of validators. Root only.',
    run({ origin, host }, { new: count }) {
      ensureRoot(origin);
      setValidatorCount(host, count);
    },
  }),
  increaseValidatorCount: call({
    index: 10,
    args: { additional: compact(u32) },
    weight: cost(8_000_000n, 1, 1),
    ...root,
    docs: 'Increments the ideal number of validators. Root only.',
    run({ origin, host }, { additional }) {
      ensureRoot(origin);
      setValidatorCount(host, store.ValidatorCount.get(host) + additional);
    },
  }),
  scaleValidatorCount: call({
    index: 11,
    args: { factor: percent },
    weight: cost(8_000_000n, 1, 1),
    ...root,
    docs: 'Scale up the ideal number of validators by a factor. Root only.',
    run({ origin, host }, { factor }) {
      ensureRoot(origin);
      const count = store.ValidatorCount.get(host);
      setValidatorCount(host, count + Math.floor((count * factor) / 100));
    },
  }),
  forceNoEras: call({
    index: 12,
    args: {},
    weight: cost(8_000_000n, 0, 1),
    ...root,
    docs: 'Force there to be no new eras indefinitely. Root only.',
    run({ origin, ...env }) {
      ensureRoot(origin);
      force(env, 'ForceNone');
    },
  }),
  forceNewEra: call({
    index: 13,
    args: {},
    weight: cost(8_000_000n, 0, 1),
    ...root,
    docs: 'Force there to be a new era at the end of the next session. After this, it will be reset to normal (non-forced) behaviour. Root only.',
    run({ origin, ...env }) {
      ensureRoot(origin);
      force(env, 'ForceNew');
    },
  }),
  setInvulnerables: call({
    index: 14,
    args: { invulnerables: vec(accountId, MAX_VALIDATOR_SET) },
    weight: cost(10_000_000n, 0, 1),
    ...root,
    docs: 'Set the validators who cannot be slashed (if any). Root only.',
    run({ origin, host }, { invulnerables }) {
      ensureRoot(origin);
      store.Invulnerables.put(host, invulnerables);
    },
  }),
  forceUnstake: call({
    index: 15,
    args: { stash: accountId, numSlashingSpans: u32 },
    weight: STAKE_WEIGHT,
    ...root,
    docs: 'Force a current staker to become completely unstaked, immediately. Root only.',
    run({ origin, ...env }, { stash }) {
      ensureRoot(origin);
      ensure(store.Bonded.has(env.host, stash), errors.NotStash);
      ledgers.killStash(env, stash);
    },
  }),
  forceNewEraAlways: call({
    index: 16,
    args: {},
    weight: cost(8_000_000n, 0, 1),
    ...root,
    docs: 'Force there to be a new era at the end of sessions indefinitely. Root only.',
    run({ origin, ...env }) {
      ensureRoot(origin);
      force(env, 'ForceAlways');
    },
  }),
  cancelDeferredSlash: call({
    index: 17,
    args: { era: u32, slashIndices: vec(u32) },
    weight: cost(50_000_000n, 1, 1),
    ...root,
    docs: 'Cancel enactment of a deferred slash: of the era that would take it, by positions in ascending order. Root only.',
    run({ origin, ...env }, { era, slashIndices }) {
      const { host } = env;
      ensureRoot(origin);
      ensure(slashIndices.length > 0, errors.EmptyTargets);
      const ascending = slashIndices.every((each, i) => i === 0 || slashIndices[i - 1]! < each);
      ensure(ascending, errors.NotSortedAndUnique);
      const queue = store.UnappliedSlashes.get(host, era);
      ensure(slashIndices.at(-1)! < queue.length, errors.InvalidSlashIndex);
      for (const at of slashIndices) env.emit(events.SlashCancelled, { era, validator: queue[at]!.validator });
      const rest = queue.filter((_, at) => !slashIndices.includes(at));
      if (rest.length === 0) store.UnappliedSlashes.remove(host, era);
      else store.UnappliedSlashes.insert(host, era, rest);
    },
  }),
  setStakingConfigs: call({
    index: 22,
    args: {
      minNominatorBond: configOp(balance),
      minValidatorBond: configOp(balance),
      maxNominatorCount: configOp(u32),
      maxValidatorCount: configOp(u32),
      chillThreshold: configOp(percent),
      minCommission: configOp(perbill),
      maxStakedRewards: configOp(percent),
    },
    weight: cost(20_000_000n, 0, 7),
    ...root,
    docs: 'Update the various staking configurations. Root only.',
    run({ origin, host }, ops) {
      ensureRoot(origin);
      if (ops.minCommission.type === 'Set') ensureWithin(ops.minCommission.value, PERBILL, errors.BoundNotMet);
      for (const op of [ops.chillThreshold, ops.maxStakedRewards]) {
        if (op.type === 'Set') ensureWithin(op.value, 100, errors.BoundNotMet);
      }
      change(host, minimumBond('MinNominatorBond'), ops.minNominatorBond);
      change(host, minimumBond('MinValidatorBond'), ops.minValidatorBond);
      change<number>(host, store.MaxNominatorsCount, ops.maxNominatorCount);
      change<number>(host, store.MaxValidatorsCount, ops.maxValidatorCount);
      change<number>(host, store.ChillThreshold, ops.chillThreshold);
      change<number>(host, store.MinCommission, ops.minCommission);
      change<number>(host, store.MaxStakedRewards, ops.maxStakedRewards);
    },
  }),
  setMinCommission: call({
    index: 25,
    args: { new: perbill },
    weight: cost(8_000_000n, 0, 1),
    ...root,
    docs: 'Sets the minimum amount of commission that each validators must maintain. Root only.',
    run({ origin, host }, { new: least }) {
      ensureRoot(origin);
      ensureWithin(least, PERBILL, errors.BoundNotMet);
      store.MinCommission.put(host, least);
    },
  }),
  manualSlash: call({
    index: 33,
    args: { validatorStash: accountId, era: u32, slashFraction: perbill },
    weight: addWeight(STAKE_WEIGHT, scaleWeight(perSlash, BigInt(MAX_EXPOSURE_PAGE_SIZE))),
    ...root,
    docs: 'Slash a validator for an era by hand, as if an offence had been reported. Root only.',
    run({ origin, ...env }, { validatorStash, era, slashFraction }) {
      ensureRoot(origin);
      ensureWithin(slashFraction, PERBILL, errors.BoundNotMet);
      const first = store.ErasStartSessionIndex.get(env.host, era) ?? fail(errors.InvalidEraToReward);
      onOffence(env, [{ who: validatorStash, reporters: [], fraction: slashFraction }], first);
    },
  }),
  setInflation: call({
    index: 40,
    args: { annual: perbill },
    weight: cost(8_000_000n, 0, 1),
    ...root,
    docs: 'Set which part of the total issuance is minted for stakers in a year, era by era. Root only.',
    run({ origin, host, emit }, { annual }) {
      ensureRoot(origin);
      ensureWithin(annual, PERBILL, errors.BoundNotMet);
      store.Inflation.put(host, annual);
      emit(events.InflationSet, { annual });
    },
  }),
};
