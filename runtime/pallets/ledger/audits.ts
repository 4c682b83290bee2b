/**
 * Audits: what integers cannot show (whether features are the true gradients) other workers recompute. The block after a
 * commitment draws whether and by whom it is audited; auditors commit to their verdicts before anybody sees one; the
 * majority of those drawn decides. Chance comes from the hash of the block before, which its author can influence by
 * giving up a block: the stake must outweigh that.
 */
import { cost, ensure, ensureRoot, ensureSigned, error, fail } from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import { blake2_128Concat, map, mapWithDefault, storage, twox64Concat, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { canonical, hashOf, part } from '../../primitives/attribution/canonical.ts';
import {
  adapterId,
  type BaseModelId,
  baseModelId,
  blobHash,
  claimId,
  type ReceiptBatchId,
  receiptBatchId,
} from '../../primitives/attribution/ids.ts';
import { equalBytes } from '../../primitives/bytes.ts';
import { TREASURY } from '../../primitives/pallet-id.ts';
import {
  bool,
  fixedBytes,
  type Infer,
  option,
  struct,
  u8,
  u32,
  u64,
  variants,
  vec,
} from '../../primitives/scale/codec.ts';
import {
  type AccountId,
  accountId,
  type Balance,
  balance,
  type Hash,
  hash,
  PERBILL,
  perbill,
  sameAccount,
} from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import * as system from '../standard/system.ts';
import * as blobs from './blobs.ts';
import * as compute from './compute.ts';

/** Bytes of what a worker discloses of an answer: a prompt and an answer at their bounds, with room for what is beside them. */
const MAX_DISCLOSURE = 1n << 20n;
/** Picks from the list of auditors before a draw makes do with those it has. */
const MAX_PICKS = 64;
/** Commitments that one block can have drawn, and audits that end in one block. */
const MAX_REQUESTS = 256;
const MAX_DUE = 256;
const MAX_AUDITORS = 7;
/** Commitments to planted faults that are kept an account: the newest ones. */
const MAX_PLANTS = 8;
/** Held for each of them. */
const PLANT_DEPOSIT = 10n ** 17n;
const PLANT: Reason = { pallet: 26, reason: 0 };

// ---- types ---------------------------------------------------------------------------------------------------

export const subject = part('AuditSubject', variants({ Training: adapterId, Batch: receiptBatchId }));
export type Subject = Infer<typeof subject>;

const request = part('AuditRequest', struct({ subject, accused: accountId, baseModel: baseModelId, items: u32 }));
type Request = Infer<typeof request>;
const auditor = part('Auditor', struct({ account: accountId, commitment: option(hash), verdict: option(bool) }));
export const audit = part(
  'Audit',
  struct({
    subject,
    accused: accountId,
    /** Which receipt of the batch, or where the sample of rows begins. */
    item: u32,
    auditors: vec(auditor, MAX_AUDITORS),
    /** What was asked and said for the receipt, as a blob, once the accused has disclosed it. Training is public as it is. */
    disclosed: option(struct({ blob: blobHash, claim: claimId })),
    discloseUntil: u32,
    commitUntil: u32,
    revealUntil: u32,
    /** The fault was put there by the accused, who has said so: whoever did not find it did not look. */
    planted: bool,
  }),
);
export type Audit = Infer<typeof audit>;

/** What an auditor commits to: `blake2b-256(domain ++ SCALE)`. `faulty`: the work is not what it claims to be. */
export const auditVerdict = canonical(
  'audit-verdict/1',
  'AuditVerdict',
  struct({ audit: u32, auditor: accountId, faulty: bool, salt: fixedBytes(32) }),
);

const drawInput = canonical('audit-draw/1', 'AuditDraw', struct({ parent: hash, subject, purpose: u8 }));

/** `at`: the block it stands in, whose hash bends the feature. */
export const plant = part('Plant', struct({ commitment: hash, at: u32 }));

const parameters = part(
  'AuditParameters',
  struct({
    /** Part of commitments that are audited. */
    rate: perbill,
    /** Auditors drawn for each; a majority of them decides. */
    auditors: u8,
    commitBlocks: u32,
    revealBlocks: u32,
    /** From the treasury to each auditor whose verdict was the majority's. */
    fee: balance,
    /** Taken from auditors that say nothing. */
    silenceSlash: balance,
    /** Taken from auditors that did not find a planted fault; half of it goes to whoever planted it. */
    lazySlash: balance,
  }),
);
export type AuditParameters = Infer<typeof parameters>;
const DEFAULT_PARAMETERS: AuditParameters = {
  rate: 20_000_000,
  auditors: 3,
  commitBlocks: 40,
  revealBlocks: 20,
  fee: 10n ** 17n,
  silenceSlash: 10n ** 19n,
  lazySlash: 10n ** 20n,
};

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Audits', {
  NextId: value(u32, 0, 'Id of the next audit.'),
  Audits: map(twox64Concat(u32), audit, 'Audits under way.'),
  Requested: value(vec(request, MAX_REQUESTS), [], 'Commitments of the last block, to be drawn from.'),
  Due: mapWithDefault(twox64Concat(u32), vec(u32, MAX_DUE), [], 'Audits that end, by block.'),
  Parameters: value(parameters, DEFAULT_PARAMETERS, 'What governance can change.'),
  Plants: mapWithDefault(
    blake2_128Concat(accountId),
    vec(plant, MAX_PLANTS),
    [],
    'Faults that will be planted, by who asks for the answer.',
  ),
});

export const events = {
  Drawn: event(0, { audit: u32, subject, item: u32, auditors: vec(accountId, MAX_AUDITORS) }, 'Auditors were drawn.'),
  NoAuditors: event(1, { subject }, 'An audit was drawn, but nobody beside the worker is free to do it.'),
  Committed: event(2, { audit: u32, auditor: accountId }, 'An auditor has made up its mind.'),
  Revealed: event(3, { audit: u32, auditor: accountId, faulty: bool }, 'An auditor’s verdict.'),
  Concluded: event(4, { audit: u32, subject, faulty: bool, votes: u8, against: u8 }, 'The audit is over.'),
  ParametersChanged: event(5, { parameters }, 'Governance changed the parameters.'),
  Disclosed: event(6, { audit: u32, blob: blobHash }, 'The accused has disclosed what was asked and said.'),
  Planted: event(7, { by: accountId, commitment: hash }, 'A fault will be planted, nobody knows where.'),
  Lazy: event(8, { audit: u32, auditor: accountId }, 'An auditor did not find what was planted, and pays.'),
};

export const errors = {
  UnknownAudit: error(0, 'There is no such audit, or it is over.'),
  NotAuditor: error(1, 'The account was not drawn for this audit.'),
  TooLate: error(2, 'The time for this step is over.'),
  TooEarly: error(3, 'Verdicts are revealed when the time for commitments is over.'),
  AlreadyCommitted: error(4, 'The auditor has committed to a verdict already.'),
  AlreadyRevealed: error(5, 'The auditor has revealed its verdict already.'),
  OtherCommitment: error(6, 'The verdict is not the one that was committed to.'),
  BadParameters: error(7, 'Between 1 and 7 auditors, at least two blocks for each step, a rate of at most 1.'),
  NotAccused: error(8, 'Only the worker whose answer is audited can disclose it.'),
  NothingToDisclose: error(9, 'What a training was made of is public already.'),
  AlreadyDisclosed: error(10, 'The answer has been disclosed already.'),
  TooLarge: error(11, 'A disclosure has at most 2^20 bytes.'),
  UnknownPlant: error(12, 'No such fault was committed to, or so many later ones were that it is forgotten.'),
  StillOpen: error(13, 'Auditors can still commit to a verdict: what was planted is told when they no longer can.'),
  OtherSubject: error(14, 'The audit is not of this batch.'),
};

// ---- what the attribution pallet builds on ---------------------------------------------------------------------

/** Blocks from a commitment to the end of an audit of it. */
export function span(host: Host): number {
  const { commitBlocks, revealBlocks } = store.Parameters.get(host);
  return 1 + commitBlocks + revealBlocks;
}

/** Enters a commitment for the next block's draw; `items`: how many things in it can be looked at. */
export function enter(host: Host, of: Subject, accused: AccountId, baseModel: BaseModelId, items: number): void {
  const listed = store.Requested.get(host);
  // Commitments beyond the bound escape the draw: so many in one block are paid for by their fees.
  if (listed.length < MAX_REQUESTS) store.Requested.put(host, [...listed, { subject: of, accused, baseModel, items }]);
}

const chance = (host: Host, of: Subject, purpose: number): DataView => {
  const drawn = hashOf(host, drawInput, { parent: system.parentHash(host), subject: of, purpose });
  return new DataView(drawn.buffer, drawn.byteOffset, 32);
};

/** Whether an account can audit the work of `accused`: it has the base model, stands for what it says, and is another one. */
function isAble(host: Host, who: AccountId, accused: AccountId, baseModel: BaseModelId): boolean {
  const found = compute.workerOf(host, who);
  return (
    found !== undefined &&
    !sameAccount(who, accused) &&
    compute.isActive(host, who) &&
    found.capabilities.baseModels.includes(baseModel)
  );
}

/** An odd number of auditors, since an even one could end in a draw; none where nobody is able. */
function drawAuditors(host: Host, { subject: of, accused, baseModel }: Request, wanted: number): AccountId[] {
  const listed = compute.auditorCount(host);
  // Of a shuffled list, the places that are not in order.
  const moved = new Map<number, number>();
  const able: AccountId[] = [];
  for (let i = 0; i < Math.min(listed, MAX_PICKS) && able.length < wanted; i++) {
    const pick = i + Number(chance(host, of, 2 + i).getBigUint64(0, true) % BigInt(listed - i));
    const who = compute.auditorAt(host, moved.get(pick) ?? pick);
    moved.set(pick, moved.get(i) ?? i);
    if (who !== undefined && isAble(host, who, accused, baseModel)) able.push(who);
  }
  return able.length % 2 === 1 ? able : able.slice(1);
}

/** Draws among the last block's commitments. Returns how many there were. */
export function draw(env: Env, now: number): number {
  const { host } = env;
  const requested = store.Requested.get(host);
  if (requested.length === 0) return 0;
  store.Requested.kill(host);
  const { rate, auditors: wanted, commitBlocks, revealBlocks } = store.Parameters.get(host);
  for (const each of requested) {
    const { subject: of, accused, items } = each;
    if (chance(host, of, 0).getUint32(0, true) % PERBILL >= rate) continue;
    const [commitUntil, revealUntil] = [now + commitBlocks, now + commitBlocks + revealBlocks];
    const due = store.Due.get(host, revealUntil);
    const drawn = due.length < MAX_DUE ? drawAuditors(host, each, wanted) : [];
    if (drawn.length === 0) {
      env.emit(events.NoAuditors, { subject: of });
      continue;
    }
    const id = store.NextId.get(host);
    const item = chance(host, of, 1).getUint32(0, true) % Math.max(1, items);
    store.NextId.put(host, id + 1);
    store.Audits.insert(host, id, {
      subject: of,
      accused,
      item,
      auditors: drawn.map((account) => ({ account, commitment: undefined, verdict: undefined })),
      disclosed: undefined,
      // Half of the time is the accused's, the other half the auditors' own.
      discloseUntil: now + Math.floor(commitBlocks / 2),
      commitUntil,
      revealUntil,
      planted: false,
    });
    store.Due.insert(host, revealUntil, [...due, id]);
    for (const who of drawn) compute.oblige(host, who, 1);
    env.emit(events.Drawn, { audit: id, subject: of, item, auditors: drawn });
  }
  return requested.length;
}

export interface Conclusion {
  readonly subject: Subject;
  readonly faulty: boolean;
  /** Auditors that found the fault. */
  readonly finders: readonly AccountId[];
}

/** Ends the audits whose time is up; silent auditors pay, the majority is paid. */
export function conclude(env: Env, now: number): Conclusion[] {
  const { host } = env;
  const due = store.Due.get(host, now);
  if (due.length === 0) return [];
  store.Due.remove(host, now);
  const { fee, silenceSlash, lazySlash } = store.Parameters.get(host);
  return due.flatMap((id) => {
    const ended = store.Audits.take(host, id);
    if (ended === undefined) return [];
    if (ended.disclosed !== undefined) blobs.release(env, ended.disclosed.claim);
    const votes = ended.auditors.filter(({ verdict }) => verdict !== undefined);
    const against = votes.filter(({ verdict }) => verdict === true);
    const faulty = 2 * against.length > ended.auditors.length;
    for (const each of ended.auditors) {
      const { account, verdict } = each;
      compute.oblige(host, account, -1);
      if (ended.planted && isLazy(each)) {
        compute.slash(env, account, lazySlash, ended.accused, lazySlash / 2n);
        env.emit(events.Lazy, { audit: id, auditor: account });
      } else if (verdict === undefined) compute.slash(env, account, silenceSlash);
      else if (verdict === (faulty || ended.planted)) payFee(env, account, fee);
    }
    env.emit(events.Concluded, {
      audit: id,
      subject: ended.subject,
      faulty: faulty || ended.planted,
      votes: votes.length,
      against: against.length,
    });
    // What was planted has been taken back by whoever planted it: nothing is left to strike.
    return [
      { subject: ended.subject, faulty: faulty && !ended.planted, finders: against.map(({ account }) => account) },
    ];
  });
}

/** Has said that nothing was wrong, or has committed to something that it would rather not reveal. */
const isLazy = ({ commitment, verdict }: Infer<typeof auditor>): boolean =>
  verdict === false || (verdict === undefined && commitment !== undefined);

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

/** A treasury with nothing in it pays nobody. */
function payFee(env: Env, account: AccountId, fee: Balance): void {
  if (balances.reducible(env.host, TREASURY, true) >= fee && balances.freeBalance(env.host, account) > 0n) {
    balances.transfer(env, TREASURY, account, fee, 'KeepAlive');
  }
}

// ---- calls ---------------------------------------------------------------------------------------------------

function asAuditor(host: Host, id: number, who: AccountId): { found: Audit; at: number } {
  const found = store.Audits.get(host, id) ?? fail(errors.UnknownAudit);
  const at = found.auditors.findIndex(({ account }) => sameAccount(account, who));
  ensure(at >= 0, errors.NotAuditor);
  return { found, at };
}

function put(host: Host, id: number, found: Audit, at: number, change: Partial<Infer<typeof auditor>>): void {
  const auditors = found.auditors.map((each, index) => (index === at ? { ...each, ...change } : each));
  store.Audits.insert(host, id, { ...found, auditors });
}

export const calls = {
  commit: call({
    index: 0,
    args: { audit: u32, commitment: hash },
    weight: cost(30_000_000n, 1, 1),
    docs: 'Commit to a verdict. Drawn auditors only.',
    run({ origin, host, emit }, { audit: id, commitment }) {
      const who = ensureSigned(origin);
      const { found, at } = asAuditor(host, id, who);
      ensure(system.blockNumber(host) <= found.commitUntil, errors.TooLate);
      ensure(found.auditors[at]!.commitment === undefined, errors.AlreadyCommitted);
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
  setParameters: call({
    index: 2,
    args: { parameters },
    weight: cost(10_000_000n, 0, 1),
    docs: 'Change the parameters. Root only.',
    run({ origin, host, emit }, { parameters: next }) {
      ensureRoot(origin);
      const { rate, auditors, commitBlocks, revealBlocks } = next;
      const sound =
        rate <= PERBILL && auditors >= 1 && auditors <= MAX_AUDITORS && commitBlocks >= 2 && revealBlocks >= 2;
      ensure(sound, errors.BadParameters);
      store.Parameters.put(host, next);
      emit(events.ParametersChanged, { parameters: next });
    },
  }),
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
};

/** Part of the genesis configuration, for chains that cannot wait so long. */
export interface AuditGenesis {
  readonly rate?: number;
  readonly commitBlocks?: number;
  readonly revealBlocks?: number;
}

export const audits = pallet({
  name: 'Audits',
  index: 26,
  docs: 'Workers check workers.',
  storage: store,
  calls,
  events,
  errors,
  holdReasons: { Plant: PLANT },
  constants: { MaxDisclosure: constant(u64, MAX_DISCLOSURE, 'Bytes of a disclosed answer, at most.') },
  genesis({ host }, config: AuditGenesis | undefined) {
    if (config !== undefined) store.Parameters.put(host, { ...DEFAULT_PARAMETERS, ...config });
  },
});
