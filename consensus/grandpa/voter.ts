/**
 * What the voter is made of: its surroundings, its state, what happens to it and what it wants done. `voting.ts` holds the
 * steps from one state to the next.
 */

import type { CommitVerdict } from './commit.ts';
import type { ImportedVote, Round, RoundOutlook } from './round.ts';
import { votesOf } from './round.ts';
import type { VoterSet } from './voter-set.ts';
import type { Ancestry, CatchUp, Commit, Equivocation, SignedVote, Target, VoteKind, VoterId } from './votes.ts';

export interface ChainView extends Ancestry {
  has(block: Target): boolean;
  /**
   * What to vote for: the head of the best chain that contains `base`, or as far up as the voting rules allow, but not below
   * `base`; undefined when `base` is unknown. A block that changes the authorities and is not final yet is a limit, since
   * only the next set may finalize what comes after it.
   */
  target(base: Target): Target | undefined;
  /** Changes of the authority set above `base` up to `block`, lowest first. */
  changes(base: Target, block: Target): readonly SetChange[];
}

export interface SetChange {
  readonly at: Target;
  readonly voters: VoterSet;
}

export interface Timing {
  /** T: how long a message takes to reach everyone. Prevotes wait for 2 T from the start of the round, precommits 2 T longer. */
  readonly gossipMs: number;
  /** A round with nothing to decide waits for a new block or someone's vote, but no longer than this. */
  readonly idleMs: number;
  /** A commit is sent within this time, so that not everyone sends the same one. */
  readonly commitMs: number;
}

export interface VoterEnv {
  readonly chain: ChainView;
  readonly timing: Timing;
  /** Which of the node's keys votes in this set, if any. */
  readonly identity: (voters: VoterSet) => VoterId | undefined;
  /** Deterministic, as ed25519 is; undefined when the key is gone. */
  readonly sign: (
    voter: VoterId,
    kind: VoteKind,
    target: Target,
    round: number,
    setId: number,
  ) => Uint8Array | undefined;
}

/** `passive`: no votes are cast in this round any more. */
export type Stage = 'start' | 'proposed' | 'prevoted' | 'precommitted' | 'passive';

export interface VotingRound {
  readonly votes: Round;
  readonly stage: Stage;
  /** The round before, as far as is known now. */
  readonly previous: RoundOutlook;
  /** What the primary proposes to vote on top of. */
  readonly hint: Target | undefined;
  readonly due: { readonly prevote: boolean; readonly precommit: boolean; readonly idle: boolean };
  /** Cast by this node, the hint included. */
  readonly own: readonly SignedVote[];
}

export interface PastRound {
  readonly votes: Round;
  /** The best commit of this round seen from others. */
  readonly seenCommit: Target | undefined;
  readonly commitDue: boolean;
}

export interface Voter {
  readonly setId: number;
  readonly voters: VoterSet;
  readonly me: VoterId | undefined;
  readonly best: VotingRound;
  /** Completed rounds that others may still need votes or a commit of, newest first. */
  readonly past: readonly PastRound[];
  /** The best block known to be final, by whatever way. */
  readonly finalized: Target;
  /** The last commit that showed something new to be final. */
  readonly lastCommit: { readonly setId: number; readonly round: number; readonly commit: Commit } | undefined;
}

/** What survives a crash. Written before any vote in it is sent. */
export interface VoterRecord {
  readonly setId: number;
  readonly voters: readonly (readonly [id: VoterId, weight: number])[];
  readonly round: number;
  readonly base: Target;
  readonly own: readonly SignedVote[];
  /** The completed round before. */
  readonly previous: CatchUp | undefined;
}

export type TimerKind = 'prevote' | 'precommit' | 'idle' | 'commit';
export interface RoundTimer {
  readonly type: 'round';
  readonly setId: number;
  readonly round: number;
  readonly kind: TimerKind;
}

export type VoterEffect =
  /** To be durable before any later effect is carried out. */
  | { readonly type: 'persist'; readonly record: VoterRecord }
  | { readonly type: 'sendVote'; readonly setId: number; readonly round: number; readonly vote: SignedVote }
  | { readonly type: 'sendCommit'; readonly setId: number; readonly round: number; readonly commit: Commit }
  /** After `afterMs`, or at a random moment up to `withinMs` later. */
  | { readonly type: 'setTimer'; readonly timer: RoundTimer; readonly afterMs: number; readonly withinMs: number }
  | { readonly type: 'finalize'; readonly setId: number; readonly round: number; readonly commit: Commit }
  | { readonly type: 'equivocation'; readonly proof: Equivocation };

export type VoterEvent =
  | { readonly type: 'vote'; readonly round: number; readonly vote: SignedVote }
  | { readonly type: 'commit'; readonly round: number; readonly commit: Commit }
  | { readonly type: 'catchUp'; readonly catchUp: CatchUp }
  | { readonly type: 'timer'; readonly timer: RoundTimer }
  /** Something was imported: there may be more to vote for. */
  | { readonly type: 'chain' }
  /** A block became final by other means, such as sync. */
  | { readonly type: 'finalized'; readonly target: Target };

/** How an event from outside was taken, for its sender's reputation. */
export type VoterOutcome =
  | { readonly type: 'none' }
  | { readonly type: 'vote'; readonly result: ImportedVote['type'] | 'otherRound' }
  | { readonly type: 'commit'; readonly result: CommitVerdict }
  | { readonly type: 'catchUp'; readonly good: boolean };

export const recordOf = ({ setId, voters, best, past }: Voter): VoterRecord => {
  const previous = past[0]?.votes;
  return {
    setId,
    voters: voters.voters.map(({ id, weight }) => [id, weight] as const),
    round: best.votes.number,
    base: best.votes.graph.base,
    own: best.own,
    previous:
      previous?.number === best.votes.number - 1
        ? {
            round: previous.number,
            base: previous.graph.base,
            prevotes: votesOf(previous, 'prevote'),
            precommits: votesOf(previous, 'precommit') as CatchUp['precommits'],
          }
        : undefined,
  };
};

export interface VoterStep {
  readonly state: Voter;
  readonly effects: readonly VoterEffect[];
  readonly outcome: VoterOutcome;
}
