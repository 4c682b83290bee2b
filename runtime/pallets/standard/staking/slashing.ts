/**
 * Slashing: an offence costs a validator and those who backed it in that era the same part of what they had at stake. The
 * slash waits some eras, in which root can cancel it; stakes stay bonded longer than that. Of what is taken, reporters get
 * their reward and the treasury the rest.
 */
import { cost, scaleWeight } from '../../../framework/dispatch.ts';
import type { Env } from '../../../framework/pallet.ts';
import { workQueue } from '../../../framework/work-queue.ts';
import type { Host } from '../../../host.ts';
import { TREASURY } from '../../../primitives/pallet-id.ts';
import { type Infer, struct, u32 } from '../../../primitives/scale/codec.ts';
import { type AccountId, type Balance, PERBILL, sameAccount } from '../../../primitives/types.ts';
import * as balances from '../balances.ts';
import * as session from '../session.ts';
import * as system from '../system.ts';
import { exposureOf } from './exposures.ts';
import { STAKING_HOLD } from './hold.ts';
import { chill, ledgerOf, writeLedger } from './ledger.ts';
import { activeEra, eras, events, store } from './store.ts';
import { type Ledger, MAX_REPORTERS, MAX_UNAPPLIED_SLASHES, type UnappliedSlash, unappliedSlash } from './types.ts';

export interface Offender {
  readonly who: AccountId;
  readonly reporters: readonly AccountId[];
  /** Parts per billion of the stake. */
  readonly fraction: number;
}

const partOf = (amount: Balance, ppb: number): Balance => (amount * BigInt(ppb)) / BigInt(PERBILL);

/** The era that a session belonged to; undefined when it is too long ago. */
function eraOf(host: Host, index: number): number | undefined {
  return store.BondedEras.get(host).findLast(([, first]) => first <= index)?.[0];
}

function disable(env: Env, who: AccountId, fraction: number): void {
  const { host } = env;
  const most = session.disablingLimit(session.validators(host).length);
  if (session.disabledValidators(host).length < most) session.disable(env, who, fraction);
}

/** Acts on an offence of some session (`OnOffenceHandler`). */
export function onOffence(env: Env, offenders: readonly Offender[], index: number): void {
  const { host } = env;
  const now = activeEra(host);
  if (now === undefined) return;
  const era = eraOf(host, index);
  if (era === undefined) {
    env.emit(events.OldSlashingReportDiscarded, { sessionIndex: index });
    return;
  }
  for (const offender of offenders) {
    const { who, fraction } = offender;
    if (store.Invulnerables.get(host).some((each) => sameAccount(each, who))) continue;
    env.emit(events.SlashReported, { validator: who, fraction, slashEra: era });
    const slash = computeSlash(host, era, offender);
    if (fraction > 0) {
      chill(env, who);
      disable(env, who, fraction);
    }
    if (slash === undefined) continue;
    const { slashDeferDuration } = eras(host);
    const due = era + slashDeferDuration + 1;
    const queue = store.UnappliedSlashes.get(host, due);
    if (slashDeferDuration === 0 || due <= now || queue.length >= MAX_UNAPPLIED_SLASHES) {
      takeSome(env, { era, slash }, STAKERS_AT_A_TIME);
    } else store.UnappliedSlashes.insert(host, due, [...queue, slash]);
  }
}

/** What an offence costs beyond what was decided in that era already; undefined if nothing. */
function computeSlash(host: Host, era: number, { who, fraction, reporters }: Offender): UnappliedSlash | undefined {
  const exposure = exposureOf(host, era, who);
  if (exposure === undefined) return undefined;
  const [before] = store.ValidatorSlashInEra.get(host, [era, who]) ?? [0];
  if (fraction <= before) return undefined;
  const more = (stake: Balance): Balance => partOf(stake, fraction) - partOf(stake, before);
  store.ValidatorSlashInEra.insert(host, [era, who], [fraction, partOf(exposure.own, fraction)]);
  const others = exposure.others.flatMap(({ who: nominator, value }): [AccountId, Balance][] => {
    const amount = more(value);
    if (amount === 0n) return [];
    store.NominatorSlashInEra.mutate(host, [era, nominator], (sum) => (sum ?? 0n) + amount);
    return [[nominator, amount]];
  });
  const own = more(exposure.own);
  const sum = others.reduce((total, [, amount]) => total + amount, own);
  const payout = partOf(sum, store.SlashRewardFraction.get(host));
  return { validator: who, own, others, reporters: reporters.slice(0, MAX_REPORTERS), payout };
}

// ---- taking what was decided -----------------------------------------------------------------------------------

/** Stakers that are taken from in one go. A validator may have thousands behind it. */
const STAKERS_AT_A_TIME = 64;
const PER_STAKER = cost(60_000_000n, 5, 4);
export const TAKING = scaleWeight(PER_STAKER, BigInt(STAKERS_AT_A_TIME + 1));

const taking = struct({ era: u32, slash: unappliedSlash });
type Taking = Infer<typeof taking>;

/** Slashes that are being taken, some stakers in a block. */
export const slashes = workQueue({
  name: 'Slashes',
  docs: 'What is left to take of slashes that are due: some stakers at a time.',
  item: taking,
  budget: 3n * TAKING.refTime,
  weight: () => TAKING,
  run(env, due) {
    const [part, rest] = split(due, STAKERS_AT_A_TIME);
    applySlash(env, part.slash, part.era);
    return rest === undefined ? undefined : { rest };
  },
});

/** The first `count` nominators, with the validator, and what is left of a slash; each with its part of the reward. */
function split({ era, slash }: Taking, count: number): [Taking, Taking | undefined] {
  if (slash.others.length <= count) return [{ era, slash }, undefined];
  const sum = (others: UnappliedSlash['others']): Balance => others.reduce((total, [, amount]) => total + amount, 0n);
  const [first, later] = [slash.others.slice(0, count), slash.others.slice(count)];
  const [now, left] = [slash.own + sum(first), sum(later)];
  const payout = now + left === 0n ? 0n : (slash.payout * now) / (now + left);
  return [
    { era, slash: { ...slash, others: first, payout } },
    { era, slash: { ...slash, own: 0n, others: later, payout: slash.payout - payout } },
  ];
}

/** Takes from the first stakers now, and from the others in the blocks that follow. */
function takeSome(env: Env, due: Taking, count: number): void {
  const [part, rest] = split(due, count);
  applySlash(env, part.slash, part.era);
  if (rest !== undefined) takeLater(env.host, rest);
}

function takeLater(host: Host, due: Taking): void {
  const now = system.blockNumber(host);
  slashes.schedule(host, { now, due: now + 1 }, due);
}

/** Takes the slashes that waited for this era. */
export function applySlashes(env: Env, index: number): void {
  const { slashDeferDuration } = eras(env.host);
  const era = Math.max(0, index - slashDeferDuration - 1);
  let room = STAKERS_AT_A_TIME;
  for (const slash of store.UnappliedSlashes.take(env.host, index)) {
    if (room > 0) takeSome(env, { era, slash }, room);
    else takeLater(env.host, { era, slash });
    room -= slash.others.length + 1;
  }
}

function applySlash(env: Env, { validator, own, others, reporters, payout }: UnappliedSlash, era: number): void {
  let taken = 0n;
  for (const [staker, amount] of [[validator, own] as const, ...others]) taken += slashStake(env, staker, amount, era);
  // A stash may have less left than the slash; the reward falls with it.
  const reward = payout < taken ? payout : taken;
  let left = taken;
  if (reporters.length > 0) {
    const each = reward / BigInt(reporters.length);
    for (const reporter of reporters) if (balances.give(env, reporter, each)) left -= each;
  }
  if (!balances.give(env, TREASURY, left)) balances.rescind(env, left);
}

/** Takes from what was bonded at the time, in proportion from all of it. Returns what there was to take. */
function slashStake(env: Env, stash: AccountId, wanted: Balance, era: number): Balance {
  const { host } = env;
  const ledger = ledgerOf(host, stash);
  if (ledger === undefined || wanted === 0n) return 0n;
  const reached = ({ era: end }: Ledger['unlocking'][number]): boolean => end >= era + eras(host).bondingDuration;
  const affected = ledger.unlocking.filter(reached).reduce((sum, { value }) => sum + value, ledger.active);
  const amount = wanted < affected ? wanted : affected;
  if (amount === 0n) return 0n;
  let left = amount;
  const unlocking = ledger.unlocking.map((chunk) => {
    if (!reached(chunk)) return chunk;
    const part = (chunk.value * amount) / affected;
    left -= part;
    return { ...chunk, value: chunk.value - part };
  });
  // Rounding leaves the active part at most as many units as there are chunks; they come from the chunks where it has not.
  const fromActive = left < ledger.active ? left : ledger.active;
  left -= fromActive;
  for (const [i, chunk] of unlocking.entries()) {
    if (left === 0n) break;
    if (!reached(chunk)) continue;
    const part = left < chunk.value ? left : chunk.value;
    unlocking[i] = { ...chunk, value: chunk.value - part };
    left -= part;
  }
  const rest = unlocking.filter(({ value }) => value > 0n);
  balances.takeFromHold(env, STAKING_HOLD, stash, amount);
  writeLedger(host, {
    ...ledger,
    active: ledger.active - fromActive,
    total: ledger.total - amount,
    unlocking: rest,
  });
  env.emit(events.Slashed, { staker: stash, amount });
  return amount;
}

export function forgetSlashes(host: Host, era: number): void {
  store.ValidatorSlashInEra.clear(host, [era]);
  store.NominatorSlashInEra.clear(host, [era]);
}
