/** `openledger testnet`: several validators and workers on this machine, each in a process of its own, and how they stand. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { presetSpec } from '../../chain-spec/built-in.ts';
import { chainSpecJson } from '../../chain-spec/chain-spec.ts';
import { createLog, type LogLevel } from '../../logging.ts';
import type { Log } from '../../ports/machine.ts';
import { keepRunning } from '../child.ts';
import { count, port, stopSignal, withLogFlag } from '../options.ts';
import { table } from '../table.ts';

interface TestnetFlags {
  readonly validators: number;
  readonly workers: number;
  readonly slotDuration: number;
  readonly basePath?: string;
  readonly rpcPort: number;
  readonly port: number;
  readonly log: LogLevel;
}

/** Validators author under the names of the test family; the workers' accounts come from its other end. */
const FAMILY = ['Alice', 'Bob', 'Charlie', 'Dave', 'Eve', 'Ferdie'] as const;
const EVERY_MS = 1_000;
/** Where nobody looks at a terminal, the table is written less often. */
const EVERY_PLAIN_MS = 5_000;
const ANSWER_MS = 5_000;

/** What a node says of itself; undefined while it does not answer. */
export interface Standing {
  readonly peers: number;
  readonly best: number;
  readonly finalized: number;
  readonly waiting: number;
}

/** A part of the network: what is shown of it. */
interface Part {
  readonly name: string;
  readonly kind: 'validator' | 'worker';
  /** Where it is reached, once it is up; a worker's: the node that it is attached to. */
  url: string | undefined;
}

async function ask<T>(url: string, method: string, ...params: readonly unknown[]): Promise<T> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  const { result, error } = (await response.json()) as { result: T; error?: { message: string } };
  if (error !== undefined) throw new Error(error.message);
  return result;
}

/** `url`: of a node's JSON-RPC by HTTP. */
export async function standingOf(url: string): Promise<Standing | undefined> {
  try {
    const [{ peers }, best, final, waiting] = await Promise.all([
      ask<{ peers: number }>(url, 'system_health'),
      ask<{ number: string }>(url, 'chain_getHeader'),
      ask<string>(url, 'chain_getFinalizedHead').then((hash) => ask<{ number: string }>(url, 'chain_getHeader', hash)),
      ask<readonly string[]>(url, 'author_pendingExtrinsics'),
    ]);
    return { peers, best: Number(best.number), finalized: Number(final.number), waiting: waiting.length };
  } catch {
    return undefined;
  }
}

export function standings(parts: readonly Part[], found: readonly (Standing | undefined)[]): string {
  const rows = parts.map(({ name, kind, url }, i) => {
    const each = found[i];
    if (kind === 'worker') return [name, url === undefined ? 'waiting' : 'running', '', '', '', '', '', url ?? ''];
    if (each === undefined) return [name, url === undefined ? 'starting' : 'silent', '', '', '', '', '', url ?? ''];
    const { best, finalized, peers, waiting } = each;
    return [name, 'running', ...[best, finalized, best - finalized, peers, waiting].map(String), url ?? ''];
  });
  return table(['', 'state', '>best', '>final', '>lag', '>peers', '>waiting', 'JSON-RPC'], rows);
}

/** One that is free now; whoever takes it first has it. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve, reject) => server.once('listening', resolve).once('error', reject));
  const { port: free } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return free;
}

/** The log where a table is drawn anew over and over: kept out of its way, but for what is wrong. */
function quiet(log: Log, drawn: boolean): Log {
  return drawn
    ? (level, message, fields) => (level === 'error' || level === 'warn') && log(level, message, fields)
    : log;
}

async function run(flags: TestnetFlags): Promise<void> {
  const signal = stopSignal();
  const drawn = process.stdout.isTTY === true;
  const log = quiet(createLog(flags.log), drawn);
  const home = flags.basePath ?? (await mkdtemp(join(tmpdir(), 'testnet-')));
  try {
    await mkdir(home, { recursive: true });
    const authorities = FAMILY.slice(0, flags.validators);
    const chain = join(home, 'chain.json');
    await writeFile(chain, chainSpecJson(presetSpec('local', { slotDurationMs: flags.slotDuration, authorities })));
    const portOf = async (base: number, i: number): Promise<number> => (base === 0 ? freePort() : base + i);
    const parts: Part[] = [];
    const running: Promise<void>[] = [];
    const { promise: firstUp, resolve: isUp } = Promise.withResolvers<void>();
    /** Addresses of those before, which the next one begins with. */
    const bootnodes: string[] = [];
    for (const [i, name] of authorities.entries()) {
      const part: Part = { name, kind: 'validator', url: undefined };
      parts.push(part);
      const [peerPort, rpcPort] = [await portOf(flags.port, i), await portOf(flags.rpcPort, i)];
      const nodeKey = join(home, `${name}.node-key`);
      const args = [
        ...['node', '--chain', chain, '--base-path', join(home, name), `--${name.toLowerCase()}`, '--log', flags.log],
        ...['--listen-addr', `/ip4/127.0.0.1/tcp/${peerPort}`, '--node-key-file', nodeKey, '--no-mdns'],
        ...['--rpc-port', String(rpcPort), '--no-prometheus', ...bootnodes.flatMap((each) => ['--bootnodes', each])],
      ];
      const ready = ({ node }: { readonly node?: string | undefined }): void => {
        part.url = node?.replace('ws:', 'http:');
        isUp();
      };
      bootnodes.push(`/ip4/127.0.0.1/tcp/${peerPort}/p2p/${await peerIdOf(nodeKey)}`);
      running.push(keepRunning({ name, args, log, ready }, signal));
    }
    const workers = Array.from({ length: flags.workers }, async (_, i) => {
      const account = FAMILY[FAMILY.length - 1 - i]!;
      const part: Part = { name: `worker ${i + 1}, ${account}`, kind: 'worker', url: undefined };
      parts.push(part);
      const validator = parts[i % flags.validators]!;
      while (validator.url === undefined && !signal.aborted) await delay(100);
      if (signal.aborted) return;
      const node = validator.url!.replace('http:', 'ws:');
      const own = ['--key', `//${account}`, '--base-path', join(home, `worker-${i + 1}`), '--engine', 'embedded'];
      part.url = node;
      await keepRunning({ name: part.name, args: ['worker', '--node', node, '--log', flags.log, ...own], log }, signal);
    });
    for (const worker of workers) running.push(worker);
    await Promise.race([firstUp, aborted(signal)]);
    await show(parts, drawn, signal);
    await Promise.all(running);
  } finally {
    if (flags.basePath === undefined) await rm(home, { recursive: true, force: true });
  }
}

async function peerIdOf(file: string): Promise<string> {
  const [{ loadIdentity }, { peerIdFromPrivateKey }] = await Promise.all([
    import('../../../p2p/host/identity.ts'),
    import('@libp2p/peer-id'),
  ]);
  return peerIdFromPrivateKey(await loadIdentity(file)).toString();
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });

/** Draws the table until the signal, on a terminal over the last one. */
async function show(parts: readonly Part[], drawn: boolean, signal: AbortSignal): Promise<void> {
  let lines = 0;
  while (!signal.aborted) {
    const found = await Promise.all(
      parts.map(({ kind, url }) => (kind === 'validator' && url !== undefined ? standingOf(url) : undefined)),
    );
    const text = `${standings(parts, found)}\n${drawn ? 'Ctrl-C stops everything.\n' : ''}`;
    process.stdout.write(drawn && lines > 0 ? `\x1b[${lines}A\x1b[0J${text}` : text);
    lines = text.split('\n').length - 1;
    await delay(drawn ? EVERY_MS : EVERY_PLAIN_MS, undefined, { signal }).catch(() => {});
  }
}

const upTo =
  (most: number, least: number) =>
  (text: string): number => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least || value > most) {
      throw new InvalidArgumentError(`${least} to ${most}`);
    }
    return value;
  };

export function testnetCommands(program: Command): void {
  withLogFlag(program.command('testnet'))
    .description(
      'run a network on this machine: validators that find each other, workers, and a table of how they stand',
    )
    .addOption(
      new Option('--validators <n>', 'nodes that author and vote').argParser(upTo(FAMILY.length, 1)).default(4),
    )
    .addOption(new Option('--workers <n>', 'workers attached to them').argParser(upTo(FAMILY.length, 0)).default(2))
    .addOption(new Option('--slot-duration <ms>', 'milliseconds of a slot').argParser(count).default(3_000))
    .option('--base-path <dir>', 'where everything is kept (default: a temporary directory)')
    .addOption(new Option('--rpc-port <port>', 'JSON-RPC of the first node, 0 for any').argParser(port).default(9944))
    .addOption(
      new Option('--port <port>', 'port for peers of the first node, 0 for any').argParser(port).default(30_333),
    )
    .action(run);
}
