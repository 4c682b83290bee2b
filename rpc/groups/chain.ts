/** `chain_*`: headers and blocks, and streams of heads. */
import type { Justifications } from '../../runtime/primitives/header.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { hexOf } from '../server/hex.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { blockNumber, either, hash, list, optional } from '../server/params.ts';
import { RawJson } from '../server/result.ts';
import type { Subscription } from '../server/subscription.ts';
import type { ChainView } from './chain-view.ts';

interface ChainContext {
  readonly view: ChainView;
}

const { method, subscription } = definitions<ChainContext>();

const MAX_NUMBERS = 1_024;

/** Byte strings of justifications are arrays of numbers in Substrate's JSON. */
const justificationsJson = (justifications: Justifications | undefined) =>
  justifications === undefined || justifications.length === 0
    ? null
    : justifications.map(([engine, proof]) => [Array.from(engine), Array.from(proof)]);

function signedBlock(view: ChainView, hash: Hash): RawJson | null {
  const header = view.header(hash);
  const body = view.body(hash);
  if (header === undefined || body === undefined) return null;
  const extrinsics = body.map((each) => `"${each}"`).join(',');
  const justifications = JSON.stringify(justificationsJson(view.client.blocks.justifications(hash)));
  return new RawJson(
    `{"block":{"header":${header.text},"extrinsics":[${extrinsics}]},"justifications":${justifications}}`,
  );
}

/** Tells the header of `first` and then of every block that `follow` hears of. */
const heads = (
  view: ChainView,
  stream: Subscription,
  first: Hash,
  follow: (listener: (hash: Hash) => void) => () => void,
): (() => void) => {
  const tell = (hash: Hash): void => {
    const header = view.header(hash);
    if (header !== undefined) stream.notify(header);
  };
  tell(first);
  return follow(tell);
};

const methods = [
  method('chain_getHeader', [optional(hash('hash'))], ({ view }, [at]) => view.header(at ?? view.best())),
  method('chain_getBlock', [optional(hash('hash'))], ({ view }, [at]) => signedBlock(view, at ?? view.best())),
  method(
    'chain_getBlockHash',
    [optional(either(list(blockNumber('number'), MAX_NUMBERS), blockNumber('number')))],
    ({ view }, [number]) => {
      const { blocks } = view.client;
      const of = (each: number): string | null => {
        const found = blocks.hashOf(each);
        return found === undefined ? null : hexOf(found);
      };
      if (number === undefined) return hexOf(view.best());
      return typeof number === 'number' ? of(number) : number.map(of);
    },
    { aliases: ['chain_getHead'] },
  ),
  method('chain_getFinalizedHead', [], ({ view }) => view.client.blocks.info().finalized.hash, {
    aliases: ['chain_getFinalisedHead'],
  }),
  subscription(
    'chain_subscribeNewHead',
    {
      unsubscribe: 'chain_unsubscribeNewHead',
      unsubscribeAliases: ['chain_unsubscribeNewHeads', 'unsubscribe_newHead'],
      notification: 'chain_newHead',
    },
    [],
    ({ view }, _args, stream) => heads(view, stream, view.best(), (tell) => view.followBest(tell)),
    { aliases: ['chain_subscribeNewHeads', 'subscribe_newHead'] },
  ),
  subscription(
    'chain_subscribeAllHeads',
    { unsubscribe: 'chain_unsubscribeAllHeads', notification: 'chain_allHead' },
    [],
    ({ view }, _args, stream) =>
      heads(view, stream, view.best(), (tell) =>
        view.follow((event) => {
          if (event.type === 'imported') tell(event.block.hash);
        }),
      ),
  ),
  subscription(
    'chain_subscribeFinalizedHeads',
    {
      unsubscribe: 'chain_unsubscribeFinalizedHeads',
      unsubscribeAliases: ['chain_unsubscribeFinalisedHeads'],
      notification: 'chain_finalizedHead',
    },
    [],
    ({ view }, _args, stream) =>
      heads(view, stream, view.client.blocks.info().finalized.hash, (tell) =>
        view.follow((event) => {
          if (event.type === 'finalized') for (const { hash: each } of event.finalized) tell(each);
        }),
      ),
    { aliases: ['chain_subscribeFinalisedHeads'] },
  ),
];

export const chainGroup = (context: ChainContext): Group => group(context, methods);
