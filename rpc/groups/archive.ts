/** `archive_v1`: any block that this node has, finalized or not. */
import { ReadError, RuntimeCallError } from '../../node/ports/chain.ts';
import type { Hashing } from '../../runtime/host.ts';
import { compareBytes, equalBytes } from '../../runtime/primitives/bytes.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { RpcError, toRpcError } from '../server/errors.ts';
import { hexOf } from '../server/hex.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { hash, hex, list, object, oneOf, optional, text, u32 } from '../server/params.ts';
import type { Session } from '../server/session.ts';
import type { Subscription } from '../server/subscription.ts';
import { stream as inParts, type Operation } from './chain-head/operations.ts';
import type { ChainView, Reads } from './chain-view.ts';
import { storageItems, storageQuery } from './storage-query.ts';

interface ArchiveContext {
  readonly view: ChainView;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
}

const { method, subscription } = definitions<ArchiveContext>();

const MAX_QUERIES = 1_024;
/** Keys of one page of a state that is compared, and bytes of it about. */
const PAGE_KEYS = 256;
const PAGE_BYTES = 256 * 1024;
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

type Entry = readonly [key: Uint8Array, value: Uint8Array];

/** Entries of one state under a prefix, in order, read page by page. */
class Entries {
  readonly #reads: Reads;
  readonly #block: Hash;
  readonly #prefix: Uint8Array;
  #page: readonly Entry[] = [];
  #at = 0;
  #last: Uint8Array | undefined;
  #more = true;

  constructor(reads: Reads, block: Hash, prefix: Uint8Array) {
    this.#reads = reads;
    this.#block = block;
    this.#prefix = prefix;
  }

  /** To be waited for before {@link next}; undefined when that is known. */
  load(): Promise<void> | undefined {
    if (this.#at < this.#page.length || !this.#more) return undefined;
    const query = { prefix: this.#prefix, after: this.#last, count: PAGE_KEYS, values: true };
    return this.#reads.page(this.#block, query, PAGE_BYTES).then(({ entries, more }) => {
      this.#page = entries;
      this.#at = 0;
      this.#more = more;
      this.#last = entries.at(-1)?.[0] ?? this.#last;
    });
  }

  get next(): Entry | undefined {
    return this.#page[this.#at];
  }

  skip(): void {
    this.#at++;
  }
}

/** A step is one key of either state, or a promise to be waited for before the next one. */
function* differences(
  hashing: Pick<Hashing, 'blake2_256'>,
  reads: Reads,
  [before, after]: readonly [Hash, Hash],
  queries: readonly DiffQuery[],
): Generator<Record<string, unknown> | undefined | Promise<void>> {
  for (const { key: prefix = EMPTY, returnType, childTrieKey } of queries) {
    // This chain has no child tries, so nothing changes in them.
    if (childTrieKey !== undefined) continue;
    const [from, to] = [new Entries(reads, before, prefix), new Entries(reads, after, prefix)];
    for (;;) {
      for (const each of [from, to]) {
        const loading = each.load();
        if (loading !== undefined) yield loading;
      }
      const [a, b] = [from.next, to.next];
      if (a === undefined && b === undefined) break;
      const order = a === undefined ? 1 : b === undefined ? -1 : compareBytes(a[0], b[0]);
      const [key] = (order <= 0 ? a : b) as Entry;
      const old = order <= 0 ? a?.[1] : undefined;
      const now = order >= 0 ? b?.[1] : undefined;
      if (order <= 0) from.skip();
      if (order >= 0) to.skip();
      if (old !== undefined && now !== undefined && equalBytes(old, now)) {
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

/** Sends events one by one, as the caller reads them. */
function send(
  session: Session,
  stream: Subscription,
  done: string,
  failed: string,
  items: () => Iterable<Record<string, unknown> | undefined | Promise<void>>,
): () => void {
  const operation: Operation = { id: stream.id, stopped: false, proceed: undefined };
  const work = async (): Promise<void> => {
    try {
      const whole = await inParts(session, items(), operation, {
        items: (found) => {
          for (const each of found) stream.notify(each);
        },
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
    async ({ view }, [block, name, parameters], session) => {
      try {
        return { success: true, value: hexOf(await view.call(session, block, name, parameters)) };
      } catch (problem) {
        if (problem instanceof ReadError && problem.code === 'UNKNOWN_BLOCK') return null;
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
    ({ view, hashing }, [block, queries, childTrie], stream, session) =>
      send(session, stream, 'storageDone', 'storageError', function* () {
        const state = view.state(block);
        if (childTrie !== undefined) return;
        const source = { states: view.client.states, reads: view.reads(session), hashing };
        for (const item of storageItems(source, block, state, queries)) {
          yield item instanceof Promise ? item : item && { event: 'storage', ...item };
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
    ({ view, hashing }, [block, queries, previous], stream, session) =>
      send(session, stream, 'storageDiffDone', 'storageDiffError', function* () {
        view.state(block);
        const parent = asHash(view.client.blocks.header(block)!.parentHash);
        const base = previous ?? parent;
        if (previous !== undefined && !isAncestor(view, previous, block)) throw notAncestor();
        const wanted = queries === undefined || queries.length === 0 ? EVERYTHING : queries;
        view.state(base);
        yield* differences(hashing, view.reads(session), [base, block], wanted);
      }),
  ),
];

export const archiveGroup = (context: ArchiveContext): Group => group(context, methods);
