/** `sync/warp`: the way to the finalized block by those blocks alone that changed who finalizes. */
import { justificationCodec } from '../../consensus/grandpa/messages.ts';
import type { WarpFragment, WarpProof } from '../../consensus/grandpa/warp.ts';
import { header } from '../../runtime/primitives/header.ts';
import { bool, type Codec, mapped, struct, vec } from '../../runtime/primitives/scale/codec.ts';
import { hash } from '../../runtime/primitives/types.ts';

/** A request is the hash of the block that the asker takes for final. */
export const warpRequest = hash;

const MAX_FRAGMENTS = 4_096;
const warpFragment: Codec<WarpFragment> = struct({ header, justification: justificationCodec });

/** Substrate's `WarpSyncProof`. */
export const warpProof: Codec<WarpProof> = mapped(
  struct({ fragments: vec(warpFragment, MAX_FRAGMENTS), finished: bool }),
  (raw) => raw,
  ({ fragments, finished }) => ({ fragments: [...fragments], finished }),
);
