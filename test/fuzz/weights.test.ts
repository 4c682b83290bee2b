/** A short run of the weight fuzzer: what `npm run fuzz:weights` does for longer. */
import t from 'tap';
import { WEIGHT_CASES } from './weight-cases.ts';
import { check, isFault, runRandom } from './weights.ts';

t.setTimeout(240_000);
const told = ({ charged, took, ratio }: { charged: number; took: number; ratio: number }): string =>
  `charged ${charged.toFixed(2)} ms, took ${took.toFixed(2)} ms: ${ratio.toFixed(2)}`;

t.test('no transaction at the limits takes more than twice what it is charged', async (test) => {
  for (const each of WEIGHT_CASES) {
    const found = await check(each, 6);
    if (found === undefined) test.fail(`${each.name}: refused`);
    else test.notOk(isFault(found), `${each.name}: ${told(found)}`);
  }
});

t.test('nor does a random call', async (test) => {
  const found = await runRandom(Number(process.env.FUZZ_SEED ?? 1), 300);
  test.ok(found.length > 20);
  for (const each of found) test.notOk(isFault(each), `${each.name}: ${told(each)}`);
});
