/**
 * A market of workers, auditors and authors for the simulation of strategies. Who is drawn, what verdicts come to, who
 * pays and what is split is decided by the pallets' own functions and parameters; only chance and habits are played here.
 */

import { parameters as attributionParameters } from '../../runtime/pallets/ledger/attribution/store.ts';
import { parameters as auditParameters, SECOND_AUDITORS } from '../../runtime/pallets/ledger/audits/store.ts';
import { outcomeOf, reckon, type Vote } from '../../runtime/pallets/ledger/audits/verdicts.ts';
import { DEFAULT_PARAMETERS as COMPUTE } from '../../runtime/pallets/ledger/compute.ts';
import { AUDIT_ONE, auditLoad, drawsOf, finderPart, workSlash } from '../../runtime/primitives/attribution/stakes.ts';

export const OPEN = 10n ** 18n;
export const AUDITS = auditParameters.initial;
export const ATTRIBUTION = attributionParameters.initial;
export { COMPUTE };
export const open = (amount: bigint): number => Number((amount * 1_000_000n) / OPEN) / 1e6;
export const amount = (of: number): bigint => BigInt(Math.round(of * 1e6)) * (OPEN / 1_000_000n);

/** Mulberry32: the same on every run. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export interface Work {
  readonly faulty: boolean;
  /** It is the attacker's. */
  readonly ours: boolean;
  readonly planted: boolean;
  /** The part of the round's auditors that are the attacker's: whoever is drawn is known when verdicts are made. */
  readonly share: number;
  readonly second: boolean;
}
/** What an auditor says, given what there is to find. */
export type Habit = (work: Work) => Vote;
export interface Auditor {
  /** Of the attacker. */
  readonly ours: boolean;
  /** In least bonds. */
  readonly weight: number;
  readonly habit: Habit;
}

/** An honest auditor finds a fault so often, and one where there is none so often (other machines, other sums). */
const DETECTS = 0.95;
/** The one answer of a batch, whose feature is bent on purpose: whoever looks sees it. */
const SEES = 0.999;
const ERRS = 1e-4;
export const honest =
  (chance: () => number): Habit =>
  ({ faulty, planted }) =>
    chance() < (planted ? SEES : faulty ? DETECTS : ERRS) ? 'Faulty' : 'Sound';

/** Without replacement, by bond. */
function draw(auditors: readonly Auditor[], wanted: number, chance: () => number): Auditor[] {
  const pool = [...auditors];
  const drawn: Auditor[] = [];
  while (drawn.length < wanted && pool.length > 0) {
    let point = chance() * pool.reduce((sum, { weight }) => sum + weight, 0);
    const at = pool.findIndex(({ weight }) => {
      point -= weight;
      return point < 0;
    });
    drawn.push(...pool.splice(at < 0 ? pool.length - 1 : at, 1));
  }
  return drawn.length % 2 === 1 ? drawn : drawn.slice(1);
}

export interface AuditResult {
  readonly struck: boolean;
  /** What the attacker's auditors got and lost, in OPEN; without the finder's part. */
  readonly ours: number;
  /** What was paid to all auditors. */
  readonly paid: number;
  /** What planted faults brought their planter. */
  readonly planter: number;
  /** Whether an auditor of the attacker is the finder. */
  readonly oursFound: boolean;
}

/** One audit as `audits.conclude` ends it. `ours`: the work is the attacker's. */
export function audit(
  auditors: readonly Auditor[],
  work: { readonly faulty: boolean; readonly ours: boolean; readonly planted?: boolean; readonly withheld?: boolean },
  chance: () => number,
): AuditResult {
  const { planted = false, withheld = false } = work;
  const ask = (drawn: readonly Auditor[], second: boolean) => {
    const share = drawn.filter((each) => each.ours).length / drawn.length;
    const about = { faulty: work.faulty || planted, ours: work.ours, planted, share, second };
    return drawn.map((each) => ({ each, vote: each.habit(about) }));
  };
  const first = ask(draw(auditors, AUDITS.auditors, chance), false);
  let all = first;
  let outcome = planted ? 'Faulty' : outcomeOf({ votes: first.map(({ vote }) => vote), mayContest: true, withheld });
  if (outcome === 'Contested') {
    const others = auditors.filter((each) => !first.some((known) => known.each === each));
    const second = ask(draw(others, SECOND_AUDITORS, chance), true);
    all = [...first, ...second];
    outcome = outcomeOf({ votes: second.map(({ vote }) => vote), mayContest: false, withheld });
  }
  const final = outcome === 'Faulty' || outcome === 'Undecided' ? outcome : 'Sound';
  let ours = 0;
  let paid = 0;
  let planter = 0;
  for (const { each, vote } of all) {
    let change = 0;
    switch (reckon(vote, final, withheld)) {
      case 'Paid':
        change = open(AUDITS.fee);
        paid += change;
        break;
      case 'Silent':
        change = -open(AUDITS.silenceSlash);
        break;
      case 'Wrong':
        change = -open(AUDITS.lazySlash);
        if (planted) planter += open(AUDITS.lazySlash / 2n);
        break;
      case 'Nothing':
    }
    if (each.ours) ours += change;
  }
  const finder = all.find(({ vote }) => vote === 'Faulty');
  return {
    struck: final === 'Faulty' && !planted,
    ours,
    paid,
    planter,
    oursFound: final === 'Faulty' && finder?.each.ours === true,
  };
}

/** How often work of that value is drawn, by one block after the other; an author that grinds keeps its own from drawing. */
export function audits(value: number, others: number, grinding: number, chance: () => number): number {
  const load = auditLoad(amount(value), ATTRIBUTION.slash, AUDITS.rate);
  if (load >= AUDIT_ONE) return 1;
  const elsewhere = auditLoad(amount(others), ATTRIBUTION.slash, AUDITS.rate);
  for (let block = 0; block < AUDITS.commitBlocks; block++) {
    const mine = chance() < grinding;
    const drawn = drawsOf(load + elsewhere, AUDITS.commitBlocks, BigInt(Math.floor(chance() * 2 ** 32)));
    for (let i = 0; i < drawn; i++) {
      if (chance() < Number(load) / Number(load + elsewhere) && !mine) return 1;
    }
  }
  return 0;
}

/** Taken for wrong work of that value, and what of it comes back to an own finder. */
export const slashed = (value: number): number => open(workSlash(ATTRIBUTION.slash, amount(value)));
export const finders = (value: number): number =>
  open(finderPart(workSlash(ATTRIBUTION.slash, amount(value)), ATTRIBUTION.finderReward));
