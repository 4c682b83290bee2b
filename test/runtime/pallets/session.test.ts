/** Session and Authorship: keys, their owners and proofs, when a new set works, who is out of duty; whose block it is. */
import t, { type Test } from 'tap';
import { ROOT } from '../../../runtime/framework/dispatch.ts';
import * as aura from '../../../runtime/pallets/standard/aura/authorities.ts';
import * as authorship from '../../../runtime/pallets/standard/authorship.ts';
import * as balances from '../../../runtime/pallets/standard/balances.ts';
import * as grandpa from '../../../runtime/pallets/standard/grandpa/authorities.ts';
import * as historical from '../../../runtime/pallets/standard/historical.ts';
import * as session from '../../../runtime/pallets/standard/session.ts';
import * as stakingStore from '../../../runtime/pallets/standard/staking/store.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { concatBytes, toHex, utf8 } from '../../../runtime/primitives/bytes.ts';
import { InvalidBlock } from '../../../runtime/primitives/invalid-block.ts';
import { bytes, decode, encode, fixedBytes, option, tuple, vec } from '../../../runtime/primitives/scale/codec.ts';
import type { AccountId } from '../../../runtime/primitives/types.ts';
import { keySet, setKeysCall } from './session-keys.ts';
import {
  ALICE,
  BOB,
  CHARLIE,
  createWorld,
  ENDOWMENT,
  genesisOf,
  make,
  OPEN,
  person,
  to,
  transfer,
  type World,
} from './world.ts';

const keysOf = (name: string) => keySet(name).keys;
const validators = [ALICE, BOB].map((account, i) => ({ account, ...keysOf(`first${i}`) }));
const genesis = genesisOf({
  aura: { authorities: validators.map((each) => each.aura), slotDurationMs: 3_000 },
  grandpa: { authorities: validators.map((each) => ({ key: each.grandpa, weight: 1n })) },
  session: validators,
  sessionLength: 5,
});
const purge = make('Session', 'purge_keys');
const engines = (world: World) =>
  world.logs().flatMap((item) => (item.type === 'Consensus' ? [toHex(concatBytes(item.value[0], item.value[1]))] : []));
const hex = (...parts: Uint8Array[]) => toHex(concatBytes(...parts)).slice(2);
const refusing = (test: Test, world: World) => (call: ReturnType<typeof make>, by: AccountId, error: string) => {
  const before = world.root();
  test.equal(world.dispatch(call, by).error, error);
  test.equal(world.root(), before, `${error} leaves no trace`);
};

t.test('keys and rotation', async (test) => {
  const world = await createWorld(genesis);
  test.teardown(world.close);
  const { host } = world;
  test.equal(session.sessionLength(host), 5);
  test.same(session.validators(host), [ALICE, BOB]);
  test.same(session.keyOwner(host, 'aura', validators[1]!.aura), BOB);
  test.equal(system.account(host, ALICE).consumers, 1, 'an account with keys cannot vanish');

  world.next(5);
  test.equal(session.currentIndex(host), 1);
  test.match(
    world.events().find(({ name }) => name === 'Session.NewSession'),
    { value: { sessionIndex: 1 } },
  );
  test.same(engines(world), [], 'nothing changed, so nobody is told');

  const nobody = person(99);
  test.equal(world.dispatch(setKeysCall('second0', ALICE), ROOT).error, 'BadOrigin');
  const refused = refusing(test, world);
  refused(setKeysCall('second0', nobody), nobody, 'Session.NoAccount');
  refused(setKeysCall('first1', ALICE), ALICE, 'Session.DuplicatedKey');
  test.same(session.nextKeys(host, ALICE), keysOf('first0'), 'a failure changes nothing');
  refused(purge, CHARLIE, 'Session.NoKeys');

  // Alice's new keys are queued when session 2 begins and work in session 3; the old ones are hers until then.
  test.ok(world.dispatch(setKeysCall('second0', ALICE), ALICE).outcome.ok);
  test.equal(system.account(host, ALICE).consumers, 1);
  test.same(session.keyOwner(host, 'aura', validators[0]!.aura), ALICE, 'the old key still works for her');
  refused(setKeysCall('first0', CHARLIE), CHARLIE, 'Session.DuplicatedKey');
  world.next(10);
  test.same(engines(world), []);
  test.same(aura.authorities(host), [keysOf('first0').aura, keysOf('first1').aura]);
  world.next(14);
  test.equal(grandpa.currentSetId(host), 0n);
  refused(setKeysCall('first0', CHARLIE), CHARLIE, 'Session.DuplicatedKey');
  world.next(15);
  test.same(aura.authorities(host), [keysOf('second0').aura, keysOf('first1').aura]);
  test.equal(session.keyOwner(host, 'aura', keysOf('first0').aura), undefined, 'the old key is out of use, and free');
  test.equal(session.keyOwner(host, 'grandpa', keysOf('first0').grandpa), undefined);
  test.equal(grandpa.currentSetId(host), 1n);
  const list = hex(keysOf('second0').aura, keysOf('first1').aura);
  test.same(engines(world), [`0x${hex(utf8('aura'))}0108${list}`]);
  const header = world.next()!;
  const logs = header.digest.logs.flatMap((item) => (item.type === 'Consensus' ? [toHex(item.value[1])] : []));
  const voters = ['second0', 'first1'].map((name) => `${hex(keysOf(name).grandpa)}0100000000000000`).join('');
  test.same(logs, [`0x0108${list}`, `0x0108${voters}00000000`], 'a change without delay, in the header of the block');
  test.same(
    grandpa.authorities(host).map(([key]) => key),
    [keysOf('second0').grandpa, keysOf('first1').grandpa],
  );

  // Bob gives his keys up and is out two sessions later.
  test.ok(world.dispatch(purge, BOB).outcome.ok);
  test.equal(system.account(host, BOB).consumers, 0);
  test.same(session.keyOwner(host, 'aura', keysOf('first1').aura), BOB, 'what works is his until it does not');
  refused(setKeysCall('first1', CHARLIE), CHARLIE, 'Session.DuplicatedKey');
  world.next(25);
  test.same(aura.authorities(host), [keysOf('second0').aura]);
  test.same(session.validators(host), [ALICE]);
  test.equal(grandpa.currentSetId(host), 2n);
  test.ok(world.dispatch(setKeysCall('first1', CHARLIE), CHARLIE).outcome.ok, 'free for whoever has the secrets');
  world.next(30);
  test.equal(grandpa.currentSetId(host), 2n);

  // The last one leaves too: it goes on, answers for it, and keeps its keys from others.
  test.ok(world.dispatch(purge, ALICE).outcome.ok);
  world.next(60);
  test.same(aura.authorities(host), [keysOf('second0').aura]);
  test.same(session.validators(host), [ALICE]);
  test.same(authorship.author(host), ALICE);
  test.same(
    historical.workingKeys(host).map(([who]) => who),
    [ALICE],
  );
  test.ok(historical.prove(host, session.currentIndex(host), 'grandpa', keysOf('second0').grandpa));
  refused(setKeysCall('second0', CHARLIE), CHARLIE, 'Session.DuplicatedKey');
  test.ok(world.dispatch(setKeysCall('third0', ALICE), ALICE).outcome.ok, 'and may come back');
  world.next(75);
  test.same(aura.authorities(host), [keysOf('third0').aura]);
  test.equal(session.keyOwner(host, 'aura', keysOf('second0').aura), undefined);

  const output = option(vec(tuple(bytes(), fixedBytes(4))));
  const decoded = (encoded: Uint8Array) =>
    decode(output, world.runtime.call(host, 'SessionKeys_decode_session_keys', encode(bytes(), encoded)));
  test.same(decoded(concatBytes(person(1), person(2))), [
    [person(1), utf8('aura')],
    [person(2), utf8('gran')],
  ]);
  test.equal(decoded(person(1)), undefined);
  test.ok(world.balanced());
});

t.test(
  'keys are registered with proof that their secrets are there, for one owner, and with a deposit',
  async (test) => {
    const world = await createWorld(genesis);
    test.teardown(world.close);
    const refused = refusing(test, world);
    const [mine, other] = [keySet('mine'), keySet('other')];
    const setKeys = (keys: object, proof: Uint8Array) => make('Session', 'set_keys', { keys, proof });
    const good = mine.proofFor(CHARLIE);
    const flipped = good.map((byte, at) => (at === 70 ? byte ^ 1 : byte));
    for (const proof of [
      new Uint8Array(),
      good.subarray(1),
      concatBytes(good, new Uint8Array(1)),
      flipped,
      mine.proofFor(BOB),
      other.proofFor(CHARLIE),
      concatBytes(good.subarray(64), good.subarray(0, 64)),
    ]) {
      refused(setKeys(mine.keys, proof), CHARLIE, 'Session.InvalidProof');
    }
    refused(setKeys({ ...mine.keys, grandpa: validators[1]!.grandpa }, good), CHARLIE, 'Session.InvalidProof');
    refused(setKeys({ ...mine.keys, aura: validators[1]!.aura }, good), CHARLIE, 'Session.InvalidProof');
    refused(setKeys(mine.keys, good), BOB, 'Session.InvalidProof');

    const poor = person(77);
    world.dispatch(transfer(poor, OPEN), ALICE);
    refused(setKeysCall('mine', poor), poor, 'Token.FundsUnavailable');
    test.ok(world.dispatch(setKeys(mine.keys, good), CHARLIE).outcome.ok);
    test.equal(world.reserved(CHARLIE), session.KEY_DEPOSIT);
    test.equal(system.account(world.host, CHARLIE).consumers, 2);
    for (const name of ['mine2', 'mine3', 'mine4']) {
      test.ok(world.dispatch(setKeysCall(name, CHARLIE), CHARLIE).outcome.ok);
      test.equal(world.reserved(CHARLIE), session.KEY_DEPOSIT, 'one deposit, however often keys change');
    }
    test.equal(
      [...session.store.KeyOwner.entries(world.host)].length,
      2 * 3,
      'keys that never worked are forgotten when they are replaced',
    );
    test.ok(world.dispatch(purge, CHARLIE).outcome.ok);
    test.equal(world.free(CHARLIE), ENDOWMENT);
    test.equal(system.account(world.host, CHARLIE).consumers, 0);
    test.equal([...session.store.KeyOwner.entries(world.host)].length, 2 * 2);
    test.equal(world.dispatch(purge, ALICE).error, undefined, 'keys of the genesis have no deposit');
    test.equal(balances.heldOf(world.host, session.KEYS_HOLD, ALICE), 0n);
    test.ok(world.balanced());
  },
);

t.test('the author, found by its key', async (test) => {
  const world = await createWorld(genesis);
  test.teardown(world.close);
  const authors: (AccountId | undefined)[] = [];
  for (let i = 2; i <= 5; i++) {
    world.next();
    authors.push(authorship.author(world.host));
  }
  test.same(authors, [ALICE, BOB, ALICE, BOB], 'slots 1002 to 1005');
  // Registering other keys changes nobody's turn, and nobody's blocks become another's.
  world.dispatch(setKeysCall('later0', ALICE), ALICE);
  world.dispatch(purge, BOB);
  for (let i = 6; i <= 12; i++) {
    world.next();
    test.same(authorship.author(world.host), i % 2 === 0 ? ALICE : BOB, `block ${i}`);
  }
  world.finish();
  test.equal(authorship.author(world.host), undefined, 'between blocks there is none');

  const keyless = await createWorld(
    genesisOf({ aura: { authorities: [keysOf('static').aura], slotDurationMs: 3_000 } }),
  );
  test.teardown(keyless.close);
  test.same(authorship.author(keyless.host), keysOf('static').aura, 'a key that nobody registered is its own account');
  test.same(session.validators(keyless.host), []);
  test.ok(
    keyless.dispatch(setKeysCall('static', EVE_LIKE), EVE_LIKE).outcome.ok,
    'with its secret it may be registered',
  );
  keyless.next(601);
  test.same(authorship.author(keyless.host), keysOf('static').aura, 'and is its own account all the same');
  test.equal(session.currentIndex(keyless.host), 1);
  test.same(
    aura.authorities(keyless.host),
    [keysOf('static').aura],
    'a chain without session keys keeps its authorities',
  );

  const implied = await createWorld(
    genesisOf({ aura: { authorities: [], slotDurationMs: 3_000 }, grandpa: { authorities: [] }, session: validators }),
  );
  test.teardown(implied.close);
  test.same(
    aura.authorities(implied.host),
    validators.map((each) => each.aura),
    'the first set is that of the session',
  );
});
const EVE_LIKE = person(5);

// ---- with stakes ---------------------------------------------------------------------------------------------

const STAKERS = [11, 12, 13, 14].map(person) as [AccountId, AccountId, AccountId, AccountId];
const SESSION = 20;
const staked = () =>
  createWorld(
    genesisOf({
      balances: [...STAKERS, CHARLIE].map((account) => ({ account, amount: 10_000n * OPEN })),
      aura: { authorities: [], slotDurationMs: 3_000 },
      grandpa: { authorities: [] },
      session: STAKERS.map((account) => ({ account, ...keysOf(`staker${account[0]}`) })),
      sessionLength: SESSION,
      staking: {
        validatorCount: 4,
        minimumValidatorCount: 1,
        stakers: STAKERS.map((stash) => ({ stash, bond: 1_000n * OPEN, status: { type: 'Validator' } })),
        invulnerables: [],
        minNominatorBond: 10n * OPEN,
        minValidatorBond: 100n * OPEN,
        inflation: 0,
        eras: { sessionsPerEra: 3, bondingDuration: 4, slashDeferDuration: 2 },
      },
    }),
  );
const pointsOf = (world: World, who: AccountId): number => {
  const { individual } = stakingStore.store.ErasRewardPoints.get(world.host, stakingStore.activeEra(world.host) ?? 0);
  return individual.find(([each]) => toHex(each) === toHex(who))?.[1] ?? 0;
};
/** Blocks of the next slots up to block `until`; slots whose author is out of duty stay empty. */
function slots(world: World, until: number): { made: string[]; refused: number } {
  const made: string[] = [];
  let refused = 0;
  while (world.number() < until) {
    try {
      world.next();
      made.push(toHex(authorship.author(world.host)!));
    } catch (problem) {
      if (!(problem instanceof InvalidBlock) || problem.code !== 'AUTHOR_DISABLED') throw problem;
      refused++;
    }
  }
  return { made, refused };
}

t.test('whoever rotates its keys goes on earning with the old ones until the new ones work', async (test) => {
  const world = await staked();
  test.teardown(world.close);
  world.next(11);
  const [victim, rival] = STAKERS;
  test.ok(world.dispatch(setKeysCall('rotated', victim), victim).outcome.ok);
  test.equal(
    world.dispatch(setKeysCall(`staker${victim[0]}`, CHARLIE), CHARLIE).error,
    'Session.DuplicatedKey',
    'nobody takes the old key over, not even with its secret',
  );
  test.equal(world.dispatch(setKeysCall(`staker${victim[0]}`, rival), rival).error, 'Session.DuplicatedKey');
  const [before, theirs] = [pointsOf(world, victim), pointsOf(world, rival)];
  world.next(51);
  test.ok(pointsOf(world, victim) - before >= 10 * 20);
  test.equal(pointsOf(world, victim) - before, pointsOf(world, rival) - theirs, 'as much as anybody else');
  test.same(
    aura
      .authorities(world.host)
      .map(toHex)
      .includes(toHex(keysOf('rotated').aura)),
    true,
  );
});

t.test('disabled is disabled, whatever is registered and whoever changes the set', async (test) => {
  const world = await staked();
  test.teardown(world.close);
  world.next(11);
  const [bad, honest] = STAKERS;
  session.disable(world.env(), bad, 1_000_000_000);
  test.ok(world.dispatch(setKeysCall('again', bad), bad).outcome.ok);
  test.ok(world.dispatch(setKeysCall('fresh', honest), honest).outcome.ok);
  const names = new Set<string>();
  let refused = 0;
  // To the end of the sessions in which both change their keys, within the era.
  const first = slots(world, 2 * SESSION + 15);
  for (const name of first.made) names.add(name);
  refused += first.refused;
  test.notOk(names.has(toHex(bad)), 'no block of its own, with neither key');
  test.ok(names.has(toHex(honest)));
  test.ok(refused > 0);
  test.ok(session.isDisabled(world.host, bad));

  // The election for the next era was held after the offence: if it is chosen again, it is back.
  const second = slots(world, 4 * SESSION);
  test.ok(second.refused > 0, 'not before that era begins');
  test.notOk(session.isDisabled(world.host, bad));
  test.ok(slots(world, 5 * SESSION - 2).made.includes(toHex(bad)));

  // An offence between an election and its era outlasts the change of eras.
  session.disable(world.env(), honest, 500_000_000);
  const planned = slots(world, 6 * SESSION - 8);
  test.ok(planned.refused > 0);
  session.disable(world.env(), bad, 500_000_000);
  session.reenable(world.env(), honest);
  test.notOk(slots(world, 7 * SESSION).made.includes(toHex(bad)));
});

t.test('evidence is good for as long as stakes answer, however many sets there were meanwhile', async (test) => {
  const world = await staked();
  test.teardown(world.close);
  const { host } = world;
  // Every session another set: the mapping of sets to sessions reaches back as far as stakes do, and no further.
  for (let i = 0; i < 30; i++) {
    const who = STAKERS[i % 4]!;
    test.ok(world.dispatch(setKeysCall(`set ${i}`, who), who).outcome.ok);
    world.next((i + 1) * SESSION + 1);
  }
  const first = stakingStore.store.BondedEras.get(host)[0]![1];
  const current = grandpa.currentSetId(host);
  test.ok(current >= 27n);
  const known = [...grandpa.store.SetIdSession.entries(host)].map(([id, last]) => [id, last] as const);
  const oldest = known.reduce((least, [id]) => (id < least ? id : least), current);
  for (let id = oldest; id <= current; id++) test.not(grandpa.sessionOf(host, id), undefined, `set ${id}`);
  test.ok(grandpa.sessionOf(host, oldest)! < first, 'the set before the first that matters');
  const sessions = session.currentIndex(host) - first + 1;
  test.ok(known.length <= sessions + 5, 'sets that nobody answers for are forgotten, a few sessions later');
  test.ok(world.dispatch(make('Balances', 'transfer_keep_alive', { dest: to(BOB), value: OPEN }), CHARLIE).outcome.ok);
});
