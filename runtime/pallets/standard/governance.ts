/**
 * Governance: holders of OPEN decide what root does.
 *
 * Anybody proposes a call and leaves two deposits: one for being heard, which is lost to the treasury where too little OPEN
 * votes and grows with the number of open proposals, and one for the bytes of the call, which comes back when they go. While
 * the vote is open, ConvictionVoting counts votes. At its end the proposal is decided: it passes if enough of all OPEN
 * supports it and more votes are for it than against. What passed runs as root after a delay, in which whoever disagrees
 * can prepare or leave; those who voted for it stay locked until then.
 *
 * The rules that hold for a proposal are those of the day it was made. Decisions and enactments are items of work
 * (framework/work-queue.ts), so that no number of them, and nothing that a call does, makes a block heavy or impossible.
 */
import { byCallLength, encodedCall, type OuterCalls } from '../../framework/assembly.ts';
import {
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
  PS_PER_MS,
  ROOT,
  resultOf,
} from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import type { ParametersConfig } from '../../framework/parameters.ts';
import type { RuntimeCall } from '../../framework/runtime-call.ts';
import { storage } from '../../framework/storage.ts';
import { type WorkQueue, workQueue } from '../../framework/work-queue.ts';
import type { Host } from '../../host.ts';
import { bool, type Codec, compact, decode, u32, variants } from '../../primitives/scale/codec.ts';
import { ScaleError } from '../../primitives/scale/io.ts';
import {
  accountId,
  asHash,
  type Balance,
  balance,
  blockNumber,
  hash,
  type Weight,
  weight,
} from '../../primitives/types.ts';
import * as balances from './balances.ts';
import { type Parameters, parameters } from './governance/parameters.ts';
import {
  isOpen,
  judge,
  MAX_CALL_BYTES,
  MAX_OPEN,
  NO_VOTES,
  type Proposal,
  store,
  tally,
} from './governance/proposals.ts';
import * as system from './system.ts';
import * as treasury from './treasury.ts';

export { MAX_CALL_BYTES, MAX_OPEN, store } from './governance/proposals.ts';

const INDEX = 51;

/** Open proposals after which the deposit doubles. */
export const DEPOSIT_STEP = 8;
/** What one enactment may weigh. */
export const MAX_ENACTMENT_WEIGHT: Weight = { refTime: 50n * PS_PER_MS, proofSize: 4n * 1024n * 1024n };

// ---- storage, events, errors ---------------------------------------------------------------------------------

/** What is done by itself: a vote that is over is decided, what passed is enacted. */
const task = variants({ Decide: u32, Enact: u32 });

export const events = {
  Proposed: event(
    0,
    { proposal: u32, proposer: accountId, callHash: hash, deposit: balance, bytesDeposit: balance, ends: blockNumber },
    'A call was proposed; votes count in blocks before `ends`.',
  ),
  Passed: event(2, { proposal: u32, tally, enactedAt: blockNumber }, 'A proposal passed and will be enacted.'),
  Rejected: event(
    3,
    { proposal: u32, tally, heard: bool },
    'A proposal did not pass. If it was not heard, its deposit went to the treasury.',
  ),
  Enacted: event(4, { proposal: u32, result: dispatchResult }, 'The call of a proposal ran as root.'),
  Cancelled: event(6, { proposal: u32 }, 'A proposal was taken back by root.'),
  ParametersSet: parameters.changed(7),
};

export const errors = {
  CallTooLong: error(0, 'The encoded call is longer than proposals may be.'),
  CallTooHeavy: error(1, 'The call weighs more than one enactment may.'),
  NoSuchProposal: error(2, 'There is no such proposal, or it is over.'),
  VotingOver: error(3, 'The vote on the proposal is over and decided.'),
  VotingOpen: error(4, 'The vote on the proposal is not over yet.'),
  TooManyProposals: error(10, 'As many proposals are open as there may be.'),
  BadParameters: parameters.refused(11),
};

export const PROPOSAL_HOLD: Reason = { pallet: INDEX, reason: 0 };

// ---- proposals -----------------------------------------------------------------------------------------------

const known = (host: Host, id: number): Proposal => store.Proposals.get(host, id) ?? fail(errors.NoSuchProposal);

/** Twice as much for every eight proposals that are open: whoever wants to fill the list pays for it many times over. */
export const depositFor = ({ depositBase }: Parameters, open: number): Balance =>
  depositBase << BigInt(Math.floor(open / DEPOSIT_STEP));

/** Forgets a proposal with its call, whose deposit comes back. */
function forget(env: Env, id: number, { proposer, bytesDeposit }: Proposal): void {
  store.Proposals.remove(env.host, id);
  store.Calls.remove(env.host, id);
  balances.release(env, PROPOSAL_HOLD, proposer, bytesDeposit);
}

const closed = (host: Host): void => {
  store.OpenCount.mutate(host, (count) => count - 1);
};

/** Decides a vote that is over. */
function decide(env: Env, queue: Tasks, id: number): void {
  const { host } = env;
  const found = known(host, id);
  ensure(found.stage.type === 'Voting', errors.VotingOver);
  ensure(!isOpen(host, found), errors.VotingOpen);
  const { proposer, deposit, tally: votes } = found;
  const { passed, heard } = judge(found, balances.totalIssuance(host));
  const at = system.blockNumber(host);
  closed(host);
  if (heard) balances.release(env, PROPOSAL_HOLD, proposer, deposit);
  else treasury.forfeit(env, PROPOSAL_HOLD, proposer, deposit);
  if (!passed) {
    forget(env, id, found);
    store.Outcomes.insert(host, id, { type: 'Rejected', value: { at } });
    env.emit(events.Rejected, { proposal: id, tally: votes, heard });
    return;
  }
  const enactedAt = at + found.enactmentDelay;
  store.Proposals.insert(host, id, { ...found, deposit: 0n, stage: { type: 'Passed', value: { enactedAt } } });
  store.Outcomes.insert(host, id, { type: 'Approved', value: { at, enactedAt } });
  queue.schedule(host, { now: at, due: enactedAt }, { type: 'Enact', value: id });
  env.emit(events.Passed, { proposal: id, tally: votes, enactedAt });
}

// ---- enactment -----------------------------------------------------------------------------------------------

const failed = (error: DispatchError): DispatchOutcome => ({ ok: false, error, post: {} });

/**
 * Runs what passed. What the runtime of the day cannot read or afford fails, and so does whatever the call throws: the
 * proposal is done with, and tells how it ended.
 */
function enact(env: Env, codec: Codec<RuntimeCall>, id: number): Weight {
  const { host } = env;
  const found = store.Proposals.get(host, id);
  const encoded = store.Calls.get(host, id);
  // Taken back by root, meanwhile.
  if (found === undefined || encoded === undefined) return ENACT;
  forget(env, id, found);
  const { outcome, used } = carriedOut(env, codec, encoded);
  env.emit(events.Enacted, { proposal: id, result: resultOf(outcome) });
  return addWeight(ENACT, used);
}

function carriedOut(
  env: Env,
  codec: Codec<RuntimeCall>,
  encoded: Uint8Array,
): { outcome: DispatchOutcome; used: Weight } {
  let inner: RuntimeCall;
  try {
    inner = decode(codec, encoded);
  } catch (problem) {
    if (!(problem instanceof ScaleError)) throw problem;
    return { outcome: failed({ type: 'Corruption' }), used: MAX_ENACTMENT_WEIGHT };
  }
  const info = env.infoOf(inner);
  if (exceeds(info.weight, MAX_ENACTMENT_WEIGHT)) {
    return { outcome: failed({ type: 'Exhausted' }), used: MAX_ENACTMENT_WEIGHT };
  }
  try {
    const outcome = env.transactional(() => env.dispatch(inner, ROOT));
    return { outcome, used: actualWeight(outcome, info) };
  } catch (problem) {
    return { outcome: failed(env.failureOf(problem)), used: MAX_ENACTMENT_WEIGHT };
  }
}

const DECIDE = cost(30_000_000n, 9, 12);
const ENACT = cost(30_000_000n, 6, 8);

type Task = { readonly type: 'Decide' | 'Enact'; readonly value: number };
type Tasks = WorkQueue<'Tasks', Task>;

function tasksOf(codec: Codec<RuntimeCall>): Tasks {
  const queue: Tasks = workQueue({
    name: 'Tasks',
    docs: 'Votes that are decided and proposals that are enacted, by the block in which they are due.',
    item: task,
    budget: MAX_ENACTMENT_WEIGHT.refTime + 10n * PS_PER_MS,
    weight: ({ type }) => (type === 'Decide' ? DECIDE : addWeight(ENACT, MAX_ENACTMENT_WEIGHT)),
    run(env, { type, value: id }) {
      if (type === 'Enact') return { used: enact(env, codec, id) };
      const found = store.Proposals.get(env.host, id);
      // Somebody closed it by hand, or root took it back.
      if (found?.stage.type === 'Voting') decide(env, queue, id);
      return { used: DECIDE };
    },
  });
  return queue;
}

// ---- the pallet ----------------------------------------------------------------------------------------------

export type GovernanceGenesis = ParametersConfig<Parameters>;

export const governance = ({ codec }: OuterCalls) => {
  const tasks = tasksOf(codec);
  return pallet({
    name: 'Governance',
    index: INDEX,
    docs: 'Proposals, and what they enact where the holders of OPEN agree.',
    storage: storage('Governance', { ...store, ...tasks.storage }),
    events,
    errors,
    holdReasons: { Proposal: PROPOSAL_HOLD },
    work: [tasks],
    constants: {
      ...parameters.constants,
      MaxCallBytes: constant(u32, MAX_CALL_BYTES, 'Bytes of a call that can be proposed.'),
      MaxOpen: constant(u32, MAX_OPEN, 'Proposals that can be open at a time.'),
      DepositStep: constant(u32, DEPOSIT_STEP, 'Open proposals after which the deposit for the next one doubles.'),
      MaxEnactmentWeight: constant(weight, MAX_ENACTMENT_WEIGHT, 'What a proposed call may weigh.'),
    },
    calls: {
      propose: call({
        index: 0,
        args: { call: codec },
        weight: ({ call: inner }) => addWeight(cost(60_000_000n, 8, 10), byCallLength(codec, inner)),
        docs: 'Propose a call that root shall make. Puts two deposits on hold: one is lost if too little OPEN votes, the other one comes back with the bytes of the call.',
        run(context, { call: inner }) {
          const { host, emit } = context;
          const proposer = ensureSigned(context.origin);
          const encoded = encodedCall(codec, inner);
          ensure(encoded.length <= MAX_CALL_BYTES, errors.CallTooLong);
          ensure(!exceeds(context.infoOf(inner).weight, MAX_ENACTMENT_WEIGHT), errors.CallTooHeavy);
          const open = store.OpenCount.get(host);
          ensure(open < MAX_OPEN, errors.TooManyProposals);
          const rules = parameters.get(host);
          const deposit = depositFor(rules, open);
          const bytesDeposit = rules.depositPerByte * BigInt(encoded.length);
          balances.hold(context, PROPOSAL_HOLD, proposer, deposit + bytesDeposit);
          store.OpenCount.put(host, open + 1);
          const id = store.ProposalCount.get(host);
          store.ProposalCount.put(host, id + 1);
          const now = system.blockNumber(host);
          const ends = now + rules.votingPeriod;
          const callHash = asHash(host.blake2_256(encoded));
          store.Calls.insert(host, id, encoded);
          store.Proposals.insert(host, id, {
            proposer,
            deposit,
            bytesDeposit,
            callHash,
            tally: NO_VOTES,
            quorum: rules.quorum,
            enactmentDelay: rules.enactmentDelay,
            stage: { type: 'Voting', value: { ends } },
          });
          tasks.schedule(host, { now, due: ends }, { type: 'Decide', value: id });
          emit(events.Proposed, { proposal: id, proposer, callHash, deposit, bytesDeposit, ends });
        },
      }),
      close: call({
        index: 2,
        args: { proposal: compact(u32) },
        weight: DECIDE,
        docs: 'Decide a proposal whose vote is over, where that has not happened by itself. Anybody may, and pays nothing for it.',
        run(context, { proposal: id }) {
          ensureSigned(context.origin);
          decide(context, tasks, id);
          return { paysFee: false };
        },
      }),
      cancel: call({
        index: 4,
        args: { proposal: compact(u32) },
        weight: cost(30_000_000n, 5, 6),
        class: 'Operational',
        docs: 'Take a proposal back before it is enacted; its deposits are returned. Root only.',
        run(context, { proposal: id }) {
          ensureRoot(context.origin);
          const { host } = context;
          const found = known(host, id);
          if (found.stage.type === 'Voting') closed(host);
          balances.release(context, PROPOSAL_HOLD, found.proposer, found.deposit);
          forget(context, id, found);
          store.Outcomes.remove(host, id);
          context.emit(events.Cancelled, { proposal: id });
        },
      }),
      setParameters: parameters.setter(5, events.ParametersSet, errors.BadParameters),
    },
    genesis({ host }, config: GovernanceGenesis) {
      parameters.begin(host, config);
    },
  });
};
