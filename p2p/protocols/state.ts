/** `state/2`: the whole state of a block, piece by piece (Substrate: `api.v1.StateRequest`, `StateResponse`). */
import { concatBytes, joinBytes } from '../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { NetworkError } from '../host/errors.ts';
import { bytesField, bytesOf, numberOf, readFields, varintField } from '../wire/protobuf.ts';
import { storageProof } from './light.ts';

export interface StateRequest {
  readonly block: Hash;
  /** Keys greater than this one are wanted; undefined: from the first on. */
  readonly after: Uint8Array | undefined;
  readonly noProof: boolean;
}

export type StateResponse =
  | { readonly type: 'proof'; readonly nodes: readonly Uint8Array[] }
  | {
      readonly type: 'entries';
      readonly entries: readonly (readonly [key: Uint8Array, value: Uint8Array])[];
      readonly complete: boolean;
    };

const malformed = (why: string): NetworkError => new NetworkError('MALFORMED', `state: ${why}`);

export const encodeStateRequest = ({ block, after, noProof }: StateRequest): Uint8Array =>
  joinBytes([
    bytesField(1, block),
    ...(after === undefined ? [] : [bytesField(2, after)]),
    varintField(3, noProof ? 1 : 0),
  ]);

/** Throws {@link NetworkError} `MALFORMED`; `REFUSED` for child tries, which this chain does not have. */
export function decodeStateRequest(message: Uint8Array): StateRequest {
  let block: Hash | undefined;
  let noProof = false;
  const start: Uint8Array[] = [];
  for (const field of readFields(message)) {
    if (field.number === 1) {
      if (bytesOf(field).length !== 32) throw malformed('a block hash has 32 bytes');
      block = asHash(bytesOf(field).slice());
    } else if (field.number === 2) start.push(bytesOf(field).slice());
    else if (field.number === 3) noProof = numberOf(field) === 1;
    // The key within a child trie comes second.
    if (start.length > 1) throw new NetworkError('REFUSED', 'state: there are no child tries');
  }
  if (block === undefined) throw malformed('the block is not named');
  const [after] = start;
  return { block, after: after === undefined || after.length === 0 ? undefined : after, noProof };
}

export function encodeStateResponse(response: StateResponse): Uint8Array {
  if (response.type === 'proof') return bytesField(2, encode(storageProof, [...response.nodes]));
  const entries = response.entries.map(([key, value]) =>
    bytesField(2, concatBytes(bytesField(1, key), bytesField(2, value))),
  );
  return bytesField(1, joinBytes([...entries, varintField(3, response.complete ? 1 : 0)]));
}

/** Throws {@link NetworkError} `MALFORMED` or a `ScaleError`. */
export function decodeStateResponse(message: Uint8Array): StateResponse {
  for (const field of readFields(message)) {
    if (field.number === 2) return { type: 'proof', nodes: decode(storageProof, bytesOf(field)) };
    if (field.number === 1) return decodeEntries(bytesOf(field));
  }
  throw malformed('an empty answer');
}

function decodeEntries(message: Uint8Array): StateResponse {
  const entries: (readonly [Uint8Array, Uint8Array])[] = [];
  let complete = false;
  for (const field of readFields(message)) {
    if (field.number === 3) complete = numberOf(field) === 1;
    if (field.number !== 2) continue;
    let key: Uint8Array | undefined;
    let value: Uint8Array = new Uint8Array();
    for (const inner of readFields(bytesOf(field))) {
      if (inner.number === 1) key = bytesOf(inner);
      else if (inner.number === 2) value = bytesOf(inner);
    }
    if (key === undefined) throw malformed('a value without its key');
    entries.push([key, value]);
  }
  return { type: 'entries', entries, complete };
}
