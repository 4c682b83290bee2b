/** Bonds and leases: what a worker's bond stands for, what keeping others from a task costs, and that nothing outlasts its time. */
import t from 'tap';
import * as compute from '../../../runtime/pallets/ledger/compute.ts';
import * as inference from '../../../runtime/pallets/ledger/inference.ts';
import * as models from '../../../runtime/pallets/ledger/models.ts';
import * as balances from '../../../runtime/pallets/standard/balances.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import type { AdapterId, OrderId } from '../../../runtime/primitives/attribution/ids.ts';
import { TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import type { AccountId } from '../../../runtime/primitives/types.ts';
import { make, OPEN, to } from '../pallets/world.ts';
import { account, CAPABILITIES, ledger, payer, SIZES, second, third, worker } from './world.ts';

const order = (id: number) => id as OrderId;
const setParameters = (world: Awaited<ReturnType<typeof ledger>>, change: Partial<compute.ComputeParameters>) =>
  world.dispatch(make('Compute', 'set_parameters', { parameters: { ...compute.DEFAULT_PARAMETERS, ...change } })).error;

t.test('a bond stands for everything that is open at once, and for nothing twice', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const { does, fails, host } = world;
  const staked = () => compute.atStake(host, worker);
  for (let id = 0; id < 7; id++) world.place(payer, { budget: 100n * OPEN });
  // 2,000 OPEN of bond, 350 a lease: the budget, and 250 beside it.
  for (let id = 0; id < 5; id++) does(worker, 'Compute', 'take_lease', { order: id });
  test.equal(staked(), 1_750n * OPEN);
  test.equal(fails(worker, 'Compute', 'take_lease', { order: 5 }), 'Compute.NotCovered');
  test.equal(compute.taskOf(host, order(5))?.status.type, 'Open', 'it is left to others');
  does(worker, 'Compute', 'bond_more', { amount: 100n * OPEN });
  does(worker, 'Compute', 'take_lease', { order: 5 });
  test.equal(fails(worker, 'Compute', 'take_lease', { order: 6 }), 'Compute.NotCovered');
  test.equal(fails(second, 'Compute', 'take_lease', { order: 5 }), 'Compute.NotOpen');
  world.place(payer, { budget: 1_751n * OPEN });
  test.equal(fails(second, 'Compute', 'take_lease', { order: 7 }), 'Compute.NotCovered', 'the more there is to gain');
  does(worker, 'Compute', 'give_up_lease', { order: 5 });
  test.equal(staked(), 1_750n * OPEN);

  // What is handed in stays at stake until its window closes; then the task is history.
  const receipt = world.receiptFor(order(0), compute.leaseOf(host, order(0), worker));
  does(worker, 'Attribution', 'submit_training', { receipt: world.signed('Worker', receipt), sizes: SIZES });
  test.equal(staked(), 1_750n * OPEN);
  world.attest();
  world.wait(12);
  test.equal(models.adapterOf(host, 0 as AdapterId).status.type, 'Live');
  test.equal(staked(), 1_400n * OPEN);
  test.equal(compute.taskOf(host, order(0)), undefined, 'pruned');

  // Serving and settling put something at stake too.
  does(worker, 'Inference', 'serve', { adapter: 0 });
  test.equal(staked(), 1_401n * OPEN);
  does(worker, 'Inference', 'stop_serving', { adapter: 0 });
  test.equal(staked(), 1_400n * OPEN);
  test.equal(compute.workerOf(host, worker)?.obligations, 4);
  test.ok(world.balanced());
});

t.test('a worker without its full bond is given nothing to do until it has topped it up', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const { does, fails, host } = world;
  const training = world.serve();
  world.place(payer);
  world.place(payer);
  does(worker, 'Compute', 'take_lease', { order: 1 });
  const receipt = world.receiptFor(order(1), compute.leaseOf(host, order(1), worker));
  const { batch } = world.batchOf(world.answers(training, 1, 2));
  test.ok(compute.isActive(host, worker));
  compute.slash(world.env(), worker, 1_000n * OPEN + 1n);
  test.notOk(compute.isActive(host, worker), 'nodes route no request to it');
  for (const [pallet, call, value] of [
    ['Compute', 'take_lease', { order: 2 }],
    ['Compute', 'renew_lease', { order: 1 }],
    ['Compute', 'update', { capabilities: CAPABILITIES }],
    ['Attribution', 'submit_training', { receipt: world.signed('Worker', receipt), sizes: SIZES }],
    ['Attribution', 'settle', world.signedBatch(batch)],
    ['Inference', 'serve', { adapter: 0 }],
  ] as const)
    test.equal(fails(worker, pallet, call, value), 'Compute.BondTooSmall', `${pallet}.${call}`);
  test.equal(fails(payer, 'Inference', 'allocate', { session: 0n, worker, amount: OPEN }), 'Inference.UnknownWorker');
  does(worker, 'Compute', 'bond_more', { amount: 1n });
  does(worker, 'Attribution', 'settle', world.signedBatch(batch));
  does(worker, 'Attribution', 'submit_training', { receipt: world.signed('Worker', receipt), sizes: SIZES });

  // Below what it stands for is too little as well.
  const { bond, atStake } = compute.workerOf(host, worker)!;
  does(worker, 'Compute', 'bond_more', { amount: 500n * OPEN });
  test.equal(setParameters(world, { minBond: OPEN }), undefined);
  test.ok(compute.isActive(host, worker));
  compute.slash(world.env(), worker, bond + 500n * OPEN - atStake + 1n);
  test.notOk(compute.isActive(host, worker));
  test.equal(fails(worker, 'Compute', 'take_lease', { order: 2 }), 'Compute.BondTooSmall');
});

t.test('squatting: tasks cannot be held for little, taken again, or kept from their owner', async (test) => {
  const world = await ledger({ people: [account('Squatter')] });
  test.teardown(world.close);
  const { does, fails, host } = world;
  const squatter = account('Squatter');
  does(squatter, 'Compute', 'register', { bond: 1_000n * OPEN, capabilities: CAPABILITIES });
  const bond = () => compute.workerOf(host, squatter)!.bond;
  for (let id = 0; id < 4; id++) world.place(payer);
  does(squatter, 'Compute', 'take_lease', { order: 0 });
  does(squatter, 'Compute', 'take_lease', { order: 1 });
  test.equal(fails(squatter, 'Compute', 'take_lease', { order: 2 }), 'Compute.NotCovered', 'two, not twenty');

  // Handed back at once it costs a little, later more: .05 % of the stake for each 40 blocks, some 126 OPEN a day.
  does(squatter, 'Compute', 'give_up_lease', { order: 0 });
  test.equal(1_000n * OPEN - bond(), OPEN / 10n);
  test.equal(fails(squatter, 'Compute', 'take_lease', { order: 0 }), 'Compute.BondTooSmall');
  does(squatter, 'Compute', 'bond_more', { amount: 100n * OPEN });
  test.equal(fails(squatter, 'Compute', 'take_lease', { order: 0 }), 'Compute.HadIt', 'it is another one’s');
  does(second, 'Compute', 'take_lease', { order: 0 });
  const before = bond();
  for (let i = 0; i < 10; i++) {
    world.wait(38);
    does(squatter, 'Compute', 'renew_lease', { order: 1 });
    does(second, 'Compute', 'renew_lease', { order: 0 });
  }
  world.wait(20);
  does(squatter, 'Compute', 'give_up_lease', { order: 1 });
  const held = (10n * 350n * OPEN) / 2_000n;
  test.equal(before - bond(), OPEN / 10n + held, 'ten periods');

  // The owner is not kept from its order: it gets it back when the lease ends, and nobody else gets another one.
  does(payer, 'Models', 'cancel_order', { order: 0 });
  test.equal(models.orderOf(host, order(0)).status.type, 'Active', 'who is at it may end it');
  test.equal(fails(payer, 'Models', 'cancel_order', { order: 0 }), 'Compute.NotOpen', 'once is enough');
  does(second, 'Compute', 'give_up_lease', { order: 0 });
  test.equal(fails(third, 'Compute', 'take_lease', { order: 0 }), 'Compute.NotOpen');
  const free = world.free(payer);
  does(payer, 'Models', 'cancel_order', { order: 0 });
  const [{ cancelFee }, ordered] = [models.parameters.get(host), models.orderOf(host, order(0))];
  test.equal(world.free(payer) - free, 101n * OPEN - cancelFee, 'budget and storage, but for the fee');
  test.equal(ordered.status.type, 'Cancelled');
  test.equal(compute.taskOf(host, order(0)), undefined);
  test.equal(fails(payer, 'Models', 'cancel_order', { order: 0 }), 'Models.NotActive');
  does(payer, 'Models', 'cancel_order', { order: 1 });
  test.equal(compute.taskOf(host, order(1)), undefined, 'an open one at once');

  // A result that comes in all the same is paid for.
  does(third, 'Compute', 'take_lease', { order: 2 });
  does(payer, 'Models', 'cancel_order', { order: 2 });
  const receipt = world.receiptFor(order(2), compute.leaseOf(host, order(2), third));
  does(third, 'Attribution', 'submit_training', { receipt: world.signed('Third', receipt), sizes: SIZES });
  const had = world.free(third);
  world.attest();
  world.wait(12);
  test.ok(world.free(third) - had >= 100n * OPEN);
  test.equal(compute.atStake(host, third), 0n);
  test.ok(world.balanced());
});

t.test('every lease ends when its time is up, however many end with it', async (test) => {
  const world = await ledger({ bond: 9_000n * OPEN });
  test.teardown(world.close);
  const { does, host } = world;
  test.equal(setParameters(world, { leaseStake: OPEN }), undefined);
  const ORDERS = 400;
  for (let id = 0; id <= ORDERS; id++) does(payer, 'Models', 'order_training', world.order({ budget: OPEN }));
  world.wait(10);
  for (let id = 0; id < ORDERS; id++) {
    // In the queue before the one that is looked for, again and again.
    if (id % 2 === 0) does(second, 'Compute', 'take_lease', { order: id });
    if (id % 4 === 0) does(second, 'Compute', 'give_up_lease', { order: id });
  }
  does(worker, 'Compute', 'take_lease', { order: ORDERS });
  world.wait(30);
  does(worker, 'Compute', 'renew_lease', { order: ORDERS });
  const { expires } = compute.leaseOf(host, order(ORDERS), worker);
  world.next(expires - 1);
  test.equal(compute.taskOf(host, order(ORDERS))?.status.type, 'Leased');
  test.equal(compute.workerOf(host, second)!.obligations, 0, 'those that were not renewed are over');
  world.next(expires);
  test.equal(compute.taskOf(host, order(ORDERS))?.status.type, 'Open');
  test.equal(world.fails(worker, 'Compute', 'take_lease', { order: ORDERS }), 'Compute.HadIt');
  test.equal(compute.atStake(host, worker), 0n);
  test.equal(compute.atStake(host, second), 0n);
  const [lost] = [9_000n * OPEN - compute.workerOf(host, second)!.bond];
  test.ok(lost > 100n * OPEN && lost < 111n * OPEN, '100 ran out, 100 were handed back');
  does(payer, 'Models', 'cancel_order', { order: ORDERS });
  test.ok(world.balanced());
});

t.test('a slash takes what there is, whoever gets it and whatever became of the accounts', async (test) => {
  const nobody = account('Nobody');
  for (const [bond, amount, reward, finder, treasury] of [
    [1_000n * OPEN, 500n * OPEN, 250n * OPEN, nobody, true],
    [1_000n * OPEN, 1n, 1n, nobody, true],
    [1_000n * OPEN, 1n, 0n, undefined, false],
    [1_000n * OPEN, 5_000n * OPEN, 5_000n * OPEN, nobody, false],
    [1_000n * OPEN, 999n * OPEN, 10n ** 14n, nobody, false],
    [1_000n * OPEN, 3n, 2n, worker, false],
    [1_000n * OPEN, 0n, 0n, undefined, true],
  ] as const) {
    const accused = account('Accused');
    const world = await ledger({ people: [accused] });
    test.teardown(world.close);
    const { host } = world;
    world.does(accused, 'Compute', 'register', { bond, capabilities: CAPABILITIES });
    if (!treasury) {
      balances.withdraw(world.env(), TREASURY, world.free(TREASURY), 'Expendable');
      test.notOk(system.accountExists(host, TREASURY));
    }
    // All of it is frozen, and nothing is left beside it.
    balances.setFreeze(world.env(), { pallet: 27, reason: 0 }, accused, bond);
    world.dispatch(make('Balances', 'transfer_all', { dest: to(payer), keepAlive: false }), accused);
    const env = world.env();
    const taken = compute.slash(env, accused, amount, finder, reward);
    env.flush();
    test.equal(taken, amount < bond ? amount : bond);
    test.equal(compute.workerOf(host, accused)!.bond, bond - taken);
    test.equal(world.reserved(accused), bond - taken, 'the bond is what is on hold');
    test.ok(world.balanced());
    world.next();
  }
});

t.test('leaving: nothing is settled any more, and the bond goes when all windows are closed', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const { does, fails, host } = world;
  test.equal(setParameters(world, { unbondingBlocks: 1 }), undefined);
  const training = world.serve();
  const settle = (first: number) => world.signedBatch(world.batchOf(world.answers(training, first, 2)).batch);
  does(worker, 'Attribution', 'settle', settle(1));
  const late = settle(5);
  does(worker, 'Compute', 'leave');
  test.equal(fails(worker, 'Attribution', 'settle', late), 'Compute.IsLeaving');
  test.equal(fails(worker, 'Compute', 'leave'), 'Compute.IsLeaving');
  test.notOk(compute.isActive(host, worker));
  world.wait(2);
  test.equal(fails(worker, 'Compute', 'withdraw'), 'Compute.HasObligations', 'the window is open');
  does(worker, 'Inference', 'stop_serving', { adapter: 0 });
  test.equal(fails(worker, 'Compute', 'withdraw'), 'Compute.HasObligations', 'still');
  world.attest();
  world.wait(12);
  const free = world.free(worker);
  does(worker, 'Compute', 'withdraw');
  test.equal(world.free(worker) - free, 2_000n * OPEN);
  test.equal(compute.workerOf(host, worker), undefined);
  test.ok(world.balanced());
});

t.test('auditors: each has one number, without a gap', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const { does, host } = world;
  const auditing = { ...CAPABILITIES, auditing: true };
  const idle = { ...CAPABILITIES, auditing: false };
  const listed = (): AccountId[] =>
    Array.from({ length: compute.auditorCount(host) }, (_, i) => compute.auditorAt(host, i)!);
  const hex = (accounts: readonly AccountId[]) => accounts.map((each) => Buffer.from(each).toString('hex')).sort();
  for (const each of [worker, second, third, second]) does(each, 'Compute', 'update', { capabilities: auditing });
  test.same(hex(listed()), hex([worker, second, third]));
  does(worker, 'Compute', 'update', { capabilities: idle });
  test.same(hex(listed()), hex([second, third]));
  does(third, 'Compute', 'leave');
  test.same(hex(listed()), hex([second]));
  does(second, 'Compute', 'update', { capabilities: idle });
  test.same(listed(), []);
  does(worker, 'Compute', 'update', { capabilities: auditing });
  test.same(hex(listed()), hex([worker]));
  test.equal([...compute.store.AuditorIndex.keys(host)].length, 1);
  test.equal([...compute.store.AuditorAt.keys(host)].length, 1);
});

t.test('parameters have bounds: none makes a block impossible', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const never = 4_294_967_295;
  for (const change of [
    { minBond: 0n },
    { minBond: (1n << 128n) - 1n },
    { leaseBlocks: 0 },
    { leaseBlocks: never, maxLeaseBlocks: never },
    { maxLeaseBlocks: never },
    { leaseBlocks: 41, maxLeaseBlocks: 40 },
    { unbondingBlocks: never },
    { returnSlash: 0n },
    { holdCost: 0 },
    { holdCost: 1_000_000_001 },
    { leaseStake: 0n },
    { servingStake: 0n },
  ])
    test.equal(setParameters(world, change), 'Compute.BadParameters', Object.keys(change).join());
  const refused = (change: Partial<inference.InferenceParameters>) =>
    world.dispatch(make('Inference', 'set_parameters', { parameters: { ...inference.DEFAULT_PARAMETERS, ...change } }))
      .error;
  for (const change of [{ closingBlocks: never }, { closingBlocks: 1 }, { minDeposit: 0n }, { minAllocation: 0n }])
    test.equal(refused(change), 'Inference.BadParameters', Object.keys(change).join());
  test.equal(refused({}), undefined);
  test.equal(world.fails(payer, 'Compute', 'set_parameters', { parameters: compute.DEFAULT_PARAMETERS }), 'BadOrigin');
});
