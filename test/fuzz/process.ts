/** One target in a process of its own, so that a hang or a crash takes nothing else along. Says where it is every so often. */
import { startLedger } from './ledger.ts';
import { Random } from './random.ts';
import { Finding, PURE, SERVED, type Target } from './targets.ts';

export interface Task {
  readonly target: string;
  readonly seed: number;
  readonly from: number;
  readonly to: number;
}
export type Report =
  | { readonly type: 'at'; readonly iteration: number }
  | { readonly type: 'found'; readonly iteration: number; readonly what: string; readonly input: string }
  /** `memory`: the most that the process ever had, in bytes. `slowest`: the longest that one input took, in milliseconds. */
  | { readonly type: 'done'; readonly memory: number; readonly slowest: number };

/** How long one input may take. */
const SLOW_MS = 2_000;
const EVERY = 256;

/** What one input may do, by target. The ledger is started only for those that need one. */
export async function prepare(name: string): Promise<{ readonly target: Target; readonly close: () => Promise<void> }> {
  const pure = PURE.map((make) => make()).find((each) => each.name === name);
  if (pure !== undefined) return { target: pure, close: async () => {} };
  const ledger = await startLedger();
  const target = SERVED.map((make) => make(ledger)).find((each) => each.name === name);
  if (target === undefined) throw new Error(`no target ${name}`);
  return { target, close: ledger.close };
}

/** Runs a stretch of inputs; the same task makes the same inputs. Stops at the first finding. */
export async function work({ target: name, seed, from, to }: Task, report: (report: Report) => void): Promise<void> {
  const { target, close } = await prepare(name);
  let slowest = 0;
  try {
    for (let iteration = from; iteration < to; iteration++) {
      if (iteration % EVERY === 0) {
        report({ type: 'at', iteration });
        await new Promise((resolve) => setImmediate(resolve));
      }
      const started = process.threadCpuUsage();
      try {
        await target.run(new Random(seed, name, iteration));
      } catch (problem) {
        const input = problem instanceof Finding ? problem.input : '';
        const cause = problem instanceof Error ? `\n${(problem.cause as Error)?.stack ?? problem.stack}` : '';
        report({ type: 'found', iteration, what: `${String(problem)}${cause}`, input });
        return;
      }
      const { user, system } = process.threadCpuUsage(started);
      const ms = (user + system) / 1_000;
      slowest = Math.max(slowest, ms);
      if (ms > SLOW_MS) {
        report({ type: 'found', iteration, what: `took ${ms.toFixed(0)} ms of processor time`, input: '' });
        return;
      }
    }
    report({ type: 'done', memory: process.resourceUsage().maxRSS * 1024, slowest });
  } finally {
    await close();
  }
}

if (process.send !== undefined && process.argv[2] !== undefined) {
  await work(JSON.parse(process.argv[2]) as Task, (report) => process.send!(report));
  process.disconnect();
}
