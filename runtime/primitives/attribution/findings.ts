/** What somebody has found out, bound to its account before anybody else reads it. */
import { type Codec, encode, fixedBytes, type Infer, struct } from '../scale/codec.ts';
import { accountId, asHash, type Hash, hash } from '../types.ts';
import { type Blake, canonical, hashOf } from './canonical.ts';

export const finding = canonical(
  'finding/1',
  'Finding',
  struct({
    finder: accountId,
    /** Chosen at random: without it, contents that can be guessed could be tried out. */
    salt: fixedBytes(32),
    /** Hash of the evidence ({@link contentHash}). */
    content: hash,
  }),
);
export type Finding = Infer<typeof finding>;

export const contentHash = <T>(hashing: Blake, codec: Codec<T>, evidence: T): Hash =>
  asHash(hashing.blake2_256(encode(codec, evidence)));

/** What the finder commits to. */
export const findingHash = (hashing: Blake, of: Finding): Hash => hashOf(hashing, finding, of);
