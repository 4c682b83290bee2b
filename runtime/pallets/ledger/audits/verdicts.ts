/** What verdicts come to. Pure: the simulation of strategies (`test/sim`) plays with the same functions. */

/** What one auditor has said in the end. */
export type Vote =
  | 'Sound'
  | 'Faulty'
  /** What it needs cannot be had. */
  | 'Unavailable'
  /** It has not committed. */
  | 'Silent'
  /** It has committed, and kept back what to. */
  | 'Withheld';

export type Outcome =
  | 'Sound'
  | 'Faulty'
  /** More auditors must look, since the first ones are not of one mind or too few of them spoke. */
  | 'Contested'
  /** Nobody could look, for a reason that is not the accused's. */
  | 'Undecided';

const count = (votes: readonly Vote[], wanted: Vote): number => votes.filter((vote) => vote === wanted).length;

export interface Round {
  readonly votes: readonly Vote[];
  /** More auditors can be drawn if this round decides nothing. */
  readonly mayContest: boolean;
  /** The accused has not disclosed what it must, or its files are not attested to be there: that is its own fault. */
  readonly withheld: boolean;
}

/**
 * One accusation is enough to have more auditors look, and a majority of all of these is needed to strike: so a few who
 * collude can neither save a cheat nor accuse the honest, and both cost them.
 */
export function outcomeOf({ votes, mayContest, withheld }: Round): Outcome {
  const faulty = count(votes, 'Faulty');
  const unavailable = count(votes, 'Unavailable');
  const sound = count(votes, 'Sound');
  if (withheld && 2 * (faulty + unavailable) > votes.length) return 'Faulty';
  if (mayContest && (faulty > 0 || 2 * sound <= votes.length)) return 'Contested';
  if (2 * faulty > votes.length) return 'Faulty';
  return 2 * unavailable > votes.length ? 'Undecided' : 'Sound';
}

/** What becomes of an auditor. */
export type Reckoning = 'Paid' | 'Nothing' | 'Silent' | 'Wrong';

/** `final`: of the whole audit. `withheld` as above: whoever could not look at such work is right as well. */
export function reckon(vote: Vote, final: 'Sound' | 'Faulty' | 'Undecided', withheld: boolean): Reckoning {
  switch (vote) {
    case 'Silent':
      return 'Silent';
    case 'Unavailable':
      return withheld || final === 'Undecided' ? 'Paid' : 'Nothing';
    case 'Withheld':
      // Whoever keeps its verdict back has a reason to: it may not be better off than with the wrong one.
      return 'Wrong';
    default:
      if (final === 'Undecided') return 'Nothing';
      return vote === final ? 'Paid' : 'Wrong';
  }
}
