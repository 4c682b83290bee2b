/** Aura's state: who authors in which slot, and how that is handed over. Sessions and authorship build on it. */
import type { Env } from '../../../framework/pallet.ts';
import { optionalValue, storage, value } from '../../../framework/storage.ts';
import type { Host } from '../../../host.ts';
import { equalBytes } from '../../../primitives/bytes.ts';
import { AURA_ENGINE } from '../../../primitives/header.ts';
import { InvalidBlock } from '../../../primitives/invalid-block.ts';
import { decode, encode, fixedBytes, named, u64, variants, vec } from '../../../primitives/scale/codec.ts';
import { ScaleError } from '../../../primitives/scale/io.ts';
import * as system from '../system.ts';

export const authorityId = named('sp_consensus_aura::sr25519::app_sr25519::Public', fixedBytes(32));
export const slot = named('sp_consensus_slots::Slot', u64);
/** Also `SlotDuration` of the API, in milliseconds. */
export const slotDurationType = named('sp_consensus_slots::SlotDuration', u64);
const consensusLog = variants({ AuthoritiesChange: [1, vec(authorityId)], OnDisabled: [2, u64] });

export const DEFAULT_SLOT_DURATION_MS = 3_000n;

export const store = storage('Aura', {
  Authorities: value(vec(authorityId), [], 'The current authority set.'),
  CurrentSlot: value(slot, 0n, 'The current slot of this block.'),
  SlotDuration: optionalValue(slotDurationType, 'Milliseconds of a slot, set by the chain spec for good.'),
});

export const slotDuration = (host: Host): bigint => store.SlotDuration.get(host) ?? DEFAULT_SLOT_DURATION_MS;
export const currentSlot = (host: Host): bigint => store.CurrentSlot.get(host);
export const authorities = (host: Host): readonly Uint8Array[] => store.Authorities.get(host);
/** Position among the authorities of the one that may author in the current slot. */
export const authorIndex = (host: Host): number | undefined => {
  const count = authorities(host).length;
  return count === 0 ? undefined : Number(currentSlot(host) % BigInt(count));
};

/** The slot that the block claims. Throws {@link InvalidBlock}. */
export function preDigestSlot(host: Host): bigint {
  for (const item of system.blockDigest(host).logs) {
    if (item.type !== 'PreRuntime' || !equalBytes(item.value[0], AURA_ENGINE)) continue;
    try {
      return decode(u64, item.value[1]);
    } catch (problem) {
      if (problem instanceof ScaleError)
        throw new InvalidBlock('BAD_PRE_DIGEST', 'the slot in the digest is malformed');
      throw problem;
    }
  }
  throw new InvalidBlock('BAD_PRE_DIGEST', 'the digest names no slot');
}

/** Hands authoring over to another set from the next block on; nothing happens if it is the same. */
export function changeAuthorities({ host }: Env, next: readonly Uint8Array[]): void {
  const set = vec(authorityId);
  const current = encode(set, [...authorities(host)]);
  if (next.length === 0 || equalBytes(current, encode(set, [...next]))) return;
  store.Authorities.put(host, [...next]);
  const log = encode(consensusLog, { type: 'AuthoritiesChange', value: [...next] });
  system.depositLog(host, { type: 'Consensus', value: [AURA_ENGINE, log] });
}

/** The authorities of the first blocks. */
export const beginWith = (host: Host, first: readonly Uint8Array[]): void => store.Authorities.put(host, [...first]);
