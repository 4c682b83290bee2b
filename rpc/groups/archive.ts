/** `archive_v1`: any block that this node has, finalized or not. */
import type { StateView } from '../../node/ports/chain.ts';
import { RuntimeCallError } from '../../node/ports/chain.ts';
import type { Hashing } from '../../runtime/host.ts';
import { compareBytes, equalBytes, startsWith } from '../../runtime/primitives/bytes.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { RpcError, toRpcError } from '../server/errors.ts';
import { hexOf } from '../server/hex.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { hash, hex, list, object, oneOf, optional, text, u32 } from '../server/params.ts';
import type { Subscription } from '../server/subscription.ts';
import { stream as inParts, type Operation } from './chain-head/operations.ts';
import type { ChainView } from './chain-view.ts';
import { storageItems, storageQuery } from './storage-query.ts';

interface ArchiveContext {
  readonly view: ChainView;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
}

const { method, subscription } = definitions<ArchiveContext>();

const MAX_QUERIES = 1_024;
const EMPTY = new Uint8Array(0);

interface DiffQuery {
  readonly key?: Uint8Array | undefined;
  readonly returnType: 'value' | 'hash';
  readonly childTrieKey?: Uint8Array | undefined;
}
const diffQuery = object('items', {
  key: optional(hex('key')),
  returnType: oneOf('returnType', ['value', 'hash']),
  childTrieKey: optional(hex('childTrieKey')),
});
const EVERYTHING: readonly DiffQuery[] = [{ returnType: 'value' }];
const notAncestor = (): RpcError => new RpcError(4003, 'the block of previousHash is no ancestor of the block');

/** Whether `block` descends from `ancestor`. A canonical block of its height is asked for before headers are walked. */
function isAncestor({ client: { blocks } }: ChainView, ancestor: Hash, block: Hash): boolean {
  const height = blocks.header(ancestor)?.number;
  if (height === undefined) return false;
  let at = block;
  for (let header = blocks.header(at); header !== undefined && header.number > height; header = blocks.header(at)) {
    if (blocks.isFinalized(at)) return blocks.isFinalized(ancestor);
    at = asHash(header.parentHash);
  }
  return equalBytes(at, ancestor);
}

/** Keys of either state under one prefix, in order, with both values. */
function* walk(
  before: StateView,
  after: StateView,
  prefix: Uint8Array,
): Generator<readonly [key: Uint8Array, before: Uint8Array | undefined, after: Uint8Array | undefined]> {
  const under = (key: Uint8Array | undefined) => (key !== undefined && startsWith(key, prefix) ? key : undefined);
  yield [prefix, before.get(prefix), after.get(prefix)];
  let a = under(before.nextKey(prefix));
  let b = under(after.nextKey(prefix));
  while (a !== undefined || b !== undefined) {
    const order = a === undefined ? 1 : b === undefined ? -1 : compareBytes(a, b);
    const key = (order <= 0 ? a : b) as Uint8Array;
    yield [key, order <= 0 ? before.get(key) : undefined, order >= 0 ? after.get(key) : undefined];
    if (order <= 0) a = under(before.nextKey(key));
    if (order >= 0) b = under(after.nextKey(key));
  }
}

function* differences(
  hashing: Pick<Hashing, 'blake2_256'>,
  before: StateView,
  after: StateView,
  queries: readonly DiffQuery[],
): Generator<Record<string, unknown> | undefined> {
  for (const { key: prefix = EMPTY, returnType, childTrieKey } of queries) {
    // This chain has no child tries, so nothing changes in them.
    if (childTrieKey !== undefined) continue;
    for (const [key, old, now] of walk(before, after, prefix)) {
      if (old === now || (old !== undefined && now !== undefined && equalBytes(old, now))) {
        yield undefined;
        continue;
      }
      const type = old === undefined ? 'added' : now === undefined ? 'deleted' : 'modified';
      // Of what is deleted, the value that it had.
      const value = (now ?? old) as Uint8Array;
      const shown = { [returnType]: hexOf(returnType === 'hash' ? hashing.blake2_256(value) : value) };
      yield { event: 'storageDiff', key: hexOf(key), ...shown, type };
    }
  }
}

/** Sends events one by one; archives have no way of asking for more. */
function send(
  stream: Subscription,
  done: string,
  failed: string,
  items: () => Iterable<Record<string, unknown> | undefined>,
): () => void {
  const operation: Operation = { id: stream.id, stopped: false, proceed: undefined };
  const work = async (): Promise<void> => {
    try {
      const whole = await inParts(items(), operation, {
        items: (found) => {
          for (const each of found) stream.notify(each);
        },
        waiting: () => setImmediate(() => operation.proceed?.()),
      });
      if (whole) stream.notify({ event: done });
    } catch (problem) {
      if (!operation.stopped) stream.notify({ event: failed, error: toRpcError(problem)?.message ?? 'Internal error' });
    }
    stream.close();
  };
  setImmediate(() => void work());
  return () => {
    operation.stopped = true;
    operation.proceed?.();
  };
}

const methods = [
  method('archive_v1_finalizedHeight', [], ({ view }) => view.client.blocks.info().finalized.number),
  method('archive_v1_genesisHash', [], ({ view }) => view.client.blocks.info().genesisHash),
  method('archive_v1_hashByHeight', [u32('height')], ({ view }, [height]) =>
    view.client.blocks.hashesAt(height).map(hexOf),
  ),
  method('archive_v1_header', [hash('hash')], ({ view }, [block]) => view.encodedHeader(block)),
  method('archive_v1_body', [hash('hash')], ({ view }, [block]) => view.body(block)),
  method(
    'archive_v1_call',
    [hash('hash'), text('function', 256), hex('callParameters')],
    ({ view }, [block, name, parameters]) => {
      try {
        return { success: true, value: hexOf(view.call(block, name, parameters)) };
      } catch (problem) {
        if (!(problem instanceof RuntimeCallError)) throw problem;
        if (problem.code === 'UNKNOWN_BLOCK') return null;
        return { success: false, error: problem.message };
      }
    },
  ),
  subscription(
    'archive_v1_storage',
    { unsubscribe: 'archive_v1_stopStorage', notification: 'archive_v1_storageEvent', end: 'nothing' },
    [hash('hash'), list(storageQuery, MAX_QUERIES), optional(hex('childTrie'))],
    ({ view, hashing }, [block, queries, childTrie], stream) =>
      send(stream, 'storageDone', 'storageError', function* () {
        const state = view.state(block);
        if (childTrie !== undefined) return;
        for (const item of storageItems({ states: view.client.states, hashing }, block, state, queries)) {
          yield item && { event: 'storage', ...item };
        }
      }),
  ),
  subscription(
    'archive_v1_storageDiff',
    {
      unsubscribe: 'archive_v1_stopStorageDiff',
      // Substrate calls it so, whatever the specification says.
      unsubscribeAliases: ['archive_v1_storageDiff_stopStorageDiff'],
      notification: 'archive_v1_storageDiffEvent',
      end: 'nothing',
    },
    [hash('hash'), optional(list(diffQuery, MAX_QUERIES)), optional(hash('previousHash'))],
    ({ view, hashing }, [block, queries, previous], stream) =>
      send(stream, 'storageDiffDone', 'storageDiffError', function* () {
        const after = view.state(block);
        const parent = asHash(view.client.blocks.header(block)!.parentHash);
        const base = previous ?? parent;
        if (previous !== undefined && !isAncestor(view, previous, block)) throw notAncestor();
        const wanted = queries === undefined || queries.length === 0 ? EVERYTHING : queries;
        yield* differences(hashing, view.state(base), after, wanted);
      }),
  ),
];

export const archiveGroup = (context: ArchiveContext): Group => group(context, methods);
