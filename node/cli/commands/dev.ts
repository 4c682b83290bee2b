/** `openledger dev`: a development ledger with everything that belongs to it, each part in a process of its own. */
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import { presetSpec } from '../../chain-spec/built-in.ts';
import { type Node, startNode } from '../../service.ts';
import { announce, keepRunning, type Listening } from '../child.ts';
import { keyFor } from '../gateway-key.ts';
import { type CommonFlags, commonOptions, withCommonFlags } from '../node-flags.ts';
import { count, port, stopSignal } from '../options.ts';

interface DevFlags extends CommonFlags {
  readonly worker: boolean;
  readonly gateway: boolean;
  readonly gatewayPort: number;
  readonly blockTime?: number;
}

/** Accounts of the development phrase that stand behind the parts: everybody knows their keys. */
const AUTHOR = '//Alice';
const WORKER = '//Bob';
const PAYER = '//Ferdie';

async function runDev(flags: DevFlags): Promise<void> {
  const signal = stopSignal();
  const nodeStop = new AbortController();
  const options = {
    ...commonOptions(flags),
    name: flags.name ?? 'Alice',
    spec: presetSpec('dev', flags.blockTime === undefined ? {} : { slotDurationMs: flags.blockTime }),
    basePath: flags.basePath,
    authority: AUTHOR,
  };
  const { log } = options;
  const node = await startNode(options, nodeStop.signal);
  log('info', `${options.spec.name}: JSON-RPC at ${node.rpc.ws} and ${node.rpc.http}, data in ${node.directory}`);

  const failed = new AbortController();
  node.stopped.catch(() => failed.abort());
  const until = AbortSignal.any([signal, failed.signal]);
  const gatewayPath = join(node.directory, 'gateway');
  const up = (gateway: string | undefined): void => {
    announce({ node: node.rpc.ws, gateway });
    if (process.send !== undefined) return;
    const told = async (): Promise<void> => {
      const key = gateway === undefined ? undefined : await keyFor(gateway);
      say(welcome(node, flags, gateway === undefined ? undefined : { url: gateway, key }));
    };
    told().catch((problem: unknown) => log('error', String(problem)));
  };
  const shared = ['--node', node.rpc.ws, '--log', flags.log];
  const parts: Promise<void>[] = [];
  if (flags.worker) {
    const own = ['--key', WORKER, '--base-path', join(node.directory, 'worker'), '--engine', 'embedded'];
    const args = ['worker', ...shared, ...own];
    parts.push(keepRunning({ name: 'worker', args: [...args, '--settle-every', '10'], log }, until));
  }
  if (flags.gateway) {
    const args = ['gateway', ...shared, '--key', PAYER, '--base-path', gatewayPath];
    let told = false;
    const tell = (gateway: string | undefined): void => {
      if (!told) up(gateway);
      told = true;
    };
    const hooks = { ready: ({ gateway }: Listening) => tell(gateway), ended: () => tell(undefined) };
    parts.push(
      keepRunning({ name: 'gateway', args: [...args, '--port', String(flags.gatewayPort)], log, ...hooks }, until),
    );
  } else up(undefined);

  await new Promise<void>((resolve) => {
    if (until.aborted) resolve();
    else until.addEventListener('abort', () => resolve(), { once: true });
  });
  // The parts first: they may have something to settle.
  await Promise.all(parts);
  nodeStop.abort();
  await node.stopped;
  log('info', 'stopped');
}

/** Beside the log, not in it, where the log is read by a machine. */
const say = (text: string): boolean => (process.stdout.isTTY ? process.stdout : process.stderr).write(text);

interface Door {
  readonly url: string;
  readonly key: string | undefined;
}

function welcome({ rpc, directory }: Node, flags: DevFlags, gateway: Door | undefined): string {
  const at = rpc.ws === 'ws://127.0.0.1:9944' ? '' : ` --node ${rpc.ws}`;
  const run = 'npm run -s openledger --';
  const kept = flags.basePath === undefined ? ', removed at the end' : '';
  const lines = [
    '',
    'OpenLedger development ledger',
    '',
    `JSON-RPC  ${rpc.ws} and ${rpc.http} (wallets, libraries, explorers)`,
    `Blobs     ${rpc.http}/blobs/0x…`,
    ...(gateway === undefined ? [] : [`Gateway   ${gateway.url} (OpenAI’s API; ${PAYER} pays)`]),
    ...(gateway?.key === undefined ? [] : [`API key   ${gateway.key} (programs other than openledger's own need it)`]),
    ...(flags.worker ? [`Worker    ${WORKER} trains and serves on this machine’s CPU`] : []),
    `Data      ${directory}${kept}`,
    '',
    'First steps, in another terminal:',
    `  npm run demo${at === '' ? '' : ` --${at}`}`,
    `  ${run} model list${at}`,
    ...(gateway === undefined ? [] : [`  curl ${gateway.url}/models`]),
    '',
    'Ctrl-C stops everything.',
    '',
  ];
  return lines.map((line) => (line === '' ? '\n' : `  ${line}\n`)).join('');
}

export function devCommands(program: Command): void {
  withCommonFlags(program.command('dev'))
    .description('run a whole development ledger: Alice authors, a worker trains and serves, a gateway answers')
    .option('--no-worker', 'without the worker')
    .option('--no-gateway', 'without the gateway')
    .addOption(new Option('--gateway-port <port>', 'port for OpenAI’s API, 0 for any').argParser(port).default(8080))
    .addOption(new Option('--block-time <ms>', 'time between blocks (default: 3000)').argParser(count))
    .action(runDev);
}
