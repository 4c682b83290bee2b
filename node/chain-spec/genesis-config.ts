/**
 * The genesis state in words: who has what and who has a say, before it becomes keys and values. Its JSON is the
 * `runtimeGenesis.patch` of Substrate's chain specs, with addresses in SS58.
 */
import { blake2b } from '@noble/hashes/blake2.js';
import type { StakingGenesis } from '../../runtime/pallets/standard/staking.ts';
import { encodeSs58 } from '../../runtime/primitives/ss58.ts';
import type { AccountId } from '../../runtime/primitives/types.ts';
import { badField } from './errors.ts';
import { asAccount, asKey, list, unique } from './fields.ts';
import { asAmount, asArray, asInteger, asObject, type Json, type JsonObject } from './json.ts';
import { parseStakingGenesis, stakingGenesisJson } from './staking-genesis.ts';

export interface GenesisConfig {
  readonly balances: readonly { readonly account: AccountId; readonly amount: bigint }[];
  readonly aura: { readonly authorities: readonly Uint8Array[]; readonly slotDurationMs: number };
  readonly grandpa: { readonly authorities: readonly { readonly key: Uint8Array; readonly weight: bigint }[] };
  /** Validators with their session keys. Empty where the sets of aura and grandpa never change. */
  readonly session: readonly { readonly account: AccountId; readonly aura: Uint8Array; readonly grandpa: Uint8Array }[];
  /** Blocks of a session; the runtime's own default where there is none. */
  readonly sessionLength?: number | undefined;
  /** Who has stakes at the start; undefined where validators never change. */
  readonly staking?: StakingGenesis | undefined;
  /** Development chains only. */
  readonly sudo: AccountId | undefined;
  /** What other modules want, as it stands in the JSON. */
  readonly others: JsonObject;
}

const DEFAULT_SLOT_MS = 3_000;

/** Throws {@link ChainSpecError}. */
export function parseGenesisConfig(json: Json, path: string): GenesisConfig {
  const { balances, aura, grandpa, session, staking, sudo, ...others } = asObject(json, path);
  const section = (value: Json | undefined, name: string): JsonObject =>
    value === undefined ? {} : asObject(value, `${path}.${name}`);
  const auraSection = section(aura, 'aura');
  const config: GenesisConfig = {
    balances: unique(
      list(section(balances, 'balances').balances, `${path}.balances.balances`, (each, at) => {
        const [account, amount] = asArray(each, at);
        return { account: asAccount(account, `${at}[0]`), amount: asAmount(amount, `${at}[1]`) };
      }),
      `${path}.balances.balances`,
      ({ account }) => account,
    ),
    aura: {
      authorities: unique(
        list(auraSection.authorities, `${path}.aura.authorities`, asKey),
        `${path}.aura.authorities`,
        (key) => key,
      ),
      slotDurationMs:
        auraSection.slotDuration === undefined
          ? DEFAULT_SLOT_MS
          : asInteger(auraSection.slotDuration, `${path}.aura.slotDuration`, 100, 600_000),
    },
    grandpa: {
      authorities: unique(
        list(section(grandpa, 'grandpa').authorities, `${path}.grandpa.authorities`, (each, at) => {
          const [key, weight] = asArray(each, at);
          return { key: asKey(key, `${at}[0]`), weight: BigInt(asInteger(weight, `${at}[1]`, 1, 2 ** 32)) };
        }),
        `${path}.grandpa.authorities`,
        ({ key }) => key,
      ),
    },
    session: list(section(session, 'session').keys, `${path}.session.keys`, (each, at) => {
      const [account, , keys] = asArray(each, at);
      const named = asObject(keys, `${at}[2]`);
      return {
        account: asAccount(account, `${at}[0]`),
        aura: asKey(named.aura, `${at}[2].aura`),
        grandpa: asKey(named.grandpa, `${at}[2].grandpa`),
      };
    }),
    ...(section(session, 'session').length !== undefined && {
      sessionLength: asInteger(section(session, 'session').length, `${path}.session.length`, 1, 1_000_000),
    }),
    ...(staking !== undefined && { staking: parseStakingGenesis(staking, `${path}.staking`) }),
    sudo: sudo === undefined ? undefined : asAccount(asObject(sudo, `${path}.sudo`).key, `${path}.sudo.key`),
    others,
  };
  if (config.aura.authorities.length === 0 && config.session.length === 0) {
    throw badField(`${path}.aura.authorities`, 'a list of at least one authority');
  }
  return config;
}

/** As {@link parseGenesisConfig} reads it. */
export function genesisConfigJson(config: GenesisConfig, ss58Format: number): JsonObject {
  const address = (key: Uint8Array): string => encodeSs58(blake2b, { prefix: ss58Format, key });
  const { balances, aura, grandpa, session, sessionLength, staking, sudo, others } = config;
  return {
    balances: { balances: balances.map(({ account, amount }) => [address(account), amount.toString()]) },
    aura: { authorities: aura.authorities.map(address), slotDuration: aura.slotDurationMs },
    grandpa: { authorities: grandpa.authorities.map(({ key, weight }) => [address(key), Number(weight)]) },
    ...((session.length > 0 || sessionLength !== undefined) && {
      session: {
        ...(sessionLength !== undefined && { length: sessionLength }),
        keys: session.map(({ account, ...keys }) => [
          address(account),
          address(account),
          { aura: address(keys.aura), grandpa: address(keys.grandpa) },
        ]),
      },
    }),
    ...(staking !== undefined && { staking: stakingGenesisJson(staking, address) }),
    ...(sudo !== undefined && { sudo: { key: address(sudo) } }),
    ...others,
  };
}
