/** Protocol Buffers, as far as Substrate's requests go: varints and length-delimited fields. Unknown fields are passed over. */
import { concatBytes } from '../../runtime/primitives/bytes.ts';
import { NetworkError } from '../host/errors.ts';
import { encodeLength } from './framing.ts';

export type Field =
  | { readonly number: number; readonly type: 'varint'; readonly value: bigint }
  | { readonly number: number; readonly type: 'bytes'; readonly value: Uint8Array };

const malformed = (why: string): NetworkError => new NetworkError('MALFORMED', `protobuf: ${why}`);

/** Throws {@link NetworkError} `MALFORMED`. Byte fields are views. */
export function* readFields(bytes: Uint8Array): Generator<Field> {
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at++];
      if (byte === undefined) throw malformed('a number is cut off');
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw malformed('a number without end');
  };
  const take = (length: number): Uint8Array => {
    if (length > bytes.length - at) throw malformed('a field is cut off');
    at += length;
    return bytes.subarray(at - length, at);
  };
  while (at < bytes.length) {
    const tag = varint();
    const number = Number(tag >> 3n);
    if (number === 0 || number > 0x1fffffff) throw malformed('no such field number');
    switch (Number(tag & 7n)) {
      case 0:
        yield { number, type: 'varint', value: varint() };
        break;
      case 1:
        take(8);
        break;
      case 2: {
        const length = varint();
        if (length > BigInt(bytes.length)) throw malformed('a field is cut off');
        yield { number, type: 'bytes', value: take(Number(length)) };
        break;
      }
      case 5:
        take(4);
        break;
      default:
        throw malformed('no such wire type');
    }
  }
}

/** Throws {@link NetworkError} `MALFORMED` when it is a number. */
export function bytesOf(field: Field): Uint8Array {
  if (field.type !== 'bytes') throw malformed(`field ${field.number} is a number`);
  return field.value;
}

/** Of 32 bits. Throws {@link NetworkError} `MALFORMED` when it is none. */
export function numberOf(field: Field): number {
  if (field.type !== 'varint') throw malformed(`field ${field.number} is no number`);
  return Number(BigInt.asUintN(32, field.value));
}

export function varintField(number: number, value: number): Uint8Array {
  return value === 0 ? new Uint8Array() : concatBytes(encodeLength(number * 8), encodeLength(value));
}

export const bytesField = (number: number, value: Uint8Array): Uint8Array =>
  concatBytes(encodeLength(number * 8 + 2), encodeLength(value.length), value);
