/** What can be known of a block before it is executed. */
import { slotAt, slotOf } from '../../consensus/aura/slots.ts';
import { MAX_AHEAD_MS, verifySeal } from '../../consensus/aura/verify.ts';
import type { BlockRef, Blocks } from '../../node/ports/chain.ts';
import type { Clock } from '../../node/ports/machine.ts';
import type { Hashing, Signatures } from '../../runtime/host.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import type { BlockCheck } from './block-news.ts';

export interface BlockCheckPorts {
  readonly blocks: Blocks;
  /** Undefined when the state is not here. */
  readonly authorities: (parent: BlockRef) => readonly Uint8Array[] | undefined;
  readonly extrinsicsRoot: (extrinsics: readonly Uint8Array[]) => Uint8Array;
  readonly slotMs: number;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly signatures: Pick<Signatures, 'verifySr25519'>;
  readonly clock: Clock;
}

export function blockCheck(ports: BlockCheckPorts): BlockCheck {
  const { blocks, authorities, extrinsicsRoot, slotMs, hashing, signatures, clock } = ports;
  return (header, extrinsics) => {
    const parent = blocks.header(header.parentHash);
    if (parent === undefined) return 'unknown';
    if (header.number !== parent.number + 1) return 'bad';
    const known = authorities({ hash: header.parentHash, number: parent.number });
    if (known === undefined) return 'unknown';
    const nowMs = clock.now();
    const context = { authorities: known, parentSlot: slotOf(parent), slotMs, nowMs, hashing, signatures };
    const verdict = verifySeal(header, context);
    if (verdict.type !== 'valid') return verdict.type === 'future' ? 'future' : 'bad';
    if (extrinsics === undefined) return 'good';
    return equalBytes(extrinsicsRoot(extrinsics), header.extrinsicsRoot) ? 'good' : 'bad';
  };
}

/**
 * The height that no chain can be above by now, since each block takes a slot of its own and none reverts what is final here.
 * Infinite below the first block, which is the one that says when the chain began.
 */
export function highestPossible({
  blocks,
  slotMs,
  clock,
}: Pick<BlockCheckPorts, 'blocks' | 'slotMs' | 'clock'>): number {
  const { finalized } = blocks.info();
  const header = blocks.header(finalized.hash);
  const slot = header === undefined ? undefined : slotOf(header);
  if (slot === undefined) return Number.POSITIVE_INFINITY;
  return finalized.number + Math.max(0, slotAt(clock.now() + MAX_AHEAD_MS, slotMs) - slot);
}
