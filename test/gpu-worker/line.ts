/** A line between a worker and its node that a test can listen to and cut, and workers that a test can kill. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { ProcessSettings } from './worker-process.ts';

export interface Line {
  /** What the worker connects to. */
  readonly url: string;
  /** Cuts every connection that stands. */
  cut(): void;
  /** The next HTTP request of that method is not passed on; resolves when it comes. */
  hold(method: string): Promise<void>;
  /** Nothing more that the worker says over the connections that stand gets through; what is said to it does. */
  mute(): void;
  close(): Promise<void>;
}

export async function startLine(node: string): Promise<Line> {
  const { hostname, port } = new URL(node);
  const sockets = new Set<Socket>();
  const muted = new Set<Socket>();
  const held = new Map<string, () => void>();
  const server = createServer((incoming) => {
    sockets.add(incoming);
    let outgoing: Socket | undefined;
    incoming.on('error', () => incoming.destroy());
    incoming.on('close', () => {
      sockets.delete(incoming);
      muted.delete(incoming);
      outgoing?.destroy();
    });
    // The first bytes say what the connection is for; `fetch` may use it again later.
    incoming.on('data', (chunk) => {
      if (muted.has(incoming)) return;
      const method = /^[A-Z]+/.exec(chunk.toString('latin1', 0, 8))?.[0] ?? '';
      const release = held.get(method);
      if (release !== undefined) {
        held.delete(method);
        release();
        return;
      }
      if (outgoing === undefined) {
        outgoing = connect(Number(port), hostname);
        outgoing.on('error', () => incoming.destroy());
        outgoing.on('close', () => incoming.destroy());
        outgoing.pipe(incoming);
      }
      outgoing.write(chunk);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = (): void => {
    for (const each of sockets) each.destroy();
  };
  return {
    url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`,
    cut,
    mute: () => {
      for (const each of sockets) muted.add(each);
    },
    hold: (method) => new Promise((resolve) => held.set(method, resolve)),
    async close() {
      cut();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export interface WorkerProcess {
  readonly child: ChildProcess;
  readonly ended: Promise<unknown>;
  /** Resolves with the first line of its log that matches, also one of before. */
  says(what: RegExp): Promise<RegExpExecArray>;
  /** `kill -9`: nothing of it can do anything any more. */
  kill(): Promise<void>;
}

interface Teardown {
  teardown(handler: () => unknown): unknown;
}

export function spawnWorker(
  test: Teardown,
  settings: ProcessSettings,
  environment: Readonly<Record<string, string>> = {},
): WorkerProcess {
  const script = fileURLToPath(new URL('./worker-process.ts', import.meta.url));
  const child = spawn(process.execPath, [script, JSON.stringify(settings)], {
    // The channel ends with this process, however that ends, and the worker with the channel.
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    env: { ...process.env, ...environment },
  });
  child.channel?.unref();
  let log = '';
  const ended = once(child, 'exit');
  const waiting = new Set<() => void>();
  const hear = (chunk: Buffer): void => {
    log += chunk;
    if (process.env.TEST_LOG !== undefined) process.stderr.write(`# ${settings.uri} ${chunk}`);
    for (const look of waiting) look();
  };
  child.stdout?.on('data', hear);
  child.stderr?.on('data', hear);
  const kill = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
  };
  test.teardown(kill);
  return {
    child,
    ended,
    says: (what) =>
      new Promise((resolve, reject) => {
        const look = (): void => {
          const found = what.exec(log);
          if (found === null) return;
          waiting.delete(look);
          resolve(found);
        };
        waiting.add(look);
        void ended.then(() => reject(new Error(`the worker ended before it said ${what}:\n${log}`)));
        look();
      }),
    kill,
  };
}
