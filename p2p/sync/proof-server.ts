/** Answers `light/2`, `state/2` and `sync/warp` from what this node has. */
import type { AuthoritySet } from '../../consensus/grandpa/authorities.ts';
import { proveWarp } from '../../consensus/grandpa/warp.ts';
import {
  type Blocks,
  RuntimeCallError,
  type RuntimeCalls,
  type StateRanges,
  type States,
} from '../../node/ports/chain.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { NetworkError } from '../host/errors.ts';
import { decodeLightRequest, encodeLightResponse } from '../protocols/light.ts';
import { decodeStateRequest, encodeStateResponse } from '../protocols/state.ts';
import { warpProof, warpRequest } from '../protocols/warp.ts';

export interface ProofPorts {
  readonly blocks: Blocks;
  readonly states: States & StateRanges;
  readonly runtime: RuntimeCalls;
  readonly authoritySet: () => AuthoritySet;
}

export const MAX_LIGHT_REQUEST = 1024 * 1024;
export const MAX_STATE_REQUEST = 16 * 1024;
export const MAX_WARP_BYTES = 8 * 1024 * 1024;
/** Of keys and values, before one response ends; Substrate's figure. */
const STATE_BYTES = 2 * 1024 * 1024;

/** Throws {@link NetworkError} or a `ScaleError` when the request is no request. A state that is not here: no proof. */
export function answerLight({ states, runtime }: ProofPorts, message: Uint8Array): Uint8Array {
  const request = decodeLightRequest(message);
  if (request.type === 'read') return encodeLightResponse('read', states.prove(request.block, request.keys));
  try {
    const { proof } = runtime.prove(request.block, request.method, request.data);
    return encodeLightResponse('call', proof);
  } catch (problem) {
    // A call that fails cannot be shown to fail, and a block whose state is gone cannot be read.
    if (problem instanceof RuntimeCallError) return encodeLightResponse('call', undefined);
    throw problem;
  }
}

/** Throws {@link NetworkError} or a `ScaleError` when the request is no request, `REFUSED` when the state is not here. */
export function answerState({ states }: ProofPorts, message: Uint8Array): Uint8Array {
  const { block, after, noProof } = decodeStateRequest(message);
  if (!noProof) {
    const nodes = states.proveRange(block, after, STATE_BYTES);
    if (nodes === undefined) throw new NetworkError('REFUSED', 'the state is not here');
    return encodeStateResponse({ type: 'proof', nodes });
  }
  const state = states.at(block);
  if (state === undefined) throw new NetworkError('REFUSED', 'the state is not here');
  const entries: [Uint8Array, Uint8Array][] = [];
  let size = 0;
  let key = state.nextKey(after ?? new Uint8Array());
  for (; key !== undefined && size < STATE_BYTES; key = state.nextKey(key)) {
    const value = state.get(key)!;
    entries.push([key, value]);
    size += key.length + value.length;
  }
  return encodeStateResponse({ type: 'entries', entries, complete: key === undefined });
}

/** Throws a `ScaleError` when the request is no request, {@link NetworkError} `REFUSED` when it begins nowhere. */
export function answerWarp({ blocks, authoritySet }: ProofPorts, message: Uint8Array): Uint8Array {
  const begin = decode(warpRequest, message);
  const proof = proveWarp(blocks, authoritySet(), begin, MAX_WARP_BYTES / 2);
  if (proof === undefined) throw new NetworkError('REFUSED', 'there is no proof from that block on');
  return encode(warpProof, proof);
}
