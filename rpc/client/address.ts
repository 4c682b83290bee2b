/** Accounts as people write and read them. */
import { blake2b } from '@noble/hashes/blake2.js';
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { decodeSs58, encodeSs58, Ss58Error } from '../../runtime/primitives/ss58.ts';
import { type AccountId, asAccountId } from '../../runtime/primitives/types.ts';

/** The prefix of addresses on this chain: the one for any Substrate chain. */
export const SS58_PREFIX = 42;

export const addressOf = (account: Uint8Array): string => encodeSs58(blake2b, { prefix: SS58_PREFIX, key: account });

/** The account of an address of any network, or of 32 bytes in hex. Throws an Ss58Error `BAD_ADDRESS`. */
export function accountOfAddress(text: string): AccountId {
  if (/^0x[\da-fA-F]{64}$/.test(text)) return asAccountId(fromHex(text));
  const { key } = decodeSs58(blake2b, text);
  if (key.length !== 32) throw new Ss58Error('the address of something else than an account');
  return asAccountId(key);
}
