/** Staking: stakes and roles, eras and elections, rewards to the last unit, slashes; and how it looks from outside. */

import polkadot from '@polkadot/types-support/metadata/v15/polkadot-hex';
import t, { type Test } from 'tap';
import { ROOT } from '../../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import * as aura from '../../../runtime/pallets/standard/aura/authorities.ts';
import * as balances from '../../../runtime/pallets/standard/balances.ts';
import * as session from '../../../runtime/pallets/standard/session.ts';
import { STAKING_HOLD } from '../../../runtime/pallets/standard/staking/hold.ts';
import { slashes } from '../../../runtime/pallets/standard/staking/slashing.ts';
import { store } from '../../../runtime/pallets/standard/staking/store.ts';
import { MAX_EXPOSURE_PAGE_SIZE } from '../../../runtime/pallets/standard/staking/types.ts';
import { onOffence, POT, type StakingGenesis } from '../../../runtime/pallets/standard/staking.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { equalBytes, toHex } from '../../../runtime/primitives/bytes.ts';
import { TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import { decode, encode, struct, u32 } from '../../../runtime/primitives/scale/codec.ts';
import { type AccountId, accountId, asAccountId, PERBILL, sameAccount } from '../../../runtime/primitives/types.ts';
import { keySet, setKeysCall } from './session-keys.ts';
import { opaqueMetadataOf, shapesOf } from './shapes.ts';
import { createWorld, genesisOf, make, OPEN, person, to, transfer, type World } from './world.ts';

const SESSION = 4;
const ERA = 3 * SESSION;
const VALIDATORS = [11, 12, 13, 14].map(person) as [AccountId, AccountId, AccountId, AccountId];
const [V1, V2, V3, V4] = VALIDATORS;
const [N1, N2, N3] = [21, 22, 23].map(person) as [AccountId, AccountId, AccountId];
const PEOPLE = [...VALIDATORS, N1, N2, N3, ...[31, 32, 33].map(person)];
const [FRESH, POOR] = [person(31), person(41)];
const keysOf = (who: AccountId) => keySet(`staker ${who[0]}`).keys;

type Staker = StakingGenesis['stakers'][number];
const validator = (stash: AccountId, bond: bigint): Staker => ({ stash, bond, status: { type: 'Validator' } });
const nominator = (stash: AccountId, bond: bigint, ...targets: AccountId[]): Staker => ({
  stash,
  bond,
  status: { type: 'Nominator', targets },
});
const RULES: StakingGenesis = {
  validatorCount: 3,
  minimumValidatorCount: 1,
  stakers: [
    validator(V1, 100n * OPEN),
    validator(V2, 100n * OPEN),
    validator(V3, 80n * OPEN),
    validator(V4, 50n * OPEN),
    nominator(N1, 300n * OPEN, V1, V2, V3),
    nominator(N2, 20n * OPEN, V2),
  ],
  invulnerables: [],
  minNominatorBond: OPEN,
  minValidatorBond: 10n * OPEN,
  inflation: 0,
  eras: { sessionsPerEra: 3, bondingDuration: 4, slashDeferDuration: 2 },
};

const world = (staking: Partial<StakingGenesis> = {}, extra: readonly AccountId[] = []) =>
  createWorld(
    genesisOf({
      balances: [...PEOPLE, ...extra].map((account) => ({ account, amount: 1_000n * OPEN })),
      aura: { authorities: [], slotDurationMs: 3_000 },
      grandpa: { authorities: [] },
      session: VALIDATORS.map((account) => ({ account, ...keysOf(account) })),
      sessionLength: SESSION,
      staking: { ...RULES, ...staking },
    }),
  );

const stake = (name: string, value?: unknown): RuntimeCall => make('Staking', name, value);
const bond = (value: bigint, payee = 'Stash') => stake('bond', { value, payee: { type: payee } });
const unbond = (value: bigint) => stake('unbond', { value });
const withdraw = stake('withdraw_unbonded', { numSlashingSpans: 0 });
const validate = (commission = 0, blocked = false) => stake('validate', { prefs: { commission, blocked } });
const nominate = (...targets: AccountId[]) => stake('nominate', { targets: targets.map(to) });
const payout = (validatorStash: AccountId, era: number) => stake('payout_stakers', { validatorStash, era });
const setKeys = (who: AccountId) => setKeysCall(`staker ${who[0]}`, who);
const NOOP = { type: 'Noop' } as const;
const NO_CHANGE = {
  minNominatorBond: NOOP,
  minValidatorBond: NOOP,
  maxNominatorCount: NOOP,
  maxValidatorCount: NOOP,
  chillThreshold: NOOP,
  minCommission: NOOP,
  maxStakedRewards: NOOP,
};
const configure = (change: object) => stake('set_staking_configs', { ...NO_CHANGE, ...change });
const set = (value: unknown) => ({ type: 'Set', value });

const refusing = (test: Test, of: World) => (call: RuntimeCall, by: AccountId, error: string) => {
  const before = of.root();
  test.equal(of.dispatch(call, by).error, error.includes('.') ? error : `Staking.${error}`);
  test.equal(of.root(), before, `${error} leaves no trace`);
};
const accepting = (test: Test, of: World) => (call: RuntimeCall, by: AccountId | typeof ROOT) =>
  test.equal(of.dispatch(call, by).error, undefined, call.value.type);

/** What must hold after every block, whatever happened. */
function fault(of: World): string | undefined {
  const { host } = of;
  if (!of.balanced()) return 'the total issuance is not the sum of all balances';
  for (const [stash, ledger] of store.Ledger.entries(host)) {
    const unlocking = ledger.unlocking.reduce((sum, { value }) => sum + value, 0n);
    if (ledger.total !== ledger.active + unlocking) return 'a ledger does not add up';
    if (balances.heldOf(host, STAKING_HOLD, stash) !== ledger.total) return 'a hold is not what the ledger says';
    if (!store.Bonded.has(host, stash) || !store.Payee.has(host, stash)) return 'a ledger without a stash';
  }
  if ([...store.Validators.keys(host)].length !== store.CounterForValidators.get(host)) return 'validators miscounted';
  if ([...store.Nominators.keys(host)].length !== store.CounterForNominators.get(host)) return 'nominators miscounted';
  const ranked = [...store.Ranking.keys(host)].map(
    ([role, amount, stash]) => `${role} ${toHex(amount)} ${toHex(stash)}`,
  );
  const inRoles = [
    ...[...store.Validators.keys(host)].map((stash) => [0, stash] as const),
    ...[...store.Nominators.keys(host)].map((stash) => [1, stash] as const),
  ].map(([role, stash]) => {
    const { active: own } = store.Ledger.get(host, stash)!;
    return `${role} 0x${own.toString(16).padStart(32, '0')} ${toHex(stash)}`;
  });
  if (ranked.sort().join() !== inRoles.sort().join()) return 'places are not ranked by stake';
  let unpaid = 0n;
  for (const [, amount] of store.ErasUnpaid.entries(host)) unpaid += amount;
  if (unpaid !== store.Promised.get(host)) return 'what is promised is not what is unpaid';
  if (unpaid > balances.reducible(host, POT, true)) return 'more is promised than there is';
  for (const [[era, who], overview] of store.ErasStakersOverview.entries(host)) {
    let total = overview.own;
    for (const [, page] of store.ErasStakersPaged.entries(host, [era, who])) {
      total += page.pageTotal;
      if (page.others.reduce((sum, { value }) => sum + value, 0n) !== page.pageTotal) return 'a page does not add up';
    }
    if (total !== overview.total) return 'an exposure does not add up';
  }
  return undefined;
}
const active = (of: World) => store.ActiveEra.get(of.host)?.index;
/** To the first block of an era, with the books checked on the way. */
function toEra(test: Test, of: World, era: number): void {
  for (let guard = 0; active(of) !== era && guard < 2_000; guard++) {
    of.next();
    const problem = fault(of);
    if (problem !== undefined) test.fail(`block ${of.number()}: ${problem}`);
  }
  test.equal(active(of), era);
}

t.test('eras: planned a session ahead, elected by stake, in the hands of Session', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const { host } = of;
  test.same(store.ActiveEra.get(host)?.index, 0);
  test.equal(of.reserved(V1), 100n * OPEN, 'a stake is on hold');
  test.equal(fault(of), undefined);
  const supports = () =>
    [...store.ErasStakersOverview.entries(host, [0])].map(([[, who], { total }]) => [who[0], total]);
  test.same(
    new Map(supports() as [number, bigint][]),
    new Map([
      [11, 200n * OPEN],
      [12, 200n * OPEN],
      [13, 200n * OPEN],
    ]),
    'balanced: 600 behind three',
  );
  test.same(new Set(session.validators(host).map(toHex)), new Set([V1, V2, V3].map(toHex)));
  test.equal(aura.authorities(host).length, 3, 'those elected author, not all who have keys');

  of.next(7);
  test.equal(store.CurrentEra.get(host), 0);
  of.next(8);
  test.equal(store.CurrentEra.get(host), 1, 'planned with session 2');
  test.equal(active(of), 0);
  test.equal(store.ErasStartSessionIndex.get(host, 1), 3);
  of.next(12);
  test.equal(active(of), 1);
  test.same(store.BondedEras.get(host), [
    [0, 0],
    [1, 3],
  ]);
  of.next(13);
  test.equal(store.ActiveEra.get(host)?.start, BigInt(1_012) * 3_000n, 'begun at the time of its first block');

  // V4 stakes more than V3 and takes its place two sessions after the election that chose it.
  const refused = refusing(test, of);
  const accepted = accepting(test, of);
  accepted(stake('bond_extra', { maxAdditional: 400n * OPEN }), V4);
  accepted(stake('chill'), V3);
  refused(nominate(V3), N3, 'NotController');
  refused(nominate(V3), N2, 'BadTarget');
  toEra(test, of, 2);
  test.same(new Set(session.validators(host).map(toHex)), new Set([V1, V2, V4].map(toHex)));
  test.ok(aura.authorities(host).some((key) => equalBytes(key, keysOf(V4).aura)));

  // One without keys is never elected, however rich.
  accepted(bond(900n * OPEN), FRESH);
  accepted(validate(), FRESH);
  toEra(test, of, 3);
  test.notOk(session.validators(host).some((who) => sameAccount(who, FRESH)));
  accepted(setKeys(FRESH), FRESH);
  toEra(test, of, 5);
  test.ok(session.validators(host).some((who) => sameAccount(who, FRESH)));

  // Root: no new eras, one at once, always.
  test.equal(of.dispatch(stake('force_no_eras'), V1).error, 'BadOrigin');
  accepted(stake('force_no_eras'), ROOT);
  const planned = store.CurrentEra.get(host)!;
  of.next(of.number() + 3 * ERA);
  test.equal(store.CurrentEra.get(host), planned);
  accepted(stake('force_new_era'), ROOT);
  of.next(of.number() + 2 * SESSION);
  test.equal(store.CurrentEra.get(host), planned + 1, 'once');
  test.equal(store.ForceEra.get(host).type, 'NotForcing');
  accepted(stake('force_new_era_always'), ROOT);
  of.next(of.number() + 3 * SESSION);
  test.equal(store.CurrentEra.get(host), planned + 4, 'one a session');

  // Too few candidates: the same validators go on.
  for (const who of [V1, V2, V4, FRESH]) accepted(stake('chill'), who);
  const before = session.validators(host);
  of.next(of.number() + 2 * SESSION);
  test.same(session.validators(host), before);
  test.equal(store.CurrentEra.get(host), planned + 4);
  test.equal(fault(of), undefined);
});

t.test('stakes: in, out, back', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const { host } = of;
  const refused = refusing(test, of);
  const accepted = accepting(test, of);
  refused(bond(OPEN), V1, 'AlreadyBonded');
  refused(bond(balances.EXISTENTIAL_DEPOSIT - 1n), FRESH, 'InsufficientBond');
  refused(stake('bond_extra', { maxAdditional: OPEN }), FRESH, 'NotStash');
  for (const call of [
    unbond(OPEN),
    withdraw,
    validate(),
    nominate(V1),
    stake('chill'),
    stake('rebond', { value: OPEN }),
  ]) {
    refused(call, FRESH, 'NotController');
  }
  accepted(bond(2_000n * OPEN), FRESH);
  const most = 1_000n * OPEN - balances.EXISTENTIAL_DEPOSIT;
  test.equal(of.reserved(FRESH), most, 'as much as there is, without the existential deposit');
  refused(transfer(V1, OPEN), FRESH, 'Token.FundsUnavailable');
  refused(stake('rebond', { value: OPEN }), FRESH, 'NoUnlockChunk');

  accepted(unbond(400n * OPEN), FRESH);
  accepted(unbond(100n * OPEN), FRESH);
  test.same(store.Ledger.get(host, FRESH)?.unlocking, [{ era: 4, value: 500n * OPEN }], 'one chunk an era');
  accepted(stake('rebond', { value: 200n * OPEN }), FRESH);
  test.equal(store.Ledger.get(host, FRESH)?.active, most - 300n * OPEN);
  accepted(withdraw, FRESH);
  test.equal(of.reserved(FRESH), most, 'nothing is free yet');
  toEra(test, of, 3);
  accepted(withdraw, FRESH);
  test.equal(of.reserved(FRESH), most, 'not a session too early');
  toEra(test, of, 4);
  accepted(withdraw, FRESH);
  test.equal(of.reserved(FRESH), most - 300n * OPEN);

  // All of it: what would be dust goes too, and the stash is forgotten when it is out.
  accepted(unbond(most - 300n * OPEN - 1n), FRESH);
  test.equal(store.Ledger.get(host, FRESH)?.active, 0n);
  toEra(test, of, 8);
  test.ok(store.Bonded.has(host, FRESH));
  accepted(withdraw, FRESH);
  test.notOk(store.Bonded.has(host, FRESH));
  test.equal(of.free(FRESH), 1_000n * OPEN);
  accepted(bond(OPEN), FRESH);

  // Chunks are bounded; those that are due make room.
  for (let i = 0; i < 32; i++) {
    accepted(unbond(OPEN / 100n), V1);
    toEra(test, of, active(of)! + 1);
  }
  test.ok((store.Ledger.get(host, V1)?.unlocking.length ?? 0) === 32);
  accepted(unbond(OPEN / 100n), V1);
  test.ok((store.Ledger.get(host, V1)?.unlocking.length ?? 99) <= 6);

  // Roles need their minimum.
  accepted(configure({ minNominatorBond: set(10n * OPEN), minValidatorBond: set(40n * OPEN) }), ROOT);
  refused(validate(), FRESH, 'InsufficientBond');
  refused(nominate(V1), FRESH, 'InsufficientBond');
  refused(unbond(15n * OPEN), N2, 'InsufficientBond');
  accepted(stake('chill'), N2);
  accepted(unbond(15n * OPEN), N2);
  refused(stake('reap_stash', { stash: N2, numSlashingSpans: 0 }), V1, 'FundedTarget');
  test.equal(of.dispatch(stake('force_unstake', { stash: N2, numSlashingSpans: 0 }), V1).error, 'BadOrigin');
  accepted(stake('force_unstake', { stash: N2, numSlashingSpans: 0 }), ROOT);
  test.equal(of.reserved(N2), 0n);
  test.equal(fault(of), undefined);
});

t.test('roles: nominations, commission, limits, kicks', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const { host } = of;
  const refused = refusing(test, of);
  const accepted = accepting(test, of);
  accepted(bond(50n * OPEN), FRESH);
  refused(nominate(), FRESH, 'EmptyTargets');
  refused(nominate(N1), FRESH, 'BadTarget');
  refused(nominate(...Array.from({ length: 17 }, () => V1)), FRESH, 'TooManyTargets');
  accepted(nominate(V1, V2, V1), FRESH);
  test.same(store.Nominators.get(host, FRESH)?.targets, [V1, V2], 'twice is once');
  accepted(validate(100_000_000, true), V1);
  accepted(nominate(V1, V3), FRESH);
  refused(nominate(V1), N2, 'BadTarget');
  accepted(stake('kick', { who: [to(FRESH), to(N2)] }), V1);
  test.same(store.Nominators.get(host, FRESH)?.targets, [V3]);
  refused(nominate(V1), FRESH, 'BadTarget');

  refused(validate(PERBILL + 1), V1, 'BoundNotMet');
  accepted(stake('set_min_commission', { new: 50_000_000 }), ROOT);
  refused(validate(49_999_999), V2, 'CommissionTooLow');
  accepted(stake('force_apply_min_commission', { validatorStash: V2 }), N3);
  test.equal(store.Validators.get(host, V2).commission, 50_000_000);
  refused(stake('force_apply_min_commission', { validatorStash: N3 }), N3, 'NotStash');

  accepted(configure({ maxNominatorCount: set(3), maxValidatorCount: set(4), chillThreshold: set(90) }), ROOT);
  accepted(bond(20n * OPEN), N3);
  refused(nominate(V3), N3, 'TooManyNominators');
  refused(validate(PERBILL), N3, 'TooManyValidators');
  refused(stake('chill_other', { stash: N2 }), N3, 'CannotChillOther');
  accepted(configure({ minNominatorBond: set(30n * OPEN) }), ROOT);
  accepted(stake('chill_other', { stash: N2 }), N3);
  refused(nominate(V3), N3, 'InsufficientBond');
  accepted(stake('bond_extra', { maxAdditional: 30n * OPEN }), N3);
  accepted(nominate(V3), N3);
  refused(stake('chill_other', { stash: FRESH }), N3, 'CannotChillOther');
  for (const change of [
    { minNominatorBond: set(OPEN - 1n) },
    { minValidatorBond: set(10n * OPEN - 1n) },
    { minValidatorBond: set(0n) },
  ]) {
    test.equal(of.dispatch(configure(change)).error, 'Staking.BoundNotMet', 'no vote makes places cost dust');
  }
  test.equal(of.dispatch(configure({ chillThreshold: set(101) })).error, 'Staking.BoundNotMet');
  test.equal(of.dispatch(configure({}), V1).error, 'BadOrigin');
  accepted(configure({ maxNominatorCount: { type: 'Remove' }, maxValidatorCount: { type: 'Remove' } }), ROOT);
  accepted(validate(PERBILL), N3);
  test.notOk(store.Nominators.has(host, N3), 'one role at a time');

  accepted(stake('set_validator_count', { new: 2 }), ROOT);
  accepted(stake('increase_validator_count', { additional: 2 }), ROOT);
  accepted(stake('scale_validator_count', { factor: 50 }), ROOT);
  test.equal(store.ValidatorCount.get(host), 6);
  test.equal(of.dispatch(stake('set_validator_count', { new: 101 })).error, 'Staking.TooManyValidators');
  test.equal(fault(of), undefined);
});

t.test('places: whoever stakes more finds one, dust none', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const { host } = of;
  const refused = refusing(test, of);
  const accepted = accepting(test, of);
  const [rich, equal, later] = [person(32), person(33), FRESH];
  accepted(configure({ maxNominatorCount: set(2), maxValidatorCount: set(4) }), ROOT);
  // V4 stakes 50, N2 20: the least of their roles.
  accepted(bond(50n * OPEN), equal);
  refused(validate(), equal, 'TooManyValidators');
  accepted(stake('bond_extra', { maxAdditional: 1n }), equal);
  accepted(validate(), equal);
  test.notOk(store.Validators.has(host, V4), 'whoever stakes least gives way');
  test.ok(of.events().some(({ name, value }) => name === 'Staking.Chilled' && sameAccount(value.stash, V4)));
  test.equal(store.Ledger.get(host, V4)?.active, 50n * OPEN, 'with its stake untouched');
  refused(validate(), V4, 'TooManyValidators');
  accepted(validate(250_000_000), V3);
  test.equal(store.CounterForValidators.get(host), 4, 'those who have a place keep it');

  accepted(bond(700n * OPEN), rich);
  accepted(nominate(V1), rich);
  test.notOk(store.Nominators.has(host, N2));
  accepted(nominate(V2), rich);
  accepted(bond(300n * OPEN), later);
  refused(nominate(V1), later, 'TooManyNominators');
  accepted(unbond(450n * OPEN), rich);
  accepted(nominate(V1), later);
  test.notOk(store.Nominators.has(host, rich), 'what is unbonding holds no place');
  test.ok(store.Nominators.has(host, N1));
  accepted(stake('rebond', { value: 450n * OPEN }), rich);
  // From one role into the other: the place left is free, the one wanted must be won.
  accepted(validate(), rich);
  test.notOk(store.Validators.has(host, equal), 'now the poorest validator');
  const env = of.env();
  onOffence(env, [{ who: V1, reporters: [], fraction: PERBILL }], 0);
  env.flush();
  test.equal(store.CounterForValidators.get(host), 3);
  test.equal(fault(of), undefined);
});

t.test('a slash of thousands is taken in pieces, which together are the slash', async (test) => {
  const crowd = Array.from({ length: 200 }, (_, i) =>
    asAccountId(encode(struct({ a: u32, rest: accountId }), { a: i, rest: person(77) }).slice(0, 32)),
  );
  for (const slashDeferDuration of [0, 2]) {
    const of = await world(
      {
        stakers: [...RULES.stakers, ...crowd.map((who, i) => nominator(who, OPEN + BigInt(i), V1))],
        eras: { sessionsPerEra: 3, bondingDuration: 4, slashDeferDuration },
      },
      crowd,
    );
    test.teardown(of.close);
    const { host } = of;
    const [reporter] = [person(33)];
    const [treasury, rewarded] = [of.free(TREASURY), of.free(reporter)];
    const stakes = (): bigint => [...store.Ledger.entries(host)].reduce((sum, [, { total }]) => sum + total, 0n);
    const before = stakes();
    const env = of.env();
    env.transactional(() => onOffence(env, [{ who: V1, reporters: [reporter], fraction: PERBILL / 4 }], 0));
    env.flush();
    if (slashDeferDuration > 0) toEra(test, of, 3);
    const unpaid = () => crowd.filter((who, i) => store.Ledger.get(host, who)?.total === OPEN + BigInt(i)).length;
    test.ok(unpaid() > 100, 'not all in one block');
    for (let i = 0; i < 3; i++) of.next();
    test.equal(unpaid(), 0);
    const taken = before - stakes();
    const wanted = [...store.NominatorSlashInEra.entries(host, [0])].reduce(
      (sum, [, amount]) => sum + amount,
      25n * OPEN,
    );
    test.equal(taken, wanted);
    const reward = of.free(reporter) - rewarded;
    test.ok(reward <= taken / 10n && taken / 10n - reward <= 8n, 'a tenth, but for the units that pieces leave');
    test.equal(of.free(TREASURY) - treasury, taken - reward);
    test.equal([...store.UnappliedSlashes.entries(host)].length, 0);
    test.equal(fault(of), undefined);
  }
});

t.test('stakes are free when nothing of their era can be reported any more, and not before', async (test) => {
  const of = await world({ eras: { sessionsPerEra: 3, bondingDuration: 4, slashDeferDuration: 0 } });
  test.teardown(of.close);
  const { host } = of;
  const accepted = accepting(test, of);
  accepted(stake('chill'), V2);
  accepted(unbond(100n * OPEN), V2);
  accepted(stake('chill'), N1);
  accepted(unbond(300n * OPEN), N1);
  // In every block: whoever could still be slashed for era 0 has its stake on hold.
  let last = 0;
  for (let guard = 0; guard < 5 * ERA; guard++) {
    of.next();
    const reportable = store.BondedEras.get(host).some(([era]) => era === 0);
    of.dispatch(withdraw, V2);
    of.dispatch(withdraw, N1);
    const held = of.reserved(V2) > 0n && of.reserved(N1) > 0n;
    if (reportable !== held) test.fail(`block ${of.number()}: reportable ${reportable}, held ${held}`);
    if (reportable) last = of.number();
    if (reportable && (of.number() + 1) % ERA === 0 && active(of) === 3) {
      const env = of.env();
      env.transactional(() => onOffence(env, [{ who: V2, reporters: [], fraction: PERBILL / 2 }], 0));
      env.flush();
      test.equal(of.reserved(V2), 50n * OPEN, 'in the last block of the last era it is slashed all the same');
    }
  }
  test.equal(last, 4 * ERA - 1);
  test.equal(fault(of), undefined);
});

t.test('rewards: by points and stake, after commission, to the last unit', async (test) => {
  const crowd = Array.from({ length: 2 * MAX_EXPOSURE_PAGE_SIZE + 9 }, (_, i) =>
    asAccountId(encode(struct({ a: u32, rest: accountId }), { a: i, rest: person(77) }).slice(0, 32)),
  );
  const stakers = [...RULES.stakers, ...crowd.map((who, i) => nominator(who, OPEN + BigInt(i), V1))];
  const of = await world({ stakers }, crowd);
  test.teardown(of.close);
  const { host } = of;
  const refused = refusing(test, of);
  const accepted = accepting(test, of);
  accepted(validate(250_000_000), V1);
  accepted(stake('set_payee', { payee: { type: 'Account', value: POOR } }), V2);
  accepted(stake('set_payee', { payee: { type: 'None' } }), V3);
  toEra(test, of, 1);

  const income = 123_456_789_012_345_678_901n;
  accepted(transfer(POT, income), person(32));
  refused(payout(V1, 1), N1, 'InvalidEraToReward');
  toEra(test, of, 2);
  const points = store.ErasRewardPoints.get(host, 1);
  test.equal(points.total, 20 * ERA, 'twenty for each block of the era');
  test.equal(
    store.ErasValidatorReward.get(host, 1),
    income,
    'all that came in, and nothing of the existential deposit',
  );
  test.equal(store.ErasValidatorReward.get(host, 0), 0n);
  const pot = of.free(POT);
  const pages = store.ErasStakersOverview.get(host, [1, V1])!.pageCount;
  test.ok(pages === 3, 'a crowd on three pages');
  refused(stake('payout_stakers_by_page', { validatorStash: V1, era: 1, page: 3 }), N1, 'InvalidPage');

  // By hand: floor along one line, so that nothing is left over.
  const before = new Map([...system.accounts(host)].map(([who, { data }]) => [toHex(who), data.free + data.reserved]));
  const earned = (who: AccountId) => balances.totalBalance(host, who) - (before.get(toHex(who)) ?? 0n);
  const pointsOf = (who: AccountId) => points.individual.find(([each]) => sameAccount(each, who))?.[1] ?? 0;
  accepted(stake('payout_stakers_by_page', { validatorStash: V1, era: 1, page: 1 }), N3);
  refused(stake('payout_stakers_by_page', { validatorStash: V1, era: 1, page: 1 }), N3, 'AlreadyClaimed');
  accepted(payout(V1, 1), N3);
  accepted(payout(V1, 1), N3);
  refused(payout(V1, 1), N3, 'AlreadyClaimed');
  test.same(store.ClaimedRewards.get(host, [1, V1]), [0, 1, 2]);
  const share = (income * BigInt(pointsOf(V1))) / BigInt(points.total);
  const exposure = store.ErasStakersOverview.get(host, [1, V1])!;
  const near = (what: bigint, wanted: bigint, message: string) =>
    test.ok(what - wanted <= 1n && wanted - what <= 1n, `${message}: ${what} is ${wanted}`);
  const commission = share / 4n;
  near(earned(V1), commission + ((share - commission) * exposure.own) / exposure.total, 'a quarter, and its own stake');
  const everyone = [V1, N1, N2, ...crowd].reduce((sum, who) => sum + earned(who), 0n);
  near(everyone, share, 'all pages together are the share');

  accepted(payout(V2, 1), N3);
  test.ok(of.free(POOR) > 0n, 'to another account');
  accepted(payout(V3, 1), N3);
  const [unwanted, left] = [of.free(POT) - balances.EXISTENTIAL_DEPOSIT, store.ErasUnpaid.get(host, 1)];
  test.equal(left, 0n, 'the era is paid to the last unit');
  test.ok(unwanted > 0n && unwanted < income, 'what V3 does not want stays for later eras');
  let paid = balances.totalBalance(host, POOR);
  for (const who of [V1, V2, V3, N1, N2, ...crowd]) paid += earned(who);
  test.equal(paid + unwanted, income);
  test.equal(of.free(POT), pot - paid);
  test.ok(store.Ledger.get(host, V1)!.active > 100n * OPEN, 'restaked');
  toEra(test, of, 3);
  test.equal(store.ErasValidatorReward.get(host, 2), unwanted);
  test.equal(fault(of), undefined);
});

t.test('rewards: inflation, history, eras without blocks by validators', async (test) => {
  const of = await world({ inflation: 0 });
  test.teardown(of.close);
  const { host } = of;
  const accepted = accepting(test, of);
  toEra(test, of, 1);
  const issuance = balances.totalIssuance(host);
  test.equal(of.dispatch(stake('set_inflation', { annual: 1 }), V1).error, 'BadOrigin');
  test.equal(of.dispatch(stake('set_inflation', { annual: PERBILL + 1 })).error, 'Staking.BoundNotMet');
  accepted(stake('set_inflation', { annual: 100_000_000 }), ROOT);
  accepted(configure({ maxStakedRewards: set(75) }), ROOT);
  const treasury = of.free(TREASURY);
  const start = store.ActiveEra.get(host)?.start;
  toEra(test, of, 2);
  const ms = BigInt(1_000 + 2 * ERA - 1) * 3_000n - (start ?? BigInt(1_000 + ERA) * 3_000n);
  const minted = (issuance * 100_000_000n * ms) / (10n ** 9n * 31_557_600_000n);
  test.equal(balances.totalIssuance(host), issuance + minted, 'a tenth a year, for the time of the era');
  test.equal(store.ErasValidatorReward.get(host, 1), (minted * 75n) / 100n);
  test.equal(of.free(TREASURY) - treasury, minted - (minted * 75n) / 100n, 'the rest is the treasury’s');
  accepted(stake('set_inflation', { annual: 0 }), ROOT);

  // Nobody claims: after the depth of history it is income again, and nothing is left in storage.
  const unclaimed = store.ErasUnpaid.get(host, 1);
  toEra(test, of, 86);
  test.equal(store.ErasValidatorReward.get(host, 1), undefined);
  test.same([...store.ErasStakersOverview.entries(host, [1])], []);
  test.same(store.ErasRewardPoints.get(host, 1).total, 0);
  test.ok([...store.ErasValidatorReward.entries(host)].length <= 86);
  const again = [...store.ErasValidatorReward.entries(host)].reduce((sum, [, amount]) => sum + amount, 0n);
  test.ok(again >= unclaimed);
  test.equal(of.dispatch(payout(V1, 1), V1).error, 'Staking.InvalidEraToReward');
});

t.test('slashes: a part of everything at stake, later, unless it is cancelled', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const { host } = of;
  const accepted = accepting(test, of);
  const reporter = person(32);
  const offence = (fraction: number, index = 0, who = V1) => {
    const env = of.env();
    env.transactional(() => onOffence(env, [{ who, reporters: [reporter], fraction }], index));
    env.flush();
  };
  const exposure = store.ErasStakersOverview.get(host, [0, V1])!;
  const nominated = store.ErasStakersPaged.get(host, [0, V1, 0])!.others[0]!;
  test.same(nominated.who, N1);
  accepted(unbond(60n * OPEN), V1);

  offence(100_000_000);
  test.same(session.disabledValidators(host), [], 'of three none may be disabled: finality needs them');
  test.notOk(store.Validators.has(host, V1), 'not elected again unless it wants to');
  test.match(of.events().find(({ name }) => name === 'Staking.SlashReported')?.value, { validator: V1, slashEra: 0 });
  test.same(store.ValidatorSlashInEra.get(host, [0, V1]), [100_000_000, 10n * OPEN]);
  test.equal(store.UnappliedSlashes.get(host, 3).length, 1);
  offence(50_000_000);
  test.equal(store.UnappliedSlashes.get(host, 3).length, 1, 'the worst of an era counts, not the sum');
  offence(150_000_000);
  const [, second] = store.UnappliedSlashes.get(host, 3);
  test.equal(second?.own, 5n * OPEN, 'what is more than before');
  test.equal(of.dispatch(stake('cancel_deferred_slash', { era: 3, slashIndices: [1] }), V1).error, 'BadOrigin');
  for (const [indices, error] of [
    [[], 'EmptyTargets'],
    [[1, 1], 'NotSortedAndUnique'],
    [[1, 0], 'NotSortedAndUnique'],
    [[2], 'InvalidSlashIndex'],
  ] as const) {
    test.equal(
      of.dispatch(stake('cancel_deferred_slash', { era: 3, slashIndices: [...indices] })).error,
      `Staking.${error}`,
    );
  }
  accepted(stake('cancel_deferred_slash', { era: 3, slashIndices: [1] }), ROOT);
  test.equal(of.reserved(V1), 100n * OPEN, 'not yet');

  toEra(test, of, 2);
  accepted(withdraw, V1);
  test.equal(of.reserved(V1), 100n * OPEN, 'and nothing has got away');
  const treasury = of.free(TREASURY);
  const issuance = balances.totalIssuance(host);
  toEra(test, of, 3);
  const taken = 10n * OPEN + nominated.value / 10n;
  test.equal(of.reserved(V1), 90n * OPEN, 'a tenth of what was bonded, what unlocks included');
  test.same(store.Ledger.get(host, V1)?.unlocking, [{ era: 4, value: 54n * OPEN }]);
  test.equal(of.reserved(N1), 300n * OPEN - nominated.value / 10n, 'whoever nominates shares it');
  test.equal(of.free(reporter), 1_000n * OPEN + taken / 10n, 'a tenth is the reporter’s');
  test.equal(of.free(TREASURY) - treasury, taken - taken / 10n, 'the rest is the treasury’s');
  test.equal(balances.totalIssuance(host), issuance, 'nothing was burnt');
  test.equal(exposure.own, 100n * OPEN);
  test.equal(fault(of), undefined);

  // Too late to wait: at once. Too late altogether: no more.
  toEra(test, of, 3);
  offence(PERBILL, 0, V2);
  test.equal(store.Ledger.get(host, V2)?.total, 0n, 'all of it');
  test.equal(of.reserved(V2), 0n);
  accepted(stake('reap_stash', { stash: V2, numSlashingSpans: 0 }), N3);
  test.notOk(store.Bonded.has(host, V2));
  toEra(test, of, 5);
  offence(PERBILL, 0, V3);
  test.equal(of.events().at(-1)?.name, 'Staking.OldSlashingReportDiscarded');
  test.equal(of.reserved(V3), 80n * OPEN);
  accepted(stake('set_invulnerables', { invulnerables: [V3] }), ROOT);
  test.equal(
    of.dispatch(stake('manual_slash', { validatorStash: V3, era: 5, slashFraction: PERBILL })).error,
    undefined,
  );
  accepted(stake('set_invulnerables', { invulnerables: [] }), ROOT);
  test.same(store.ValidatorSlashInEra.get(host, [5, V3]), undefined);
  accepted(stake('manual_slash', { validatorStash: V3, era: 5, slashFraction: PERBILL / 2 }), ROOT);
  toEra(test, of, 8);
  test.equal(of.reserved(V3), 40n * OPEN);
  test.equal(fault(of), undefined);
});

t.test('one of four validators that offends is out of duty until the set changes', async (test) => {
  const of = await world({ validatorCount: 4 });
  test.teardown(of.close);
  const env = of.env();
  onOffence(
    env,
    [V1, V2].map((who) => ({ who, reporters: [], fraction: 10_000_000 })),
    0,
  );
  env.flush();
  const out = session.disabledValidators(of.host).map((at) => session.validators(of.host)[at]);
  test.same(out, [V1], 'the second would be one too many');
  const index = session.validators(of.host).findIndex((who) => sameAccount(who, V1));
  // The block of a validator that is out of duty is invalid.
  let refusals = 0;
  for (let i = 0; i < 4; i++) {
    try {
      of.next();
    } catch (problem) {
      test.match(problem, { code: 'AUTHOR_DISABLED' });
      refusals++;
      test.equal(Number(aura.currentSlot(of.host) + 1n) % 4, index, 'the slot after that of the last block');
      break;
    }
  }
  test.equal(refusals, 1);
});

t.test('random stakers: the books hold after every block', async (test) => {
  const of = await world({ inflation: 50_000_000 });
  test.teardown(of.close);
  const { host } = of;
  let state = 12_345;
  const roll = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % below;
  };
  const amount = () => BigInt(roll(2 ** 20)) * 10n ** BigInt(roll(16));
  const anyone = () => PEOPLE[roll(PEOPLE.length)]!;
  let done = 0;
  for (let block = 0; block < 40 * ERA; block++) {
    of.next();
    for (let i = 0; i < 4; i++) {
      const who = anyone();
      const calls: RuntimeCall[] = [
        bond(amount(), ['Staked', 'Stash', 'None'][roll(3)]),
        stake('bond_extra', { maxAdditional: amount() }),
        unbond(amount()),
        stake('rebond', { value: amount() }),
        withdraw,
        validate(roll(PERBILL)),
        nominate(anyone(), anyone()),
        payout(anyone(), roll(8) + Math.max(0, (active(of) ?? 0) - 8)),
        transfer(POT, amount()),
        setKeys(who),
      ];
      if (of.dispatch(calls[roll(calls.length)]!, who).outcome.ok) done++;
    }
    if (roll(20) === 0) {
      const env = of.env();
      const index = Math.max(0, session.currentIndex(host) - roll(12));
      env.transactional(() =>
        onOffence(env, [{ who: anyone(), reporters: [anyone()], fraction: roll(PERBILL) }], index),
      );
      env.flush();
    }
    const problem = fault(of);
    if (problem !== undefined) {
      test.fail(`block ${of.number()}: ${problem}`);
      break;
    }
  }
  test.ok(active(of)! >= 30, `era ${active(of)}`);
  test.ok(done > 400, `${done} calls succeeded`);
});

t.test('calls, events, errors and storage are those that wallets know from Polkadot', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const NAMES = ['Staking', 'Session', 'Historical', 'Grandpa', 'Offences'];
  const ours = shapesOf(opaqueMetadataOf(of.runtime.call(of.host, 'Metadata_metadata', new Uint8Array())), NAMES);
  const theirs = shapesOf(opaqueMetadataOf(polkadot), NAMES);
  const { Staking, Session, Historical } = ours;
  const own = {
    calls: ['set_inflation'],
    events: ['InflationSet', 'SlashCancelled'],
    storage: ['Eras', 'Inflation', 'ErasUnpaid', 'Promised', 'Ranking', ...Object.keys(slashes.storage)],
  };
  for (const kind of ['calls', 'events', 'errors'] as const) {
    const known = new Map(theirs.Staking![kind].map((each) => [each.name, each]));
    for (const item of Staking![kind]) {
      if (kind !== 'errors' && own[kind].includes(item.name)) continue;
      test.same(item, known.get(item.name), `${kind} ${item.name}`);
    }
  }
  for (const [name, shape] of Object.entries(Staking!.storage)) {
    if (!own.storage.includes(name)) test.equal(shape, theirs.Staking!.storage[name], name);
  }
  for (const [name, shape] of Object.entries(theirs.Staking!.constants))
    test.equal(Staking!.constants[name], shape, name);
  const missing = theirs
    .Staking!.calls.map(({ name }) => name)
    .filter((name) => !Staking!.calls.some((each) => each.name === name));
  test.same(
    missing,
    ['set_controller', 'update_payee', 'deprecate_controller_batch', 'restore_ledger', 'migrate_currency'],
    'what only chains with a past need',
  );
  test.same(Historical!.storage.HistoricalSessions, theirs.Historical!.storage.HistoricalSessions);
  test.same(Historical!.events, theirs.Historical!.events);
  test.same(Session!.calls, theirs.Session!.calls);
  test.same(
    ours.Grandpa!.calls,
    theirs.Grandpa!.calls.slice(0, 2),
    'reports, as everywhere; nobody forces changes here',
  );
  test.same(ours.Grandpa!.errors, theirs.Grandpa!.errors.slice(4));
  test.same(ours.Offences!.events, theirs.Offences!.events);
  test.equal(ours.Offences!.storage.ConcurrentReportsIndex, theirs.Offences!.storage.ConcurrentReportsIndex);
  test.equal(
    decode(
      u32,
      of.runtime.call(
        of.host,
        'StakingApi_eras_stakers_page_count',
        encode(struct({ era: u32, account: accountId }), { era: 0, account: V1 }),
      ),
    ),
    1,
  );
});
