/** A short run of random calls and blocks: what `npm run fuzz:blocks` does a million times. */
import t from 'tap';
import { runBlocks } from './blocks.ts';

t.setTimeout(240_000);

t.test('random calls in blocks: nothing throws, and the invariants hold', async (test) => {
  const { fault, succeeded, blocks, kinds } = await runBlocks(Number(process.env.FUZZ_SEED ?? 1), 6_000);
  test.equal(fault, undefined);
  test.ok(blocks > 100 && succeeded > 300, `${succeeded} calls of ${kinds.size} kinds succeeded in ${blocks} blocks`);
  test.ok(kinds.size > 25, 'many kinds of calls succeed');
});

t.test('an invariant that does not hold is found', async (test) => {
  const wrong = { name: 'never', check: () => 'seen' };
  test.match((await runBlocks(1, 500, [wrong])).fault, /never: seen/);
});
