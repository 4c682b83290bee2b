/** What accounts earned by attribution. */
import { calls, events, type PendingBatch, type Reward, store } from '../../runtime/pallets/ledger/attribution.ts';
import type { ReceiptBatchId } from '../../runtime/primitives/attribution/ids.ts';
import type { AccountId, Balance } from '../../runtime/primitives/types.ts';
import type { Ledger } from './ledger.ts';
import type { Signer } from './signer.ts';

export type { Reward } from '../../runtime/pallets/ledger/attribution.ts';

export const rewardsOf = (ledger: Ledger, account: AccountId): Promise<Reward> => ledger.read(store.Rewards, account);

/** Of everybody who ever earned, highest first. */
export async function allRewards(ledger: Ledger): Promise<{ readonly account: AccountId; readonly reward: Reward }[]> {
  const found: { account: AccountId; reward: Reward }[] = [];
  for await (const [account, reward] of ledger.entries(store.Rewards)) found.push({ account, reward });
  return found.sort((a, b) => (a.reward.earned < b.reward.earned ? 1 : -1));
}

/** Takes everything that was earned and returns how much. Rejects with `Attribution.NothingToClaim`. */
export async function claim(ledger: Ledger, signer: Signer): Promise<Balance> {
  return (await ledger.submit(signer, calls.claim)).event(events.Claimed).amount;
}

/** Batches of receipts that wait out their window. */
export const pendingBatches = (ledger: Ledger): Promise<[ReceiptBatchId, PendingBatch][]> =>
  Array.fromAsync(ledger.entries(store.Batches));
