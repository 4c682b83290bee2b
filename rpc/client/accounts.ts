/** What accounts have, and whether the ledger's books are right. */
import { store as balances, calls } from '../../runtime/pallets/standard/balances.ts';
import { store as system } from '../../runtime/pallets/standard/system.ts';
import type { AccountId, Balance } from '../../runtime/primitives/types.ts';
import { callOf, toAccount } from './call.ts';
import type { Ledger } from './ledger.ts';
import type { Signer } from './signer.ts';

export interface Holdings {
  readonly free: Balance;
  /** On hold: stakes, bonds, deposits, budgets. */
  readonly held: Balance;
  readonly nonce: number;
}

export async function holdingsOf(ledger: Ledger, account: AccountId): Promise<Holdings> {
  const { data, nonce } = await ledger.read(system.Account, account);
  return { free: data.free, held: data.reserved, nonce };
}

/** Keeps the sender's account alive. */
export async function transfer(ledger: Ledger, signer: Signer, to: AccountId, amount: Balance): Promise<void> {
  await ledger.submit(signer, calls.transferKeepAlive, { dest: toAccount(to), value: amount });
}

/** To many at once, in one transaction: all or none. */
export async function transferToMany(
  ledger: Ledger,
  signer: Signer,
  transfers: readonly { readonly to: AccountId; readonly amount: Balance }[],
): Promise<void> {
  const { utility } = await import('./pallets.ts');
  const each = transfers.map(({ to, amount }) =>
    callOf(calls.transferKeepAlive, { dest: toAccount(to), value: amount }),
  );
  await ledger.submit(signer, utility.calls.batchAll, { calls: each });
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
  const state = await ledger.fixed();
  let accounts = 0;
  let sum = 0n;
  for await (const [, { data }] of state.entries(system.Account)) {
    accounts++;
    sum += data.free + data.reserved;
  }
  return { block: state.block ?? '', accounts, sum, issuance: await state.read(balances.TotalIssuance) };
}
