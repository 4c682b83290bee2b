import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import type { FeatureBases } from '../../../gpu-worker/attribution/extractor.ts';
import { embeddedEngine } from '../../../gpu-worker/engines/embedded/engine.ts';
import type {
  Adapter,
  AdapterFiles,
  Engine,
  Example,
  GenerationRequest,
  LoadedModel,
} from '../../../gpu-worker/engines/engine.ts';
import { fitFeatures, openFeatures } from '../../../gpu-worker/engines/features.ts';
import { VllmEngine } from '../../../gpu-worker/engines/vllm/engine.ts';
import { until } from '../../support/until.ts';
import { forwarding } from '../order.ts';

const WIDE = fileURLToPath(new URL('../../vectors/embedded/wide', import.meta.url));
const FILES: AdapterFiles = {
  config: readFileSync(join(WIDE, 'adapter', 'adapter_config.json')),
  weights: readFileSync(join(WIDE, 'adapter', 'adapter_model.safetensors')),
};

interface Asked {
  readonly path: string;
  readonly body: Record<string, unknown>;
}

const bodyOf = async (request: IncomingMessage): Promise<string> => {
  let text = '';
  for await (const chunk of request) text += chunk;
  return text;
};

/** Like `engine`, but for features that its models make themselves: of each example its loss. */
function withFeatures(engine: Engine): Engine {
  async function* projected(model: LoadedModel, examples: readonly Example[], adapter: Adapter) {
    for await (const { index, loss } of model.gradients(examples, adapter))
      yield { index, loss, along: [loss], energy: 2 };
  }
  return {
    kind: 'torch',
    exact: false,
    close: () => engine.close(),
    async load(directory) {
      const model = await engine.load(directory);
      return {
        ...forwarding(model),
        openFeatures: async () => ({
          projected: (examples, adapter) => projected(model, examples, adapter),
          close: async () => {},
        }),
        fitFeatures: async (examples, adapter, settings, { block }) => ({
          bases: basesOf(model, adapter, settings.k, block),
          projected: await Array.fromAsync(projected(model, examples, adapter)),
        }),
      };
    },
  };
}

const basesOf = (model: LoadedModel, adapter: Adapter, k: number, block: number): FeatureBases => ({
  layout: model.layout(adapter.lora, { block }),
  eigenbases: { rank: [], hidden: [], lambda: new Float32Array(), damping: 1 },
  projection: { k, width: 1, vectors: new Float32Array(1), energy: new Float32Array(1) },
  ...{ sketchSeed: 1n, rotationSeed: 2n },
});

test('answers come from the server, gradients from the engine behind', { timeout: 90_000 }, async (t) => {
  const scratch = mkdtempSync(join(tmpdir(), 'vllm-'));
  const asked: Asked[] = [];
  const loras = new Map<string, string>();
  let mode = 'good';
  let refuse = 0;
  let gone = 0;
  /** What the server makes of a prompt: the last token, counted up. */
  const tokensOf = (prompt: readonly number[], count: number): number[] =>
    Array.from({ length: count }, (_, i) => 10 + ((prompt.at(-1)! * 7 + i * 3) % 280));
  const server = createServer(async (request, response) => {
    if (refuse > 0) {
      refuse--;
      request.socket.destroy();
      return;
    }
    const text = await bodyOf(request);
    const body = text === '' ? {} : JSON.parse(text);
    asked.push({ path: request.url!, body });
    const json = (status: number, value: unknown): void => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
    };
    if (request.headers.authorization !== 'Bearer secret') return json(401, {});
    if (request.url === '/v1/models') return json(200, { data: [{ id: 'the-base' }] });
    if (request.url === '/v1/load_lora_adapter') {
      loras.set(body.lora_name, body.lora_path);
      const whole = existsSync(join(body.lora_path, 'adapter_model.safetensors'));
      return whole ? json(200, {}) : json(400, { error: 'no such adapter' });
    }
    if (request.url === '/v1/unload_lora_adapter') {
      loras.delete(body.lora_name);
      return json(200, {});
    }
    if (mode === 'busy') return json(503, { error: 'busy' });
    response.on('close', () => gone++);
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const say = (choice: unknown): void =>
      void response.write(`data: ${JSON.stringify({ choices: [choice] })}\r\n\r\n`);
    const all = tokensOf(body.prompt, mode === 'endless' ? 1_000 : body.max_tokens);
    for (const [i, id] of all.entries()) {
      if (response.destroyed) return;
      if (mode === 'old') say({ text: 'x', finish_reason: null });
      else if (mode === 'short' && i === 3) return void response.end();
      else if (mode === 'error' && i === 3)
        return void response.end('data: {"error":{"message":"CUDA fell over"}}\n\n');
      else if (mode === 'stop' && i === 3) {
        say({ token_ids: [1], text: '', finish_reason: 'stop' });
        break;
      } else say({ token_ids: [id], text: 'x', finish_reason: i + 1 === all.length ? 'length' : null });
      if (i % 5 === 0) await new Promise((resolve) => setTimeout(resolve, 2));
    }
    response.end('data: [DONE]\n\n');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const behind = await embeddedEngine();
  const engine = new VllmEngine({ url, behind, adapters: scratch, apiKey: 'secret' });
  t.teardown(async () => {
    await engine.close();
    server.close();
    server.closeAllConnections();
    rmSync(scratch, { recursive: true });
  });
  refuse = 2;
  const model = await engine.load(WIDE);
  const adapter = await model.openAdapter(FILES);
  t.equal(loras.size, 0, 'an adapter that nobody asks for is not loaded');
  const request: GenerationRequest = {
    prompt: [5, 9],
    maxTokens: 12,
    temperature: 0.5,
    topP: 0.9,
    seed: 2n ** 64n - 1n,
  };
  const expected = tokensOf([9], 12);
  const seen: number[] = [];
  const made = await model.generate(request, { token: ({ id }) => seen.push(id) });
  t.same([made.tokens, seen, made.finish, made.promptTokens], [expected, expected, 'length', 2]);
  t.equal(made.text, model.tokenizer.decode(expected));
  t.match(asked.at(-1), {
    path: '/v1/completions',
    body: {
      model: 'the-base',
      prompt: [5, 9],
      max_tokens: 12,
      temperature: 0.5,
      top_p: 0.9,
      stream: true,
      return_token_ids: true,
    },
  });
  t.ok(Number.isSafeInteger(asked.at(-1)!.body.seed));
  const both = await Promise.all([1, 2].map(() => model.generate({ ...request, adapter })));
  t.same(both[0]!.tokens, expected);
  t.equal(loras.size, 1, 'loaded once');
  const [name] = loras.keys();
  t.equal(asked.at(-1)!.body.model, name);
  t.equal(asked.filter(({ path }) => path === '/v1/load_lora_adapter').length, 1);

  const stopped = await model.generate({ ...request, stop: [made.text.slice(3, 5)] });
  t.equal(stopped.text, made.text.slice(0, made.text.indexOf(made.text.slice(3, 5))));
  t.equal(stopped.finish, 'stop');
  mode = 'stop';
  const ended = await model.generate(request);
  t.same([ended.finish, ended.tokens], ['stop', [...expected.slice(0, 3), 1]]);
  mode = 'endless';
  const before = gone;
  const abort = new AbortController();
  const aborted = await model.generate(request, {
    signal: abort.signal,
    token: ({ index }) => index === 4 && abort.abort(),
  });
  t.equal(aborted.finish, 'aborted');
  t.ok(aborted.tokens.length >= 5 && aborted.tokens.length < 500, `${aborted.tokens.length} of a thousand`);
  await until('the server is told', () => gone > before);
  const code = (body: Promise<unknown>): Promise<unknown> =>
    body.then(
      () => 'none',
      (error) => error.code ?? error.name,
    );
  for (const [how, want] of [
    ['old', 'ENGINE_FAILED'],
    ['short', 'ENGINE_FAILED'],
    ['error', 'ENGINE_FAILED'],
    ['busy', 'OVERLOADED'],
  ] as const) {
    mode = how;
    t.equal(await code(model.generate(request)), want, how);
  }
  mode = 'good';
  const thrown = model.generate(request, {
    token: () => {
      throw new RangeError('mine');
    },
  });
  t.equal(await code(thrown), 'RangeError');
  t.equal(await code(model.generate({ ...request, prompt: [] })), 'BAD_REQUEST');
  t.equal(await code(model.generate({ ...request, prompt: Array(96).fill(5) })), 'PROMPT_TOO_LONG');
  t.equal(model.metrics().active, 0);
  t.ok(model.metrics().generatedTokens > 50);

  const example = { tokens: [5, 9, 8, 7], from: 2 };
  for await (const { gradient } of model.gradients([example], adapter)) {
    t.equal(gradient.length, model.layout(adapter.lora).size);
    t.ok(gradient.some((value) => value !== 0));
  }
  t.equal((await model.losses([example], adapter)).length, 1);
  // Features as the engine behind makes them, where it does.
  const settings = { k: 1, sketchWidth: 1, sketchSeed: 1n, rotationSeed: 2n, damping: 1, projectionRows: 1 };
  const device = new VllmEngine({ url, behind: withFeatures(behind), adapters: scratch, apiKey: 'secret' });
  const able = await device.load(WIDE);
  const other = await able.openAdapter(FILES);
  const { bases, rows } = await fitFeatures(able, [example], other, settings, { block: 8 });
  t.equal(bases.layout.block, 8);
  t.same(rows[0]!.values, Int8Array.of(127));
  const source = await openFeatures(able, bases);
  const [loss] = await able.losses([example], other);
  for await (const { row, captured } of source.features([example], other)) {
    t.same(row, rows[0]);
    t.ok(Math.abs(captured - loss! ** 2 / 2) < 1e-3);
  }
  await source.close();
  await able.close();
  const here = await fitFeatures(model, [example], adapter, settings, { block: 8 });
  t.equal((await openFeatures(model, here.bases)).k, 1, 'else here, of gradients');

  const plain = await behind.load(WIDE);
  t.equal(await code(model.generate({ ...request, adapter: await plain.openAdapter(FILES) })), 'BAD_ADAPTER');
  await adapter.close();
  t.equal(loras.size, 0);
  t.same(existsSync(join(scratch, name!)), false);

  const wrong = new VllmEngine({ url, behind, adapters: scratch, apiKey: 'secret', model: 'another' });
  t.equal(await code(wrong.load(WIDE)), 'ENGINE_FAILED');
  const away = new VllmEngine({ url: 'http://127.0.0.1:1', behind, adapters: scratch, attempts: 1 });
  t.equal(await code(away.load(WIDE)), 'ENGINE_FAILED');
  await model.close();
  t.equal(await code(model.generate(request)), 'ENGINE_CLOSED');
});
