import { test } from 'tap';
import { rowKernel } from '../../../gpu-worker/attribution/row-kernel.ts';
import { influenceByRows, rowDots } from '../../../runtime/primitives/attribution/influence.ts';
import { account, random } from '../../runtime/attribution/world.ts';

test('the SIMD kernel gives the integers of the plain version', async (t) => {
  for (const [rows, k, extreme] of [
    [0, 16, false],
    [1, 1, false],
    [3, 15, false],
    [70, 16, false],
    [33, 17, false],
    [200, 256, false],
    [9, 1024, true],
    [400, 100, true],
  ] as const) {
    const rng = random(rows * 1000 + k);
    const table = {
      k,
      rows,
      contributors: [0, 1, 2].map(account),
      owner: Uint32Array.from({ length: rows }, () => rng.below(3)),
      novelty: Uint32Array.from({ length: rows }, () => rng.below(65_537)),
      scale: Uint32Array.from({ length: rows }, () => rng.below(33_818_641)),
      values: Int8Array.from({ length: rows * k }, () => (extreme ? -127 : rng.below(255) - 127)),
    };
    const queries = Array.from({ length: 7 }, () =>
      Int8Array.from({ length: k }, () => (extreme ? 127 : rng.below(255) - 127)),
    );
    const kernel = rowKernel(table);
    t.same(
      kernel.influence(queries),
      queries.map((u) => influenceByRows(table, u)),
      `${rows} × ${k}`,
    );
    const dots = kernel.dots(queries.slice(0, 3)).slice(rows, 2 * rows);
    t.same(dots, rowDots(table, queries[1]!));
    t.throws(() => kernel.dots([new Int8Array(k + 1)]), { code: 'WRONG_WIDTH' });
    t.throws(() => kernel.dots(queries), { code: 'WRONG_WIDTH' });
  }
});
