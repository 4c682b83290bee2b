/**
 * The voter among its peers: checks what they say, holds what came too early, tells them where this node stands, and brings
 * those behind forward. Pure, like the voter inside it; `driver.ts` and the simulated network carry out the effects.
 */
import { catchUpOf, plausibleCatchUp } from './catch-up.ts';
import type { GossipMessage, NeighbourPacket } from './messages.ts';
import {
  answersRepeat,
  catchUpRound,
  order,
  type PeerId,
  type PeerView,
  packetOf,
  strangerView,
  wantsCommit,
} from './peers.ts';
import { castBy, type Round, votesOf } from './round.ts';
import type {
  RoundTimer,
  Voter,
  VoterEffect,
  VoterEnv,
  VoterEvent,
  VoterOutcome,
  VoterRecord,
  VoterStep,
} from './voter.ts';
import type { VoterSet } from './voter-set.ts';
import type { Commit, SignedVote, Target, VoterId } from './votes.ts';
import { resume, startSet, step as voterStep } from './voting.ts';
import { holdCommit, holdsVote, holdVote, isKnown, nothingWaits, takeReady, type Waiting } from './waiting.ts';

export interface ParticipantEnv extends VoterEnv {
  readonly verify: (vote: SignedVote, round: number, setId: number) => boolean;
  /** Milliseconds on a clock that never goes back. */
  readonly now: () => number;
  /** Between two neighbour packets that say the same. */
  readonly announceMs: number;
}

export interface Participant {
  readonly voter: Voter;
  readonly peers: ReadonlyMap<PeerId, PeerView>;
  readonly waiting: Waiting;
  /** Catch-ups that were asked for, of any number of peers: whoever leaves the question open keeps nobody else from answering. */
  readonly asked: ReadonlyMap<PeerId, CatchUpQuestion>;
}

export interface CatchUpQuestion {
  readonly round: number;
  readonly at: number;
  /** Whether the peer may still answer without having been late. */
  readonly open: boolean;
  /** How often in a row the peer left one open. */
  readonly failures: number;
}

export type Timer = RoundTimer | { readonly type: 'announce' };

export type Verdict =
  /** New and right: worth passing on. */
  | { readonly type: 'accept' }
  /** Not wrong, but of no use here. */
  | { readonly type: 'ignore' }
  | { readonly type: 'reject'; readonly reason: string; readonly cost: number };

export type Effect =
  | Exclude<VoterEffect, { type: 'sendVote' | 'sendCommit' | 'setTimer' }>
  | { readonly type: 'setTimer'; readonly timer: Timer; readonly afterMs: number; readonly withinMs: number }
  | { readonly type: 'broadcast'; readonly message: GossipMessage }
  | { readonly type: 'send'; readonly peer: PeerId; readonly message: GossipMessage }
  /** Voters know a block that this node does not. */
  | { readonly type: 'wantBlock'; readonly target: Target; readonly from: PeerId }
  | { readonly type: 'charge'; readonly peer: PeerId; readonly cost: number; readonly reason: string }
  /** A peer is in a later set: the justifications in between must come by sync. */
  | { readonly type: 'behind'; readonly peer: PeerId; readonly packet: NeighbourPacket };

export type ParticipantEvent =
  | { readonly type: 'message'; readonly from: PeerId; readonly message: GossipMessage }
  | { readonly type: 'connected' | 'disconnected'; readonly peer: PeerId }
  | { readonly type: 'timer'; readonly timer: Timer }
  | { readonly type: 'chain' }
  | { readonly type: 'finalized'; readonly target: Target };

export interface ParticipantStep {
  readonly state: Participant;
  readonly effects: readonly Effect[];
  /** What the sender of a message deserves; `accept` for other events. */
  readonly verdict: Verdict;
}

/** What misbehaviour costs a peer; the scale is Substrate's, divided by 1,000 (a peer at −1,000 or so is banned). */
export const COST = {
  malformed: 100,
  stranger: 50,
  badSignature: 1000,
  badCommit: 1000,
  badCatchUp: 1000,
  unasked: 20,
  greedy: 10,
  /** A peer that says to be ahead does not show it. */
  unanswered: 100,
};

/** A catch-up has to come within this time; a peer that left it open is asked again after twice the time, and so on. */
const CATCH_UP_TIMEOUT_MS = 3_000;
const MAX_BACKOFF = 6;
/** Of an honest peer on a bad line: its answer is taken though it is late. */
const LATE_MS = 30_000;
/** A peer is sent the same, or what belongs to another place that it says to be at, no more often than this. */
const HELP_EVERY_MS = 1_000;
const CATCH_UP_SERVE_MS = 1_000;
const MAX_PEERS = 1_024;

const ACCEPT: Verdict = { type: 'accept' };
const IGNORE: Verdict = { type: 'ignore' };
const reject = (reason: string, cost: number): Verdict => ({ type: 'reject', reason, cost });

interface Draft {
  readonly env: ParticipantEnv;
  state: Participant;
  readonly effects: Effect[];
}

export interface Origin {
  /** The set in charge after `finalized`, as the database has it. */
  readonly setId: number;
  readonly voters: VoterSet;
  readonly finalized: Target;
  /** What the journal holds. */
  readonly record: VoterRecord | undefined;
  /** The voters of the record's set; those of `voters` when it is the same one. */
  readonly recordVoters: VoterSet | undefined;
}

/** Takes up the record unless the chain has gone on to a later set since it was written. */
export function start(env: ParticipantEnv, origin: Origin): ParticipantStep {
  const { record, recordVoters, finalized } = origin;
  const first: VoterStep =
    record !== undefined && recordVoters !== undefined && record.setId >= origin.setId
      ? resume(env, record, recordVoters, finalized)
      : startSet(env, origin.setId, origin.voters, finalized);
  const state: Participant = { voter: first.state, peers: new Map(), waiting: nothingWaits, asked: new Map() };
  const draft: Draft = { env, state, effects: [] };
  forward(draft, first.effects);
  draft.effects.push({ type: 'setTimer', timer: { type: 'announce' }, afterMs: env.announceMs, withinMs: 0 });
  return { state: draft.state, effects: draft.effects, verdict: ACCEPT };
}

export function step(env: ParticipantEnv, state: Participant, event: ParticipantEvent): ParticipantStep {
  const draft: Draft = { env, state, effects: [] };
  let verdict: Verdict = ACCEPT;
  switch (event.type) {
    case 'message':
      verdict = takeMessage(draft, event.from, event.message);
      break;
    case 'connected':
      if (draft.state.peers.size < MAX_PEERS) {
        setPeer(draft, event.peer, strangerView);
        draft.effects.push({
          type: 'send',
          peer: event.peer,
          message: { type: 'neighbour', ...packetOf(state.voter) },
        });
      }
      break;
    case 'disconnected':
      forgetPeer(draft, event.peer);
      break;
    case 'timer':
      if (event.timer.type === 'announce') announce(draft);
      else stepVoter(draft, { type: 'timer', timer: event.timer });
      break;
    case 'chain':
      stepVoter(draft, { type: 'chain' });
      break;
    case 'finalized':
      stepVoter(draft, event);
      break;
  }
  release(draft);
  if (order(packetOf(state.voter), packetOf(draft.state.voter)) !== 0) moved(draft, state.voter);
  return { state: draft.state, effects: draft.effects, verdict };
}

/** The node's place changed: tell everyone, and drop what belongs to the set before. */
function moved(draft: Draft, before: Voter): void {
  const { voter } = draft.state;
  draft.effects.push({ type: 'broadcast', message: { type: 'neighbour', ...packetOf(voter) } });
  if (voter.setId !== before.setId) draft.state = { ...draft.state, waiting: nothingWaits, asked: new Map() };
}

function announce(draft: Draft): void {
  const { env, state } = draft;
  closeQuestions(draft);
  draft.effects.push({ type: 'broadcast', message: { type: 'neighbour', ...packetOf(state.voter) } });
  draft.effects.push({ type: 'setTimer', timer: { type: 'announce' }, afterMs: env.announceMs, withinMs: 0 });
}

function stepVoter(draft: Draft, event: VoterEvent): VoterOutcome {
  const result = voterStep(draft.env, draft.state.voter, event);
  draft.state = { ...draft.state, voter: result.state };
  forward(draft, result.effects);
  return result.outcome;
}

function forward(draft: Draft, effects: readonly VoterEffect[]): void {
  for (const effect of effects) {
    if (effect.type === 'sendVote') {
      const { setId, round, vote } = effect;
      draft.effects.push({ type: 'broadcast', message: { type: 'vote', setId, round, vote } });
    } else if (effect.type === 'sendCommit') {
      const { setId, round, commit } = effect;
      draft.effects.push({ type: 'broadcast', message: { type: 'commit', setId, round, commit } });
    } else {
      draft.effects.push(effect);
    }
  }
}

/** Hands over what waited and is ready now, as long as that makes more ready. */
function release(draft: Draft): void {
  for (;;) {
    const { voter } = draft.state;
    const ready = takeReady(draft.state.waiting, {
      round: voter.best.votes.number,
      finalized: voter.finalized.number,
      has: (block) => draft.env.chain.has(block),
    });
    draft.state = { ...draft.state, waiting: ready.waiting };
    if (ready.votes.length === 0 && ready.commits.length === 0) return;
    for (const { round, vote } of ready.votes) {
      if (draft.state.voter.setId !== voter.setId) return;
      stepVoter(draft, { type: 'vote', round, vote });
    }
    for (const { round, commit } of ready.commits) {
      if (draft.state.voter.setId !== voter.setId) return;
      stepVoter(draft, { type: 'commit', round, commit });
    }
  }
}

function takeMessage(draft: Draft, from: PeerId, message: GossipMessage): Verdict {
  switch (message.type) {
    case 'vote':
      return message.setId === draft.state.voter.setId ? takeVote(draft, from, message.round, message.vote) : IGNORE;
    case 'commit':
      return message.setId === draft.state.voter.setId
        ? takeCommit(draft, from, message.round, message.commit)
        : IGNORE;
    case 'neighbour':
      return takeNeighbour(draft, from, message);
    case 'catchUpRequest':
      return giveCatchUp(draft, from, message.setId, message.round);
    case 'catchUp':
      return takeCatchUp(draft, from, message);
  }
}

/** The round of that number, if it is one that still counts votes. */
const openRound = ({ best, past }: Voter, number: number): Round | undefined =>
  number === best.votes.number ? best.votes : past.find((each) => each.votes.number === number)?.votes;

function takeVote(draft: Draft, from: PeerId, number: number, vote: SignedVote): Verdict {
  const { env } = draft;
  const { voter, waiting } = draft.state;
  const early = number === voter.best.votes.number + 1;
  const round = openRound(voter, number);
  if (round === undefined && !early) return IGNORE;
  if (!voter.voters.has(vote.voter)) return reject('a vote by someone who is no voter', COST.stranger);
  if (round !== undefined && vote.kind !== 'propose') {
    const cast = castBy(round, vote.kind, vote.voter);
    if (cast?.length === 2 || cast?.some((each) => each.target.hash === vote.target.hash)) return IGNORE;
  }
  if (holdsVote(waiting, { round: number, vote })) {
    // Whoever was asked for the block may be gone, and nobody else has it unless asked.
    if (!env.chain.has(vote.target)) draft.effects.push({ type: 'wantBlock', target: vote.target, from });
    return IGNORE;
  }
  if (!env.verify(vote, number, voter.setId)) return reject('a vote with a wrong signature', COST.badSignature);

  const known = env.chain.has(vote.target);
  if (!known || early) {
    const held = holdVote(waiting, { round: number, vote });
    if (held === waiting) return IGNORE;
    draft.state = { ...draft.state, waiting: held };
    if (!known) draft.effects.push({ type: 'wantBlock', target: vote.target, from });
    return ACCEPT;
  }
  const outcome = stepVoter(draft, { type: 'vote', round: number, vote });
  const counted = outcome.type === 'vote' && (outcome.result === 'counted' || outcome.result === 'equivocation');
  return counted ? ACCEPT : IGNORE;
}

function takeCommit(draft: Draft, from: PeerId, round: number, commit: Commit): Verdict {
  const { env } = draft;
  const { voter, waiting } = draft.state;
  const past = voter.past.find((each) => each.votes.number === round);
  const news = commit.target.number > voter.finalized.number;
  const quiets =
    past?.seenCommit === undefined &&
    past?.votes.finalized !== undefined &&
    past.votes.finalized.hash === commit.target.hash;
  if (!news && !quiets) return IGNORE;
  const flaw = flawOfCommit(commit, voter.voters);
  if (flaw !== undefined) return reject(flaw, COST.malformed);
  if (!commit.precommits.every((vote) => env.verify(vote, round, voter.setId))) {
    return reject('a commit with a wrong signature', COST.badSignature);
  }
  const has = (block: Target): boolean => env.chain.has(block);
  if (!isKnown(commit, has)) {
    const unknown = [commit.target, ...commit.precommits.map((each) => each.target)].find((block) => !has(block));
    if (unknown !== undefined) draft.effects.push({ type: 'wantBlock', target: unknown, from });
    const held = holdCommit(waiting, { round, commit });
    if (held === waiting) return IGNORE;
    draft.state = { ...draft.state, waiting: held };
    return ACCEPT;
  }
  const outcome = stepVoter(draft, { type: 'commit', round, commit });
  const valid = outcome.type === 'commit' && outcome.result.valid;
  return valid ? ACCEPT : reject('a commit that finalizes nothing', COST.badCommit);
}

/** What can be said against a commit before looking at signatures. */
function flawOfCommit({ precommits }: Commit, voters: VoterSet): string | undefined {
  if (precommits.length > 2 * voters.size) return 'a commit with too many precommits';
  const ids = new Set<VoterId>();
  let weight = 0;
  for (const { voter } of precommits) {
    const info = voters.get(voter);
    if (info === undefined) return 'a commit with someone who is no voter';
    if (!ids.has(voter)) weight += info.weight;
    ids.add(voter);
  }
  return weight < voters.threshold ? 'a commit by too few voters' : undefined;
}

const setPeer = (draft: Draft, peer: PeerId, view: PeerView): void => {
  draft.state = { ...draft.state, peers: new Map(draft.state.peers).set(peer, view) };
};

function forgetPeer(draft: Draft, peer: PeerId): void {
  const peers = new Map(draft.state.peers);
  peers.delete(peer);
  const asked = new Map(draft.state.asked);
  asked.delete(peer);
  draft.state = { ...draft.state, peers, asked };
}

function takeNeighbour(draft: Draft, from: PeerId, { round, setId, finalized }: NeighbourPacket): Verdict {
  const view = draft.state.peers.get(from);
  if (view === undefined && draft.state.peers.size >= MAX_PEERS) return IGNORE;
  const packet: NeighbourPacket = { round, setId, finalized };
  const known = view ?? strangerView;
  const turn = known.packet === undefined ? -1 : order(known.packet, packet);
  const repeats = turn === 0 ? known.repeats + 1 : 0;
  setPeer(draft, from, { ...known, packet, repeats });

  const { voter } = draft.state;
  if (setId > voter.setId) {
    draft.effects.push({ type: 'behind', peer: from, packet });
    return ACCEPT;
  }
  askToCatchUp(draft, from, packet);
  // A first packet tells of a node that has seen nothing of this one yet.
  if (known.packet === undefined || repeats > 0) help(draft, from);
  return ACCEPT;
}

/** Everyone who says to be ahead is asked, each by its own clock. */
function askToCatchUp(draft: Draft, peer: PeerId, packet: NeighbourPacket): void {
  closeQuestions(draft);
  const { voter, asked } = draft.state;
  const round = catchUpRound(voter, packet);
  if (round === undefined) return;
  const at = draft.env.now();
  const before = asked.get(peer);
  const failures = before?.failures ?? 0;
  const pause = CATCH_UP_TIMEOUT_MS * 2 ** Math.min(failures, MAX_BACKOFF);
  if (before !== undefined && at - before.at < pause) return;
  draft.state = { ...draft.state, asked: new Map(asked).set(peer, { round, at, open: true, failures }) };
  draft.effects.push({ type: 'send', peer, message: { type: 'catchUpRequest', round, setId: voter.setId } });
}

/** Questions whose time is over cost those who left them open, unless somebody else's answer has come. */
function closeQuestions(draft: Draft): void {
  const { voter, asked } = draft.state;
  const now = draft.env.now();
  for (const [peer, question] of asked) {
    if (!question.open || now - question.at < CATCH_UP_TIMEOUT_MS) continue;
    const needed = question.round > voter.best.votes.number;
    const failures = needed ? question.failures + 1 : question.failures;
    if (needed) {
      draft.effects.push({ type: 'charge', peer, cost: COST.unanswered, reason: 'a catch-up that did not come' });
    }
    draft.state = {
      ...draft.state,
      asked: new Map(draft.state.asked).set(peer, { ...question, open: false, failures }),
    };
  }
}

/** Sends a peer that does not get on what it may lack: votes of its round and the one before, and the last commit. */
function help(draft: Draft, peer: PeerId): void {
  const { voter } = draft.state;
  const view = draft.state.peers.get(peer)!;
  const packet = view.packet!;
  const now = draft.env.now();
  const { lastCommit } = voter;
  const messages: GossipMessage[] = [];
  if (lastCommit !== undefined && wantsCommit(view, lastCommit.setId, lastCommit.commit.target.number)) {
    messages.push({ type: 'commit', ...lastCommit });
  }
  if (packet.setId === voter.setId) {
    for (const number of [packet.round, packet.round - 1]) {
      const round = openRound(voter, number);
      if (round === undefined) continue;
      for (const vote of [...votesOf(round, 'prevote'), ...votesOf(round, 'precommit')]) {
        messages.push({ type: 'vote', setId: voter.setId, round: number, vote });
      }
    }
  }
  if (messages.length === 0) return;
  const place = `${packet.setId}/${packet.round}/`;
  const mark = `${place}${lastCommit?.commit.target.number ?? 0}/${messages.length}`;
  // What is new here goes at once. To and fro of the peer itself does not make this node send more.
  const isNew = mark !== view.sent && view.sent.startsWith(place);
  if (!isNew && now - view.helpedAt < HELP_EVERY_MS) return;
  if (mark === view.sent && !answersRepeat(view.repeats)) return;
  setPeer(draft, peer, { ...view, sent: mark, helpedAt: now });
  for (const message of messages) draft.effects.push({ type: 'send', peer, message });
}

function giveCatchUp(draft: Draft, peer: PeerId, setId: number, round: number): Verdict {
  const { voter, peers } = draft.state;
  const view = peers.get(peer);
  if (setId !== voter.setId || view === undefined) return IGNORE;
  const completed = voter.past[0]?.votes;
  if (completed === undefined || completed.number < round || !completed.completable) return IGNORE;
  const at = draft.env.now();
  if (at - view.servedAt < CATCH_UP_SERVE_MS) return reject('catch-ups asked for too often', COST.greedy);
  setPeer(draft, peer, { ...view, servedAt: at });
  draft.effects.push({ type: 'send', peer, message: { type: 'catchUp', setId, catchUp: catchUpOf(completed) } });
  return ACCEPT;
}

function takeCatchUp(
  draft: Draft,
  from: PeerId,
  { setId, catchUp }: Extract<GossipMessage, { type: 'catchUp' }>,
): Verdict {
  const { env } = draft;
  const { voter, asked } = draft.state;
  const question = asked.get(from);
  if (question === undefined || env.now() - question.at > LATE_MS || catchUp.round < question.round) {
    return reject('a catch-up nobody asked for', COST.unasked);
  }
  // One answer a question, good or bad.
  draft.state = {
    ...draft.state,
    asked: new Map(asked).set(from, { ...question, at: env.now() - LATE_MS - 1, open: false, failures: 0 }),
  };
  if (setId !== voter.setId || catchUp.round <= voter.best.votes.number) return IGNORE;
  if (!plausibleCatchUp(catchUp, voter.voters)) return reject('a catch-up without supermajorities', COST.badCatchUp);
  const votes = [...catchUp.prevotes, ...catchUp.precommits];
  if (!votes.every((vote) => env.verify(vote, catchUp.round, setId))) {
    return reject('a catch-up with a wrong signature', COST.badSignature);
  }
  const unknown = votes.map((vote) => vote.target).filter((block) => !env.chain.has(block));
  if (unknown.length > 0) {
    const highest = unknown.reduce((a, b) => (b.number > a.number ? b : a));
    draft.effects.push({ type: 'wantBlock', target: highest, from });
    return ACCEPT;
  }
  const outcome = stepVoter(draft, { type: 'catchUp', catchUp });
  // Not held against the peer: with votes below this node's base left out, a good one can fall short here.
  return outcome.type === 'catchUp' && outcome.good ? ACCEPT : IGNORE;
}
