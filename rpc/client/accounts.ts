/** What accounts have, and whether the ledger's books are right. */
import type { KeyringPair } from '@polkadot/keyring/types';
import { accountInfo } from '../../runtime/pallets/standard/system.ts';
import { type Balance, balance } from '../../runtime/primitives/types.ts';
import type { Ledger } from './connection.ts';

export interface Holdings {
  readonly free: Balance;
  /** On hold: stakes, bonds, deposits, budgets. */
  readonly held: Balance;
  readonly nonce: number;
}

export async function holdingsOf(ledger: Ledger, address: string): Promise<Holdings> {
  const found = await ledger.read('system', 'account', accountInfo, address);
  return { free: found?.data.free ?? 0n, held: found?.data.reserved ?? 0n, nonce: found?.nonce ?? 0 };
}

/** Keeps the sender's account alive. */
export async function transfer(ledger: Ledger, pair: KeyringPair, to: string, amount: Balance): Promise<void> {
  await ledger.submit(pair, ledger.tx('balances', 'transferKeepAlive', to, amount));
}

/** To many at once, in one transaction: all or none. */
export async function transferToMany(
  ledger: Ledger,
  pair: KeyringPair,
  transfers: readonly { readonly to: string; readonly amount: Balance }[],
): Promise<void> {
  const calls = transfers.map(({ to, amount }) => ledger.tx('balances', 'transferKeepAlive', to, amount));
  await ledger.submit(pair, ledger.tx('utility', 'batchAll', calls));
}

export interface Books {
  readonly block: string;
  readonly accounts: number;
  /** Free and held balances of all accounts together. */
  readonly sum: Balance;
  readonly issuance: Balance;
}

/** Adds up what all accounts have after one block. `sum` equals `issuance`, always. */
export async function books(ledger: Ledger): Promise<Books> {
  const block = await ledger.rpc.call<string>('chain_getBlockHash');
  const at = ledger.at(block);
  const accounts = await at.entries('system', 'account', accountInfo);
  const sum = accounts.reduce((total, { value }) => total + value.data.free + value.data.reserved, 0n);
  const issuance = (await at.read('balances', 'totalIssuance', balance)) ?? 0n;
  return { block, accounts: accounts.length, sum, issuance };
}
