/** Two blocks by one author in one slot. Fed with verified headers only. */
import { compareBytes, equalBytes } from '../../runtime/primitives/bytes.ts';
import { type Header, header } from '../../runtime/primitives/header.ts';
import { encode, fixedBytes, type Infer, struct, u64 } from '../../runtime/primitives/scale/codec.ts';
import { type Slot, unseal } from './slots.ts';

/** `sp_consensus_slots::EquivocationProof`. */
export const slotEquivocationProof = struct({
  offender: fixedBytes(32),
  slot: u64,
  firstHeader: header,
  secondHeader: header,
});
export type SlotEquivocation = Infer<typeof slotEquivocationProof>;

/** Slots that are remembered (Substrate: MAX_SLOT_CAPACITY), and slots after which the older ones are thrown away. */
const KEPT_SLOTS = 1_000;

/** A value: noting a header gives a new one. One header a slot is kept, since a slot has one author. */
export interface SeenSlots {
  readonly headers: ReadonlyMap<Slot, { readonly author: Uint8Array; readonly header: Header }>;
  readonly latest: Slot;
}

export const nothingSeen: SeenSlots = { headers: new Map(), latest: 0 };

function sameContents(a: Header, b: Header): boolean {
  const contents = (given: Header): Uint8Array => encode(header, unseal(given)?.unsealed ?? given);
  return compareBytes(contents(a), contents(b)) === 0;
}

export function noteHeader(
  seen: SeenSlots,
  slot: Slot,
  author: Uint8Array,
  sealed: Header,
): { readonly seen: SeenSlots; readonly equivocation: SlotEquivocation | undefined } {
  if (slot + KEPT_SLOTS <= seen.latest) return { seen, equivocation: undefined };
  const before = seen.headers.get(slot);
  if (before !== undefined) {
    // Signatures are random: one block may be sealed twice, and says the same both times.
    const harmless = !equalBytes(before.author, author) || sameContents(before.header, sealed);
    if (harmless) return { seen, equivocation: undefined };
    const equivocation = { offender: author, slot: BigInt(slot), firstHeader: before.header, secondHeader: sealed };
    return { seen, equivocation };
  }
  const latest = Math.max(seen.latest, slot);
  const headers = new Map(seen.headers);
  headers.set(slot, { author, header: sealed });
  if (headers.size > 2 * KEPT_SLOTS) {
    for (const each of headers.keys()) if (each + KEPT_SLOTS <= latest) headers.delete(each);
  }
  return { seen: { headers, latest }, equivocation: undefined };
}
