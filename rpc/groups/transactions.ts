/** Transactions between the wire, where they have a length prefix that counts for their hash, and the pool. */
import { PoolError } from '../../node/ports/chain.ts';
import type { Hashing } from '../../runtime/host.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { RpcError } from '../server/errors.ts';
import { hexOf, withLength, withoutLength } from '../server/hex.ts';

export const badExtrinsic = (why: string): RpcError => new RpcError(1001, `Extrinsic has invalid format: ${why}`);

/** The extrinsic in the bytes of a caller. Throws an {@link RpcError}. */
export function extrinsicOf(wire: Uint8Array): Uint8Array {
  try {
    const extrinsic = withoutLength(wire);
    if (extrinsic !== undefined && extrinsic.length > 0) return extrinsic;
  } catch (problem) {
    if (!(problem instanceof ScaleError)) throw problem;
  }
  throw badExtrinsic('the length prefix does not fit');
}

/** Substrate's name of a transaction: the BLAKE2b-256 of it with its length prefix. */
export const transactionHash = (hashing: Pick<Hashing, 'blake2_256'>, extrinsic: Uint8Array): Hash =>
  asHash(hashing.blake2_256(withLength(extrinsic)));

/** What the pool's refusal tells, with the name of the transaction as the caller knows it. */
export function poolRefusal(problem: unknown, hash: Hash): unknown {
  if (!(problem instanceof PoolError) || problem.code !== 'ALREADY_IMPORTED') return problem;
  return new RpcError(problem.rpcCode, problem.message, hexOf(hash));
}
