/** `state_*`: what the chain knows, after any block whose state is there. */

import type { StateView } from '../../node/ports/chain.ts';
import type { Hashing } from '../../runtime/host.ts';
import { compareBytes, equalBytes, startsWith } from '../../runtime/primitives/bytes.ts';
import { Source } from '../../runtime/primitives/scale/io.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { invalidParams, RpcError, unknownBlock, unsafeRefused } from '../server/errors.ts';
import { hexOf } from '../server/hex.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { hash, hex, list, optional, text, u32 } from '../server/params.ts';
import type { RawJson } from '../server/result.ts';
import { type ChainView, versionJson } from './chain-view.ts';

interface StateContext {
  readonly view: ChainView;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
}

const { method, subscription } = definitions<StateContext>();

const MAX_PAGE = 1_000;
const MAX_KEYS = 16_384;
const MAX_QUERIED_BLOCKS = 10_000;
const EMPTY = new Uint8Array(0);

export function* keysFrom(state: StateView, prefix: Uint8Array, after: Uint8Array | undefined): Iterable<Uint8Array> {
  if (after === undefined || compareBytes(after, prefix) < 0) {
    if (state.get(prefix) !== undefined) yield prefix;
    after = prefix;
  }
  for (let key = state.nextKey(after); key !== undefined && startsWith(key, prefix); key = state.nextKey(key))
    yield key;
}

const valueHex = (value: Uint8Array | undefined): string | null => (value === undefined ? null : hexOf(value));

type Change = readonly [key: string, value: string | null];
const changeSet = (block: Hash, changes: readonly Change[]) => ({ block: hexOf(block), changes });

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
    ({ view }, [prefix, count, startKey, at]) => {
      if (count > MAX_PAGE) throw new RpcError(4002, `count exceeds maximum value. value: ${count}, max: ${MAX_PAGE}`);
      const out: string[] = [];
      if (count === 0) return out;
      for (const key of keysFrom(view.state(at), prefix ?? EMPTY, startKey)) {
        out.push(hexOf(key));
        if (out.length === count) break;
      }
      return out;
    },
    { aliases: ['state_getKeysPagedAt'] },
  ),
  method(
    'state_getKeys',
    [hex('prefix'), optional(hash('at'))],
    ({ view }, [prefix, at]) => Array.from(keysFrom(view.state(at), prefix, undefined), hexOf),
    { unsafe: true },
  ),
  method(
    'state_getPairs',
    [hex('prefix'), optional(hash('at'))],
    ({ view }, [prefix, at]) => {
      const state = view.state(at);
      return Array.from(keysFrom(state, prefix, undefined), (key) => [hexOf(key), valueHex(state.get(key))]);
    },
    { unsafe: true },
  ),
  method('state_queryStorageAt', [list(hex('keys'), MAX_KEYS), optional(hash('at'))], ({ view }, [keys, at]) => {
    const block = at ?? view.best();
    const state = view.state(block);
    return [
      changeSet(
        block,
        keys.map((key): Change => [hexOf(key), valueHex(state.get(key))]),
      ),
    ];
  }),
  method(
    'state_queryStorage',
    [list(hex('keys'), MAX_KEYS), hash('fromBlock'), optional(hash('toBlock'))],
    ({ view }, [keys, from, to]) => {
      const last = new Map<string, string | null>();
      const out: ReturnType<typeof changeSet>[] = [];
      for (const block of branch(view, from, to ?? view.best())) {
        const state = view.state(block);
        const changes: Change[] = [];
        for (const key of keys) {
          const name = hexOf(key);
          const value = valueHex(state.get(key));
          if (last.get(name) === value) continue;
          last.set(name, value);
          changes.push([name, value]);
        }
        if (changes.length > 0) out.push(changeSet(block, changes));
      }
      return out;
    },
    { unsafe: true },
  ),
  method('state_getReadProof', [list(hex('keys'), MAX_KEYS), optional(hash('at'))], ({ view }, [keys, at]) => {
    const block = at ?? view.best();
    const proof = view.client.states.prove(block, keys);
    if (proof === undefined) throw view.noState(block);
    return { at: hexOf(block), proof: proof.map(hexOf) };
  }),
  method(
    'state_call',
    [text('method', 256), hex('data'), optional(hash('at'))],
    ({ view }, [name, data, at]) => view.call(at ?? view.best(), name, data),
    { aliases: ['state_callAt'] },
  ),
  method('state_getMetadata', [optional(hash('at'))], ({ view }, [at]) => {
    const source = new Source(view.call(at ?? view.best(), 'Metadata_metadata', EMPTY));
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
    ({ view }, [keys], stream, session) => {
      if (keys === undefined) {
        if (!session.unsafe) throw unsafeRefused();
        throw invalidParams('the keys to follow');
      }
      const watched = keys.map((key) => ({ key, name: hexOf(key) }));
      let root: Hash | undefined;
      let values: (Uint8Array | undefined)[] = [];
      const tell = (block: Hash): void => {
        const state = view.client.states.at(block);
        if (state === undefined || (root !== undefined && equalBytes(root, state.root))) return;
        const before = root === undefined ? undefined : values;
        const now = watched.map(({ key }) => state.get(key));
        const changes: Change[] = [];
        for (const [index, { name }] of watched.entries()) {
          if (before === undefined || !same(before[index], now[index])) changes.push([name, valueHex(now[index])]);
        }
        root = state.root;
        values = now;
        if (changes.length > 0) stream.notify(changeSet(block, changes));
      };
      tell(view.best());
      return view.followBest(tell);
    },
  ),
];

const same = (a: Uint8Array | undefined, b: Uint8Array | undefined): boolean =>
  a === b || (a !== undefined && b !== undefined && equalBytes(a, b));

export const stateGroup = (context: StateContext): Group => group(context, methods);
