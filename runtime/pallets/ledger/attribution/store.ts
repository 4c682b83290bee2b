/** What attribution keeps: batches and trainings in their windows, rewards, rules, parameters. */
import { error } from '../../../framework/dispatch.ts';
import { event } from '../../../framework/pallet.ts';
import { boundedParameters, type ParametersOf } from '../../../framework/parameters.ts';
import {
  blake2_128Concat,
  map,
  mapWithDefault,
  optionalValue,
  storage,
  twox64Concat,
  value,
} from '../../../framework/storage.ts';
import type { Host } from '../../../host.ts';
import { part } from '../../../primitives/attribution/canonical.ts';
import { adapterId, claimId, type ReceiptBatchId, receiptBatchId } from '../../../primitives/attribution/ids.ts';
import { receiptBatch, serviceTerms } from '../../../primitives/attribution/receipts.ts';
import { DEFAULT_RULES, type Rules, rules } from '../../../primitives/attribution/split.ts';
import { palletAccount } from '../../../primitives/pallet-id.ts';
import { type Infer, struct, text, u32, variants } from '../../../primitives/scale/codec.ts';
import { accountId, balance, perbill } from '../../../primitives/types.ts';
import * as system from '../../standard/system.ts';
import { subject } from '../audits/store.ts';

/** Holds the fees of unsettled batches, and rewards until they are claimed. */
export const POT = palletAccount('ol/attri');
const OPEN = 10n ** 18n;

// ---- types ---------------------------------------------------------------------------------------------------

export const pendingBatch = part(
  'PendingBatch',
  struct({
    batch: receiptBatch,
    /** Whom the fees go back to if the batch is struck. */
    payer: accountId,
    /** The session's key, and what its vouchers may say: the session may be gone when somebody looks. */
    key: accountId,
    terms: serviceTerms,
    rules,
    until: u32,
    /** The part of the worker's bond that stands for it. */
    stake: balance,
    /** Keeps the receipts with the nodes until the window closes. */
    claim: claimId,
  }),
);
export type PendingBatch = Infer<typeof pendingBatch>;

/** A training in its window. `ranges`: how many lie under its snapshot's root. */
export const pendingTraining = part('PendingTraining', struct({ ranges: u32, until: u32 }));

export const reward = part(
  'Reward',
  struct({
    claimable: balance,
    /** All that the account ever earned by attribution. */
    earned: balance,
  }),
);
export type Reward = Infer<typeof reward>;

const previousRules = part('PreviousRules', struct({ rules, until: u32 }));

export const parameters = boundedParameters('openledger_primitives::attribution::AttributionParameters', {
  windowBlocks: {
    ...{ codec: u32, initial: 100, min: 1, max: 100_800 },
    docs: 'Blocks in which receipts can be challenged; audits may make it longer.',
  },
  slash: {
    ...{ codec: balance, initial: 500n * OPEN, min: OPEN, max: 1_000_000n * OPEN },
    docs: 'Taken from a worker whose receipt was shown to be wrong, beside what the receipt was worth. Audits are the rarer the higher it is.',
  },
  finderReward: {
    ...{ codec: perbill, initial: 100_000_000, min: 0, max: 250_000_000 },
    docs: 'The part of a slash that whoever showed the fault gets.',
  },
  challengeFee: {
    ...{ codec: balance, initial: OPEN, min: OPEN / 1_000n, max: 10_000n * OPEN },
    docs: 'Taken from a challenger who shows nothing; the accused gets it.',
  },
  noveltyFloor: {
    ...{ codec: u32, initial: 52_429, min: 52_429, max: 65_536 },
    docs: 'Overlap from which on a worker must have found an earlier record, in units of 2^−16.',
  },
  graceBlocks: {
    ...{ codec: u32, initial: 1_200, min: 0, max: 403_200 },
    docs: 'Receipts under the rules before a change are settled for so many blocks.',
  },
});
export type AttributionParameters = ParametersOf<typeof parameters>;

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const items = {
  NextBatch: value(receiptBatchId, 0n as ReceiptBatchId, 'Id of the next receipt batch.'),
  Batches: map(twox64Concat(receiptBatchId), pendingBatch, 'Batches in their window.'),
  Paying: map(twox64Concat(receiptBatchId), pendingBatch, 'Batches that are being paid out, and cannot be struck.'),
  Trainings: map(twox64Concat(adapterId), pendingTraining, 'Trainings in their window.'),
  Rewards: mapWithDefault(blake2_128Concat(accountId), reward, { claimable: 0n, earned: 0n }, 'What accounts earned.'),
  Rules: value(rules, DEFAULT_RULES, 'How fees are split.'),
  PreviousRules: optionalValue(previousRules, 'Rules that receipts under way were made by.'),
  Parameters: parameters.item,
};
export const store = storage('Attribution', items);

export const fault = part('Fault', variants({ Challenge: text(32), Audit: null, Withheld: null }));
export type Fault = Infer<typeof fault>;

export const events = {
  Settled: event(
    0,
    { batch: receiptBatchId, worker: accountId, adapter: adapterId, receipts: u32, fees: balance },
    'A batch of receipts waits out its window.',
  ),
  Paid: event(
    1,
    { batch: receiptBatchId, contributors: balance, burnt: balance, treasury: balance },
    'A batch was paid out.',
  ),
  Earned: event(2, { account: accountId, batch: receiptBatchId, amount: balance }, 'Part of a batch’s fees.'),
  BatchStruck: event(3, { batch: receiptBatchId, fault }, 'A batch was wrong: its fees went back, its worker pays.'),
  TrainingStruck: event(4, { adapter: adapterId, fault }, 'A training receipt was wrong: its worker pays.'),
  ChallengeDismissed: event(5, { by: accountId, reason: text(32) }, 'A challenge showed nothing; the challenger pays.'),
  Claimed: event(6, { account: accountId, amount: balance }, 'Rewards were claimed.'),
  RulesChanged: event(7, { rules }, 'Governance changed how fees are split.'),
  ParametersChanged: parameters.changed(8),
  FaultRevealed: event(
    9,
    { batch: receiptBatchId, worker: accountId },
    'A batch’s fault was planted; its fees went back.',
  ),
  Undecided: event(10, { subject }, 'Nobody could look at the work: it is not paid, and its worker does not pay.'),
  Refunded: event(
    11,
    { account: accountId, batch: receiptBatchId, amount: balance },
    'Fees went back to a payer whose session or account is gone, to be claimed like rewards.',
  ),
};

export const errors = {
  OtherChain: error(0, 'The receipt was made for another chain.'),
  NotWorker: error(1, 'The receipt is another worker’s.'),
  BadSignature: error(2, 'The worker’s signature does not hold.'),
  OtherLease: error(3, 'The receipt names another lease or nonce than the worker’s.'),
  OtherOrder: error(4, 'Snapshot, base model, configuration or seeds are not those of the order.'),
  WrongCount: error(5, 'There must be one row for each record, k entries wide.'),
  UnknownBatch: error(6, 'There is no such batch, or its window is over.'),
  WindowClosed: error(7, 'The receipt can no longer be challenged.'),
  UnknownSession: error(8, 'There is no such session.'),
  BadVoucher: error(9, 'The voucher is not for this worker, session, adapter and nonce, or its key did not sign it.'),
  StaleNonce: error(10, 'Receipts up to a higher nonce are settled already.'),
  NotServing: error(11, 'The worker has no lease to serve the adapter.'),
  EmptyBatch: error(12, 'A batch has between 1 and 4096 receipts, with ascending nonces, and fees.'),
  WrongSums: error(13, 'Totals, remainder, pool and fees of the batch do not add up.'),
  WrongPool: error(14, 'The contributors’ pool is not what the rules make of the fees.'),
  OverVoucher: error(15, 'The fees are more than the voucher promises.'),
  OverAllocation: error(16, 'The fees are more than what the session has left for the worker.'),
  NothingToClaim: error(17, 'There is nothing to claim.'),
  BadRules: error(18, 'The parts exceed the whole, or less than 10 % leave those who take part.'),
  NotPlanted: error(20, 'The batch is not one answer that bears the planted fault.'),
  OtherPrice: error(21, 'The newest voucher was signed at another price or markup than the adapter’s.'),
  BadParameters: parameters.refused(24),
  NotContributor: error(22, 'Somebody who contributed nothing to the adapter’s snapshot would be paid.'),
  InAudit: error(23, 'The work is audited already, or auditors are being drawn for it.'),
};

export const parametersOf = (host: Host): AttributionParameters => parameters.get(host);

/** The rules for receipts that are made now, and those before them while receipts by them are still settled. */
export function rulesInForce(host: Host): readonly Rules[] {
  const previous = store.PreviousRules.get(host);
  const now = store.Rules.get(host);
  return previous === undefined || system.blockNumber(host) > previous.until ? [now] : [now, previous.rules];
}
