/** The command line: one file a group of commands under `commands/`, each loading what it needs when it runs. */
import { Command } from 'commander';
import { RpcStartError } from '../../rpc/server.ts';
import { ChainSpecError } from '../chain-spec/errors.ts';
import { DatabaseError } from '../database/database.ts';
import { nodeCommands } from './commands/node.ts';
import { version } from './options.ts';

const program = new Command('openledger')
  .description('The OpenLedger node: a ledger that knows whose records shaped an answer.')
  .version(version);
nodeCommands(program);

try {
  await program.parseAsync();
} catch (problem) {
  const known =
    problem instanceof DatabaseError || problem instanceof RpcStartError || problem instanceof ChainSpecError;
  process.stderr.write(known ? `openledger: ${problem.message} (${problem.code})\n` : `${(problem as Error).stack}\n`);
  process.exitCode = 1;
}
