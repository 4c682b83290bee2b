/** What the demonstration came to: the table, and the checks that it stands or falls by. */
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { formatOpen } from '../amounts.ts';
import { table } from '../table.ts';
import { type Answered, type Outcome, owed, type Person } from './loop.ts';

export interface Check {
  readonly name: string;
  readonly holds: boolean;
  readonly detail: string;
}

/** One contributor's line. Shares are of the contributors' part of all answers of the domain's adapter. */
export interface Standing {
  readonly domain: string;
  readonly name: string;
  readonly part: Person['part'];
  readonly address: string;
  readonly records: number;
  /** Mean over the answers: part of all positive influence, part of all span mass. */
  readonly influence: number;
  readonly spans: number;
  readonly earned: bigint;
  /** Of what the domain's honest contributors earned on average. */
  readonly ofHonest: number;
}

/** At most this part of an honest contributor's income is "next to nothing". */
const COPIER_MOST = 0.05;
const NOISE_MOST = 0.02;

export function standings({ people, trained, answers, earned }: Outcome): Standing[] {
  return people.map((person) => {
    const { domain, name, part, pair, records } = person;
    const model = trained.find((each) => each.domain.title === domain)!.model;
    const own = answers.filter((each) => each.model === model);
    const honest = people.filter((each) => each.domain === domain && each.part === 'honest');
    const average =
      honest.reduce((sum, each) => sum + Number(earned.get(each.pair.address)!), 0) / Math.max(1, honest.length);
    const income = earned.get(pair.address)!;
    return {
      domain,
      name,
      part,
      address: pair.address,
      records: records.length,
      influence: meanShare(own, pair.publicKey, ({ influence }) => (influence > 0n ? influence : 0n)),
      spans: meanShare(own, pair.publicKey, ({ spanMass }) => spanMass),
      earned: income,
      ofHonest: average === 0 ? 0 : Number(income) / average,
    };
  });
}

type Share = Answered['receipt']['shares'][number];

function meanShare(answers: readonly Answered[], account: Uint8Array, of: (share: Share) => bigint): number {
  const key = toHex(account);
  const parts = answers.map(({ receipt: { shares } }) => {
    const total = shares.reduce((sum, share) => sum + of(share), 0n);
    const own = shares.find(({ contributor }) => toHex(contributor) === key);
    return total === 0n || own === undefined ? 0 : Number((of(own) * 1_000_000n) / total) / 1e6;
  });
  return parts.reduce((sum, each) => sum + each, 0) / Math.max(1, parts.length);
}

/** `short`: a run too small to learn from, whose influence and losses say little. */
export function checks(outcome: Outcome, lines: readonly Standing[], short: boolean): Check[] {
  const { people, trained, losses, answers, earned, claimed, before, after } = outcome;
  const honest = people.filter(({ part }) => part === 'honest');
  const bad = answers.filter(({ fault }) => fault !== null);
  const promised = owed(answers);
  const unequal = people.filter(({ pair }) => (promised.get(toHex(pair.publicKey)) ?? 0n) !== earned.get(pair.address));
  const unclaimed = people.filter(({ pair }) => (claimed.get(pair.address) ?? 0n) !== earned.get(pair.address));
  const percent = (part: number): string => `${(100 * part).toFixed(1)} %`;
  const least = (part: Person['part'], most: number): Check[] =>
    lines
      .filter((line) => line.part === part)
      .map(({ name, ofHonest }) => ({
        name: `the ${part === 'copier' ? 'copier' : 'noise maker'} earns next to nothing`,
        holds: ofHonest <= most,
        detail: `${name}: ${percent(ofHonest)} of an honest contributor’s income, at most ${percent(most)}`,
      }));
  return [
    {
      name: 'a dozen contributors, three domains',
      holds: honest.length >= 12 && trained.length >= 3,
      detail: `${honest.length} honest contributors, ${trained.length} domains`,
    },
    {
      name: 'at least 30 answers, some to questions that nobody trained on',
      holds: answers.length >= 30 && answers.some(({ held }) => held),
      detail: `${answers.length} answers, ${answers.filter(({ held }) => held).length} of them held out`,
    },
    {
      name: 'the node finds every receipt right',
      holds: bad.length === 0,
      detail: bad.length === 0 ? `${answers.length} receipts` : bad.map(({ fault }) => fault).join(', '),
    },
    ...(short
      ? []
      : losses.map(({ base, adapter }, i) => ({
          name: `${trained[i]!.domain.title}: the adapter answers better than the base`,
          holds: adapter < base,
          detail: `held-out loss ${base.toFixed(3)} → ${adapter.toFixed(3)} nats a token`,
        }))),
    ...least('copier', COPIER_MOST),
    ...(short ? [] : least('noise', NOISE_MOST)),
    {
      name: 'the ledger pays what the receipts say, to the last unit',
      holds: unequal.length === 0,
      detail: unequal.length === 0 ? `${people.length} accounts` : unequal.map(({ name }) => name).join(', '),
    },
    {
      name: 'everybody could claim it',
      holds: unclaimed.length === 0,
      detail: unclaimed.length === 0 ? `${claimed.size} claims` : unclaimed.map(({ name }) => name).join(', '),
    },
    ...[before, after].map((books, i) => ({
      name: `all balances together are the total issuance ${i === 0 ? 'before' : 'afterwards'}`,
      holds: books.sum === books.issuance,
      detail: `${books.sum} and ${books.issuance} units in ${books.accounts} accounts`,
    })),
  ];
}

export function printed(outcome: Outcome, lines: readonly Standing[], results: readonly Check[]): string {
  const percent = (part: number): string => `${(100 * part).toFixed(1)} %`;
  const who = table(
    ['Domain', 'Contributor', 'Part', '>Records', '>Influence', '>Spans', '>OPEN earned', '>of an honest one'],
    lines.map((line) => [
      line.domain,
      line.name,
      line.part,
      String(line.records),
      percent(line.influence),
      percent(line.spans),
      formatOpen(line.earned, 6),
      percent(line.ofHonest),
    ]),
  );
  const { trained, losses, answers } = outcome;
  const learnt = table(
    ['Adapter', '>Held-out loss of the base', '>with the adapter', '>Answers'],
    trained.map(({ model }, i) => [
      model,
      losses[i]!.base.toFixed(3),
      losses[i]!.adapter.toFixed(3),
      String(answers.filter((each) => each.model === model).length),
    ]),
  );
  const verdicts = results.map(({ name, holds, detail }) => `${holds ? '✓' : '✗'} ${name} (${detail})`);
  return `\n${who}\n\n${learnt}\n\n${verdicts.join('\n')}\n`;
}
