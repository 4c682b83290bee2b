/**
 * How many requests a second the JSON-RPC server answers, with its client on the same machine. `--url ws://…` measures a running
 * node; without it a server over a chain in memory is started here. `--json FILE` writes the figures.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { WebSocket } from 'ws';
import { standardGroups } from '../../rpc/groups.ts';
import { rpcServer } from '../../rpc/server.ts';
import { toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { FakeChain, fakeContext, hashing } from '../rpc/fake.ts';

interface Scenario {
  readonly name: string;
  readonly method: string;
  readonly params: readonly unknown[];
  readonly connections: number;
  readonly inFlight: number;
  /** What chopsticks 1.5.1 does on such a machine. */
  readonly target?: number;
}
interface Figures {
  readonly perSecond: number;
  readonly p50: number;
  readonly p99: number;
}

const SECONDS = 4;
const WARM_UP_SECONDS = 1;

const percentile = (sorted: Float64Array, part: number): number => sorted[Math.floor((sorted.length - 1) * part)] ?? 0;

/** Keeps `inFlight` requests of every connection under way. */
async function load(url: string, { method, params, connections, inFlight }: Scenario): Promise<Figures> {
  const latencies: number[] = [];
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
  await pause(SECONDS);
  measuring = false;
  const seconds = (performance.now() - start) / 1_000;
  running = false;
  for (const socket of sockets) socket.terminate();
  const sorted = Float64Array.from(latencies).sort();
  return { perSecond: latencies.length / seconds, p50: percentile(sorted, 0.5), p99: percentile(sorted, 0.99) };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { url: { type: 'string' }, json: { type: 'string' }, key: { type: 'string' } },
  });
  const stop = new AbortController();
  const account = hashing.blake2_256(utf8('account'));
  const ownKey = toHex(
    Buffer.concat([
      hashing.twox128(utf8('System')),
      hashing.twox128(utf8('Account')),
      hashing.blake2_128(account),
      account,
    ]),
  );
  let url = values.url;
  let served: Promise<void> = Promise.resolve();
  if (url === undefined) {
    const entries = Array.from(
      { length: 10_000 },
      (_, i) => [hashing.blake2_256(utf8(String(i))), new Uint8Array(80).fill(i)] as const,
    );
    const chain = new FakeChain([...entries, [Buffer.from(ownKey.slice(2), 'hex'), new Uint8Array(80).fill(7)]]);
    const context = fakeContext(chain);
    const server = rpcServer({ groups: standardGroups(context), port: 0, log: context.log });
    url = (await server.listen()).ws;
    served = server.run(stop.signal);
  }
  // With a node elsewhere, a value that every chain has.
  const key =
    values.key ??
    (values.url === undefined
      ? ownKey
      : toHex(Buffer.concat([hashing.twox128(utf8('System')), hashing.twox128(utf8('Number'))])));
  const storage = { method: 'state_getStorage', params: [key] };
  const scenarios: readonly Scenario[] = [
    { name: 'state_getStorage, 1 connection', ...storage, connections: 1, inFlight: 1, target: 6_900 },
    { name: 'state_getStorage, 50 connections', ...storage, connections: 50, inFlight: 1, target: 32_400 },
    { name: 'state_getStorage, 64 in flight on 1', ...storage, connections: 1, inFlight: 64, target: 45_500 },
    {
      name: 'chain_getHeader, 50 connections',
      method: 'chain_getHeader',
      params: [],
      connections: 50,
      inFlight: 1,
      target: 21_800,
    },
  ];
  const rows: Record<string, unknown>[] = [];
  for (const scenario of scenarios) {
    const worker = new Worker(new URL(import.meta.url), { workerData: { url, scenario } });
    const figures = await new Promise<Figures>((resolve, reject) =>
      worker.once('message', resolve).once('error', reject),
    );
    await worker.terminate();
    rows.push({
      name: scenario.name,
      perSecond: Math.round(figures.perSecond),
      target: scenario.target,
      p50Ms: Number(figures.p50.toFixed(3)),
      p99Ms: Number(figures.p99.toFixed(3)),
    });
  }
  console.table(rows);
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ cores: availableParallelism(), rows }, undefined, 2)}\n`);
  stop.abort();
  await served;
}

if (isMainThread) await main();
else {
  const { url, scenario } = workerData as { url: string; scenario: Scenario };
  parentPort?.postMessage(await load(url, scenario));
}
