/**
 * The vocabulary of the voter. Inside the state machines a block is named by the hex of its hash and a voter by the hex of
 * its key, so that both can be map keys and states compare by value; `messages.ts` parses bytes into these and back.
 */
import type { Branded } from '../../runtime/primitives/scale/codec.ts';

/** `0x…`, the hex of a block hash. */
export type BlockId = Branded<string, 'BlockId'>;
/** `0x…`, the hex of an ed25519 public key. */
export type VoterId = Branded<string, 'VoterId'>;

export interface Target {
  readonly hash: BlockId;
  readonly number: number;
}

export const sameTarget = (a: Target | undefined, b: Target | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && a.hash === b.hash && a.number === b.number);

/** The two kinds of votes that count. */
export type Phase = 'prevote' | 'precommit';
/** With the primary's hint at the start of a round, which counts for nothing and only guides prevotes. */
export type VoteKind = Phase | 'propose';

export interface SignedVote {
  readonly kind: VoteKind;
  readonly target: Target;
  readonly voter: VoterId;
  readonly signature: Uint8Array;
}

export interface Precommit extends SignedVote {
  readonly kind: 'precommit';
}

/** Precommits that show a block final. */
export interface Commit {
  readonly target: Target;
  readonly precommits: readonly Precommit[];
}

/** Every vote needed to see that a round is complete, all on top of `base`. */
export interface CatchUp {
  readonly round: number;
  readonly base: Target;
  readonly prevotes: readonly SignedVote[];
  readonly precommits: readonly Precommit[];
}

/** Two votes of one kind by one voter in one round. */
export interface Equivocation {
  readonly setId: number;
  readonly round: number;
  readonly phase: Phase;
  readonly voter: VoterId;
  readonly first: SignedVote;
  readonly second: SignedVote;
}

/** What the voter may ask of the chain. Answers must not change within one step. */
export interface Ancestry {
  /** Hashes between `base` and `block`, both exclusive, newest first; undefined when `block` does not descend from `base`. */
  between(base: Target, block: Target): readonly BlockId[] | undefined;
  /** Whether `block` is `base` or descends from it; false when either is unknown. */
  includes(base: Target, block: Target): boolean;
}
