/** What payers promise and workers are paid: one deposit for many workers, prices that nobody can change under a voucher, refunds. */
import t from 'tap';
import { POT } from '../../../runtime/pallets/ledger/attribution.ts';
import * as compute from '../../../runtime/pallets/ledger/compute.ts';
import * as inference from '../../../runtime/pallets/ledger/inference.ts';
import * as models from '../../../runtime/pallets/ledger/models.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { hashOf } from '../../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId, SessionId } from '../../../runtime/primitives/attribution/ids.ts';
import {
  type InferenceReceipt,
  inferenceReceipt,
  type ReceiptBatch,
  type Voucher,
  voucher,
} from '../../../runtime/primitives/attribution/receipts.ts';
import {
  DEFAULT_RULES,
  distribute,
  MAX_MARKUP,
  MIN_OUTFLOW,
  receiptRules,
  rulesFault,
} from '../../../runtime/primitives/attribution/split.ts';
import { TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import { type AccountId, PERBILL, ZERO_HASH } from '../../../runtime/primitives/types.ts';
import { someHash } from '../attribution/world.ts';
import { make, OPEN, to } from '../pallets/world.ts';
import {
  account,
  CAPABILITIES,
  challenger,
  facts,
  hashing,
  type LedgerWorld,
  ledger,
  MARKUP,
  owner,
  PRICE,
  payer,
  second,
  sign,
  third,
  worker,
} from './world.ts';

const SESSION = 0n as SessionId;
const ADAPTER = 0 as AdapterId;
const NAMES = new Map([
  [worker, 'Worker'],
  [second, 'Second'],
  [third, 'Third'],
]);

/** A batch of one receipt that nobody has seen, of so many fees. */
function batchOf(by: AccountId, nonce: number, fees: bigint, change: Partial<Voucher> = {}): ReceiptBatch {
  const payload: Voucher = {
    ...{ chain: ZERO_HASH, session: SESSION, worker: by, nonce: BigInt(nonce), cumulative: fees, most: fees },
    ...{ adapter: ADAPTER, price: PRICE, markup: MARKUP, request: ZERO_HASH },
    ...change,
  };
  const pool = receiptRules(DEFAULT_RULES, MARKUP).poolOf(fees);
  return {
    ...{ chain: ZERO_HASH, worker: by, session: payload.session, adapter: ADAPTER, root: ZERO_HASH, receipts: 1 },
    ...{ firstNonce: BigInt(nonce), lastNonce: BigInt(nonce), ledgerRoot: ZERO_HASH, ledgerEntries: 0 },
    ...{ fees, pool, remainder: 0n, totals: [{ contributor: facts.accounts[0]!, amount: pool }] },
    voucher: { payload, signature: sign('Session', hashOf(hashing, voucher, payload)) },
    blob: someHash(`${NAMES.get(by)} ${payload.session} ${nonce}`),
  };
}
const settle = (world: LedgerWorld, batch: ReceiptBatch) =>
  world.fails(batch.worker, 'Attribution', 'settle', world.signedBatch(batch, NAMES.get(batch.worker)));
const cover = (world: LedgerWorld, by: AccountId, cumulative: bigint) =>
  inference.coverFault(
    inference.sessionOf(world.host, SESSION)!,
    inference.allocationOf(world.host, SESSION, by),
    cumulative,
  );
/** Serves the adapter by three workers, with a session of 30 OPEN that nothing of is allocated. */
async function market() {
  const world = await ledger();
  world.serve();
  for (const each of [second, third]) world.does(each, 'Inference', 'serve', { adapter: 0 });
  const deposit = 30n * OPEN + 3n * inference.ENTRY_DEPOSIT;
  world.does(payer, 'Inference', 'close_session', { session: 0n });
  world.wait(200);
  world.does(payer, 'Inference', 'withdraw_deposit', { session: 0n });
  const { host } = world;
  inference.store.NextSession.put(host, SESSION);
  world.does(payer, 'Inference', 'open_session', { key: account('Session'), deposit });
  return world;
}

t.test('one deposit, several workers: each is certain of its own part', async (test) => {
  const world = await market();
  test.teardown(world.close);
  const { does, fails, host } = world;
  const session = () => inference.sessionOf(host, SESSION)!;
  test.equal(cover(world, worker, 1n), 'NOT_ALLOCATED');
  test.equal(settle(world, batchOf(worker, 1, OPEN)), 'Attribution.OverAllocation', 'a voucher alone is worth nothing');
  const allocate = (by: AccountId, to: AccountId, amount: bigint, id = SESSION) =>
    fails(by, 'Inference', 'allocate', { session: id, worker: to, amount });
  test.equal(allocate(payer, worker, 20n * OPEN), undefined);
  test.equal(allocate(payer, second, 11n * OPEN), 'Inference.DepositAllocated', 'what is one’s is nobody else’s');
  test.equal(allocate(third, third, 5n * OPEN), 'Inference.NotOwner');
  test.equal(allocate(payer, owner, 5n * OPEN), 'Inference.UnknownWorker');
  test.equal(allocate(payer, second, 1n), 'Inference.AllocationTooSmall');
  test.equal(allocate(payer, second, OPEN, 9n as SessionId), 'Inference.UnknownSession');
  does(owner, 'Balances', 'transfer_keep_alive', { dest: to(account('Session')), value: OPEN });
  test.equal(allocate(account('Session'), second, 10n * OPEN), undefined, 'the key divides, too');
  test.equal(allocate(payer, third, 10n * OPEN), 'Inference.DepositAllocated');
  test.equal(cover(world, worker, 20n * OPEN), undefined);
  test.equal(cover(world, worker, 20n * OPEN + 1n), 'OVER_ALLOCATION');

  // Whoever is first: all that is covered is paid, and what is not covered to one takes nothing from another.
  test.equal(settle(world, batchOf(third, 1, OPEN)), 'Attribution.OverAllocation');
  test.equal(settle(world, batchOf(second, 1, 10n * OPEN + 1n)), 'Attribution.OverAllocation');
  test.equal(settle(world, batchOf(second, 1, 10n * OPEN)), undefined);
  test.equal(settle(world, batchOf(worker, 1, 20n * OPEN)), undefined);
  test.equal(settle(world, batchOf(worker, 2, 1n, { cumulative: 21n * OPEN })), 'Attribution.OverAllocation');
  test.same([session().deposit, session().allocated, session().settled], [inference.ENTRY_DEPOSIT, 0n, 30n * OPEN]);
  does(payer, 'Inference', 'top_up', { session: SESSION, amount: 5n * OPEN });
  test.equal(allocate(payer, worker, 5n * OPEN), undefined);
  test.equal(settle(world, batchOf(worker, 1, 1n, { cumulative: 21n * OPEN })), 'Attribution.StaleNonce');
  test.equal(settle(world, batchOf(worker, 2, 5n * OPEN, { cumulative: 25n * OPEN - 1n })), 'Attribution.OverVoucher');
  test.equal(settle(world, batchOf(worker, 2, 5n * OPEN, { cumulative: 25n * OPEN })), undefined);

  // All of it comes back, with what was held for the state.
  does(payer, 'Inference', 'close_session', { session: SESSION });
  test.equal(allocate(payer, worker, OPEN), 'Inference.IsClosing');
  test.equal(cover(world, worker, 0n), 'SESSION_CLOSING');
  world.wait(200);
  does(payer, 'Inference', 'withdraw_deposit', { session: SESSION });
  test.equal(world.reserved(payer), 0n);
  test.same([...inference.store.Allocations.keys(host)], [], 'nothing of it is left in the state');
  test.same([...inference.store.Sessions.keys(host)], []);
  test.ok(world.balanced());
});

t.test('what is promised cannot be withdrawn before its worker had time to settle', async (test) => {
  const world = await market();
  test.teardown(world.close);
  const { does, fails, host } = world;
  const session = () => inference.sessionOf(host, SESSION)!;
  const about = { session: SESSION, worker };
  does(payer, 'Inference', 'allocate', { ...about, amount: 20n * OPEN });
  test.equal(fails(third, 'Inference', 'release', about), 'Inference.NotOwner');
  test.equal(fails(payer, 'Inference', 'release', { ...about, worker: second }), 'Inference.UnknownAllocation');
  does(payer, 'Inference', 'release', about);
  test.equal(fails(payer, 'Inference', 'release', about), 'Inference.IsReleasing');
  test.equal(fails(payer, 'Inference', 'allocate', { ...about, amount: OPEN }), 'Inference.IsReleasing');
  test.equal(cover(world, worker, OPEN), 'RELEASING', 'it answers no more');
  test.equal(
    fails(payer, 'Inference', 'allocate', { session: SESSION, worker: second, amount: 11n * OPEN }),
    'Inference.DepositAllocated',
    'not free yet',
  );
  world.wait(150);
  test.equal(settle(world, batchOf(worker, 1, 5n * OPEN)), undefined, 'what was answered before is paid');
  const kept = batchOf(worker, 2, 10n * OPEN, { cumulative: 15n * OPEN });
  world.wait(51);
  test.equal(session().allocated, 0n, 'it has come back by itself');
  test.equal(settle(world, kept), 'Attribution.OverVoucher', 'too late');
  does(payer, 'Inference', 'allocate', { ...about, amount: 15n * OPEN });
  test.equal(settle(world, kept), 'Attribution.OverVoucher', 'a voucher from before takes nothing of what came after');
  test.equal(cover(world, worker, 35n * OPEN), undefined);
  test.equal(settle(world, batchOf(worker, 3, 15n * OPEN, { cumulative: 35n * OPEN })), undefined);
  test.equal(session().settled, 20n * OPEN);
  // A release of a session that is over does nothing.
  does(payer, 'Inference', 'allocate', { session: SESSION, worker: second, amount: 2n * OPEN });
  does(payer, 'Inference', 'release', { session: SESSION, worker: second });
  world.wait(5);
  does(payer, 'Inference', 'close_session', { session: SESSION });
  world.wait(201);
  does(payer, 'Inference', 'withdraw_deposit', { session: SESSION });
  world.wait(10);
  test.equal(world.reserved(payer), 0n);
  test.ok(world.balanced());
});

t.test('what a session takes of the state has bounds', async (test) => {
  const world = await market();
  test.teardown(world.close);
  const { does, fails, host } = world;
  does(payer, 'Inference', 'allocate', { session: SESSION, worker, amount: 20n * OPEN });
  const found = inference.sessionOf(host, SESSION)!;
  inference.store.Sessions.insert(host, SESSION, { ...found, allocations: inference.MAX_ALLOCATIONS });
  const allocate = (to: AccountId) =>
    fails(payer, 'Inference', 'allocate', { session: SESSION, worker: to, amount: OPEN });
  test.equal(allocate(second), 'Inference.TooManyAllocations');
  test.equal(allocate(worker), undefined, 'one that is there grows');
  // Places for nonces: those of adapters that are neither live nor served are taken.
  const nonces = Array.from({ length: inference.MAX_NONCES }, (_, i) => ({ adapter: (i + 1) as AdapterId, last: 1n }));
  const reserved = inference.allocationOf(host, SESSION, worker)!;
  inference.store.Allocations.insert(host, [SESSION, worker], { ...reserved, nonces });
  const live = models.store.Adapters.get(host, ADAPTER)!;
  for (const { adapter } of nonces) models.store.Adapters.insert(host, adapter, live);
  test.equal(settle(world, batchOf(worker, 1, OPEN)), 'Inference.TooManyAdapters');
  models.store.Adapters.insert(host, 2 as AdapterId, { ...live, status: { type: 'Retired' } });
  test.equal(settle(world, batchOf(worker, 1, OPEN)), undefined);
  const after = inference.allocationOf(host, SESSION, worker)!;
  test.equal(after.nonces.length, inference.MAX_NONCES);
  test.equal(inference.nonceIn(after, 2 as AdapterId), undefined);
  test.equal(inference.nonceIn(after, ADAPTER), 1n);
});

t.test('nobody pays another price than was signed, and nobody is paid less than it costs', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const training = world.serve();
  const { does, fails, host } = world;
  for (const [change, what] of [
    [{ price: { input: 0n, output: 0n } }, 'for nothing'],
    [{ price: { ...PRICE, output: PRICE.output + 1n } }, 'more than it costs'],
    [{ markup: 0 }, 'another markup'],
  ] as const)
    test.equal(settle(world, batchOf(worker, 1, OPEN, change)), 'Attribution.OtherPrice', what);

  // A price is announced first. What was signed before it is settled for a while.
  const raised = { input: 2_000n, output: 2n * 10n ** 15n };
  const { priceNotice, priceGrace } = models.parameters.get(host);
  does(owner, 'Models', 'set_price', { adapter: 0, price: raised });
  const dear = () => settle(world, batchOf(worker, 2, OPEN, { cumulative: 2n * OPEN, price: raised }));
  test.equal(dear(), 'Attribution.OtherPrice', 'not yet');
  world.wait(priceNotice);
  test.same(models.termsOf(host, ADAPTER), { prices: [raised, PRICE], markup: MARKUP });
  test.equal(
    fails(owner, 'Models', 'set_price', { adapter: 0, price: PRICE }),
    'Models.PriceAnnounced',
    'two changes in a row would leave what was signed before them unpaid',
  );
  test.equal(settle(world, batchOf(worker, 1, OPEN)), undefined);
  test.equal(dear(), undefined);

  // Receipts within a batch, too: each is shown to be of another price, or dearer than its voucher allows.
  const shown = (change: (payload: InferenceReceipt) => Partial<Voucher>, challenge: (at: object) => object) => {
    const answered = world.answers(training, 10, 2);
    const first = answered[0]!.payload;
    const promise = { ...first.voucher.payload, ...change(first) };
    const signed = { payload: promise, signature: sign('Session', hashOf(hashing, voucher, promise)) };
    const payload = { ...first, voucher: signed };
    const receipts = [{ payload, signature: sign('Worker', hashOf(hashing, inferenceReceipt, payload)) }, answered[1]!];
    const { batch, sums } = world.batchOf(receipts);
    const [settled] = world
      .does(worker, 'Attribution', 'settle', world.signedBatch(batch))
      .filter(({ name }) => name === 'Attribution.Settled');
    const item = { item: sums.items[0]!, proof: facts.proveItem(sums.items, 0) };
    const events = world.does(challenger, 'Attribution', 'challenge_batch', {
      batch: settled!.value.batch,
      challenge: challenge(item),
    });
    return events.find(({ name }) => name === 'Attribution.BatchStruck')?.value.fault.value;
  };
  test.equal(
    shown(
      () => ({ price: { input: 7n, output: 7n } }),
      (item) => ({ type: 'ForeignReceipt', value: { item } }),
    ),
    'OTHER_TERMS',
  );
  world.wait(priceGrace);
  test.same(models.termsOf(host, ADAPTER).prices, [raised]);
  test.equal(
    settle(world, batchOf(worker, 90, OPEN, { cumulative: 20n * OPEN })),
    'Attribution.OtherPrice',
    'too late',
  );
  does(owner, 'Models', 'set_price', { adapter: 0, price: PRICE });
  test.ok(world.balanced());
});

t.test('an answer that is dearer than its voucher allows is shown', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const training = world.serve();
  const [answered] = world.answers(training, 1, 1);
  const { payload } = answered!;
  const promise = { ...payload.voucher.payload, most: payload.fee - 1n };
  const dear = {
    ...payload,
    voucher: { payload: promise, signature: sign('Session', hashOf(hashing, voucher, promise)) },
  };
  const receipt = { payload: dear, signature: sign('Worker', hashOf(hashing, inferenceReceipt, dear)) };
  const { batch, sums } = world.batchOf([receipt]);
  const id = world
    .does(worker, 'Attribution', 'settle', world.signedBatch(batch))
    .find(({ name }) => name === 'Attribution.Settled')!.value.batch;
  const item = { item: sums.items[0]!, proof: facts.proveItem(sums.items, 0) };
  const value = { item, challenge: { type: 'Arithmetic' } };
  const events = world.does(challenger, 'Attribution', 'challenge_batch', {
    batch: id,
    challenge: { type: 'Receipt', value },
  });
  test.same(events.find(({ name }) => name === 'Attribution.BatchStruck')?.value.fault.value, 'OVER_MOST');
  test.equal(inference.sessionOf(world.host, SESSION)!.settled, 0n, 'the payer has everything back');
});

t.test('a batch can always be struck: whatever became of its payer and its session', async (test) => {
  const unknown = {
    type: 'UnknownTotal',
    value: { total: 0, entries: { entries: [], proof: { first: 0, siblings: [] } } },
  };
  for (const [what, ruin] of [
    ['a payer with nothing left but a used-up session', 'empty'],
    ['a session that is over', 'over'],
    ['a payer whose account is gone', 'gone'],
    ['a payer as it should be', 'none'],
  ] as const) {
    const poor = account('Poor');
    const world = await ledger({ people: [poor] });
    test.teardown(world.close);
    world.serve();
    const { does, host } = world;
    does(poor, 'Inference', 'open_session', { key: account('Session'), deposit: OPEN + inference.ENTRY_DEPOSIT });
    does(poor, 'Inference', 'allocate', { session: 1n, worker, amount: OPEN });
    if (ruin === 'over' || ruin === 'gone') {
      world.dispatch(
        make('Inference', 'set_parameters', { parameters: { ...inference.DEFAULT_PARAMETERS, closingBlocks: 20 } }),
      );
      does(poor, 'Inference', 'close_session', { session: 1n });
      world.wait(20);
    }
    const fees = ruin === 'gone' ? 10n ** 14n : OPEN;
    const batch = batchOf(worker, 1, fees, { session: 1n as SessionId });
    const id = world
      .does(worker, 'Attribution', 'settle', world.signedBatch(batch))
      .find(({ name }) => name === 'Attribution.Settled')!.value.batch;
    if (ruin === 'over' || ruin === 'gone') does(poor, 'Inference', 'withdraw_deposit', { session: 1n });
    if (ruin !== 'none') does(poor, 'Balances', 'transfer_all', { dest: to(owner), keepAlive: false });
    const before = { free: world.free(poor), treasury: world.free(TREASURY), finder: world.free(challenger) };
    const done = world.dispatch(make('Attribution', 'challenge_batch', { batch: id, challenge: unknown }), challenger);
    test.equal(done.error, undefined, what);
    test.ok(done.events.some(({ name }) => name === 'Attribution.BatchStruck'));
    test.equal(world.free(challenger), before.finder, 'who has not committed to it before gets nothing for it');
    const session = inference.sessionOf(host, 1n as SessionId);
    if (ruin === 'gone') {
      test.notOk(system.accountExists(host, poor));
      test.ok(world.free(TREASURY) - before.treasury >= fees, 'nobody lives on so little: it is the treasury’s');
    } else {
      const back = world.free(poor) - before.free + (session?.deposit ?? 0n);
      test.equal(back, fees, 'it is the payer’s again');
    }
    test.equal(compute.atStake(host, worker), compute.parametersOf(host).servingStake);
    world.attest();
    world.wait(12);
    test.equal(world.fails(facts.accounts[0]!, 'Attribution', 'claim'), 'Attribution.NothingToClaim');
    test.ok(world.balanced());
    test.ok(world.free(POT) > 0n);
  }
});

t.test('who pays itself loses the promised part, by every way and whatever the markup', (test) => {
  // All rules in steps of 5 %, those that pass with all markups at the edges, all small fees, and some that do not divide.
  const STEP = PERBILL / 20;
  const markups = [0, 1, 333_333_333, 500_000_000, MAX_MARKUP - 1, MAX_MARKUP];
  const fees = [...Array.from({ length: 40 }, (_, i) => BigInt(i + 1)), 999_999_999n, 10n ** 18n + 7n];
  let passed = 0;
  let least = 1;
  const wrong: string[] = [];
  for (let platform = 0; platform <= PERBILL; platform += STEP) {
    for (let stakers = 0; platform + stakers <= PERBILL; stakers += STEP) {
      const rest = PERBILL - platform - stakers;
      for (const [worker, contributors] of [
        [0, rest],
        [rest, 0],
        [rest / 2, rest / 2],
        [Math.floor(rest / 3), rest - Math.floor(rest / 3)],
      ] as const) {
        const rules = { ...DEFAULT_RULES, split: { platform, burnt: 0, worker, stakers, contributors } };
        if (rulesFault(rules)) continue;
        passed++;
        for (const markup of markups) {
          for (const fee of fees) {
            const pool = receiptRules(rules, markup).poolOf(fee);
            const parts = distribute(fee, pool, markup, rules);
            const sum = parts.owner + parts.worker + parts.stakers + parts.burnt + parts.treasury + pool;
            // A third of all stake is the dealer's, too.
            const back = parts.owner + parts.worker + pool + parts.stakers / 3n;
            const kept = (fee - back) * BigInt(PERBILL) >= fee * BigInt(MIN_OUTFLOW);
            least = Math.min(least, Number(((fee - back) * 1_000_000n) / fee) / 1e6);
            if (sum !== fee || parts.treasury < 0n || !kept) wrong.push(`${platform}/${stakers}/${markup}/${fee}`);
          }
        }
      }
    }
  }
  test.same(wrong, []);
  test.ok(passed > 500, `${passed} rules pass`);
  test.ok(least >= 0.1 && least < 0.11, `the least that is lost is ${least}: the bound is reached`);
  test.notOk(rulesFault(DEFAULT_RULES));
  const split = { ...DEFAULT_RULES.split, platform: 50_000_000, stakers: 50_000_000 };
  test.ok(rulesFault({ ...DEFAULT_RULES, split }), '10 % of the base are 5 % of a price with a markup of 100 %');
  test.ok(
    rulesFault({ ...DEFAULT_RULES, split: { ...split, platform: 0, stakers: 250_000_000 } }),
    'who stakes is paid',
  );
  test.end();
});

t.test('served adapters are at stake: who serves many must stand for them', async (test) => {
  const world = await ledger({ bond: 1_002n * OPEN });
  test.teardown(world.close);
  const { fails, host } = world;
  world.serve();
  const live = models.store.Adapters.get(host, ADAPTER)!;
  models.store.Adapters.insert(host, 1 as AdapterId, live);
  const parameters = { ...compute.DEFAULT_PARAMETERS, servingStake: 600n * OPEN };
  test.equal(world.dispatch(make('Compute', 'set_parameters', { parameters })).error, undefined);
  test.equal(fails(worker, 'Inference', 'serve', { adapter: 1 }), undefined);
  models.store.Adapters.insert(host, 2 as AdapterId, live);
  test.equal(fails(worker, 'Inference', 'serve', { adapter: 2 }), 'Compute.NotCovered');
  world.does(worker, 'Inference', 'stop_serving', { adapter: 1 });
  test.equal(compute.atStake(host, worker), OPEN, 'each as it was put at stake');
  test.ok(CAPABILITIES.serving);
});
