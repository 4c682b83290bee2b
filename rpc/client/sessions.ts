/** Sessions: deposits that requests are paid from, under a key of their own. */
import type { KeyringPair } from '@polkadot/keyring/types';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import { type SessionId, sessionId } from '../../runtime/primitives/attribution/ids.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import { decode, struct, u32 } from '../../runtime/primitives/scale/codec.ts';
import type { Balance } from '../../runtime/primitives/types.ts';
import { firstField, type Ledger } from './connection.ts';

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

const closing = struct({ session: sessionId, until: u32 });

/** Returns the block from which on the rest of the deposit can be taken back. */
export async function closeSession(ledger: Ledger, payer: KeyringPair, session: SessionId): Promise<number> {
  const events = await ledger.submit(payer, ledger.tx('inference', 'closeSession', session));
  return firstField(events, 'Inference.Closing', closing).until;
}

/** Rejects with `Inference.NotClosing` while workers may still settle. */
export async function withdrawDeposit(ledger: Ledger, payer: KeyringPair, session: SessionId): Promise<void> {
  await ledger.submit(payer, ledger.tx('inference', 'withdrawDeposit', session));
}

export const sessionsOf = async (
  ledger: Ledger,
  owner: Uint8Array,
): Promise<{ readonly id: SessionId; readonly session: inference.Session }[]> =>
  (await ledger.entries('inference', 'sessions', inference.session))
    .map(({ key, value }) => ({ id: decode(sessionId, key.subarray(-8)), session: value }))
    .filter(({ session }) => equalBytes(session.owner, owner));

export const sessionOf = (ledger: Ledger, id: SessionId): Promise<inference.Session | undefined> =>
  ledger.read('inference', 'sessions', inference.session, id);
