/** What becomes of work that was wrong, or that nobody can look at: fees and budgets go back, workers pay. */
import { DispatchFailure } from '../../../framework/dispatch.ts';
import type { Env } from '../../../framework/pallet.ts';
import type { Verdict } from '../../../primitives/attribution/challenge.ts';
import type { AdapterId, ReceiptBatchId } from '../../../primitives/attribution/ids.ts';
import { finderPart, workSlash } from '../../../primitives/attribution/stakes.ts';
import { TREASURY } from '../../../primitives/pallet-id.ts';
import type { AccountId, Balance } from '../../../primitives/types.ts';
import * as balances from '../../standard/balances.ts';
import * as blobs from '../blobs.ts';
import * as compute from '../compute.ts';
import * as inference from '../inference.ts';
import * as models from '../models.ts';
import { events, type Fault, type PendingBatch, POT, parametersOf, store } from './store.ts';

/** From the pot to a pallet's account, or out of existence where it is too little to bring that account to life. */
export function passOn(env: Env, to: AccountId, amount: Balance): void {
  balances.take(env, POT, amount);
  if (!balances.give(env, to, amount)) balances.rescind(env, amount);
}

/** Gives the fees of a batch back: to its session, or to be claimed where its payer's account cannot take them in. */
function returnFees(env: Env, id: ReceiptBatchId, { batch, payer }: PendingBatch): void {
  const refunded = (): boolean => {
    try {
      return env.transactional(() => inference.refund(env, batch.session, payer, POT, batch.fees));
    } catch (problem) {
      if (!(problem instanceof DispatchFailure)) throw problem;
      return false;
    }
  };
  if (refunded()) return;
  store.Rewards.mutate(env.host, payer, (had) => ({ ...had, claimable: had.claimable + batch.fees }));
  env.emit(events.Refunded, { account: payer, batch: id, amount: batch.fees });
}

function punish(env: Env, worker: AccountId, value: Balance, finder: AccountId | undefined): void {
  const { slash, finderReward } = parametersOf(env.host);
  const amount = workSlash(slash, value);
  compute.slash(env, worker, amount, finder, finderPart(amount, finderReward));
}

/** The batch is over, however: nodes need not keep its receipts, nor the state its adapter for its sake. */
export function letGo(env: Env, { batch, claim }: PendingBatch): void {
  blobs.release(env, claim);
  models.useAdapter(env.host, batch.adapter, -1);
}

/** Takes a batch out of its window without paying it. */
export function withdrawBatch(env: Env, id: ReceiptBatchId, pending: PendingBatch): void {
  store.Batches.remove(env.host, id);
  returnFees(env, id, pending);
  letGo(env, pending);
  compute.unpledge(env.host, pending.batch.worker, pending.stake);
}

export function strikeBatch(env: Env, id: ReceiptBatchId, finder: AccountId | undefined, why: Fault): void {
  const pending = store.Batches.get(env.host, id);
  if (pending === undefined) return;
  const { worker, fees } = pending.batch;
  punish(env, worker, fees, finder);
  withdrawBatch(env, id, pending);
  env.emit(events.BatchStruck, { batch: id, fault: why });
}

/** Takes a training out of its window: the order waits for another worker. */
export function withdrawTraining(env: Env, id: AdapterId): void {
  store.Trainings.remove(env.host, id);
  models.strikeAdapter(env, id);
}

export function strikeTraining(env: Env, id: AdapterId, finder: AccountId | undefined, why: Fault): void {
  if (!store.Trainings.has(env.host, id)) return;
  const { payload } = models.receiptOf(env.host, id);
  punish(env, payload.worker, models.orderOf(env.host, payload.order).budget, finder);
  withdrawTraining(env, id);
  env.emit(events.TrainingStruck, { adapter: id, fault: why });
}

/** Acts on what a challenge came to. A dismissed one is no failed call: the challenger pays for it. */
export function decide(
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
  const { challengeFee } = parametersOf(env.host);
  balances.take(env, challenger, challengeFee, 'Expendable');
  if (!balances.give(env, accused, challengeFee) && !balances.give(env, TREASURY, challengeFee)) {
    balances.rescind(env, challengeFee);
  }
  env.emit(events.ChallengeDismissed, { by: challenger, reason: verdict.reason });
}
