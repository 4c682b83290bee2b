/**
 * Attribution: receipts become money here. Training receipts make adapters, batches of inference receipts make rewards;
 * both wait out a window in which anybody can show an integer that is wrong, and auditors anything else. Then the fees go
 * to contributors, adapter owner, worker, stakers and treasury, to the last unit, to be claimed.
 */
import { verifySignature } from '../../executive/extrinsic.ts';
import {
  addWeight,
  cost,
  type ErrorDef,
  ensure,
  ensureRoot,
  ensureSigned,
  fail,
  scaleWeight,
} from '../../framework/dispatch.ts';
import { call, constant, type Env, pallet } from '../../framework/pallet.ts';
import type { ParametersConfig } from '../../framework/parameters.ts';
import { storage } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { hashOf } from '../../primitives/attribution/canonical.ts';
import { contentHash } from '../../primitives/attribution/findings.ts';
import { adapterId, type ReceiptBatchId, receiptBatchId } from '../../primitives/attribution/ids.ts';
import { batchChallenge, batchFault, decideBatch } from '../../primitives/attribution/inference-challenge.ts';
import { batchItem, itemRoot } from '../../primitives/attribution/ledger.ts';
import { MAX_BATCH_RECEIPTS } from '../../primitives/attribution/limits.ts';
import { bearsFault, plantedFault } from '../../primitives/attribution/planted.ts';
import {
  inferenceReceipt,
  type ReceiptBatch,
  receiptBatch,
  type SignedInferenceReceipt,
  signedReceiptBatch,
  signedTrainingReceipt,
  type TrainingReceipt,
  termsHold,
  trainingReceipt,
  voucher,
} from '../../primitives/attribution/receipts.ts';
import { type Rules, receiptRules, rules, rulesFault } from '../../primitives/attribution/split.ts';
import { batchStake } from '../../primitives/attribution/stakes.ts';
import { artifactSizes } from '../../primitives/attribution/training.ts';
import { decideTraining, trainingChallenge } from '../../primitives/attribution/training-challenge.ts';
import { equalBytes, toHex } from '../../primitives/bytes.ts';
import { TREASURY } from '../../primitives/pallet-id.ts';
import { type Codec, fixedBytes, option, struct, u32, u64 } from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, sameAccount } from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import { POT as STAKERS } from '../standard/staking.ts';
import * as system from '../standard/system.ts';
import { decide, strikeBatch, strikeTraining, withdrawBatch } from './attribution/faults.ts';
import {
  type AttributionParameters,
  errors,
  events,
  items,
  POT,
  parameters,
  parametersOf,
  rulesInForce,
  store,
} from './attribution/store.ts';
import { openWindow, orderAudit, reviews, select, windows } from './attribution/windows.ts';
import * as audits from './audits.ts';
import * as blobs from './blobs.ts';
import * as commitments from './commitments.ts';
import * as compute from './compute.ts';
import { MAX_SNAPSHOT_BATCHES } from './datanets/types.ts';
import * as datanets from './datanets.ts';
import * as inference from './inference.ts';
import * as models from './models.ts';

export {
  errors,
  events,
  type PendingBatch,
  POT,
  parametersOf,
  pendingBatch,
  type Reward,
  reward,
  rulesInForce,
  store,
} from './attribution/store.ts';

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

/** A total is checked now and paid later; the snapshot, whose contributors it is held against, lists so many ranges at most. */
const perTotal = cost(120_000_000n, 1, 1);
const perRange = cost(700_000n);
const SETTLE = cost(600_000_000n, 34, 26);
const settleWeight = (totals: number, ranges: number) =>
  addWeight(SETTLE, addWeight(scaleWeight(perTotal, BigInt(totals)), scaleWeight(perRange, BigInt(ranges))));

/** Whether only contributors of the adapter's snapshot would be paid. Returns the number of ranges that were looked at. */
function ensureContributors(host: Host, { totals, adapter }: ReceiptBatch): number {
  const { datanet, version } = models.receiptOf(host, adapter).payload.snapshot;
  const ranges = datanets.store.Ranges.get(host, [datanet, version]) ?? [];
  const known = new Set(ranges.map(({ contributor }) => toHex(contributor)));
  ensure(
    totals.every(({ contributor }) => known.has(toHex(contributor))),
    errors.NotContributor,
  );
  return ranges.length;
}

/** What challengers commit to before they say it (`commitments.ts`). */
export const trainingFinding = struct({ adapter: adapterId, challenge: trainingChallenge });
export const batchFinding = struct({ batch: receiptBatchId, challenge: batchChallenge });

/** The challenger, if it committed to its evidence, with that salt, before others could read it: a copy is worth nothing. */
function finderOf<T>(
  env: Env,
  finder: AccountId,
  salt: Uint8Array | undefined,
  codec: Codec<T>,
  evidence: T,
): AccountId | undefined {
  if (salt === undefined) return undefined;
  const content = contentHash(env.host, codec, evidence);
  return commitments.redeem(env, { finder, salt, content }) ? finder : undefined;
}

// ---- calls ---------------------------------------------------------------------------------------------------

export const calls = {
  submitTraining: call({
    index: 0,
    args: { receipt: signedTrainingReceipt, sizes: artifactSizes },
    weight: cost(500_000_000n, 56, 58),
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
      // Every training is looked at by others, and who hands it in pays for that.
      balances.transfer(env, worker, TREASURY, audits.requestPrice(host), 'KeepAlive');
      const id = models.addAdapter(env, receipt, digest, declared);
      // The bond goes on standing for it until the window closes.
      compute.submitTask(host, payload.order);
      const { datanet, version } = payload.snapshot;
      const ranges = datanets.snapshotOf(host, datanet, version)?.ranges ?? 0;
      const { baseModel, features } = payload;
      const of = { type: 'Training', value: id } as const;
      const until = openWindow(host, { subject: of, accused: worker, baseModel, items: features.rows }, undefined);
      store.Trainings.insert(host, id, { ranges, until });
    },
  }),
  challengeTraining: call({
    index: 1,
    args: { adapter: adapterId, challenge: trainingChallenge, salt: option(fixedBytes(32)) },
    weight: cost(3_000_000_000n, 20, 20),
    docs: 'Show that a training receipt’s commitments are wrong. Decided at once; whoever is wrong pays. Who has committed to it before gets a part.',
    run({ origin, ...env }, { adapter: id, challenge, salt }) {
      const { host } = env;
      const challenger = ensureSigned(origin);
      const { ranges } = store.Trainings.get(host, id) ?? fail(errors.WindowClosed);
      const { payload: receipt } = models.receiptOf(host, id);
      const context = {
        receipt,
        ranges,
        noveltyFloor: parametersOf(host).noveltyFloor,
      };
      decide(env, challenger, receipt.worker, decideTraining(host, context, challenge), (why) =>
        strikeTraining(env, id, finderOf(env, challenger, salt, trainingFinding, { adapter: id, challenge }), why),
      );
    },
  }),
  settle: call({
    index: 2,
    args: { batch: signedReceiptBatch, bytes: u64 },
    weight: ({ batch }) => settleWeight(batch.payload.totals.length, MAX_SNAPSHOT_BATCHES),
    docs: 'Settle a batch of inference receipts: its fees leave the deposit now, and are paid out when its window closes.',
    run({ origin, ...env }, { batch: { payload: batch, signature }, bytes }) {
      const { host } = env;
      const worker = ensureSigned(origin);
      ensure(equalBytes(batch.chain, genesisHash(host)), errors.OtherChain);
      ensure(sameAccount(batch.worker, worker), errors.NotWorker);
      ensure(inference.servingOf(host, batch.adapter, worker) !== undefined, errors.NotServing);
      const ordered = batch.receipts === 1 ? batch.firstNonce === batch.lastNonce : batch.firstNonce < batch.lastNonce;
      ensure(batch.receipts >= 1 && batch.receipts <= MAX_BATCH_RECEIPTS && ordered, errors.EmptyBatch);
      ensure(batch.fees > 0n, errors.EmptyBatch);
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
      const ranges = ensureContributors(host, batch);

      inference.pay(env, { ...batch, cumulative }, POT);
      const id = store.NextBatch.get(host);
      store.NextBatch.put(host, (id + 1n) as ReceiptBatchId);
      const claim = blobs.commit(env, {
        depositor: worker,
        purpose: { type: 'Receipts', value: id },
        files: [{ hash: batch.blob, bytes }],
      });
      const stake = batchStake(batch.fees);
      compute.pledge(host, worker, stake);
      const of = { type: 'Batch', value: id } as const;
      const work = { subject: of, accused: worker, baseModel, items: batch.receipts };
      const until = openWindow(host, work, batch.fees);
      store.Batches.insert(host, id, {
        ...{ batch, payer: session.owner, key: session.key, terms, rules: by, until, stake, claim },
      });
      models.useAdapter(host, batch.adapter, 1);
      const { adapter, receipts, fees } = batch;
      env.emit(events.Settled, { batch: id, worker, adapter, receipts, fees });
      return { actualWeight: settleWeight(batch.totals.length, ranges) };
    },
  }),
  challengeBatch: call({
    index: 3,
    args: { batch: receiptBatchId, challenge: batchChallenge, salt: option(fixedBytes(32)) },
    weight: cost(3_000_000_000n, 20, 20),
    docs: 'Show that a batch or a receipt in it is wrong. Decided at once; whoever is wrong pays. Who has committed to it before gets a part.',
    run({ origin, ...env }, { batch: id, challenge, salt }) {
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
        strikeBatch(env, id, finderOf(env, challenger, salt, batchFinding, { batch: id, challenge }), why),
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
      const until = system.blockNumber(host) + parametersOf(host).graceBlocks;
      store.PreviousRules.put(host, { rules: store.Rules.get(host), until });
      store.Rules.put(host, next);
      emit(events.RulesChanged, { rules: next });
    },
  }),
  setParameters: parameters.setter(6, events.ParametersChanged, errors.BadParameters),
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
  requestAudit: call({
    index: 8,
    args: { subject: audits.subject },
    weight: cost(120_000_000n, 12, 8),
    docs: 'Have work in its window looked at: the signer pays the first auditors, and gets the finder’s part if the work is wrong.',
    run({ origin, ...env }, { subject: of }) {
      const { host } = env;
      const by = ensureSigned(origin);
      ensure(!audits.isSuspended(host, of), errors.InAudit);
      const work = workOf(host, of);
      ensure(system.blockNumber(host) < work.until, errors.WindowClosed);
      balances.transfer(env, by, TREASURY, audits.requestPrice(host), 'KeepAlive');
      orderAudit(host, work.request, by);
      env.emit(audits.events.Requested, { subject: of, by });
    },
  }),
};

/** Work in its window, as auditors are drawn for it. */
function workOf(host: Host, subject: audits.Subject) {
  if (subject.type === 'Batch') {
    const { batch, until } = store.Batches.get(host, subject.value) ?? fail(errors.UnknownBatch);
    const { baseModel } = models.adapterOf(host, batch.adapter);
    return { until, request: { subject, accused: batch.worker, baseModel, items: batch.receipts } };
  }
  const { until } = store.Trainings.get(host, subject.value) ?? fail(errors.WindowClosed);
  const { worker, baseModel, features } = models.receiptOf(host, subject.value).payload;
  return { until, request: { subject, accused: worker, baseModel, items: features.rows } };
}

/** Part of the genesis configuration, for chains that cannot wait so long. */
export type AttributionGenesis = ParametersConfig<AttributionParameters>;

export const attribution = pallet({
  name: 'Attribution',
  index: 24,
  docs: 'Receipts, disputes, rewards: who shaped an answer, and what that earned.',
  storage: storage('Attribution', { ...items, ...windows.storage, ...reviews.storage }),
  calls,
  events,
  errors,
  constants: {
    ...parameters.constants,
    Pot: constant(accountId, POT, 'Holds fees in their window, and rewards until they are claimed.'),
    Stakers: constant(accountId, STAKERS, 'Holds the stakers’ part.'),
  },
  work: [windows, reviews],
  hooks: { onInitialize: select },
  genesis(env, config: AttributionGenesis) {
    // The pot outlives its contents, so that no fee is too small to be paid into it.
    balances.deposit(env, POT, balances.EXISTENTIAL_DEPOSIT);
    parameters.begin(env.host, config);
  },
});
