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

/** `directory`: on a small file system of its own. It is full, to the last byte, for a while; returns whether it was. */
export async function fill(directory: string, milliseconds: number): Promise<boolean> {
  const { blocks, bsize } = await statfs(directory);
  if (blocks * bsize > MOST) throw new Error(`${directory} is not on a small file system`);
  const filler = join(directory, 'filler');
  let end: number | undefined;
  try {
    while (end === undefined || Date.now() < end) {
      // Others write and remove as well: what becomes free is taken again.
      while (await grows(filler, CHUNK));
      for (let size = CHUNK; size >= 1; size >>= 1) await grows(filler, size);
      end ??= Date.now() + milliseconds;
      await pause(20);
    }
    return true;
  } finally {
    await rm(filler, { force: true });
  }
}

async function grows(file: string, bytes: number): Promise<boolean> {
  try {
    await appendFile(file, new Uint8Array(bytes));
    return true;
  } catch (problem) {
    if ((problem as NodeJS.ErrnoException).code !== 'ENOSPC') throw problem;
    return false;
  }
}

export const restartNode = (node: KeptNode, hard: boolean): Promise<void> => node.restart(hard ? 'SIGKILL' : 'SIGTERM');
