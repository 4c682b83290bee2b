/** Accounts as they are named on the command line. */
import { accountOfAddress } from '../../rpc/client/address.ts';
import { Ss58Error } from '../../runtime/primitives/ss58.ts';
import type { AccountId } from '../../runtime/primitives/types.ts';

/**
 * The account of an SS58 address, or of a development secret URI, for what needs no signature. Throws an Ss58Error
 * `BAD_ADDRESS`, or a KeyError. Keys are loaded for a URI only.
 */
export async function accountOf(account: string): Promise<AccountId> {
  if (account.startsWith('/')) return (await (await import('./account-key.ts')).openKey(account)).account;
  try {
    return accountOfAddress(account);
  } catch (problem) {
    if (!(problem instanceof Ss58Error)) throw problem;
    throw new Ss58Error(`${account} is no SS58 address`);
  }
}
