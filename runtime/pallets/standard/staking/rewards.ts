/**
 * Rewards: what the pot took in during an era goes to its validators by points, and from each to those who backed it by
 * stake, after the validator's commission. Shares are cut along one line (`⌊P·aᵢ⌋ − ⌊P·aᵢ₋₁⌋`), so that they add up to the
 * payout to the last unit, whoever claims first and on however many pages.
 */
import { ensure, fail } from '../../../framework/dispatch.ts';
import type { Env } from '../../../framework/pallet.ts';
import type { Host } from '../../../host.ts';
import { compareBytes } from '../../../primitives/bytes.ts';
import { TREASURY } from '../../../primitives/pallet-id.ts';
import { type AccountId, type Balance, PERBILL, sameAccount } from '../../../primitives/types.ts';
import * as balances from '../balances.ts';
import * as timestamp from '../timestamp.ts';
import { STAKING_HOLD } from './hold.ts';
import { ledgerOf, putLedger } from './ledger.ts';
import { activeEra, currentEra, errors, events, HISTORY_DEPTH, POT, store } from './store.ts';
import type { ActiveEra, RewardDestination } from './types.ts';

/** Points for a block (`pallet_staking`: 20 to the author). */
const AUTHOR_POINTS = 20;
const YEAR_MS = 31_557_600_000n;

// ---- points --------------------------------------------------------------------------------------------------

export function noteAuthor(host: Host, author: AccountId): void {
  const era = activeEra(host);
  if (era === undefined || store.ErasStakersOverview.get(host, [era, author]) === undefined) return;
  store.ErasRewardPoints.mutate(host, era, ({ total, individual }) => {
    const at = individual.findIndex(([who]) => compareBytes(who, author) >= 0);
    const entry = at < 0 ? undefined : individual[at];
    const known = entry !== undefined && sameAccount(entry[0], author);
    const points: [AccountId, number] = [author, (known ? entry[1] : 0) + AUTHOR_POINTS];
    const place = at < 0 ? individual.length : at;
    return { total: total + AUTHOR_POINTS, individual: individual.toSpliced(place, known ? 1 : 0, points) };
  });
}

// ---- the end of an era ---------------------------------------------------------------------------------------

/** Minted for an era of that length; less than a unit is nothing. */
function inflationFor(host: Host, ms: bigint): Balance {
  const annual = BigInt(store.Inflation.get(host));
  return annual === 0n ? 0n : (balances.totalIssuance(host) * annual * ms) / (BigInt(PERBILL) * YEAR_MS);
}

/** Sets what an era pays: all that the pot has and owes to no earlier one. Without points it stays for the next. */
export function closeEra(env: Env, { index, start }: ActiveEra): void {
  const { host } = env;
  const ms = start === undefined ? 0n : timestamp.now(host) - start;
  const minted = inflationFor(host, ms);
  const share = store.MaxStakedRewards.get(host);
  const staked = share === undefined ? minted : (minted * BigInt(share)) / 100n;
  balances.deposit(env, POT, staked);
  balances.deposit(env, TREASURY, minted - staked);

  const earned = store.ErasRewardPoints.get(host, index).total > 0;
  const payout = earned ? balances.reducible(host, POT, true) - store.Promised.get(host) : 0n;
  store.ErasValidatorReward.insert(host, index, payout);
  store.ErasUnpaid.insert(host, index, payout);
  store.Promised.mutate(host, (sum) => sum + payout);
  env.emit(events.EraPaid, { eraIndex: index, validatorPayout: payout, remainder: minted - staked });
}

/** What nobody claimed falls back to the pot. */
export function forgetRewards(host: Host, era: number): void {
  const unpaid = store.ErasUnpaid.take(host, era);
  store.Promised.mutate(host, (sum) => sum - unpaid);
  store.ErasValidatorReward.remove(host, era);
  store.ErasRewardPoints.remove(host, era);
  store.ClaimedRewards.clear(host, [era]);
}

// ---- payouts -------------------------------------------------------------------------------------------------

/** The piece of `amount` between two marks on a line of length `whole`. */
const cut = (amount: Balance, from: bigint, to: bigint, whole: bigint): Balance =>
  whole === 0n ? 0n : (amount * to) / whole - (amount * from) / whole;

function pointsBefore(host: Host, era: number, who: AccountId): { from: bigint; to: bigint; total: bigint } {
  const { total, individual } = store.ErasRewardPoints.get(host, era);
  let from = 0n;
  for (const [each, points] of individual) {
    if (sameAccount(each, who)) return { from, to: from + BigInt(points), total: BigInt(total) };
    from += BigInt(points);
  }
  return { from, to: from, total: BigInt(total) };
}

/** Pays to where the stash wants it. What cannot be delivered stays in the pot, for later eras. */
function pay(env: Env, stash: AccountId, amount: Balance): void {
  const { host } = env;
  if (amount === 0n) return;
  const wish: RewardDestination = store.Payee.get(host, stash) ?? { type: 'None' };
  if (wish.type === 'None') return;
  const account = wish.type === 'Account' ? wish.value : stash;
  balances.take(env, POT, amount);
  if (!balances.give(env, account, amount)) {
    balances.give(env, POT, amount);
    return;
  }
  if (wish.type === 'Staked') {
    const ledger = ledgerOf(host, stash);
    // One whose free balance is below the existential deposit keeps what brings it there.
    const room = balances.holdable(host, stash, STAKING_HOLD);
    const extra = amount < room ? amount : room;
    if (ledger !== undefined) putLedger(env, { ...ledger, active: ledger.active + extra, total: ledger.total + extra });
  }
  env.emit(events.Rewarded, { stash, dest: wish, amount });
}

/** The pages of a validator's exposure; one that nobody nominates has a page of its own. */
export const pagesOf = (host: Host, era: number, who: AccountId): number =>
  Math.max(1, store.ErasStakersOverview.get(host, [era, who])?.pageCount ?? 0);

/** Whether an era that paid has something left for those behind the validator. */
export const hasUnclaimed = (host: Host, era: number, who: AccountId): boolean =>
  store.ErasValidatorReward.get(host, era) !== undefined &&
  store.ErasStakersOverview.get(host, [era, who]) !== undefined &&
  store.ClaimedRewards.get(host, [era, who]).length < pagesOf(host, era, who);

/** Pays one page; the validator itself with the first. Fails with `InvalidEraToReward`, `InvalidPage`, `AlreadyClaimed`. */
export function payPage(env: Env, who: AccountId, era: number, page: number): number {
  const { host } = env;
  const current = currentEra(host) ?? 0;
  ensure(era <= current && era + HISTORY_DEPTH >= current, errors.InvalidEraToReward);
  const payout = store.ErasValidatorReward.get(host, era) ?? fail(errors.InvalidEraToReward);
  const overview = store.ErasStakersOverview.get(host, [era, who]) ?? fail(errors.InvalidEraToReward);
  const pages = pagesOf(host, era, who);
  ensure(page < pages, errors.InvalidPage);
  const claimed = store.ClaimedRewards.get(host, [era, who]);
  ensure(!claimed.includes(page), errors.AlreadyClaimed);
  const all = [...claimed, page].sort((a, b) => a - b);
  store.ClaimedRewards.insert(host, [era, who], all);
  const next = Array.from({ length: pages }, (_, i) => i).find((each) => !all.includes(each));
  env.emit(events.PayoutStarted, { eraIndex: era, validatorStash: who, page, next });

  const { from, to, total } = pointsBefore(host, era, who);
  const whole = cut(payout, from, to, total);
  const commission = (whole * BigInt(store.ErasValidatorPrefs.get(host, [era, who]).commission)) / BigInt(PERBILL);
  const shared = whole - commission;

  let mark = overview.own;
  const due: [AccountId, Balance][] = [];
  if (page === 0) due.push([who, commission + cut(shared, 0n, mark, overview.total)]);
  for (let before = 0; before < page; before++) {
    mark += store.ErasStakersPaged.get(host, [era, who, before])?.pageTotal ?? 0n;
  }
  const others = store.ErasStakersPaged.get(host, [era, who, page])?.others ?? [];
  for (const { who: nominator, value } of others) {
    due.push([nominator, cut(shared, mark, mark + value, overview.total)]);
    mark += value;
  }
  const sum = due.reduce((all, [, amount]) => all + amount, 0n);
  store.ErasUnpaid.mutate(host, era, (unpaid) => unpaid - sum);
  store.Promised.mutate(host, (promised) => promised - sum);
  for (const [stash, amount] of due) pay(env, stash, amount);
  return others.length;
}
