/**
 * One round's votes and what follows from them (GRANDPA paper, section 2.3–2.4): prevote-GHOST, estimate, whether the round
 * is completable, and what it finalizes. A round is a value; importing a vote gives a new one.
 */
import { ghost, highestBelow, insertVote, type Tally, type VoteGraph, voteGraph } from './vote-graph.ts';
import { maskUnion, maskWith, type VoterMask, type VoterSet } from './voter-set.ts';
import {
  type Ancestry,
  type Phase,
  type Precommit,
  type SignedVote,
  sameTarget,
  type Target,
  type VoterId,
} from './votes.ts';

/** Who voted for a block, in each phase. */
interface VoteMasks {
  readonly prevote: VoterMask;
  readonly precommit: VoterMask;
}

/** A voter's votes in one phase: two of them are an equivocation, and count for every block. More are not kept. */
type Cast = readonly [SignedVote] | readonly [SignedVote, SignedVote];

interface Box {
  /** By position of the voter. */
  readonly cast: readonly (Cast | undefined)[];
  /** Weight of everyone who voted. */
  readonly weight: number;
  readonly equivocators: VoterMask;
}

/** What the next round has to know of a round. */
export interface RoundOutlook {
  readonly prevoteGhost: Target | undefined;
  /** The best block that might have been finalized in this round. */
  readonly estimate: Target | undefined;
  readonly finalized: Target | undefined;
  readonly completable: boolean;
}

export interface Round extends RoundOutlook {
  readonly number: number;
  readonly voters: VoterSet;
  readonly graph: VoteGraph<VoteMasks>;
  readonly prevote: Box;
  readonly precommit: Box;
}

export const genesisOutlook = (base: Target): RoundOutlook => ({
  prevoteGhost: base,
  estimate: base,
  finalized: base,
  completable: true,
});

export function newRound(number: number, voters: VoterSet, base: Target): Round {
  const empty = voters.emptyMask();
  const box: Box = { cast: [], weight: 0, equivocators: empty };
  const tally: Tally<VoteMasks> = {
    none: { prevote: empty, precommit: empty },
    add: (a, b) => ({ prevote: maskUnion(a.prevote, b.prevote), precommit: maskUnion(a.precommit, b.precommit) }),
  };
  return {
    number,
    voters,
    graph: voteGraph(base, tally),
    prevote: box,
    precommit: box,
    prevoteGhost: undefined,
    estimate: undefined,
    finalized: undefined,
    completable: false,
  };
}

export type ImportedVote =
  | { readonly type: 'counted'; readonly round: Round }
  | { readonly type: 'equivocation'; readonly round: Round; readonly first: SignedVote; readonly second: SignedVote }
  | { readonly type: 'duplicate' }
  /** A third vote of one kind by one voter: says nothing new. */
  | { readonly type: 'redundant' }
  | { readonly type: 'notAVoter' }
  /** The target does not descend from the round's base. */
  | { readonly type: 'outOfScope' };

/** Counts a vote whose signature was checked. */
export function importVote(round: Round, phase: Phase, vote: SignedVote, chain: Ancestry): ImportedVote {
  const voter = round.voters.get(vote.voter);
  if (voter === undefined) return { type: 'notAVoter' };
  const box = round[phase];
  const before = box.cast[voter.position];
  if (before === undefined) {
    const none = round.graph.tally.none;
    const graph = insertVote(
      round.graph,
      vote.target,
      { ...none, [phase]: maskWith(none[phase], voter.position) },
      chain,
    );
    if (graph === undefined) return { type: 'outOfScope' };
    const counted = { ...box, cast: withCast(box, voter.position, [vote]), weight: box.weight + voter.weight };
    return { type: 'counted', round: updated({ ...round, graph, [phase]: counted }, phase) };
  }
  if (before.some((each) => sameTarget(each.target, vote.target))) return { type: 'duplicate' };
  if (before.length === 2) return { type: 'redundant' };
  const [first] = before;
  const marked: Box = {
    ...box,
    cast: withCast(box, voter.position, [first, vote]),
    equivocators: maskWith(box.equivocators, voter.position),
  };
  return { type: 'equivocation', round: updated({ ...round, [phase]: marked }, phase), first, second: vote };
}

function withCast(box: Box, position: number, cast: Cast): Box['cast'] {
  const out = box.cast.slice();
  out[position] = cast;
  return out;
}

const weightFor = (round: Round, phase: Phase, votes: VoteMasks): number =>
  round.voters.weigh(votes[phase], round[phase].equivocators);

function updated(round: Round, phase: Phase): Round {
  const { threshold, totalWeight } = round.voters;
  if (round.prevote.weight < threshold) return round;

  const prevoteGhost =
    phase === 'prevote'
      ? ghost(round.graph, round.prevoteGhost, (votes) => weightFor(round, 'prevote', votes) >= threshold)
      : round.prevoteGhost;
  if (prevoteGhost === undefined) return round;
  // Until a supermajority precommitted, a block that nobody named yet could still get one.
  if (round.precommit.weight < threshold) return { ...round, prevoteGhost, estimate: prevoteGhost };

  const finalized = highestBelow(
    round.graph,
    prevoteGhost,
    (votes) => weightFor(round, 'precommit', votes) >= threshold,
  );

  // A block can still get a supermajority if it would with all votes not seen yet and with as many more of the voters
  // seen equivocating as the protocol tolerates.
  const tolerated = totalWeight - threshold;
  const further = Math.max(0, tolerated - round.voters.weigh(round.precommit.equivocators));
  const unseen = totalWeight - round.precommit.weight;
  const possible = (votes: VoteMasks): boolean => {
    const given = weightFor(round, 'precommit', votes);
    return given + unseen + Math.min(round.precommit.weight - given, further) >= threshold;
  };
  const estimate = highestBelow(round.graph, prevoteGhost, possible);
  const completable =
    estimate !== undefined &&
    (estimate.hash !== prevoteGhost.hash || ghost(round.graph, estimate, possible)?.hash === prevoteGhost.hash);
  return { ...round, prevoteGhost, finalized, estimate, completable };
}

/** The highest block with a supermajority of precommits, whatever the prevotes. */
export const precommitGhost = (round: Round): Target | undefined =>
  round.precommit.weight < round.voters.threshold
    ? undefined
    : ghost(round.graph, undefined, (votes) => weightFor(round, 'precommit', votes) >= round.voters.threshold);

/** The votes of one voter: none, one, or two that contradict each other. */
export function castBy(round: Round, phase: Phase, voter: VoterId): Cast | undefined {
  const info = round.voters.get(voter);
  return info === undefined ? undefined : round[phase].cast[info.position];
}

/** All votes of one phase, ordered by voter; both of those who equivocated. */
export const votesOf = (round: Round, phase: Phase): SignedVote[] =>
  round[phase].cast.flatMap((cast) => (cast === undefined ? [] : cast));

export const precommitsOf = (round: Round): Precommit[] => votesOf(round, 'precommit') as Precommit[];

export const outlook = ({ prevoteGhost, estimate, finalized, completable }: Round): RoundOutlook => ({
  prevoteGhost,
  estimate,
  finalized,
  completable,
});
