/** Processes that are kept running, as a service manager keeps them: one that ends is started again, until the end. */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { type NodeProcess, type NodeSpawn, spawnNode } from '../../bench/support/node-process.ts';
import { spawnWorker, type WorkerProcess } from '../../gpu-worker/line.ts';
import type { ProcessSettings } from '../../gpu-worker/worker-process.ts';

const AGAIN_MS = 500;

export class KeptWorker {
  readonly settings: ProcessSettings;
  readonly #environment: Readonly<Record<string, string>>;
  #running: WorkerProcess | undefined;
  #over = false;
  #keeping: Promise<void> = Promise.resolve();
  starts = 0;
  /** All that it said, over all of its lives. */
  log = '';
  #life = '';

  constructor(settings: ProcessSettings, environment: Readonly<Record<string, string>> = {}) {
    this.settings = settings;
    this.#environment = environment;
  }

  start(): void {
    this.#keeping = this.#keep();
  }

  get pid(): number | undefined {
    return this.#running?.child.exitCode === null ? this.#running.child.pid : undefined;
  }

  /** Whether it is attached to its node, as far as it said. */
  get isUp(): boolean {
    return this.pid !== undefined && /attached to [^\n]*\n(?!.*lost the node)/s.test(this.#life);
  }

  /** A line of ours among what it said. */
  note(line: string): void {
    this.log += `${new Date().toISOString()} ${line}\n`;
  }

  /** The processes that it started itself: its engine. */
  get children(): number[] {
    return this.pid === undefined ? [] : childrenOf(this.pid);
  }

  async kill(): Promise<void> {
    await this.#running?.kill();
  }

  /** Asks it to end, and does not start it again. */
  async stop(): Promise<void> {
    this.#over = true;
    this.#running?.child.kill('SIGTERM');
    await this.#keeping;
  }

  async #keep(): Promise<void> {
    for (; !this.#over; await pause(AGAIN_MS)) {
      this.starts++;
      // Whoever keeps it ends it: there is no test to do so.
      const running = spawnWorker({ teardown: () => undefined }, this.settings, this.#environment);
      this.#running = running;
      this.#life = '';
      const hear = (chunk: Buffer): void => {
        this.log += chunk;
        this.#life += chunk;
      };
      running.child.stdout?.on('data', hear);
      running.child.stderr?.on('data', hear);
      if (this.#over) running.child.kill('SIGTERM');
      await running.ended;
    }
  }
}

export class KeptNode {
  readonly ws: string;
  readonly #args: readonly string[];
  #spawned: NodeSpawn;
  #running: NodeProcess;
  starts = 1;

  /** `args`: with the port of its RPC, so that it is found again. */
  static async start(args: readonly string[]): Promise<KeptNode> {
    const spawned = spawnNode(args);
    return new KeptNode(args, spawned, await spawned.ready);
  }

  private constructor(args: readonly string[], spawned: NodeSpawn, running: NodeProcess) {
    this.#args = args;
    this.#spawned = spawned;
    this.#running = running;
    this.ws = running.ws;
  }

  /** Ends it by `signal`; resolves when another serves. */
  async restart(signal: NodeJS.Signals): Promise<void> {
    await this.#running.stop(signal);
    this.starts++;
    this.#spawned = spawnNode(this.#args);
    this.#running = await this.#spawned.ready;
  }

  async stop(): Promise<void> {
    this.#spawned.child.kill('SIGTERM');
    await this.#spawned.ended;
  }
}

/** proc(5): the fourth field of a process's `stat` is its parent. */
function childrenOf(parent: number): number[] {
  const found: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const fields = readFileSync(`/proc/${name}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
      if (Number(fields[1]) === parent) found.push(Number(name));
    } catch {
      // Gone meanwhile.
    }
  }
  return found;
}
