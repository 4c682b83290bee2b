/**
 * Elections of validators: seats for candidates, each backed by its share of the voters' stake. Phragmén's sequential method
 * (Brill, Freeman, Janson, Lackner: "Phragmén's Voting Methods and Justified Representation", weighted by stake) chooses;
 * then every voter moves its stake to where it is needed most, until the least backed winner has as much as it can get
 * (Cevallos, Stewart: "A verifiably secure and proportional committee election rule", balancing).
 *
 * Integers only. Loads are kept in units of 2^−192: with stakes below 2^97 the first 95 bits of every score are exact.
 */
import type { Balance } from './types.ts';

export interface Voter {
  readonly stake: Balance;
  /** Candidates by number, none twice. */
  readonly targets: readonly number[];
}

/** What a voter gives to a winner. */
export interface Edge {
  readonly candidate: number;
  readonly amount: Balance;
}

export interface Election {
  /** In the order of their election: the last seats are the most contested ones. */
  readonly winners: readonly number[];
  /** By voter; amounts add up to its stake, or there are none where nobody it voted for has won. */
  readonly backing: readonly (readonly Edge[])[];
}

const ONE = 1n << 192n;

/**
 * Fills up to `seats` seats. A candidate whom nobody backs is never elected. Between equals the one with more stake in favour
 * comes first, then the one with the smaller number.
 */
export function sequentialPhragmen(candidates: number, voters: readonly Voter[], seats: number): Election {
  const approval: bigint[] = Array.from({ length: candidates }, () => 0n);
  /** Of each candidate: the sum over its voters of stake · load. */
  const carried: bigint[] = Array.from({ length: candidates }, () => 0n);
  const supporters: number[][] = Array.from({ length: candidates }, () => []);
  voters.forEach(({ stake, targets }, v) => {
    if (stake === 0n) return;
    for (const c of targets) {
      approval[c] = approval[c]! + stake;
      supporters[c]!.push(v);
    }
  });

  const load: bigint[] = voters.map(() => 0n);
  const edgeLoads: { readonly candidate: number; readonly load: bigint }[][] = voters.map(() => []);
  const winners: number[] = [];
  const open = new Set(approval.flatMap((stake, c) => (stake > 0n ? [c] : [])));
  while (winners.length < seats && open.size > 0) {
    let best = -1;
    let bestScore = 0n;
    for (const c of open) {
      const score = (ONE + carried[c]!) / approval[c]!;
      const better = best < 0 || score < bestScore || (score === bestScore && approval[c]! > approval[best]!);
      if (better) [best, bestScore] = [c, score];
    }
    winners.push(best);
    open.delete(best);
    for (const v of supporters[best]!) {
      const more = bestScore - load[v]!;
      edgeLoads[v]!.push({ candidate: best, load: more });
      load[v] = bestScore;
      const { stake, targets } = voters[v]!;
      for (const c of targets) if (open.has(c)) carried[c] = carried[c]! + stake * more;
    }
  }
  return { winners, backing: edgeLoads.map((edges, v) => split(voters[v]!.stake, edges, load[v]!)) };
}

/** Divides a stake by the loads of its edges, each cut at the nearest whole unit; the pieces are the stake again. */
function split(stake: Balance, edges: readonly { candidate: number; load: bigint }[], total: bigint): Edge[] {
  let reached = 0n;
  let given = 0n;
  return edges.map(({ candidate, load }) => {
    reached += load;
    const cut = (2n * stake * reached + total) / (2n * total);
    const amount = cut - given;
    given = cut;
    return { candidate, amount };
  });
}

export const supportsOf = ({ winners, backing }: Election): ReadonlyMap<number, Balance> => {
  const supports = new Map<number, Balance>(winners.map((each) => [each, 0n]));
  for (const edges of backing) {
    for (const { candidate, amount } of edges) supports.set(candidate, supports.get(candidate)! + amount);
  }
  return supports;
};

/**
 * Lets every voter in turn spread its stake so that the least backed of its winners have most, up to `rounds` times or
 * until nothing moves. The least support never falls, and nobody's stake is worth more or less than before.
 */
export function balance(election: Election, rounds: number): Election {
  const supports = new Map(supportsOf(election));
  const backing = election.backing.map((edges) => [...edges]);
  for (let round = 0; round < rounds; round++) {
    let moved = 0n;
    for (const [v, edges] of backing.entries()) {
      if (edges.length < 2) continue;
      const spread = level(edges, supports);
      for (const [i, { candidate, amount }] of spread.entries()) {
        const before = edges[i]!.amount;
        supports.set(candidate, supports.get(candidate)! + amount - before);
        const change = amount > before ? amount - before : before - amount;
        if (change > moved) moved = change;
      }
      backing[v] = spread;
    }
    // Single units go back and forth for ever where a level is no whole number.
    if (moved <= 1n) break;
  }
  return { winners: election.winners, backing };
}

/** One voter's stake poured over its winners from the lowest up, as water finds its level. In the order of the edges. */
function level(edges: readonly Edge[], supports: ReadonlyMap<number, Balance>): Edge[] {
  const stake = edges.reduce((sum, { amount }) => sum + amount, 0n);
  const lowestFirst = edges
    .map(({ candidate, amount }, at) => ({ at, candidate, without: supports.get(candidate)! - amount }))
    .sort((a, b) => (a.without < b.without ? -1 : a.without > b.without ? 1 : a.candidate - b.candidate));
  let wet = 0;
  let sum = stake;
  // One more is reached as long as the level would stand above it.
  while (wet < lowestFirst.length && lowestFirst[wet]!.without * BigInt(wet) < sum) {
    sum += lowestFirst[wet]!.without;
    wet++;
  }
  const out = edges.map((each): Edge => ({ candidate: each.candidate, amount: 0n }));
  if (wet === 0) return out;
  const height = sum / BigInt(wet);
  let rest = sum - height * BigInt(wet);
  for (const { at, candidate, without } of lowestFirst.slice(0, wet)) {
    const extra = rest > 0n ? 1n : 0n;
    rest -= extra;
    out[at] = { candidate, amount: height - without + extra };
  }
  return out;
}
