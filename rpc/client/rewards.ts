/** What accounts earned by attribution. */
import type { KeyringPair } from '@polkadot/keyring/types';
import * as attribution from '../../runtime/pallets/ledger/attribution.ts';
import { struct } from '../../runtime/primitives/scale/codec.ts';
import { type AccountId, accountId, asAccountId, type Balance, balance } from '../../runtime/primitives/types.ts';
import { firstField, type Ledger } from './connection.ts';

export type { Reward } from '../../runtime/pallets/ledger/attribution.ts';

export async function rewardsOf(ledger: Ledger, address: string): Promise<attribution.Reward> {
  return (await ledger.read('attribution', 'rewards', attribution.reward, address)) ?? { claimable: 0n, earned: 0n };
}

/** Of everybody who ever earned, highest first. */
export async function allRewards(
  ledger: Ledger,
): Promise<{ readonly account: AccountId; readonly reward: attribution.Reward }[]> {
  const entries = await ledger.entries('attribution', 'rewards', attribution.reward);
  return entries
    .map(({ key, value }) => ({ account: asAccountId(key.slice(-32)), reward: value }))
    .sort((a, b) => (a.reward.earned < b.reward.earned ? 1 : -1));
}

const claimed = struct({ account: accountId, amount: balance });

/** Takes everything that was earned and returns how much. Rejects with `Attribution.NothingToClaim`. */
export async function claim(ledger: Ledger, pair: KeyringPair): Promise<Balance> {
  const events = await ledger.submit(pair, ledger.tx('attribution', 'claim'));
  return firstField(events, 'Attribution.Claimed', claimed).amount;
}

/** Batches of receipts that wait out their window. */
export const pendingBatches = async (ledger: Ledger): Promise<attribution.PendingBatch[]> =>
  (await ledger.entries('attribution', 'batches', attribution.pendingBatch)).map(({ value }) => value);
