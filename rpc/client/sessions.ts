/** Sessions: deposits that requests are paid from, under a key of their own, divided among workers. */
import { type Allocation, calls, events, type Session, store } from '../../runtime/pallets/ledger/inference.ts';
import type { SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { type AccountId, asAccountId, type Balance, sameAccount } from '../../runtime/primitives/types.ts';
import type { Ledger, LedgerReads } from './ledger.ts';
import type { Signer } from './signer.ts';

/** `key`: sr25519 public key that will sign the session's vouchers. */
export async function openSession(
  ledger: Ledger,
  payer: Signer,
  key: Uint8Array,
  deposit: Balance,
): Promise<SessionId> {
  const made = await ledger.submit(payer, calls.openSession, { key: asAccountId(key), deposit });
  return made.event(events.Opened).session;
}

export async function topUp(ledger: Ledger, payer: Signer, session: SessionId, amount: Balance): Promise<void> {
  await ledger.submit(payer, calls.topUp, { session, amount });
}

/**
 * Keeps more of the deposit for one worker, which answers for no more than that; the first time, 0.1 OPEN of the deposit is
 * set aside beside it. `by`: the session's owner or its key. Rejects with `Inference.DepositAllocated` where the rest of the
 * deposit is smaller.
 */
export async function allocate(
  ledger: Ledger,
  by: Signer,
  session: SessionId,
  worker: AccountId,
  amount: Balance,
): Promise<void> {
  await ledger.submit(by, calls.allocate, { session, worker, amount });
}

/** Asks a worker's allocation back. Returns the block in which what the worker has not settled is free for others. */
export async function release(ledger: Ledger, by: Signer, session: SessionId, worker: AccountId): Promise<number> {
  return (await ledger.submit(by, calls.release, { session, worker })).event(events.Releasing).until;
}

/** What a session keeps for a worker; undefined where nothing ever was. */
export const allocationOf = (
  ledger: LedgerReads,
  session: SessionId,
  worker: AccountId,
): Promise<Allocation | undefined> => ledger.read(store.Allocations, [session, worker]);

/** Returns the block from which on the rest of the deposit can be taken back. */
export async function closeSession(ledger: Ledger, payer: Signer, session: SessionId): Promise<number> {
  return (await ledger.submit(payer, calls.closeSession, { session })).event(events.Closing).until;
}

/** Rejects with `Inference.NotClosing` while workers may still settle. */
export async function withdrawDeposit(ledger: Ledger, payer: Signer, session: SessionId): Promise<void> {
  await ledger.submit(payer, calls.withdrawDeposit, { session });
}

export async function sessionsOf(
  ledger: Ledger,
  owner: AccountId,
): Promise<{ readonly id: SessionId; readonly session: Session }[]> {
  const found: { id: SessionId; session: Session }[] = [];
  for await (const [id, session] of ledger.entries(store.Sessions)) {
    if (sameAccount(session.owner, owner)) found.push({ id, session });
  }
  return found;
}

export const sessionOf = (ledger: Ledger, id: SessionId): Promise<Session | undefined> =>
  ledger.read(store.Sessions, id);
