/** Features and fits through the protocol, with a child that misbehaves on demand. */
import { test } from 'tap';
import type { FeatureBases } from '../../../gpu-worker/attribution/extractor.ts';
import { blockEntries } from '../../../gpu-worker/attribution/layout.ts';
import { rotator } from '../../../gpu-worker/attribution/projection.ts';
import { quantise } from '../../../gpu-worker/attribution/quantise.ts';
import type { Adapter, LoadedModel } from '../../../gpu-worker/engines/engine.ts';
import { fitFeatures, openFeatures } from '../../../gpu-worker/engines/features.ts';
import { FILES, failure, start } from './fake-engine.ts';

const EXAMPLES = Array.from({ length: 70 }, (_, i) => ({ tokens: [i, 1, 2], from: 1 }));
const SETTINGS = {
  ...{ k: 3, sketchWidth: 16, sketchSeed: 2n ** 64n - 3n, rotationSeed: 8n, damping: 0.01, projectionRows: 20 },
};

function basesOf(model: LoadedModel, adapter: Adapter): FeatureBases {
  const layout = model.layout(adapter.lora, { block: 4 });
  return {
    layout,
    eigenbases: {
      rank: layout.matrices.map(({ rank }) => new Float32Array(rank ** 2)),
      hidden: layout.matrices.map(({ hidden }) => new Float32Array(blockEntries(hidden, layout.block))),
      lambda: new Float32Array(layout.size).fill(1),
      damping: 0.01,
    },
    projection: { k: 3, width: 16, vectors: new Float32Array(48), energy: new Float32Array(3) },
    sketchSeed: SETTINGS.sketchSeed,
    rotationSeed: SETTINGS.rotationSeed,
  };
}

test('features in opened bases, also by the process that takes over', { timeout: 60_000 }, async (t) => {
  const rotate = rotator(3, SETTINGS.rotationSeed);
  for (const mode of ['good', 'crash at a feature']) {
    const { load, end } = start(t, mode);
    const model = await load();
    const adapter = await model.openAdapter(FILES);
    const source = await openFeatures(model, basesOf(model, adapter));
    const others = await openFeatures(model, basesOf(model, adapter));
    await others.close();
    t.equal(source.k, 3);
    let index = 0;
    for await (const each of source.features(EXAMPLES, adapter, { stride: 2 })) {
      const along = [index, index + 1, index + 2];
      t.equal(each.index, index);
      t.same(each.row, quantise(rotate(along)), 'turned and quantised here');
      const part = along.reduce((sum, value) => sum + value ** 2, 0) / (4 * (index + 1) ** 2);
      t.ok(Math.abs(each.captured - part) < 1e-6);
      index++;
    }
    t.equal(index, 70);
    t.equal(model.metrics().restarts, mode === 'good' ? 0 : 1);
    await source.close();
    await source.close();
    await adapter.close();
    const late = async () => {
      for await (const _ of source.features(EXAMPLES, adapter));
    };
    t.equal((await failure(late())).code, 'ADAPTER_CLOSED');
    const again = await model.openAdapter(FILES);
    const closed = async () => {
      for await (const _ of source.features(EXAMPLES, again));
    };
    t.equal((await failure(closed())).code, 'BAD_REQUEST', 'bases that were closed');
    const aborted = async () => {
      for await (const _ of source.features(EXAMPLES, again, { signal: AbortSignal.abort() }));
    };
    t.equal((await failure(aborted())).name, 'AbortError');
    await model.close();
    t.equal((await failure(openFeatures(model, basesOf(model, adapter)))).code, 'ENGINE_CLOSED');
    await end();
  }
});

test('a fit goes on where a process had got to, and is told of once', { timeout: 60_000 }, async (t) => {
  const { load, end } = start(t, 'crash in a fit');
  const model = await load();
  const adapter = await model.openAdapter(FILES);
  const told: [string, number][] = [];
  const { bases, rows } = await fitFeatures(model, EXAMPLES, adapter, SETTINGS, {
    block: 4,
    progress: (phase, done) => told.push([phase, done]),
  });
  t.equal(model.metrics().restarts, 2);
  t.same(
    told,
    ['gradients', 'bases', 'features'].flatMap((phase) => [
      [phase, 0.5],
      [phase, 1],
    ]),
  );
  t.same(bases.layout, model.layout(adapter.lora, { block: 4 }));
  const { rank, hidden, lambda, damping } = bases.eigenbases;
  t.same([rank.map(([first]) => first), damping], [[0, 4, 8, 12], 0.01], 'cut into matrices');
  // Hidden sides of 4 and of 6 in blocks of 4: 16, and 16 + 4 entries.
  t.same(
    hidden.map((each) => [each[0], each.length]),
    [
      [100, 16],
      [116, 20],
      [136, 16],
      [152, 20],
    ],
  );
  t.same([lambda.length, lambda[39]], [40, 239]);
  const { k, width, vectors, energy } = bases.projection;
  t.same([k, width, vectors.length, vectors[0], energy[2]], [3, 16, 48, 300, 402]);
  t.same([bases.sketchSeed, bases.rotationSeed], [SETTINGS.sketchSeed, SETTINGS.rotationSeed]);
  t.equal(rows.length, 70);
  t.same(rows[1], quantise(rotator(3, 8n)([504, 505, 506])));
  await end();

  const other = start(t, 'crash in each fit');
  const stuck = await other.load();
  const given = fitFeatures(stuck, EXAMPLES, await stuck.openAdapter(FILES), SETTINGS, { block: 4 });
  const error = await failure(given);
  t.same(
    [error.code, /died \d times/.test(error.message)],
    ['ENGINE_FAILED', true],
    'one that gets no further is given up',
  );
  await other.end();
});

test('answers of another shape, bases that are none, and fits that are given up', { timeout: 60_000 }, async (t) => {
  for (const [mode, what, code] of [
    ['no bases', 'open', 'BAD_REQUEST'],
    ['wide features', 'features', 'ENGINE_FAILED'],
    ['short fit', 'fit', 'ENGINE_FAILED'],
    ['odd phase', 'fit', 'ENGINE_FAILED'],
  ] as const) {
    const { load, end } = start(t, mode);
    const model = await load();
    const adapter = await model.openAdapter(FILES);
    const body = async (): Promise<void> => {
      if (what === 'fit') await fitFeatures(model, EXAMPLES, adapter, SETTINGS, { block: 4 });
      else {
        const source = await openFeatures(model, basesOf(model, adapter));
        for await (const _ of source.features(EXAMPLES, adapter));
      }
    };
    t.equal((await failure(body())).code, code, mode);
    await end();
  }
  const { load, end } = start(t, 'endless fit');
  const model = await load();
  const adapter = await model.openAdapter(FILES);
  const abort = new AbortController();
  const given = fitFeatures(model, EXAMPLES, adapter, SETTINGS, {
    ...{ block: 4, signal: abort.signal },
    progress: () => abort.abort(),
  });
  t.equal((await failure(given)).name, 'AbortError');
  await end();
});
