/** `openledger rewards …`: what attribution earned, and taking it. */
import type { Command } from 'commander';
import { accountOf } from '../account-name.ts';
import { formatOpen } from '../amounts.ts';
import {
  addressOf,
  type ClientFlags,
  print,
  type SignerFlags,
  withClientFlags,
  withLedger,
  withSignerFlags,
} from '../client.ts';

const clients = () => import('../../../rpc/client/rewards.ts');

async function show(address: string | undefined, flags: ClientFlags): Promise<void> {
  const { allRewards, rewardsOf } = await clients();
  const { table } = await import('../table.ts');
  await withLedger(flags.node, async (ledger) => {
    const rows =
      address === undefined
        ? (await allRewards(ledger)).map(({ account, reward }) => ({ address: addressOf(account), ...reward }))
        : [{ address, ...(await rewardsOf(ledger, await accountOf(address))) }];
    print(flags, rows, () =>
      rows.length === 0
        ? 'Nobody has earned anything yet.'
        : table(
            ['Account', '>Earned, OPEN', '>To claim, OPEN'],
            rows.map((row) => [row.address, formatOpen(row.earned, 6), formatOpen(row.claimable, 6)]),
          ),
    );
  });
}

async function take(flags: SignerFlags): Promise<void> {
  const { claim } = await clients();
  const { openKey } = await import('../account-key.ts');
  const pair = await openKey(flags.key, flags.passwordFile);
  const amount = await withLedger(flags.node, (ledger) => claim(ledger, pair));
  print(flags, { address: pair.address, amount }, () => `${formatOpen(amount, 18)} OPEN claimed.`);
}

export function rewardsCommands(program: Command): void {
  const group = program.command('rewards').description('what records, workers and adapters earned');
  withClientFlags(group.command('show'))
    .description('show everybody’s rewards, or one account’s')
    .argument('[account]', 'address, or a secret URI such as //Alice')
    .action(show);
  withSignerFlags(group.command('claim')).description('take everything that you earned').action(take);
}
