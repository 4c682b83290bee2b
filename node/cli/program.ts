/** All commands together: one file a group under `commands/`, each loading what it needs when it runs. */
import { Command } from 'commander';
import { accountCommands } from './commands/account.ts';
import { chainSpecCommands } from './commands/chain-spec.ts';
import { chatCommands } from './commands/chat.ts';
import { datanetCommands } from './commands/datanet.ts';
import { demoCommands } from './commands/demo.ts';
import { devCommands } from './commands/dev.ts';
import { gatewayCommands } from './commands/gateway.ts';
import { keysCommands } from './commands/keys.ts';
import { modelCommands } from './commands/model.ts';
import { nodeCommands } from './commands/node.ts';
import { rewardsCommands } from './commands/rewards.ts';
import { testnetCommands } from './commands/testnet.ts';
import { verifyCommands } from './commands/verify.ts';
import { workerCommands } from './commands/worker.ts';
import { version } from './options.ts';

export function createProgram(): Command {
  const program = new Command('openledger')
    .description('The OpenLedger node: a ledger that knows whose records shaped an answer.')
    .version(version);
  program.commandsGroup('Run a ledger:');
  devCommands(program);
  demoCommands(program);
  nodeCommands(program);
  keysCommands(program);
  chainSpecCommands(program);
  testnetCommands(program);
  program.commandsGroup('Bring a machine to it:');
  workerCommands(program);
  gatewayCommands(program);
  program.commandsGroup('Use it:');
  datanetCommands(program);
  modelCommands(program);
  chatCommands(program);
  rewardsCommands(program);
  verifyCommands(program);
  accountCommands(program);
  program.addHelpText(
    'after',
    `
From a record to its reward, on the ledger that "dev" runs:
  openledger datanet create --key //Alice --name Recipes
  openledger datanet contribute 0 recipes.jsonl --key //Charlie
  openledger datanet snapshot 0 --key //Alice
  openledger model order 0 --key //Alice --name recipes
  openledger chat recipes "What is a roux?"
  openledger rewards show //Charlie
  openledger rewards claim --key //Charlie

Every command has a --help of its own.`,
  );
  return program;
}

/** Failures with a code are known and people can mend them; everything else is a bug and comes with its stack. */
export function told(problem: unknown): string {
  const { code, message, stack } = problem as Error & { readonly code?: unknown };
  const expected = typeof code === 'number' || (typeof code === 'string' && !code.startsWith('ERR_'));
  return expected ? `openledger: ${message} (${code})` : `${stack}`;
}
