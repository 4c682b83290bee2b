/** What a worker settles: all that is covered, and nothing that is not is forgotten or keeps the rest from being paid. */
import t, { type Test } from 'tap';
import { WorkerJournal } from '../../gpu-worker/session/journal.ts';
import { coveredReceipts, Settler, type SettlerPorts } from '../../gpu-worker/settlement/settler.ts';
import { CallFailed } from '../../rpc/client/errors.ts';
import type { ErrorDef } from '../../runtime/framework/dispatch.ts';
import { placeOf } from '../../runtime/framework/place.ts';
import type { MapItem, ValueItem } from '../../runtime/framework/storage.ts';
import * as attribution from '../../runtime/pallets/ledger/attribution.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import type { AdapterId, LeaseId, ReceiptBatchId } from '../../runtime/primitives/attribution/ids.ts';
import type { Price, ReceiptBatch, SignedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { hashing, temporaryDirectory } from '../main-job/support.ts';
import { world as attributionWorld, price } from '../runtime/attribution/world.ts';

const facts = attributionWorld(3, { records: 40, contributors: 2 });
const ADAPTER = 1 as AdapterId;
const LEASE = 10n as LeaseId;
const NO_ALLOCATION: inference.Allocation = {
  ...{ allocated: 0n, spent: 0n, promised: 0n, releasing: undefined, nonces: [] },
};

interface Change {
  readonly cumulative?: bigint;
  readonly price?: Price;
  readonly lease?: LeaseId;
}
/** A receipt of one OPEN's smallest unit, so that sums are easy to follow. */
function receipt(nonce: number, cumulative: bigint, change: Change = {}): SignedInferenceReceipt {
  const { receipt: payload } = facts.inference(nonce);
  const promise = { ...payload.voucher.payload, cumulative, ...(change.price && { price: change.price }) };
  return facts.sign({
    ...payload,
    voucher: { ...payload.voucher, payload: promise },
    lease: change.lease ?? LEASE,
    fee: 1n,
  });
}
async function* nothing(): AsyncGenerator<never> {}
/** As a call fails on the chain. */
const failure = (error: ErrorDef): CallFailed => {
  const { pallet, palletIndex, name } = placeOf(error);
  const reason = { index: palletIndex, error: Uint8Array.of(error.index, 0, 0, 0) };
  return new CallFailed(`${pallet}.${name}`, error.docs, { type: 'Module', value: reason });
};
const noncesOf = (receipts: readonly SignedInferenceReceipt[]): bigint[] =>
  receipts.map(({ payload }) => payload.voucher.payload.nonce);

/** A chain that takes batches, or refuses them for good where they hold a receipt of `bad`. */
async function world(test: Test, bad: ReadonlySet<bigint> = new Set()) {
  const directory = await temporaryDirectory(test);
  const journal = await WorkerJournal.open(directory);
  test.teardown(() => journal.close());
  const state = {
    session: { closing: undefined } as Partial<inference.Session> | undefined,
    allocation: { ...NO_ALLOCATION, allocated: 100n } as inference.Allocation | undefined,
    adapter: { price, markup: 0 },
    before: undefined as { price: Price; until: number } | undefined,
    refuses: undefined as ErrorDef | undefined,
  };
  const settled: ReceiptBatch[] = [];
  let refusals = 0;
  const values = new Map<unknown, () => unknown>([
    [inference.store.Sessions, () => state.session],
    [inference.store.Allocations, () => state.allocation],
    [inference.store.Serving, () => ({ lease: LEASE, since: 0, stake: 0n })],
    [models.store.Adapters, () => ({ ...state.adapter, formerPrice: state.before })],
  ]);
  function read<T, Q>(item: ValueItem<T, Q>): Promise<Q>;
  function read<K, V, Q>(item: MapItem<K, V, Q>, key: NoInfer<K>): Promise<Q>;
  async function read(item: unknown): Promise<unknown> {
    return values.get(item)?.();
  }
  const link: SettlerPorts['link'] = {
    account: facts.training.worker,
    ledger: { read, entries: nothing, bestNumber: async () => 50 },
    sign: () => ({ type: 'Sr25519', value: new Uint8Array(64) }),
  };
  const settle: SettlerPorts['settle'] = async ({ payload: batch }) => {
    if (state.refuses !== undefined) throw failure(state.refuses);
    for (const nonce of bad) {
      if (nonce >= batch.firstNonce && nonce <= batch.lastNonce) {
        refusals++;
        throw failure(attribution.errors.WrongPool);
      }
    }
    settled.push(batch);
    const { allocation } = state;
    if (allocation !== undefined) {
      const nonces = [{ adapter: ADAPTER, last: batch.lastNonce }];
      state.allocation = { ...allocation, spent: allocation.spent + batch.fees, nonces };
    }
    return BigInt(settled.length) as ReceiptBatchId;
  };
  const lines: string[] = [];
  const settler = new Settler({
    link,
    settle,
    journal,
    uploads: { look: async () => {} },
    options: { hashing, settleMs: 3_600_000, log: (level, message) => level === 'error' && lines.push(message) },
  });
  const server = { closeReceipts: (_: bigint, __: number, receipts: readonly SignedInferenceReceipt[]) => receipts };
  const keep = async (receipts: readonly SignedInferenceReceipt[]) => {
    for (const each of receipts) await journal.keep(each, new Uint8Array(), '');
  };
  const waiting = async () => (await journal.unsettled()).flatMap(({ receipts }) => noncesOf(receipts));
  return {
    ...{ journal, state, settled, lines, keep, waiting },
    settle: () => settler.settle(server),
    look: () => settler.look(server),
    refusals: () => refusals,
    unpaid: async () =>
      (await journal.unpaid()).map(({ why, receipt: { payload } }) => [payload.voucher.payload.nonce, why]),
  };
}

t.test('one bad receipt costs no other one', async (test) => {
  const here = await world(test, new Set([4n, 9n]));
  await here.keep(Array.from({ length: 12 }, (_, i) => receipt(i + 1, BigInt(i + 1))));
  await here.settle();
  const paid = here.settled.reduce((sum, { receipts }) => sum + receipts, 0);
  test.equal(paid, 10, 'all but two');
  test.same(await here.unpaid(), [
    [4n, attribution.errors.WrongPool.docs],
    [9n, attribution.errors.WrongPool.docs],
  ]);
  test.same(await here.waiting(), []);
  test.ok(here.refusals() <= 8, `${here.refusals()} refusals: halves, not one by one`);
  const ascending = here.settled.map(({ firstNonce }) => firstNonce);
  test.same(
    ascending,
    [...ascending].sort((a, b) => Number(a - b)),
    'by ascending nonce: none shuts out another',
  );
  await here.journal.forgetUnpaid(0, 1);
  test.equal((await here.unpaid()).length, 1, 'they do not pile up for ever');
});

t.test('receipts that pass later wait; those that never will are set aside', async (test) => {
  const here = await world(test);
  const old = { input: 1n, output: 1n };
  await here.keep([
    receipt(1, 1n, { lease: 9n as LeaseId }),
    receipt(2, 2n, { price: old }),
    receipt(3, 3n),
    receipt(4, 4n),
  ]);
  here.state.refuses = compute.errors.BondTooSmall;
  await test.rejects(here.settle(), { code: 'Compute.BondTooSmall' });
  test.same(await here.waiting(), [3n, 4n], 'they wait for the bond');
  test.same(
    (await here.unpaid()).map(([nonce]) => nonce),
    [1n, 2n],
    'another lease, another price',
  );
  test.equal(here.lines.length, 2, 'and their worker is told');
  here.state.refuses = undefined;
  await here.settle();
  test.same(
    here.settled.map(({ firstNonce, lastNonce }) => [firstNonce, lastNonce]),
    [[3n, 4n]],
  );
  // At the price before the last change, as long as that is in force.
  here.state.before = { price: old, until: 60 };
  await here.keep([receipt(5, 5n, { price: old })]);
  await here.settle();
  test.equal(here.settled.length, 2);
  here.state.before = { price: old, until: 50 };
  await here.keep([receipt(6, 6n, { price: old })]);
  await here.settle();
  test.equal(here.settled.length, 2);
  // The session is gone: all that waits for it is lost, and kept for people to see.
  await here.keep([receipt(7, 7n)]);
  here.state.session = undefined;
  await here.settle();
  test.same(await here.waiting(), []);
  test.same((await here.unpaid()).at(-1), [7n, 'the session is over']);
});

t.test('a payer that wants its money back is settled with at once', async (test) => {
  const here = await world(test);
  await here.keep([receipt(1, 1n)]);
  await here.look();
  test.equal(here.settled.length, 0, 'there is time');
  const other = await world(test);
  await other.keep([receipt(1, 1n)]);
  other.state.session = { closing: 90 };
  await other.look();
  test.equal(other.settled.length, 1);
  const third = await world(test);
  await third.keep([receipt(1, 1n)]);
  third.state.allocation = { ...NO_ALLOCATION, allocated: 100n, releasing: 90 };
  await third.look();
  test.equal(third.settled.length, 1);
});

t.test('what is covered, and what is void', (test) => {
  const split = (allocation: Partial<inference.Allocation>, receipts: readonly SignedInferenceReceipt[]) => {
    const { void: nothing, covered } = coveredReceipts({ ...NO_ALLOCATION, ...allocation }, receipts);
    return [noncesOf(nothing), noncesOf(covered)].map((each) => each.map(Number));
  };
  const five = [1, 2, 3, 4, 5].map((nonce) => receipt(nonce, BigInt(nonce)));
  test.same(split({ allocated: 10n }, five), [[], [1, 2, 3, 4, 5]]);
  test.same(split({ allocated: 3n }, five), [[], [1, 2, 3]], 'the rest waits');
  test.same(split({ allocated: 0n }, five), [[], []]);
  test.same(split({ allocated: 10n, spent: 5n, promised: 10n }, five), [[], [1, 2, 3, 4, 5]], 'a later one promised');
  const later = receipt(6, 12n);
  test.same(
    split({ allocated: 20n, spent: 11n, promised: 5n }, [...five, later]),
    [[1, 2, 3, 4, 5], [6]],
    'what came back counts as spent: vouchers from before are void, and keep no later one from being paid',
  );
  test.same(split({ allocated: 20n, spent: 11n, promised: 5n }, five), [[], []], 'without a later one they wait');
  const sparse = [receipt(1, 1n), receipt(2, 1n), receipt(3, 3n)];
  test.same(split({ allocated: 9n }, sparse), [[], [1, 2, 3]], 'the newest voucher promises for all before it');
  test.same(split({ allocated: 9n }, sparse.slice(0, 2)), [[], [1]], 'until it comes, one waits');
  test.end();
});
