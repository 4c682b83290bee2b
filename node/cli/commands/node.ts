/** `openledger dev` and `openledger node`. */
import { type Command, Option } from 'commander';
import { loadChainSpec } from '../../chain-spec/built-in.ts';
import { createLog, type LogLevel } from '../../logging.ts';
import { type NodeOptions, startNode } from '../../service.ts';
import { port, pruning, stopSignal, version, withLogFlag } from '../options.ts';

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

function withNodeFlags(command: Command): Command {
  return withLogFlag(
    command
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
      ),
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
  const node = await startNode(options, stopSignal());
  options.log('info', `${spec.name}: JSON-RPC at ${node.rpc.ws} and ${node.rpc.http}, data in ${node.directory}`);
  await node.stopped;
  options.log('info', 'stopped');
}

export function nodeCommands(program: Command): void {
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
}
