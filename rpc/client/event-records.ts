/**
 * What the definitions of the whole runtime are needed for: the events of a block stand one after the other without their
 * lengths, and a failure names its pallet by a number. It is loaded with the first transaction, not with the client.
 */
import { blake2b } from '@noble/hashes/blake2.js';
import { blake3 } from '@noble/hashes/blake3.js';
import type { DispatchError } from '../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../runtime/framework/runtime-call.ts';
import { type Phase, phase } from '../../runtime/pallets/standard/system.ts';
import { decode, vec } from '../../runtime/primitives/scale/codec.ts';
import { Source } from '../../runtime/primitives/scale/io.ts';
import type { TypeDef } from '../../runtime/primitives/scale/type.ts';
import { hash } from '../../runtime/primitives/types.ts';
import { createRuntime } from '../../runtime/runtime.ts';
import { CallFailed } from './errors.ts';

export interface EventRecord {
  readonly phase: Phase;
  readonly pallet: string;
  readonly name: string;
  /** The fields in SCALE, one after the other. */
  readonly fields: Uint8Array;
  /** The fields by their names, for people and logs; undefined for an event that has none. */
  readonly value: unknown;
}

const { assembly } = createRuntime({ blake2_64: (data) => blake2b(data, { dkLen: 8 }), blake3 }).executive;
const topics = vec(hash);

/** Pallet and event index in front of an event's fields. */
const INDICES = 2;

/** `System.Events` of a block. Throws `ScaleError`. */
export function eventRecords(stored: Uint8Array): EventRecord[] {
  const source = new Source(stored);
  const count = source.compact(0xffffffff);
  const records: EventRecord[] = [];
  for (let at = 0; at < count; at++) {
    const when = phase.decodeFrom(source);
    const start = source.offset;
    const event = assembly.event.decodeFrom(source);
    const bytes = source.since(start);
    topics.decodeFrom(source);
    records.push({
      phase: when,
      pallet: event.type,
      name: event.value.type,
      fields: bytes.subarray(INDICES),
      value: event.value.value,
    });
  }
  return records;
}

/** A failure by the name and in the words of the pallet that defines it. */
export function failureOf(reason: DispatchError): CallFailed {
  const code = assembly.describeError(reason);
  if (reason.type !== 'Module') return new CallFailed(code, '', reason);
  const { index, error } = reason.value;
  const pallet = assembly.pallets.find((each) => each.index === index);
  const definition = Object.values(pallet?.errors ?? {}).find((each) => each.index === error[0]);
  return new CallFailed(code, definition?.docs ?? '', reason);
}

/** A call read back from its bytes, calls in it included. Throws `ScaleError`. */
export const callFrom = (encoded: Uint8Array): RuntimeCall => decode(assembly.call, encoded);

/** The type of a call's arguments, for showing them. */
export const argsTypeOf = (call: RuntimeCall): TypeDef => assembly.callDef(call).args.type;

/** What the runtime says that a call does. */
export const docsOf = (call: RuntimeCall): string => assembly.callDef(call).docs;
