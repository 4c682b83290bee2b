/** A command of this program in a process of its own: its log goes into ours, it is started again when it fails, and it ends with us. */
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Log } from '../ports/machine.ts';

const MAIN = fileURLToPath(new URL('./openledger.mjs', import.meta.url));
const LEVELS: Readonly<Record<number, 'debug' | 'info' | 'warn' | 'error'>> = { 20: 'debug', 30: 'info', 40: 'warn' };
/** From asking to end to ending it. */
const STOP_MS = 3_500;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
/** One that ran for so long begins again with the short pause. */
const STEADY_MS = 60_000;

export interface ChildCommand {
  /** In front of its log lines. */
  readonly name: string;
  /** What follows `openledger` on the command line. */
  readonly args: readonly string[];
  readonly log: Log;
  /** Hears where it listens, each time it is up ({@link announce}). */
  ready?(at: Listening): void;
  /** Hears that it ended by itself, before it is started again. */
  ended?(): void;
}

/** Where the parts of a command listen. */
export interface Listening {
  readonly node?: string | undefined;
  readonly gateway?: string | undefined;
}

/** Tells the parent process, if it is one of ours, that this command is up. */
export function announce(at: Listening): void {
  process.send?.({ type: 'ready', at });
}

/** Runs until the signal. */
export async function keepRunning(command: ChildCommand, signal: AbortSignal): Promise<void> {
  const { name, log } = command;
  for (let pause = FIRST_PAUSE_MS; !signal.aborted; ) {
    const started = Date.now();
    const code = await runOnce(command, signal);
    if (signal.aborted) return;
    if (Date.now() - started > STEADY_MS) pause = FIRST_PAUSE_MS;
    log('warn', `${name} ended with ${code}: started again in ${pause / 1000} s`);
    command.ended?.();
    await delay(pause, undefined, { signal }).catch(() => {});
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }
}

/** Resolves with the exit code or signal name. */
function runOnce({ name, args, log, ready }: ChildCommand, signal: AbortSignal): Promise<number | string> {
  // The channel ends with this process, however that ends, and the child with the channel.
  const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  relay(child.stdout as Readable, (line) => tell(log, name, line));
  relay(child.stderr as Readable, (line) => log('warn', `${name}: ${line}`));
  child.on('message', (message) => {
    const { type, at } = message as { type?: unknown; at: Listening };
    if (type === 'ready') ready?.(at);
  });
  let killer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    child.kill('SIGTERM');
    killer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  };
  if (signal.aborted) stop();
  signal.addEventListener('abort', stop, { once: true });
  return new Promise((resolve) => {
    const over = (outcome: number | string): void => {
      clearTimeout(killer);
      signal.removeEventListener('abort', stop);
      resolve(outcome);
    };
    child.once('error', (problem) => over(problem.message));
    child.once('exit', (code, by) => over(code ?? by ?? 'unknown'));
  });
}

function relay(stream: Readable, hear: (line: string) => void): void {
  createInterface({ input: stream }).on('line', hear);
}

/** A line of the child's own log, or whatever else it wrote. */
function tell(log: Log, name: string, line: string): void {
  try {
    const { level, msg } = JSON.parse(line) as { level: number; msg: string };
    log(LEVELS[level] ?? 'error', `${name}: ${msg}`);
  } catch {
    log('info', `${name}: ${line}`);
  }
}
