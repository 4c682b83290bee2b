/** All commands together: one file a group under `commands/`, of which one run loads only its own. */
import { Command } from 'commander';
import { version } from './options.ts';

interface CommandGroup {
  readonly name: string;
  load(): Promise<(program: Command) => void>;
}

/** In the order of the help, under its headings. */
const GROUPS: readonly (readonly [heading: string, groups: readonly CommandGroup[]])[] = [
  [
    'Run a ledger:',
    [
      { name: 'dev', load: async () => (await import('./commands/dev.ts')).devCommands },
      { name: 'demo', load: async () => (await import('./commands/demo.ts')).demoCommands },
      { name: 'node', load: async () => (await import('./commands/node.ts')).nodeCommands },
      { name: 'keys', load: async () => (await import('./commands/keys.ts')).keysCommands },
      { name: 'chain-spec', load: async () => (await import('./commands/chain-spec.ts')).chainSpecCommands },
      { name: 'testnet', load: async () => (await import('./commands/testnet.ts')).testnetCommands },
    ],
  ],
  [
    'Bring a machine to it:',
    [
      { name: 'worker', load: async () => (await import('./commands/worker.ts')).workerCommands },
      { name: 'gateway', load: async () => (await import('./commands/gateway.ts')).gatewayCommands },
    ],
  ],
  [
    'Use it:',
    [
      { name: 'datanet', load: async () => (await import('./commands/datanet.ts')).datanetCommands },
      { name: 'model', load: async () => (await import('./commands/model.ts')).modelCommands },
      { name: 'chat', load: async () => (await import('./commands/chat.ts')).chatCommands },
      { name: 'rewards', load: async () => (await import('./commands/rewards.ts')).rewardsCommands },
      { name: 'verify', load: async () => (await import('./commands/verify.ts')).verifyCommands },
      { name: 'watch', load: async () => (await import('./commands/watch.ts')).watchCommands },
      { name: 'account', load: async () => (await import('./commands/account.ts')).accountCommands },
    ],
  ],
];

/** `wanted`: the first word of the command line. Where it names a group, only that one is loaded. */
export async function createProgram(wanted?: string): Promise<Command> {
  const program = new Command('openledger')
    .description('The OpenLedger node: a ledger that knows whose records shaped an answer.')
    .version(version);
  const isKnown = GROUPS.some(([, groups]) => groups.some(({ name }) => name === wanted));
  for (const [heading, groups] of GROUPS) {
    program.commandsGroup(heading);
    for (const { name, load } of groups) if (!isKnown || name === wanted) (await load())(program);
  }
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
