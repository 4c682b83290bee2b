/**
 * A day of empty blocks in a few minutes: a whole node by a clock that runs faster, and its memory hour by hour.
 * `--blocks 28800` (a day of 3 s), `--speed 300`: as fast as that, or as fast as the machine makes blocks.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { presetSpec } from '../../node/chain-spec/built-in.ts';
import type { Clock } from '../../node/ports/machine.ts';
import { startNode } from '../../node/service.ts';
import { report } from './support/report.ts';

const { values } = parseArgs({
  options: { blocks: { type: 'string', default: '28800' }, speed: { type: 'string', default: '300' } },
});
const blocks = Number(values.blocks);
const speed = Number(values.speed);
const SAMPLES = 24;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

const begin = Date.now();
const passed = (): number => (Date.now() - begin) * speed;
const clock: Clock = {
  now: () => begin + passed(),
  monotonic: passed,
  after(ms, run) {
    const timer = setTimeout(run, ms / speed);
    return () => clearTimeout(timer);
  },
};

interface Sample {
  readonly block: number;
  /** What JavaScript holds, on its heap and off it. */
  readonly heldMb: number;
  readonly residentMb: number;
}
const samples: Sample[] = [];
const sample = (block: number): void => {
  collect();
  const { heapUsed, external, rss } = process.memoryUsage();
  samples.push({ block, heldMb: (heapUsed + external) / 1e6, residentMb: rss / 1e6 });
};

const stop = new AbortController();
const complaints: string[] = [];
const node = await startNode(
  {
    name: 'day',
    version: '0',
    spec: presetSpec('dev'),
    basePath: undefined,
    statePruning: 256,
    authority: '//Alice',
    rpc: { host: '127.0.0.1', port: 0, methods: 'safe' },
    clock,
    log: (level, message) => {
      if (level === 'error') complaints.push(message);
    },
  },
  stop.signal,
);
const { blocks: chain } = node.client;
for (let hour = 1; hour <= SAMPLES; hour++) {
  const goal = Math.floor((hour * blocks) / SAMPLES);
  while (chain.info().finalized.number < goal) await pause(20);
  sample(chain.info().best.number);
}
const { best, finalized } = chain.info();
const cpu = process.cpuUsage();
stop.abort();
await node.stopped;

const mean = (of: keyof Sample, part: readonly Sample[]): number =>
  part.reduce((sum, each) => sum + each[of], 0) / part.length;
const growth = (of: 'heldMb' | 'residentMb'): number =>
  mean(of, samples.slice(-SAMPLES / 4)) - mean(of, samples.slice(SAMPLES / 4, SAMPLES / 2));
await report(
  'day',
  [
    { what: 'blocks made and final', value: finalized.number, unit: 'blocks' },
    { what: 'final behind best, at the end', value: best.number - finalized.number, unit: 'blocks', bar: ['<=', 3] },
    { what: 'held, in the last quarter', value: mean('heldMb', samples.slice(-SAMPLES / 4)), unit: 'MB' },
    {
      what: 'held more than in the second quarter',
      value: growth('heldMb'),
      unit: 'MB',
      // Before, the windows of states and headers still fill.
      ...(blocks >= 20_000 && { bar: ['<=', 3] as const }),
    },
    { what: 'resident, in the last quarter', value: mean('residentMb', samples.slice(-SAMPLES / 4)), unit: 'MB' },
    { what: 'resident more than in the second quarter', value: growth('residentMb'), unit: 'MB' },
    { what: 'processor time', value: (cpu.user + cpu.system) / 1e3 / best.number, unit: 'ms a block' },
  ],
  samples,
);
if (complaints.length > 0) {
  console.log([...new Set(complaints)].slice(0, 10).join('\n'));
  process.exitCode = 1;
}
