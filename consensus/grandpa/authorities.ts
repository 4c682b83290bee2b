/** Who finalizes: the current set, how blocks announce the next one, and the history that warp sync needs. */
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { type Digest, type DigestItem, GRANDPA_ENGINE, type Header } from '../../runtime/primitives/header.ts';
import {
  type Codec,
  decode,
  encode,
  fixedBytes,
  type Infer,
  struct,
  tuple,
  u32,
  u64,
  variants,
  vec,
} from '../../runtime/primitives/scale/codec.ts';
import { voterId } from './messages.ts';
import { VoterSet } from './voter-set.ts';

export const authorityList = vec(tuple(fixedBytes(32), u64));
/** Public key and weight. */
export type AuthorityList = Infer<typeof authorityList>;

const scheduledChange = struct({ nextAuthorities: authorityList, delay: u32 });

/** `sp_consensus_grandpa::ConsensusLog`. */
export const grandpaLog = variants({
  ScheduledChange: [1, scheduledChange],
  ForcedChange: [2, tuple(u32, scheduledChange)],
  OnDisabled: [3, u64],
  Pause: [4, u32],
  Resume: [5, u32],
});
export type GrandpaLog = Infer<typeof grandpaLog>;

export const grandpaLogItem = (log: GrandpaLog): DigestItem => ({
  type: 'Consensus',
  value: [GRANDPA_ENGINE, encode(grandpaLog, log)],
});

/** Whether a digest names a change of the set, without decoding it. */
export const announcesChange = (digest: Digest): boolean =>
  digest.logs.some(
    (item) => item.type === 'Consensus' && equalBytes(item.value[0], GRANDPA_ENGINE) && item.value[1][0] === 1,
  );

export class AuthorityChangeError extends Error {
  /** `UNSUPPORTED`: a delay other than 0 or a forced change, which this chain never makes. */
  readonly code: 'INVALID' | 'UNSUPPORTED';
  constructor(code: AuthorityChangeError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * The authorities that take over once this block is final; undefined when it changes nothing. Throws
 * {@link AuthorityChangeError} when the block announces what no verifier could follow: such a block must not be imported.
 */
export function changeIn(header: Pick<Header, 'digest'>): AuthorityList | undefined {
  let next: AuthorityList | undefined;
  for (const item of header.digest.logs) {
    if (item.type !== 'Consensus' || !equalBytes(item.value[0], GRANDPA_ENGINE)) continue;
    let log: GrandpaLog;
    try {
      log = decode(grandpaLog, item.value[1]);
    } catch (error) {
      throw new AuthorityChangeError('INVALID', `unreadable GRANDPA digest: ${(error as Error).message}`);
    }
    if (log.type === 'ForcedChange') throw new AuthorityChangeError('UNSUPPORTED', 'a forced change of authorities');
    if (log.type !== 'ScheduledChange') continue;
    if (next !== undefined) throw new AuthorityChangeError('INVALID', 'two changes of authorities in one block');
    if (log.value.delay !== 0) throw new AuthorityChangeError('UNSUPPORTED', `a delay of ${log.value.delay} blocks`);
    next = log.value.nextAuthorities;
    try {
      voterSetOf(next);
    } catch (error) {
      throw new AuthorityChangeError('INVALID', (error as Error).message);
    }
  }
  return next;
}

/** Throws `VoterSetError`. */
export const voterSetOf = (authorities: AuthorityList): VoterSet =>
  new VoterSet(authorities.map(([key, weight]) => [voterId(key), weight] as const));

/** The set in charge after some finalized block. Set ids count up from 0 at genesis. */
export interface AuthoritySet {
  readonly setId: number;
  readonly authorities: AuthorityList;
  /** `setChanges[i]`: the last block of set i, which announced set i + 1. */
  readonly setChanges: readonly number[];
}

export const genesisSet = (authorities: AuthorityList): AuthoritySet => ({ setId: 0, authorities, setChanges: [] });

export const nextSet = (set: AuthoritySet, lastBlock: number, authorities: AuthorityList): AuthoritySet => ({
  setId: set.setId + 1,
  authorities,
  setChanges: [...set.setChanges, lastBlock],
});

/** The set that finalizes a block of this height on the finalized chain. */
export function setIdAt(set: AuthoritySet, number: number): number {
  let low = 0;
  let high = set.setChanges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (set.setChanges[middle]! >= number) high = middle;
    else low = middle + 1;
  }
  return low;
}

const stored = struct({ setId: u64, authorities: authorityList, setChanges: vec(u32) });
export const authoritySetCodec: Codec<AuthoritySet> = {
  ...stored,
  encodeTo: (sink, value) =>
    stored.encodeTo(sink, {
      setId: BigInt(value.setId),
      authorities: value.authorities,
      setChanges: [...value.setChanges],
    }),
  decodeFrom(source) {
    const value = stored.decodeFrom(source);
    return { ...value, setId: Number(value.setId) };
  },
};
