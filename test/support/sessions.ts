/** Sessions as tests pay from them: one worker has all of the deposit. */
import type { Ledger } from '../../rpc/client/ledger.ts';
import { allocate, openSession } from '../../rpc/client/sessions.ts';
import type { Signer } from '../../rpc/client/signer.ts';
import { ENTRY_DEPOSIT } from '../../runtime/pallets/ledger/inference.ts';
import type { SessionId } from '../../runtime/primitives/attribution/ids.ts';

/** Opens a session whose deposit is `amount`, all of it for that worker. */
export async function openFor(
  ledger: Ledger,
  payer: Signer,
  key: Uint8Array,
  worker: Pick<Signer, 'account'>,
  amount: bigint,
): Promise<SessionId> {
  const session = await openSession(ledger, payer, key, amount + ENTRY_DEPOSIT);
  await allocate(ledger, payer, session, worker.account, amount);
  return session;
}
