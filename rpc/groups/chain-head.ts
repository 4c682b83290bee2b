/** `chainHead_v1`: the chain from its finalized block on, with blocks pinned for as long as they are looked at. */
import type { Hashing } from '../../runtime/host.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { RpcError, toRpcError } from '../server/errors.ts';
import { hexOf } from '../server/hex.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { either, flag, hash, hex, list, optional, text } from '../server/params.ts';
import type { Session } from '../server/session.ts';
import { Follower } from './chain-head/follower.ts';
import { type Operation, stream } from './chain-head/operations.ts';
import type { ChainView } from './chain-view.ts';
import { storageItems, storageQuery } from './storage-query.ts';

interface ChainHeadContext {
  readonly view: ChainView;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly followers: WeakMap<Session, Map<string, Follower>>;
}

const { method, subscription } = definitions<ChainHeadContext>();

const MAX_FOLLOWERS = 8;
const LIMITS = { settled: 1_024, pinned: 16_384, operations: 64 };
const MAX_QUERIES = 1_024;
const MAX_UNPIN = 4_096;

const tooManyFollowers = (): RpcError => new RpcError(-32800, 'Maximum number of chainHead_follow has been reached');
const notPinned = (): RpcError => new RpcError(-32801, 'Invalid block hash');
const notWaiting = (): RpcError =>
  new RpcError(-32803, 'Wait for continue event was not generated for the subscription');
const noRuntime = (): RpcError =>
  new RpcError(-32802, 'The chainHead_follow subscription was not initiated with withRuntime equal to true');
const duplicateHashes = (): RpcError => new RpcError(-32804, 'Received duplicate hashes for `chainHead_unpin` method');

const LIMIT_REACHED = { result: 'limitReached' };
const follow = text('followSubscription', 64);

const followerOf = ({ followers }: ChainHeadContext, session: Session, id: string): Follower | undefined =>
  followers.get(session)?.get(id);

/** Begins `run` after the answer has gone out. Whatever it throws is told as the operation's error. */
function begin(
  follower: Follower | undefined,
  block: Hash,
  run: (operation: Operation, follower: Follower) => void | Promise<void>,
  extra: Readonly<Record<string, unknown>> = {},
): unknown {
  // A follower that is gone has no more operations either; the specification wants it answered so.
  if (follower === undefined) return LIMIT_REACHED;
  if (!follower.isPinned(block)) throw notPinned();
  const operation = follower.operations.start();
  if (operation === undefined) return LIMIT_REACHED;
  setImmediate(async () => {
    if (operation.stopped) return;
    try {
      await run(operation, follower);
    } catch (problem) {
      const error = toRpcError(problem)?.message ?? 'Internal error';
      if (!operation.stopped) follower.tell({ event: 'operationError', operationId: operation.id, error });
    } finally {
      follower.operations.finish(operation);
    }
  });
  return { result: 'started', operationId: operation.id, ...extra };
}

const inaccessible = ({ id }: Operation) => ({ event: 'operationInaccessible', operationId: id });

const methods = [
  subscription(
    'chainHead_v1_follow',
    { unsubscribe: 'chainHead_v1_unfollow', notification: 'chainHead_v1_followEvent', end: 'nothing' },
    [flag('withRuntime')],
    ({ view, followers }, [withRuntime], follow, session) => {
      const own = followers.get(session) ?? new Map<string, Follower>();
      if (own.size >= MAX_FOLLOWERS) throw tooManyFollowers();
      const follower = new Follower(view, follow, withRuntime, { ...LIMITS, share: session.portions?.pinned });
      follower.begin();
      own.set(follow.id, follower);
      followers.set(session, own);
      const unsubscribe = view.follow((event) => follower.on(event));
      return () => {
        unsubscribe();
        follower.end();
        own.delete(follow.id);
      };
    },
  ),
  method(
    'chainHead_v1_header',
    [follow, hash('hash')],
    (context, [id, block], session) => {
      const follower = followerOf(context, session, id);
      if (follower === undefined) return null;
      if (!follower.isPinned(block)) throw notPinned();
      return context.view.encodedHeader(block);
    },
    { connected: true },
  ),
  method(
    'chainHead_v1_body',
    [follow, hash('hash')],
    (context, [id, block], session) =>
      begin(followerOf(context, session, id), block, async (operation, follower) => {
        await session.read();
        await session.turn(() => {
          const value = context.view.body(block);
          const done = { event: 'operationBodyDone', operationId: operation.id, value };
          if (!operation.stopped) follower.tell(value === undefined ? inaccessible(operation) : done);
        });
      }),
    { connected: true },
  ),
  method(
    'chainHead_v1_call',
    [follow, hash('hash'), text('function', 256), hex('callParameters')],
    (context, [id, block, name, parameters], session) => {
      const found = followerOf(context, session, id);
      if (found?.withRuntime === false) throw noRuntime();
      return begin(found, block, async (operation, follower) => {
        const output = hexOf(await context.view.call(session, block, name, parameters));
        if (!operation.stopped) follower.tell({ event: 'operationCallDone', operationId: operation.id, output });
      });
    },
    { connected: true },
  ),
  method(
    'chainHead_v1_storage',
    [follow, hash('hash'), list(storageQuery, MAX_QUERIES), optional(hex('childTrie'))],
    (context, [id, block, queries, childTrie], session) =>
      begin(
        followerOf(context, session, id),
        block,
        async (operation, follower) => {
          const operationId = operation.id;
          const { view, hashing } = context;
          const { states } = view.client;
          const state = states.at(block);
          if (state === undefined) {
            follower.tell(inaccessible(operation));
            return;
          }
          // This chain has no child tries, so nothing is in them.
          const source = { states, reads: view.reads(session), hashing };
          const items = childTrie === undefined ? storageItems(source, block, state, queries) : [];
          const whole = await stream(session, items, operation, {
            items: (found) => follower.tell({ event: 'operationStorageItems', operationId, items: found }),
            waiting: () => follower.tell({ event: 'operationWaitingForContinue', operationId }),
          });
          if (whole) follower.tell({ event: 'operationStorageDone', operationId });
        },
        { discardedItems: 0 },
      ),
    { connected: true },
  ),
  method(
    'chainHead_v1_continue',
    [follow, text('operationId', 64)],
    (context, [id, operationId], session) => {
      const follower = followerOf(context, session, id);
      if (follower !== undefined && !follower.operations.proceed(operationId)) throw notWaiting();
      return null;
    },
    { connected: true },
  ),
  method(
    'chainHead_v1_stopOperation',
    [follow, text('operationId', 64)],
    (context, [id, operationId], session) => {
      followerOf(context, session, id)?.operations.stop(operationId);
      return null;
    },
    { connected: true },
  ),
  method(
    'chainHead_v1_unpin',
    [follow, either(list(hash('hashOrHashes'), MAX_UNPIN), hash('hashOrHashes'))],
    (context, [id, given], session) => {
      const hashes: readonly Hash[] = given instanceof Uint8Array ? [given] : given;
      if (new Set(hashes.map((each) => Buffer.from(each).toString('latin1'))).size < hashes.length) {
        throw duplicateHashes();
      }
      const follower = followerOf(context, session, id);
      if (follower !== undefined && !follower.unpin(hashes)) throw notPinned();
      return null;
    },
    { connected: true },
  ),
];

export const chainHeadGroup = (context: Omit<ChainHeadContext, 'followers'>): Group =>
  group({ ...context, followers: new WeakMap() }, methods);
