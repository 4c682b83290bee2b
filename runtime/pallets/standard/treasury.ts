/**
 * Treasury: OPEN that belongs to everybody (`pallet_treasury`, reduced to what governance decides). Fees and forfeited
 * deposits go in; a spend that root orders comes out, at once and in full or not at all.
 */
import { accountOf, cost, ensureRoot } from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import { storage, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { utf8 } from '../../primitives/bytes.ts';
import { TREASURY } from '../../primitives/pallet-id.ts';
import { compact, fixedBytes, named, u32 } from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, type Balance, balance, multiAddress } from '../../primitives/types.ts';
import * as balances from './balances.ts';

const palletId = named('frame_support::PalletId', fixedBytes(8));

export const store = storage('Treasury', {
  ProposalCount: value(u32, 0, 'Number of spends that have been made.'),
});

export const events = {
  Awarded: event(1, { proposalIndex: u32, award: balance, account: accountId }, 'Some funds have been allocated.'),
  Deposit: event(4, { value: balance }, 'Some funds have been deposited.'),
};

/** What the treasury can spend: it keeps the existential deposit, so that it never ceases to exist. */
export const pot = (host: Host): Balance => balances.reducible(host, TREASURY, true);

/** Moves a deposit on hold to the treasury; burns it where it is too little for a treasury that does not exist yet. */
export function forfeit(env: Env, reason: Reason, who: AccountId, amount: Balance): void {
  if (amount === 0n) return;
  if (balances.freeBalance(env.host, TREASURY) + amount < balances.EXISTENTIAL_DEPOSIT) {
    balances.burnHeld(env, reason, who, amount);
    return;
  }
  balances.transferHeld(env, reason, who, TREASURY, amount);
  env.emit(events.Deposit, { value: amount });
}

export const treasury = pallet({
  name: 'Treasury',
  index: 50,
  docs: 'OPEN that governance alone spends.',
  storage: store,
  events,
  constants: {
    PalletId: constant(
      palletId,
      utf8('py/trsry'),
      "The treasury's pallet id, used for deriving its sovereign account ID.",
    ),
    pot_account: constant(accountId, TREASURY, 'The account of the treasury.'),
  },
  calls: {
    spendLocal: call({
      index: 3,
      args: { amount: compact(balance), beneficiary: multiAddress },
      weight: cost(40_000_000n, 3, 3),
      docs: 'Pay `amount` of treasury funds to `beneficiary`. Root only: a vote of governance.\nFails with `Token` errors when the treasury has not enough or the beneficiary could not live on it.',
      run(context, { amount, beneficiary }) {
        ensureRoot(context.origin);
        const account = accountOf(beneficiary);
        balances.transfer(context, TREASURY, account, amount, 'KeepAlive');
        const proposalIndex = store.ProposalCount.get(context.host);
        store.ProposalCount.put(context.host, proposalIndex + 1);
        context.emit(events.Awarded, { proposalIndex, award: amount, account });
      },
    }),
  },
  // What it gets by the block may be less than an account can begin with.
  genesis(env) {
    if (balances.freeBalance(env.host, TREASURY) === 0n) balances.deposit(env, TREASURY, balances.EXISTENTIAL_DEPOSIT);
  },
});

export const { calls } = treasury;
