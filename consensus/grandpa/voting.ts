/**
 * The voter: rounds one after another, the votes cast in them, commits, and the change from one authority set to the next
 * (GRANDPA paper, algorithms 1–3; behaviour of `finality-grandpa` where the paper leaves room). Pure: it says what to write
 * down, send and finalize, and `driver.ts` does it.
 */
import { roundOfCatchUp } from './catch-up.ts';
import { type CommitVerdict, commitOf, validateCommit } from './commit.ts';
import {
  castBy,
  genesisOutlook,
  type ImportedVote,
  importVote,
  newRound,
  outlook,
  type Round,
  type RoundOutlook,
} from './round.ts';
import {
  type ChainView,
  type PastRound,
  type RoundTimer,
  recordOf,
  type Stage,
  type TimerKind,
  type Timing,
  type Voter,
  type VoterEffect,
  type VoterEnv,
  type VoterEvent,
  type VoterOutcome,
  type VoterRecord,
  type VoterStep,
  type VotingRound,
} from './voter.ts';
import type { VoterSet } from './voter-set.ts';
import { type CatchUp, type Commit, type SignedVote, sameTarget, type Target, type VoteKind } from './votes.ts';

/** A voter alone waits for nobody. */
const ALONE: Timing = { gossipMs: 0, idleMs: Number.POSITIVE_INFINITY, commitMs: 0 };
const timingOf = (env: VoterEnv, voters: VoterSet): Timing => (voters.size === 1 ? ALONE : env.timing);

/** More rounds than this are never needed: a round is only left when the one before it is settled. */
const MAX_PAST_ROUNDS = 3;

/** One step under construction: the only mutable thing here, and it never leaves the step. */
interface Draft {
  readonly env: VoterEnv;
  state: Voter;
  readonly effects: VoterEffect[];
}

const timing = (draft: Draft): Timing => timingOf(draft.env, draft.state.voters);

const done = (draft: Draft, outcome: VoterOutcome = { type: 'none' }): VoterStep => ({
  state: draft.state,
  effects: draft.effects,
  outcome,
});

/** Begins a set in its round 1, on top of the block that announced it (or genesis). */
export function startSet(env: VoterEnv, setId: number, voters: VoterSet, base: Target): VoterStep {
  const draft: Draft = { env, state: freshSet(env, setId, voters, base), effects: [] };
  persist(draft);
  beginRound(draft);
  advance(draft);
  return done(draft);
}

function freshSet(env: VoterEnv, setId: number, voters: VoterSet, base: Target): Voter {
  return {
    setId,
    voters,
    me: env.identity(voters),
    best: votingRound(timingOf(env, voters), 1, voters, base, genesisOutlook(base)),
    past: [],
    finalized: base,
    lastCommit: undefined,
  };
}

/** Takes up voting where the record was written; `finalized` is the chain's. */
export function resume(env: VoterEnv, record: VoterRecord, voters: VoterSet, finalized: Target): VoterStep {
  let previous: Round | undefined;
  if (record.previous !== undefined)
    previous = roundOfCatchUp(record.previous, voters, env.chain, record.previous.base);
  let best = votingRound(
    timingOf(env, voters),
    record.round,
    voters,
    record.base,
    // Without the votes of the round before, the best to assume is that its estimate was its base, and is final.
    previous === undefined ? genesisOutlook(record.base) : outlook(previous),
  );
  let votes = best.votes;
  for (const vote of record.own) {
    if (vote.kind === 'propose') continue;
    const imported = importVote(votes, vote.kind, vote, env.chain);
    if (imported.type === 'counted') votes = imported.round;
  }
  const cast = (kind: VoteKind): boolean => record.own.some((vote) => vote.kind === kind);
  // Without its estimate, nothing more can honestly be said in this round.
  const lost = record.previous !== undefined && previous === undefined;
  const stage: Stage = lost
    ? 'passive'
    : cast('precommit')
      ? 'precommitted'
      : cast('prevote')
        ? 'prevoted'
        : cast('propose')
          ? 'proposed'
          : 'start';
  best = { ...best, votes, own: record.own, stage };
  const state: Voter = {
    setId: record.setId,
    voters,
    me: env.identity(voters),
    best,
    past: previous === undefined ? [] : [{ votes: previous, seenCommit: undefined, commitDue: false }],
    finalized: finalized.number >= record.base.number ? finalized : record.base,
    lastCommit: undefined,
  };
  const draft: Draft = { env, state, effects: [] };
  if (previous !== undefined) setTimer(draft, previous.number, 'commit', 0, timing(draft).commitMs);
  beginRound(draft);
  // Sent before the crash or not: the same bytes do no harm twice.
  for (const vote of record.own)
    draft.effects.push({ type: 'sendVote', setId: state.setId, round: record.round, vote });
  if (stage === 'prevoted') setTimer(draft, record.round, 'precommit', 2 * timing(draft).gossipMs);
  advance(draft);
  return done(draft);
}

export function step(env: VoterEnv, state: Voter, event: VoterEvent): VoterStep {
  const draft: Draft = { env, state, effects: [] };
  let outcome: VoterOutcome = { type: 'none' };
  switch (event.type) {
    case 'vote':
      outcome = { type: 'vote', result: takeVote(draft, event.round, event.vote) };
      break;
    case 'commit':
      outcome = { type: 'commit', result: takeCommit(draft, event.round, event.commit) };
      break;
    case 'catchUp':
      outcome = { type: 'catchUp', good: takeCatchUp(draft, event.catchUp) };
      break;
    case 'timer':
      takeTimer(draft, event.timer);
      break;
    case 'finalized':
      noteFinalized(draft, event.target);
      break;
    case 'chain':
      break;
  }
  advance(draft);
  return done(draft, outcome);
}

const persist = (draft: Draft): void => {
  draft.effects.push({ type: 'persist', record: recordOf(draft.state) });
};

const setTimer = (draft: Draft, round: number, kind: TimerKind, afterMs: number, withinMs = 0): void => {
  draft.effects.push({
    type: 'setTimer',
    timer: { type: 'round', setId: draft.state.setId, round, kind },
    afterMs,
    withinMs,
  });
};

const votingRound = (
  timing: Timing,
  number: number,
  voters: VoterSet,
  base: Target,
  previous: RoundOutlook,
): VotingRound => ({
  votes: newRound(number, voters, base),
  stage: 'start',
  previous,
  hint: undefined,
  due: { prevote: timing.gossipMs === 0, precommit: timing.gossipMs === 0, idle: false },
  own: [],
});

function beginRound(draft: Draft): void {
  const { gossipMs, idleMs } = timing(draft);
  const { number } = draft.state.best.votes;
  if (gossipMs > 0) setTimer(draft, number, 'prevote', 2 * gossipMs);
  if (Number.isFinite(idleMs)) setTimer(draft, number, 'idle', idleMs);
}

const withBest = (draft: Draft, change: Partial<VotingRound>): void => {
  draft.state = { ...draft.state, best: { ...draft.state.best, ...change } };
};

function takeTimer(draft: Draft, { setId, round, kind }: RoundTimer): void {
  const { state } = draft;
  if (setId !== state.setId) return;
  if (kind === 'commit') {
    draft.state = {
      ...state,
      past: state.past.map((past) => (past.votes.number === round ? { ...past, commitDue: true } : past)),
    };
  } else if (round === state.best.votes.number) {
    withBest(draft, { due: { ...state.best.due, [kind]: true } });
  }
}

function takeVote(draft: Draft, number: number, vote: SignedVote): ImportedVote['type'] | 'otherRound' {
  const { state, env } = draft;
  if (number === state.best.votes.number) {
    if (vote.kind === 'propose') return takeHint(draft, vote);
    const imported = importVote(state.best.votes, vote.kind, vote, env.chain);
    if (imported.type === 'counted' || imported.type === 'equivocation') withBest(draft, { votes: imported.round });
    report(draft, number, imported);
    return imported.type;
  }
  const past = state.past.find((each) => each.votes.number === number);
  if (past === undefined || vote.kind === 'propose') return 'otherRound';
  const imported = importVote(past.votes, vote.kind, vote, env.chain);
  if (imported.type === 'counted' || imported.type === 'equivocation') {
    withPast(draft, { ...past, votes: imported.round });
  }
  report(draft, number, imported);
  return imported.type;
}

function takeHint(draft: Draft, vote: SignedVote): ImportedVote['type'] {
  const { best, voters } = draft.state;
  if (!voters.has(vote.voter)) return 'notAVoter';
  if (voters.primary(best.votes.number).id !== vote.voter) return 'outOfScope';
  if (best.hint !== undefined) return sameTarget(best.hint, vote.target) ? 'duplicate' : 'redundant';
  withBest(draft, { hint: vote.target });
  return 'counted';
}

/** Puts back a past round, and tells the current round what changed for it. */
function withPast(draft: Draft, past: PastRound): void {
  const { state } = draft;
  draft.state = {
    ...state,
    past: state.past.map((each) => (each.votes.number === past.votes.number ? past : each)),
  };
  if (past.votes.number === state.best.votes.number - 1) withBest(draft, { previous: outlook(past.votes) });
}

function report(draft: Draft, round: number, imported: ImportedVote): void {
  if (imported.type !== 'equivocation') return;
  const { first, second } = imported;
  if (first.kind === 'propose' || sameTarget(first.target, second.target)) return;
  draft.effects.push({
    type: 'equivocation',
    proof: { setId: draft.state.setId, round, phase: first.kind, voter: first.voter, first, second },
  });
}

function takeCommit(draft: Draft, round: number, commit: Commit): CommitVerdict {
  const verdict = validateCommit(commit, draft.state.voters, draft.env.chain);
  if (!verdict.valid) return verdict;
  // Its precommits are votes like any others, and may be what this node waits for.
  for (const precommit of commit.precommits) takeVote(draft, round, precommit);
  const past = draft.state.past.find((each) => each.votes.number === round);
  if (past !== undefined && (past.seenCommit === undefined || past.seenCommit.number < commit.target.number)) {
    withPast(draft, { ...past, seenCommit: commit.target });
  }
  finalize(draft, round, commit);
  return verdict;
}

function takeCatchUp(draft: Draft, catchUp: CatchUp): boolean {
  const { state, env } = draft;
  if (catchUp.round <= state.best.votes.number) return false;
  const round = roundOfCatchUp(catchUp, state.voters, env.chain, state.best.votes.graph.base);
  if (round === undefined) return false;
  draft.state = {
    ...state,
    best: votingRound(timing(draft), round.number + 1, state.voters, round.graph.base, outlook(round)),
    past: [
      { votes: round, seenCommit: undefined, commitDue: false },
      { votes: state.best.votes, seenCommit: undefined, commitDue: true },
      ...state.past,
    ].slice(0, MAX_PAST_ROUNDS),
  };
  persist(draft);
  setTimer(draft, round.number, 'commit', 0, timing(draft).commitMs);
  beginRound(draft);
  return true;
}

/** Does whatever has become possible, until nothing more is. */
function advance(draft: Draft): void {
  for (;;) {
    const before = draft.state;
    hint(draft);
    prevote(draft);
    precommit(draft);
    finalizeRounds(draft);
    if (draft.state.setId === before.setId) completeRound(draft);
    if (draft.state === before) break;
  }
  sendCommits(draft);
}

/** Signs a vote, counts it and has it written down and sent, in this order. */
function cast(draft: Draft, kind: VoteKind, target: Target, stage: Stage): void {
  const { state, env } = draft;
  const { setId, me, best } = state;
  const round = best.votes.number;
  // A vote of ours that came back from the network without being on record is one that a lost disk forgot: it stands.
  const forgotten = me === undefined || kind === 'propose' ? undefined : castBy(best.votes, kind, me)?.[0];
  const signature = me === undefined ? undefined : (forgotten?.signature ?? env.sign(me, kind, target, round, setId));
  if (me === undefined || signature === undefined) {
    withBest(draft, { stage });
    return;
  }
  const vote: SignedVote = forgotten ?? { kind, target, voter: me, signature };
  if (kind !== 'propose' && forgotten === undefined) {
    const imported = importVote(best.votes, kind, vote, env.chain);
    if (imported.type !== 'counted') {
      withBest(draft, { stage: 'passive' });
      return;
    }
    withBest(draft, { votes: imported.round });
  }
  withBest(draft, { stage, own: [...best.own, vote] });
  persist(draft);
  draft.effects.push({ type: 'sendVote', setId, round, vote });
}

function hint(draft: Draft): void {
  const { best, voters, me } = draft.state;
  if (best.stage !== 'start' || me === undefined || voters.primary(best.votes.number).id !== me) return;
  const { estimate, finalized } = best.previous;
  if (estimate === undefined || (finalized !== undefined && estimate.number <= finalized.number)) return;
  cast(draft, 'propose', estimate, 'proposed');
}

function prevote(draft: Draft): void {
  const { best, finalized } = draft.state;
  if (best.stage !== 'start' && best.stage !== 'proposed') return;
  if (!best.due.prevote && !best.votes.completable) return;
  const { estimate } = best.previous;
  if (estimate === undefined) return;
  const target = prevoteTarget(draft.env.chain, best, estimate);
  const quiet = best.votes.prevote.weight === 0 && best.votes.precommit.weight === 0 && !best.due.idle;
  if (quiet && estimate.number <= finalized.number && (target === undefined || target.number <= finalized.number))
    return;
  if (target === undefined) {
    // The chain that the last round agreed on is gone: nothing honest can be said in this round.
    withBest(draft, { stage: 'passive' });
    return;
  }
  cast(draft, 'prevote', target, 'prevoted');
  const { gossipMs } = timing(draft);
  if (gossipMs > 0) setTimer(draft, best.votes.number, 'precommit', 2 * gossipMs);
}

/** The best chain with the last round's estimate, or with the primary's hint if that round could have agreed on it. */
function prevoteTarget(chain: ChainView, best: VotingRound, estimate: Target): Target | undefined {
  const { hint, previous } = best;
  const fits =
    hint !== undefined &&
    previous.prevoteGhost !== undefined &&
    hint.number > estimate.number &&
    chain.includes(estimate, hint) &&
    chain.includes(hint, previous.prevoteGhost);
  return (fits ? chain.target(hint) : undefined) ?? chain.target(estimate);
}

function precommit(draft: Draft): void {
  const { best } = draft.state;
  if (best.stage !== 'prevoted') return;
  if (!best.due.precommit && !best.votes.completable) return;
  const { prevoteGhost } = best.votes;
  const { estimate } = best.previous;
  if (prevoteGhost === undefined || estimate === undefined || !draft.env.chain.includes(estimate, prevoteGhost)) return;
  cast(draft, 'precommit', prevoteGhost, 'precommitted');
}

/** Finalizes what the rounds show, once this node has had its say in them. */
function finalizeRounds(draft: Draft): void {
  const { best, past, setId } = draft.state;
  const said = best.stage === 'precommitted' || best.stage === 'passive';
  for (const round of [...(said ? [best.votes] : []), ...past.map((each) => each.votes)]) {
    if (draft.state.setId !== setId) return;
    if (!round.completable || round.finalized === undefined) continue;
    if (round.finalized.number <= draft.state.finalized.number) continue;
    const commit = commitOf(round, draft.env.chain);
    if (commit !== undefined) finalize(draft, round.number, commit);
  }
}

function finalize(draft: Draft, round: number, commit: Commit): void {
  const { setId, finalized } = draft.state;
  if (commit.target.number <= finalized.number) return;
  draft.effects.push({ type: 'finalize', setId, round, commit });
  draft.state = { ...draft.state, lastCommit: { setId, round, commit } };
  noteFinalized(draft, commit.target);
  // The old set falls silent here, so whoever still waits for this commit must get it now.
  if (draft.state.setId !== setId) draft.effects.push({ type: 'sendCommit', setId, round, commit });
}

function noteFinalized(draft: Draft, target: Target): void {
  const { state, env } = draft;
  if (target.number <= state.finalized.number) return;
  const changes = env.chain.changes(state.finalized, target);
  const last = changes[changes.length - 1];
  if (last === undefined) {
    draft.state = { ...state, finalized: target };
    return;
  }
  const setId = state.setId + changes.length;
  draft.state = { ...freshSet(env, setId, last.voters, last.at), finalized: target, lastCommit: state.lastCommit };
  persist(draft);
  beginRound(draft);
}

/** Goes on to the next round when this one is settled, this node has voted in it, and the one before is done with. */
function completeRound(draft: Draft): void {
  const { state } = draft;
  const { best } = state;
  const { votes, previous } = best;
  if (!votes.completable || (best.stage !== 'precommitted' && best.stage !== 'passive')) return;
  const { estimate } = previous;
  if (estimate === undefined) return;
  const settled = Math.max(state.finalized.number, previous.finalized?.number ?? 0, votes.finalized?.number ?? 0);
  if (estimate.number > settled) return;

  // Votes of the next round may honestly lie as low as what every round before this one finalized.
  const lower = previous.finalized;
  const base = lower !== undefined && lower.number > votes.graph.base.number ? lower : votes.graph.base;
  draft.state = {
    ...state,
    best: votingRound(timing(draft), votes.number + 1, state.voters, base, outlook(votes)),
    past: [{ votes, seenCommit: undefined, commitDue: false }, ...state.past].slice(0, MAX_PAST_ROUNDS),
  };
  persist(draft);
  setTimer(draft, votes.number, 'commit', 0, timing(draft).commitMs);
  beginRound(draft);
}

/** Sends the commits of past rounds whose time has come, unless another one was seen that says as much. */
function sendCommits(draft: Draft): void {
  for (const each of draft.state.past) {
    const { finalized } = each.votes;
    if (!each.commitDue || finalized === undefined) continue;
    withPast(draft, { ...each, commitDue: false });
    if (each.seenCommit !== undefined && each.seenCommit.number >= finalized.number) continue;
    const commit = commitOf(each.votes, draft.env.chain);
    if (commit === undefined) continue;
    const { setId } = draft.state;
    draft.effects.push({ type: 'sendCommit', setId, round: each.votes.number, commit });
  }
}
