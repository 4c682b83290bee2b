/** The arithmetic of features in float32 against the same in float64, at sizes that fill no vector. */
import { test } from 'tap';
import { featureKernel } from '../../../gpu-worker/attribution/feature-kernel.ts';
import { blockEntries, gradientLayout } from '../../../gpu-worker/attribution/layout.ts';
import { rotation } from '../../../gpu-worker/attribution/precondition.ts';
import { dot, uniforms } from '../../../gpu-worker/attribution/seeded.ts';

test('turns and projections', async (t) => {
  for (const [block, k, width, sizes] of [
    [
      32,
      256,
      8192,
      [
        [8, 192],
        [8, 512],
      ],
    ],
    [
      10,
      5,
      256,
      [
        [3, 47],
        [1, 9],
        [6, 30],
      ],
    ],
    [8, 1, 512, [[5, 7]]],
  ] as const) {
    const next = uniforms(BigInt(block * 1000 + k));
    const random = (count: number): Float32Array => Float32Array.from({ length: count }, () => next() - 0.5);
    const layout = gradientLayout(
      sizes.map(([rank, hidden], i) => ({ name: `m${i}`, rank, hidden })),
      block,
    );
    const bases = {
      rank: layout.matrices.map(({ rank }) => random(rank * rank)),
      hidden: layout.matrices.map(({ hidden }) => random(blockEntries(hidden, block))),
    };
    const projection = { k, width, vectors: random(k * width), energy: new Float32Array(k) };
    const kernel = featureKernel(layout, bases, projection);
    const gradient = random(layout.size);
    const turned = new Float64Array(layout.size);
    rotation(layout, bases).turn(gradient, turned);
    const apart = (mine: ArrayLike<number>, theirs: ArrayLike<number>): number => {
      let worst = 0;
      for (let i = 0; i < theirs.length; i++) worst = Math.max(worst, Math.abs(mine[i]! - theirs[i]!));
      return worst / Math.sqrt(dot(theirs, theirs) / theirs.length);
    };
    const name = `${JSON.stringify(sizes)}, blocks of ${block}, k = ${k}`;
    const first = Float32Array.from(kernel.turn(gradient));
    t.equal(first.length, layout.size);
    t.ok(apart(first, turned) < 1e-6, `${name}: turned within ${apart(first, turned)}`);
    const sketch = Float64Array.from(random(width));
    const along = Array.from({ length: k }, (_, c) =>
      dot(projection.vectors.subarray(c * width, (c + 1) * width), sketch),
    );
    const found = Float32Array.from(kernel.project(sketch));
    t.equal(found.length, k);
    t.ok(apart(found, along) < 1e-5, `${name}: projected within ${apart(found, along)}`);
    // What one call leaves behind does not show in the next.
    kernel.turn(random(layout.size));
    kernel.project(random(width));
    t.same(Float32Array.from(kernel.turn(gradient)), first, 'again, the same bits');
    t.same(Float32Array.from(kernel.project(sketch)), found);
    t.throws(() => kernel.turn(random(layout.size + 1)), { code: 'WRONG_SIZE' });
    t.throws(() => featureKernel(layout, { ...bases, rank: [] }, projection), { code: 'WRONG_SIZE' });
  }
});
