/**
 * How many requests a second a node answers, with its client on the same machine: the development chain on its own database.
 * `--memory` takes a server over a chain in memory in its place, for what the server alone costs; `--seconds 4` a scenario.
 */
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { WebSocket } from 'ws';
import { derive } from '../../node/keystore/secret-uri.ts';
import { rpcServer } from '../../rpc/server/server.ts';
import { standardGroups } from '../../rpc/standard-groups.ts';
import { toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { FakeChain, fakeContext, hashing } from '../rpc/fake.ts';
import { startNodeProcess } from './support/node-process.ts';
import { type Figure, report } from './support/report.ts';

interface Scenario {
  readonly name: string;
  readonly method: string;
  readonly params: readonly unknown[];
  readonly connections: number;
  readonly inFlight: number;
  readonly seconds: number;
  /** What chopsticks 1.5.1 does on such a machine. */
  readonly target: number;
}
interface Figures {
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
  /** Those of the time before the measurement included. */
  readonly answers: number;
}

const WARM_UP_SECONDS = 1;

const percentile = (sorted: Float64Array, part: number): number => sorted[Math.floor((sorted.length - 1) * part)] ?? 0;

/** Keeps `inFlight` requests of every connection under way. */
async function load(
  url: string,
  { method, params, connections, inFlight, seconds: duration }: Scenario,
): Promise<Figures> {
  const latencies: number[] = [];
  let answers = 0;
  let measuring = false;
  let running = true;
  const request = `","method":"${method}","params":${JSON.stringify(params)}}`;
  const sockets = await Promise.all(
    Array.from({ length: connections }, async () => {
      const socket = new WebSocket(url, { perMessageDeflate: false });
      await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
      return socket;
    }),
  );
  for (const socket of sockets) {
    let sent = 0;
    const starts: number[] = [];
    const send = (): void => {
      starts.push(performance.now());
      socket.send(`{"jsonrpc":"2.0","id":"${sent++}${request}`);
    };
    let first = 0;
    socket.on('message', (data: Buffer) => {
      if (data.includes('"error"')) throw new Error(data.toString());
      answers++;
      if (measuring) latencies.push(performance.now() - starts[first]!);
      first++;
      if (first > 4_096) {
        starts.splice(0, first);
        first = 0;
      }
      if (running) send();
    });
    for (let i = 0; i < inFlight; i++) send();
  }
  const pause = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1_000));
  await pause(WARM_UP_SECONDS);
  measuring = true;
  const start = performance.now();
  await pause(duration);
  measuring = false;
  const seconds = (performance.now() - start) / 1_000;
  running = false;
  for (const socket of sockets) socket.terminate();
  const sorted = Float64Array.from(latencies).sort();
  return {
    perSecond: latencies.length / seconds,
    p50: percentile(sorted, 0.5),
    p99: percentile(sorted, 0.99),
    answers,
  };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { memory: { type: 'boolean', default: false }, seconds: { type: 'string', default: '4' } },
  });
  const account = values.memory ? hashing.blake2_256(utf8('account')) : derive('//Alice', 'sr25519').publicKey;
  const key = Buffer.concat([
    hashing.twox128(utf8('System')),
    hashing.twox128(utf8('Account')),
    hashing.blake2_128(account),
    account,
  ]);
  const { url, cpuMs, stop } = await (values.memory ? inMemory(key) : ownNode());
  const seconds = Number(values.seconds);
  const storage = { method: 'state_getStorage', params: [toHex(key)], seconds };
  const scenarios: readonly Scenario[] = [
    { name: 'state_getStorage, 1 connection', ...storage, connections: 1, inFlight: 1, target: 6_900 },
    { name: 'state_getStorage, 50 connections', ...storage, connections: 50, inFlight: 1, target: 32_400 },
    { name: 'state_getStorage, 64 in flight on 1', ...storage, connections: 1, inFlight: 64, target: 45_500 },
    {
      name: 'chain_getHeader, 50 connections',
      method: 'chain_getHeader',
      params: [],
      seconds,
      connections: 50,
      inFlight: 1,
      target: 21_800,
    },
  ];
  const figures: Figure[] = [];
  for (const scenario of scenarios) {
    const worker = new Worker(new URL(import.meta.url), { workerData: { url, scenario } });
    const cpuBefore = cpuMs();
    const { perSecond, p50, p99, answers } = await new Promise<Figures>((resolve, reject) =>
      worker.once('message', resolve).once('error', reject),
    );
    const cpu = (1e3 * (cpuMs() - cpuBefore)) / answers;
    await worker.terminate();
    const { name, target, connections } = scenario;
    figures.push(
      { what: name, value: perSecond, unit: '/s', bar: ['>=', target] },
      { what: `${name}, half within`, value: p50, unit: 'ms' },
      {
        what: `${name}, 99 of 100 within`,
        value: p99,
        unit: 'ms',
        ...(connections > 1 && { bar: ['<=', 5] as const }),
      },
      { what: `${name}, the node's processor time`, value: cpu, unit: 'µs' },
    );
  }
  await report(values.memory ? 'rpc-memory' : 'rpc', figures);
  await stop();
}

interface Served {
  readonly url: string;
  readonly cpuMs: () => number;
  readonly stop: () => Promise<void>;
}

async function ownNode(): Promise<Served> {
  const node = await startNodeProcess(['node', '--dev', '--rpc-port', '0']);
  return { url: node.ws, cpuMs: node.cpuMs, stop: node.stop };
}

async function inMemory(key: Uint8Array): Promise<Served> {
  const entries = Array.from(
    { length: 10_000 },
    (_, i) => [hashing.blake2_256(utf8(String(i))), new Uint8Array(80).fill(i)] as const,
  );
  const context = fakeContext(new FakeChain([...entries, [key, new Uint8Array(80).fill(7)]]));
  const server = rpcServer({ groups: standardGroups(context), port: 0, log: context.log });
  const { ws } = await server.listen();
  const until = new AbortController();
  const served = server.run(until.signal);
  return {
    url: ws,
    cpuMs: () => process.cpuUsage().user / 1e3,
    stop: async () => {
      until.abort();
      await served;
    },
  };
}

if (isMainThread) await main();
else {
  const { url, scenario } = workerData as { url: string; scenario: Scenario };
  parentPort?.postMessage(await load(url, scenario));
}
