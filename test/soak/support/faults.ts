/** What goes wrong on a worker's machine: processes that are killed, memory and disk that run out, a node that goes away. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { appendFile, rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { KeptNode, KeptWorker } from './kept.ts';

const run = promisify(execFile);
/** More than this is no small file system that a test may fill. */
const MOST = 1024 ** 3;
const CHUNK = 1 << 20;

export type FaultKind = 'engine' | 'worker' | 'memory' | 'node' | 'disk';

/** `kill -9` of the engine's process; false where the engine lives in the worker's. */
export function killEngine(worker: KeptWorker): boolean {
  const [engine] = worker.children;
  if (engine === undefined) return false;
  process.kill(engine, 'SIGKILL');
  return true;
}

/**
 * For a while, the engine's process (or the worker's, where the engine has none of its own) gets no address space beyond what
 * it has: real allocations fail, wherever they happen to be.
 */
export async function starve(worker: KeptWorker, milliseconds: number): Promise<boolean> {
  const pid = worker.children[0] ?? worker.pid;
  if (pid === undefined) return false;
  try {
    const size = Number(/VmSize:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024;
    await run('prlimit', ['--pid', String(pid), `--as=${size}:`]);
    await pause(milliseconds);
    await run('prlimit', ['--pid', String(pid), '--as=unlimited:']);
  } catch {
    // It did not outlive it: another one has taken over, without a limit.
  }
  return true;
}

/** `directory`: on a small file system of its own. It is full for a while. */
export async function fill(directory: string, milliseconds: number): Promise<void> {
  const { blocks, bsize } = await statfs(directory);
  if (blocks * bsize > MOST) throw new Error(`${directory} is not on a small file system`);
  const filler = join(directory, 'filler');
  try {
    for (const end = Date.now() + milliseconds; Date.now() < end; ) {
      try {
        // Others write and remove as well: what becomes free is taken again.
        for (let size = CHUNK; size >= 1; size >>= 1) await appendFile(filler, new Uint8Array(size)).catch(isFull);
        await pause(50);
      } catch (problem) {
        isFull(problem as Error);
      }
    }
  } finally {
    await rm(filler, { force: true });
  }
}

function isFull(problem: Error): void {
  if ((problem as NodeJS.ErrnoException).code !== 'ENOSPC') throw problem;
}

export const restartNode = (node: KeptNode, hard: boolean): Promise<void> => node.restart(hard ? 'SIGKILL' : 'SIGTERM');
