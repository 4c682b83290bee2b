/** `chainSpec_v1`: what the chain is called and what its amounts look like. */

import { definitions, type Group, group } from '../server/method.ts';
import type { ChainView } from './chain-view.ts';
import type { ChainDescription } from './context.ts';

interface ChainSpecContext {
  readonly view: ChainView;
  readonly chain: ChainDescription;
}

const { method } = definitions<ChainSpecContext>();

const methods = [
  method('chainSpec_v1_chainName', [], ({ chain }) => chain.name),
  method('chainSpec_v1_genesisHash', [], ({ view }) => view.client.blocks.info().genesisHash),
  method('chainSpec_v1_properties', [], ({ chain }) => chain.properties),
];

export const chainSpecGroup = (context: ChainSpecContext): Group => group(context, methods);
