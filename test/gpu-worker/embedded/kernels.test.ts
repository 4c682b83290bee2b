import { test } from 'tap';
import { random, shuffled } from '../../../gpu-worker/engines/embedded/random.ts';
import { sample } from '../../../gpu-worker/engines/embedded/sampler.ts';
import { Heap } from '../../../gpu-worker/wasm/heap.ts';
import { instantiate } from '../../../gpu-worker/wasm/kernels.ts';

test('products of any shape and stride are plain loops’', async (t) => {
  const heap = new Heap();
  const kernels = instantiate(heap.memory);
  const source = random(5n, 0);
  const block = (count: number): number => {
    const at = heap.alloc(count);
    heap.view(at, count).forEach((_, i, all) => {
      all[i] = source.unit() - 0.5;
    });
    return at;
  };
  let cases = 0;
  for (const m of [1, 2, 3, 4, 7, 33]) {
    for (const n of [4, 8, 12, 40]) {
      for (const k of [1, 4, 6, 31, 64]) {
        const turned = (m + n + k) % 2 === 0;
        const packed = k % 4 === 0 && n % 8 === 0 && !turned;
        const [aRow, aStep] = turned ? [4, m * 4] : [k * 4, 4];
        const [bTile, bRow] = packed ? [32 * k, 32] : [32, n * 4];
        const a = block(m * k);
        const b = block(n * k);
        const c = block(m * n);
        const before = heap.view(c, m * n).slice();
        const add = (m % 2) as 0 | 1;
        kernels.gemm(m, n, k, a, aRow, aStep, b, bTile, bRow, c, n * 4, 0.5, add);
        const f = heap.floats;
        let worst = 0;
        for (let i = 0; i < m; i++) {
          for (let j = 0; j < n; j++) {
            let sum = 0;
            for (let l = 0; l < k; l++) {
              const right = (b + Math.floor(j / 8) * bTile + (j % 8) * 4 + l * bRow) / 4;
              sum = Math.fround(sum + Math.fround(f[(a + i * aRow + l * aStep) / 4]! * f[right]!));
            }
            const want = Math.fround((add === 1 ? before[i * n + j]! : 0) + Math.fround(sum * 0.5));
            if (want !== f[c / 4 + i * n + j]) worst = Math.max(worst, Math.abs(want - f[c / 4 + i * n + j]!));
          }
        }
        if (worst !== 0) t.fail(`${m} × ${n} × ${k}: off by ${worst}`);
        cases++;
        for (const at of [a, b, c]) heap.free(at);
      }
    }
  }
  t.equal(cases, 120, 'each the same to the last bit');
  t.equal(heap.used, 0);
});

test('softmax, cross-entropy and the gated unit are their formulas', async (t) => {
  const heap = new Heap();
  const kernels = instantiate(heap.memory);
  const source = random(6n, 0);
  const rows = 9;
  const stride = 24;
  const x = heap.alloc(rows * stride);
  const given = Float32Array.from({ length: rows * stride }, () => (source.unit() - 0.5) * 60);
  heap.view(x, given.length).set(given);
  kernels.softmax(x, rows, stride * 4, 3, 20, 0.5);
  for (let row = 0; row < rows; row++) {
    const entries = Array.from(given.subarray(row * stride, row * stride + 3 + row), (v) => v * 0.5);
    const top = Math.max(...entries);
    const sum = entries.reduce((total, v) => total + Math.exp(v - top), 0);
    for (let i = 0; i < 20; i++) {
      const want = i < entries.length ? Math.exp(entries[i]! - top) / sum : 0;
      if (!(Math.abs(heap.floats[x / 4 + row * stride + i]! - want) < 4e-7)) t.fail(`row ${row}, entry ${i}`);
    }
  }
  heap.view(x, given.length).set(given);
  const factors = heap.alloc(rows);
  heap.view(factors, rows).fill(0.25);
  const out = heap.alloc(rows * 2);
  kernels.crossEntropy(x, rows, stride * 4, 21, factors, out);
  for (let row = 0; row < rows; row++) {
    const entries = given.subarray(row * stride, row * stride + 21);
    const top = Math.max(...entries);
    const sum = entries.reduce((total, v) => total + Math.exp(v - top), 0);
    t.equal(heap.floats[out / 4 + row * 2], top);
    t.ok(Math.abs(heap.floats[out / 4 + row * 2 + 1]! / sum - 1) < 1e-6);
    t.ok(Math.abs(heap.floats[x / 4 + row * stride + 7]! - (0.25 * Math.exp(entries[7]! - top)) / sum) < 1e-7);
  }
  const [gate, up, product] = [heap.alloc(32), heap.alloc(32), heap.alloc(32)];
  for (let i = 0; i < 32; i++) heap.floats[gate / 4 + i] = (i - 16) * 7;
  heap.view(up, 32).fill(2);
  kernels.gated(gate, up, product, 32);
  for (let i = 0; i < 32; i++) {
    const g = (i - 16) * 7;
    const want = (2 * g) / (1 + Math.exp(-g));
    t.ok(Math.abs(heap.floats[product / 4 + i]! - want) <= 1e-6 * Math.max(1, Math.abs(want)), `gate ${g}`);
  }
});

test('memory is given back and joined', async (t) => {
  const heap = new Heap(1 << 24);
  const blocks = Array.from({ length: 100 }, (_, i) => heap.alloc(1 + i * 37));
  t.ok(blocks.every((at) => at % 16 === 0));
  for (const [i, at] of blocks.entries()) heap.view(at, 1 + i * 37).fill(i);
  t.ok(
    blocks.every((at, i) => heap.view(at, 1 + i * 37).every((value) => value === i)),
    'none over another',
  );
  for (const i of shuffled(100, random(1n, 1))) heap.free(blocks[i]!);
  t.equal(heap.used, 0);
  const size = heap.memory.buffer.byteLength;
  heap.free(heap.alloc(size / 4 - 64));
  t.equal(heap.memory.buffer.byteLength, size, 'one free range again');
  t.throws(() => heap.alloc(1 << 23), { code: 'OUT_OF_MEMORY' });
  t.throws(() => heap.free(4096));
});

test('samples follow the distribution, top-p cuts it', async (t) => {
  const logits = Float32Array.of(0, Math.log(4), Math.log(3), Math.log(2), -50);
  const source = random(9n, 9);
  const counts = (temperature: number, topP: number): number[] => {
    const out = [0, 0, 0, 0, 0];
    for (let i = 0; i < 20_000; i++) out[sample(logits, temperature, topP, source.unit)]!++;
    return out.map((count) => count / 20_000);
  };
  const near = (got: number[], want: number[], what: string): void =>
    void t.ok(
      got.every((p, i) => Math.abs(p - want[i]!) < 0.015),
      `${what}: ${got}`,
    );
  near(counts(1, 1), [0.1, 0.4, 0.3, 0.2, 0], 'whole');
  near(counts(0.5, 1), [1 / 30, 16 / 30, 9 / 30, 4 / 30, 0], 'cooler');
  near(counts(1, 0.69), [0, 4 / 7, 3 / 7, 0, 0], 'the two that reach 0.69');
  near(counts(1, 0.71), [0, 4 / 9, 3 / 9, 2 / 9, 0], 'a third is needed for 0.71');
  near(counts(1, 1e-9), [0, 1, 0, 0, 0], 'one at least');
  t.same(counts(0, 1), [0, 1, 0, 0, 0], 'greedy');
  t.throws(() => sample(Float32Array.of(Number.NaN, Number.NaN), 1, 1, source.unit), { code: 'DIVERGED' });
});
