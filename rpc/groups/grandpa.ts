/** `grandpa_*`: proofs of finality and the state of the vote. */

import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { GRANDPA_ENGINE, header } from '../../runtime/primitives/header.ts';
import { bytes, encode, struct, vec } from '../../runtime/primitives/scale/codec.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { hash } from '../../runtime/primitives/types.ts';
import { RpcError } from '../server/errors.ts';
import { definitions, type Group, group } from '../server/method.ts';
import { blockNumber } from '../server/params.ts';
import type { Session } from '../server/session.ts';
import type { ChainView } from './chain-view.ts';
import type { RoundStates } from './context.ts';

interface GrandpaContext {
  readonly view: ChainView;
  readonly roundStates?: () => RoundStates | undefined;
}

const { method, subscription } = definitions<GrandpaContext>();

/** Headers that one proof may carry. */
const MAX_UNKNOWN_HEADERS = 4_096;
/** Headers that are read in one turn. */
const PART = 64;
/** `sc_consensus_grandpa::FinalityProof`. */
const finalityProof = struct({ block: hash, justification: bytes(), unknownHeaders: vec(header) });

const notReady = (): RpcError => new RpcError(1, 'GRANDPA RPC endpoint not ready');

const justificationOf = (view: ChainView, block: Hash): Uint8Array | undefined =>
  view.client.blocks.justifications(block)?.find(([engine]) => equalBytes(engine, GRANDPA_ENGINE))?.[1];

/** The first justification at or above the block, with the headers between. */
async function prove(view: ChainView, session: Session, number: number): Promise<Uint8Array | null> {
  const { blocks } = view.client;
  const { finalized } = blocks.info();
  if (number > finalized.number) {
    throw new RpcError(4, 'Error while proving finality: Block not covered by authority set changes.');
  }
  const unknownHeaders = [];
  for (let at = number; at <= finalized.number && unknownHeaders.length <= MAX_UNKNOWN_HEADERS; at++) {
    const block = blocks.hashOf(at);
    const found = block === undefined ? undefined : blocks.header(block);
    if (block === undefined || found === undefined) return null;
    if (at > number) unknownHeaders.push(found);
    // Between one set's last block and the next there may be thousands.
    if (unknownHeaders.length % PART === PART - 1) await session.turn(() => {});
    const justification = justificationOf(view, block);
    if (justification !== undefined) return encode(finalityProof, { block, justification, unknownHeaders });
  }
  return null;
}

const methods = [
  method('grandpa_proveFinality', [blockNumber('block')], ({ view }, [number], session) =>
    prove(view, session, number),
  ),
  method('grandpa_roundState', [], ({ roundStates }) => {
    const states = roundStates?.();
    if (states === undefined) throw notReady();
    return states;
  }),
  subscription(
    'grandpa_subscribeJustifications',
    { unsubscribe: 'grandpa_unsubscribeJustifications', notification: 'grandpa_justifications' },
    [],
    ({ view }, _args, stream) =>
      view.follow((event) => {
        if (event.type !== 'finalized') return;
        for (const { hash: block } of event.finalized) {
          const justification = justificationOf(view, block);
          if (justification !== undefined) stream.notify(justification);
        }
      }),
  ),
];

export const grandpaGroup = (context: GrandpaContext): Group => group(context, methods);
