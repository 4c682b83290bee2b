/** Stakes and the rules of staking in a chain spec: the `staking` of Substrate's genesis patches, with the lengths of eras. */

import { LEAST_NOMINATOR_BOND, LEAST_VALIDATOR_BOND } from '../../runtime/pallets/standard/staking/types.ts';
import type { StakerStatus, StakingGenesis } from '../../runtime/pallets/standard/staking.ts';
import { PERBILL } from '../../runtime/primitives/types.ts';
import { badField } from './errors.ts';
import { asAccount, list, unique } from './fields.ts';
import { asAmount, asArray, asInteger, asObject, type Json, type JsonObject, noOthers } from './json.ts';

const LENGTHS = ['sessionsPerEra', 'bondingDuration', 'slashDeferDuration'] as const;
const KNOWN = [
  'validatorCount',
  'minimumValidatorCount',
  'stakers',
  'invulnerables',
  'minNominatorBond',
  'minValidatorBond',
  'slashRewardFraction',
  'inflation',
  ...LENGTHS,
];
const MOST_ERAS = 10_000;

function asStatus(value: Json | undefined, path: string): StakerStatus {
  if (value === 'Validator' || value === 'Idle') return { type: value };
  if (typeof value === 'object' && value !== null) {
    const targets = list(asObject(value, path).Nominator ?? null, `${path}.Nominator`, asAccount);
    return { type: 'Nominator', targets };
  }
  throw badField(path, '"Validator", "Idle" or { "Nominator": […] }');
}

/** Throws `ChainSpecError`. */
export function parseStakingGenesis(json: Json, path: string): StakingGenesis {
  const fields = asObject(json, path);
  noOthers(fields, KNOWN, path);
  const whole = (name: string, most: number, otherwise: number): number =>
    fields[name] === undefined ? otherwise : asInteger(fields[name], `${path}.${name}`, 0, most);
  const amount = (name: string, otherwise: bigint): bigint =>
    fields[name] === undefined ? otherwise : asAmount(fields[name], `${path}.${name}`);
  const eras = LENGTHS.filter((name) => fields[name] !== undefined).map((name) => [name, whole(name, MOST_ERAS, 0)]);
  return {
    validatorCount: whole('validatorCount', 1_000, 0),
    minimumValidatorCount: whole('minimumValidatorCount', 1_000, 0),
    stakers: unique(
      list(fields.stakers, `${path}.stakers`, (each, at) => {
        const [stash, , bond, status] = asArray(each, at);
        return {
          stash: asAccount(stash, `${at}[0]`),
          bond: asAmount(bond, `${at}[2]`),
          status: asStatus(status, `${at}[3]`),
        };
      }),
      `${path}.stakers`,
      ({ stash }) => stash,
    ),
    invulnerables: list(fields.invulnerables, `${path}.invulnerables`, asAccount),
    minNominatorBond: amount('minNominatorBond', LEAST_NOMINATOR_BOND),
    minValidatorBond: amount('minValidatorBond', LEAST_VALIDATOR_BOND),
    slashRewardFraction:
      fields.slashRewardFraction === undefined ? undefined : whole('slashRewardFraction', PERBILL, 0),
    inflation: whole('inflation', PERBILL, 0),
    eras: Object.fromEntries(eras),
  };
}

/** As {@link parseStakingGenesis} reads it. */
export function stakingGenesisJson(staking: StakingGenesis, address: (key: Uint8Array) => string): JsonObject {
  const { stakers, invulnerables, slashRewardFraction, eras } = staking;
  const statusJson = (status: StakerStatus): Json =>
    status.type === 'Nominator' ? { Nominator: status.targets.map(address) } : status.type;
  return {
    validatorCount: staking.validatorCount,
    minimumValidatorCount: staking.minimumValidatorCount,
    stakers: stakers.map(({ stash, bond, status }) => [
      address(stash),
      address(stash),
      bond.toString(),
      statusJson(status),
    ]),
    invulnerables: invulnerables.map(address),
    minNominatorBond: staking.minNominatorBond.toString(),
    minValidatorBond: staking.minValidatorBond.toString(),
    ...(slashRewardFraction !== undefined && { slashRewardFraction }),
    inflation: staking.inflation,
    ...eras,
  };
}
