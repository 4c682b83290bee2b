/** The chains that come with the node. */
import { readFileSync } from 'node:fs';
import type { StakingGenesis } from '../../runtime/pallets/standard/staking.ts';
import { type AccountId, asAccountId } from '../../runtime/primitives/types.ts';
import { derive } from '../keystore/secret-uri.ts';
import { type ChainSpec, type ChainType, OPEN_PROPERTIES, parseChainSpec } from './chain-spec.ts';
import { ChainSpecError } from './errors.ts';
import type { GenesisConfig } from './genesis-config.ts';
import type { JsonObject } from './json.ts';

const OPEN = 10n ** 18n;

interface Preset {
  readonly name: string;
  readonly chainType: ChainType;
  /** Their keys are those of the development phrase, `//Alice` and so on. */
  readonly authorities: readonly string[];
  readonly slotDurationMs: number;
  /** Parameters of the ledger's own modules, where theirs would keep people waiting. */
  readonly others: JsonObject;
  /** What every account has at the start. */
  readonly endowment: bigint;
  /** What each validator's stash has bonded of it. */
  readonly stake: bigint;
  /** Blocks of a session. */
  readonly sessionLength: number;
  readonly eras: StakingGenesis['eras'];
}

/** Sessions of five minutes, eras of half an hour: for people who try things out. */
const SHORT_ERAS = {
  stake: 1_000_000n * OPEN,
  sessionLength: 100,
  eras: { sessionsPerEra: 6, bondingDuration: 8, slashDeferDuration: 2 },
};

/** Windows of half a minute in place of five: for people who try things out. */
const SHORT_WINDOWS = { attribution: { windowBlocks: 10 }, audits: { commitBlocks: 6, revealBlocks: 4 } };

const ACCOUNTS = ['Alice', 'Bob', 'Charlie', 'Dave', 'Eve', 'Ferdie'];

export const PRESETS = {
  dev: {
    name: 'OpenLedger Development',
    chainType: 'Development',
    authorities: ['Alice'],
    slotDurationMs: 3_000,
    others: SHORT_WINDOWS,
    endowment: 10_000_000n * OPEN,
    ...SHORT_ERAS,
  },
  local: {
    name: 'OpenLedger Local Testnet',
    chainType: 'Local',
    authorities: ['Alice', 'Bob', 'Charlie', 'Dave'],
    slotDurationMs: 3_000,
    others: SHORT_WINDOWS,
    endowment: 10_000_000n * OPEN,
    ...SHORT_ERAS,
  },
} as const satisfies Record<string, Preset>;

export type PresetId = keyof typeof PRESETS;

export interface PresetOptions {
  readonly slotDurationMs?: number;
  readonly sessionLength?: number;
  readonly eras?: StakingGenesis['eras'];
  /** Names of {@link PRESETS}' accounts. */
  readonly authorities?: readonly string[];
}

export function presetSpec(id: PresetId, options: PresetOptions = {}): ChainSpec {
  const preset: Preset = { ...PRESETS[id], ...options };
  const account = (uri: string): AccountId => asAccountId(derive(uri, 'sr25519').publicKey);
  const accounts = ACCOUNTS.flatMap((name) => [`//${name}`, `//${name}//stash`]);
  const validators = preset.authorities.map((name) => ({
    account: account(`//${name}//stash`),
    aura: derive(`//${name}`, 'sr25519').publicKey,
    grandpa: derive(`//${name}`, 'ed25519').publicKey,
  }));
  const config: GenesisConfig = {
    balances: accounts.map((uri) => ({ account: account(uri), amount: preset.endowment })),
    aura: { authorities: validators.map(({ aura }) => aura), slotDurationMs: preset.slotDurationMs },
    grandpa: { authorities: validators.map(({ grandpa }) => ({ key: grandpa, weight: 1n })) },
    session: validators,
    sessionLength: preset.sessionLength,
    staking: {
      validatorCount: validators.length,
      minimumValidatorCount: 1,
      stakers: validators.map(({ account: stash }) => ({ stash, bond: preset.stake, status: { type: 'Validator' } })),
      invulnerables: [],
      minNominatorBond: 10n * OPEN,
      minValidatorBond: 1_000n * OPEN,
      slashRewardFraction: undefined,
      inflation: 0,
      eras: preset.eras,
    },
    sudo: account('//Alice'),
    others: preset.others,
  };
  return {
    name: preset.name,
    id: `openledger_${id}`,
    chainType: preset.chainType,
    bootNodes: [],
    protocolId: `openledger-${id}`,
    forkId: undefined,
    properties: OPEN_PROPERTIES,
    genesis: { type: 'config', config },
  };
}

/** By the name of a built-in chain or the path of a file. Throws {@link ChainSpecError}. */
export function loadChainSpec(nameOrPath: string): ChainSpec {
  if (Object.hasOwn(PRESETS, nameOrPath)) return presetSpec(nameOrPath as PresetId);
  let text: string;
  try {
    text = readFileSync(nameOrPath, 'utf8');
  } catch (problem) {
    const { code } = problem as NodeJS.ErrnoException;
    if (code === 'ENOENT') {
      const names = Object.keys(PRESETS).join(', ');
      throw new ChainSpecError(
        'UNKNOWN_CHAIN',
        `"${nameOrPath}" is no file and none of the built-in chains (${names})`,
      );
    }
    throw new ChainSpecError('IO', `the chain spec ${nameOrPath} cannot be read: ${code}`, { cause: problem });
  }
  return parseChainSpec(text);
}
