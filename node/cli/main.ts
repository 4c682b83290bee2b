/** The command line: one file a group of commands under `commands/`, each loading what it needs when it runs. */
import { Command } from 'commander';
import { chainSpecCommands } from './commands/chain-spec.ts';
import { demoCommands } from './commands/demo.ts';
import { devCommands } from './commands/dev.ts';
import { gatewayCommands } from './commands/gateway.ts';
import { keysCommands } from './commands/keys.ts';
import { nodeCommands } from './commands/node.ts';
import { workerCommands } from './commands/worker.ts';
import { version } from './options.ts';

const program = new Command('openledger')
  .description('The OpenLedger node: a ledger that knows whose records shaped an answer.')
  .version(version);
devCommands(program);
demoCommands(program);
nodeCommands(program);
keysCommands(program);
chainSpecCommands(program);
workerCommands(program);
gatewayCommands(program);

/** Failures with a code are known and people can mend them; everything else is a bug and comes with its stack. */
function told({ code, message, stack }: Error & { readonly code?: unknown }): string {
  const expected = typeof code === 'number' || (typeof code === 'string' && !code.startsWith('ERR_'));
  return expected ? `openledger: ${message} (${code})` : `${stack}`;
}

try {
  await program.parseAsync();
} catch (problem) {
  process.stderr.write(`${told(problem as Error & { readonly code?: unknown })}\n`);
  process.exitCode = 1;
}
