/** How deep a stack is must not decide what a block means. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';

t.test('blocks at the limits mean the same on a quarter of the stack', { timeout: 120_000 }, async (test) => {
  const script = fileURLToPath(new URL('deep-block.ts', import.meta.url));
  const run = async (...flags: string[]) =>
    (await promisify(execFile)(process.execPath, [...flags, script], { timeout: 60_000 })).stdout;
  // V8's default is 984 KiB.
  const [usual, little] = await Promise.all([run(), run('--stack-size=246')]);
  test.equal(little, usual);
  test.match(usual, /^(ok|BadOrigin|Module)(,(ok|BadOrigin|Module))+ 0x[0-9a-f]{64}\n$/);
});
