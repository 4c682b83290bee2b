/**
 * Attribution: receipts become money here. Training receipts make adapters, batches of inference receipts make rewards;
 * both wait out a window in which anybody can show an integer that is wrong, and auditors anything else. Then the fees go
 * to contributors, adapter owner, worker, stakers and treasury, to the last unit, to be claimed.
 */

import { verifySignature } from '../../executive/extrinsic.ts';
import {
  addWeight,
  cost,
  DispatchFailure,
  type ErrorDef,
  ensure,
  ensureRoot,
  ensureSigned,
  error,
  fail,
  scaleWeight,
} from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet } from '../../framework/pallet.ts';
import {
  blake2_128Concat,
  map,
  mapWithDefault,
  optionalValue,
  storage,
  twox64Concat,
  value,
} from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { hashOf, part } from '../../primitives/attribution/canonical.ts';
import type { Verdict } from '../../primitives/attribution/challenge.ts';
import {
  type AdapterId,
  adapterId,
  claimId,
  type ReceiptBatchId,
  receiptBatchId,
} from '../../primitives/attribution/ids.ts';
import { batchChallenge, batchFault, decideBatch } from '../../primitives/attribution/inference-challenge.ts';
import { batchItem, itemRoot } from '../../primitives/attribution/ledger.ts';
import { MAX_BATCH_RECEIPTS } from '../../primitives/attribution/limits.ts';
import { bearsFault, plantedFault } from '../../primitives/attribution/planted.ts';
import {
  inferenceReceipt,
  type ReceiptBatch,
  receiptBatch,
  type SignedInferenceReceipt,
  serviceTerms,
  signedReceiptBatch,
  signedTrainingReceipt,
  type TrainingReceipt,
  termsHold,
  trainingReceipt,
  voucher,
} from '../../primitives/attribution/receipts.ts';
import {
  DEFAULT_RULES,
  distribute,
  type Rules,
  receiptRules,
  rules,
  rulesFault,
} from '../../primitives/attribution/split.ts';
import { artifactSizes } from '../../primitives/attribution/training.ts';
import { decideTraining, trainingChallenge } from '../../primitives/attribution/training-challenge.ts';
import { equalBytes } from '../../primitives/bytes.ts';
import { palletAccount, TREASURY } from '../../primitives/pallet-id.ts';
import { type Infer, option, struct, text, u32, u64, variants, vec } from '../../primitives/scale/codec.ts';
import {
  type AccountId,
  accountId,
  type Balance,
  balance,
  PERBILL,
  perbill,
  sameAccount,
} from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import { POT as STAKERS } from '../standard/staking.ts';
import * as system from '../standard/system.ts';
import * as audits from './audits.ts';
import * as blobs from './blobs.ts';
import * as compute from './compute.ts';
import * as datanets from './datanets.ts';
import * as inference from './inference.ts';
import * as models from './models.ts';

/** Holds the fees of unsettled batches, and rewards until they are claimed. */
export const POT = palletAccount('ol/attri');
/** Windows that close in one block; later ones close in the next. */
const MAX_CLOSING = 64;
const CLOSE_AHEAD = 256;

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
    /** Keeps the receipts with the nodes until the window closes. */
    claim: claimId,
    /** The part of the worker's bond that stands for it. */
    stake: balance,
  }),
);
export type PendingBatch = Infer<typeof pendingBatch>;

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

const parameters = part(
  'AttributionParameters',
  struct({
    /** Blocks in which receipts can be challenged; audits may make it longer. */
    windowBlocks: u32,
    /** Taken from a worker whose receipt was shown to be wrong, and the finder's part of it. */
    slash: balance,
    finderReward: perbill,
    /** Taken from a challenger who shows nothing; the accused gets it. */
    challengeFee: balance,
    /** Overlap from which on a worker must have found an earlier record, in units of 2^−16. */
    noveltyFloor: u32,
    /** Receipts under the rules before a change are settled for so many blocks. */
    graceBlocks: u32,
  }),
);
export type AttributionParameters = Infer<typeof parameters>;
const DEFAULT_PARAMETERS: AttributionParameters = {
  windowBlocks: 100,
  slash: 500n * 10n ** 18n,
  finderReward: 500_000_000,
  challengeFee: 10n ** 18n,
  noveltyFloor: 52_429,
  graceBlocks: 1_200,
};

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Attribution', {
  NextBatch: value(receiptBatchId, 0n as ReceiptBatchId, 'Id of the next receipt batch.'),
  Batches: map(twox64Concat(receiptBatchId), pendingBatch, 'Batches in their window.'),
  Closing: mapWithDefault(twox64Concat(u32), vec(audits.subject, MAX_CLOSING), [], 'Windows that close, by block.'),
  Ranges: map(twox64Concat(adapterId), u32, 'How many ranges lie under the snapshot’s root, while it can be disputed.'),
  Rewards: mapWithDefault(blake2_128Concat(accountId), reward, { claimable: 0n, earned: 0n }, 'What accounts earned.'),
  Rules: value(rules, DEFAULT_RULES, 'How fees are split.'),
  PreviousRules: optionalValue(previousRules, 'Rules that receipts under way were made by.'),
  Parameters: value(parameters, DEFAULT_PARAMETERS, 'What governance can change.'),
});

const fault = part('Fault', variants({ Challenge: text(32), Audit: null }));

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
  ParametersChanged: event(8, { parameters }, 'Governance changed the parameters.'),
  FaultRevealed: event(
    9,
    { batch: receiptBatchId, worker: accountId },
    'A batch’s fault was planted; its fees went back.',
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
  EmptyBatch: error(12, 'A batch has between 1 and 4096 receipts, with ascending nonces.'),
  WrongSums: error(13, 'Totals, remainder, pool and fees of the batch do not add up.'),
  WrongPool: error(14, 'The contributors’ pool is not what the rules make of the fees.'),
  OverVoucher: error(15, 'The fees are more than the voucher promises.'),
  OverAllocation: error(16, 'The fees are more than what the session has left for the worker.'),
  NothingToClaim: error(17, 'There is nothing to claim.'),
  BadRules: error(18, 'The parts exceed the whole, or less than 10 % leave those who take part.'),
  NotPlanted: error(20, 'The batch is not one answer that bears the planted fault.'),
  OtherPrice: error(21, 'The newest voucher was signed at another price or markup than the adapter’s.'),
  TooBusy: error(19, 'Too many windows are open: try again in a few blocks.'),
};

/** The rules for receipts that are made now, and those before them while receipts by them are still settled. */
export function rulesInForce(host: Host): readonly Rules[] {
  const previous = store.PreviousRules.get(host);
  const now = store.Rules.get(host);
  return previous === undefined || system.blockNumber(host) > previous.until ? [now] : [now, previous.rules];
}

// ---- rewards -------------------------------------------------------------------------------------------------

/** Adds to what an account can claim; the OPEN is in the pot already. */
function credit(env: Env, account: AccountId, batch: ReceiptBatchId, amount: Balance): void {
  if (amount === 0n) return;
  store.Rewards.mutate(env.host, account, ({ claimable, earned }) => ({
    claimable: claimable + amount,
    earned: earned + amount,
  }));
  env.emit(events.Earned, { account, batch, amount });
}

/** From the pot to a pallet's account, or out of existence where it is too little to bring that account to life. */
function passOn(env: Env, to: AccountId, amount: Balance): void {
  balances.take(env, POT, amount);
  if (!balances.give(env, to, amount)) balances.rescind(env, amount);
}

function payOut(env: Env, id: ReceiptBatchId, { batch, terms, rules: by, stake }: PendingBatch): void {
  const { host } = env;
  const { owner, worker, stakers, burnt, treasury } = distribute(batch.fees, batch.pool, terms.markup, by);
  for (const { contributor, amount } of batch.totals) credit(env, contributor, id, amount);
  credit(env, models.adapterOf(host, batch.adapter).owner, id, owner);
  credit(env, batch.worker, id, worker);
  passOn(env, STAKERS, stakers);
  passOn(env, TREASURY, treasury + batch.remainder);
  balances.take(env, POT, burnt);
  balances.rescind(env, burnt);
  compute.unpledge(host, batch.worker, stake);
  const contributors = batch.pool - batch.remainder;
  env.emit(events.Paid, { batch: id, contributors, burnt, treasury: treasury + batch.remainder });
}

// ---- windows -------------------------------------------------------------------------------------------------

/** Enters the end of a window, at least as late as audits of it end. Returns the block. */
function openWindow(host: Host, of: audits.Subject): number {
  const now = system.blockNumber(host);
  const least = now + Math.max(store.Parameters.get(host).windowBlocks, audits.span(host) + 1);
  for (let block = least; block < least + CLOSE_AHEAD; block++) {
    const closing = store.Closing.get(host, block);
    if (closing.length >= MAX_CLOSING) continue;
    store.Closing.insert(host, block, [...closing, of]);
    return block;
  }
  return fail(errors.TooBusy);
}

function close(env: Env, of: audits.Subject): void {
  const { host } = env;
  if (of.type === 'Batch') {
    const pending = store.Batches.take(host, of.value);
    if (pending === undefined) return;
    payOut(env, of.value, pending);
    letGo(env, pending);
    return;
  }
  if (!models.isPending(host, of.value)) return;
  store.Ranges.remove(host, of.value);
  models.acceptAdapter(env, of.value);
}

/** A block must go on whatever a hook meets: what fails leaves no trace but a line in the log. */
function guarded(env: Env, what: string, body: () => void): void {
  try {
    env.transactional(body);
  } catch (problem) {
    if (!(problem instanceof DispatchFailure)) throw problem;
    env.host.log('error', 'attribution', `${what} failed: ${problem.message}`);
  }
}

function closeAll(env: Env, now: number): number {
  const closing = store.Closing.get(env.host, now);
  if (closing.length === 0) return 0;
  store.Closing.remove(env.host, now);
  for (const of of closing) guarded(env, 'closing a window', () => close(env, of));
  return closing.length;
}

// ---- faults --------------------------------------------------------------------------------------------------

type Fault = Infer<typeof fault>;

function punish(env: Env, worker: AccountId, finder: AccountId | undefined): void {
  const { slash, finderReward } = store.Parameters.get(env.host);
  compute.slash(env, worker, slash, finder, (slash * BigInt(finderReward)) / BigInt(PERBILL));
}

/** The batch is over, however: nodes need not keep its receipts, nor the state its adapter for its sake. */
function letGo(env: Env, { batch, claim }: PendingBatch): void {
  blobs.release(env, claim);
  models.useAdapter(env.host, batch.adapter, -1);
}

function strikeBatch(env: Env, id: ReceiptBatchId, finder: AccountId | undefined, why: Fault): void {
  const pending = store.Batches.take(env.host, id);
  if (pending === undefined) return;
  const { batch, payer, stake } = pending;
  // A payer whose account is gone cannot be given less than an account lives on.
  if (!inference.refund(env, batch.session, payer, POT, batch.fees)) passOn(env, TREASURY, batch.fees);
  letGo(env, pending);
  punish(env, batch.worker, finder);
  compute.unpledge(env.host, batch.worker, stake);
  env.emit(events.BatchStruck, { batch: id, fault: why });
}

/** Undoes a batch whose fault was planted by its worker at its own cost. */
function withdrawBatch(env: Env, id: ReceiptBatchId, pending: PendingBatch): void {
  const { batch, payer, stake } = pending;
  store.Batches.remove(env.host, id);
  if (!inference.refund(env, batch.session, payer, POT, batch.fees)) passOn(env, TREASURY, batch.fees);
  letGo(env, pending);
  compute.unpledge(env.host, batch.worker, stake);
}

function strikeTraining(env: Env, id: AdapterId, finder: AccountId | undefined, why: Fault): void {
  if (!models.isPending(env.host, id)) return;
  const { payload } = models.receiptOf(env.host, id);
  store.Ranges.remove(env.host, id);
  punish(env, payload.worker, finder);
  models.strikeAdapter(env, id);
  env.emit(events.TrainingStruck, { adapter: id, fault: why });
}

/** Acts on what a challenge came to. A dismissed one is no failed call: the challenger pays for it. */
function decide(
  env: Env,
  challenger: AccountId,
  accused: AccountId,
  verdict: Verdict,
  strike: (why: Fault) => void,
): void {
  if (verdict.type === 'Upheld') {
    strike({ type: 'Challenge', value: verdict.fault });
    return;
  }
  balances.transfer(env, challenger, accused, store.Parameters.get(env.host).challengeFee, 'AllowDeath');
  env.emit(events.ChallengeDismissed, { by: challenger, reason: verdict.reason });
}

// ---- training ------------------------------------------------------------------------------------------------

const genesisHash = (host: Host) => system.blockHash(host, 0);

/** Why a training receipt does not fit its order (`undefined`: it does). */
function misfit(host: Host, receipt: TrainingReceipt, ordered: models.Order): ErrorDef | undefined {
  const { snapshot, basis, features } = receipt;
  const { config } = ordered;
  const sameSnapshot =
    snapshot.datanet === ordered.snapshot.datanet &&
    snapshot.version === ordered.snapshot.version &&
    snapshot.count === ordered.snapshot.count &&
    equalBytes(snapshot.root, ordered.snapshot.root);
  const sameOrder =
    sameSnapshot &&
    receipt.baseModel === ordered.baseModel &&
    equalBytes(receipt.baseModelHash, models.baseModelOf(host, ordered.baseModel).hash) &&
    equalBytes(receipt.configHash, ordered.configHash) &&
    receipt.trainingSeed === ordered.trainingSeed &&
    basis.sketchSeed === ordered.sketchSeed &&
    basis.rotationSeed === ordered.rotationSeed &&
    basis.sketchWidth === config.sketchWidth;
  if (!sameOrder) return errors.OtherOrder;
  const counted = features.rows === snapshot.count && features.k === basis.k && basis.k <= config.k && features.k >= 1;
  return counted ? undefined : errors.WrongCount;
}

// ---- batches -------------------------------------------------------------------------------------------------

function voucherHolds(host: Host, batch: ReceiptBatch, given: ReceiptBatch['voucher'], key: AccountId): boolean {
  const { payload, signature } = given;
  return (
    equalBytes(payload.chain, batch.chain) &&
    sameAccount(payload.worker, batch.worker) &&
    payload.session === batch.session &&
    payload.adapter === batch.adapter &&
    verifySignature(host, signature, hashOf(host, voucher, payload), key)
  );
}

/** Pools are rounded down receipt by receipt, so a batch's may be up to one unit a receipt below that of its fees. */
function rulesBehind(host: Host, { fees, pool, receipts }: ReceiptBatch, markup: number): Rules | undefined {
  return rulesInForce(host).find((each) => {
    const most = receiptRules(each, markup).poolOf(fees);
    return pool <= most && most - pool <= 2n * BigInt(receipts);
  });
}

const perTotal = cost(60_000_000n, 1, 1);

// ---- calls ---------------------------------------------------------------------------------------------------

export const calls = {
  submitTraining: call({
    index: 0,
    args: { receipt: signedTrainingReceipt, sizes: artifactSizes },
    weight: cost(300_000_000n, 45, 42),
    docs: 'Hand in a training’s signed receipt under its lease, with the sizes of its files. It can be challenged for a while.',
    run({ origin, ...env }, { receipt, sizes: declared }) {
      const { host } = env;
      const worker = ensureSigned(origin);
      const { payload, signature } = receipt;
      ensure(equalBytes(payload.chain, genesisHash(host)), errors.OtherChain);
      ensure(sameAccount(payload.worker, worker), errors.NotWorker);
      compute.ensureBonded(host, worker);
      const running = compute.leaseOf(host, payload.order, worker);
      ensure(running.id === payload.lease && equalBytes(running.nonce, payload.nonce), errors.OtherLease);
      const ordered = models.orderOf(host, payload.order);
      models.ensureActive(ordered);
      const reason = misfit(host, payload, ordered);
      if (reason !== undefined) fail(reason);
      const digest = hashOf(host, trainingReceipt, payload);
      ensure(verifySignature(host, signature, digest, worker), errors.BadSignature);
      ensure(declared.segments.length === payload.segments.length, errors.WrongCount);
      const id = models.addAdapter(env, receipt, digest, declared);
      // The bond goes on standing for it until the window closes.
      compute.submitTask(host, payload.order);
      const { datanet, version } = payload.snapshot;
      store.Ranges.insert(host, id, datanets.snapshotOf(host, datanet, version)?.ranges ?? 0);
      const of = { type: 'Training', value: id } as const;
      openWindow(host, of);
      audits.enter(host, of, worker, payload.baseModel, payload.features.rows);
    },
  }),
  challengeTraining: call({
    index: 1,
    args: { adapter: adapterId, challenge: trainingChallenge },
    weight: cost(3_000_000_000n, 20, 20),
    docs: 'Show that a training receipt’s commitments are wrong. Decided at once; whoever is wrong pays.',
    run({ origin, ...env }, { adapter: id, challenge }) {
      const { host } = env;
      const challenger = ensureSigned(origin);
      ensure(models.isPending(host, id), errors.WindowClosed);
      const { payload: receipt } = models.receiptOf(host, id);
      const context = {
        receipt,
        ranges: store.Ranges.get(host, id) ?? 0,
        noveltyFloor: store.Parameters.get(host).noveltyFloor,
      };
      decide(env, challenger, receipt.worker, decideTraining(host, context, challenge), (why) =>
        strikeTraining(env, id, challenger, why),
      );
    },
  }),
  settle: call({
    index: 2,
    args: { batch: signedReceiptBatch, bytes: u64 },
    weight: ({ batch }) =>
      addWeight(cost(320_000_000n, 34, 20), scaleWeight(perTotal, BigInt(batch.payload.totals.length))),
    docs: 'Settle a batch of inference receipts: its fees leave the deposit now, and are paid out when its window closes.',
    run({ origin, ...env }, { batch: { payload: batch, signature }, bytes }) {
      const { host } = env;
      const worker = ensureSigned(origin);
      ensure(equalBytes(batch.chain, genesisHash(host)), errors.OtherChain);
      ensure(sameAccount(batch.worker, worker), errors.NotWorker);
      compute.ensureActive(host, worker);
      ensure(inference.servingOf(host, batch.adapter, worker) !== undefined, errors.NotServing);
      const ordered = batch.receipts === 1 ? batch.firstNonce === batch.lastNonce : batch.firstNonce < batch.lastNonce;
      ensure(batch.receipts >= 1 && batch.receipts <= MAX_BATCH_RECEIPTS && ordered, errors.EmptyBatch);
      const session = inference.sessionOf(host, batch.session) ?? fail(errors.UnknownSession);
      const reserved = inference.allocationOf(host, batch.session, worker) ?? fail(errors.OverAllocation);
      const last = inference.nonceIn(reserved, batch.adapter);
      ensure(last === undefined || batch.firstNonce > last, errors.StaleNonce);
      ensure(batch.voucher.payload.nonce === batch.lastNonce, errors.BadVoucher);
      ensure(voucherHolds(host, batch, batch.voucher, session.key), errors.BadVoucher);
      ensure(batchFault(batch) === undefined && batch.pool <= batch.fees, errors.WrongSums);
      const { baseModel } = models.adapterOf(host, batch.adapter);
      const terms = models.termsOf(host, batch.adapter);
      ensure(termsHold(terms, batch.voucher.payload), errors.OtherPrice);
      const by = rulesBehind(host, batch, terms.markup) ?? fail(errors.WrongPool);
      // A later voucher may have been settled before, of another adapter: it promised for this batch too.
      const { cumulative } = batch.voucher.payload;
      const promised = reserved.promised > cumulative ? reserved.promised : cumulative;
      const spent = reserved.spent + batch.fees;
      ensure(spent <= promised, errors.OverVoucher);
      ensure(spent <= reserved.allocated, errors.OverAllocation);
      ensure(verifySignature(host, signature, hashOf(host, receiptBatch, batch), worker), errors.BadSignature);

      inference.pay(env, { ...batch, cumulative }, POT);
      const id = store.NextBatch.get(host);
      store.NextBatch.put(host, (id + 1n) as ReceiptBatchId);
      const claim = blobs.commit(env, {
        depositor: worker,
        purpose: { type: 'Receipts', value: id },
        files: [{ hash: batch.blob, bytes }],
      });
      const of = { type: 'Batch', value: id } as const;
      const until = openWindow(host, of);
      // At stake is all that the batch could take from its payer and contributors.
      const stake = batch.fees;
      compute.pledge(host, worker, stake);
      store.Batches.insert(host, id, {
        ...{ batch, payer: session.owner, key: session.key, terms, rules: by, until, claim, stake },
      });
      models.useAdapter(host, batch.adapter, 1);
      audits.enter(host, of, worker, baseModel, batch.receipts);
      const { adapter, receipts, fees } = batch;
      env.emit(events.Settled, { batch: id, worker, adapter, receipts, fees });
    },
  }),
  challengeBatch: call({
    index: 3,
    args: { batch: receiptBatchId, challenge: batchChallenge },
    weight: cost(3_000_000_000n, 20, 20),
    docs: 'Show that a batch or a receipt in it is wrong. Decided at once; whoever is wrong pays.',
    run({ origin, ...env }, { batch: id, challenge }) {
      const { host } = env;
      const challenger = ensureSigned(origin);
      const { batch, key, terms, rules: by } = store.Batches.get(host, id) ?? fail(errors.UnknownBatch);
      const { training } = models.adapterOf(host, batch.adapter);
      const context = {
        batch,
        trainingHash: training,
        training: models.receiptOf(host, batch.adapter).payload,
        terms,
        rules: receiptRules(by, terms.markup),
        signaturesHold: ({ payload, signature }: SignedInferenceReceipt) =>
          verifySignature(host, signature, hashOf(host, inferenceReceipt, payload), batch.worker) &&
          voucherHolds(host, batch, payload.voucher, key),
      };
      decide(env, challenger, batch.worker, decideBatch(host, context, challenge), (why) =>
        strikeBatch(env, id, challenger, why),
      );
    },
  }),
  claim: call({
    index: 4,
    args: {},
    weight: cost(80_000_000n, 5, 5),
    docs: 'Take everything that was earned.',
    run({ origin, ...env }) {
      const account = ensureSigned(origin);
      const { claimable, earned } = store.Rewards.get(env.host, account);
      ensure(claimable > 0n, errors.NothingToClaim);
      balances.transfer(env, POT, account, claimable, 'KeepAlive');
      store.Rewards.insert(env.host, account, { claimable: 0n, earned });
      env.emit(events.Claimed, { account, amount: claimable });
    },
  }),
  setRules: call({
    index: 5,
    args: { rules },
    weight: cost(20_000_000n, 2, 2),
    docs: 'Change how fees are split. Receipts under way are settled by the rules before for a while. Root only.',
    run({ origin, host, emit }, { rules: next }) {
      ensureRoot(origin);
      ensure(!rulesFault(next), errors.BadRules);
      const until = system.blockNumber(host) + store.Parameters.get(host).graceBlocks;
      store.PreviousRules.put(host, { rules: store.Rules.get(host), until });
      store.Rules.put(host, next);
      emit(events.RulesChanged, { rules: next });
    },
  }),
  setParameters: call({
    index: 6,
    args: { parameters },
    weight: cost(10_000_000n, 0, 1),
    docs: 'Change the parameters. Root only.',
    run({ origin, host, emit }, { parameters: next }) {
      ensureRoot(origin);
      ensure(next.windowBlocks >= 1 && next.finderReward <= PERBILL, errors.BadRules);
      store.Parameters.put(host, next);
      emit(events.ParametersChanged, { parameters: next });
    },
  }),
  revealFault: call({
    index: 7,
    args: { batch: receiptBatchId, receipt: batchItem, planted: plantedFault, audit: option(u32) },
    weight: cost(400_000_000n, 12, 10),
    docs: 'Say that the one answer of an own batch bears a fault that its payer committed to. Audited: once all verdicts are in.',
    run({ origin, ...env }, { batch: id, receipt: item, planted, audit }) {
      const { host } = env;
      const worker = ensureSigned(origin);
      const pending = store.Batches.get(host, id) ?? fail(errors.UnknownBatch);
      const { batch, payer } = pending;
      ensure(sameAccount(batch.worker, worker), errors.NotWorker);
      ensure(batch.receipts === 1, errors.NotPlanted);
      ensure(equalBytes(itemRoot(host, [item]), batch.root), errors.NotPlanted);
      const block = audits.takePlant(env, payer, hashOf(host, plantedFault, planted));
      ensure(bearsFault(host, item.receipt.payload, planted, block), errors.NotPlanted);
      if (audit !== undefined) audits.tellPlanted(host, audit, id);
      withdrawBatch(env, id, pending);
      env.emit(events.FaultRevealed, { batch: id, worker });
    },
  }),
};

/** Part of the genesis configuration, for chains that cannot wait so long. */
export interface AttributionGenesis {
  readonly windowBlocks?: number;
}

export const attribution = pallet({
  name: 'Attribution',
  index: 24,
  docs: 'Receipts, disputes, rewards: who shaped an answer, and what that earned.',
  storage: store,
  calls,
  events,
  errors,
  constants: {
    Pot: constant(accountId, POT, 'Holds fees in their window, and rewards until they are claimed.'),
    Stakers: constant(accountId, STAKERS, 'Holds the stakers’ part.'),
  },
  hooks: {
    onInitialize(env, now) {
      const drawn = audits.draw(env, now);
      const concluded = audits.conclude(env, now);
      for (const { subject, faulty, finders } of concluded) {
        if (!faulty) continue;
        const why = { type: 'Audit' } as const;
        guarded(env, 'striking', () => {
          if (subject.type === 'Batch') strikeBatch(env, subject.value, finders[0], why);
          else strikeTraining(env, subject.value, finders[0], why);
        });
      }
      const closed = closeAll(env, now);
      const busy = drawn + 4 * concluded.length + 10 * closed;
      return cost(10_000_000n + 100_000_000n * BigInt(busy), 3 + 4 * busy + 64 * drawn, 4 * busy);
    },
  },
  genesis(env, config: AttributionGenesis | undefined) {
    // The pot outlives its contents, so that no fee is too small to be paid into it.
    balances.deposit(env, POT, balances.EXISTENTIAL_DEPOSIT);
    if (config !== undefined) store.Parameters.put(env.host, { ...DEFAULT_PARAMETERS, ...config });
  },
});
