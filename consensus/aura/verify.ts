/** Whether a header was made by the author of its slot, at a time it may have been made. Needs headers and authorities only. */
import type { Hashing, Signatures } from '../../runtime/host.ts';
import { type Header, headerHash } from '../../runtime/primitives/header.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { authorOf, type Slot, slotOf, slotStart, unseal } from './slots.ts';

/** How far a block may be ahead of this node's clock. */
export const MAX_AHEAD_MS = 30_000;

export interface SlotContext {
  /** Those after the parent block. */
  readonly authorities: readonly Uint8Array[];
  /** Undefined below the first block: genesis has no slot. */
  readonly parentSlot: Slot | undefined;
  readonly slotMs: number;
  readonly nowMs: number;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly signatures: Pick<Signatures, 'verifySr25519'>;
}

export type SealVerdict =
  | { readonly type: 'valid'; readonly slot: Slot; readonly author: Uint8Array; readonly preHash: Hash }
  /** Not yet: the block may be offered again later. */
  | { readonly type: 'future'; readonly slot: Slot }
  | {
      readonly type: 'invalid';
      readonly code: 'NO_SLOT' | 'NO_SEAL' | 'SLOT_NOT_INCREASING' | 'NO_AUTHORITIES' | 'BAD_SEAL';
      readonly reason: string;
    };

const invalid = (code: Extract<SealVerdict, { type: 'invalid' }>['code'], reason: string): SealVerdict => ({
  type: 'invalid',
  code,
  reason,
});

/** Cheap checks first; the signature last. */
export function verifySeal(header: Header, context: SlotContext): SealVerdict {
  const slot = slotOf(header);
  if (slot === undefined) return invalid('NO_SLOT', 'the header names no slot, or more than one');
  const parts = unseal(header);
  if (parts === undefined) return invalid('NO_SEAL', 'the last digest item is not an Aura seal');
  if (context.parentSlot !== undefined && slot <= context.parentSlot) {
    return invalid('SLOT_NOT_INCREASING', `slot ${slot} is not after the parent's slot ${context.parentSlot}`);
  }
  const author = authorOf(slot, context.authorities);
  if (author === undefined) return invalid('NO_AUTHORITIES', 'nobody may author');
  if (slotStart(slot, context.slotMs) > context.nowMs + MAX_AHEAD_MS) return { type: 'future', slot };
  const preHash = headerHash(context.hashing, parts.unsealed);
  if (!context.signatures.verifySr25519(parts.signature, preHash, author)) {
    return invalid('BAD_SEAL', `the seal is not by the author of slot ${slot}`);
  }
  return { type: 'valid', slot, author, preHash };
}

/** The signature that {@link verifySeal} will check of a header, as long as the authorities are these. */
export function sealSignature(
  header: Header,
  authorities: readonly Uint8Array[],
  hashing: Pick<Hashing, 'blake2_256'>,
): { readonly signature: Uint8Array; readonly message: Hash; readonly signer: Uint8Array } | undefined {
  const slot = slotOf(header);
  const parts = unseal(header);
  const signer = slot === undefined ? undefined : authorOf(slot, authorities);
  if (parts === undefined || signer === undefined) return undefined;
  return { signature: parts.signature, message: headerHash(hashing, parts.unsealed), signer };
}
