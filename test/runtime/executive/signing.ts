/** Signed transactions as wallets make them: version 4, immortal. */
import { signWith } from '../../../node/keystore/keys.ts';
import { derive } from '../../../node/keystore/secret-uri.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { concatBytes, fromHex } from '../../../runtime/primitives/bytes.ts';
import { compact, encode, u32, u128 } from '../../../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId, multiAddress, multiSignature } from '../../../runtime/primitives/types.ts';
import type { World } from '../pallets/world.ts';

const keyOf = (name: string) => derive(`//${name}`, 'sr25519');
export const accountOf = (name: string): AccountId => asAccountId(keyOf(name).publicKey);

/** With the signer's next nonce unless told. `forge` leaves the signature empty. */
export function signedBy(
  of: World,
  name: string,
  call: RuntimeCall,
  { nonce, tip = 0n, forge = false }: { nonce?: number; tip?: bigint; forge?: boolean } = {},
): Uint8Array {
  const { extrinsics } = of.runtime.executive;
  const next = nonce ?? system.account(of.host, accountOf(name)).nonce;
  const extra = concatBytes(fromHex('0x00'), encode(compact(u32), next), encode(compact(u128), tip), fromHex('0x00'));
  const body = encode(of.assembly.call, call);
  const made = (signature: Uint8Array) =>
    concatBytes(
      fromHex('0x84'),
      encode(multiAddress, { type: 'Id', value: accountOf(name) }),
      encode(multiSignature, { type: 'Sr25519', value: signature }),
      extra,
      body,
    );
  const empty = made(new Uint8Array(64));
  if (forge) return empty;
  const payload = extrinsics.signingPayload(of.env(), extrinsics.decodeHead(empty), of.number());
  return made(signWith(keyOf(name), payload, of.hashing));
}
