/** The hold that stakes are on. It stands by itself, since Balances counts stakes where freezes are concerned. */
import type { Reason } from '../../../framework/pallet.ts';

export const INDEX = 33;
/** Stakes are on hold for this. */
export const STAKING_HOLD: Reason = { pallet: INDEX, reason: 0 };
