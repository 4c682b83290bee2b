/** `openledger account …`: new accounts, what they have, transfers. */
import { writeFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { accountOf } from '../account-name.ts';
import { formatOpen, parseOpen } from '../amounts.ts';
import {
  addressOf,
  type ClientFlags,
  print,
  type SignerFlags,
  withClientFlags,
  withLedger,
  withSignerFlags,
} from '../client.ts';

interface NewFlags {
  readonly out?: string;
  readonly passwordFile?: string;
  readonly json?: boolean;
}

async function create({ out, passwordFile, json }: NewFlags): Promise<void> {
  const { newKey, password } = await import('../account-key.ts');
  const { mnemonic, key } = newKey();
  const flags = { node: '', ...(json !== undefined && { json }) };
  if (out === undefined) {
    print(
      flags,
      { address: key.address, mnemonic },
      () => `Address   ${key.address}\nMnemonic  ${mnemonic}\nWhoever knows the words has the account: keep them safe.`,
    );
    return;
  }
  const sealed = JSON.stringify(key.toWallet(await password(passwordFile)), undefined, 2);
  await writeFile(out, `${sealed}\n`, { mode: 0o600, flag: 'wx' });
  print(
    flags,
    { address: key.address, file: out },
    () => `Address   ${key.address}\nKey file  ${out} (as wallets import it)`,
  );
}

async function show(account: string, flags: ClientFlags): Promise<void> {
  const [{ holdingsOf }, { rewardsOf }] = await Promise.all([
    import('../../../rpc/client/accounts.ts'),
    import('../../../rpc/client/rewards.ts'),
  ]);
  const who = await accountOf(account);
  const address = addressOf(who);
  await withLedger(flags.node, async (ledger) => {
    const [holdings, { claimable }] = await Promise.all([holdingsOf(ledger, who), rewardsOf(ledger, who)]);
    print(flags, { address, ...holdings, claimable }, () =>
      [
        `Address   ${address}`,
        `Free      ${formatOpen(holdings.free)} OPEN`,
        `On hold   ${formatOpen(holdings.held)} OPEN`,
        `To claim  ${formatOpen(claimable, 6)} OPEN`,
        `Sent      ${holdings.nonce} transactions`,
      ].join('\n'),
    );
  });
}

async function send(to: string, amount: bigint, flags: SignerFlags): Promise<void> {
  const { openKey } = await import('../account-key.ts');
  const { transfer } = await import('../../../rpc/client/accounts.ts');
  const receiver = await accountOf(to);
  const address = addressOf(receiver);
  const pair = await openKey(flags.key, flags.passwordFile);
  await withLedger(flags.node, (ledger) => transfer(ledger, pair, receiver, amount));
  print(flags, { from: pair.address, to: address, amount }, () => `${formatOpen(amount, 18)} OPEN sent to ${address}.`);
}

export function accountCommands(program: Command): void {
  const group = program.command('account').description('accounts: make one, see what it has, transfer OPEN');
  group
    .command('new')
    .description('make a key: its words are shown, or it is written to a file')
    .option('--out <file>', 'encrypted key file to write, for --key and for wallets')
    .option('--password-file <file>', 'password of the key file (or OPENLEDGER_PASSWORD)')
    .option('--json', 'the result for programs')
    .action(create);
  withClientFlags(group.command('show'))
    .description('show what an account has')
    .argument('<account>', 'address, or a secret URI such as //Alice')
    .action(show);
  withSignerFlags(group.command('transfer'))
    .description('send OPEN')
    .argument('<to>', 'address, or a secret URI such as //Bob')
    .argument('<open>', 'how much', parseOpen)
    .action(send);
}
