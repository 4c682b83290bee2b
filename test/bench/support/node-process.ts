/** A node in a process of its own, started from its command line as people start it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const READY = /JSON-RPC at (ws:\/\/[^\s"]+)/;

/** Long: on a machine with much else to do a start takes tens of seconds. */
const UP_MS = 180_000;

export interface NodeProcess {
  readonly ws: string;
  readonly http: string;
  readonly child: ChildProcess;
  /** From the start of the process until it said that it serves. */
  readonly startMs: number;
  /** Everything it wrote to its log so far. */
  log(): string;
  /** Resident memory in bytes. */
  memory(): number;
  /** Processor time of all its threads so far, in milliseconds. */
  cpuMs(): number;
  /** Asks it to end and waits until it has. */
  stop(signal?: NodeJS.Signals): Promise<void>;
}

/** Fields 14 and 15 of proc(5), in the hundredths of a second that Linux counts in for programs. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

/** A node on its way: it can be killed before it is {@link NodeSpawn.ready}. */
export interface NodeSpawn {
  readonly child: ChildProcess;
  /** Rejects with its log when it does not come up. */
  readonly ready: Promise<NodeProcess>;
  readonly ended: Promise<void>;
}

/** `args`: what follows `openledger`; `execArgv`: options of Node itself. */
export function spawnNode(args: readonly string[], execArgv: readonly string[] = []): NodeSpawn {
  const started = performance.now();
  const child = spawn(process.execPath, [...execArgv, 'node/cli/openledger.mjs', ...args], {
    cwd: ROOT,
    // The channel ends with this process, however that ends, and the node with the channel.
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  child.channel?.unref();
  let log = '';
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const serving = new Promise<string>((resolve, reject) => {
    const failed = (why: string) => reject(new Error(`the node ${why}:\n${log}`));
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      failed(`did not come up within ${UP_MS / 1_000} s`);
    }, UP_MS);
    const read = (chunk: Buffer): void => {
      log += chunk;
      const found = READY.exec(log)?.[1];
      if (found === undefined) return;
      clearTimeout(timer);
      resolve(found);
    };
    child.stdout?.on('data', read);
    child.stderr?.on('data', read);
    child.once('close', (code) => {
      clearTimeout(timer);
      failed(`ended with ${code}`);
    });
  });
  const ready = serving.then((ws) => ({
    ws,
    http: ws.replace('ws:', 'http:'),
    child,
    startMs: performance.now() - started,
    log: () => log,
    memory: () => 1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1] ?? 0),
    cpuMs: () => cpuOf(child.pid!),
    async stop(signal: NodeJS.Signals = 'SIGTERM') {
      child.kill(signal);
      await ended;
    },
  }));
  return { child, ready, ended };
}

/** Rejects with its log when it does not come up. */
export const startNodeProcess = (args: readonly string[], execArgv: readonly string[] = []): Promise<NodeProcess> =>
  spawnNode(args, execArgv).ready;
