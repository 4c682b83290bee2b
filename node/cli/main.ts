/** The command line: one file a group of commands under `commands/`, each loading what it needs when it runs. */
import { Command } from 'commander';
import { NetworkError } from '../../p2p/errors.ts';
import { RpcStartError } from '../../rpc/server.ts';
import { ChainSpecError } from '../chain-spec/errors.ts';
import { DatabaseError } from '../database/database.ts';
import { KeystoreError } from '../keystore/keys.ts';
import { nodeCommands } from './commands/node.ts';
import { ConfigError } from './config-file.ts';
import { version } from './options.ts';

/** Failures that people cause and can mend; everything else is a bug and comes with its stack. */
const EXPECTED = [ChainSpecError, ConfigError, DatabaseError, KeystoreError, NetworkError, RpcStartError];

const program = new Command('openledger')
  .description('The OpenLedger node: a ledger that knows whose records shaped an answer.')
  .version(version);
nodeCommands(program);

try {
  await program.parseAsync();
} catch (problem) {
  const { message, code, stack } = problem as Error & { readonly code?: string };
  const expected = EXPECTED.some((kind) => problem instanceof kind);
  process.stderr.write(expected ? `openledger: ${message} (${code})\n` : `${stack}\n`);
  process.exitCode = 1;
}
