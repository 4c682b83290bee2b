/** Whether a file is the batch of records that its manifest says: read once as it streams, without keeping its lines. */

import type { Blake } from '../../runtime/primitives/attribution/canonical.ts';
import { MAX_RECORD_BYTES } from '../../runtime/primitives/attribution/limits.ts';
import { GrowingTree, leafHash } from '../../runtime/primitives/attribution/merkle.ts';
import { type BatchManifest, bindRoot } from '../../runtime/primitives/attribution/records.ts';
import { concatBytes, equalBytes } from '../../runtime/primitives/bytes.ts';

const LINE_FEED = 10;
/** Lines that are hashed before others get their turn on this thread. */
const SLICE = 2_000;

/**
 * Whether root and number of records are those of the file. A line longer than a record may be is refused as well: no
 * dispute could ever show it. Whether lines are records at all is left to disputes, which cost their contributor.
 */
export async function holdsBatch(
  hashing: Blake,
  { contributor, root, records }: Pick<BatchManifest, 'contributor' | 'root' | 'records'>,
  file: AsyncIterable<Uint8Array>,
): Promise<boolean> {
  const tree = new GrowingTree(hashing, 'records');
  let rest: Uint8Array = new Uint8Array(0);
  for await (const part of file) {
    let start = 0;
    for (let end = part.indexOf(LINE_FEED); end >= 0; end = part.indexOf(LINE_FEED, start)) {
      const line = concatBytes(rest, part.subarray(start, end));
      if (line.length > MAX_RECORD_BYTES || tree.count === records) return false;
      tree.push(leafHash(hashing, 'records', line));
      rest = new Uint8Array(0);
      start = end + 1;
      if (tree.count % SLICE === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    rest = concatBytes(rest, part.subarray(start));
    if (rest.length > MAX_RECORD_BYTES) return false;
  }
  if (rest.length > 0 || tree.count !== records) return false;
  return equalBytes(bindRoot(hashing, contributor, tree.root()), root);
}
