/** What a validator says of the blobs that it keeps, signed by its GRANDPA key. */
import { type Infer, struct, u32, vec } from '../scale/codec.ts';
import { hash } from '../types.ts';
import { canonical } from './canonical.ts';
import { blobHash } from './ids.ts';

/** Blobs of each kind that one attestation names: its weight grows with them. */
export const MAX_ATTESTED_BLOBS = 256;

export const availability = canonical(
  'availability/1',
  'Availability',
  struct({
    /** Hash of the genesis block: no other chain takes it. */
    chain: hash,
    session: u32,
    /** Position among the validators of the session. */
    validator: u32,
    /** Counts the validator's attestations of the session from 0. */
    sequence: u32,
    /** Blobs that it holds now, whole and with the right hash. */
    held: vec(blobHash, MAX_ATTESTED_BLOBS),
    /** Blobs that it said it held, and does not hold any more. */
    lost: vec(blobHash, MAX_ATTESTED_BLOBS),
  }),
);
export type Availability = Infer<typeof availability>;
