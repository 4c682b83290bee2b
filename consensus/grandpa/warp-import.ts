/** What warp sync does with the node's chain: a whole state comes in, the chain leaps to it, and the past is filled in later. */
import type { BlockRef, ImportResult } from '../../node/ports/chain.ts';
import type { Block } from '../../runtime/primitives/header.ts';
import type { AuthoritySet } from './authorities.ts';
import type { WarpFragment } from './warp.ts';

/** The whole state of a final block on its way in. Memory holds one piece of it, however large it is. */
export interface IncomingState {
  readonly entries: number;
  /** The last key taken in. */
  readonly last: Uint8Array | undefined;
  /** Entries with keys above those before, in ascending order. */
  add(entries: readonly (readonly [key: Uint8Array, value: Uint8Array])[]): Promise<void>;
  /** Goes from the genesis block to the last block of a verified warp proof, whose state this is. */
  leap(set: AuthoritySet, fragments: readonly WarpFragment[]): Promise<ImportResult>;
}

/** What warp sync does with the chain. */
export interface WarpImport {
  receiveState(): IncomingState;
  /** The highest block whose body is not here because it was leapt over; undefined when there is none. */
  missing(): BlockRef | undefined;
  /** Takes in blocks that were leapt over, the highest first, from {@link missing} on. Each must be the parent of the one before. */
  fill(blocks: readonly Block[]): Promise<ImportResult>;
}
