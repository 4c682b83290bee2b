/** What a validator says of the files that it keeps, signed by its GRANDPA key. */
import { type Infer, struct, u32, vec } from '../scale/codec.ts';
import { hash } from '../types.ts';
import { canonical } from './canonical.ts';
import { claimId } from './ids.ts';

/** Claims of each kind that one attestation names: its weight grows with them. */
export const MAX_ATTESTED_CLAIMS = 256;

export const availability = canonical(
  'availability/2',
  'Availability',
  struct({
    /** Hash of the genesis block: no other chain takes it. */
    chain: hash,
    session: u32,
    /** Position among the validators of the session. */
    validator: u32,
    /** Counts the validator's attestations of the session from 0. */
    sequence: u32,
    /**
     * Claims whose files it holds now, whole, with the hashes and sizes that the claim names. Of a batch of records it has
     * also seen that the root and the number of records are those of the file.
     */
    held: vec(claimId, MAX_ATTESTED_CLAIMS),
    /** Claims of which it said so, and can say so no more. */
    lost: vec(claimId, MAX_ATTESTED_CLAIMS),
  }),
);
export type Availability = Infer<typeof availability>;
