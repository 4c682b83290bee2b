/** Storage queries of the new JSON-RPC specification, which `chainHead` and `archive` share. */
import type { StatePage, States, StateView } from '../../node/ports/chain.ts';
import type { Hashing } from '../../runtime/host.ts';
import { startsWith } from '../../runtime/primitives/bytes.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { invalidParams } from '../server/errors.ts';
import { hexOf } from '../server/hex.ts';
import { hex, object, oneOf, optional, type Param } from '../server/params.ts';
import type { Reads } from './chain-view.ts';

export const QUERY_TYPES = [
  'value',
  'hash',
  'closestDescendantMerkleValue',
  'descendantsValues',
  'descendantsHashes',
] as const;

const queryFields = object('items', {
  key: hex('key'),
  type: oneOf('type', QUERY_TYPES),
  paginationStartKey: optional(hex('paginationStartKey')),
});

export const storageQuery: Param<StorageQuery> = {
  name: 'items',
  parse(value) {
    const query = queryFields.parse(value);
    if (query.paginationStartKey !== undefined && !query.type.startsWith('descendants')) {
      throw invalidParams('paginationStartKey: only for descendants');
    }
    return query;
  },
};

export interface StorageQuery {
  readonly key: Uint8Array;
  readonly type: (typeof QUERY_TYPES)[number];
  /** Descendants up to this key are left out. */
  readonly paginationStartKey?: Uint8Array | undefined;
}

export type StorageItem = {
  readonly key: string;
  readonly value?: string;
  readonly hash?: string;
  readonly closestDescendantMerkleValue?: string;
};

/** Keys of one page of descendants, and bytes of it about. */
const PAGE_KEYS = 256;
const PAGE_BYTES = 256 * 1024;

/**
 * The items found; what is not there has none. A step of the iteration is one read of the state, or a promise to be waited for
 * before the next step.
 */
export function* storageItems(
  source: { readonly states: States; readonly reads: Reads; readonly hashing: Pick<Hashing, 'blake2_256'> },
  block: Hash,
  state: StateView,
  queries: readonly StorageQuery[],
): Generator<StorageItem | undefined | Promise<void>> {
  const { states, reads, hashing } = source;
  const shown = (key: Uint8Array, value: Uint8Array, hashed: boolean): StorageItem =>
    hashed ? { key: hexOf(key), hash: hexOf(hashing.blake2_256(value)) } : { key: hexOf(key), value: hexOf(value) };
  for (const { key, type, paginationStartKey } of queries) {
    if (type === 'closestDescendantMerkleValue') {
      const found = states.closestDescendantMerkleValue(block, key);
      yield found && { key: hexOf(key), closestDescendantMerkleValue: hexOf(found) };
      continue;
    }
    const hashed = type === 'hash' || type === 'descendantsHashes';
    const own = paginationStartKey === undefined ? state.get(key) : undefined;
    yield own && shown(key, own, hashed);
    if (type === 'value' || type === 'hash') continue;
    let after = paginationStartKey !== undefined && startsWith(paginationStartKey, key) ? paginationStartKey : key;
    for (let more = true; more; ) {
      let entries: StatePage['entries'] = [];
      const query = { prefix: key, after, count: PAGE_KEYS, values: true };
      yield reads.page(block, query, PAGE_BYTES).then((page) => {
        entries = page.entries;
        more = page.more;
      });
      for (const [each, value] of entries) yield shown(each, value, hashed);
      after = entries.at(-1)?.[0] ?? after;
    }
  }
}
