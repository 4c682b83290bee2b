/** Who votes, with which weight (GRANDPA paper, section 2: at most f of n ≥ 3f + 1 are faulty). */
import type { VoterId } from './votes.ts';

export interface VoterInfo {
  readonly id: VoterId;
  readonly position: number;
  readonly weight: number;
}

export class VoterSetError extends Error {
  readonly code = 'INVALID_VOTER_SET';
}

/** Voters in the order of their keys, which decides positions and primaries. Immutable. */
export class VoterSet {
  readonly voters: readonly VoterInfo[];
  readonly totalWeight: number;
  /** Weight that makes a supermajority: total − ⌊(total − 1) / 3⌋, which is ⌊2n/3⌋ + 1 for equal voters. */
  readonly threshold: number;
  readonly #byId: ReadonlyMap<VoterId, VoterInfo>;

  /**
   * Weights of one id add up; zero weights are left out. Throws {@link VoterSetError} when nobody is left or the total is
   * beyond 2^53 − 1 (Substrate allows 2^64 − 1; the weights of all known chains are 1).
   */
  constructor(weights: Iterable<readonly [id: VoterId, weight: bigint | number]>) {
    const sums = new Map<VoterId, bigint>();
    let total = 0n;
    for (const [id, weight] of weights) {
      if (weight < 0 || (typeof weight === 'number' && !Number.isSafeInteger(weight))) {
        throw new VoterSetError(`${weight} is not a weight`);
      }
      const value = BigInt(weight);
      if (value === 0n) continue;
      total += value;
      sums.set(id, (sums.get(id) ?? 0n) + value);
    }
    if (sums.size === 0) throw new VoterSetError('a voter set needs a voter');
    if (total > BigInt(Number.MAX_SAFE_INTEGER)) throw new VoterSetError('the weights of a voter set are too large');
    this.voters = [...sums]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([id, weight], position) => ({ id, position, weight: Number(weight) }));
    this.totalWeight = Number(total);
    this.threshold = this.totalWeight - Math.floor((this.totalWeight - 1) / 3);
    this.#byId = new Map(this.voters.map((voter) => [voter.id, voter]));
  }

  get size(): number {
    return this.voters.length;
  }

  get(id: VoterId): VoterInfo | undefined {
    return this.#byId.get(id);
  }

  has(id: VoterId): boolean {
    return this.#byId.has(id);
  }

  /** Whose turn it is to hint at a block. */
  primary(round: number): VoterInfo {
    return this.voters[round % this.voters.length]!;
  }

  /** Weight of the voters whose bit is set in either mask. */
  weigh(mask: VoterMask, also?: VoterMask): number {
    let weight = 0;
    for (let word = 0; word < mask.length; word++) {
      let bits = (mask[word]! | (also === undefined ? 0 : also[word]!)) >>> 0;
      while (bits !== 0) {
        const bit = 31 - Math.clz32(bits);
        bits &= ~(1 << bit);
        weight += this.voters[word * 32 + bit]!.weight;
      }
    }
    return weight;
  }

  emptyMask(): VoterMask {
    return new Uint32Array((this.voters.length + 31) >>> 5);
  }
}

/** One bit a voter, by position. Never written to once shared. */
export type VoterMask = Uint32Array;

export function maskWith(mask: VoterMask, position: number): VoterMask {
  const out = mask.slice();
  out[position >>> 5]! |= 1 << (position & 31);
  return out;
}

export function maskUnion(a: VoterMask, b: VoterMask): VoterMask {
  const out = a.slice();
  for (let i = 0; i < out.length; i++) out[i]! |= b[i]!;
  return out;
}
