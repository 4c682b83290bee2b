/** `light/2`: what a node without states asks one that has them (Substrate: `api.v1.light`). */
import { concatBytes, fromUtf8, joinBytes, utf8 } from '../../runtime/primitives/bytes.ts';
import { bytes, decode, encode, vec } from '../../runtime/primitives/scale/codec.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { NetworkError } from '../host/errors.ts';
import { bytesField, bytesOf, readFields } from '../wire/protobuf.ts';

export const MAX_PROOF_NODES = 65_536;
/** A trie proof as it travels: encoded nodes and hashed values, in any order. */
export const storageProof = vec(bytes(), MAX_PROOF_NODES);

export type LightRequest =
  | { readonly type: 'call'; readonly block: Hash; readonly method: string; readonly data: Uint8Array }
  | { readonly type: 'read'; readonly block: Hash; readonly keys: readonly Uint8Array[] };

const CALL = 1;
const READ = 2;
const READ_CHILD = 4;
const BLOCK = 2;
const PROOF = 2;
const MAX_KEYS = 4_096;

const malformed = (why: string): NetworkError => new NetworkError('MALFORMED', `light: ${why}`);

export function encodeLightRequest(request: LightRequest): Uint8Array {
  return request.type === 'call'
    ? bytesField(
        CALL,
        concatBytes(bytesField(BLOCK, request.block), bytesField(3, utf8(request.method)), bytesField(4, request.data)),
      )
    : bytesField(READ, joinBytes([bytesField(BLOCK, request.block), ...request.keys.map((key) => bytesField(3, key))]));
}

/** Throws {@link NetworkError} `MALFORMED`; `REFUSED` for child tries, which this chain does not have. */
export function decodeLightRequest(message: Uint8Array): LightRequest {
  let request: LightRequest | undefined;
  for (const field of readFields(message)) {
    if (field.number === CALL) request = decodeCall(bytesOf(field));
    else if (field.number === READ) request = decodeRead(bytesOf(field));
    else if (field.number === READ_CHILD) throw new NetworkError('REFUSED', 'light: there are no child tries');
  }
  if (request === undefined) throw malformed('nothing is asked');
  return request;
}

function decodeCall(message: Uint8Array): LightRequest {
  let block: Hash | undefined;
  let method: Uint8Array | undefined;
  let data: Uint8Array = new Uint8Array();
  for (const field of readFields(message)) {
    if (field.number === BLOCK) block = hashOf(bytesOf(field));
    else if (field.number === 3) method = bytesOf(field);
    else if (field.number === 4) data = bytesOf(field).slice();
  }
  if (block === undefined || method === undefined) throw malformed('a call without its block or method');
  try {
    return { type: 'call', block, method: fromUtf8(method), data };
  } catch {
    throw malformed('a method that is no text');
  }
}

function decodeRead(message: Uint8Array): LightRequest {
  let block: Hash | undefined;
  const keys: Uint8Array[] = [];
  for (const field of readFields(message)) {
    if (field.number === BLOCK) block = hashOf(bytesOf(field));
    else if (field.number === 3) {
      if (keys.length === MAX_KEYS) throw malformed('too many keys');
      keys.push(bytesOf(field).slice());
    }
  }
  if (block === undefined) throw malformed('a read without its block');
  return { type: 'read', block, keys };
}

function hashOf(value: Uint8Array): Hash {
  if (value.length !== 32) throw malformed('a block hash has 32 bytes');
  return asHash(value.slice());
}

/** `proof` undefined: the block's state is not here. */
export function encodeLightResponse(type: LightRequest['type'], proof: readonly Uint8Array[] | undefined): Uint8Array {
  const body = proof === undefined ? new Uint8Array() : bytesField(PROOF, encode(storageProof, [...proof]));
  return bytesField(type === 'call' ? CALL : READ, body);
}

/** Undefined when the peer has no proof to give. Throws {@link NetworkError} `MALFORMED` or a `ScaleError`. */
export function decodeLightResponse(
  type: LightRequest['type'],
  message: Uint8Array,
): readonly Uint8Array[] | undefined {
  for (const field of readFields(message)) {
    if (field.number !== (type === 'call' ? CALL : READ)) continue;
    for (const inner of readFields(bytesOf(field))) {
      if (inner.number === PROOF) return decode(storageProof, bytesOf(inner));
    }
    return undefined;
  }
  throw malformed('an answer to something else');
}
