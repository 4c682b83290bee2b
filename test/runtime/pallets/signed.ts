/** Signed, immortal transactions over the runtime in this process, as wallets make them. */
import { signWith } from '../../../node/keystore/keys.ts';
import { derive } from '../../../node/keystore/secret-uri.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import { concatBytes, fromHex } from '../../../runtime/primitives/bytes.ts';
import { compact, encode, u32, u128 } from '../../../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId, multiAddress, multiSignature } from '../../../runtime/primitives/types.ts';
import type { World } from './world.ts';

const key = (name: string) => derive(`//${name}`, 'sr25519');
/** The account of a development key. */
export const accountNamed = (name: string): AccountId => asAccountId(key(name).publicKey);

export function signedBy(of: World, name: string, call: RuntimeCall, nonce: number, tip = 0n): Uint8Array {
  const { extrinsics } = of.runtime.executive;
  const extra = concatBytes(fromHex('0x00'), encode(compact(u32), nonce), encode(compact(u128), tip), fromHex('0x00'));
  const made = (signature: Uint8Array) =>
    concatBytes(
      fromHex('0x84'),
      encode(multiAddress, { type: 'Id', value: accountNamed(name) }),
      encode(multiSignature, { type: 'Sr25519', value: signature }),
      extra,
      encode(of.assembly.call, call),
    );
  const payload = extrinsics.signingPayload(of.env(), extrinsics.decode(made(new Uint8Array(64))), of.number());
  return made(signWith(key(name), payload, of.hashing));
}
