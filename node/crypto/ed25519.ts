/**
 * Ed25519 verification by the rules of ZIP-215, which Substrate follows and consensus depends on: points may have any
 * encoding and any order, and the equation is the cofactored one, 8·S·B = 8·R + 8·k·A.
 *
 * What sodium accepts (canonical points, cofactorless equation) is a subset of that, and fast. What it refuses is
 * decided by the equation itself, put together from sodium's point operations: multiplying by the cofactor first
 * leaves only points of prime order, on which those operations are defined. A refusal thus costs about four times an
 * acceptance and no more, so that nobody gains by sending bad signatures.
 */
import sodium from 'sodium-native';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { isCanonicalScalar } from './scalars.ts';

/** Encoding of the neutral point. */
const NEUTRAL = Uint8Array.of(1, ...new Uint8Array(31));

const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

function timesEight(add: (out: Uint8Array, a: Uint8Array, b: Uint8Array) => void, value: Uint8Array): Uint8Array {
  const out = new Uint8Array(32);
  add(out, value, value);
  add(out, out, out);
  add(out, out, out);
  return out;
}

/** Throws if a point is not on the curve. */
function cofactored(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean {
  const r8 = timesEight(sodium.crypto_core_ed25519_add, signature.subarray(0, 32));
  const a8 = timesEight(sodium.crypto_core_ed25519_add, publicKey);
  const s8 = timesEight(sodium.crypto_core_ed25519_scalar_add, signature.subarray(32));

  const input = new Uint8Array(64 + message.length);
  input.set(signature.subarray(0, 32));
  input.set(publicKey, 32);
  input.set(message, 64);
  const wide = new Uint8Array(64);
  sodium.crypto_hash_sha512(wide, input);
  const k = new Uint8Array(32);
  sodium.crypto_core_ed25519_scalar_reduce(k, wide);

  // sodium reports the neutral point as an error, both as operand and as result.
  const right = r8;
  if (!isZero(k) && !equalBytes(a8, NEUTRAL)) {
    const ka8 = new Uint8Array(32);
    sodium.crypto_scalarmult_ed25519_noclamp(ka8, k, a8);
    sodium.crypto_core_ed25519_add(right, right, ka8);
  }
  const left = new Uint8Array(32);
  if (isZero(s8)) left.set(NEUTRAL);
  else sodium.crypto_scalarmult_ed25519_base_noclamp(left, s8);
  return equalBytes(left, right);
}

/** Never throws. */
export function verifyEd25519(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean {
  if (signature.length !== 64 || publicKey.length !== 32 || !isCanonicalScalar(signature, 32)) return false;
  if (sodium.crypto_sign_verify_detached(signature, message, publicKey)) return true;
  try {
    return cofactored(signature, message, publicKey);
  } catch {
    return false;
  }
}
