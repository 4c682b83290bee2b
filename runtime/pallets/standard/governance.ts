/**
 * Governance: holders of OPEN decide what root does.
 *
 * Anybody proposes a call and leaves a deposit. While the vote is open, an account votes once per proposal, for or
 * against, with any amount that it has; the amount stays frozen until the vote is over, and the same OPEN may vote on
 * several proposals at a time. Then anybody closes it: it passes if at least the quorum of all OPEN voted and more of it
 * for than against. What passed runs as root after a delay, in which whoever disagrees can prepare or leave.
 *
 * The rules that hold for a proposal are those of the day it was made. Nothing here loops over voters or proposals:
 * tallies are kept as votes come in, an account unlocks its own votes, and a block enacts only what its agenda holds.
 */
import type { OuterCalls } from '../../framework/assembly.ts';
import {
  accountOf,
  actualWeight,
  addWeight,
  cost,
  type DispatchError,
  type DispatchOutcome,
  dispatchResult,
  ensure,
  ensureRoot,
  ensureSigned,
  error,
  exceeds,
  fail,
  ROOT,
  resultOf,
} from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import type { RuntimeCall } from '../../framework/runtime-call.ts';
import { blake2_128Concat, map, mapWithDefault, storage, twox64Concat, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import {
  bool,
  bytes,
  type Codec,
  compact,
  decode,
  encode,
  type Infer,
  named,
  struct,
  u32,
  variants,
  vec,
} from '../../primitives/scale/codec.ts';
import { ScaleError } from '../../primitives/scale/io.ts';
import {
  type AccountId,
  accountId,
  asHash,
  type Balance,
  balance,
  blockNumber,
  hash,
  multiAddress,
  PERBILL,
  perbill,
  type Weight,
  weight,
} from '../../primitives/types.ts';
import * as balances from './balances.ts';
import * as system from './system.ts';
import * as treasury from './treasury.ts';

const INDEX = 51;
const OPEN = 10n ** 18n;
/** Blocks of three seconds. */
const DAY = 28_800;

/** Bytes of a call that can be proposed. */
export const MAX_CALL_BYTES = 64 * 1024;
/** Open votes of one account. */
export const MAX_VOTES = 16;
/** Calls that one block enacts. */
export const MAX_ENACTMENTS = 8;
/** Blocks that an enactment may be put off because agendas are full. */
export const MAX_POSTPONEMENT = 64;
/** What one enactment may weigh, so that the fullest agenda leaves half of the block to transactions. */
export const MAX_ENACTMENT_WEIGHT: Weight = {
  refTime: system.BLOCK_WEIGHTS.maxBlock.refTime / BigInt(2 * MAX_ENACTMENTS),
  proofSize: system.BLOCK_WEIGHTS.maxBlock.proofSize / BigInt(2 * MAX_ENACTMENTS),
};

// ---- types ---------------------------------------------------------------------------------------------------

const parameters = named(
  'pallet_governance::Parameters',
  struct({
    /** What a proposal leaves as a deposit, at least and for each byte of its call. */
    depositBase: balance,
    depositPerByte: balance,
    /** Blocks. */
    votingPeriod: blockNumber,
    enactmentDelay: blockNumber,
    /** Part of the total issuance that must have voted. */
    quorum: perbill,
  }),
);
export type Parameters = Infer<typeof parameters>;

export const DEFAULT_PARAMETERS: Parameters = {
  depositBase: 100n * OPEN,
  depositPerByte: OPEN / 1_000n,
  votingPeriod: 7 * DAY,
  enactmentDelay: 2 * DAY,
  quorum: PERBILL / 20,
};

const stage = named(
  'pallet_governance::Stage',
  variants({
    /** Votes count in blocks before `ends`. */
    Voting: struct({ ends: blockNumber }),
    Passed: struct({ enactedAt: blockNumber }),
  }),
);

const proposal = named(
  'pallet_governance::Proposal',
  struct({
    proposer: accountId,
    deposit: balance,
    callHash: hash,
    ayes: balance,
    nays: balance,
    quorum: perbill,
    enactmentDelay: blockNumber,
    stage,
  }),
);
type Proposal = Infer<typeof proposal>;

const ballot = named('pallet_governance::Ballot', struct({ proposal: u32, aye: bool, amount: balance }));
type Ballot = Infer<typeof ballot>;

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Governance', {
  Parameters: value(parameters, DEFAULT_PARAMETERS, 'The rules for new proposals.'),
  ProposalCount: value(u32, 0, 'How many proposals there have been; the next one gets this number.'),
  Proposals: map(twox64Concat(u32), proposal, 'Proposals that are voted on or wait for their enactment.'),
  Calls: map(twox64Concat(u32), bytes(MAX_CALL_BYTES), 'The encoded calls of these proposals.'),
  Ballots: mapWithDefault(
    blake2_128Concat(accountId),
    vec(ballot, MAX_VOTES),
    [],
    'The votes of an account that are not unlocked yet. The largest of them is frozen.',
  ),
  Agenda: mapWithDefault(twox64Concat(blockNumber), vec(u32, MAX_ENACTMENTS), [], 'What a coming block enacts.'),
});

export const events = {
  Proposed: event(
    0,
    { proposal: u32, proposer: accountId, callHash: hash, deposit: balance, ends: blockNumber },
    'A call was proposed; votes count in blocks before `ends`.',
  ),
  Voted: event(
    1,
    { proposal: u32, who: accountId, aye: bool, amount: balance },
    'An account voted, or changed its vote to this.',
  ),
  Passed: event(
    2,
    { proposal: u32, ayes: balance, nays: balance, enactedAt: blockNumber },
    'A proposal passed and will be enacted.',
  ),
  Rejected: event(
    3,
    { proposal: u32, ayes: balance, nays: balance, quorumReached: bool },
    'A proposal did not pass. Below the quorum its deposit went to the treasury.',
  ),
  Enacted: event(4, { proposal: u32, result: dispatchResult }, 'The call of a proposal ran as root.'),
  Unlocked: event(5, { proposal: u32, who: accountId, amount: balance }, 'A vote that is over freezes no more.'),
  Cancelled: event(6, { proposal: u32 }, 'A proposal was taken back by root.'),
  ParametersSet: event(7, { parameters }, 'New proposals go by other rules.'),
};

export const errors = {
  CallTooLong: error(0, 'The encoded call is longer than proposals may be.'),
  CallTooHeavy: error(1, 'The call weighs more than one enactment may.'),
  NoSuchProposal: error(2, 'There is no such proposal, or it is over.'),
  VotingOver: error(3, 'The vote on the proposal is over.'),
  VotingOpen: error(4, 'The vote on the proposal is not over yet.'),
  NothingVoted: error(5, 'A vote needs an amount.'),
  InsufficientFunds: error(6, 'The account has less than it votes with.'),
  AmountLowered: error(7, 'What a vote has frozen stays frozen until its end: a changed vote may only be larger.'),
  TooManyVotes: error(8, 'The account has too many votes that are not unlocked.'),
  NoSuchVote: error(9, 'The account has no vote on this proposal.'),
  AgendaFull: error(10, 'The blocks in which the proposal could be enacted are full; close it later.'),
  BadParameters: error(11, 'A vote needs at least one block, and a quorum is at most the whole.'),
};

export const PROPOSAL_HOLD: Reason = { pallet: INDEX, reason: 0 };
export const VOTE_FREEZE: Reason = { pallet: INDEX, reason: 0 };

// ---- proposals -----------------------------------------------------------------------------------------------

const known = (host: Host, id: number): Proposal => store.Proposals.get(host, id) ?? fail(errors.NoSuchProposal);

const isOpen = (host: Host, { stage }: Proposal): boolean =>
  stage.type === 'Voting' && system.blockNumber(host) < stage.value.ends;

const depositFor = ({ depositBase, depositPerByte }: Parameters, length: number): Balance =>
  depositBase + depositPerByte * BigInt(length);

function forget(host: Host, id: number): void {
  store.Proposals.remove(host, id);
  store.Calls.remove(host, id);
}

/** Puts an enactment on the first agenda with room from block `from` on. Returns its block. */
function schedule(host: Host, id: number, from: number): number {
  for (let at = from; at <= from + MAX_POSTPONEMENT; at++) {
    const agenda = store.Agenda.get(host, at);
    if (agenda.length >= MAX_ENACTMENTS) continue;
    store.Agenda.insert(host, at, [...agenda, id]);
    return at;
  }
  return fail(errors.AgendaFull);
}

/** Decides a vote that is over. */
function close(env: Env, id: number): void {
  const { host } = env;
  const decided = known(host, id);
  ensure(decided.stage.type === 'Voting', errors.VotingOver);
  ensure(!isOpen(host, decided), errors.VotingOpen);
  const { ayes, nays, proposer, deposit } = decided;
  const quorumReached = (ayes + nays) * BigInt(PERBILL) >= balances.totalIssuance(host) * BigInt(decided.quorum);

  if (quorumReached) balances.release(env, PROPOSAL_HOLD, proposer, deposit);
  else treasury.forfeit(env, PROPOSAL_HOLD, proposer, deposit);
  if (quorumReached && ayes > nays) {
    const enactedAt = schedule(host, id, system.blockNumber(host) + Math.max(1, decided.enactmentDelay));
    const stage = { type: 'Passed', value: { enactedAt } } as const;
    store.Proposals.insert(host, id, { ...decided, deposit: 0n, stage });
    env.emit(events.Passed, { proposal: id, ayes, nays, enactedAt });
  } else {
    forget(host, id);
    env.emit(events.Rejected, { proposal: id, ayes, nays, quorumReached });
  }
}

// ---- votes ---------------------------------------------------------------------------------------------------

function putBallots(env: Env, who: AccountId, ballots: readonly Ballot[]): void {
  if (ballots.length === 0) store.Ballots.remove(env.host, who);
  else store.Ballots.insert(env.host, who, [...ballots]);
  const largest = ballots.reduce((most, { amount }) => (amount > most ? amount : most), 0n);
  balances.setFreeze(env, VOTE_FREEZE, who, largest);
}

function vote(env: Env, who: AccountId, { proposal: id, aye, amount }: Ballot): void {
  const { host } = env;
  const subject = known(host, id);
  ensure(isOpen(host, subject), errors.VotingOver);
  ensure(amount > 0n, errors.NothingVoted);
  ensure(amount <= balances.totalBalance(host, who), errors.InsufficientFunds);
  const ballots = store.Ballots.get(host, who);
  const before = ballots.find((each) => each.proposal === id);
  const others = ballots.filter((each) => each.proposal !== id);
  ensure(before === undefined || amount >= before.amount, errors.AmountLowered);
  ensure(others.length < MAX_VOTES, errors.TooManyVotes);
  const change = (side: boolean): Balance => (aye === side ? amount : 0n) - (before?.aye === side ? before.amount : 0n);
  store.Proposals.insert(host, id, {
    ...subject,
    ayes: subject.ayes + change(true),
    nays: subject.nays + change(false),
  });
  putBallots(env, who, [...others, { proposal: id, aye, amount }]);
  env.emit(events.Voted, { proposal: id, who, aye, amount });
}

function unlock(env: Env, who: AccountId, id: number): void {
  const { host } = env;
  const ballots = store.Ballots.get(host, who);
  const over = ballots.find((each) => each.proposal === id) ?? fail(errors.NoSuchVote);
  const subject = store.Proposals.get(host, id);
  ensure(subject === undefined || !isOpen(host, subject), errors.VotingOpen);
  putBallots(
    env,
    who,
    ballots.filter((each) => each !== over),
  );
  env.emit(events.Unlocked, { proposal: id, who, amount: over.amount });
}

// ---- enactment -----------------------------------------------------------------------------------------------

const failed = (type: 'Corruption' | 'Exhausted'): DispatchOutcome => ({
  ok: false,
  error: { type } satisfies DispatchError,
  post: {},
});

/** Runs what passed. Nothing that it holds can stop the block: what the runtime of the day cannot read or afford fails. */
function enact(env: Env, codec: Codec<RuntimeCall>, id: number): Weight {
  const { host } = env;
  const encoded = store.Calls.get(host, id);
  if (encoded === undefined) return ENACT; // cancelled
  forget(host, id);
  let outcome: DispatchOutcome;
  let used = ENACT;
  try {
    const inner = decode(codec, encoded);
    const info = env.infoOf(inner);
    if (exceeds(info.weight, MAX_ENACTMENT_WEIGHT)) outcome = failed('Exhausted');
    else {
      outcome = env.dispatch(inner, ROOT);
      used = addWeight(used, actualWeight(outcome, info));
    }
  } catch (problem) {
    if (!(problem instanceof ScaleError)) throw problem;
    outcome = failed('Corruption');
    used = addWeight(used, MAX_ENACTMENT_WEIGHT);
  }
  env.emit(events.Enacted, { proposal: id, result: resultOf(outcome) });
  return used;
}

const ENACT = cost(10_000_000n, 2, 3);
const AGENDA = cost(2_000_000n, 1, 1);

// ---- the pallet ----------------------------------------------------------------------------------------------

function checked(next: Parameters): Parameters {
  ensure(next.votingPeriod > 0 && next.quorum <= PERBILL, errors.BadParameters);
  return next;
}

export type GovernanceGenesis = Partial<Parameters> | undefined;

export const governance = ({ codec }: OuterCalls) =>
  pallet({
    name: 'Governance',
    index: INDEX,
    docs: 'Proposals, votes of the holders of OPEN, and what they enact.',
    storage: store,
    events,
    errors,
    holdReasons: { Proposal: PROPOSAL_HOLD },
    freezeReasons: { Vote: VOTE_FREEZE },
    constants: {
      MaxCallBytes: constant(u32, MAX_CALL_BYTES, 'Bytes of a call that can be proposed.'),
      MaxVotes: constant(u32, MAX_VOTES, 'Votes that an account may have without unlocking them.'),
      MaxEnactments: constant(u32, MAX_ENACTMENTS, 'Proposals that one block enacts.'),
      MaxPostponement: constant(
        u32,
        MAX_POSTPONEMENT,
        'Blocks that an enactment may be put off when agendas are full.',
      ),
      MaxEnactmentWeight: constant(weight, MAX_ENACTMENT_WEIGHT, 'What a proposed call may weigh.'),
    },
    calls: {
      propose: call({
        index: 0,
        args: { call: codec },
        weight: ({ call: inner }) => cost(50_000_000n + 2_000n * BigInt(encode(codec, inner).length), 4, 5),
        docs: 'Propose a call that root shall make. Reserves a deposit, which comes back if the vote reaches the quorum.',
        run(context, { call: inner }) {
          const { host, emit } = context;
          const proposer = ensureSigned(context.origin);
          const encoded = encode(codec, inner);
          ensure(encoded.length <= MAX_CALL_BYTES, errors.CallTooLong);
          ensure(!exceeds(context.infoOf(inner).weight, MAX_ENACTMENT_WEIGHT), errors.CallTooHeavy);
          const rules = store.Parameters.get(host);
          const deposit = depositFor(rules, encoded.length);
          balances.hold(context, PROPOSAL_HOLD, proposer, deposit);
          const id = store.ProposalCount.get(host);
          store.ProposalCount.put(host, id + 1);
          const ends = system.blockNumber(host) + rules.votingPeriod;
          const callHash = asHash(host.blake2_256(encoded));
          store.Calls.insert(host, id, encoded);
          store.Proposals.insert(host, id, {
            proposer,
            deposit,
            callHash,
            ayes: 0n,
            nays: 0n,
            quorum: rules.quorum,
            enactmentDelay: rules.enactmentDelay,
            stage: { type: 'Voting', value: { ends } },
          });
          emit(events.Proposed, { proposal: id, proposer, callHash, deposit, ends });
        },
      }),
      vote: call({
        index: 1,
        args: { proposal: compact(u32), aye: bool, amount: compact(balance) },
        weight: cost(45_000_000n, 5, 5),
        docs: 'Vote on a proposal with some of the own OPEN, which stays frozen until the end of the vote.\nA vote may change sides and grow, as long as the vote is open.',
        run(context, args) {
          vote(context, ensureSigned(context.origin), args);
        },
      }),
      close: call({
        index: 2,
        args: { proposal: compact(u32) },
        weight: cost(50_000_000n, 6 + MAX_POSTPONEMENT, 6),
        docs: 'Decide a proposal whose vote is over. Anybody may, and pays nothing for it.',
        run(context, { proposal: id }) {
          ensureSigned(context.origin);
          close(context, id);
          return { paysFee: false };
        },
      }),
      unlock: call({
        index: 3,
        args: { target: multiAddress, proposal: compact(u32) },
        weight: cost(35_000_000n, 4, 4),
        docs: 'Thaw what an account froze for a vote that is over. Anybody may: the account itself may have nothing free for fees.',
        run(context, { target, proposal: id }) {
          ensureSigned(context.origin);
          unlock(context, accountOf(target), id);
        },
      }),
      cancel: call({
        index: 4,
        args: { proposal: compact(u32) },
        weight: cost(30_000_000n, 4, 4),
        class: 'Operational',
        docs: 'Take a proposal back before it is enacted; its deposit is returned. Root only.',
        run(context, { proposal: id }) {
          ensureRoot(context.origin);
          const { proposer, deposit } = known(context.host, id);
          balances.release(context, PROPOSAL_HOLD, proposer, deposit);
          forget(context.host, id);
          context.emit(events.Cancelled, { proposal: id });
        },
      }),
      setParameters: call({
        index: 5,
        args: { parameters },
        weight: cost(10_000_000n, 0, 1),
        class: 'Operational',
        docs: 'Set the rules for new proposals. Root only.',
        run({ host, origin, emit }, { parameters: next }) {
          ensureRoot(origin);
          store.Parameters.put(host, checked(next));
          emit(events.ParametersSet, { parameters: next });
        },
      }),
    },
    hooks: {
      onInitialize(env, number) {
        const agenda = store.Agenda.get(env.host, number);
        if (agenda.length === 0) return AGENDA;
        store.Agenda.remove(env.host, number);
        return agenda.reduce((used, id) => addWeight(used, enact(env, codec, id)), AGENDA);
      },
    },
    /** Amounts may be decimal strings, as chain specs write them. */
    genesis({ host }, config: GovernanceGenesis) {
      if (config === undefined) return;
      const next = { ...DEFAULT_PARAMETERS, ...config };
      store.Parameters.put(
        host,
        checked({ ...next, depositBase: BigInt(next.depositBase), depositPerByte: BigInt(next.depositPerByte) }),
      );
    },
  });
