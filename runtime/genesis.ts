/** What a chain starts with, as chain specs say it. */
import type { StakingGenesis } from './pallets/standard/staking.ts';
import type { AccountId, Balance } from './primitives/types.ts';

export interface GenesisConfig {
  readonly balances: readonly { readonly account: AccountId; readonly amount: Balance }[];
  readonly aura: { readonly authorities: readonly Uint8Array[]; readonly slotDurationMs: number };
  readonly grandpa: { readonly authorities: readonly { readonly key: Uint8Array; readonly weight: bigint }[] };
  /** Validators with their session keys. Empty where the sets of aura and grandpa never change. */
  readonly session: readonly { readonly account: AccountId; readonly aura: Uint8Array; readonly grandpa: Uint8Array }[];
  /** Blocks of a session; the runtime's own default where there is none. */
  readonly sessionLength?: number | undefined;
  /** Who has stakes at the start, and the rules of staking; undefined where validators never change. */
  readonly staking?: StakingGenesis | undefined;
  /** Development chains only. */
  readonly sudo: AccountId | undefined;
  /** Parameters of the ledger's own modules, as they stand in the chain spec. */
  readonly others: Readonly<Record<string, unknown>>;
}
