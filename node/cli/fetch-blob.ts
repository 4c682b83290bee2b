/** A published file from a node's blob store, checked by its name: whoever serves it need not be trusted. */
import type { Hashing } from '../../runtime/host.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { BlobError } from '../blobs/blob-store.ts';

/** `node`: `ws://…` of its JSON-RPC, whose port serves blobs too. Rejects with a BlobError. */
export async function fetchBlob(node: string, hash: Hash, hashing: Hashing): Promise<Uint8Array> {
  const base = node.replace(/^ws/, 'http').replace(/\/$/, '');
  const response = await fetch(`${base}/blobs/${toHex(hash)}`);
  if (!response.ok) throw new BlobError('NOT_FOUND', `the node does not serve ${toHex(hash)}`);
  const bytes = new Uint8Array(await response.arrayBuffer());
  if (!equalBytes(hashing.blake2_256(bytes), hash)) {
    throw new BlobError('WRONG_HASH', `what the node serves as ${toHex(hash)} is something else`);
  }
  return bytes;
}
