/** What audits keep: work that may be drawn, audits under way, commitments to planted faults, parameters. */
import { error } from '../../../framework/dispatch.ts';
import { event } from '../../../framework/pallet.ts';
import { boundedParameters, type ParametersOf } from '../../../framework/parameters.ts';
import { blake2_128Concat, map, mapWithDefault, storage, twox64Concat, value } from '../../../framework/storage.ts';
import type { Host } from '../../../host.ts';
import { part } from '../../../primitives/attribution/canonical.ts';
import { adapterId, baseModelId, blobHash, claimId, receiptBatchId } from '../../../primitives/attribution/ids.ts';
import {
  bool,
  type Infer,
  option,
  struct,
  u8,
  u32,
  u64,
  u128,
  variants,
  vec,
} from '../../../primitives/scale/codec.ts';
import { accountId, balance, hash, PERBILL, perbill } from '../../../primitives/types.ts';

/** Auditors of the second round, which ends an audit that the first has not decided. */
export const SECOND_AUDITORS = 21;
export const MAX_FIRST_AUDITORS = 7;
/** Commitments to planted faults that are kept an account: the newest ones. */
export const MAX_PLANTS = 8;
const OPEN = 10n ** 18n;

// ---- types ---------------------------------------------------------------------------------------------------

export const subject = part('AuditSubject', variants({ Training: adapterId, Batch: receiptBatchId }));
export type Subject = Infer<typeof subject>;

/** Work that somebody may be asked to look at. `items`: how many things in it can be looked at. */
export const request = part(
  'AuditRequest',
  struct({ subject, accused: accountId, baseModel: baseModelId, items: u32 }),
);
export type Request = Infer<typeof request>;

/** `upTo`: all loads that were ever entered, up to and including this one. */
export const candidate = part('AuditCandidate', struct({ request, at: u32, upTo: u128 }));
/** Candidates `first` … `next` − 1 can be drawn; `before`: loads in front of them, `upTo`: all loads. */
export const range = part('CandidateRange', struct({ first: u64, next: u64, before: u128, upTo: u128 }));

export const auditor = part(
  'Auditor',
  struct({ account: accountId, commitment: option(hash), verdict: option(bool), unavailable: bool }),
);
export type Auditor = Infer<typeof auditor>;

export const audit = part(
  'Audit',
  struct({
    ...{ subject, accused: accountId, baseModel: baseModelId },
    /** Which receipt of the batch, or where the sample of rows begins. */
    item: u32,
    /** Those of the round that is under way. */
    auditors: vec(auditor, SECOND_AUDITORS),
    /** Those of the first round, once the second is under way. */
    first: vec(auditor, MAX_FIRST_AUDITORS),
    /** Who asked for it and paid it; nobody where chance did. */
    requester: option(accountId),
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

/** What is done about an audit later. */
export const step = part(
  'AuditStep',
  variants({
    /** The first auditors are drawn. */
    Draw: struct({ request, requester: option(accountId) }),
    /** A round of the audit is over. */
    Conclude: u32,
  }),
);
export type Step = Infer<typeof step>;
/** Has a step done in that block, by whoever has the queue of work for it. */
export type Later = (due: number, what: Step) => void;

/** `at`: the block it stands in, whose hash bends the feature. */
export const plant = part('Plant', struct({ commitment: hash, at: u32 }));

export const parameters = boundedParameters('openledger_primitives::attribution::AuditParameters', {
  rate: {
    ...{ codec: perbill, initial: 2_000_000, min: 0, max: PERBILL },
    docs: 'How often a piece of work is audited beside what its value brings about.',
  },
  auditors: { codec: u8, initial: 3, min: 1, max: MAX_FIRST_AUDITORS, docs: 'Auditors drawn for the first round.' },
  commitBlocks: {
    ...{ codec: u32, initial: 40, min: 2, max: 28_800 },
    docs: 'Blocks in which auditors look and commit, and in which work can be drawn.',
  },
  revealBlocks: { codec: u32, initial: 20, min: 2, max: 28_800, docs: 'Blocks in which verdicts are revealed.' },
  fee: {
    ...{ codec: balance, initial: OPEN / 2n, min: 0n, max: 1_000n * OPEN },
    docs: 'To each auditor whose verdict holds.',
  },
  silenceSlash: {
    ...{ codec: balance, initial: 10n * OPEN, min: 0n, max: 1_000_000n * OPEN },
    docs: 'Taken from auditors that say nothing.',
  },
  lazySlash: {
    ...{ codec: balance, initial: 100n * OPEN, min: 0n, max: 1_000_000n * OPEN },
    docs: 'Taken from auditors whose verdict is wrong or kept back. Of one that misses a planted fault, half goes to whoever planted it.',
  },
});
export type AuditParameters = ParametersOf<typeof parameters>;

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Audits', {
  NextId: value(u32, 0, 'Id of the next audit.'),
  Audits: map(twox64Concat(u32), audit, 'Audits under way.'),
  Candidates: map(twox64Concat(u64), candidate, 'Work that can be drawn, in the order in which it was handed in.'),
  Range: value(range, { first: 0n, next: 0n, before: 0n, upTo: 0n }, 'Which candidates can be drawn.'),
  Suspended: mapWithDefault(
    blake2_128Concat(subject),
    u32,
    0,
    'How many audits of a piece of work are not over: until they are, nothing is paid for it.',
  ),
  Plants: mapWithDefault(
    blake2_128Concat(accountId),
    vec(plant, MAX_PLANTS),
    [],
    'Commitments to faults that payers will have planted, by payer.',
  ),
  Parameters: parameters.item,
});

export const events = {
  Drawn: event(
    0,
    { audit: u32, subject, item: u32, auditors: vec(accountId, SECOND_AUDITORS) },
    'Auditors were drawn.',
  ),
  NoAuditors: event(1, { subject }, 'An audit was drawn, but nobody beside the worker is free to do it.'),
  Committed: event(2, { audit: u32, auditor: accountId }, 'An auditor has made up its mind.'),
  Revealed: event(3, { audit: u32, auditor: accountId, faulty: bool }, 'An auditor’s verdict.'),
  Concluded: event(
    4,
    { audit: u32, subject, faulty: bool, votes: u8, against: u8 },
    'The audit is over. `votes` were revealed in both rounds, `against` of them found a fault.',
  ),
  ParametersChanged: parameters.changed(5),
  Disclosed: event(6, { audit: u32, blob: blobHash }, 'The accused has disclosed what was asked and said.'),
  Planted: event(7, { by: accountId, commitment: hash }, 'A fault will be planted, nobody knows where.'),
  Lazy: event(8, { audit: u32, auditor: accountId }, 'An auditor did not find what was planted, and pays.'),
  Contested: event(9, { audit: u32 }, 'The first auditors have not decided; more of them will be drawn.'),
  Wrong: event(10, { audit: u32, auditor: accountId }, 'An auditor’s verdict was not that of the audit: it pays.'),
  Abstained: event(11, { audit: u32, auditor: accountId }, 'An auditor cannot have what it needs to look.'),
  Requested: event(12, { subject, by: accountId }, 'Somebody pays for an audit.'),
};

export const errors = {
  UnknownAudit: error(0, 'There is no such audit, or it is over.'),
  NotAuditor: error(1, 'The account was not drawn for this audit.'),
  TooLate: error(2, 'The time for this step is over.'),
  TooEarly: error(3, 'Verdicts are revealed when the time for commitments is over.'),
  AlreadyCommitted: error(4, 'The auditor has committed to a verdict, or abstained, already.'),
  AlreadyRevealed: error(5, 'The auditor has revealed its verdict already.'),
  OtherCommitment: error(6, 'The verdict is not the one that was committed to.'),
  BadParameters: parameters.refused(7),
  NotAccused: error(8, 'Only the worker whose answer is audited can disclose it.'),
  NothingToDisclose: error(9, 'What a training was made of is public already.'),
  AlreadyDisclosed: error(10, 'The answer has been disclosed already.'),
  TooLarge: error(11, 'A disclosure has at most 2^20 bytes.'),
  UnknownPlant: error(12, 'No such fault was committed to, or so many later ones were that it is forgotten.'),
  StillOpen: error(13, 'Auditors can still commit to a verdict: what was planted is told when they no longer can.'),
  OtherSubject: error(14, 'The audit is not of this batch.'),
};

export const parametersOf = (host: Host): AuditParameters => parameters.get(host);
