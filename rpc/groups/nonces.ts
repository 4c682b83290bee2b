/** The next nonce of an account, with what it has in the pool. */
import { ScaleError, Source } from '../../runtime/primitives/scale/io.ts';
import { era } from '../../runtime/primitives/types.ts';

export const decodeU32 = (bytes: Uint8Array): number => new Source(bytes).u32();

const SIGNED_V4 = 0x84;
const ID = 0x00;
/** Bytes of a signature by the index of its kind in `MultiSignature`. */
const SIGNATURES = [64, 64, 65];

/**
 * The nonce of a signed version 4 extrinsic (without length prefix) of that account: after address, signature and era,
 * the only extensions before `CheckNonce` that take bytes.
 */
export function nonceOf(extrinsic: Uint8Array, account: Uint8Array): number | undefined {
  if (extrinsic.length < 102 || extrinsic[0] !== SIGNED_V4 || extrinsic[1] !== ID) return undefined;
  for (let i = 0; i < 32; i++) if (extrinsic[i + 2] !== account[i]) return undefined;
  const signature = SIGNATURES[extrinsic[34]!];
  if (signature === undefined || extrinsic.length < 35 + signature) return undefined;
  try {
    const source = new Source(extrinsic, 35 + signature);
    era.decodeFrom(source);
    return source.compact(0xffffffff);
  } catch (problem) {
    if (problem instanceof ScaleError) return undefined;
    throw problem;
  }
}

/** The first nonce from `from` on that no ready extrinsic has. */
export function nextNonce(ready: readonly Uint8Array[], account: Uint8Array, from: number): number {
  const taken = new Set<number>();
  for (const extrinsic of ready) {
    const nonce = nonceOf(extrinsic, account);
    if (nonce !== undefined) taken.add(nonce);
  }
  let next = from;
  while (taken.has(next)) next++;
  return next;
}
