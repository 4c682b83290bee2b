/** Elections against published examples, the exact method in rationals, and what theory says of their outcomes. */
import t from 'tap';
import {
  balance,
  type Election,
  sequentialPhragmen,
  supportsOf,
  type Voter,
} from '../../../runtime/primitives/election.ts';

const voter = (stake: number | bigint, ...targets: number[]): Voter => ({ stake: BigInt(stake), targets });
const supports = (election: Election): Record<number, bigint> =>
  Object.fromEntries([...supportsOf(election)].sort(([a], [b]) => a - b));
const sum = (amounts: readonly bigint[]): bigint => amounts.reduce((total, each) => total + each, 0n);

t.test('examples of the literature', async (test) => {
  await test.test("Phragmén's own of 1899, as Brill et al. and Janson tell it", async (sub) => {
    const [A, B, C, P, Q, R] = [0, 1, 2, 3, 4, 5];
    const ballots = [voter(1034, A, B, C), voter(519, P, Q, R), voter(90, A, B, Q), voter(47, A, P, Q)];
    sub.same(sequentialPhragmen(6, ballots, 3).winners, [A, Q, B]);
  });

  // The examples that sp-npos-elections, the reference for Polkadot, tests itself with.
  await test.test('three voters, two seats, with and without balancing', async (sub) => {
    const voters = [voter(10, 1, 2), voter(20, 1, 3), voter(30, 2, 3)];
    const elected = sequentialPhragmen(4, voters, 2);
    sub.same(elected.winners, [3, 2]);
    sub.same(supports(elected), { 2: 25n, 3: 35n });
    sub.same(elected.backing[2], [
      { candidate: 3, amount: 15n },
      { candidate: 2, amount: 15n },
    ]);
    const balanced = balance(elected, 4);
    sub.same(supports(balanced), { 2: 30n, 3: 30n });
    sub.same(balanced.backing[2], [
      { candidate: 3, amount: 10n },
      { candidate: 2, amount: 20n },
    ]);
  });
  await test.test('five candidates for four seats', async (sub) => {
    const voters = [voter(10, 1, 2), voter(20, 1, 3), voter(30, 1, 2, 3, 4), voter(40, 1, 3, 4, 5), voter(50, 2, 4, 5)];
    const elected = sequentialPhragmen(6, voters, 4);
    sub.same(elected.winners, [4, 1, 2, 3]);
    sub.same(Object.values(supports(balance(elected, 4))).sort(), [37n, 37n, 38n, 38n]);
  });
  await test.test('stakes of eighteen digits', async (sub) => {
    const [small, large] = [4_000_000n, 10n ** 18n];
    const elected = sequentialPhragmen(2, [voter(large, 0, 1), voter(small, 0), voter(small, 1)], 2);
    sub.same(elected.winners, [0, 1]);
    sub.same(supports(balance(elected, 4)), { 0: 500_000_000_004_000_000n, 1: 500_000_000_004_000_000n });
    const many = [
      1n,
      100n,
      10n ** 6n,
      100_000_000_001_000n,
      18n * 10n ** 15n,
      500_000_000_000_100_000n,
      500_000_000_000_200_000n,
    ];
    const voters = [voter(990_000_000_000_000_000n, 0, 1, 2, 3, 4, 5, 6), ...many.map((stake, c) => voter(stake, c))];
    sub.same(sequentialPhragmen(7, voters, 2).winners, [6, 5]);
  });
  test.same(sequentialPhragmen(3, [voter(10, 0), voter(0, 1)], 3).winners, [0], 'nobody wins without stake');
  test.same(sequentialPhragmen(0, [], 3), { winners: [], backing: [] });
});

// ---- random elections ----------------------------------------------------------------------------------------

/** xorshift32: the same elections on every machine. */
function chance(seed: number): (below: number) => number {
  let state = seed * 2_654_435_769 + 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

interface Case {
  readonly candidates: number;
  readonly voters: readonly Voter[];
  readonly seats: number;
}

function randomCase(seed: number): Case {
  const roll = chance(seed);
  const candidates = 2 + roll(6);
  const large = roll(2) === 0;
  const voters = Array.from({ length: 1 + roll(12) }, () => {
    const targets = Array.from({ length: candidates }, (_, c) => c).filter(() => roll(2) === 0);
    const stake = large ? BigInt(1 + roll(2 ** 31)) * 10n ** 18n + BigInt(roll(2 ** 31)) : BigInt(1 + roll(9));
    return { stake, targets };
  });
  return { candidates, voters, seats: 1 + roll(4) };
}

interface Fraction {
  readonly over: bigint;
  readonly under: bigint;
}
const gcd = (a: bigint, b: bigint): bigint => (b === 0n ? a : gcd(b, a % b));
const fraction = (over: bigint, under: bigint): Fraction => {
  const common = gcd(over, under);
  return { over: over / common, under: under / common };
};
const plus = (a: Fraction, b: Fraction): Fraction => fraction(a.over * b.under + b.over * a.under, a.under * b.under);
const compare = (a: Fraction, b: Fraction): number => {
  const [x, y] = [a.over * b.under, b.over * a.under];
  return x < y ? -1 : x > y ? 1 : 0;
};
const NOTHING = fraction(0n, 1n);

/** The method as it is defined, in exact fractions, following the order of `winners`: false where another had to win. */
function replay(
  { candidates, voters }: Case,
  winners: readonly number[],
): { valid: boolean; loads: Fraction[]; edges: Map<number, Fraction>[] } {
  const loads = voters.map(() => NOTHING);
  const edges = voters.map(() => new Map<number, Fraction>());
  const left = new Set(Array.from({ length: candidates }, (_, c) => c));
  let valid = true;
  for (const winner of winners) {
    const score = (c: number): Fraction | undefined => {
      const backers = voters.map((each, v) => [each, v] as const).filter(([{ targets }]) => targets.includes(c));
      const approval = sum(backers.map(([{ stake }]) => stake));
      if (approval === 0n) return undefined;
      const carried = backers.reduce(
        (total, [{ stake }, v]) => plus(total, fraction(stake * loads[v]!.over, loads[v]!.under)),
        fraction(1n, 1n),
      );
      return fraction(carried.over, carried.under * approval);
    };
    const own = score(winner);
    if (own === undefined) return { valid: false, loads, edges };
    for (const c of left) {
      const other = score(c);
      if (other !== undefined && compare(other, own) < 0) valid = false;
    }
    left.delete(winner);
    voters.forEach(({ targets }, v) => {
      if (!targets.includes(winner)) return;
      const before = loads[v]!;
      edges[v]!.set(winner, plus(own, fraction(-before.over, before.under)));
      loads[v] = own;
    });
  }
  return { valid, loads, edges };
}

const subsets = (items: readonly number[]): number[][] =>
  Array.from({ length: 2 ** items.length }, (_, mask) => items.filter((_, i) => (mask >> i) & 1));

/** Proportional justified representation by its definition (Brill et al., section 2), weighted by stake. */
function violatesPjr({ candidates, voters, seats }: Case, winners: readonly number[]): boolean {
  const total = sum(voters.filter(({ targets }) => targets.length > 0).map(({ stake }) => stake));
  const all = Array.from({ length: candidates }, (_, c) => c);
  return subsets(all).some((common) => {
    const size = BigInt(common.length);
    if (size === 0n || common.length > seats) return false;
    const united = voters.filter(({ targets }) => common.every((each) => targets.includes(each)));
    return subsets(winners).some((covered) => {
      if (covered.length >= common.length) return false;
      const deserted = united.filter(({ targets }) =>
        targets.every((each) => !winners.includes(each) || covered.includes(each)),
      );
      return deserted.length > 0 && sum(deserted.map(({ stake }) => stake)) * BigInt(seats) >= size * total;
    });
  });
}

/** The most that the least backed winner can have: the poorest group of winners shares all that its voters have (Hall). */
const bestMinimum = ({ voters }: Case, winners: readonly number[]): bigint =>
  subsets(winners)
    .filter((each) => each.length > 0)
    .map(
      (group) =>
        sum(voters.filter(({ targets }) => targets.some((each) => group.includes(each))).map(({ stake }) => stake)) /
        BigInt(group.length),
    )
    .reduce((a, b) => (a < b ? a : b));

const least = (election: Election): bigint => [...supportsOf(election).values()].reduce((a, b) => (a < b ? a : b));

t.test('2,000 random elections against exact fractions and theory', async (test) => {
  const failures: string[] = [];
  for (let seed = 1; seed <= 2_000; seed++) {
    const given = randomCase(seed);
    const elected = sequentialPhragmen(given.candidates, given.voters, given.seats);
    const fault = (what: string): void => void failures.push(`seed ${seed}: ${what}`);
    const backed = new Set(given.voters.flatMap(({ targets }) => targets)).size;
    if (elected.winners.length !== Math.min(given.seats, backed)) fault('seats are empty, or too many');
    const exact = replay(given, elected.winners);
    if (!exact.valid) fault('another candidate had the lower score');
    elected.backing.forEach((edges, v) => {
      const { stake } = given.voters[v]!;
      const load = exact.loads[v]!;
      for (const { candidate, amount } of edges) {
        const share = exact.edges[v]!.get(candidate)!;
        const wanted = (stake * share.over * load.under) / (share.under * load.over);
        const off = amount - wanted;
        if (off > BigInt(edges.length) || -off > BigInt(edges.length)) fault(`${amount} instead of ${wanted}`);
      }
      if (edges.length > 0 && sum(edges.map(({ amount }) => amount)) !== stake) fault('a stake is not given whole');
    });
    if (elected.winners.length === given.seats && violatesPjr(given, elected.winners)) fault('PJR does not hold');
    if (elected.winners.length === 0) continue;

    const once = balance(elected, 1);
    const balanced = balance(elected, 2_000);
    if (least(once) < least(elected) || least(balanced) < least(once)) fault('balancing took from the poorest');
    const after = supportsOf(balanced);
    balanced.backing.forEach((edges, v) => {
      if (edges.some(({ amount }) => amount < 0n)) fault('a negative amount');
      if (edges.length > 0 && sum(edges.map(({ amount }) => amount)) !== given.voters[v]!.stake)
        fault('stake was lost');
      const lowest = edges.map(({ candidate }) => after.get(candidate)!).reduce((a, b) => (a < b ? a : b), 2n ** 127n);
      for (const { candidate, amount } of edges) {
        // Unbalanced: a voter gives to one who has more than another it could give to.
        if (amount > 0n && after.get(candidate)! > lowest + BigInt(2 * given.voters.length)) fault('not balanced');
      }
    });
    if (bestMinimum(given, elected.winners) - least(balanced) > BigInt(2 * given.voters.length)) {
      fault(`the poorest has ${least(balanced)} and could have ${bestMinimum(given, elected.winners)}`);
    }
  }
  test.same(failures, []);
});

t.test('an election as large as the chain allows', async (test) => {
  const roll = chance(7);
  const voters = Array.from({ length: 2_048 }, () => ({
    stake: BigInt(1 + roll(2 ** 31)) * 10n ** 15n,
    targets: [...new Set(Array.from({ length: 16 }, () => roll(256)))],
  }));
  const began = performance.now();
  const elected = balance(sequentialPhragmen(256, voters, 100), 8);
  test.comment(`2,048 voters with 16 votes for 100 of 256: ${Math.round(performance.now() - began)} ms`);
  test.equal(elected.winners.length, 100);
  const values = [...supportsOf(elected).values()];
  test.equal(
    sum(values),
    sum(
      voters.filter(({ targets }) => targets.some((each) => elected.winners.includes(each))).map(({ stake }) => stake),
    ),
  );
});
