/** Sessions: deposits that requests are paid from, under a key of their own. */
import type { KeyringPair } from '@polkadot/keyring/types';
import * as inference from '../../runtime/pallets/inference.ts';
import { type SessionId, sessionId } from '../../runtime/primitives/attribution/ids.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import type { Balance } from '../../runtime/primitives/types.ts';
import { firstField, type Ledger } from './ledger.ts';

/** `key`: public key that will sign the session's vouchers. */
export async function openSession(
  ledger: Ledger,
  payer: KeyringPair,
  key: Uint8Array,
  deposit: Balance,
): Promise<SessionId> {
  const events = await ledger.submit(payer, ledger.tx('inference', 'openSession', toHex(key), deposit));
  return firstField(events, 'Inference.Opened', sessionId);
}

export async function topUp(ledger: Ledger, payer: KeyringPair, session: SessionId, amount: Balance): Promise<void> {
  await ledger.submit(payer, ledger.tx('inference', 'topUp', session, amount));
}

export const sessionOf = (ledger: Ledger, id: SessionId): Promise<inference.Session | undefined> =>
  ledger.read('inference', 'sessions', inference.session, id);
