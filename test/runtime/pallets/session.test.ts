/** Session and Authorship: keys, their owners, and when a new set works; whose block it is. */
import t from 'tap';
import { ROOT } from '../../../runtime/framework/dispatch.ts';
import * as aura from '../../../runtime/pallets/standard/aura/authorities.ts';
import * as authorship from '../../../runtime/pallets/standard/authorship.ts';
import * as grandpa from '../../../runtime/pallets/standard/grandpa/authorities.ts';
import * as session from '../../../runtime/pallets/standard/session.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { concatBytes, toHex, utf8 } from '../../../runtime/primitives/bytes.ts';
import { bytes, decode, encode, fixedBytes, option, tuple, vec } from '../../../runtime/primitives/scale/codec.ts';
import type { AccountId } from '../../../runtime/primitives/types.ts';
import { ALICE, BOB, CHARLIE, createWorld, genesisOf, make, person, type World } from './world.ts';

const keysOf = (seed: number) => ({ aura: person(seed), grandpa: person(seed + 100) });
const validators = [ALICE, BOB].map((account, i) => ({ account, ...keysOf(50 + i) }));
const genesis = genesisOf({
  aura: { authorities: validators.map((each) => each.aura), slotDurationMs: 3_000 },
  grandpa: { authorities: validators.map((each) => ({ key: each.grandpa, weight: 1n })) },
  session: validators,
  sessionLength: 5,
});
const setKeys = (keys: object) => make('Session', 'set_keys', { keys, proof: new Uint8Array() });
const engines = (world: World) =>
  world.logs().flatMap((item) => (item.type === 'Consensus' ? [toHex(concatBytes(item.value[0], item.value[1]))] : []));

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

  test.equal(world.dispatch(setKeys(keysOf(60)), ROOT).error, 'BadOrigin');
  test.equal(world.dispatch(setKeys(keysOf(60)), person(99)).error, 'Session.NoAccount');
  test.equal(world.dispatch(setKeys(keysOf(51)), ALICE).error, 'Session.DuplicatedKey', "another validator's");
  test.equal(
    world.dispatch(setKeys({ aura: person(60), grandpa: validators[1]!.grandpa }), ALICE).error,
    'Session.DuplicatedKey',
    'one of them is enough',
  );
  test.same(session.nextKeys(host, ALICE), keysOf(50), 'a failure changes nothing');
  test.equal(world.dispatch(make('Session', 'purge_keys'), CHARLIE).error, 'Session.NoKeys');

  // Alice's new keys are queued when session 2 begins and work in session 3.
  test.ok(world.dispatch(setKeys(keysOf(60)), ALICE).outcome.ok);
  test.equal(system.account(host, ALICE).consumers, 1);
  test.equal(session.keyOwner(host, 'aura', validators[0]!.aura), undefined, 'the old key is free');
  world.next(10);
  test.same(engines(world), []);
  test.same(aura.authorities(host), [person(50), person(51)]);
  world.next(14);
  test.equal(grandpa.currentSetId(host), 0n);
  world.next(15);
  test.same(aura.authorities(host), [person(60), person(51)]);
  test.equal(grandpa.currentSetId(host), 1n);
  const list = '3c'.repeat(32) + '33'.repeat(32);
  test.same(engines(world), [`0x${toHex(utf8('aura')).slice(2)}0108${list}`]);
  const header = world.next()!;
  const logs = header.digest.logs.flatMap((item) => (item.type === 'Consensus' ? [toHex(item.value[1])] : []));
  const voters = [160, 151].map((n) => `${n.toString(16).repeat(32)}0100000000000000`).join('');
  test.same(logs, [`0x0108${list}`, `0x0108${voters}00000000`], 'a change without delay, in the header of the block');
  test.same(
    grandpa.authorities(host).map(([key]) => key),
    [person(160), person(151)],
  );

  // Bob gives his keys up and is out two sessions later.
  test.ok(world.dispatch(make('Session', 'purge_keys'), BOB).outcome.ok);
  test.equal(system.account(host, BOB).consumers, 0);
  world.next(25);
  test.same(aura.authorities(host), [person(60)]);
  test.same(session.validators(host), [ALICE]);
  test.equal(grandpa.currentSetId(host), 2n);
  world.next(30);
  test.equal(grandpa.currentSetId(host), 2n);

  // The last one leaves too: blocks go on being made by those who made them last.
  test.ok(world.dispatch(make('Session', 'purge_keys'), ALICE).outcome.ok);
  world.next(45);
  test.same(aura.authorities(host), [person(60)]);

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

t.test('the author, found by its key', async (test) => {
  const world = await createWorld(genesis);
  test.teardown(world.close);
  const authors: (AccountId | undefined)[] = [];
  for (let i = 2; i <= 5; i++) {
    world.next();
    authors.push(authorship.author(world.host));
  }
  test.same(authors, [ALICE, BOB, ALICE, BOB], 'slots 1002 to 1005');
  world.finish();
  test.equal(authorship.author(world.host), undefined, 'between blocks there is none');

  const keyless = await createWorld(genesisOf({ aura: { authorities: [CHARLIE], slotDurationMs: 3_000 } }));
  test.teardown(keyless.close);
  test.same(authorship.author(keyless.host), CHARLIE, 'a key that nobody registered is its own account');
  test.same(session.validators(keyless.host), []);
  keyless.next(601);
  test.equal(session.currentIndex(keyless.host), 1);
  test.same(aura.authorities(keyless.host), [CHARLIE], 'a chain without session keys keeps its authorities');

  const implied = await createWorld(
    genesisOf({ aura: { authorities: [], slotDurationMs: 3_000 }, grandpa: { authorities: [] }, session: validators }),
  );
  test.teardown(implied.close);
  test.same(aura.authorities(implied.host), [person(50), person(51)], 'the first set is that of the session');
});
