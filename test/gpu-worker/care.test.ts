/** What a worker tells of itself, and what the doctor says of a machine and an account. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'tap';
import type { EngineMetrics, LoadedModel } from '../../gpu-worker/engines/engine.ts';
import { clock, examine, type Finding, memory, nodeVersion, standing } from '../../gpu-worker/operator/doctor.ts';
import { runningWorkers } from '../../gpu-worker/operator/running-workers.ts';
import { Telemetry } from '../../gpu-worker/operator/telemetry.ts';
import type { Worker } from '../../runtime/pallets/ledger/compute.ts';
import { until } from '../support/until.ts';

const GLOSSA = fileURLToPath(new URL('../../gpu-worker/models/glossa-3m', import.meta.url));
const OPEN = 10n ** 18n;
const WORKER: Worker = {
  bond: 1_000n * OPEN,
  capabilities: { training: true, serving: true, auditing: true, engine: 'torch cuda', memoryMiB: 1, baseModels: [] },
  since: 12,
  obligations: 0,
  atStake: 0n,
  leaving: undefined,
  slashed: 0n,
};

test('the doctor says what is wrong and what to do', { timeout: 60_000 }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'doctor-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const asked = {
    node: 'ws://127.0.0.1:1',
    address: undefined,
    bond: OPEN,
    modelDirectory: GLOSSA,
    directory: join(directory, 'not', 'yet', 'made'),
    environment: { OPENLEDGER_PYTHON: join(directory, 'none') },
  };
  const found = async (change: Partial<Parameters<typeof examine>[0]>): Promise<Map<string, Finding>> => {
    const findings = new Map<string, Finding>();
    for await (const finding of examine({ ...asked, engine: 'auto', ...change })) findings.set(finding.what, finding);
    return findings;
  };
  const auto = await found({});
  t.same(
    [...auto.keys()],
    [
      ...[
        'Node.js',
        'Python with torch',
        'base model',
        'memory',
        'disk of the worker',
        'disk for temporary files',
        'node',
      ],
    ],
  );
  t.equal(auto.get('Python with torch')?.state, 'note', 'the embedded engine is there');
  t.equal(auto.get('base model')?.state, 'good');
  t.equal(auto.get('node')?.state, 'bad');
  for (const { state, advice } of auto.values())
    t.equal(advice === undefined, state === 'good', 'advice where it is needed');
  t.equal((await found({ engine: 'torch' })).get('Python with torch')?.state, 'bad');
  t.notOk((await found({ engine: 'embedded' })).has('Python with torch'));
  writeFileSync(join(directory, 'config.json'), '{"vocab_size":3}');
  t.match((await found({ modelDirectory: directory })).get('base model')?.found, /safetensors/);
  writeFileSync(join(directory, 'config.json'), '{');
  t.match((await found({ modelDirectory: directory })).get('base model')?.found, /not JSON/);
  t.notOk(existsSync(asked.directory), 'nothing is made');

  t.equal(nodeVersion('18.1.0').state, 'bad');
  t.equal(nodeVersion('24.21.0').state, 'good');
  const gib = 2 ** 30;
  t.equal(memory(3 * gib, 8 * gib, 16 * gib).state, 'good');
  t.equal(memory(3 * gib, 6 * gib, 16 * gib).state, 'note');
  t.equal(memory(3 * gib, 6 * gib, 6 * gib).state, 'bad');
  t.equal(clock(100_000, 103_000).state, 'good');
  t.equal(clock(100_000, 70_000).state, 'bad');
  t.equal(clock(100_000, 400_000).state, 'note');

  const state = (balance: bigint, worker: Worker | undefined, bond = 1_000n * OPEN): string =>
    standing('5F', balance, bond, worker, 1_000n * OPEN)
      .map((finding) => `${finding.what} ${finding.state}`)
      .join(', ');
  t.equal(state(1_001n * OPEN, undefined), 'balance good');
  t.equal(state(1_000n * OPEN, undefined), 'balance bad', 'fees are paid too');
  t.equal(state(2_000n * OPEN, undefined, OPEN), 'bond bad, balance good');
  t.equal(state(OPEN, WORKER), 'balance good, bond good');
  t.equal(state(0n, WORKER), 'balance bad, bond good');
  t.equal(state(OPEN, { ...WORKER, leaving: 99 }), 'balance good, bond bad');
  t.equal(state(OPEN, { ...WORKER, bond: 999n * OPEN, slashed: OPEN }), 'balance good, bond bad');
  t.equal(state(OPEN, { ...WORKER, slashed: OPEN }), 'balance good, bond note');
});

test('metrics and status tell what the worker does', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'telemetry-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const metrics: EngineMetrics = {
    ...{ active: 2, waiting: 3, adapters: 8, generatedTokens: 100, promptTokens: 50, memoryBytes: 1e6, restarts: 1 },
    tiers: { device: 4, host: 6, disk: 8 },
  };
  const each = (adapter: number, requests: number) => ({
    ...{ adapter, tier: 'device' as const, requests, promptTokens: 1, generatedTokens: 7, waitedMilliseconds: 1 },
    ...{ hits: { device: 1, host: 0, disk: 0 }, firstTokenMilliseconds: 2_000 },
  });
  const model = {
    info: { name: 'a model' },
    metrics: () => metrics,
    adapterMetrics: async () => Array.from({ length: 200 }, (_, i) => each(i, i)),
  } as unknown as LoadedModel;
  const telemetry = new Telemetry(model, { address: '5F', node: 'ws://x', engine: 'torch cuda' });
  const stop = new AbortController();
  const own = join(directory, '5F');
  mkdirSync(own);
  writeFileSync(join(own, 'telemetry.json'), '{"url":"http://127.0.0.1:1","pid":1}');
  t.same(await runningWorkers(directory), [], 'one that died is not told of');
  const { url } = await telemetry.serve(own, 0, stop.signal);
  telemetry.attached(true);
  telemetry.serving([3, 4]);
  telemetry.waiting(2);
  for (let i = 0; i < 3; i++) {
    telemetry.answered({ tokensIn: 5, tokensOut: 9, generationMs: 400, attributionMs: 20 });
  }
  telemetry.settled(4);
  telemetry.training(7, 'gradients', { step: 5, total: 5, loss: 1, learningRate: 0, tokensPerSecond: 10 });
  telemetry.audited(false);
  telemetry.audited(true);
  const [status] = await runningWorkers(directory);
  t.match(status, {
    ...{ address: '5F', node: 'ws://x', engine: 'torch cuda', model: 'a model', attached: true, serving: [3, 4] },
    ...{ answers: 3, trainings: 0, audits: 2, receipts: { waiting: 1, settled: 4 } },
    task: { order: 7, phase: 'gradients', progress: { step: 5 } },
    engineMetrics: { tiers: { device: 4, host: 6, disk: 8 } },
  });
  t.equal(status!.adapters.length, 50);
  t.equal(status!.adapters[0]!.adapter, 199, 'those with most requests');
  telemetry.trained(true);
  t.match((await runningWorkers(own))[0], { trainings: 1, task: undefined }, 'by its own directory too');
  const page = await (await fetch(`${url}/metrics`)).text();
  for (const line of [
    'openledger_worker_answers_total 3',
    'openledger_worker_trainings_total 1',
    'openledger_worker_receipts_settled_total 4',
    'openledger_worker_receipts_waiting 1',
    'openledger_worker_attached 1',
    'openledger_worker_adapters_served 2',
    'openledger_worker_audits_total{finding="fault"} 1',
    'openledger_worker_generation_seconds_bucket{le="0.5"} 3',
    'openledger_worker_adapters_device 4',
    'openledger_worker_engine_restarts 1',
    'openledger_worker_adapter_requests{adapter="199"} 199',
    'openledger_worker_adapter_first_token_seconds{adapter="199"} 2',
  ]) {
    t.ok(page.split('\n').includes(line), line);
  }
  t.equal(page.match(/^openledger_worker_adapter_requests\{/gm)?.length, 50);
  t.equal((await fetch(`${url}/other`)).status, 404);
  stop.abort();
  await until('its going is seen', async () => (await runningWorkers(directory)).length === 0);
});
