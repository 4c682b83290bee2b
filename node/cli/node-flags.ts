/** The flags of a node, named as Substrate names them, and what they come to. */
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { NetworkSettings } from '../../p2p/network.ts';
import type { MethodPolicy } from '../../rpc/server/access.ts';
import { loadChainSpec } from '../chain-spec/built-in.ts';
import { parseBootNode } from '../chain-spec/chain-spec.ts';
import { ChainSpecError } from '../chain-spec/errors.ts';
import { createLog, type LogLevel } from '../logging.ts';
import type { NodeOptions } from '../options.ts';
import { ConfigError } from './config-file.ts';
import { count, port, pruning, version, withLogFlag } from './options.ts';

/** What `dev` and `node` have in common. */
export interface CommonFlags {
  readonly basePath?: string;
  readonly name?: string;
  readonly rpcPort: number;
  readonly rpcExternal?: boolean;
  readonly rpcMethods: MethodPolicy;
  readonly rpcCors?: string;
  readonly rpcHosts?: string;
  readonly rpcMaxConnections: number;
  readonly statePruning: number | 'archive';
  /** In bytes. */
  readonly blobStoreSize: number;
  readonly blocksPruning: number | 'archive';
  readonly log: LogLevel;
}

const FAMILY = ['alice', 'bob', 'charlie', 'dave', 'eve', 'ferdie'] as const;

export interface NodeFlags extends CommonFlags, Partial<Readonly<Record<(typeof FAMILY)[number], boolean>>> {
  readonly chain?: string;
  readonly dev?: boolean;
  readonly tmp?: boolean;
  readonly validator?: boolean;
  readonly watcher: boolean;
  readonly passwordFile?: string;
  readonly port?: number;
  readonly listenAddr?: readonly string[];
  readonly publicAddr?: readonly string[];
  readonly bootnodes?: readonly string[];
  readonly reservedNodes?: readonly string[];
  readonly nodeKeyFile?: string;
  readonly maxPeers: number;
  readonly mdns: boolean;
  readonly prometheus: boolean;
  readonly prometheusPort?: number;
  readonly prometheusExternal?: boolean;
  readonly sync: 'full' | 'warp';
}

const PORT = 30_333;
const PROMETHEUS_PORT = 9_615;

const GIB = 2 ** 30;
const DEFAULT_BLOB_BYTES = 8 * GIB;

/** Part numbers are fine: 0.5 is half a gibibyte. */
function gibibytes(text: string): number {
  const bytes = Math.round(Number(text) * GIB);
  if (text.trim() === '' || !Number.isSafeInteger(bytes) || bytes < 1) {
    throw new InvalidArgumentError('must be a number of gibibytes above 0');
  }
  return bytes;
}

/** An address that names the peer behind it; collected, since the flag may be repeated. */
function peerAddress(text: string, before: readonly string[] = []): readonly string[] {
  try {
    return [...before, parseBootNode(text, 'the address')];
  } catch (problem) {
    if (problem instanceof ChainSpecError) throw new InvalidArgumentError(problem.message);
    throw problem;
  }
}

export const withCommonFlags = (command: Command): Command =>
  withLogFlag(
    command
      .option('--base-path <dir>', 'where the chain and its keys are kept')
      .option('--name <name>', 'how this node calls itself')
      .addOption(new Option('--rpc-port <port>', 'port for JSON-RPC, 0 for any').argParser(port).default(9944))
      .option('--rpc-external', 'serve JSON-RPC on every address, not only on this machine')
      .addOption(
        new Option('--rpc-methods <set>', 'which methods are offered')
          .choices(['auto', 'safe', 'unsafe'])
          .default('auto'),
      )
      .option(
        '--rpc-cors <origins>',
        'pages that may use JSON-RPC, separated by commas, or "all" (default: local ones)',
      )
      .option(
        '--rpc-hosts <names>',
        'host names that JSON-RPC may be called by, separated by commas (addresses and localhost always)',
      )
      .addOption(
        new Option('--rpc-max-connections <n>', 'connections to JSON-RPC at the same time')
          .argParser(count)
          .default(500),
      )
      .addOption(
        new Option('--state-pruning <blocks>', 'final states that are kept, or "archive"')
          .argParser(pruning)
          .default(256),
      )
      .addOption(
        new Option(
          '--blob-store-size <gibibytes>',
          'room for records, adapters and receipts on this disk; validators keep all of the ledger’s as far as it goes',
        )
          .argParser(gibibytes)
          .default(DEFAULT_BLOB_BYTES, '8'),
      )
      .addOption(
        new Option('--blocks-pruning <blocks>', 'final blocks whose bodies are kept, or "archive"')
          .argParser(pruning)
          .default('archive'),
      ),
  );

export function withNodeFlags(command: Command): Command {
  withCommonFlags(command)
    .option('--chain <name|file>', 'a built-in chain (dev, local) or a chain spec')
    .option('--dev', 'the development chain, alone, Alice authoring, in a temporary directory unless told otherwise')
    .option('--tmp', 'keep the data in a temporary directory and remove it afterwards')
    .option('--validator', 'author and vote with the keys of the keystore (see "keys insert")')
    .option('--no-watcher', 'do not look at what is to be paid (validators do, and show what is wrong)')
    .option('--password-file <file>', 'file with the password of the keystore')
    .addOption(new Option('--port <port>', `port for peers (default: ${PORT})`).argParser(port))
    .option('--listen-addr <multiaddr...>', 'where to listen for peers, in place of --port')
    .option('--public-addr <multiaddr...>', 'addresses under which peers reach this node')
    .addOption(new Option('--bootnodes <multiaddr...>', 'peers to begin with').argParser(peerAddress))
    .addOption(
      new Option('--reserved-nodes <multiaddr...>', 'peers always to be connected with').argParser(peerAddress),
    )
    .option('--node-key-file <file>', 'key that names this node to its peers (default: kept with the data)')
    .addOption(new Option('--max-peers <n>', 'peers at the same time').argParser(count).default(50))
    .option('--no-mdns', 'do not look for peers on the local network')
    .addOption(
      new Option('--prometheus-port <port>', `port for metrics, 0 for any (default: ${PROMETHEUS_PORT})`).argParser(
        port,
      ),
    )
    .option('--prometheus-external', 'serve metrics on every address, not only on this machine')
    .option('--no-prometheus', 'serve no metrics')
    .addOption(
      new Option(
        '--sync <mode>',
        'fill a new chain block by block, or leap to its newest final state and fetch the past later',
      )
        .choices(['full', 'warp'])
        .default('full'),
    )
    .option('--config <file>', 'JSON file with these options by their names');
  for (const name of FAMILY)
    command.option(`--${name}`, `--name ${capital(name)} --validator, with the keys of //${capital(name)}`);
  return command;
}

const capital = (name: string): string => name[0]!.toUpperCase() + name.slice(1);

/** Where data goes by the habits of the system (XDG base directories). */
export const defaultBasePath = (): string =>
  join(process.env.XDG_DATA_HOME ?? join(homedir(), '.local', 'share'), 'openledger');

export function commonOptions(
  flags: CommonFlags,
): Pick<NodeOptions, 'version' | 'statePruning' | 'blocksPruning' | 'blobBytes' | 'rpc' | 'log'> {
  const { rpcCors, rpcHosts } = flags;
  return {
    version,
    statePruning: flags.statePruning,
    blocksPruning: flags.blocksPruning,
    blobBytes: flags.blobStoreSize,
    rpc: {
      host: flags.rpcExternal ? '0.0.0.0' : '127.0.0.1',
      port: flags.rpcPort,
      methods: flags.rpcMethods,
      maxConnections: flags.rpcMaxConnections,
      ...(rpcCors !== undefined && {
        cors: rpcCors === 'all' ? rpcCors : rpcCors.split(',').map((each) => each.trim()),
      }),
      ...(rpcHosts !== undefined && { hosts: rpcHosts.split(',').map((each) => each.trim()) }),
    },
    log: createLog(flags.log),
  };
}

/** Throws `ChainSpecError` and {@link ConfigError}. */
export function nodeOptions(flags: NodeFlags): NodeOptions {
  const spec = loadChainSpec(flags.chain ?? 'dev');
  const member = FAMILY.find((name) => flags[name]) ?? (flags.dev && !flags.validator ? 'alice' : undefined);
  const temporary = flags.tmp || (flags.dev && flags.basePath === undefined);
  return {
    ...commonOptions(flags),
    name: flags.name ?? (member === undefined ? 'openledger' : capital(member)),
    spec,
    basePath: temporary ? undefined : (flags.basePath ?? defaultBasePath()),
    validator: flags.validator ?? member !== undefined,
    authority: member === undefined ? undefined : `//${capital(member)}`,
    keystorePassword: flags.passwordFile === undefined ? '' : passwordIn(flags.passwordFile),
    ...(!flags.watcher && { watcher: false }),
    network: networkSettings(flags),
    metrics: metricsAddress(flags),
  };
}

export function passwordIn(file: string): string {
  try {
    return readFileSync(file, 'utf8').replace(/\r?\n$/, '');
  } catch (problem) {
    const { code } = problem as NodeJS.ErrnoException;
    throw new ConfigError('IO', `the password file ${file} cannot be read: ${code}`, { cause: problem });
  }
}

/** A development node, of which there may be many on a machine, has none unless told. */
function metricsAddress({ dev, prometheus, prometheusPort, prometheusExternal }: NodeFlags): NodeOptions['metrics'] {
  if (!prometheus || (dev && prometheusPort === undefined)) return undefined;
  return { host: prometheusExternal ? '0.0.0.0' : '127.0.0.1', port: prometheusPort ?? PROMETHEUS_PORT };
}

/** A development node is alone until it is told of others. */
function networkSettings(flags: NodeFlags): NetworkSettings | undefined {
  const { listenAddr, bootnodes = [], reservedNodes = [] } = flags;
  const alone = flags.dev && flags.port === undefined && listenAddr === undefined;
  if (alone && bootnodes.length + reservedNodes.length === 0) return undefined;
  return {
    listen: listenAddr ?? [`/ip4/0.0.0.0/tcp/${flags.port ?? PORT}`],
    publicAddresses: flags.publicAddr ?? [],
    bootNodes: bootnodes,
    reserved: reservedNodes,
    keyFile: flags.nodeKeyFile,
    maxPeers: flags.maxPeers,
    mdns: flags.mdns && !flags.dev,
    sync: flags.sync,
    kad: true,
  };
}
