/**
 * Conviction voting: votes and delegations on the proposals of Governance (`pallet_conviction_voting`).
 *
 * A vote freezes the OPEN that it is cast with, until the vote is taken back or over; what voted for the winning side stays
 * frozen at least until the enactment, and for as long as the voter's conviction says, which is what makes it count more.
 * So the same OPEN votes once on a proposal: it cannot be moved to another account, and cannot have been borrowed by
 * somebody who is gone when the decision takes effect. Only OPEN that is free or staked can be frozen and votes; what is on
 * hold for somebody else (budgets, deposits) does not.
 *
 * A delegation adds the delegator's votes to whatever the delegate votes. When it ends, the OPEN stays frozen for the time of
 * its conviction, one locking period at least: a delegate may have won with it a moment ago.
 *
 * Where `pallet_conviction_voting` frees losers at once and winners without conviction too, winners without conviction are
 * held until the enactment here. There is one class of polls, number 0.
 */
import {
  accountOf,
  addWeight,
  cost,
  ensure,
  ensureSigned,
  error,
  fail,
  scaleWeight,
} from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import { mapWithDefault, nMapWithDefault, storage, twox64Concat } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { compact, option, tuple, u32, vec } from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, type Balance, balance, multiAddress, sameAccount } from '../../primitives/types.ts';
import * as balances from './balances.ts';
import {
  type AccountVote,
  accountVote,
  balanceOf,
  type Casting,
  CLASS,
  type Conviction,
  classId,
  conviction,
  type Delegations,
  lockPeriods,
  MAX_VOTES,
  NO_LOCK,
  NO_VOTING,
  type PriorLock,
  sided,
  sideOf,
  tallyOf,
  type Voting,
  voting,
  weighed,
} from './conviction-voting/types.ts';
import { lockingPeriod } from './governance/parameters.ts';
import { addTally, putTally, type Status, statusOf, subTally } from './governance/proposals.ts';
import * as system from './system.ts';

const INDEX = 52;

export const store = storage('ConvictionVoting', {
  VotingFor: nMapWithDefault(
    [twox64Concat(accountId), twox64Concat(classId)],
    voting,
    NO_VOTING,
    'All voting for a particular voter in a particular voting class.',
  ),
  ClassLocksFor: mapWithDefault(
    twox64Concat(accountId),
    vec(tuple(classId, balance), 1),
    [],
    'The voting classes which have a non-zero lock requirement and the lock amounts which they require.',
  ),
});

export const events = {
  Delegated: event(
    0,
    { who: accountId, target: accountId, class: classId },
    'An account has delegated their vote to another account.',
  ),
  Undelegated: event(
    1,
    { who: accountId, class: classId },
    'An account has cancelled a previous delegation operation.',
  ),
  Voted: event(2, { who: accountId, vote: accountVote, pollIndex: u32 }, 'An account has voted.'),
  VoteRemoved: event(3, { who: accountId, vote: accountVote, pollIndex: u32 }, 'A vote has been removed.'),
  VoteUnlocked: event(
    4,
    { who: accountId, class: classId },
    'The lockup period of a conviction vote expired, and the funds have been unlocked.',
  ),
};

export const errors = {
  NotOngoing: error(0, 'Poll is not ongoing.'),
  NotVoter: error(1, 'The given account did not vote on the poll.'),
  NoPermission: error(2, 'The actor has no permission to conduct the action.'),
  NoPermissionYet: error(3, 'The actor has no permission to conduct the action right now but will do in the future.'),
  AlreadyDelegating: error(4, 'The account is already delegating.'),
  AlreadyVoting: error(
    5,
    'The account currently has votes attached to it and the operation cannot succeed until these are removed through `remove_vote`.',
  ),
  InsufficientFunds: error(6, 'Too high a balance was provided that the account cannot afford.'),
  NotDelegating: error(7, 'The account is not currently delegating.'),
  Nonsense: error(8, 'Delegation to oneself makes no sense.'),
  MaxVotesReached: error(9, 'Maximum number of votes reached.'),
  ClassNeeded: error(10, 'The class must be supplied since it is not easily determinable from the state.'),
  BadClass: error(11, 'The class ID supplied is invalid.'),
  TooSmall: error(40, 'A vote or a delegation needs at least `MinVote`.'),
};

export const VOTE_FREEZE: Reason = { pallet: INDEX, reason: 0 };

// ---- what is frozen ------------------------------------------------------------------------------------------

const votingOf = (host: Host, who: AccountId): Voting => store.VotingFor.get(host, [who, CLASS]);

function isIdle({ type, value }: Voting): boolean {
  const { delegations, prior } = value;
  return type === 'Casting' && value.votes.length === 0 && delegations.capital === 0n && prior[1] === 0n;
}

function putVoting(host: Host, who: AccountId, next: Voting): void {
  if (isIdle(next)) store.VotingFor.remove(host, [who, CLASS]);
  else store.VotingFor.insert(host, [who, CLASS], next);
}

/** The OPEN that must stay frozen for what an account votes, delegates, and voted before. */
function lockedBy({ type, value }: Voting): Balance {
  const own = type === 'Casting' ? value.votes.map(([, cast]) => balanceOf(cast)) : [value.balance];
  return own.reduce((most, each) => (each > most ? each : most), value.prior[1]);
}

function putLock(env: Env, who: AccountId, amount: Balance): void {
  if (amount === 0n) store.ClassLocksFor.remove(env.host, who);
  else store.ClassLocksFor.insert(env.host, who, [[CLASS, amount]]);
  balances.setFreeze(env, VOTE_FREEZE, who, amount);
}
/** Freezes more, never less: what else is locked is known only to {@link unlock}. */
function extendLock(env: Env, who: AccountId, amount: Balance): void {
  const before = balances.frozenFor(env.host, VOTE_FREEZE, who);
  if (amount > before) putLock(env, who, amount);
}

/** One lock in place of two: the longer time for the larger amount. */
function joined(host: Host, prior: PriorLock, until: number, amount: Balance): PriorLock {
  const [time, most] = system.blockNumber(host) < prior[0] ? prior : NO_LOCK;
  return [Math.max(time, until), amount > most ? amount : most];
}

/** Brings the freeze to what is needed now. */
function unlock(env: Env, who: AccountId): void {
  const { host } = env;
  const found = votingOf(host, who);
  const over = system.blockNumber(host) >= found.value.prior[0];
  const next = over ? withPrior(found, NO_LOCK) : found;
  putVoting(host, who, next);
  putLock(env, who, lockedBy(next));
}

const withPrior = (of: Voting, prior: PriorLock): Voting =>
  of.type === 'Casting'
    ? { type: 'Casting', value: { ...of.value, prior } }
    : { type: 'Delegating', value: { ...of.value, prior } };

/** The state keeps every vote, and what it freezes is all that a voter leaves for that. */
export const MIN_VOTE: Balance = 10n ** 18n;

function ensureFunds(host: Host, who: AccountId, amount: Balance): void {
  ensure(amount >= MIN_VOTE, errors.TooSmall);
  ensure(amount <= balances.freezable(host, who), errors.InsufficientFunds);
}

// ---- votes ---------------------------------------------------------------------------------------------------

/** What a vote brings a tally, with the delegations that follow it. */
const broughtBy = (cast: AccountVote, delegations: Delegations) => {
  const side = sideOf(cast);
  return side === undefined ? tallyOf(cast) : addTally(tallyOf(cast), sided(side, delegations));
};

function castingOf(host: Host, who: AccountId): Casting {
  const found = votingOf(host, who);
  return found.type === 'Casting' ? found.value : fail(errors.AlreadyDelegating);
}

/** The block from which on the OPEN of a vote is free, where it voted with what was decided; undefined where it is now. */
function lockedUntil(host: Host, status: Status, cast: AccountVote): number | undefined {
  if (status.type !== 'Decided' || cast.type !== 'Standard' || cast.value.vote.aye !== status.approved)
    return undefined;
  const byConviction = status.at + lockingPeriod(host) * lockPeriods(cast.value.vote.conviction);
  return Math.max(status.enactedAt, byConviction);
}

/** A split vote has no side; its ayes helped a proposal that passed. */
const helped = (status: Status, { type, value }: AccountVote): boolean =>
  status.type === 'Decided' && status.approved && type !== 'Standard' && value.aye > 0n;

/** Takes a vote on a decided proposal out of the list; what it still locks goes into the lock of votes before. */
function retired(host: Host, of: Casting, id: number, status: Status): Casting {
  const [, cast] = of.votes.find(([at]) => at === id) ?? fail(errors.NotVoter);
  const enacted = status.type === 'Decided' ? status.enactedAt : 0;
  const until = lockedUntil(host, status, cast) ?? (helped(status, cast) ? enacted : 0);
  const votes = of.votes.filter(([at]) => at !== id);
  const still = system.blockNumber(host) < until;
  return { ...of, votes, prior: still ? joined(host, of.prior, until, balanceOf(cast)) : of.prior };
}

/** Retires every vote on what is decided or gone. */
function tidied(host: Host, of: Casting): Casting {
  let next = of;
  for (const [id] of of.votes) {
    const status = statusOf(host, id);
    if (status.type === 'Decided' || status.type === 'None') next = retired(host, next, id, status);
  }
  return next;
}

function vote(env: Env, who: AccountId, id: number, cast: AccountVote): void {
  const { host } = env;
  const status = statusOf(host, id);
  const tally = status.type === 'Ongoing' ? status.tally : fail(errors.NotOngoing);
  ensureFunds(host, who, balanceOf(cast));
  const found = castingOf(host, who);
  const before = found.votes.find(([at]) => at === id)?.[1];
  const room = before !== undefined || found.votes.length < MAX_VOTES ? found : tidied(host, found);
  const others = room.votes.filter(([at]) => at !== id);
  ensure(others.length < MAX_VOTES, errors.MaxVotesReached);

  const without = before === undefined ? tally : subTally(tally, broughtBy(before, room.delegations));
  putTally(host, id, addTally(without, broughtBy(cast, room.delegations)));
  const votes = [...others, [id, cast] as [number, AccountVote]].sort(([a], [b]) => a - b);
  putVoting(host, who, { type: 'Casting', value: { ...room, votes } });
  extendLock(env, who, balanceOf(cast));
  env.emit(events.Voted, { who, vote: cast, pollIndex: id });
}

/** `anytime`: the voter itself asks, who may take back what still counts and lock what it still owes. */
function removeVote(env: Env, who: AccountId, id: number, anytime: boolean): void {
  const { host } = env;
  const found = castingOf(host, who);
  const [, cast] = found.votes.find(([at]) => at === id) ?? fail(errors.NotVoter);
  const status = statusOf(host, id);
  let next: Casting;
  switch (status.type) {
    case 'Ongoing':
      ensure(anytime, errors.NoPermission);
      putTally(host, id, subTally(status.tally, broughtBy(cast, found.delegations)));
      next = { ...found, votes: found.votes.filter(([at]) => at !== id) };
      break;
    case 'Over':
      // Its side may have won: that is known when somebody closes the proposal, which anybody can.
      fail(errors.NoPermissionYet);
      break;
    default:
      next = retired(host, found, id, status);
      // A lock that is joined to another may last longer: that is for the voter to choose.
      ensure(anytime || next.prior === found.prior, errors.NoPermissionYet);
  }
  putVoting(host, who, { type: 'Casting', value: next });
  env.emit(events.VoteRemoved, { who, vote: cast, pollIndex: id });
}

// ---- delegations ---------------------------------------------------------------------------------------------

/** Gives the delegate more or less to vote with, also on what it has voted for already. */
function changeDelegations(env: Env, delegate: AccountId, by: Delegations, more: boolean): number {
  const { host } = env;
  const found = votingOf(host, delegate);
  const change = more ? addDelegations : subDelegations;
  const delegations = change(found.value.delegations, by);
  if (found.type === 'Delegating') {
    // What it was given does not go further than itself.
    putVoting(host, delegate, { type: 'Delegating', value: { ...found.value, delegations } });
    return 0;
  }
  for (const [id, cast] of found.value.votes) {
    const side = sideOf(cast);
    const status = statusOf(host, id);
    if (side === undefined || status.type !== 'Ongoing') continue;
    putTally(host, id, (more ? addTally : subTally)(status.tally, sided(side, by)));
  }
  putVoting(host, delegate, { type: 'Casting', value: { ...found.value, delegations } });
  return found.value.votes.length;
}
const addDelegations = (a: Delegations, b: Delegations): Delegations => ({
  votes: a.votes + b.votes,
  capital: a.capital + b.capital,
});
const subDelegations = (a: Delegations, b: Delegations): Delegations => ({
  votes: a.votes - b.votes,
  capital: a.capital - b.capital,
});

function delegate(env: Env, who: AccountId, target: AccountId, of: Conviction, amount: Balance): number {
  const { host } = env;
  ensure(!sameAccount(who, target), errors.Nonsense);
  ensureFunds(host, who, amount);
  const found = castingOf(host, who);
  // Votes on what is decided are no obstacle; what they still lock stays locked.
  const { votes, delegations, prior } = tidied(host, found);
  ensure(votes.length === 0, errors.AlreadyVoting);
  putVoting(host, who, {
    type: 'Delegating',
    value: { balance: amount, target, conviction: { type: of }, delegations, prior },
  });
  const count = changeDelegations(env, target, weighed(of, amount), true);
  extendLock(env, who, amount);
  env.emit(events.Delegated, { who, target, class: CLASS });
  return found.votes.length + count;
}

function undelegate(env: Env, who: AccountId): number {
  const { host } = env;
  const found = votingOf(host, who);
  if (found.type !== 'Delegating') fail(errors.NotDelegating);
  const { balance: amount, target, conviction: of, delegations, prior } = found.value;
  // The delegate may have won with it: it is locked as if that had been now, without conviction for one period.
  const periods = Math.max(1, lockPeriods(of.type));
  const until = system.blockNumber(host) + lockingPeriod(host) * periods;
  putVoting(host, who, {
    type: 'Casting',
    value: { votes: [], delegations, prior: joined(host, prior, until, amount) },
  });
  const count = changeDelegations(env, target, weighed(of.type, amount), false);
  env.emit(events.Undelegated, { who, class: CLASS });
  return count;
}

// ---- the pallet ----------------------------------------------------------------------------------------------

const ensureClass = (given: number | undefined): void =>
  ensure(given === undefined || given === CLASS, errors.BadClass);

const PER_VOTE = cost(3_000_000n, 2, 1);
const votesWeight = (count: number) => addWeight(cost(50_000_000n, 7, 7), scaleWeight(PER_VOTE, BigInt(count)));
const MOST = votesWeight(2 * MAX_VOTES);
const ONE_VOTE = addWeight(votesWeight(1), scaleWeight(cost(1_500_000n, 2, 0), BigInt(MAX_VOTES)));

export const convictionVoting = pallet({
  name: 'ConvictionVoting',
  index: INDEX,
  docs: 'Votes and delegations on proposals, weighed by how long their OPEN stays frozen.',
  storage: store,
  events,
  errors,
  freezeReasons: { Vote: VOTE_FREEZE },
  constants: {
    MaxVotes: constant(u32, MAX_VOTES, 'The maximum number of concurrent votes an account may have.'),
    MinVote: constant(balance, MIN_VOTE, 'The least that a vote or a delegation freezes.'),
    VoteLockingPeriod: constant(
      u32,
      lockingPeriod,
      'The minimum period of vote locking: no shorter than the enactment period.',
    ),
  },
  calls: {
    vote: call({
      index: 0,
      args: { pollIndex: compact(u32), vote: accountVote },
      weight: ONE_VOTE,
      docs: 'Vote in a poll, or change the vote. Free and staked OPEN can vote; it stays frozen until the vote is removed and unlocked.',
      run(context, { pollIndex, vote: cast }) {
        vote(context, ensureSigned(context.origin), pollIndex, cast);
      },
    }),
    delegate: call({
      index: 1,
      args: { class: classId, to: multiAddress, conviction, balance },
      weight: MOST,
      docs: 'Delegate the voting power (with some given conviction) of the sending account for a particular class of polls.\nThe balance delegated is locked for as long as it is delegated, and thereafter for the time of the conviction, one locking period at least.',
      run(context, { class: of, to, conviction: { type }, balance: amount }) {
        const who = ensureSigned(context.origin);
        ensureClass(of);
        return { actualWeight: votesWeight(delegate(context, who, accountOf(to), type, amount)) };
      },
    }),
    undelegate: call({
      index: 2,
      args: { class: classId },
      weight: MOST,
      docs: 'Undelegate the voting power of the sending account for a particular class of polls.',
      run(context, { class: of }) {
        const who = ensureSigned(context.origin);
        ensureClass(of);
        return { actualWeight: votesWeight(undelegate(context, who)) };
      },
    }),
    unlock: call({
      index: 3,
      args: { class: classId, target: multiAddress },
      weight: ONE_VOTE,
      docs: 'Remove the lock caused by prior voting/delegating which has expired within a particular class. Anybody may: the account itself may have nothing free for fees.',
      run(context, { class: of, target }) {
        ensureSigned(context.origin);
        ensureClass(of);
        const who = accountOf(target);
        unlock(context, who);
        context.emit(events.VoteUnlocked, { who, class: CLASS });
      },
    }),
    removeVote: call({
      index: 4,
      args: { class: option(classId), index: u32 },
      weight: ONE_VOTE,
      docs: 'Remove a vote for a poll. While the poll is ongoing it counts no more; afterwards, what it still locks is joined to the lock of other votes.',
      run(context, { class: of, index }) {
        const who = ensureSigned(context.origin);
        ensureClass(of);
        removeVote(context, who, index, true);
      },
    }),
    removeOtherVote: call({
      index: 5,
      args: { target: multiAddress, class: classId, index: u32 },
      weight: ONE_VOTE,
      docs: 'Remove the vote of another account: of a poll that was taken back, was lost, or whose lock is over.',
      run(context, { target, class: of, index }) {
        const who = ensureSigned(context.origin);
        ensureClass(of);
        const voter = accountOf(target);
        removeVote(context, voter, index, sameAccount(who, voter));
      },
    }),
  },
});
