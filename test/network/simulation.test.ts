/** The short form of `npm run sim:grandpa`: some seeds, the same run from the same seed, and checks that can fail. */
import t from 'tap';
import { type SimulationOptions, simulate } from './simulation.ts';

/** Runs of 4 to 31 voters take between 20 ms and 3 s: so many seeds as fit, but at least these. */
const SEEDS = 12;
const BUDGET_MS = 15_000;

t.test('no two final blocks contradict each other, and finality returns', { timeout: 100_000 }, async (t) => {
  const end = performance.now() + BUDGET_MS;
  let faulty = 0;
  let crashes = 0;
  let seed = 1;
  for (; seed <= SEEDS || (performance.now() < end && seed <= 200); seed++) {
    const result = simulate(seed);
    if (result.failure !== undefined) t.fail(`seed ${seed}: ${result.failure}`);
    faulty += result.byzantine;
    crashes += result.crashes;
  }
  t.ok(faulty > 0, 'some voters lied');
  t.ok(crashes > 0, 'some nodes crashed');
});

t.test('a seed replays', async (t) => {
  const traces = [0, 1].map(() => {
    const lines: string[] = [];
    return { result: simulate(7, { trace: (line) => lines.push(line) }), lines };
  });
  t.same(traces[0]!.result, traces[1]!.result);
  t.ok(traces[0]!.lines.length > 20);
  t.equal(traces[0]!.lines.join('\n'), traces[1]!.lines.join('\n'));
});

t.test('what breaks the protocol is noticed', { timeout: 60_000 }, async (t) => {
  const firstSeed = (sabotage: NonNullable<SimulationOptions['sabotage']>, as: RegExp, from: number): number => {
    for (let seed = from; seed < from + 60; seed++) {
      const { failure } = simulate(seed, { sabotage });
      if (failure !== undefined && as.test(failure)) return seed;
    }
    return 0;
  };
  t.ok(firstSeed('forgetVotes', /voted twice/, 1) > 0, 'a journal that forgets its votes');
  t.ok(firstSeed('weakThreshold', /finalized .* where .* is final/, 25) > 0, 'a threshold below two thirds');
});
