/** `openledger gateway`. */
import { mkdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { DoorError } from '../../../rpc/gateway/door.ts';
import { isLoopback } from '../../../rpc/server/access.ts';
import type { SessionId } from '../../../runtime/primitives/attribution/ids.ts';
import type { LogLevel } from '../../logging.ts';
import { parseOpen } from '../amounts.ts';
import { announce } from '../child.ts';
import { port, stopSignal, withKeyFlags, withLogFlag, withNodeFlag } from '../options.ts';

interface GatewayFlags {
  readonly node: string;
  readonly key: string;
  readonly passwordFile?: string;
  readonly host: string;
  readonly port: number;
  readonly deposit: bigint;
  readonly session?: bigint;
  readonly apiKey?: string;
  readonly cors?: readonly string[];
  readonly allowHost?: readonly string[];
  readonly basePath?: string;
  readonly maxPriceIn?: bigint;
  readonly maxPriceOut?: bigint;
  readonly maxRequest: bigint;
  readonly maxDay: bigint;
  readonly log: LogLevel;
}

/** The session's key: derived from the payer's, so that nothing more has to be kept. */
const SESSION_PATH = '//openledger//session';

async function runGateway(flags: GatewayFlags): Promise<void> {
  const signal = stopSignal();
  const [{ createLog }, { createHashing }, { openKey }, { ownKey, publishKey }, { startGateway }] = await Promise.all([
    import('../../logging.ts'),
    import('../../crypto/hashing.ts'),
    import('../account-key.ts'),
    import('../gateway-key.ts'),
    import('../../../rpc/gateway/gateway.ts'),
  ]);
  const log = createLog(flags.log);
  const pair = await openKey(flags.key, flags.passwordFile);
  const directory = flags.basePath ?? join(homedir(), '.openledger', 'gateway');
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const own = flags.session === undefined;
  const told = flags.apiKey ?? process.env.OPENLEDGER_API_KEY;
  if (told === undefined && !isLoopback(flags.host)) {
    throw new DoorError(
      `everybody who reaches ${flags.host} could spend ${pair.address}'s OPEN: choose an API key (OPENLEDGER_API_KEY, or --api-key)`,
    );
  }
  const kept = told === undefined ? await ownKey(directory) : undefined;
  const apiKey = told ?? kept?.key;
  const gateway = await startGateway({
    node: flags.node,
    host: flags.host,
    port: flags.port,
    session: flags.session as SessionId | undefined,
    key: own ? pair.derive(SESSION_PATH) : pair,
    funding: own ? { payer: pair, deposit: flags.deposit } : undefined,
    apiKey,
    origins: flags.cors ?? [],
    hosts: flags.allowHost ?? [],
    stateFile: join(directory, `${pair.address}.json`),
    limits: {
      inputPrice: flags.maxPriceIn,
      outputPrice: flags.maxPriceOut,
      request: flags.maxRequest,
      day: flags.maxDay,
    },
    hashing: createHashing(),
    log,
  });
  const forget = apiKey === undefined ? undefined : await publishKey(gateway.url, apiKey);
  log('info', `gateway at ${gateway.url}${kept === undefined ? '' : `, its API key in ${kept.path}`}`);
  announce({ gateway: gateway.url });
  await new Promise<void>((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
  await forget?.();
  await gateway.close();
  log('info', 'stopped');
}

function sessionId(text: string): bigint {
  if (!/^\d{1,19}$/.test(text)) throw new InvalidArgumentError('the number of a session');
  return BigInt(text);
}

const names = (text: string): readonly string[] => text.split(',').map((each) => each.trim());

export function gatewayCommands(program: Command): void {
  const gateway = program
    .command('gateway')
    .description('serve OpenAI’s API: the model is an adapter, every answer says whose records shaped it');
  withLogFlag(withKeyFlags(withNodeFlag(gateway)))
    .addOption(new Option('--host <address>', 'where to listen').default('127.0.0.1'))
    .addOption(new Option('--port <port>', 'port, 0 for any').argParser(port).default(8080))
    .addOption(
      new Option('--deposit <open>', 'OPEN that --key puts down at a time for answers')
        .argParser(parseOpen)
        .default(10n ** 20n, '100'),
    )
    .addOption(
      new Option(
        '--session <id>',
        'use this session, whose key is --key, and pay nothing into it; --key pays the fees of dividing it among workers',
      ).argParser(sessionId),
    )
    .addOption(new Option('--max-price-in <open>', 'OPEN per prompt token, at most').argParser(parseOpen))
    .addOption(new Option('--max-price-out <open>', 'OPEN per answer token, at most').argParser(parseOpen))
    .addOption(
      new Option('--max-request <open>', 'OPEN that one request may cost, at most')
        .argParser(parseOpen)
        .default(10n ** 19n, '10'),
    )
    .addOption(
      new Option('--max-day <open>', 'OPEN that all requests of a day (UTC) may cost')
        .argParser(parseOpen)
        .default(10n ** 20n, '100'),
    )
    .addOption(
      new Option(
        '--api-key <key>',
        'what applications send as bearer token (default: OPENLEDGER_API_KEY, else one that is made and kept in the base path)',
      ),
    )
    .addOption(
      new Option('--cors <origins>', 'web pages that may ask with the key, separated by commas').argParser(names),
    )
    .addOption(
      new Option(
        '--allow-host <names>',
        'host names that the gateway may be called by, separated by commas (addresses and localhost always)',
      ).argParser(names),
    )
    .addOption(new Option('--base-path <dir>', 'where spending is remembered (default: ~/.openledger/gateway)'))
    .action(runGateway);
}
