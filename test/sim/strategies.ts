/**
 * Whether any strategy is worth it: `npm run sim:strategies [-- epochs [file]]` plays each of them for 10,000 epochs (an
 * epoch is a window) against honest people with the parameters as shipped, and prints what it brings an epoch beside
 * honest play, with the standard error. All gains count in the attacker's favour: what a cheat takes is the whole fee or
 * budget, skipped blocks cost nothing, and looking costs auditors as much as they are paid.
 */
import { writeFileSync } from 'node:fs';
import { DEFAULT_RULES } from '../../runtime/primitives/attribution/split.ts';
import { PERBILL } from '../../runtime/primitives/types.ts';
import {
  ATTRIBUTION,
  AUDITS,
  type Auditor,
  audit,
  audits,
  COMPUTE,
  finders,
  type Habit,
  honest,
  open,
  random,
  slashed,
} from './market.ts';

/** Auditors of the market, of one least bond each, and the part of them that colludes where some do. */
const AUDITORS = 60;
const THIRD = 1 / 3;
/** Fees of others in a window. */
const OTHERS = 500;
/** Of a transaction that settles next to nothing, measured on the runtime; the author’s part of it comes back to an author. */
const SETTLE_FEE = 0.0068;
const AUTHOR_PART = 0.3;
/** Part of the audits that are of planted faults. */
const PLANTED = 0.03;

export interface Strategy {
  readonly name: string;
  readonly who: string;
  /** What one epoch brings beside honest play. */
  play(chance: () => number): number;
}

const market = (chance: () => number, ours: number, habit: Habit): Auditor[] =>
  Array.from({ length: AUDITORS }, (_, i) =>
    i < Math.round(AUDITORS * ours)
      ? { ours: true, weight: 1, habit }
      : { ours: false, weight: 1, habit: honest(chance) },
  );
/** Saves its own where it can (all of the first round, or most of the second), and else judges as everybody else does. */
const friendly =
  (chance: () => number): Habit =>
  (work) =>
    work.ours && !work.planted && (work.second ? work.share > 0.5 : work.share === 1) ? 'Sound' : honest(chance)(work);
/** Accuses in the first round, and goes on with it in the second where it can win. */
const accusing =
  (chance: () => number): Habit =>
  (work) =>
    !work.second || work.share > 0.5 ? 'Faulty' : honest(chance)(work);

/** Settles `batches` forged batches of `value` each, until one of them is struck. */
const forging =
  (value: number, batches: number, { colluding = 0, grinding = 0, ownFinder = false } = {}) =>
  (chance: () => number): number => {
    const auditors = market(chance, colluding, friendly(chance));
    let gain = 0;
    let bond = Math.max(open(COMPUTE.minBond), 3 * value * batches);
    for (let i = 0; i < batches; i++) {
      const drawn = audits(value, OTHERS + value * (batches - 1), grinding, chance);
      const { struck, ours } = drawn
        ? audit(auditors, { faulty: true, ours: true }, chance)
        : { struck: false, ours: 0 };
      gain += ours;
      if (struck) {
        const lost = Math.min(bond, slashed(value));
        bond -= lost;
        gain -= lost - (ownFinder ? Math.min(lost, finders(value)) : 0);
      } else gain += value;
    }
    return gain;
  };

/** Hands in a made-up training: the budget, and what false rows bring later. */
const training =
  (budget: number, later: number, colluding = 0) =>
  (chance: () => number): number => {
    const { struck, ours } = audit(market(chance, colluding, friendly(chance)), { faulty: true, ours: true }, chance);
    return ours + (struck ? -slashed(budget) : budget + later);
  };

/** One auditor among honest ones; what looking costs is what honest ones are paid. */
const auditing =
  (habit: Habit, share = 1 / AUDITORS) =>
  (chance: () => number): number => {
    const auditors = market(chance, share, habit);
    const planted = chance() < PLANTED;
    const { ours, oursFound } = audit(auditors, { faulty: false, ours: false, planted }, chance);
    return ours + (oursFound && !planted ? finders(10) : 0);
  };

const treasuryPart =
  (Number(DEFAULT_RULES.split.platform) / PERBILL) * (1 - Number(DEFAULT_RULES.split.burnt) / PERBILL);

export const STRATEGIES: readonly Strategy[] = [
  { name: 'forges answers worth .01 OPEN a batch, 100 batches', who: 'a worker', play: forging(0.01, 100) },
  { name: 'forges a batch of 1 OPEN', who: 'a worker', play: forging(1, 1) },
  { name: 'forges 20 batches of 5 OPEN', who: 'a worker', play: forging(5, 20) },
  { name: 'forges a batch of 100 OPEN', who: 'a worker', play: forging(100, 1) },
  { name: 'forges a batch of 149 OPEN, just below a certain audit', who: 'a worker', play: forging(149, 1) },
  { name: 'forges a batch of 5,000 OPEN', who: 'a worker', play: forging(5_000, 1) },
  {
    name: 'forges 20 batches of 5 OPEN and finds them itself',
    who: 'a worker',
    play: forging(5, 20, { ownFinder: true }),
  },
  {
    name: 'forges 20 batches of 5 OPEN',
    who: 'a worker with a third of the auditors',
    play: forging(5, 20, { colluding: THIRD, ownFinder: true }),
  },
  {
    name: 'forges a batch of 149 OPEN',
    who: 'a worker with a third of the auditors',
    play: forging(149, 1, { colluding: THIRD, ownFinder: true }),
  },
  {
    name: 'forges a batch of 5,000 OPEN',
    who: 'a worker with a third of the auditors',
    play: forging(5_000, 1, { colluding: THIRD, ownFinder: true }),
  },
  {
    name: 'forges 20 batches of 5 OPEN, its own blocks never draw',
    who: 'a worker with a third of the authors',
    play: forging(5, 20, { grinding: THIRD }),
  },
  {
    name: 'forges 20 batches of 5 OPEN, its own blocks never draw',
    who: 'a worker with a third of the authors and of the auditors',
    play: forging(5, 20, { grinding: THIRD, colluding: THIRD, ownFinder: true }),
  },
  {
    name: 'hands in a made-up training of 100 OPEN, false rows bring 300 more',
    who: 'a worker',
    play: training(100, 300),
  },
  {
    name: 'hands in a made-up training of 100 OPEN, false rows bring 300 more',
    who: 'a worker with a third of the auditors',
    play: training(100, 300, THIRD),
  },
  {
    name: 'hands in a made-up training of 2,000 OPEN',
    who: 'a worker with a third of the auditors',
    play: training(2_000, 0, THIRD),
  },
  {
    name: 'forges and withholds the bytes',
    who: 'a worker',
    play: () => -slashed(100),
  },
  { name: 'says “sound” without looking', who: 'an auditor', play: auditing(() => 'Sound') },
  { name: 'says “faulty” without looking', who: 'an auditor', play: auditing(() => 'Faulty') },
  { name: 'says nothing', who: 'an auditor', play: auditing(() => 'Silent') },
  { name: 'keeps its verdict back', who: 'an auditor', play: auditing(() => 'Withheld') },
  { name: 'says that nothing can be had', who: 'an auditor', play: auditing(() => 'Unavailable') },
  {
    name: 'accuses the honest for the finder’s part',
    who: 'a third of the auditors',
    play: (chance) => auditing(accusing(chance), THIRD)(chance),
  },
  {
    name: 'settles 1,000 batches of next to nothing for the auditors’ fees',
    who: 'a worker and author with a third of the auditors',
    play(chance) {
      let gain = 0;
      for (let i = 0; i < 1_000; i++) {
        gain -= SETTLE_FEE * (1 - AUTHOR_PART);
        if (audits(0, OTHERS, 0, chance) === 0) continue;
        gain += audit(market(chance, THIRD, friendly(chance)), { faulty: false, ours: true }, chance).ours;
      }
      return gain;
    },
  },
  {
    name: 'plants faults that its own auditors know of',
    who: 'a worker with a third of the auditors',
    play: (chance) => {
      const { ours, planter } = audit(
        market(chance, THIRD, () => 'Faulty'),
        { faulty: false, ours: true, planted: true },
        chance,
      );
      // It pays for the audit itself, or waits for one among 1 / rate settlements.
      return ours + planter - Math.min(AUDITS.auditors * open(AUDITS.fee), (SETTLE_FEE * PERBILL) / AUDITS.rate);
    },
  },
  {
    name: 'takes leases of 100 OPEN and hands them back after 40 blocks',
    who: 'a squatter',
    play: () => -open(COMPUTE.returnSlash) - (100 + open(COMPUTE.leaseStake)) * (Number(COMPUTE.holdCost) / PERBILL),
  },
];

export interface Result {
  readonly strategy: Strategy;
  readonly mean: number;
  readonly error: number;
}

export function play(strategy: Strategy, epochs: number, seed: number): Result {
  const chance = random(seed);
  let [sum, squares] = [0, 0];
  for (let epoch = 0; epoch < epochs; epoch++) {
    const gain = strategy.play(chance);
    sum += gain;
    squares += gain * gain;
  }
  const mean = sum / epochs;
  return { strategy, mean, error: Math.sqrt(Math.max(0, squares / epochs - mean * mean) / epochs) };
}

/** What auditors are paid and what the treasury has of the same fees, in OPEN. */
export function auditCosts(epochs: number, seed: number): { readonly paid: number; readonly income: number } {
  const chance = random(seed);
  let [paid, income] = [0, 0];
  for (let epoch = 0; epoch < epochs; epoch++) {
    for (let batch = 0; batch < 10; batch++) {
      income += 20 * treasuryPart;
      if (audits(20, OTHERS, 0, chance) > 0) {
        paid += audit(market(chance, 0, honest(chance)), { faulty: false, ours: false }, chance).paid;
      }
    }
  }
  return { paid, income };
}

if (import.meta.main) {
  const [epochs = '10000', file] = process.argv.slice(2);
  const rows = STRATEGIES.map((each, at) => play(each, Number(epochs), 1_000 + at));
  const { paid, income } = auditCosts(Math.ceil(Number(epochs) / 10), 7);
  const table = [
    '| who | does | OPEN an epoch beside honest play | standard error |',
    '| --- | --- | ---: | ---: |',
    ...rows.map(
      ({ strategy, mean, error }) =>
        `| ${strategy.who} | ${strategy.name} | ${mean.toFixed(3)} | ${error.toFixed(3)} |`,
    ),
  ].join('\n');
  const text = `# Strategies

Made by \`npm run sim:strategies -- ${epochs} ${file ?? '<file>'}\` (\`test/sim/strategies.ts\`), with the parameters as shipped: a slash of
${open(ATTRIBUTION.slash)} OPEN and the value of the work, ${Number(ATTRIBUTION.finderReward) / 1e7} % of it to the finder; one audit for each
${(open(ATTRIBUTION.slash) * 3) / 10} OPEN at stake and for ${Number(AUDITS.rate) / 1e7} % of all batches, every training audited; ${AUDITS.auditors} auditors, then more;
${open(AUDITS.fee)} OPEN to each that is right, ${open(AUDITS.lazySlash)} OPEN from each that is wrong. ${epochs} epochs each; an honest
auditor finds a fault 95 times of 100. No strategy has a positive mean.

${table}

Auditors are paid ${((100 * paid) / income).toFixed(1)} % of what the treasury has of the same fees.
`;
  if (file === undefined) console.log(text);
  else writeFileSync(file, text);
  const worth = rows.filter(({ mean, error }) => mean > 2 * error);
  if (worth.length > 0 || paid >= income) {
    console.error(
      `worth it: ${worth.map(({ strategy }) => strategy.name).join('; ') || 'audits cost more than they bring'}`,
    );
    process.exitCode = 1;
  }
}
