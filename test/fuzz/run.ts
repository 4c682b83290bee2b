/**
 * `npm run fuzz`: a million random and bent inputs to everything that decodes what others send. `--seed` repeats a run,
 * `--target` and `--from` (with `--count 1`) one input of it.
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import type { Report, Task } from './process.ts';

const SHARES = { scale: 400_000, extrinsic: 250_000, submit: 100_000, 'json-rpc': 150_000, proof: 100_000 };
const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    target: { type: 'string' },
    from: { type: 'string', default: '0' },
    /** Inputs in all; a million if not told. */
    count: { type: 'string', default: '1000000' },
  },
});
const seed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed);
const from = Number(values.from);

/** A process that says nothing for so long hangs in the inputs after those it told of last. */
const SILENCE_MS = 120_000;
const MAX_MEMORY = 1.5 * 2 ** 30;

interface Outcome {
  readonly target: string;
  readonly inputs: number;
  readonly 'slowest ms': number;
  readonly 'memory MiB': number;
  readonly seconds: number;
  readonly found: string;
}

function run(task: Task): Promise<Outcome> {
  const started = performance.now();
  const child = fork(fileURLToPath(new URL('process.ts', import.meta.url)), [JSON.stringify(task)], {
    execArgv: ['--max-old-space-size=1024'],
  });
  return new Promise((resolve) => {
    let at = task.from;
    let outcome: Partial<Outcome> = {};
    const fail = (found: string): void => {
      outcome = { ...outcome, found };
      process.stdout.write(`${task.target}, seed ${seed}: ${found}\n`);
    };
    const hung = () => {
      fail(`no sign of life after input ${at}`);
      child.kill('SIGKILL');
    };
    let watch = setTimeout(hung, SILENCE_MS);
    child.on('message', (report: Report) => {
      clearTimeout(watch);
      watch = setTimeout(hung, SILENCE_MS);
      if (report.type === 'at') at = report.iteration;
      else if (report.type === 'found') {
        at = report.iteration;
        fail(`input ${report.iteration}: ${report.what}\n${report.input.slice(0, 4_000)}`);
      } else {
        at = task.to;
        outcome = { 'slowest ms': Math.round(report.slowest), 'memory MiB': Math.round(report.memory / 2 ** 20) };
        if (report.memory > MAX_MEMORY) fail('took more memory than any input is worth');
      }
    });
    child.once('close', (code, signal) => {
      clearTimeout(watch);
      if (code !== 0 && outcome.found === undefined) fail(`died of ${signal ?? code} after input ${at}`);
      const seconds = Math.round((performance.now() - started) / 1_000);
      resolve({
        target: task.target,
        inputs: at - task.from,
        'slowest ms': 0,
        'memory MiB': 0,
        seconds,
        found: '',
        ...outcome,
      });
    });
  });
}

const chosen = Object.entries(SHARES).filter(([name]) => values.target === undefined || name === values.target);
const total = chosen.reduce((sum, [, share]) => sum + share, 0);
process.stdout.write(`seed ${seed}\n`);
const outcomes: Outcome[] = [];
for (const [target, share] of chosen) {
  const count = Math.ceil((Number(values.count) * share) / total);
  const outcome = await run({ target, seed, from, to: from + count });
  process.stdout.write(`${target}: ${outcome.inputs} inputs in ${outcome.seconds} s\n`);
  outcomes.push(outcome);
}
console.table(outcomes.map(({ found, ...rest }) => ({ ...rest, found: found.split('\n', 1)[0]?.slice(0, 60) })));
process.exitCode = outcomes.every(({ found }) => found === '') ? 0 : 1;
