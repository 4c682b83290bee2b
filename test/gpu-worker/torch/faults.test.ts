import { test } from 'tap';
import { torchEngine } from '../../../gpu-worker/engines/torch/engine.ts';
import { FILES, failure, here, MODEL, REQUEST, start } from './fake-engine.ts';

test('what brings the engine down each time is given up, and lies are not believed', { timeout: 90_000 }, async (t) => {
  for (const mode of ['crash always', 'answers to nobody', 'not JSON', 'foreign file']) {
    const { load, end } = start(t, mode);
    const error = await failure((await load()).generate(REQUEST));
    t.equal(error.code, 'ENGINE_FAILED', mode);
    t.match(error.message, /3 times/, mode);
    await end();
  }
  for (const [mode, code] of [
    ['unknown code', 'ENGINE_FAILED'],
    ['out of memory', 'OUT_OF_MEMORY'],
    ['wrong tokens', 'ENGINE_FAILED'],
  ] as const) {
    const model = await start(t, mode).load();
    t.equal((await failure(model.generate(REQUEST))).code, code, mode);
  }
  const model = await start(t, 'short gradients').load();
  const adapter = await model.openAdapter(FILES);
  const gradients = (async () => {
    for await (const _ of model.gradients([{ tokens: [1, 2], from: 1 }], adapter));
  })();
  t.equal((await failure(gradients)).code, 'ENGINE_FAILED');

  for (const [mode, words] of [
    ['does not start', /no module named torch/],
    ['another protocol', /protocol 3/],
  ] as const) {
    const { load, end } = start(t, mode);
    const error = await failure(load());
    await end();
    t.equal(error.code, 'ENGINE_FAILED', mode);
    t.match(error.message, words);
  }
  t.match((await failure(start(t, 'silent', { helloMs: 500 }).load())).message, /no first word/);
  const missing = torchEngine({ python: here('no-such-python') });
  t.match((await failure(missing.load(MODEL))).message, /does not start/);
  await missing.close();
});

test('closing ends what runs, by force if need be', { timeout: 60_000 }, async (t) => {
  const { load, end } = start(t, 'does not stop', { stopMs: 300 });
  const model = await load();
  const begun = Promise.withResolvers<void>();
  const running = model.generate({ ...REQUEST, maxTokens: 90 }, { token: () => begun.resolve() });
  await begun.promise;
  await model.close();
  const { finish, tokens } = await running;
  t.equal(finish, 'aborted');
  t.ok(tokens.length > 0);
  t.equal(model.metrics().memoryBytes, 0);
  await model.close();
  await end();
});
