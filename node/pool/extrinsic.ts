/** The little that the pool reads of an extrinsic itself: whether it is bare, and who signed it. */
import { type Key, keyOf } from './entry.ts';

const BARE_V4 = 0x04;
const BARE_V5 = 0x05;
const SIGNED_V4 = 0x84;
const ADDRESS_ID = 0x00;

/** Inherents, which do not come back when their block is retracted. */
export const isBare = (extrinsic: Uint8Array): boolean => extrinsic[0] === BARE_V4 || extrinsic[0] === BARE_V5;

/** The account of a signed extrinsic; undefined for anything else. Nothing is checked. */
export function senderOf(extrinsic: Uint8Array): Key | undefined {
  if (extrinsic[0] !== SIGNED_V4 || extrinsic[1] !== ADDRESS_ID || extrinsic.length < 34) return undefined;
  return keyOf(extrinsic.subarray(2, 34));
}
