/** What the voter keeps in the journal, in bytes: its place, the votes cast there, and the round before. */
import { decode, encode, option, struct, tuple, u8, u64, vec } from '../../runtime/primitives/scale/codec.ts';
import { catchUpCodec, counter, signedMessage, targetCodec, voterIdCodec } from './messages.ts';
import type { VoterRecord } from './voter.ts';

const VERSION = 1;

const stored = struct({
  version: u8,
  setId: counter,
  voters: vec(tuple(voterIdCodec, u64)),
  round: counter,
  base: targetCodec,
  own: vec(signedMessage),
  previous: option(catchUpCodec),
});

export class RecordError extends Error {
  readonly code = 'CORRUPT_JOURNAL';
}

export const encodeRecord = (record: VoterRecord): Uint8Array =>
  encode(stored, {
    version: VERSION,
    setId: record.setId,
    voters: record.voters.map(([id, weight]) => [id, BigInt(weight)] as [typeof id, bigint]),
    round: record.round,
    base: record.base,
    own: [...record.own],
    previous: record.previous,
  });

/**
 * Throws {@link RecordError}: without its record a voter does not know what it has said, and must not speak.
 */
export function decodeRecord(bytes: Uint8Array): VoterRecord {
  try {
    const { version, voters, ...rest } = decode(stored, bytes);
    if (version !== VERSION) throw new RecordError(`version ${version} of the voter's record is not known`);
    return { ...rest, voters: voters.map(([id, weight]) => [id, Number(weight)] as const) };
  } catch (error) {
    if (error instanceof RecordError) throw error;
    throw new RecordError(`the voter's record cannot be read: ${(error as Error).message}`);
  }
}
