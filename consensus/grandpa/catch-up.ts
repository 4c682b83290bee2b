/** Catching up: joining a later round by seeing that the one before it was complete. */
import { importVote, newRound, precommitsOf, type Round, votesOf } from './round.ts';
import type { VoterSet } from './voter-set.ts';
import type { Ancestry, CatchUp, SignedVote, Target } from './votes.ts';

export const catchUpOf = (round: Round): CatchUp => ({
  round: round.number,
  base: round.graph.base,
  prevotes: votesOf(round, 'prevote'),
  precommits: precommitsOf(round),
});

/** Whether votes of both phases come from supermajorities of voters, and from nobody else. Cheap: before any signature. */
export function plausibleCatchUp(catchUp: CatchUp, voters: VoterSet): boolean {
  const heavy = (votes: readonly SignedVote[]): boolean => {
    if (votes.length > 2 * voters.size || !votes.every((vote) => voters.has(vote.voter))) return false;
    const ids = new Set(votes.map((vote) => vote.voter));
    let weight = 0;
    for (const id of ids) weight += voters.get(id)!.weight;
    return weight >= voters.threshold;
  };
  return heavy(catchUp.prevotes) && heavy(catchUp.precommits);
}

/**
 * The completed round that a catch-up shows; undefined when it does not show one. Votes below `lowest`, a final block, are
 * left out, so that nobody makes this node walk the chain down. Signatures are the caller's business.
 */
export function roundOfCatchUp(catchUp: CatchUp, voters: VoterSet, chain: Ancestry, lowest: Target): Round | undefined {
  if (!plausibleCatchUp(catchUp, voters)) return undefined;
  const base = catchUp.base.number > lowest.number && chain.includes(lowest, catchUp.base) ? catchUp.base : lowest;
  let round = newRound(catchUp.round, voters, base);
  for (const vote of [...catchUp.prevotes, ...catchUp.precommits]) {
    if (vote.kind === 'propose') return undefined;
    const imported = importVote(round, vote.kind, vote, chain);
    if (imported.type === 'counted' || imported.type === 'equivocation') round = imported.round;
  }
  return round.completable ? round : undefined;
}
