/** Models: orders at the price that was signed, names that are one adapter's, and everything that leaves the state again. */
import t from 'tap';
import * as blobs from '../../../runtime/pallets/ledger/blobs.ts';
import * as compute from '../../../runtime/pallets/ledger/compute.ts';
import * as datanets from '../../../runtime/pallets/ledger/datanets.ts';
import * as models from '../../../runtime/pallets/ledger/models.ts';
import type { AdapterId, BaseModelId, DatanetId, OrderId } from '../../../runtime/primitives/attribution/ids.ts';
import { adapterId } from '../../../runtime/primitives/attribution/ids.ts';
import { adapterName, isAdapterName, skeletonOf } from '../../../runtime/primitives/attribution/names.ts';
import { TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import { decode, encode, option } from '../../../runtime/primitives/scale/codec.ts';
import { someHash } from '../attribution/world.ts';
import { make, OPEN } from '../pallets/world.ts';
import { account, ledger, owner, PRICE, payer, SIZES, second, third, WINDOWS, worker } from './world.ts';

const SHORT = {
  ...WINDOWS,
  models: { nameGrace: 50, priceNotice: 10, priceGrace: 20, retiredPeriod: 30, closedPeriod: 15 },
};
const world = () => ledger({ others: SHORT as never });
type Of = Awaited<ReturnType<typeof world>>;
const orderAt = (of: Of, id: number) => models.store.Orders.get(of.host, id as OrderId);
const adapterAt = (of: Of, id: number) => models.store.Adapters.get(of.host, id as AdapterId);
const named = (of: Of, name: string) => models.adapterNamed(of.host, name);

/** Order, training, window: the adapter is live. */
function live(of: Of, id: number, by = owner, change: object = {}) {
  of.place(by, change);
  of.does(worker, 'Compute', 'take_lease', { order: id });
  const receipt = of.receiptFor(id as OrderId, compute.leaseOf(of.host, id as OrderId, worker));
  of.does(worker, 'Attribution', 'submit_training', { receipt: of.signed('Worker', receipt), sizes: SIZES });
  of.attest();
  of.wait(8);
}

t.test('nobody pays more for access than was signed for', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const terms = (accessPrice: bigint) => ({ id: 0, stake: 0n, accessPrice, admission: { type: 'Open' } });
  const had = of.free(payer);
  of.does(owner, 'Datanets', 'set_terms', terms(9_000n * OPEN));
  test.equal(of.fails(payer, 'Models', 'order_training', of.order()), 'Models.AccessTooDear');
  test.equal(of.free(payer), had);
  of.does(owner, 'Datanets', 'set_terms', terms(OPEN / 2n));
  const [earned] = [of.free(owner)];
  of.does(payer, 'Models', 'order_training', of.order());
  test.equal(of.free(owner) - earned, OPEN / 2n, 'less than signed for, where the chain asks less');
  test.equal(of.fails(payer, 'Models', 'order_training', of.order({ terms: someHash('x') })), 'Models.OtherTerms');
  test.equal(of.fails(payer, 'Models', 'order_training', of.order({ budget: OPEN - 1n })), 'Models.BudgetTooSmall');
  test.ok(of.balanced());
});

t.test('seeds are drawn when the order is paid for, and drawing again is not free', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const { does, fails } = of;
  does(payer, 'Models', 'order_training', of.order());
  const ordered = orderAt(of, 0)!;
  test.same([ordered.status.type, ordered.sketchSeed, ordered.rotationSeed], ['Drawing', 0n, 0n]);
  test.equal(fails(worker, 'Compute', 'take_lease', { order: 0 }), 'Compute.UnknownTask', 'nobody works on it yet');
  const treasury = of.free(TREASURY);
  does(payer, 'Models', 'cancel_order', { order: 0 });
  test.equal(of.free(TREASURY), treasury, 'nothing is known yet: to cancel costs nothing but the access price');
  does(payer, 'Models', 'order_training', of.order());
  of.wait(2);
  const drawn = orderAt(of, 1)!;
  test.equal(drawn.status.type, 'Active');
  test.ok(drawn.sketchSeed !== 0n && drawn.rotationSeed !== 0n && drawn.sketchSeed !== drawn.rotationSeed);
  test.equal(orderAt(of, 0)?.status.type, 'Cancelled');
  const free = of.free(payer);
  const held = drawn.budget + drawn.storage;
  does(payer, 'Models', 'cancel_order', { order: 1 });
  test.equal(of.free(payer) - free, held - OPEN);
  test.equal(of.free(TREASURY) - treasury, OPEN, 'the fee for what is known by now');
  test.equal(fails(payer, 'Models', 'cancel_order', { order: 1 }), 'Models.NotActive');
  of.wait(16);
  test.same([orderAt(of, 0), orderAt(of, 1)], [undefined, undefined], 'they are history');
  does(payer, 'Models', 'release_name', { name: ordered.name });
  does(payer, 'Models', 'release_name', { name: drawn.name });
  test.equal(of.reserved(payer), 0n, 'and nothing of them is on hold');
  test.equal(datanets.snapshotOf(of.host, 0 as DatanetId, 0)?.users, 0);
  test.ok(of.balanced());
});

t.test('what is a name', (test) => {
  for (const name of ['kitchen', 'a', 'legal-de.v2', 'llama_3-1', 'k'.repeat(48)]) test.ok(isAdapterName(name), name);
  for (const name of [
    '',
    'Kitchen',
    '7',
    '7b',
    'adapter:7',
    'a b',
    'a/b',
    '-a',
    'a-',
    'a--b',
    'a..b',
    'a\u0000',
    'a\n',
    'kіtchen',
    'kitchen\u200b',
    'k'.repeat(49),
  ])
    test.notOk(isAdapterName(name), JSON.stringify(name));
  test.equal(skeletonOf('mode1-0.x_y'), skeletonOf('model-o-x-y'));
  test.end();
});

t.test('a name is one adapter’s', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const { does, fails } = of;
  const order = (by: typeof owner, name: string) =>
    fails(by, 'Models', 'order_training', of.order({ name, maxAccessPrice: 10n * OPEN }));
  test.equal(order(payer, 'adapter:0'), 'Models.BadName');
  live(of, 0, owner, { name: 'kitchen-1' });
  test.equal(named(of, 'kitchen-1'), 0);
  const api = of.runtime.call(of.host, 'ModelsApi_adapter_named', encode(adapterName, 'kitchen-1'));
  test.equal(decode(option(adapterId), api), 0);
  for (const alike of ['kitchen-1', 'kitchen-l', 'kitchen.1', 'kitchen_1']) {
    test.equal(order(payer, alike), 'Models.NameTaken', alike);
    if (alike !== 'kitchen-1') test.equal(named(of, alike), undefined, 'a look-alike is no name for it');
  }
  test.equal(order(owner, 'kitchen-1'), 'Models.NameTaken', 'not even its owner has it twice');

  // A new version takes the name of the old one.
  live(of, 1, owner, { name: 'kitchen-2' });
  test.equal(fails(payer, 'Models', 'swap_names', { one: 0, other: 1 }), 'Models.NotOwner');
  does(owner, 'Models', 'swap_names', { one: 0, other: 1 });
  test.same([named(of, 'kitchen-1'), named(of, 'kitchen-2')], [1, 0]);
  test.same([adapterAt(of, 0)?.name, adapterAt(of, 1)?.name], ['kitchen-2', 'kitchen-1']);

  // Another account has it, if it wants, with all deposits.
  const held = [owner, payer].map(of.reserved);
  does(owner, 'Models', 'offer_adapter', { adapter: 1, to: payer });
  test.equal(fails(third, 'Models', 'accept_adapter', { adapter: 1 }), 'Models.NotOffered');
  does(payer, 'Models', 'accept_adapter', { adapter: 1 });
  test.equal(named(of, 'kitchen-1'), 1);
  test.equal(held[0]! - of.reserved(owner), of.reserved(payer) - held[1]!, 'the deposits changed hands');

  // Retired: for a while it is nobody else's.
  test.equal(fails(owner, 'Models', 'retire_adapter', { adapter: 1 }), 'Models.NotOwner');
  does(payer, 'Models', 'retire_adapter', { adapter: 1 });
  test.equal(named(of, 'kitchen-1'), undefined);
  test.equal(order(second, 'kitchen-l'), 'Models.NameTaken');
  of.wait(50);
  const deposit = of.reserved(payer);
  test.equal(order(second, 'kitchen-l'), undefined, 'free after a while');
  test.equal(deposit - of.reserved(payer), OPEN, 'and its deposit went back');
  test.equal(order(payer, 'kitchen-1'), 'Models.NameTaken');
  test.ok(of.balanced());
});

t.test('prices are announced, and answers at the one before are settled for a while', async (test) => {
  const of = await world();
  test.teardown(of.close);
  live(of, 0);
  const id = 0 as AdapterId;
  const dear = { input: 1_000n * OPEN, output: 1_000n * OPEN };
  of.does(owner, 'Models', 'set_price', { adapter: 0, price: dear });
  test.same(models.pricesOf(of.host, id), [PRICE]);
  test.equal(of.fails(owner, 'Models', 'set_price', { adapter: 0, price: PRICE }), 'Models.PriceAnnounced');
  of.wait(9);
  test.same(models.pricesOf(of.host, id), [PRICE]);
  of.wait(1);
  test.same(models.pricesOf(of.host, id), [dear, PRICE]);
  test.equal(of.fails(owner, 'Models', 'set_price', { adapter: 0, price: PRICE }), 'Models.PriceAnnounced');
  of.wait(20);
  test.same(models.pricesOf(of.host, id), [dear]);
  of.does(owner, 'Models', 'set_price', { adapter: 0, price: PRICE });
});

t.test('an adapter leaves the state with its order, its receipt, its files and its deposits', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const { does, fails } = of;
  const before = of.reserved(payer);
  const sizes = Object.values(SIZES)
    .flat()
    .reduce((sum, each) => sum + each, 0n);
  of.place(payer, { storage: sizes * 10n ** 10n });
  does(worker, 'Compute', 'take_lease', { order: 0 });
  const receipt = of.receiptFor(0 as OrderId, compute.leaseOf(of.host, 0 as OrderId, worker));
  const submit = { receipt: of.signed('Worker', receipt), sizes: SIZES };
  const state = of.root();
  test.equal(
    fails(worker, 'Attribution', 'submit_training', submit),
    'Models.TooLarge',
    'more than the order pays for',
  );
  test.equal(of.root(), state);
  does(worker, 'Compute', 'give_up_lease', { order: 0 });
  does(payer, 'Models', 'cancel_order', { order: 0 });

  live(of, 1, payer);
  const [claim] = [adapterAt(of, 1) ?? adapterAt(of, 0)].map((each) => each!.artifacts);
  const id = models.store.NextAdapter.get(of.host) - 1;
  test.equal(adapterAt(of, id)?.status.type, 'Live');
  test.equal(orderAt(of, 1)?.storage, 0n, 'what the files did not need is back');
  test.equal(blobs.claimOf(of.host, claim!)?.depositor.join(), payer.join(), 'its owner keeps its files');
  test.equal(models.baseModelOf(of.host, 0 as BaseModelId).users, 1);
  test.equal(fails(owner, 'Models', 'withdraw_base_model', { baseModel: 0 }), 'Models.InUse');
  test.equal(fails(owner, 'Datanets', 'drop_snapshot', { id: 0, version: 0 }), 'Datanets.InUse');
  const name = adapterAt(of, id)!.name;
  does(payer, 'Models', 'retire_adapter', { adapter: id });
  models.useAdapter(of.host, id as AdapterId, 1);
  of.wait(31);
  test.equal(adapterAt(of, id)?.status.type, 'Retired', 'receipts of it are in their window');
  models.useAdapter(of.host, id as AdapterId, -1);
  of.wait(200);
  test.same(
    [
      adapterAt(of, id),
      orderAt(of, 1),
      models.store.Receipts.get(of.host, id as AdapterId),
      blobs.claimOf(of.host, claim!),
    ],
    [undefined, undefined, undefined, undefined],
  );
  does(payer, 'Models', 'release_name', { name });
  for (const [, { name: left, owner: of_ }] of models.store.Names.entries(of.host)) {
    if (of_.join() === payer.join()) does(payer, 'Models', 'release_name', { name: left });
  }
  test.equal(of.reserved(payer), before, 'nothing is on hold any more');
  test.equal(fails(payer, 'Models', 'withdraw_base_model', { baseModel: 0 }), 'Models.NotOwner');
  does(owner, 'Models', 'withdraw_base_model', { baseModel: 0 });
  does(owner, 'Datanets', 'drop_snapshot', { id: 0, version: 0 });
  test.notOk(blobs.isExpected(of.host, someHash('weights'), 1_000n));
  test.ok(of.balanced());
});

t.test('root cannot set what would hurt', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const parameters = models.parameters.get(of.host);
  for (const change of [
    { nameGrace: 0xffffffff },
    { retiredPeriod: 0 },
    { closedPeriod: 0xffffffff },
    { priceNotice: 0 },
    { drawDelay: 0 },
    { drawDelay: 0xffffffff },
    { cancelFee: parameters.minBudget + 1n },
    { minBudget: 0n },
  ]) {
    const call = make('Models', 'set_parameters', { parameters: { ...parameters, ...change } });
    test.equal(of.dispatch(call).error, 'Models.BadParameters', Object.keys(change).join());
    test.equal(of.dispatch(call, account('Owner')).error, 'BadOrigin');
  }
  const nets = datanets.parameters.get(of.host);
  for (const change of [{ stakePeriod: 0xffffffff }, { availabilityPeriod: 0 }, { finderReward: 1_000_000_001 }]) {
    const call = make('Datanets', 'set_parameters', { parameters: { ...nets, ...change } });
    test.equal(of.dispatch(call).error, 'Datanets.BadParameters', Object.keys(change).join());
  }
  test.equal(of.dispatch(make('Models', 'set_parameters', { parameters })).error, undefined);
});
