/** `block-announces/1`, and the handshakes and messages of the other notification protocols. */
import type { PeerInfo } from '../../node/ports/chain.ts';
import { header } from '../../runtime/primitives/header.ts';
import { bytes, type Codec, type Infer, mapped, struct, u8, u32, vec } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { hash } from '../../runtime/primitives/types.ts';

export type Role = PeerInfo['roles'];
const ROLES: Readonly<Record<Role, number>> = { FULL: 1, LIGHT: 2, AUTHORITY: 4 };

export const role: Codec<Role> = mapped(
  u8,
  (raw) => {
    for (const name of ['FULL', 'LIGHT', 'AUTHORITY'] as const) if (ROLES[name] === raw) return name;
    throw new ScaleError('OUT_OF_RANGE', `no such role: ${raw}`);
  },
  (name) => ROLES[name],
);

export const announceHandshake = struct({ role, bestNumber: u32, bestHash: hash, genesisHash: hash });
export type AnnounceHandshake = Infer<typeof announceHandshake>;

export const blockAnnounce = struct({ header, isBest: u8, data: bytes(1024) });
export type BlockAnnounce = Infer<typeof blockAnnounce>;

export const MAX_TRANSACTIONS = 4_096;
/** What `transactions/1` carries: extrinsics without their inner structure. */
export const transactions = vec(bytes(), MAX_TRANSACTIONS);
