/** Flags that several commands share, and how their words are read. */
import { readFileSync } from 'node:fs';
import { type Command, InvalidArgumentError, Option } from 'commander';

export const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  readonly version: string;
};

export function port(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 65_535) throw new InvalidArgumentError('a port is 0 to 65535');
  return value;
}

export function count(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1) throw new InvalidArgumentError('a whole number from 1 on');
  return value;
}

/** Final blocks or states that are kept. */
export function pruning(text: string): number | 'archive' {
  if (text === 'archive') return text;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('a number of blocks, or "archive"');
  return value;
}

export const withLogFlag = (command: Command): Command =>
  command.addOption(
    new Option('--log <level>', 'how much is told').choices(['error', 'warn', 'info', 'debug']).default('info'),
  );

/** Aborted by Ctrl-C, a service manager's stop, or the end of a parent process that started this one as its part. */
export function stopSignal(): AbortSignal {
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM', 'disconnect'] as const) process.once(name, () => stop.abort());
  process.channel?.unref();
  return stop.signal;
}

export const withNodeFlag = (command: Command): Command =>
  command.addOption(new Option('--node <url>', 'JSON-RPC of a node').default('ws://127.0.0.1:9944'));

export const withKeyFlags = (command: Command): Command =>
  command
    .addOption(
      new Option(
        '--key <key>',
        'who you are: a key file, "-" for a secret phrase on standard input, or a development account (//Alice)',
      )
        .env('OPENLEDGER_KEY')
        .makeOptionMandatory(),
    )
    .addOption(new Option('--password-file <file>', 'password of the key file (or OPENLEDGER_PASSWORD)'));
