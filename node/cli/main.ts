/** The command line. */
import { readFileSync } from 'node:fs';
import { Command, InvalidArgumentError, Option } from 'commander';
import { RpcStartError } from '../../rpc/server.ts';
import { loadChainSpec } from '../chain-spec/built-in.ts';
import { ChainSpecError } from '../chain-spec/errors.ts';
import { DatabaseError } from '../database/database.ts';
import { createLog, type LogLevel } from '../logging.ts';
import { type NodeOptions, startNode } from '../service.ts';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

interface NodeFlags {
  readonly chain: string;
  readonly dev?: boolean;
  readonly tmp?: boolean;
  readonly basePath?: string;
  readonly validator?: string;
  readonly name: string;
  readonly rpcPort: number;
  readonly rpcExternal?: boolean;
  readonly rpcMethods: 'auto' | 'safe' | 'unsafe';
  readonly statePruning: number | 'archive';
  readonly log: LogLevel;
}

function port(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 65_535) throw new InvalidArgumentError('a port is 0 to 65535');
  return value;
}

function pruning(text: string): number | 'archive' {
  if (text === 'archive') return text;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('a number of blocks, or "archive"');
  return value;
}

function withNodeFlags(command: Command): Command {
  return command
    .addOption(new Option('--base-path <dir>', 'where the chain is kept (default: a temporary directory)'))
    .addOption(new Option('--name <name>', 'how this node calls itself').default('openledger'))
    .addOption(new Option('--rpc-port <port>', 'port for JSON-RPC, 0 for any').argParser(port).default(9944))
    .addOption(new Option('--rpc-external', 'serve JSON-RPC on every address, not only on this machine'))
    .addOption(
      new Option('--rpc-methods <set>', 'which methods are offered')
        .choices(['auto', 'safe', 'unsafe'])
        .default('auto'),
    )
    .addOption(
      new Option('--state-pruning <blocks>', 'final states that are kept, or "archive"')
        .argParser(pruning)
        .default(256),
    )
    .addOption(
      new Option('--log <level>', 'how much is told').choices(['error', 'warn', 'info', 'debug']).default('info'),
    );
}

async function runNode(flags: NodeFlags): Promise<void> {
  const spec = loadChainSpec(flags.chain);
  const options: NodeOptions = {
    name: flags.name,
    version,
    spec,
    basePath: flags.tmp ? undefined : flags.basePath,
    statePruning: flags.statePruning,
    authority: flags.validator ?? (spec.chainType === 'Development' ? '//Alice' : undefined),
    rpc: { host: flags.rpcExternal ? '0.0.0.0' : '127.0.0.1', port: flags.rpcPort, methods: flags.rpcMethods },
    log: createLog(flags.log),
  };
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  const node = await startNode(options, stop.signal);
  options.log('info', `${spec.name}: JSON-RPC at ${node.rpc.ws} and ${node.rpc.http}, data in ${node.directory}`);
  await node.stopped;
  options.log('info', 'stopped');
}

const program = new Command('openledger')
  .description('The OpenLedger node: a ledger that knows whose records shaped an answer.')
  .version(version);
withNodeFlags(program.command('dev'))
  .description('run a development ledger: Alice authors and finalizes, everyone of the test family has OPEN')
  .action((flags: Omit<NodeFlags, 'chain'>) => runNode({ ...flags, chain: 'dev' }));
withNodeFlags(program.command('node'))
  .description('run a node')
  .addOption(new Option('--chain <name|file>', 'a built-in chain (dev, local) or a chain spec').default('dev'))
  .addOption(new Option('--dev', 'the same as --chain dev'))
  .addOption(new Option('--tmp', 'keep the data in a temporary directory and remove it afterwards'))
  .addOption(new Option('--validator <uri>', 'author and vote with the keys of this secret URI, e.g. //Bob'))
  .action((flags: NodeFlags) => runNode(flags.dev ? { ...flags, chain: 'dev' } : flags));

try {
  await program.parseAsync();
} catch (problem) {
  const known =
    problem instanceof DatabaseError || problem instanceof RpcStartError || problem instanceof ChainSpecError;
  process.stderr.write(known ? `openledger: ${problem.message} (${problem.code})\n` : `${(problem as Error).stack}\n`);
  process.exitCode = 1;
}
