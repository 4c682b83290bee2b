/** Answers `sync/2` from the blocks of this node. */
import type { Blocks } from '../../node/ports/chain.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { decodeBlockRequest, encodeBlockData, encodeBlockResponse } from '../protocols/sync.ts';

const MAX_BLOCKS = 128;
/** Stops after the block that crosses it; the one above it is asked for next. */
const MAX_BYTES = 2 * 1024 * 1024;

/** Throws a `NetworkError` or `ScaleError` when the request is no request. An unknown start gives an empty answer. */
export function answerBlockRequest(blocks: Blocks, bytes: Uint8Array): Uint8Array {
  const { fields, from, direction, max } = decodeBlockRequest(bytes);
  const limit = max === 0 ? MAX_BLOCKS : Math.min(max, MAX_BLOCKS);
  const found: Uint8Array[] = [];
  let size = 0;
  let hash: Hash | undefined = from.type === 'hash' ? from.hash : blocks.hashOf(from.number);
  while (hash !== undefined && found.length < limit && size < MAX_BYTES) {
    const header = blocks.header(hash);
    if (header === undefined) break;
    const body = fields.body ? blocks.body(hash) : undefined;
    if (fields.body && body === undefined) break;
    const data = encodeBlockData({
      hash,
      header: fields.header ? header : undefined,
      body,
      justifications: fields.justifications ? blocks.justifications(hash) : undefined,
    });
    found.push(data);
    size += data.length;
    if (direction === 'ascending') hash = childOnBest(blocks, hash, header.number);
    else hash = header.number === 0 ? undefined : header.parentHash;
  }
  return encodeBlockResponse(found);
}

/** Undefined above a block that the best chain leaves out. */
function childOnBest(blocks: Blocks, hash: Hash, number: number): Hash | undefined {
  const own = blocks.hashOf(number);
  return own !== undefined && equalBytes(own, hash) ? blocks.hashOf(number + 1) : undefined;
}
