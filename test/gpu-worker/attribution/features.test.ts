import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { test } from 'tap';
import { compareFeatures, cosineOf, missProbability, totalVariation } from '../../../gpu-worker/attribution/audit.ts';
import {
  readEigenbases,
  readProjection,
  writeEigenbases,
  writeProjection,
} from '../../../gpu-worker/attribution/basis-files.ts';
import { symmetricEigen } from '../../../gpu-worker/attribution/eigen.ts';
import { buildBases, featureExtractor } from '../../../gpu-worker/attribution/extractor.ts';
import { gradientLayout } from '../../../gpu-worker/attribution/layout.ts';
import { eigenbasesOf, GradientCovariances } from '../../../gpu-worker/attribution/precondition.ts';
import { orthonormalityError } from '../../../gpu-worker/attribution/projection.ts';
import { quantise } from '../../../gpu-worker/attribution/quantise.ts';
import { seededRotation, seededSample, splitMix64 } from '../../../gpu-worker/attribution/seeded.ts';
import { sjlt } from '../../../gpu-worker/attribution/sketch.ts';
import { VectorSpool } from '../../../gpu-worker/attribution/spool.ts';
import { rowFault } from '../../../runtime/primitives/attribution/features.ts';
import { influenceByRows } from '../../../runtime/primitives/attribution/influence.ts';
import { account, someHash } from '../../runtime/attribution/world.ts';
import { fingerprint, normal, synthetic } from './synthetic.ts';

const vectors = new URL('../../vectors/attribution/known-answers.json', import.meta.url);
const answers = JSON.parse(readFileSync(vectors, 'utf8'));
const doubles = (base64: string): Float64Array =>
  new Float64Array(new Uint8Array(Buffer.from(base64, 'base64')).buffer);
const floats = (base64: string): Float32Array => new Float32Array(new Uint8Array(Buffer.from(base64, 'base64')).buffer);

test('seeds', async (t) => {
  for (const { seed, index, value } of answers.splitmix) {
    t.equal(String(splitMix64(BigInt(seed), index)), value, 'SplitMix64 as in Python');
  }
  const k = 64;
  const h = seededRotation(9n, k);
  let worst = 0;
  for (let i = 0; i < k; i++) {
    for (let j = 0; j <= i; j++) {
      let dot = 0;
      for (let c = 0; c < k; c++) dot += h[i * k + c]! * h[j * k + c]!;
      worst = Math.max(worst, Math.abs(dot - (i === j ? 1 : 0)));
    }
  }
  t.ok(worst < 1e-14, `H Hᵀ = 1 within ${worst}`);
  const sample = seededSample(4n, 1000, 100);
  t.equal(new Set(sample).size, 100);
  t.same(sample, seededSample(4n, 1000, 100));
  t.notSame(sample, seededSample(5n, 1000, 100));
  t.same(seededSample(4n, 3, 9), [0, 1, 2]);
});

test('eigen-decomposition', async (t) => {
  const known = symmetricEigen(doubles(answers.eigen.matrix), answers.eigen.n).values;
  const wanted = doubles(answers.eigen.values);
  t.ok(
    known.every((value, i) => Math.abs(value - wanted[i]!) < 1e-12 * wanted.at(-1)!),
    'values as LAPACK finds them',
  );

  const check = (a: Float64Array, n: number, label: string): void => {
    const { values, vectors: v } = symmetricEigen(a, n);
    const scale = Math.max(1e-300, ...a.map(Math.abs));
    let reconstruction = 0;
    let orthogonality = 0;
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) {
        let sum = 0;
        let dot = 0;
        for (let c = 0; c < n; c++) {
          sum += values[c]! * v[c * n + i]! * v[c * n + j]!;
          dot += v[i * n + c]! * v[j * n + c]!;
        }
        reconstruction = Math.max(reconstruction, Math.abs(sum - a[i * n + j]!) / scale);
        orthogonality = Math.max(orthogonality, Math.abs(dot - (i === j ? 1 : 0)));
      }
    }
    t.ok(reconstruction < 2e-14 * n, `${label}: Q Λ Qᵀ = A within ${reconstruction}`);
    t.ok(orthogonality < 2e-14 * n, `${label}: Q Qᵀ = 1 within ${orthogonality}`);
    t.ok(
      values.every((value, i) => i === 0 || value >= values[i - 1]!),
      `${label}: ascending`,
    );
  };
  const symmetric = (n: number, entry: (i: number, j: number) => number): Float64Array => {
    const a = new Float64Array(n * n);
    for (let i = 0; i < n; i++) for (let j = 0; j <= i; j++) a[i * n + j] = a[j * n + i] = entry(i, j);
    return a;
  };
  const next = normal(3);
  for (const n of [1, 2, 3, 8, 33, 64, 150])
    check(
      symmetric(n, () => next()),
      n,
      `random ${n}`,
    );
  check(
    symmetric(20, (i, j) => (i === j ? 3 : 0)),
    20,
    'a multiple of 1',
  );
  check(
    symmetric(20, () => 0),
    20,
    'zero',
  );
  check(
    symmetric(20, () => 1),
    20,
    'rank one',
  );
  const few = Array.from({ length: 40 }, () =>
    Float64Array.from({ length: 200 }, () => next() * 10 ** -Math.abs(next())),
  );
  check(
    symmetric(200, (i, j) => few.reduce((sum, row) => sum + row[i]! * row[j]!, 0)),
    200,
    'of low rank, as where most records are copies',
  );
  check(
    symmetric(12, (i, j) => 1 / (i + j + 1)),
    12,
    'Hilbert',
  );
  check(
    symmetric(30, (i, j) => (i === j ? 10 ** (i - 15) : 1e-20)),
    30,
    'graded',
  );
  check(
    symmetric(21, (i, j) => (i === j ? Math.abs(i - 10) : i - j === 1 ? 1 : 0)),
    21,
    'Wilkinson, nearly double',
  );
  check(
    symmetric(6, (i, j) => 1e-160 * (i + j)),
    6,
    'tiny',
  );
  t.throws(() => symmetricEigen([Number.NaN, Number.NaN, Number.NaN, Number.NaN], 2), { code: 'NO_CONVERGENCE' });
});

test('the pipeline agrees with numpy', async (t) => {
  const { block, width, k, damping, seed, matrices } = answers.pipeline;
  const layout = gradientLayout(matrices, block);
  const gradients = floats(answers.pipeline.gradients);
  using spool = new VectorSpool(layout.size);
  for (let i = 0; i < 24; i++) spool.append(gradients.subarray(i * layout.size, (i + 1) * layout.size));
  const covariances = answers.pipeline.covariances.map((each: { rank: string; hidden: string }) => ({
    rank: doubles(each.rank),
    hidden: doubles(each.hidden),
  }));

  const own = new GradientCovariances(layout);
  for (let i = 0; i < 24; i++) own.add(spool.at(i));
  t.same(
    eigenbasesOf(layout, own.finish()).rank.map((each) => each.map((value) => Math.round(value * 1e5))),
    eigenbasesOf(layout, covariances).rank.map((each) => each.map((value) => Math.round(value * 1e5))),
    'covariances from gradients',
  );

  const settings = { k, sketchWidth: width, sketchSeed: BigInt(seed), rotationSeed: 7n, damping, projectionRows: 1024 };
  const bases = await buildBases(layout, spool, covariances, settings);
  const lambda = doubles(answers.pipeline.lambda);
  t.ok(
    bases.eigenbases.lambda.every((value, i) => Math.abs(value - lambda[i]!) < 1e-5 * lambda[i]! + 1e-9),
    'Λ',
  );
  const extractor = featureExtractor(bases);
  const sketch = doubles(answers.pipeline.sketch);
  let worst = 0;
  for (let i = 0; i < 24; i++) {
    const mine = extractor.sketched(spool.at(i));
    for (let j = 0; j < width; j++) worst = Math.max(worst, Math.abs(mine[j]! - sketch[i * width + j]!));
  }
  t.ok(worst < 1e-4, `sketches within ${worst}`);
  const inner = doubles(answers.pipeline.inner);
  const z = Array.from({ length: 24 }, (_, i) => extractor.reduced(spool.at(i)));
  const rows = Array.from({ length: 24 }, (_, i) => extractor.feature(spool.at(i)));
  let reduced = 0;
  let quantised = 0;
  for (let i = 0; i < 24; i++) {
    for (let j = 0; j < 24; j++) {
      reduced = Math.max(reduced, Math.abs(cosineOf(z[i]!, z[j]!) - inner[i * 24 + j]!));
      quantised = Math.max(quantised, Math.abs(cosineOf(rows[i]!.values, rows[j]!.values) - inner[i * 24 + j]!));
    }
  }
  t.ok(reduced < 1e-4, `inner products of reduced rows within ${reduced}`);
  t.ok(quantised < 0.02, `and quantised within ${quantised}`);
});

test('sketching keeps inner products', async (t) => {
  const size = 5000;
  const next = normal(8);
  const draw = () => Float64Array.from({ length: size }, next);
  const ones = new Float64Array(size).fill(1);
  const a = draw();
  const b = a.map((value) => 0.6 * value + 0.8 * next());
  const exact = cosineOf(a, b);
  const errors: number[] = [];
  for (let seed = 0n; seed < 20n; seed++) {
    const { add } = sjlt(seed, size, 1024);
    const [x, y] = [new Float64Array(1024), new Float64Array(1024)];
    add(a, ones, x);
    add(b, ones, y);
    errors.push(x.reduce((sum, value, i) => sum + value * y[i]!, 0) / size - exact);
  }
  const mean = errors.reduce((sum, value) => sum + value, 0) / 20;
  t.ok(Math.abs(mean) < 0.03, `unbiased: ${mean}`);
  t.ok(Math.max(...errors.map(Math.abs)) < 0.15, `within ${Math.max(...errors.map(Math.abs))}`);
  t.throws(() => sjlt(1n, 10, 1000), { code: 'BAD_WIDTH' });
});

test('quantisation', async (t) => {
  const next = normal(12);
  for (let run = 0; run < 50; run++) {
    const z = Float64Array.from({ length: 256 }, () => next() * 10 ** (run - 25));
    const { scale, values } = quantise(z);
    const norm = Math.sqrt(z.reduce((sum, value) => sum + value * value, 0));
    const sigma = scale / 2 ** 32;
    const worst = Math.max(...z.map((value, j) => Math.abs(value / norm - sigma * values[j]!)));
    t.ok(worst <= sigma * 0.5001, 'each entry within half a step');
    t.equal(Math.max(...values.map(Math.abs)), 127);
    const row = {
      index: 0,
      record: someHash('r'),
      tokens: someHash('t'),
      contributor: account(1),
      novelty: 65_536,
      nearest: 0,
      scale,
      values,
    };
    t.equal(rowFault(row, 0, 256), undefined, 'the chain takes it for a unit row');
  }
  t.same(quantise(new Float64Array(4)), { scale: 0, values: new Int8Array(4) });
  t.same([...quantise(Float64Array.of(254, 1, -1, -254)).values], [127, 1, -1, -127], 'halves away from zero');
});

test('bases and rows', async (t) => {
  const run = await synthetic(160);
  const { layout, bases, rows, spool } = run;
  t.ok(orthonormalityError(bases.projection) < 1e-6);
  const energy = [...bases.projection.energy];
  t.ok(energy.every((value, i) => i === 0 || value <= energy[i - 1]!));
  t.ok(energy.reduce((sum, value) => sum + value, 0) > 0.9, 'the strong directions are captured');

  const eigenbases = readEigenbases(writeEigenbases(layout, bases.eigenbases));
  const projection = readProjection(writeProjection(bases.projection));
  const again = featureExtractor({ ...bases, ...eigenbases, projection });
  for (let i = 0; i < rows.length; i += 17) {
    t.same(again.feature(spool.at(i)), rows[i], 'another worker recomputes a row from the files, to the bit');
  }
  const file = writeProjection(bases.projection);
  // At any place in memory; and without numbers that are none.
  for (const shift of [1, 4]) {
    const moved = new Uint8Array(file.length + shift);
    moved.set(file, shift);
    t.same(readProjection(moved.subarray(shift)), readProjection(file));
  }
  const odd = file.slice();
  new DataView(odd.buffer).setUint32(odd.length - 4, 0x7fc00000, true);
  t.throws(() => readProjection(odd), { code: 'BAD_BASIS_FILE' });
  t.throws(() => readProjection(file.subarray(0, file.length - 4)), { code: 'BAD_BASIS_FILE' });
  t.throws(() => readProjection(writeEigenbases(layout, bases.eigenbases)), { code: 'BAD_BASIS_FILE' });
  t.throws(() => readEigenbases(Uint8Array.of(1, 2, 3)), { code: 'BAD_BASIS_FILE' });
  t.throws(() => again.feature(new Float32Array(3)), { code: 'WRONG_SIZE' });

  // int8 against float: the order of influence hardly changes.
  const u = rows[3]!.values;
  const z = again.reduced(spool.at(3));
  const table = {
    k: 64,
    rows: rows.length,
    contributors: rows.map((_, i) => account(i)),
    owner: Uint32Array.from(rows.keys()),
    novelty: new Uint32Array(rows.length).fill(65_536),
    scale: Uint32Array.from(rows, (row) => row.scale),
    values: Int8Array.from(rows.flatMap((row) => [...row.values])),
  };
  const integer = influenceByRows(table, u).map(Number);
  const float = rows.map((_, i) => cosineOf(again.reduced(spool.at(i)), z));
  t.ok(cosineOf(integer, float) > 0.9995, `int8 against float: ${cosineOf(integer, float)}`);

  await t.test('the same bits from memory, from a scratch file, and in another process', async (t) => {
    const expected = fingerprint(run);
    const spooled = await synthetic(160, 100_000);
    t.equal(fingerprint(spooled), expected);
    spooled.spool.close();
    const script = `import { synthetic, fingerprint } from ${JSON.stringify(new URL('./synthetic.ts', import.meta.url).href)};
      console.log('FINGERPRINT ' + fingerprint(await synthetic(160)));`;
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], {
      env: { ...process.env, NODE_OPTIONS: '' },
    });
    t.match(stdout, `FINGERPRINT ${expected}`);
  });
  await t.rejects(
    buildBases(layout, spool, [], {
      k: 4,
      sketchWidth: 64,
      sketchSeed: 1n,
      rotationSeed: 1n,
      damping: 0.01,
      projectionRows: 9,
    }),
    { code: 'WRONG_SIZE' },
  );
  spool.close();
});

test('audits', async (t) => {
  const next = normal(4);
  const values = Float64Array.from({ length: 256 }, next);
  const noisy = (part: number) => values.map((value) => value + part * next());
  const amounts = [500n, 300n, 200n];
  const compare = (other: Float64Array, change: object = {}) =>
    compareFeatures({ values, norm: 1, amounts }, { values: other, norm: 1, amounts, ...change });
  t.equal(compare(values).fault, undefined);
  t.equal(compare(noisy(0.01)).fault, undefined);
  t.equal(compare(noisy(0.1)).fault, 'COSINE');
  t.equal(compare(values, { norm: 1.02 }).fault, 'NORM');
  t.equal(compare(values, { amounts: [480n, 320n, 200n] }).fault, 'SHARES');
  t.equal(compare(values, { amounts: [495n, 305n, 200n] }).fault, undefined);
  t.equal(compare(values.slice(1)).fault, 'WRONG_WIDTH');
  t.equal(compare(values.map(() => Number.NaN)).fault, 'COSINE');
  t.equal(compare(values, { norm: Number.NaN }).fault, 'NORM');
  t.equal(totalVariation([1n, 0n], [0n, 10n ** 30n]), 1);
  t.equal(totalVariation([0n], [0n]), 0);
  t.equal(totalVariation([], [3n]), 1);
  t.equal(totalVariation([3n, 1n], [2n, 2n]), 0.25);
  t.ok(Math.abs(1 - missProbability(10_000, 500, 64) - 0.96) < 0.01, '64 rows catch 5 % falsification with 96 %');
});
