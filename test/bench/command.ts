/**
 * What a short command costs: `openledger account show` against a node that runs, each time in a process of its own. The
 * processor's time says more than the clock where other programs are at work.
 */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { startNodeProcess } from './support/node-process.ts';
import { report } from './support/report.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
/** Alice of every development chain: an address, so that no key has to be derived. */
const ALICE = '5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY';
const RUNS = 11;

interface Run {
  readonly wall: number;
  readonly cpu: number;
  readonly memory: number;
}

/** Written at the end by the process itself: highest resident memory in kB, processor time in microseconds. */
const TELL = `data:text/javascript,${encodeURIComponent(
  'process.on("exit", () => { const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage();' +
    'process.stderr.write(JSON.stringify({ maxRSS, cpu: userCPUTime + systemCPUTime })); });',
)}`;

function show(node: string): Promise<Run> {
  const before = performance.now();
  const child = spawn(
    process.execPath,
    ['--import', TELL, 'node/cli/openledger.mjs', 'account', 'show', ALICE, '--node', node],
    { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let [out, told] = ['', ''];
  child.stdout.on('data', (chunk) => {
    out += String(chunk);
  });
  child.stderr.on('data', (chunk) => {
    told += String(chunk);
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject).once('close', (code) => {
      if (code !== 0 || !out.includes(ALICE)) {
        reject(new Error(`the command failed: ${out}${told}`));
        return;
      }
      const { maxRSS, cpu } = JSON.parse(told.slice(told.lastIndexOf('{'))) as { maxRSS: number; cpu: number };
      resolve({ wall: performance.now() - before, cpu: cpu / 1e3, memory: maxRSS / 1e3 });
    });
  });
}

const node = await startNodeProcess(['node', '--dev', '--rpc-port', '0']);
const runs: Run[] = [];
try {
  // The first start fills the cache of compiled sources, as the first command after an installation does.
  await show(node.ws);
  for (let i = 0; i < RUNS; i++) runs.push(await show(node.ws));
} finally {
  await node.stop();
}
const median = (of: (run: Run) => number): number => runs.map(of).sort((a, b) => a - b)[RUNS >> 1]!;
await report(
  'command',
  [
    { what: 'account show, median', value: median(({ wall }) => wall), unit: 'ms', bar: ['<=', 600] },
    { what: 'account show, processor time', value: median(({ cpu }) => cpu), unit: 'ms' },
    { what: 'account show, memory', value: median(({ memory }) => memory), unit: 'MB', bar: ['<=', 110] },
  ],
  { runs },
);
