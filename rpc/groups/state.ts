/** `state_*`: what the chain knows, after any block whose state is there. */

import type { Hashing } from '../../runtime/host.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { Source } from '../../runtime/primitives/scale/io.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { invalidParams, RpcError, responseTooBig, tooManyKeys, unknownBlock, unsafeRefused } from '../server/errors.ts';
import { hexOf } from '../server/hex.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { hash, hex, list, optional, text, u32 } from '../server/params.ts';
import type { RawJson } from '../server/result.ts';
import type { Session } from '../server/session.ts';
import type { Subscription } from '../server/subscription.ts';
import { type ChainView, versionJson } from './chain-view.ts';
import { type Change, changeSet, StorageWatch, weightOf } from './storage-watch.ts';

interface StateContext {
  readonly view: ChainView;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly watch: StorageWatch;
}

const { method, subscription } = definitions<StateContext>();

const MAX_PAGE = 1_000;
const MAX_KEYS = 16_384;
const MAX_QUERIED_BLOCKS = 10_000;
const EMPTY = new Uint8Array(0);

const valueHex = (value: Uint8Array | undefined): string | null => (value === undefined ? null : hexOf(value));

/** All entries under a prefix, page by page. Throws when their text would be longer than an answer may be. */
async function entriesUnder(view: ChainView, session: Session, block: Hash, prefix: Uint8Array, values: boolean) {
  const out: (readonly [key: Uint8Array, value: Uint8Array])[] = [];
  const reads = view.reads(session);
  let characters = 0;
  let after: Uint8Array | undefined;
  for (let more = true; more; ) {
    const page = await reads.page(block, { prefix, after, count: MAX_PAGE, values });
    for (const entry of page.entries) {
      characters += 2 * (entry[0].length + entry[1].length) + 8;
      out.push(entry);
    }
    if (characters > session.maxResponse) throw responseTooBig(session.maxResponse);
    more = page.more;
    after = out.at(-1)?.[0];
  }
  return out;
}

/** Reads the keys' values, and follows them from there on. */
async function followKeys(
  { view, watch }: StateContext,
  keys: readonly Uint8Array[],
  stream: Subscription,
  session: Session,
): Promise<() => void> {
  const weight = weightOf(keys);
  const { watched } = session.portions ?? {};
  if (watched?.take(weight) === false) throw tooManyKeys();
  const reads = view.reads(session);
  /** What happens while the values of an earlier block are being read. */
  let waiting: (() => void)[] | undefined = [];
  const tell = (block: Hash, changes: readonly Change[]): void => {
    if (waiting !== undefined) {
      waiting.push(() => tell(block, changes));
      return;
    }
    stream.notify(changeSet(block, changes));
  };
  const readAll = async (block: Hash): Promise<void> => {
    const values = new Map<string, string | null>();
    const found = await reads.values(block, keys);
    for (const [at, key] of keys.entries()) values.set(hexOf(key), valueHex(found[at]));
    stream.notify(changeSet(block, [...values]));
    const late = waiting ?? [];
    waiting = undefined;
    for (const each of late) each();
  };
  const anew = (block: Hash): void => {
    waiting = [];
    readAll(block).catch(() => stream.close());
  };
  const unfollow = watch.follow(keys, tell, anew);
  const end = (): void => {
    unfollow();
    watched?.give(weight);
  };
  try {
    await readAll(view.best());
  } catch (problem) {
    end();
    throw problem;
  }
  return end;
}

/** The blocks of one branch from `from` to `to`, in order. */
function branch(view: ChainView, from: Hash, to: Hash): readonly Hash[] {
  const { blocks } = view.client;
  const number = blocks.header(from)?.number;
  if (number === undefined) throw unknownBlock(hexOf(from));
  const out: Hash[] = [];
  for (let hash = to; ; ) {
    const header = blocks.header(hash);
    if (header === undefined) throw unknownBlock(hexOf(hash));
    out.push(hash);
    if (equalBytes(hash, from)) return out.reverse();
    if (header.number <= number || out.length >= MAX_QUERIED_BLOCKS) {
      throw new RpcError(4001, `Cannot resolve a block range [${hexOf(from)} ... ${hexOf(to)}].`);
    }
    hash = header.parentHash;
  }
}

const methods = [
  method('state_getStorage', [hex('key'), optional(hash('at'))], ({ view }, [key, at]) => view.state(at).get(key), {
    aliases: ['state_getStorageAt'],
  }),
  method(
    'state_getStorageHash',
    [hex('key'), optional(hash('at'))],
    ({ view, hashing }, [key, at]) => {
      const value = view.state(at).get(key);
      return value === undefined ? null : hashing.blake2_256(value);
    },
    { aliases: ['state_getStorageHashAt'] },
  ),
  method(
    'state_getStorageSize',
    [hex('key'), optional(hash('at'))],
    ({ view }, [key, at]) => view.state(at).get(key)?.length,
    { aliases: ['state_getStorageSizeAt'] },
  ),
  method(
    'state_getKeysPaged',
    [optional(hex('prefix')), u32('count'), optional(hex('startKey')), optional(hash('at'))],
    async ({ view }, [prefix, count, startKey, at], session) => {
      if (count > MAX_PAGE) throw new RpcError(4002, `count exceeds maximum value. value: ${count}, max: ${MAX_PAGE}`);
      if (count === 0) return [];
      const query = { prefix: prefix ?? EMPTY, after: startKey, count, values: false };
      const { entries } = await view.reads(session).page(at ?? view.best(), query);
      return entries.map(([key]) => hexOf(key));
    },
    { aliases: ['state_getKeysPagedAt'] },
  ),
  method(
    'state_getKeys',
    [hex('prefix'), optional(hash('at'))],
    async ({ view }, [prefix, at], session) =>
      (await entriesUnder(view, session, at ?? view.best(), prefix, false)).map(([key]) => hexOf(key)),
    { unsafe: true },
  ),
  method(
    'state_getPairs',
    [hex('prefix'), optional(hash('at'))],
    async ({ view }, [prefix, at], session) =>
      (await entriesUnder(view, session, at ?? view.best(), prefix, true)).map((entry) => entry.map(hexOf)),
    { unsafe: true },
  ),
  method(
    'state_queryStorageAt',
    [list(hex('keys'), MAX_KEYS), optional(hash('at'))],
    async ({ view }, [keys, at], session) => {
      const block = at ?? view.best();
      const values = await view.reads(session).values(block, keys);
      return [
        changeSet(
          block,
          keys.map((key, index): Change => [hexOf(key), valueHex(values[index])]),
        ),
      ];
    },
  ),
  method(
    'state_queryStorage',
    [list(hex('keys'), MAX_KEYS), hash('fromBlock'), optional(hash('toBlock'))],
    async ({ view }, [keys, from, to], session) => {
      const last = new Map<string, string | null>();
      const out: ReturnType<typeof changeSet>[] = [];
      const reads = view.reads(session);
      let characters = 0;
      for (const block of branch(view, from, to ?? view.best())) {
        const values = await reads.values(block, keys);
        const changes: Change[] = [];
        for (const [index, key] of keys.entries()) {
          const name = hexOf(key);
          const value = valueHex(values[index]);
          if (last.get(name) === value) continue;
          last.set(name, value);
          changes.push([name, value]);
          characters += name.length + (value?.length ?? 4);
        }
        if (characters > session.maxResponse) throw responseTooBig(session.maxResponse);
        if (changes.length > 0) out.push(changeSet(block, changes));
      }
      return out;
    },
    { unsafe: true },
  ),
  method(
    'state_getReadProof',
    [list(hex('keys'), MAX_KEYS), optional(hash('at'))],
    async ({ view }, [keys, at], session) => {
      const block = at ?? view.best();
      const proof = await view.reads(session).prove(block, keys);
      return { at: hexOf(block), proof: proof.map(hexOf) };
    },
  ),
  method(
    'state_call',
    [text('method', 256), hex('data'), optional(hash('at'))],
    ({ view }, [name, data, at], session) => view.call(session, at ?? view.best(), name, data),
    { aliases: ['state_callAt'] },
  ),
  method('state_getMetadata', [optional(hash('at'))], async ({ view }, [at], session) => {
    const source = new Source(await view.call(session, at ?? view.best(), 'Metadata_metadata', EMPTY));
    return source.bytes(source.compact(0xffffffff));
  }),
  method(
    'state_getRuntimeVersion',
    [optional(hash('at'))],
    ({ view }, [at]) => versionJson(view.version(at ?? view.best())),
    { aliases: ['chain_getRuntimeVersion'] },
  ),
  subscription(
    'state_subscribeRuntimeVersion',
    {
      unsubscribe: 'state_unsubscribeRuntimeVersion',
      unsubscribeAliases: ['chain_unsubscribeRuntimeVersion'],
      notification: 'state_runtimeVersion',
    },
    [],
    ({ view }, _args, stream) => {
      let last: RawJson | undefined;
      const tell = (block: Hash): void => {
        const version = versionJson(view.version(block));
        if (version.text === last?.text) return;
        last = version;
        stream.notify(version);
      };
      tell(view.best());
      return view.followBest(tell);
    },
    { aliases: ['chain_subscribeRuntimeVersion'] },
  ),
  subscription(
    'state_subscribeStorage',
    { unsubscribe: 'state_unsubscribeStorage', notification: 'state_storage' },
    [optional(list(hex('keys'), MAX_KEYS))],
    (context, [keys], stream, session) => {
      if (keys === undefined) {
        if (!session.unsafe) throw unsafeRefused();
        throw invalidParams('the keys to follow');
      }
      return followKeys(context, keys, stream, session);
    },
  ),
];

export const stateGroup = (context: Omit<StateContext, 'watch'>): Group =>
  group({ ...context, watch: new StorageWatch(context.view) }, methods);
