/**
 * How long a node takes from its start to its first block, and what it uses while nothing happens: the development chain from
 * its command line, with and without the network. `--idle 60`: seconds to wait before memory is read.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { startNodeProcess } from './support/node-process.ts';
import { report } from './support/report.ts';
import { RpcClient } from './support/rpc-client.ts';

const { values } = parseArgs({ options: { idle: { type: 'string', default: '60' } } });
const idleSeconds = Number(values.idle);
const STARTS = 5;

/** Milliseconds from the start of the process until block 1 is heard of. */
async function firstBlock(): Promise<{ serves: number; block: number; waited: number }> {
  const before = performance.now();
  const node = await startNodeProcess(['node', '--dev', '--rpc-port', '0']);
  try {
    const client = await RpcClient.connect(node.ws);
    let number = 0;
    while (number < 1) {
      number = Number((await client.call<{ number: string }>('chain_getHeader')).number);
      if (number < 1) await pause(10);
    }
    const block = performance.now() - before;
    client.close();
    return { serves: node.startMs, block, waited: block - node.startMs };
  } finally {
    await node.stop();
  }
}

async function idle(args: readonly string[]): Promise<{ memory: number; cpu: number }> {
  const node = await startNodeProcess(args);
  try {
    await pause(idleSeconds * 500);
    const cpuBefore = node.cpuMs();
    const from = performance.now();
    await pause(idleSeconds * 500);
    return { memory: node.memory() / 1e6, cpu: (100 * (node.cpuMs() - cpuBefore)) / (performance.now() - from) };
  } finally {
    await node.stop();
  }
}

const starts: Awaited<ReturnType<typeof firstBlock>>[] = [];
for (let i = 0; i < STARTS; i++) starts.push(await firstBlock());
const median = (of: (start: (typeof starts)[number]) => number): number =>
  starts.map(of).sort((a, b) => a - b)[STARTS >> 1]!;
const alone = await idle(['node', '--dev', '--rpc-port', '0']);
const connected = await idle(['node', '--dev', '--rpc-port', '0', '--port', '0']);
await report(
  'start',
  [
    { what: 'start to JSON-RPC, median', value: median(({ serves }) => serves), unit: 'ms' },
    { what: 'start to first block, median', value: median(({ block }) => block), unit: 'ms', bar: ['<=', 3_000] },
    { what: 'idle memory, alone', value: alone.memory, unit: 'MB', bar: ['<=', 250] },
    { what: 'idle memory, with the network', value: connected.memory, unit: 'MB', bar: ['<=', 250] },
    { what: 'idle CPU, alone', value: alone.cpu, unit: '% of a core' },
    { what: 'idle CPU, with the network', value: connected.cpu, unit: '% of a core' },
  ],
  { starts, idleSeconds },
);
