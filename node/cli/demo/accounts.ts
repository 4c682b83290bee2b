/**
 * The demonstration's accounts: new ones for every run, so that what they earn is this run's, and all derived from the funder's
 * key, so that whatever a run leaves behind, interrupted or not, stays the funder's.
 */
import { randomBytes } from 'node:crypto';
import { holdingsOf } from '../../../rpc/client/accounts.ts';
import { toAccount } from '../../../rpc/client/call.ts';
import { batchesOf, datanets, releaseStake } from '../../../rpc/client/datanets.ts';
import { LedgerError } from '../../../rpc/client/errors.ts';
import type { Ledger } from '../../../rpc/client/ledger.ts';
import { claim, rewardsOf } from '../../../rpc/client/rewards.ts';
import { closeSession, sessionsOf, withdrawDeposit } from '../../../rpc/client/sessions.ts';
import type { LocalSigner } from '../../../rpc/client/signer.ts';
import { store } from '../../../runtime/pallets/ledger/datanets.ts';
import { calls as balances } from '../../../runtime/pallets/standard/balances.ts';
import { equalBytes } from '../../../runtime/primitives/bytes.ts';
import type { AccountId } from '../../../runtime/primitives/types.ts';
import { contributorNames } from './records.ts';

/** Eight hexadecimal digits. */
export const newRun = (): string => randomBytes(4).toString('hex');

const derived = (funder: LocalSigner, run: string, name: string): LocalSigner =>
  funder.derive(`//openledger//demo//${run}//${name}`);

/** Owns the Datanets and orders the trainings. */
export const ownerOf = (funder: LocalSigner, run: string): LocalSigner => derived(funder, run, 'owner');
export const personOf = (funder: LocalSigner, run: string, name: string): LocalSigner => derived(funder, run, name);
/** Signs the vouchers of a gateway that the demonstration opens itself; the funder owns the session. */
export const sessionKeyOf = (funder: LocalSigner, run: string): LocalSigner => derived(funder, run, 'session');

export interface Reclaimed {
  /** What came back, after the transactions' fees, and what is still on hold: stakes, deposits, budgets. */
  readonly returned: bigint;
  readonly held: bigint;
  /** Blocks from which on some of that is free: of stakes, and of the deposit for answers. */
  readonly freeFrom: readonly number[];
}

/** Takes back what a run's accounts have. May be repeated: what is on hold comes free later. */
export async function reclaim(ledger: Ledger, funder: LocalSigner, run: string): Promise<Reclaimed> {
  const best = await ledger.bestNumber();
  const before = await holdingsOf(ledger, funder.account);
  const freeFrom = new Set<number>();
  const key = sessionKeyOf(funder, run).publicKey;
  const own = async () =>
    (await sessionsOf(ledger, funder.account)).filter(({ session }) => equalBytes(session.key, key));
  for (const { id, session } of await own()) {
    if (session.closing === undefined) freeFrom.add(await closeSession(ledger, funder, id));
    else if (session.closing > best) freeFrom.add(session.closing);
    else await withdrawDeposit(ledger, funder, id);
  }
  const pairs = [ownerOf(funder, run), ...contributorNames().map((name) => personOf(funder, run, name))];
  const staked = await stakesOf(ledger);
  const held = pairs.map(async (pair) => {
    for (const { datanet, index, contributor, free } of staked) {
      if (!equalBytes(contributor, pair.account)) continue;
      if (free <= best) await releaseStake(ledger, pair, datanet, index);
      else freeFrom.add(free);
    }
    if ((await rewardsOf(ledger, pair.account)).claimable > 0n) await claim(ledger, pair);
    await sendBack(ledger, pair, funder.account);
    return (await holdingsOf(ledger, pair.account)).held;
  });
  const sum = (await Promise.all(held)).reduce((all, each) => all + each, 0n);
  const after = await holdingsOf(ledger, funder.account);
  return {
    returned: after.free - before.free,
    held: (await own()).reduce((all, { session }) => all + session.deposit + session.storageDeposit, sum),
    freeFrom: [...freeFrom].sort((a, b) => a - b),
  };
}

/** All stakes of batches, and the block from which on each is free. */
async function stakesOf(ledger: Ledger) {
  const { stakePeriod } = await ledger.read(store.Parameters);
  const all = await Promise.all(
    (await datanets(ledger)).map(async ({ id }) => {
      const batches = (await batchesOf(ledger, id)).filter(({ batch }) => batch.stake > 0n);
      return batches.map(({ index, batch: { at, contributor } }) => ({
        ...{ datanet: id, index, contributor, free: at + stakePeriod },
      }));
    }),
  );
  return all.flat();
}

async function sendBack(ledger: Ledger, pair: LocalSigner, to: AccountId): Promise<void> {
  const { free } = await holdingsOf(ledger, pair.account);
  if (free === 0n) return;
  try {
    await ledger.submit(pair, balances.transferAll, { dest: toAccount(to), keepAlive: false });
  } catch (problem) {
    // Not enough for the transaction itself, or it has to stay behind what is on hold.
    if (!(problem instanceof LedgerError)) throw problem;
  }
}
