/** What `System.Account` holds of a balance (`pallet_balances::types::AccountData`). */
import { type Infer, named, struct } from './scale/codec.ts';
import { balance } from './types.ts';

/** The top bit says that the account uses the current rules for references; always set. */
const extraFlags = named('pallet_balances::types::ExtraFlags', balance);
export const NEW_LOGIC = 1n << 127n;

export const accountData = named(
  'pallet_balances::types::AccountData',
  struct({ free: balance, reserved: balance, frozen: balance, flags: extraFlags }),
  { params: [{ name: 'Balance', type: balance.type }] },
);
export type AccountData = Infer<typeof accountData>;

export const emptyAccountData: AccountData = { free: 0n, reserved: 0n, frozen: 0n, flags: NEW_LOGIC };
