/**
 * Eras: sessions under one choice of validators. An era is planned a session before it begins: the candidates with session
 * keys and the nominators' stakes go into an election, and what backs each winner is written down for rewards and slashes.
 */
import { cost } from '../../../framework/dispatch.ts';
import type { Env } from '../../../framework/pallet.ts';
import type { Host } from '../../../host.ts';
import { compareBytes, toHex } from '../../../primitives/bytes.ts';
import { sequentialPhragmen, balance as spread, type Voter } from '../../../primitives/election.ts';
import type { AccountId, Balance, Weight } from '../../../primitives/types.ts';
import * as session from '../session.ts';
import * as timestamp from '../timestamp.ts';
import { forgetExposures, storeExposures } from './exposures.ts';
import { activeStake } from './ledger.ts';
import { closeEra, forgetRewards } from './rewards.ts';
import { applySlashes, forgetSlashes } from './slashing.ts';
import { activeEra, currentEra, eras, events, HISTORY_DEPTH, store } from './store.ts';
import { type Exposure, type IndividualExposure, MAX_VALIDATOR_SET } from './types.ts';

/** Rounds in which voters move their stake to where it is needed. */
const BALANCING_ROUNDS = 8;

// ---- elections -----------------------------------------------------------------------------------------------

/** Undefined where too few can be elected. Validators in the order of their election. */
function elect(host: Host): ReadonlyMap<AccountId, Exposure> | undefined {
  // One without keys could not do anything with a seat.
  const candidates = [...store.Validators.keys(host)]
    .filter((who) => session.nextKeys(host, who) !== undefined)
    .sort(compareBytes);
  const numberOf = new Map(candidates.map((who, i) => [toHex(who), i]));
  const voters: (Voter & { readonly who: AccountId })[] = candidates.map((who, i) => ({
    who,
    stake: activeStake(host, who),
    targets: [i],
  }));
  let poorest: Balance | undefined;
  for (const [who, { targets }] of store.Nominators.entries(host)) {
    const stake = activeStake(host, who);
    const known = targets.flatMap((each) => numberOf.get(toHex(each)) ?? []);
    if (stake === 0n || known.length === 0) continue;
    voters.push({ who, stake, targets: known });
    if (poorest === undefined || stake < poorest) poorest = stake;
  }

  const seats = Math.min(store.ValidatorCount.get(host), MAX_VALIDATOR_SET);
  const elected = spread(sequentialPhragmen(candidates.length, voters, seats), BALANCING_ROUNDS);
  if (elected.winners.length < Math.max(1, store.MinimumValidatorCount.get(host))) return undefined;
  store.MinimumActiveStake.put(host, poorest ?? 0n);

  const others = new Map<number, IndividualExposure[]>(elected.winners.map((each) => [each, []]));
  const own = new Map<number, Balance>();
  for (const [v, edges] of elected.backing.entries()) {
    for (const { candidate, amount } of edges) {
      if (v < candidates.length) own.set(candidate, amount);
      else if (amount > 0n) others.get(candidate)!.push({ who: voters[v]!.who, value: amount });
    }
  }
  return new Map(
    elected.winners.map((candidate) => {
      const backers = others.get(candidate)!;
      const mine = own.get(candidate) ?? 0n;
      const total = backers.reduce((sum, { value }) => sum + value, mine);
      return [candidates[candidate]!, { total, own: mine, others: backers }];
    }),
  );
}

/** Elects validators for an era that begins with `startSession`. Undefined: the same go on in the same era. */
function planEra(env: Env, startSession: number): readonly AccountId[] | undefined {
  const { host } = env;
  const elected = elect(host);
  const before = currentEra(host);
  if (elected === undefined) {
    if (before !== undefined) env.emit(events.StakingElectionFailed);
    return undefined;
  }
  const era = before === undefined ? 0 : before + 1;
  store.CurrentEra.put(host, era);
  store.ErasStartSessionIndex.insert(host, era, startSession);
  storeExposures(host, era, elected);
  env.emit(events.StakersElected);
  if (era > HISTORY_DEPTH) forgetEra(env, era - HISTORY_DEPTH - 1);
  return [...elected.keys()];
}

function forgetEra(env: Env, era: number): void {
  const { host } = env;
  forgetExposures(host, era);
  store.ErasStartSessionIndex.remove(host, era);
  forgetRewards(host, era);
}

// ---- the manager of sessions ---------------------------------------------------------------------------------

/** Whether a new era begins with the session. */
function isDue(host: Host, index: number): boolean {
  const era = currentEra(host);
  if (era === undefined) return store.CounterForValidators.get(host) > 0;
  const { type } = store.ForceEra.get(host);
  if (type === 'ForceNone') return false;
  if (type !== 'NotForcing') return true;
  return index - (store.ErasStartSessionIndex.get(host, era) ?? 0) >= eras(host).sessionsPerEra;
}

function beginEra(env: Env, first: number): void {
  const { host } = env;
  const index = (activeEra(host) ?? -1) + 1;
  // Its time is known when the block has one.
  store.ActiveEra.put(host, { index, start: undefined });
  const { bondingDuration } = eras(host);
  const bonded = [...store.BondedEras.get(host), [index, first] as [number, number]];
  // What was unbonded in an era is free when this one begins: nobody answers for that era any more.
  const kept = bonded.filter(([era]) => era + bondingDuration > index);
  for (const [era] of bonded) if (era + bondingDuration <= index) forgetSlashes(host, era);
  store.BondedEras.put(host, kept);
  applySlashes(env, index);
}

export const manager: session.SessionManager = {
  newSession(env, index) {
    const { host } = env;
    store.CurrentPlannedSession.put(host, index);
    if (!isDue(host, index)) return undefined;
    const chosen = planEra(env, index);
    if (chosen !== undefined && store.ForceEra.get(host).type === 'ForceNew') {
      store.ForceEra.put(host, { type: 'NotForcing' });
      env.emit(events.ForceEra, { mode: { type: 'NotForcing' } });
    }
    return chosen;
  },
  startSession(env, index) {
    const next = (activeEra(env.host) ?? -1) + 1;
    const first = store.ErasStartSessionIndex.get(env.host, next);
    if (first !== undefined && first <= index) beginEra(env, first);
  },
  endSession(env, index) {
    const active = store.ActiveEra.get(env.host);
    if (active === undefined) return;
    const next = store.ErasStartSessionIndex.get(env.host, active.index + 1);
    if (next === index + 1) closeEra(env, active);
  },
  weight(host, index) {
    if (!isDue(host, index)) return NO_ELECTION;
    const people = store.CounterForValidators.get(host) + store.CounterForNominators.get(host);
    return electionWeight(people);
  },
  firstSession: (host) => store.BondedEras.get(host)[0]?.[1],
};

const NO_ELECTION = cost(20_000_000n, 10, 4);
/** Measured with sixteen votes each: a fifth of a millisecond a voter. */
const electionWeight = (people: number): Weight =>
  cost(5_000_000n + 250_000_000n * BigInt(people), 2 * people, people + 100);

/** The time at which an era began is that of its first block. */
export function noteStart(host: Host): void {
  const active = store.ActiveEra.get(host);
  if (active !== undefined && active.start === undefined) {
    store.ActiveEra.put(host, { ...active, start: timestamp.now(host) });
  }
}
