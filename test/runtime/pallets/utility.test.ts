/** Utility, Sudo, Authorship: nested calls, who may make them, what is left when they fail. */
import { createKeyDerived } from '@polkadot/util-crypto';
import t from 'tap';
import { NONE, ROOT } from '../../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import { derivativeAccount } from '../../../runtime/pallets/standard/utility.ts';
import { decode, encode } from '../../../runtime/primitives/scale/codec.ts';
import { ALICE, BOB, CHARLIE, createWorld, EVE, genesisOf, make, OPEN, remark, to, transfer } from './world.ts';

const batch = (calls: RuntimeCall[]) => make('Utility', 'batch', { calls });
const batchAll = (calls: RuntimeCall[]) => make('Utility', 'batch_all', { calls });
const forceBatch = (calls: RuntimeCall[]) => make('Utility', 'force_batch', { calls });
const names = (events: readonly { name: string }[]) => events.map(({ name }) => name);
const TOO_MUCH = 10_000_000n * OPEN;

t.test('batches', async (test) => {
  const world = await createWorld();
  test.teardown(world.close);
  const start = world.free(BOB);

  const done = world.dispatch(batch([transfer(BOB, OPEN), transfer(BOB, OPEN)]), ALICE);
  test.same(names(done.events), [
    'Balances.Transfer',
    'Utility.ItemCompleted',
    'Balances.Transfer',
    'Utility.ItemCompleted',
    'Utility.BatchCompleted',
  ]);
  test.equal(world.free(BOB), start + 2n * OPEN);

  const cut = world.dispatch(batch([transfer(BOB, OPEN), transfer(BOB, TOO_MUCH), transfer(BOB, OPEN)]), ALICE);
  test.ok(cut.outcome.ok, 'an interrupted batch is a success');
  test.equal(world.free(BOB), start + 3n * OPEN, 'what was before the failure stands, what is after it never runs');
  test.match(cut.events.at(-1), {
    name: 'Utility.BatchInterrupted',
    value: { index: 1, error: { type: 'Token', value: { type: 'FundsUnavailable' } } },
  });
  const announced = world.assembly.infoOf(batch([transfer(BOB, OPEN), transfer(BOB, TOO_MUCH), transfer(BOB, OPEN)]));
  test.ok(cut.outcome.post.actualWeight!.refTime < announced.weight.refTime, 'the item that never ran is not paid for');

  const before = world.root();
  const all = world.dispatch(batchAll([transfer(BOB, OPEN), transfer(BOB, TOO_MUCH)]), ALICE);
  test.equal(all.error, 'Token.FundsUnavailable');
  test.same(all.events, []);
  test.equal(world.root(), before, 'a failed batch_all leaves no trace');
  test.ok(all.outcome.post.actualWeight !== undefined);
  test.ok(world.dispatch(batchAll([transfer(BOB, OPEN)]), ALICE).outcome.ok);
  test.equal(
    world.dispatch(batchAll([batchAll([])]), ALICE).error,
    'System.CallFiltered',
    'batch_all does not nest in itself',
  );
  test.equal(world.dispatch(batchAll([batch([batchAll([])])]), ALICE).events[0]?.name, 'Utility.BatchInterrupted');
  test.ok(world.dispatch(batchAll([batchAll([])]), ROOT).outcome.ok, 'root passes the filter');

  const forced = world.dispatch(forceBatch([transfer(BOB, TOO_MUCH), transfer(BOB, OPEN)]), ALICE);
  test.same(names(forced.events), [
    'Utility.ItemFailed',
    'Balances.Transfer',
    'Utility.ItemCompleted',
    'Utility.BatchCompletedWithErrors',
  ]);
  test.equal(world.free(BOB), start + 5n * OPEN);
  test.same(names(world.dispatch(forceBatch([]), ALICE).events), ['Utility.BatchCompleted']);

  for (const each of [batch, batchAll, forceBatch]) {
    test.equal(world.dispatch(each([remark()]), NONE).error, 'BadOrigin');
    test.equal(world.dispatch(each(Array(10_923).fill(remark())), ALICE).error, 'Utility.TooManyCalls');
    const sum = world.assembly.infoOf(each([transfer(BOB, 1n), transfer(BOB, 1n)])).weight.refTime;
    test.ok(sum > 2n * world.assembly.infoOf(transfer(BOB, 1n)).weight.refTime, 'the weights of the items add up');
  }
  const operational = make('System', 'set_storage', { items: [] });
  test.equal(world.assembly.infoOf(batch([operational])).class, 'Operational');
  test.equal(world.assembly.infoOf(batch([operational, remark()])).class, 'Normal');
  test.equal(world.assembly.infoOf(batch([])).class, 'Normal');
  test.ok(world.balanced());
});

t.test('derived accounts, other origins, given weights', async (test) => {
  const world = await createWorld(genesisOf({ sudo: ALICE }));
  test.teardown(world.close);
  for (const [who, index] of [
    [ALICE, 0],
    [BOB, 1],
    [EVE, 65_535],
  ] as const) {
    test.same(derivativeAccount(world.host, who, index), createKeyDerived(who, index), 'as @polkadot/util-crypto');
  }
  const derived = derivativeAccount(world.host, ALICE, 7);
  world.dispatch(transfer(derived, 5n * OPEN), ALICE);
  const bob = world.free(BOB);
  const as = (call: RuntimeCall) => make('Utility', 'as_derivative', { index: 7, call });
  test.ok(world.dispatch(as(transfer(BOB, 2n * OPEN)), ALICE).outcome.ok);
  test.equal(world.free(derived), 3n * OPEN);
  test.equal(world.free(BOB), bob + 2n * OPEN);
  test.equal(world.dispatch(as(transfer(BOB, 4n * OPEN)), ALICE).error, 'Token.FundsUnavailable');
  test.equal(world.dispatch(as(remark()), ROOT).error, 'BadOrigin');
  const filtered = world.dispatch(batchAll([as(batchAll([]))]), ALICE);
  test.equal(filtered.error, 'System.CallFiltered', 'a derived account keeps the filters of its maker');

  const dispatchAs = (asOrigin: unknown, call: RuntimeCall) =>
    make('Utility', 'dispatch_as', { asOrigin: { type: 'system', value: asOrigin }, call });
  const asBob = { type: 'Signed', value: BOB };
  test.match(world.dispatch(dispatchAs(asBob, transfer(CHARLIE, OPEN)), ROOT).events.at(-1), {
    name: 'Utility.DispatchedAs',
    value: { result: { ok: true } },
  });
  test.equal(world.free(BOB), bob + OPEN);
  test.match(world.dispatch(dispatchAs({ type: 'None' }, remark()), ROOT).events, [
    { value: { result: { ok: false, error: { type: 'BadOrigin' } } } },
  ]);
  test.ok(world.dispatch(dispatchAs({ type: 'Root' }, make('System', 'set_storage', { items: [] })), ROOT).outcome.ok);
  test.equal(world.dispatch(dispatchAs(asBob, remark()), BOB).error, 'BadOrigin');

  const weight = { refTime: 123n, proofSize: 4n };
  const weighed = (call: RuntimeCall) => make('Utility', 'with_weight', { call, weight });
  test.same(world.assembly.infoOf(weighed(remark())).weight, weight);
  test.equal(world.dispatch(weighed(remark()), ALICE).error, 'BadOrigin');
  test.ok(world.dispatch(weighed(make('System', 'set_storage', { items: [] })), ROOT).outcome.ok);
  test.equal(world.dispatch(weighed(transfer(BOB, 1n)), ROOT).error, 'BadOrigin');
  const heavy = { refTime: (1n << 64n) - 1n, proofSize: 1n };
  const sum = batch([1, 2].map(() => make('Utility', 'with_weight', { call: remark(), weight: heavy })));
  test.equal(world.assembly.infoOf(sum).weight.refTime, heavy.refTime, 'weights saturate');
  test.ok(world.balanced());
});

t.test('calls nest 32 levels deep and no deeper, and an extrinsic holds 4,096 of them', async (test) => {
  const world = await createWorld();
  test.teardown(world.close);
  const nest = (depth: number): RuntimeCall => {
    let call = remark();
    for (let i = 0; i < depth; i++) call = batch([call]);
    return call;
  };
  const bytes = (depth: number) => {
    // Encoding by hand: the encoder has no limit, but the decoder must have one.
    const prefix = Buffer.from([40, 0, 4]);
    return Buffer.concat([...Array(depth).fill(prefix), encode(world.assembly.call, remark())]);
  };
  test.same(encode(world.assembly.call, nest(3)), new Uint8Array(bytes(3)));
  test.ok(decode(world.assembly.call, bytes(32)));
  test.throws(() => decode(world.assembly.call, bytes(33)), { code: 'TOO_DEEP' });
  test.throws(() => decode(world.assembly.call, bytes(200_000)), { code: 'TOO_DEEP' });

  // On all levels together: 64 batches of 63 calls, and one more.
  const wide = (last: number) =>
    batch([
      ...Array.from({ length: 63 }, () => batch(Array.from({ length: 64 }, () => remark()))),
      batch(Array(last).fill(remark())),
    ]);
  test.ok(decode(world.assembly.call, encode(world.assembly.call, wide(0))));
  test.throws(() => decode(world.assembly.call, encode(world.assembly.call, wide(1))), { code: 'TOO_LONG' });

  const deep = world.dispatch(nest(39), ALICE);
  test.equal(names(deep.events).filter((name) => name === 'Utility.BatchCompleted').length, 39);
  const tooDeep = world.dispatch(nest(40), ALICE);
  test.match(tooDeep.events[0], {
    name: 'Utility.BatchInterrupted',
    value: { error: { type: 'Transactional', value: { type: 'LimitReached' } } },
  });
});

t.test('sudo', async (test) => {
  const world = await createWorld(genesisOf({ sudo: ALICE }));
  test.teardown(world.close);
  const setStorage = make('System', 'set_storage', { items: [[new Uint8Array([1, 2]), new Uint8Array([3])]] });
  const sudo = (call: RuntimeCall) => make('Sudo', 'sudo', { call });

  const done = world.dispatch(sudo(setStorage), ALICE);
  test.match(done.outcome.post, { paysFee: false }, 'the key pays nothing');
  test.match(done.events, [{ name: 'Sudo.Sudid', value: { sudoResult: { ok: true } } }]);
  test.same(world.host.get(new Uint8Array([1, 2])), new Uint8Array([3]));
  test.equal(world.assembly.infoOf(sudo(setStorage)).class, 'Operational');
  test.equal(world.dispatch(sudo(setStorage), BOB).error, 'Sudo.RequireSudo');
  test.equal(world.dispatch(sudo(setStorage), NONE).error, 'BadOrigin');
  test.ok(world.dispatch(sudo(setStorage), ROOT).outcome.ok);
  test.match(world.dispatch(sudo(transfer(BOB, OPEN)), ALICE).events, [
    { value: { sudoResult: { ok: false, error: { type: 'BadOrigin' } } } },
  ]);

  const weight = { refTime: 5n, proofSize: 0n };
  const unchecked = make('Sudo', 'sudo_unchecked_weight', { call: setStorage, weight });
  test.same(world.assembly.infoOf(unchecked).weight, weight);
  test.ok(world.dispatch(unchecked, ALICE).outcome.ok);
  test.equal(world.dispatch(unchecked, BOB).error, 'Sudo.RequireSudo');

  const before = world.free(BOB);
  const sudoAs = make('Sudo', 'sudo_as', { who: to(BOB), call: transfer(CHARLIE, OPEN) });
  test.match(world.dispatch(sudoAs, ALICE).events.at(-1), {
    name: 'Sudo.SudoAsDone',
    value: { sudoResult: { ok: true } },
  });
  test.equal(world.free(BOB), before - OPEN);
  test.equal(world.dispatch(sudoAs, BOB).error, 'Sudo.RequireSudo');
  const unknown = make('Sudo', 'set_key', { new: { type: 'Address32', value: BOB } });
  test.equal(world.dispatch(unknown, ALICE).error, 'CannotLookup');

  test.equal(world.dispatch(make('Sudo', 'set_key', { new: to(BOB) }), BOB).error, 'Sudo.RequireSudo');
  test.match(world.dispatch(make('Sudo', 'set_key', { new: to(BOB) }), ALICE).events, [
    { name: 'Sudo.KeyChanged', value: { old: ALICE, new: BOB } },
  ]);
  test.equal(world.dispatch(sudo(setStorage), ALICE).error, 'Sudo.RequireSudo');
  test.ok(world.dispatch(sudo(setStorage), BOB).outcome.ok);
  test.equal(world.dispatch(make('Sudo', 'remove_key'), ALICE).error, 'Sudo.RequireSudo');
  test.same(names(world.dispatch(make('Sudo', 'remove_key'), BOB).events), ['Sudo.KeyRemoved']);
  test.equal(world.dispatch(sudo(setStorage), BOB).error, 'Sudo.RequireSudo');

  const without = await createWorld();
  test.teardown(without.close);
  test.equal(without.dispatch(sudo(setStorage), ALICE).error, 'Sudo.RequireSudo', 'no key in the genesis: disabled');
  test.ok(world.balanced());
});
