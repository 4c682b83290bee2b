/** Commits: sets of precommits that show a block final to someone who did not follow the round. */
import { importVote, newRound, precommitGhost, precommitsOf, type Round } from './round.ts';
import { highestBelow } from './vote-graph.ts';
import type { VoterSet } from './voter-set.ts';
import { type Ancestry, type Commit, type Precommit, sameTarget, type Target, type VoterId } from './votes.ts';

export interface CommitVerdict {
  readonly valid: boolean;
  readonly duplicates: number;
  readonly equivocations: number;
  /** Precommits by others than voters: they count for nothing. */
  readonly strangers: number;
}

/**
 * A commit is valid when its target is exactly the highest block with a supermajority of its precommits, which all descend
 * from the lowest of them. Two precommits by one voter count for every block; signatures are the caller's business.
 */
export function validateCommit(commit: Commit, voters: VoterSet, chain: Ancestry): CommitVerdict {
  const known = commit.precommits.filter((each) => voters.has(each.voter));
  const verdict = { valid: false, duplicates: 0, equivocations: 0, strangers: commit.precommits.length - known.length };
  const base = lowest(known);
  if (base === undefined || !known.every((each) => chain.includes(base, each.target))) return verdict;

  let round = newRound(0, voters, base);
  for (const precommit of known) {
    const imported = importVote(round, 'precommit', precommit, chain);
    switch (imported.type) {
      case 'counted':
        round = imported.round;
        break;
      case 'equivocation':
        verdict.equivocations++;
        round = imported.round;
        break;
      case 'duplicate':
        verdict.duplicates++;
        break;
      case 'redundant':
        break;
      case 'outOfScope':
      case 'notAVoter':
        return verdict;
    }
  }
  verdict.valid = sameTarget(precommitGhost(round), commit.target);
  return verdict;
}

export const lowest = (precommits: readonly Precommit[]): Target | undefined =>
  precommits.reduce<Target | undefined>(
    (low, { target }) => (low === undefined || target.number < low.number ? target : low),
    undefined,
  );

/**
 * The best commit that the precommits of a round allow. Every voter stands in it once, with a vote for the target or above,
 * so that every verifier understands it; the target can therefore lie below the block that the round itself finalizes
 * when that counts votes of equivocators for some other fork.
 */
export function commitOf(round: Round, chain: Ancestry): Commit | undefined {
  const ghost = precommitGhost(round);
  if (ghost === undefined) return undefined;
  const precommits = precommitsOf(round);
  const supporting = (target: Target): Precommit[] => {
    const byVoter = new Map<VoterId, Precommit>();
    for (const each of precommits) {
      if (!byVoter.has(each.voter) && chain.includes(target, each.target)) byVoter.set(each.voter, each);
    }
    return [...byVoter.values()];
  };
  const enough = (target: Target): boolean =>
    supporting(target).reduce((sum, each) => sum + round.voters.get(each.voter)!.weight, 0) >= round.voters.threshold;

  const target = highestBelow(round.graph, ghost, (_, block) => enough(block));
  if (target === undefined) return undefined;
  const commit: Commit = { target, precommits: supporting(target) };
  return validateCommit(commit, round.voters, chain).valid ? commit : undefined;
}
