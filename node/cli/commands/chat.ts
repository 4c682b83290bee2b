/** `openledger chat`: ask an adapter through a gateway, and see whose records shaped the answer. */
import { createInterface } from 'node:readline/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Completion } from '../../../rpc/client/completions.ts';
import { formatOpen } from '../amounts.ts';
import { print } from '../client.ts';
import { count } from '../options.ts';

interface ChatFlags {
  readonly gateway: string;
  readonly apiKey?: string;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly json?: boolean;
}

function attributed({ attribution }: Completion): string {
  const lines = attribution.contributors
    .filter(({ amount }) => amount !== '0')
    .map(
      ({ account, share, amount }) =>
        `  ${(100 * share).toFixed(1).padStart(5)} %  ${account}  ${formatOpen(BigInt(amount), 9)} OPEN`,
    );
  const fee = `Fee ${formatOpen(BigInt(attribution.fee), 9)} OPEN, of which ${formatOpen(BigInt(attribution.pool), 9)} for records`;
  return [lines.length === 0 ? 'No record shaped this answer.' : 'Shaped by', ...lines, fee].join('\n');
}

async function ask(model: string, question: string | undefined, flags: ChatFlags): Promise<void> {
  const [{ complete }, { keyFor }] = await Promise.all([
    import('../../../rpc/client/completions.ts'),
    import('../gateway-key.ts'),
  ]);
  const apiKey = await keyFor(flags.gateway, flags.apiKey);
  const answer = async (content: string): Promise<void> => {
    const { json } = flags;
    const completion = await complete(flags.gateway, {
      model,
      question: content,
      maxTokens: flags.maxTokens,
      temperature: flags.temperature,
      apiKey,
      delta: (text) => {
        if (!json) process.stdout.write(text);
      },
    });
    print({ node: '', ...(json !== undefined && { json }) }, completion, () => `\n\n${attributed(completion)}\n`);
  };
  if (question !== undefined) {
    await answer(question);
    return;
  }
  const lines = createInterface({ input: process.stdin, output: process.stderr, terminal: process.stdin.isTTY });
  lines.setPrompt(process.stdin.isTTY ? `${model}> ` : '');
  lines.prompt();
  for await (const line of lines) {
    if (line.trim() !== '') await answer(line);
    lines.prompt();
  }
}

function temperature(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 2)) throw new InvalidArgumentError('between 0 and 2');
  return value;
}

export function chatCommands(program: Command): void {
  program
    .command('chat')
    .description('ask an adapter; without a question, a conversation line by line')
    .argument('<model>', 'name of the adapter')
    .argument('[question]', 'what you want to know')
    .addOption(new Option('--gateway <url>', 'where to ask').default('http://127.0.0.1:8080/v1'))
    .addOption(
      new Option(
        '--api-key <key>',
        'the gateway’s key (default: OPENLEDGER_API_KEY, else that of your own gateway on this machine)',
      ),
    )
    .addOption(new Option('--max-tokens <n>', 'of the answer at most').argParser(count).default(96))
    .addOption(new Option('--temperature <t>', '0 is the likeliest answer').argParser(temperature).default(0))
    .addOption(new Option('--json', 'the result for programs'))
    .action(ask);
}
