/** `openledger watch`: looks at everything that is to be paid, shows what is wrong with it, and is paid for that. */
import type { Command } from 'commander';
import type { LogLevel } from '../../logging.ts';
import { withKeyFlags, withLogFlag, withNodeFlag } from '../options.ts';

interface WatchFlags {
  readonly node: string;
  readonly key: string;
  readonly passwordFile?: string;
  readonly log: LogLevel;
}

async function watch(flags: WatchFlags): Promise<void> {
  const [
    { Ledger },
    { Watcher },
    { createHashing },
    { createSignatures },
    { createLog },
    { openKey },
    { asAccountId },
  ] = await Promise.all([
    import('../../../rpc/client/ledger.ts'),
    import('../../services/watcher.ts'),
    import('../../crypto/hashing.ts'),
    import('../../crypto/signatures.ts'),
    import('../../logging.ts'),
    import('../account-key.ts'),
    import('../../../runtime/primitives/types.ts'),
  ]);
  const pair = await openKey(flags.key, flags.passwordFile);
  const publicKey = new Uint8Array(pair.publicKey);
  const hashing = createHashing();
  const ledger = await Ledger.connect(flags.node, { reconnect: true, hashing });
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  const log = createLog(flags.log);
  const signer = {
    ...{ scheme: 'sr25519' as const, publicKey, account: asAccountId(publicKey) },
    sign: (message: Uint8Array) => pair.sign(message),
  };
  log('info', `watching ${flags.node}; faults are shown as ${pair.address}`);
  try {
    await new Watcher({ ledger, signer, hashing, signatures: await createSignatures(), log }).run(stop.signal);
  } finally {
    ledger.close();
  }
}

export function watchCommands(program: Command): void {
  withLogFlag(withKeyFlags(withNodeFlag(program.command('watch'))))
    .description('look at every receipt and training that is to be paid, show what is wrong, and be paid for it')
    .action(watch);
}
