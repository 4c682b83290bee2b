/** What sync has to get, how it is asked for, and whether an answer is one. */
import type { BlockRef } from '../../node/ports/chain.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import type { PeerId } from '../host/peer-scores.ts';
import type { BlockData, BlockRequest } from '../protocols/sync.ts';

export const MAX_ANCESTORS = 128;

const ALL = { header: true, body: true, justifications: true };
const HEADER_ONLY = { header: true, body: false, justifications: false };
const PROOFS = { header: true, body: false, justifications: true };

export interface Range {
  readonly start: number;
  readonly count: number;
  state: 'wanted' | 'asked' | 'ready' | 'importing';
  peer: PeerId | undefined;
  /** When it was last asked for. */
  askedAt: number;
  blocks: readonly BlockData[];
}

export interface Wanted {
  readonly block: BlockRef;
  readonly peers: Set<PeerId>;
  asked: boolean;
  /** How many ancestors to ask for along with it. */
  depth: number;
  readonly since: number;
}

export type Task =
  | { readonly type: 'probe'; readonly number: number }
  | { readonly type: 'range'; readonly range: Range }
  | { readonly type: 'block'; readonly key: string; readonly wanted: Wanted }
  | { readonly type: 'proofs'; readonly from: number };

export function requestOf(task: Task): BlockRequest {
  switch (task.type) {
    case 'probe':
      return { fields: HEADER_ONLY, from: { type: 'number', number: task.number }, direction: 'ascending', max: 1 };
    case 'range': {
      const { start, count } = task.range;
      return { fields: ALL, from: { type: 'number', number: start }, direction: 'ascending', max: count };
    }
    case 'block': {
      const { block, depth } = task.wanted;
      return { fields: ALL, from: { type: 'hash', hash: block.hash }, direction: 'descending', max: depth };
    }
    case 'proofs':
      return {
        fields: PROOFS,
        from: { type: 'number', number: task.from },
        direction: 'ascending',
        max: MAX_ANCESTORS,
      };
  }
}

/** Why the blocks are not an answer to the request; undefined when they are one, be it a short or empty one. */
export function flawOf(
  blocks: readonly BlockData[],
  { from, direction, fields, max }: BlockRequest,
): string | undefined {
  const first = blocks[0];
  if (first === undefined) return undefined;
  if (blocks.length > max) return 'more blocks than asked for';
  if (from.type === 'hash' && !equalBytes(first.hash, from.hash)) return 'another block than asked for';
  if (from.type === 'number' && first.header?.number !== from.number) return 'another height than asked for';
  for (const [i, { header, body }] of blocks.entries()) {
    if (header === undefined) return 'a block without its header';
    if (fields.body && body === undefined) return 'a block without its body';
    const before = blocks[i - 1];
    if (before === undefined) continue;
    const [parent, child] = direction === 'ascending' ? [before, blocks[i]!] : [blocks[i]!, before];
    if (!equalBytes(child.header!.parentHash, parent.hash)) return 'blocks that do not follow each other';
    if (child.header!.number !== parent.header!.number + 1) return 'heights that do not follow each other';
  }
  return undefined;
}
