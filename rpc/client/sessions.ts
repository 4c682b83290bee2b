/** Sessions: deposits that requests are paid from, under a key of their own. */
import { calls, events, type Session, store } from '../../runtime/pallets/ledger/inference.ts';
import type { SessionId } from '../../runtime/primitives/attribution/ids.ts';
import { type AccountId, asAccountId, type Balance, sameAccount } from '../../runtime/primitives/types.ts';
import type { Ledger } from './ledger.ts';
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
