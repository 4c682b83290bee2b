/** Accounts that belong to pallets: nobody has their keys (`PalletId::into_account_truncating`). */
import { concatBytes, utf8 } from './bytes.ts';
import { type AccountId, asAccountId } from './types.ts';

/** The account of the pallet id, eight characters such as `py/trsry`. */
export function palletAccount(id: string): AccountId {
  const bytes = utf8(id);
  if (bytes.length !== 8) throw new Error(`a pallet id has eight bytes, not ${bytes.length}`);
  return asAccountId(concatBytes(utf8('modl'), bytes, new Uint8Array(20)));
}

export const TREASURY = palletAccount('py/trsry');
