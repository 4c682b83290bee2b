/**
 * Votes and commits that came too early: for the next round, or for blocks that are still on their way. Only what carries
 * a voter's signature is kept, a fixed number for every voter, so that a flood cannot grow it.
 */
import { type Commit, type SignedVote, sameTarget, type Target, type VoterId } from './votes.ts';

/** Two rounds, prevotes and precommits, two of each if the voter equivocates, and a hint. */
const VOTES_PER_VOTER = 9;
const COMMITS = 4;

export interface WaitingVote {
  readonly round: number;
  readonly vote: SignedVote;
}

export interface WaitingCommit {
  readonly round: number;
  readonly commit: Commit;
}

export interface Waiting {
  readonly votes: ReadonlyMap<VoterId, readonly WaitingVote[]>;
  /** Highest target first. */
  readonly commits: readonly WaitingCommit[];
}

export const nothingWaits: Waiting = { votes: new Map(), commits: [] };

const same = (a: WaitingVote, b: WaitingVote): boolean =>
  a.round === b.round && a.vote.kind === b.vote.kind && sameTarget(a.vote.target, b.vote.target);

export const holdsVote = (waiting: Waiting, entry: WaitingVote): boolean =>
  waiting.votes.get(entry.vote.voter)?.some((each) => same(each, entry)) ?? false;

/** Keeps a vote, or leaves everything as it is when this voter has used up its places. */
export function holdVote(waiting: Waiting, entry: WaitingVote): Waiting {
  const held = waiting.votes.get(entry.vote.voter) ?? [];
  const alike = held.filter((each) => each.round === entry.round && each.vote.kind === entry.vote.kind);
  if (held.length >= VOTES_PER_VOTER || alike.length >= 2 || alike.some((each) => same(each, entry))) return waiting;
  return { ...waiting, votes: new Map(waiting.votes).set(entry.vote.voter, [...held, entry]) };
}

export function holdCommit(waiting: Waiting, entry: WaitingCommit): Waiting {
  if (waiting.commits.some((each) => sameTarget(each.commit.target, entry.commit.target))) return waiting;
  const commits = [...waiting.commits, entry].sort((a, b) => b.commit.target.number - a.commit.target.number);
  return { ...waiting, commits: commits.slice(0, COMMITS) };
}

/** Splits off what is ready now and forgets what is too old to matter. */
export function takeReady(
  waiting: Waiting,
  now: { readonly round: number; readonly finalized: number; readonly has: (block: Target) => boolean },
): { readonly waiting: Waiting; readonly votes: readonly WaitingVote[]; readonly commits: readonly WaitingCommit[] } {
  if (waiting.votes.size === 0 && waiting.commits.length === 0) return { waiting, votes: [], commits: [] };
  const votes: WaitingVote[] = [];
  const left = new Map<VoterId, readonly WaitingVote[]>();
  for (const [voter, entries] of waiting.votes) {
    const keep = entries.filter((entry) => {
      if (entry.round < now.round - 1) return false;
      if (entry.round > now.round || !now.has(entry.vote.target)) return true;
      votes.push(entry);
      return false;
    });
    if (keep.length > 0) left.set(voter, keep);
  }
  const commits: WaitingCommit[] = [];
  const later = waiting.commits.filter((entry) => {
    if (entry.commit.target.number <= now.finalized) return false;
    if (!isKnown(entry.commit, now.has)) return true;
    commits.push(entry);
    return false;
  });
  return { waiting: { votes: left, commits: later }, votes, commits };
}

export const isKnown = (commit: Commit, has: (block: Target) => boolean): boolean =>
  has(commit.target) && commit.precommits.every((each) => has(each.target));
