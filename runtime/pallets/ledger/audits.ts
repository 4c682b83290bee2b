/**
 * Audits: what integers cannot show (whether features are the true gradients) other workers recompute. Chance decides
 * which work is looked at and by whom (`audits/selection.ts`); auditors commit to their verdicts before anybody sees one.
 * If the first few are of one mind that all is well, it is; otherwise more are drawn, and the majority of those decides.
 * Whoever turns out right is paid, whoever turns out wrong, says nothing or keeps its verdict back pays.
 */
import { cost, ensure, ensureSigned, fail } from '../../framework/dispatch.ts';
import { call, constant, type Env, pallet, type Reason } from '../../framework/pallet.ts';
import type { ParametersConfig } from '../../framework/parameters.ts';
import type { Host } from '../../host.ts';
import { canonical, hashOf } from '../../primitives/attribution/canonical.ts';
import { blobHash, type ReceiptBatchId } from '../../primitives/attribution/ids.ts';
import { equalBytes } from '../../primitives/bytes.ts';
import { TREASURY } from '../../primitives/pallet-id.ts';
import { bool, fixedBytes, struct, u32, u64 } from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, type Balance, type Hash, hash, sameAccount } from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import * as system from '../standard/system.ts';
import { drawSecond, suspend } from './audits/selection.ts';
import {
  type Audit,
  type Auditor,
  type AuditParameters,
  errors,
  events,
  type Later,
  MAX_PLANTS,
  parameters,
  parametersOf,
  type Subject,
  store,
} from './audits/store.ts';
import { type Outcome, outcomeOf, reckon, type Vote } from './audits/verdicts.ts';
import * as blobs from './blobs.ts';
import * as compute from './compute.ts';

export { drawFirst, enter, isSuspended, order, release, select, span } from './audits/selection.ts';
export {
  type Audit,
  audit,
  errors,
  events,
  type Later,
  parametersOf,
  plant,
  type Request,
  type Step,
  type Subject,
  step,
  store,
  subject,
} from './audits/store.ts';

/** Bytes of what a worker discloses of an answer: a prompt and an answer at their bounds, with room for what is beside them. */
const MAX_DISCLOSURE = 1n << 20n;
/** Held for each commitment to a planted fault. */
const PLANT_DEPOSIT = 10n ** 17n;
const PLANT: Reason = { pallet: 26, reason: 0 };

/** What an auditor commits to: `blake2b-256(domain ++ SCALE)`. `faulty`: the work is not what it claims to be. */
export const auditVerdict = canonical(
  'audit-verdict/1',
  'AuditVerdict',
  struct({ audit: u32, auditor: accountId, faulty: bool, salt: fixedBytes(32) }),
);

// ---- the end of an audit -------------------------------------------------------------------------------------

const voteOf = ({ commitment, verdict, unavailable }: Auditor): Vote => {
  if (verdict !== undefined) return verdict ? 'Faulty' : 'Sound';
  if (unavailable) return 'Unavailable';
  return commitment === undefined ? 'Silent' : 'Withheld';
};

export interface Conclusion {
  readonly subject: Subject;
  readonly outcome: Exclude<Outcome, 'Contested'>;
  /** Whoever asked for the audit, or else the first of the auditors that found the fault. */
  readonly finder: AccountId | undefined;
}

/** Whether the files of the work were attested to be there. */
export type IsAvailable = (of: Subject) => boolean;

/** Ends a round of an audit. Nothing is returned while the audit goes on, or if it is none. */
export function conclude(env: Env, id: number, later: Later, isAvailable: IsAvailable): Conclusion | undefined {
  const { host } = env;
  const found = store.Audits.get(host, id);
  if (found === undefined) return undefined;
  const { subject: of, planted, disclosed, requester } = found;
  // An answer must be disclosed; of a training, everything has been attested or is not paid for.
  const undisclosed = of.type === 'Batch' && disclosed === undefined && !planted;
  const isThere = isAvailable(of) && (disclosed === undefined || blobs.isAvailable(host, disclosed.claim));
  const withheld = undisclosed || (of.type === 'Batch' && !planted && !isThere);
  const mayContest = found.first.length === 0;
  let outcome: Outcome = undisclosed ? 'Faulty' : 'Sound';
  if (planted) outcome = 'Faulty';
  else if (!undisclosed) outcome = outcomeOf({ votes: found.auditors.map(voteOf), mayContest, withheld });
  if (outcome === 'Contested') {
    if (drawSecond(env, later, id, found)) {
      env.emit(events.Contested, { audit: id });
      return undefined;
    }
    outcome = outcomeOf({ votes: found.auditors.map(voteOf), mayContest: false, withheld }) as Exclude<
      Outcome,
      'Contested'
    >;
  }
  store.Audits.remove(host, id);
  suspend(host, of, -1);
  if (disclosed !== undefined) blobs.release(env, disclosed.claim);
  const all = [...found.first, ...found.auditors];
  for (const each of all) reckonWith(env, id, found, each, outcome, withheld);
  const against = all.filter(({ verdict }) => verdict === true);
  const votes = all.filter(({ verdict }) => verdict !== undefined).length;
  env.emit(events.Concluded, {
    ...{ audit: id, subject: of, votes, against: against.length },
    faulty: outcome === 'Faulty',
  });
  // What was planted has been taken back by whoever planted it: nothing is left to strike.
  return { subject: of, outcome: planted ? 'Sound' : outcome, finder: requester ?? against[0]?.account };
}

function reckonWith(
  env: Env,
  id: number,
  { planted, accused }: Audit,
  each: Auditor,
  outcome: Conclusion['outcome'],
  withheld: boolean,
): void {
  const { fee, silenceSlash, lazySlash } = parametersOf(env.host);
  const { account } = each;
  compute.oblige(env.host, account, -1);
  switch (reckon(voteOf(each), outcome, withheld)) {
    case 'Paid':
      payFee(env, account, fee);
      break;
    case 'Silent':
      compute.slash(env, account, silenceSlash);
      break;
    case 'Wrong':
      if (planted) {
        compute.slash(env, account, lazySlash, accused, lazySlash / 2n);
        env.emit(events.Lazy, { audit: id, auditor: account });
      } else {
        compute.slash(env, account, lazySlash);
        env.emit(events.Wrong, { audit: id, auditor: account });
      }
      break;
    case 'Nothing':
  }
}

/** A treasury with nothing in it pays nobody. */
function payFee(env: Env, account: AccountId, fee: Balance): void {
  if (balances.reducible(env.host, TREASURY, true) >= fee && balances.freeBalance(env.host, account) > 0n) {
    balances.transfer(env, TREASURY, account, fee, 'KeepAlive');
  }
}

// ---- planted faults ------------------------------------------------------------------------------------------

/**
 * Takes up the commitment to a planted fault by the one who paid for the answer: to be answered wrongly was its own wish.
 * Returns the hash of its block, which is known by now.
 */
export function takePlant(env: Env, payer: AccountId, commitment: Hash): Hash {
  const { host } = env;
  const plants = store.Plants.get(host, payer);
  const found = plants.find((each) => equalBytes(each.commitment, commitment)) ?? fail(errors.UnknownPlant);
  ensure(found.at < system.blockNumber(host), errors.UnknownPlant);
  const others = plants.filter((each) => each !== found);
  if (others.length > 0) store.Plants.insert(host, payer, others);
  else store.Plants.remove(host, payer);
  balances.release(env, PLANT, payer, PLANT_DEPOSIT);
  return system.blockHash(host, found.at);
}

/** Tells an audit that its batch's fault was planted: once nobody can change a verdict any more. */
export function tellPlanted(host: Host, id: number, batch: ReceiptBatchId): void {
  const found = store.Audits.get(host, id) ?? fail(errors.UnknownAudit);
  ensure(found.subject.type === 'Batch' && found.subject.value === batch, errors.OtherSubject);
  ensure(system.blockNumber(host) > found.commitUntil, errors.StillOpen);
  store.Audits.insert(host, id, { ...found, planted: true });
}

// ---- calls ---------------------------------------------------------------------------------------------------

function asAuditor(host: Host, id: number, who: AccountId): { found: Audit; at: number } {
  const found = store.Audits.get(host, id) ?? fail(errors.UnknownAudit);
  const at = found.auditors.findIndex(({ account }) => sameAccount(account, who));
  ensure(at >= 0, errors.NotAuditor);
  return { found, at };
}

function put(host: Host, id: number, found: Audit, at: number, change: Partial<Auditor>): void {
  const auditors = found.auditors.map((each, index) => (index === at ? { ...each, ...change } : each));
  store.Audits.insert(host, id, { ...found, auditors });
}

/** The auditor's place in the audit, as long as it has not made up its mind. */
function undecided(host: Host, id: number, who: AccountId): { found: Audit; at: number } {
  const { found, at } = asAuditor(host, id, who);
  ensure(system.blockNumber(host) <= found.commitUntil, errors.TooLate);
  const { commitment, unavailable } = found.auditors[at]!;
  ensure(commitment === undefined && !unavailable, errors.AlreadyCommitted);
  return { found, at };
}

export const calls = {
  commit: call({
    index: 0,
    args: { audit: u32, commitment: hash },
    weight: cost(30_000_000n, 1, 1),
    docs: 'Commit to a verdict. Drawn auditors only.',
    run({ origin, host, emit }, { audit: id, commitment }) {
      const who = ensureSigned(origin);
      const { found, at } = undecided(host, id, who);
      put(host, id, found, at, { commitment });
      emit(events.Committed, { audit: id, auditor: who });
    },
  }),
  reveal: call({
    index: 1,
    args: { audit: u32, faulty: bool, salt: fixedBytes(32) },
    weight: cost(40_000_000n, 1, 1),
    docs: 'Reveal the verdict that was committed to.',
    run({ origin, host, emit }, { audit: id, faulty, salt }) {
      const who = ensureSigned(origin);
      const { found, at } = asAuditor(host, id, who);
      const now = system.blockNumber(host);
      ensure(now > found.commitUntil, errors.TooEarly);
      ensure(now < found.revealUntil, errors.TooLate);
      const { commitment, verdict } = found.auditors[at]!;
      ensure(verdict === undefined, errors.AlreadyRevealed);
      const made = hashOf(host, auditVerdict, { audit: id, auditor: who, faulty, salt });
      ensure(commitment !== undefined && equalBytes(commitment, made), errors.OtherCommitment);
      put(host, id, found, at, { verdict: faulty });
      emit(events.Revealed, { audit: id, auditor: who, faulty });
    },
  }),
  setParameters: parameters.setter(2, events.ParametersChanged, errors.BadParameters),
  disclose: call({
    index: 3,
    args: { audit: u32, blob: blobHash, bytes: u64 },
    weight: cost(60_000_000n, 8, 8),
    docs: 'Disclose what was asked and said for an audited answer, as a blob. The accused only; who does not is at fault.',
    run({ origin, ...env }, { audit: id, blob, bytes }) {
      const { host } = env;
      const who = ensureSigned(origin);
      const found = store.Audits.get(host, id) ?? fail(errors.UnknownAudit);
      ensure(sameAccount(found.accused, who), errors.NotAccused);
      ensure(found.subject.type === 'Batch', errors.NothingToDisclose);
      ensure(system.blockNumber(host) <= found.discloseUntil, errors.TooLate);
      ensure(found.disclosed === undefined, errors.AlreadyDisclosed);
      ensure(bytes <= MAX_DISCLOSURE, errors.TooLarge);
      const claim = blobs.commit(env, {
        depositor: who,
        purpose: { type: 'Disclosure', value: id },
        files: [{ hash: blob, bytes }],
      });
      store.Audits.insert(host, id, { ...found, disclosed: { blob, claim } });
      env.emit(events.Disclosed, { audit: id, blob });
    },
  }),
  plant: call({
    index: 4,
    args: { commitment: hash },
    weight: cost(50_000_000n, 3, 3),
    docs: 'Commit to a fault in an answer to the signer, by a worker that knows. This block’s hash decides what it looks like.',
    run({ origin, ...env }, { commitment }) {
      const { host } = env;
      const by = ensureSigned(origin);
      const before = store.Plants.get(host, by);
      // The oldest one makes room, and its deposit goes on.
      if (before.length < MAX_PLANTS) balances.hold(env, PLANT, by, PLANT_DEPOSIT);
      const kept = before.slice(1 - MAX_PLANTS);
      store.Plants.insert(host, by, [...kept, { commitment, at: system.blockNumber(host) }]);
      env.emit(events.Planted, { by, commitment });
    },
  }),
  abstain: call({
    index: 5,
    args: { audit: u32 },
    weight: cost(30_000_000n, 1, 1),
    docs: 'Say that what the audit needs cannot be had. Drawn auditors only, in place of a commitment.',
    run({ origin, host, emit }, { audit: id }) {
      const who = ensureSigned(origin);
      const { found, at } = undecided(host, id, who);
      put(host, id, found, at, { unavailable: true });
      emit(events.Abstained, { audit: id, auditor: who });
    },
  }),
};

/** What somebody who asks for an audit pays in advance: the fees of the first auditors. */
export function requestPrice(host: Host): Balance {
  const { auditors, fee } = parametersOf(host);
  return BigInt(auditors) * fee;
}

/** Part of the genesis configuration, for chains that cannot wait so long. */
export type AuditGenesis = ParametersConfig<AuditParameters>;

export const audits = pallet({
  name: 'Audits',
  index: 26,
  docs: 'Workers check workers.',
  storage: store,
  calls,
  events,
  errors,
  holdReasons: { Plant: PLANT },
  constants: {
    ...parameters.constants,
    MaxDisclosure: constant(u64, MAX_DISCLOSURE, 'Bytes of a disclosed answer, at most.'),
  },
  genesis: ({ host }, config: AuditGenesis) => parameters.begin(host, config),
});
