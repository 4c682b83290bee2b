/** Deposits for what the state and the nodes keep: on hold for as long as it is kept, and returned when it goes. */
import type { Balance } from './types.ts';

/** OPEN held for an entry of the state, whatever its size: its key and its place in the trie. */
const ITEM_DEPOSIT: Balance = 10n ** 16n;
/** OPEN held for a byte of an entry's value: 100 OPEN a megabyte. Every node keeps it, and every proof goes past it. */
const STATE_BYTE_DEPOSIT: Balance = 10n ** 14n;
/** OPEN held for a byte of a blob: 0.1 OPEN a megabyte. Validators keep it on their disks. */
export const BYTE_DEPOSIT: Balance = 10n ** 11n;

/** For `items` entries of the state with `bytes` bytes together. */
export const stateDeposit = (items: number, bytes: number): Balance =>
  BigInt(items) * ITEM_DEPOSIT + BigInt(bytes) * STATE_BYTE_DEPOSIT;
