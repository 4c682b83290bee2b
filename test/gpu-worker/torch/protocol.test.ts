import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'tap';
import { encodeFrame, ProtocolError, readFrames } from '../../../gpu-worker/engines/torch/protocol.ts';
import { FILES, failure, REQUEST, start, tokensOf } from './fake-engine.ts';

test('frames arrive as they were sent, however the bytes are cut', async (t) => {
  const scratch = mkdtempSync(join(tmpdir(), 'torch-frames-'));
  t.teardown(() => rmSync(scratch, { recursive: true }));
  const large = Uint8Array.from({ length: 9_000_001 }, (_, i) => i * 31);
  const sent = [
    { header: { type: 'a', text: 'naïve 😀', n: 1.5 }, parts: [] },
    { header: { type: 'b' }, parts: [Uint8Array.of(1, 2, 3), new Uint8Array(), Uint8Array.of(4)] },
    { header: { type: 'c' }, parts: [large.subarray(0, 5), large] },
    { header: { type: 'd' }, parts: [] },
  ];
  for (const size of [1, 7, 64, 1 << 20]) {
    const frames = await Promise.all(sent.map(({ header, parts }) => encodeFrame(header, parts, scratch)));
    t.equal(readdirSync(scratch).length, 1, 'only the large one lies on disk');
    const bytes = Buffer.concat(frames);
    const stream = (async function* () {
      for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
    })();
    let index = 0;
    for await (const { header, parts } of readFrames(stream, scratch)) {
      const want = sent[index++]!;
      t.same(header, want.header);
      t.equal(Buffer.compare(Buffer.concat(parts), Buffer.concat(want.parts)), 0);
      t.same(
        parts.map((part) => part.length),
        want.parts.map((part) => part.length),
      );
    }
    t.equal(index, sent.length);
    t.equal(readdirSync(scratch).length, 0, 'whoever reads it removes it');
  }
  const read = async (bytes: Uint8Array): Promise<unknown> => {
    const stream = (async function* () {
      yield bytes;
    })();
    try {
      for await (const _ of readFrames(stream, scratch));
      return undefined;
    } catch (error) {
      return error;
    }
  };
  const frame = (head: string, tail = ''): Uint8Array => {
    const bytes = Buffer.alloc(8);
    bytes.writeUInt32LE(Buffer.byteLength(head), 0);
    bytes.writeUInt32LE(tail.length, 4);
    return Buffer.concat([bytes, Buffer.from(head), Buffer.from(tail)]);
  };
  for (const [why, bytes] of Object.entries({
    'a length beyond bounds': Buffer.alloc(8, 255),
    'an end within a frame': frame('{}').subarray(0, 9),
    'no JSON': frame('{'),
    'no object': frame('[]'),
    'parts beyond the tail': frame('{"parts":[3]}', 'ab'),
    'parts short of the tail': frame('{"parts":[1]}', 'ab'),
    'a negative part': frame('{"parts":[-1,3]}', 'ab'),
    'a path': frame('{"file":"../x","parts":[]}'),
    'a file that is not there': frame('{"file":"x","parts":[]}'),
    'broken UTF-8': Buffer.concat([frame('{}').subarray(0, 8), Buffer.from([0xff, 0xfe])]),
  })) {
    t.ok((await read(bytes)) instanceof ProtocolError, why);
  }
});

test('calls, streams, aborts, stops', { timeout: 60_000 }, async (t) => {
  const { load, end } = start(t, 'good');
  const model = await load();
  t.equal(model.info.architecture, 'Fake');
  const adapter = await model.openAdapter(FILES);
  t.same(adapter.lora.targets, ['q_proj']);
  t.equal(model.layout(adapter.lora).size, 2 * 2 * (4 + 6));
  const seen: number[] = [];
  const made = await model.generate({ ...REQUEST, adapter }, { token: ({ id, index }) => seen.push(index, id) });
  t.same(made.tokens, tokensOf(REQUEST));
  t.same(
    seen,
    tokensOf(REQUEST).flatMap((id, index) => [index, id]),
  );
  t.equal(made.text, model.tokenizer.decode(made.tokens));
  t.equal(made.finish, 'length');
  t.equal(model.metrics().generatedTokens, 12);

  const stop = made.text.slice(4, 6);
  const stopped = await model.generate({ ...REQUEST, stop: [stop] });
  t.equal(stopped.text, made.text.slice(0, made.text.indexOf(stop)));
  t.equal(stopped.finish, 'stop');
  t.same(stopped.tokens, made.tokens.slice(0, stopped.tokens.length));
  t.equal((await failure(model.generate({ ...REQUEST, stop: [''] }))).code, 'BAD_REQUEST');

  const abort = new AbortController();
  const aborted = await model.generate(
    { ...REQUEST, maxTokens: 90 },
    { signal: abort.signal, token: ({ index }) => index === 3 && abort.abort() },
  );
  t.equal(aborted.finish, 'aborted');
  t.ok(aborted.tokens.length >= 4 && aborted.tokens.length < 90);
  const never = await model.generate(REQUEST, { signal: AbortSignal.abort() });
  t.same([never.finish, never.tokens], ['aborted', []]);
  const thrown = model.generate(REQUEST, {
    token: () => {
      throw new RangeError('mine');
    },
  });
  t.equal((await failure(thrown)).message, 'mine');

  const examples = Array.from({ length: 70 }, (_, i) => ({ tokens: [i, 1, 2], from: 1 }));
  let index = 0;
  for await (const each of model.gradients(examples, adapter)) {
    t.equal(each.index, index);
    t.equal(each.loss, index);
    t.same([...each.gradient], Array(40).fill(index));
    index++;
  }
  t.equal(index, 70);

  await adapter.close();
  t.equal((await failure(model.generate({ ...REQUEST, adapter }))).code, 'ADAPTER_CLOSED');
  await model.close();
  t.equal((await failure(model.generate(REQUEST))).code, 'ENGINE_CLOSED');
  await end();
});

test('a process that dies, hangs or stalls is replaced, and its calls go on', { timeout: 90_000 }, async (t) => {
  for (const [mode, timeouts] of [
    ['crash at a token', {}],
    ['hang', { silenceMs: 3_000 }],
    ['stall', { stallMs: 5_000 }],
    ['gigantic', {}],
  ] as const) {
    const { load, heard, end } = start(t, mode, timeouts);
    const model = await load();
    const adapter = await model.openAdapter(FILES);
    const seen: number[] = [];
    const requests = [1n, 2n, 3n].map((seed) => ({ ...REQUEST, adapter, seed }));
    const all = await Promise.all(
      requests.map((request, i) => model.generate(request, { token: ({ id }) => i === 0 && seen.push(id) })),
    );
    for (const [i, { tokens, text, finish }] of all.entries()) {
      t.same(tokens, tokensOf(requests[i]!), `${mode}: no token lost, none twice`);
      t.equal(text, model.tokenizer.decode(tokens));
      t.equal(finish, 'length');
    }
    t.same(seen, tokensOf(requests[0]!), `${mode}: each was told once`);
    t.equal(model.metrics().restarts, 1, mode);
    t.ok(
      heard.some((line) => line.includes('the engine process is gone')),
      `${mode}: ${heard.join()}`,
    );
    // What a process counted since its last heart-beat is lost with it.
    t.ok(model.metrics().generatedTokens >= 36 - 15, 'counts go on across processes');
    await end();
  }
});

test('a training goes on from its last checkpoint', { timeout: 60_000 }, async (t) => {
  const { load, end } = start(t, 'crash in training');
  const model = await load();
  const settings = {
    ...{ lora: { rank: 2, alpha: 4, targets: ['q_proj' as const] }, learningRate: 1, epochs: 1, steps: 9, batch: 1 },
    ...{ sequenceLength: 8, warmup: 0, seed: 2n ** 63n, checkpointEvery: 4 },
  };
  const job = { settings, examples: [{ tokens: [1, 2], from: 1 }], weights: [0.5] };
  const steps: number[] = [];
  const states: number[] = [];
  // Step 6 kills three processes, which is as often as is tried for a call that gets no further; the first got to step 4.
  const outcome = await model.train(job, {
    progress: ({ step }) => steps.push(step),
    checkpoint: async (state, step) => {
      t.equal(state.length, 5 << 20);
      states.push(step);
    },
  });
  t.same(steps, [1, 2, 3, 4, 5, 6, 7, 8, 9], 'each step is told once');
  t.same(states, [4, 8]);
  t.equal(outcome.loss, 4, 'the last process began behind step 4');
  t.equal(Buffer.from(outcome.attribution.weights).toString(), 'middle');
  t.equal(model.metrics().restarts, 3);

  const failing = model.train(job, {
    checkpoint: () => Promise.reject(Object.assign(new Error('no space'), { code: 'ENOSPC' })),
  });
  t.equal((await failure(failing)).code, 'ENOSPC', 'a checkpoint that cannot be stored ends the training');
  const abort = new AbortController();
  const stopped = model.train(job, { signal: abort.signal, progress: () => abort.abort() });
  t.equal((await failure(stopped)).name, 'AbortError');
  t.equal((await failure(model.train({ ...job, examples: [{ tokens: [1.5, 2], from: 1 }] }))).code, 'BAD_EXAMPLE');
  await end();
});
