/** Proxy: every call and every error, deposits to the unit, and what each kind of proxy may do. */
import t from 'tap';
import { ROOT } from '../../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import * as proxies from '../../../runtime/pallets/standard/proxy.ts';
import { encode } from '../../../runtime/primitives/scale/codec.ts';
import type { AccountId } from '../../../runtime/primitives/types.ts';
import {
  ALICE,
  BOB,
  CHARLIE,
  createWorld,
  DAVE,
  ENDOWMENT,
  make,
  OPEN,
  person,
  remark,
  to,
  transfer,
} from './world.ts';

const kind = (type: string) => ({ type });
const add = (delegate: AccountId, type = 'Any', delay = 0) =>
  make('Proxy', 'add_proxy', { delegate: to(delegate), proxyType: kind(type), delay });
const remove = (delegate: AccountId, type = 'Any', delay = 0) =>
  make('Proxy', 'remove_proxy', { delegate: to(delegate), proxyType: kind(type), delay });
const act = (real: AccountId, call: RuntimeCall, type?: string) =>
  make('Proxy', 'proxy', { real: to(real), forceProxyType: type && kind(type), call });
const batch = (calls: RuntimeCall[]) => make('Utility', 'batch', { calls });
const deposit = (count: number) =>
  count === 0 ? 0n : proxies.PROXY_DEPOSIT_BASE + proxies.PROXY_DEPOSIT_FACTOR * BigInt(count);
const FILTERED = { ok: false, error: { type: 'Module', value: { index: 0, error: new Uint8Array([5, 0, 0, 0]) } } };

t.test('proxies and what they may do', async (test) => {
  const world = await createWorld();
  test.teardown(world.close);
  const refused = (call: RuntimeCall, by: AccountId, error: string) => {
    const before = world.root();
    test.equal(world.dispatch(call, by).error, `Proxy.${error}`);
    test.equal(world.root(), before, `${error} leaves no trace`);
  };
  const result = (call: RuntimeCall, by: AccountId) => {
    const { events, error } = world.dispatch(call, by);
    if (error !== undefined) throw new Error(error);
    const executed = events.at(-1)!;
    test.equal(executed.name, 'Proxy.ProxyExecuted');
    return executed.value.result;
  };

  test.equal(world.dispatch(add(BOB), ROOT).error, 'BadOrigin');
  refused(add(ALICE), ALICE, 'NoSelfProxy');
  refused(remove(BOB), ALICE, 'NotFound');
  test.match(world.dispatch(add(BOB), ALICE).events.at(-1), {
    name: 'Proxy.ProxyAdded',
    value: { delegator: ALICE, delegatee: BOB, proxyType: kind('Any'), delay: 0 },
  });
  refused(add(BOB), ALICE, 'Duplicate');
  test.ok(world.dispatch(add(CHARLIE, 'NonTransfer'), ALICE).outcome.ok);
  test.equal(world.reserved(ALICE), deposit(2));

  const dave = world.free(DAVE);
  test.same(result(act(ALICE, transfer(DAVE, OPEN)), BOB), { ok: true, value: undefined });
  test.equal(world.free(DAVE), dave + OPEN);
  test.equal(world.free(ALICE), ENDOWMENT - OPEN - deposit(2), 'the account acted for pays');
  refused(act(ALICE, remark()), DAVE, 'NotProxy');
  refused(act(ALICE, remark(), 'Staking'), BOB, 'NotProxy');
  test.same(result(act(ALICE, transfer(DAVE, 10n ** 30n)), BOB).error.type, 'Token');

  // A proxy that may not transfer may not do so inside of anything either.
  test.ok(result(act(ALICE, remark()), CHARLIE).ok);
  test.same(result(act(ALICE, transfer(DAVE, OPEN)), CHARLIE), FILTERED);
  const inBatch = world.dispatch(act(ALICE, batch([remark(), transfer(DAVE, OPEN)])), CHARLIE);
  test.match(inBatch.events.find(({ name }) => name === 'Utility.BatchInterrupted')?.value, {
    index: 1,
    error: FILTERED.error,
  });
  const derived = make('Utility', 'as_derivative', { index: 0, call: transfer(DAVE, OPEN) });
  test.same(result(act(ALICE, derived), CHARLIE), FILTERED);
  test.same(result(act(ALICE, act(ALICE, transfer(DAVE, OPEN))), CHARLIE), FILTERED, 'nor act for a third account');
  test.equal(world.free(DAVE), dave + OPEN);
  // Nor give itself or others more rights than it has, nor take those away that it is less than.
  test.same(result(act(ALICE, add(DAVE)), CHARLIE), FILTERED);
  test.same(result(act(ALICE, remove(BOB)), CHARLIE), FILTERED);
  test.same(result(act(ALICE, make('Proxy', 'remove_proxies')), CHARLIE), FILTERED);
  for (const more of ['Staking', 'Governance', 'Datanets', 'Compute']) {
    test.same(result(act(ALICE, add(DAVE, more)), CHARLIE), FILTERED, `${more} reaches what NonTransfer does not`);
  }
  test.ok(result(act(ALICE, add(DAVE, 'CancelProxy')), CHARLIE).ok);
  test.equal(world.reserved(ALICE), deposit(3));
  world.dispatch(remove(DAVE, 'CancelProxy'), ALICE);
  world.dispatch(add(DAVE, 'Staking'), ALICE);
  const purged = result(act(ALICE, make('Session', 'purge_keys'), 'Staking'), DAVE);
  test.notSame(purged, FILTERED, 'a proxy for staking reaches the session keys');
  test.same(result(act(ALICE, remark(), 'Staking'), DAVE), FILTERED);
  for (const type of ['Governance', 'Datanets', 'Compute', 'CancelProxy']) {
    world.dispatch(add(DAVE, type), ALICE);
    test.same(result(act(ALICE, transfer(DAVE, OPEN), type), DAVE), FILTERED, `${type} moves nothing`);
    test.ok(result(act(ALICE, batch([]), type), DAVE).ok);
    world.dispatch(remove(DAVE, type), ALICE);
  }

  const full = await createWorld();
  test.teardown(full.close);
  for (let i = 0; i < proxies.MAX_PROXIES; i++) full.dispatch(add(person(100 + i)), ALICE);
  test.equal(full.reserved(ALICE), deposit(proxies.MAX_PROXIES));
  test.equal(full.dispatch(add(BOB), ALICE).error, 'Proxy.TooMany');
  full.dispatch(remove(person(100)), ALICE);
  test.equal(full.reserved(ALICE), deposit(proxies.MAX_PROXIES - 1));

  test.match(world.dispatch(remove(BOB), ALICE).events.at(-1)?.name, 'Proxy.ProxyRemoved');
  refused(act(ALICE, remark()), BOB, 'NotProxy');
  test.ok(world.dispatch(make('Proxy', 'remove_proxies'), ALICE).outcome.ok);
  test.equal(world.reserved(ALICE), 0n);
  test.equal(world.free(ALICE), ENDOWMENT - OPEN);
  const poor = person(99);
  test.equal(world.dispatch(add(BOB), poor).error, 'Balances.InsufficientBalance');
  test.ok(world.balanced() && full.balanced());
});

t.test('pure accounts', async (test) => {
  const world = await createWorld();
  test.teardown(world.close);
  const create = make('Proxy', 'create_pure', { proxyType: kind('Any'), delay: 0, index: 3 });
  const created = world.dispatch(create, ALICE).events.at(-1)!;
  test.match(created, { name: 'Proxy.PureCreated', value: { who: ALICE, disambiguationIndex: 3 } });
  const { pure } = created.value;
  // modlpy/proxy____ ++ who ++ height ++ extrinsic index ++ kind ++ index, as every wallet that knows pallet_proxy has it.
  const entropy = Buffer.concat([
    Buffer.from('modlpy/proxy____'),
    ALICE,
    Buffer.from([1, 0, 0, 0]),
    Buffer.from([1, 0, 0, 0]),
    Buffer.from([0]),
    Buffer.from([3, 0]),
  ]);
  test.same(pure, world.hashing.blake2_256(entropy));
  test.equal(world.reserved(ALICE), deposit(1));
  test.equal(world.dispatch(create, ALICE).error, 'Proxy.Duplicate');

  world.dispatch(transfer(pure, 5n * OPEN), BOB);
  const charlie = world.free(CHARLIE);
  test.ok(world.dispatch(act(pure, transfer(CHARLIE, 2n * OPEN)), ALICE).outcome.ok);
  test.equal(world.free(CHARLIE), charlie + 2n * OPEN);
  const kill = (spawner: AccountId, index = 3) =>
    make('Proxy', 'kill_pure', { spawner: to(spawner), proxyType: kind('Any'), index, height: 1, extIndex: 1 });
  test.equal(world.dispatch(kill(ALICE), ALICE).error, 'Proxy.NoPermission');
  test.match(world.dispatch(act(pure, kill(ALICE, 4)), ALICE).events.at(-1)?.value.result, { ok: false });
  test.match(world.dispatch(act(pure, kill(ALICE)), ALICE).events.at(-1)?.value.result, { ok: true });
  test.equal(world.reserved(ALICE), 0n);
  test.equal(world.free(ALICE), ENDOWMENT);
  test.equal(world.dispatch(act(pure, remark()), ALICE).error, 'Proxy.NotProxy');
  test.ok(world.balanced());

  // Each leaves and gets its own: the spawner for the first proxy, the pure account for more of them.
  const operation = make('Multisig', 'approve_as_multi', {
    threshold: 2,
    otherSignatories: [BOB],
    maybeTimepoint: undefined,
    callHash: new Uint8Array(32),
    maxWeight: { refTime: 0n, proofSize: 0n },
  });
  test.ok(world.dispatch(operation, ALICE).outcome.ok);
  const elsewhere = world.reserved(ALICE);
  const spawned = (index: number): AccountId =>
    world.dispatch(make('Proxy', 'create_pure', { proxyType: kind('Any'), delay: 0, index }), ALICE).events.at(-1)!
      .value.pure;
  const [killed, emptied, shrunk] = [spawned(10), spawned(11), spawned(12)] as [AccountId, AccountId, AccountId];
  test.equal(world.reserved(ALICE), elsewhere + 3n * deposit(1));
  for (const each of [killed, emptied, shrunk]) {
    world.dispatch(transfer(each, 2n * OPEN), BOB);
    for (let i = 0; i < 20; i++) test.ok(world.dispatch(add(person(100 + i)), each).outcome.ok);
    test.equal(world.reserved(each), deposit(21) - deposit(1));
  }
  test.match(world.dispatch(act(killed, kill(ALICE, 10)), ALICE).events.at(-1)?.value.result, { ok: true });
  test.equal(world.reserved(ALICE), elsewhere + 2n * deposit(1), 'only what was left for it');
  test.same([world.reserved(killed), world.free(killed)], [0n, 2n * OPEN]);
  test.ok(world.dispatch(make('Proxy', 'remove_proxies'), emptied).outcome.ok);
  test.equal(world.reserved(ALICE), elsewhere + deposit(1), 'nobody reaches the account any more: the deposit is back');
  test.equal(world.reserved(emptied), 0n);
  for (let i = 0; i < 20; i++) test.ok(world.dispatch(remove(person(100 + i)), shrunk).outcome.ok);
  test.equal(world.reserved(shrunk), 0n);
  test.ok(world.dispatch(make('Proxy', 'poke_deposit'), shrunk).outcome.ok);
  test.equal(world.reserved(ALICE), elsewhere + deposit(1));
  test.ok(world.dispatch(remove(ALICE), shrunk).outcome.ok);
  test.equal(world.reserved(ALICE), elsewhere, 'a deposit for something else is untouched');
  test.equal([...proxies.store.PureDeposits.entries(world.host)].length, 0);
  test.ok(world.balanced());
});

t.test('announced calls', async (test) => {
  const world = await createWorld();
  test.teardown(world.close);
  const inner = transfer(DAVE, OPEN);
  const callHash = world.hashing.blake2_256(encode(world.assembly.call, inner));
  const announce = make('Proxy', 'announce', { real: to(ALICE), callHash });
  const announced = (call: RuntimeCall) =>
    make('Proxy', 'proxy_announced', { delegate: to(BOB), real: to(ALICE), forceProxyType: undefined, call });
  const bond = (count: bigint) =>
    count === 0n ? 0n : proxies.ANNOUNCEMENT_DEPOSIT_BASE + proxies.ANNOUNCEMENT_DEPOSIT_FACTOR * count;

  test.equal(world.dispatch(announce, BOB).error, 'Proxy.NotProxy');
  world.dispatch(add(BOB, 'Any', 3), ALICE);
  test.equal(world.dispatch(act(ALICE, inner), BOB).error, 'Proxy.Unannounced', 'its delay binds it');
  test.match(world.dispatch(announce, BOB).events.at(-1), {
    name: 'Proxy.Announced',
    value: { real: ALICE, proxy: BOB },
  });
  test.equal(world.reserved(BOB), bond(1n));
  test.equal(world.dispatch(announced(inner), CHARLIE).error, 'Proxy.Unannounced', 'too early');
  test.equal(world.dispatch(announced(inner), ROOT).error, 'BadOrigin');
  world.next(3);
  test.equal(world.dispatch(announced(inner), CHARLIE).error, 'Proxy.Unannounced', 'still');
  world.next(4);
  test.equal(world.dispatch(announced(remark()), CHARLIE).error, 'Proxy.Unannounced', 'another call');
  const dave = world.free(DAVE);
  test.match(world.dispatch(announced(inner), CHARLIE).events.at(-1)?.value.result, { ok: true });
  test.equal(world.free(DAVE), dave + OPEN, 'anybody may carry out what was announced');
  test.equal(world.reserved(BOB), 0n);
  test.equal(world.dispatch(announced(inner), CHARLIE).error, 'Proxy.Unannounced', 'once');

  world.dispatch(announce, BOB);
  world.dispatch(make('Proxy', 'announce', { real: to(ALICE), callHash: new Uint8Array(32) }), BOB);
  test.equal(world.reserved(BOB), bond(2n));
  const removal = make('Proxy', 'remove_announcement', { real: to(ALICE), callHash });
  test.equal(world.dispatch(removal, CHARLIE).error, 'Proxy.NotFound');
  test.ok(world.dispatch(removal, BOB).outcome.ok);
  test.equal(world.reserved(BOB), bond(1n));
  const rejection = make('Proxy', 'reject_announcement', { delegate: to(BOB), callHash: new Uint8Array(32) });
  test.equal(world.dispatch(rejection, CHARLIE).error, 'Proxy.NotFound');
  test.ok(world.dispatch(rejection, ALICE).outcome.ok);
  test.equal(world.reserved(BOB), 0n);
  for (let i = 0; i < proxies.MAX_PENDING; i++) world.dispatch(announce, BOB);
  test.equal(world.dispatch(announce, BOB).error, 'Proxy.TooMany');
  test.equal(world.reserved(BOB), bond(BigInt(proxies.MAX_PENDING)));
  test.ok(world.dispatch(removal, BOB).outcome.ok);
  test.equal(world.reserved(BOB), 0n, 'one removal takes all that are alike');
  test.ok(world.balanced());
});
