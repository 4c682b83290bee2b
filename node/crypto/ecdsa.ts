/** Recovery of secp256k1 keys, as Substrate's `secp256k1_ecdsa_recover_compressed` (host API version 2) does it. */
import { secp256k1Recover } from '@polkadot/util-crypto';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';

const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

/**
 * The compressed key (33 bytes) that signed a 32-byte hash; undefined when there is none. The last of the 65 bytes is
 * the recovery id, 0 to 3, or 27 to 30 as Ethereum writes it. Never throws.
 */
export function recoverEcdsa(signature: Uint8Array, messageHash: Uint8Array): Uint8Array | undefined {
  if (signature.length !== 65 || messageHash.length !== 32) return undefined;
  const tag = signature[64]!;
  const recoveryId = tag > 26 ? tag - 27 : tag;
  if (recoveryId > 3) return undefined;
  try {
    const s = BigInt(toHex(signature.subarray(32, 64)));
    if (s <= ORDER / 2n || s >= ORDER) {
      return secp256k1Recover(messageHash, signature.subarray(0, 64), recoveryId);
    }
    // The library refuses the higher of the two equivalent signatures, Substrate does not: recover from the lower one.
    const low = signature.slice(0, 64);
    low.set(fromHex((ORDER - s).toString(16).padStart(64, '0')), 32);
    return secp256k1Recover(messageHash, low, recoveryId ^ 1);
  } catch {
    return undefined;
  }
}
