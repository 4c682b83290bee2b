/** `sync/2`: asking for blocks (Substrate: `api.v1.BlockRequest`, `BlockResponse`). */
import { concatBytes, joinBytes } from '../../runtime/primitives/bytes.ts';
import {
  type Header,
  header as headerCodec,
  type Justifications,
  justifications,
  opaqueExtrinsic,
} from '../../runtime/primitives/header.ts';
import { decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import { NetworkError } from '../host/errors.ts';
import { bytesField, bytesOf, type Field, numberOf, readFields, varintField } from '../wire/protobuf.ts';

const HEADER = 1 << 24;
const BODY = 1 << 25;
const JUSTIFICATIONS = 1 << 28;

export interface BlockFields {
  readonly header: boolean;
  readonly body: boolean;
  readonly justifications: boolean;
}

export interface BlockRequest {
  readonly fields: BlockFields;
  readonly from: { readonly type: 'hash'; readonly hash: Hash } | { readonly type: 'number'; readonly number: number };
  readonly direction: 'ascending' | 'descending';
  /** Zero: as many as the server likes. */
  readonly max: number;
}

export interface BlockData {
  readonly hash: Hash;
  readonly header: Header | undefined;
  readonly body: readonly Uint8Array[] | undefined;
  readonly justifications: Justifications | undefined;
}

const malformed = (why: string): NetworkError => new NetworkError('MALFORMED', `sync: ${why}`);

/** Copied out of the message, so that keeping it does not keep the message. */
const hashOf = (field: Field): Hash => asHash(bytesOf(field).slice());

export function encodeBlockRequest({ fields, from, direction, max }: BlockRequest): Uint8Array {
  const bits = (fields.header ? HEADER : 0) | (fields.body ? BODY : 0) | (fields.justifications ? JUSTIFICATIONS : 0);
  const number = (value: number): Uint8Array => {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    return bytes;
  };
  return concatBytes(
    varintField(1, bits),
    from.type === 'hash' ? bytesField(2, from.hash) : bytesField(3, number(from.number)),
    varintField(5, direction === 'descending' ? 1 : 0),
    varintField(6, max),
    // Understands several justifications.
    varintField(7, 1),
  );
}

/** Throws {@link NetworkError} `MALFORMED` or a `ScaleError`. */
export function decodeBlockRequest(bytes: Uint8Array): BlockRequest {
  let bits = 0;
  let from: BlockRequest['from'] | undefined;
  let direction: BlockRequest['direction'] = 'ascending';
  let max = 0;
  for (const field of readFields(bytes)) {
    if (field.number === 1) bits = numberOf(field);
    else if (field.number === 2) from = { type: 'hash', hash: hashOf(field) };
    else if (field.number === 3) {
      const value = bytesOf(field);
      if (value.length < 4 || value.length > 8 || value.subarray(4).some((byte) => byte !== 0))
        throw malformed('no such height');
      from = { type: 'number', number: new DataView(value.buffer, value.byteOffset, 4).getUint32(0, true) };
    } else if (field.number === 5) {
      const value = numberOf(field);
      if (value > 1) throw malformed('no such direction');
      direction = value === 1 ? 'descending' : 'ascending';
    } else if (field.number === 6) max = numberOf(field);
  }
  if (from === undefined) throw malformed('the first block is not named');
  const fields = {
    header: (bits & HEADER) !== 0,
    body: (bits & BODY) !== 0,
    justifications: (bits & JUSTIFICATIONS) !== 0,
  };
  return { fields, from, direction, max };
}

export function encodeBlockData({ hash, header, body, justifications: proofs }: BlockData): Uint8Array {
  return joinBytes([
    bytesField(1, hash),
    ...(header === undefined ? [] : [bytesField(2, encode(headerCodec, header))]),
    // Each extrinsic with its length prefix: the encoding of an opaque one.
    ...(body ?? []).map((each) => bytesField(3, encode(opaqueExtrinsic, each))),
    ...(proofs === undefined ? [] : [bytesField(8, encode(justifications, proofs))]),
  ]);
}

export const encodeBlockResponse = (blocks: readonly Uint8Array[]): Uint8Array =>
  joinBytes(blocks.map((each) => bytesField(1, each)));

/** Throws {@link NetworkError} `MALFORMED` or a `ScaleError`. `body` is present when `fields` asked for one. */
export function decodeBlockResponse(bytes: Uint8Array, fields: BlockFields, max: number): BlockData[] {
  const blocks: BlockData[] = [];
  for (const field of readFields(bytes)) {
    if (field.number !== 1) continue;
    if (blocks.length === max) throw malformed('more blocks than asked for');
    blocks.push(decodeBlockData(bytesOf(field), fields));
  }
  return blocks;
}

function decodeBlockData(bytes: Uint8Array, fields: BlockFields): BlockData {
  let hash: Hash | undefined;
  let header: Header | undefined;
  let proofs: Justifications | undefined;
  const body: Uint8Array[] = [];
  for (const field of readFields(bytes)) {
    if (field.number === 1) hash = hashOf(field);
    else if (field.number === 2 && bytesOf(field).length > 0) header = decode(headerCodec, bytesOf(field).slice());
    else if (field.number === 3) body.push(decode(opaqueExtrinsic, bytesOf(field).slice()));
    else if (field.number === 8 && bytesOf(field).length > 0) proofs = decode(justifications, bytesOf(field).slice());
  }
  if (hash === undefined) throw malformed('a block without a hash');
  return { hash, header, body: fields.body ? body : undefined, justifications: proofs };
}
