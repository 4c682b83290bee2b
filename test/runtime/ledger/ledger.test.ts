/** The ledger's own modules: from the first record to the last claim, with every fault on the way. */
import t from 'tap';
import { cosineOf } from '../../../gpu-worker/attribution/audit.ts';
import { POT } from '../../../runtime/pallets/ledger/attribution.ts';
import { auditVerdict } from '../../../runtime/pallets/ledger/audits.ts';
import * as compute from '../../../runtime/pallets/ledger/compute.ts';
import * as inference from '../../../runtime/pallets/ledger/inference.ts';
import * as models from '../../../runtime/pallets/ledger/models.ts';
import { EXISTENTIAL_DEPOSIT } from '../../../runtime/pallets/standard/balances.ts';
import { POT as STAKERS } from '../../../runtime/pallets/standard/staking.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { hashOf } from '../../../runtime/primitives/attribution/canonical.ts';
import { rowLeaf } from '../../../runtime/primitives/attribution/features.ts';
import type { AdapterId, OrderId, SessionId } from '../../../runtime/primitives/attribution/ids.ts';
import { leafHash, proveRange } from '../../../runtime/primitives/attribution/merkle.ts';
import { bentFeature, type PlantedFault, plantedFault } from '../../../runtime/primitives/attribution/planted.ts';
import {
  type InferenceReceipt,
  inferenceReceipt,
  type ReceiptBatch,
  type TrainingReceipt,
  voucher,
} from '../../../runtime/primitives/attribution/receipts.ts';
import { snapshotRange } from '../../../runtime/primitives/attribution/records.ts';
import { splitPool } from '../../../runtime/primitives/attribution/shares.ts';
import { DEFAULT_RULES, distribute, receiptRules } from '../../../runtime/primitives/attribution/split.ts';
import { sumRoot } from '../../../runtime/primitives/attribution/sums.ts';
import { attribute } from '../../../runtime/primitives/attribution/verify.ts';
import { TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import { encode } from '../../../runtime/primitives/scale/codec.ts';
import { type AccountId, asHash, type Hash, ZERO_HASH } from '../../../runtime/primitives/types.ts';
import { someHash } from '../attribution/world.ts';
import { make, OPEN } from '../pallets/world.ts';
import {
  account,
  CAPABILITIES,
  CONFIG,
  challenger,
  facts,
  hashing,
  ledger,
  MARKUP,
  owner,
  PRICE,
  payer,
  SIZES,
  second,
  sign,
  third,
  WINDOW,
  worker,
} from './world.ts';

t.test('the whole loop: records, snapshot, order, training, answers, settlement, claims', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const training = world.train();
  test.equal(models.adapterOf(world.host, 0 as AdapterId).status.type, 'Pending');
  const before = world.free(worker);
  world.attest();
  world.wait(WINDOW);
  test.equal(models.adapterOf(world.host, 0 as AdapterId).status.type, 'Live');
  test.equal(world.free(worker) - before, 100n * OPEN, 'the budget is the worker’s');
  world.does(worker, 'Inference', 'serve', { adapter: 0 });
  world.openSession();

  const { batch } = world.batchOf(world.answers(training, 1, 12));
  const treasury = world.free(TREASURY);
  const issued = world.balanced();
  world.does(worker, 'Attribution', 'settle', world.signedBatch(batch));
  test.ok(issued && world.balanced());
  test.equal(inference.sessionOf(world.host, 0n as SessionId)?.deposit, 20n * OPEN - batch.fees);
  world.attest();
  world.wait(WINDOW);
  test.ok(world.balanced(), 'OPEN was burnt, not lost');
  const parts = distribute(batch.fees, batch.pool, MARKUP, DEFAULT_RULES);
  test.equal(parts.owner + parts.worker + parts.stakers + parts.burnt + parts.treasury + batch.pool, batch.fees);
  test.equal(world.free(TREASURY) - treasury, parts.treasury + batch.remainder);
  test.equal(world.free(STAKERS), EXISTENTIAL_DEPOSIT + parts.stakers);

  let claimed = 0n;
  for (const { contributor, amount } of batch.totals) {
    const had = world.free(contributor);
    world.does(contributor, 'Attribution', 'claim');
    test.equal(world.free(contributor) - had, amount);
    claimed += amount;
    test.equal(world.fails(contributor, 'Attribution', 'claim'), 'Attribution.NothingToClaim', 'only once');
  }
  world.does(worker, 'Attribution', 'claim');
  world.does(owner, 'Attribution', 'claim');
  test.equal(claimed + batch.remainder, batch.pool);
  test.equal(world.free(POT), 10n ** 15n, 'nothing is left in the pot');
  test.ok(world.balanced());
});

t.test('batches of two adapters in one session are settled in either order', async (test) => {
  for (const laterFirst of [false, true]) {
    const world = await ledger();
    test.teardown(world.close);
    const [one, other] = [world.serve(), world.train(1)];
    world.attest();
    world.wait(WINDOW);
    world.does(worker, 'Inference', 'serve', { adapter: 1 });
    const early = world.batchOf(world.answers(one, 1, 6)).batch;
    const late = world.batchOf(world.answers(other, 7, 9, 1, early.fees)).batch;
    test.equal(late.voucher.payload.cumulative, early.fees + late.fees);
    for (const batch of laterFirst ? [late, early] : [early, late]) {
      world.does(worker, 'Attribution', 'settle', world.signedBatch(batch));
    }
    test.equal(inference.sessionOf(world.host, 0n as SessionId)?.settled, early.fees + late.fees);
    const more = world.batchOf(world.answers(one, 16, 3, 0, 0n)).batch;
    test.equal(
      world.fails(worker, 'Attribution', 'settle', world.signedBatch(more)),
      'Attribution.OverVoucher',
      'no voucher promises more than both',
    );
    test.ok(world.balanced());
  }
});

t.test('orders, leases and training receipts', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const { does, fails, order } = world;
  const submit = (name: string, receipt: TrainingReceipt, signer = name) =>
    fails(account(name), 'Attribution', 'submit_training', { receipt: world.signed(signer, receipt), sizes: SIZES });

  test.equal(fails(owner, 'Models', 'order_training', order({ terms: ZERO_HASH })), 'Models.OtherTerms');
  test.equal(fails(owner, 'Models', 'order_training', order({ version: 1 })), 'Models.UnknownSnapshot');
  test.equal(fails(owner, 'Models', 'order_training', order({ config: { ...CONFIG, rank: 0 } })), 'Models.BadConfig');
  for (const attributionStride of [0, 65]) {
    const config = { ...CONFIG, attributionStride };
    test.equal(fails(owner, 'Models', 'order_training', order({ config })), 'Models.BadConfig');
  }
  test.equal(fails(owner, 'Models', 'order_training', order({ budget: 10n ** 30n })), 'Token.FundsUnavailable');
  world.place(payer);
  test.equal(world.free(owner) > 9_000n * OPEN, true);
  test.equal(fails(payer, 'Compute', 'take_lease', { order: 0 }), 'Compute.NotRegistered');
  does(worker, 'Compute', 'take_lease', { order: 0 });
  test.equal(fails(second, 'Compute', 'take_lease', { order: 0 }), 'Compute.NotOpen');
  const expired = compute.leaseOf(world.host, 0 as OrderId, worker);
  world.wait(30);
  does(worker, 'Compute', 'renew_lease', { order: 0 });
  world.wait(20);
  test.equal(compute.leaseOf(world.host, 0 as OrderId, worker).id, expired.id, 'renewed');
  const bond = compute.workerOf(world.host, worker)!.bond;
  world.wait(30);
  // Its holder paid for letting it run out, and for the time that it kept others from the task: one `leaseBlocks` of it.
  const kept = (350n * OPEN) / 2_000n;
  test.equal(compute.workerOf(world.host, worker)!.bond, bond - OPEN - kept, 'letting a lease run out costs');
  test.equal(fails(worker, 'Compute', 'take_lease', { order: 0 }), 'Compute.HadIt');
  test.equal(submit('Worker', world.receiptFor(0 as OrderId, expired)), 'Compute.NotLeased');

  does(second, 'Compute', 'take_lease', { order: 0 });
  const lease = compute.leaseOf(world.host, 0 as OrderId, second);
  const receipt = world.receiptFor(0 as OrderId, lease);
  test.equal(submit('Worker', { ...receipt, worker }), 'Compute.NotLeased', 'the old worker is too late');
  test.equal(
    submit('Second', world.receiptFor(0 as OrderId, { ...expired, worker: second })),
    'Attribution.OtherLease',
  );
  test.equal(submit('Second', { ...receipt, nonce: someHash('guess') }), 'Attribution.OtherLease');
  test.equal(submit('Second', { ...receipt, chain: someHash('elsewhere') }), 'Attribution.OtherChain');
  test.equal(submit('Second', receipt, 'Third'), 'Attribution.BadSignature');
  test.equal(submit('Second', { ...receipt, trainingSeed: 6n }), 'Attribution.OtherOrder');
  test.equal(submit('Second', { ...receipt, features: { ...receipt.features, rows: 59 } }), 'Attribution.WrongCount');
  const root = world.root();
  test.equal(submit('Second', { ...receipt, worker: third }), 'Attribution.NotWorker');
  test.equal(world.root(), root, 'a failure leaves no trace');

  // The rows are not those of the records: shown by any row and the record that stands there.
  const lie = { ...receipt, features: { ...receipt.features, sumRoot: someHash('other sums') } };
  test.equal(submit('Second', lie), undefined);
  test.equal(submit('Second', lie), 'Compute.NotLeased', 'no result twice');
  const rows = facts.proveRow(3);
  const wrong = { type: 'RowRecord', value: { row: rows, record: rows.row.record, recordProof: recordProofOf(3) } };
  const had = world.free(challenger);
  const dismissed = world.dispatch(
    make('Attribution', 'challenge_training', { adapter: 0, challenge: wrong }),
    challenger,
  );
  test.equal(dismissed.error, undefined);
  test.equal(had - world.free(challenger), OPEN, 'an idle challenge costs');
  const gap = { type: 'SumGap', value: { entries: { entries: [], proof: rows.proof }, row: rows } };
  test.equal(
    world.dispatch(make('Attribution', 'challenge_training', { adapter: 0, challenge: gap }), challenger).error,
    undefined,
  );
  test.equal(models.adapterOf(world.host, 0 as AdapterId).status.type, 'Pending', 'bad evidence strikes nothing');
  world.attest();
  world.wait(WINDOW);
  test.equal(models.adapterOf(world.host, 0 as AdapterId).status.type, 'Live');
  test.equal(
    fails(challenger, 'Attribution', 'challenge_training', { adapter: 0, challenge: wrong }),
    'Attribution.WindowClosed',
  );
  test.ok(world.balanced());
});

function recordProofOf(index: number) {
  const at = facts.ranges.findIndex(({ first, count }) => index >= first && index < first + count);
  const leaves = facts.batches[at]!;
  const range = facts.ranges[at]!;
  const encoded = facts.ranges.map((each) => rangeLeaf(each));
  return {
    range,
    rangeProof: proveRange(hashing, 'snapshot', encoded, at),
    recordProof: proveRange(hashing, 'records', leaves, index - range.first),
  };
}
const rangeLeaf = (range: (typeof facts.ranges)[number]): Hash =>
  asHash(leafHash(hashing, 'snapshot', encode(snapshotRange, range)));

t.test('a wrong training receipt is struck, its worker pays, the order is open again', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const { does } = world;
  world.place();
  does(worker, 'Compute', 'take_lease', { order: 0 });
  const honest = world.receiptFor(0 as OrderId, compute.leaseOf(world.host, 0 as OrderId, worker));
  // The last contributor's sums are replaced by the first one's.
  const forged = facts.entries.map((each, at) =>
    at === facts.entries.length - 1 ? { ...each, sums: facts.entries[0]!.sums } : each,
  );
  const lie = { ...honest, features: { ...honest.features, sumRoot: sumRoot(hashing, forged) } };
  does(worker, 'Attribution', 'submit_training', { receipt: world.signed('Worker', lie), sizes: SIZES });
  const at = facts.entries.length - 1;
  const entry = forged[at]!;
  const before = at > 0 ? 1 : 0;
  const challenge = {
    type: 'SumStep',
    value: {
      entries: facts.proveEntries(at - before, 1 + before, forged),
      rows: facts.rows.slice(entry.first, entry.first + entry.count),
      rowsProof: proveRows(entry.first, entry.count),
    },
  };
  const had = world.free(challenger);
  const events = does(challenger, 'Attribution', 'challenge_training', { adapter: 0, challenge });
  test.ok(events.some(({ name }) => name === 'Attribution.TrainingStruck'));
  test.equal(world.free(challenger), had, 'who has not committed to it before gets nothing for it');
  test.equal(compute.workerOf(world.host, worker)!.slashed, 600n * OPEN, 'the slash, and what the training was worth');
  test.equal(models.adapterOf(world.host, 0 as AdapterId).status.type, 'Struck');
  test.equal(compute.taskOf(world.host, 0 as OrderId)?.status.type, 'Open');
  does(second, 'Compute', 'take_lease', { order: 0 });
  const redo = world.receiptFor(0 as OrderId, compute.leaseOf(world.host, 0 as OrderId, second));
  does(second, 'Attribution', 'submit_training', { receipt: world.signed('Second', redo), sizes: SIZES });
  world.attest();
  world.wait(WINDOW);
  test.equal(models.adapterOf(world.host, 1 as AdapterId).status.type, 'Live');
  test.ok(world.balanced());
});

function proveRows(first: number, count: number) {
  return proveRange(
    hashing,
    'features',
    facts.rows.map((row) => rowLeaf(hashing, row)),
    first,
    count,
  );
}

t.test('what settlement refuses', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const training = world.serve();
  const settle = (batch: ReceiptBatch, name = 'Worker', signer = name) =>
    world.fails(account(name), 'Attribution', 'settle', world.signedBatch(batch, signer));
  const { batch } = world.batchOf(world.answers(training, 1, 4));
  const promise = (change: object, signer = 'Session') => {
    const payload = { ...batch.voucher.payload, ...change };
    return { payload, signature: sign(signer, hashOf(hashing, voucher, payload)) };
  };
  test.equal(settle({ ...batch, chain: someHash('elsewhere') }), 'Attribution.OtherChain');
  test.equal(settle(batch, 'Second'), 'Attribution.NotWorker');
  test.equal(settle({ ...batch, worker: second }, 'Second'), 'Attribution.NotServing');
  test.equal(settle(batch, 'Worker', 'Second'), 'Attribution.BadSignature');
  test.equal(settle({ ...batch, session: 7n as SessionId }), 'Attribution.UnknownSession');
  test.equal(settle({ ...batch, voucher: promise({}, 'Payer') }), 'Attribution.BadVoucher', 'another key');
  test.equal(settle({ ...batch, voucher: promise({ nonce: 3n }) }), 'Attribution.BadVoucher', 'another request');
  test.equal(settle({ ...batch, voucher: promise({ worker: second }) }), 'Attribution.BadVoucher', 'another worker');
  test.equal(settle({ ...batch, voucher: promise({ cumulative: batch.fees - 1n }) }), 'Attribution.OverVoucher');
  test.equal(settle({ ...batch, receipts: 0 }), 'Attribution.EmptyBatch');
  test.equal(settle({ ...batch, remainder: batch.remainder + 1n }), 'Attribution.WrongSums');
  test.equal(settle({ ...batch, totals: batch.totals.toReversed() }), 'Attribution.WrongSums');
  test.equal(
    settle({ ...batch, pool: batch.pool + 100n, remainder: batch.remainder + 100n }),
    'Attribution.WrongPool',
    'the contributors’ pool is fixed',
  );
  const costly = { ...batch, fees: 21n * OPEN, pool: receiptRules(DEFAULT_RULES, MARKUP).poolOf(21n * OPEN) };
  const remainder = costly.pool - (batch.pool - batch.remainder);
  test.equal(
    settle({ ...costly, remainder, voucher: promise({ cumulative: 30n * OPEN }) }),
    'Attribution.OverAllocation',
  );
  test.equal(settle(batch), undefined);
  test.equal(settle(batch), 'Attribution.StaleNonce', 'no receipt twice');
  test.equal(world.fails(payer, 'Inference', 'withdraw_deposit', { session: 0n }), 'Inference.NotClosing');
  world.does(payer, 'Inference', 'close_session', { session: 0n });
  world.wait(200);
  world.does(payer, 'Inference', 'withdraw_deposit', { session: 0n });
  test.equal(world.free(payer), 10_000n * OPEN - batch.fees);
  test.ok(world.balanced());
});

t.test('what owners and workers may change, and nobody else', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const { does, fails } = world;
  const adapter = () => models.adapterOf(world.host, 0 as AdapterId);
  world.serve();

  // Datanets: terms hold from then on; whoever takes one over takes over the deposit for it.
  const terms = { id: 0, stake: 20n * OPEN, accessPrice: 3n * OPEN, admission: { type: 'Open' } };
  test.equal(fails(payer, 'Datanets', 'set_terms', terms), 'Datanets.NotOwner');
  does(owner, 'Datanets', 'set_terms', terms);
  const had = [owner, second, payer].map(world.free);
  test.equal(fails(second, 'Datanets', 'offer_ownership', { id: 0, to: second }), 'Datanets.NotOwner');
  does(owner, 'Datanets', 'offer_ownership', { id: 0, to: second });
  test.same([owner, second].map(world.free), had.slice(0, 2), 'an offer costs nobody anything');
  test.equal(fails(third, 'Datanets', 'accept_ownership', { id: 0 }), 'Datanets.NotOffered');
  does(second, 'Datanets', 'accept_ownership', { id: 0 });
  test.same(
    [owner, second].map(world.free),
    [had[0]! + 10n * OPEN, had[1]! - 10n * OPEN],
    'whoever has it has the deposit for it on hold',
  );
  had[1]! -= 10n * OPEN;
  test.equal(fails(owner, 'Datanets', 'set_terms', terms), 'Datanets.NotOwner');
  test.equal(fails(payer, 'Models', 'order_training', world.order()), 'Models.AccessTooDear');
  world.place(payer, { maxAccessPrice: 5n * OPEN });
  test.equal(world.free(second) - had[1]!, 3n * OPEN, 'the new owner has the new access price');
  const entries = models.orderOf(world.host, 1 as OrderId).deposit;
  test.equal(
    had[2]! - world.free(payer),
    103n * OPEN + OPEN + OPEN + entries,
    'on hold: budget, files, name, the entries of the state',
  );

  // Tasks: a lease that is handed back, an order that is taken back.
  does(worker, 'Compute', 'take_lease', { order: 1 });
  test.equal(fails(third, 'Compute', 'give_up_lease', { order: 1 }), 'Compute.NotLeased');
  const bond = compute.workerOf(world.host, worker)!.bond;
  does(worker, 'Compute', 'give_up_lease', { order: 1 });
  test.equal(bond - compute.workerOf(world.host, worker)!.bond, OPEN / 10n, 'it was of no use, and others had to wait');
  does(third, 'Compute', 'take_lease', { order: 1 });
  does(third, 'Compute', 'give_up_lease', { order: 1 });
  does(payer, 'Models', 'cancel_order', { order: 1 });
  test.equal(
    had[2]! - world.free(payer),
    3n * OPEN + OPEN + OPEN + entries,
    'the budget is back but for the fee of a drawn order; the name is still the payer’s',
  );

  // Bonds and deposits grow.
  const free = world.free(worker);
  does(worker, 'Compute', 'bond_more', { amount: 5n * OPEN });
  test.same(
    [compute.workerOf(world.host, worker)!.bond - bond, free - world.free(worker)],
    [5n * OPEN - OPEN / 10n, 5n * OPEN],
  );
  test.equal(fails(payer, 'Compute', 'bond_more', { amount: OPEN }), 'Compute.NotRegistered');
  const session = () => inference.sessionOf(world.host, 0n as SessionId)!;
  test.equal(fails(owner, 'Inference', 'top_up', { session: 0n, amount: OPEN }), 'Inference.NotOwner');
  does(payer, 'Inference', 'top_up', { session: 0n, amount: 7n * OPEN });
  test.equal(session().deposit, 27n * OPEN);
  does(payer, 'Inference', 'close_session', { session: 0n });
  test.equal(fails(payer, 'Inference', 'top_up', { session: 0n, amount: OPEN }), 'Inference.IsClosing');

  // Adapters: price, owner, end.
  const price = { input: 1n, output: 2n };
  test.equal(fails(payer, 'Models', 'set_price', { adapter: 0, price }), 'Models.NotOwner');
  does(owner, 'Models', 'set_price', { adapter: 0, price });
  test.same(adapter().price, PRICE, 'a price is announced first');
  world.wait(100);
  test.same(adapter().price, price);
  test.equal(fails(payer, 'Models', 'offer_adapter', { adapter: 0, to: payer }), 'Models.NotOwner');
  does(owner, 'Models', 'offer_adapter', { adapter: 0, to: payer });
  does(payer, 'Models', 'accept_adapter', { adapter: 0 });
  test.equal(fails(owner, 'Models', 'retire_adapter', { adapter: 0 }), 'Models.NotOwner');
  does(payer, 'Models', 'retire_adapter', { adapter: 0 });
  test.equal(adapter().status.type, 'Retired');
  test.equal(fails(payer, 'Models', 'retire_adapter', { adapter: 0 }), 'Models.NotLive');
  test.equal(fails(second, 'Inference', 'serve', { adapter: 0 }), 'Models.NotLive');
  test.equal(fails(second, 'Inference', 'stop_serving', { adapter: 0 }), 'Inference.NotServing');
  does(worker, 'Inference', 'stop_serving', { adapter: 0 });
  test.ok(world.balanced());
});

t.test('a forged score is shown on the chain: the fees go back, the worker pays', async (test) => {
  const world = await ledger();
  test.teardown(world.close);
  const training = world.serve();
  const receipts = world.answers(training, 1, 3);
  // The second receipt claims more influence for its first contributor than the rows give.
  const { payload } = receipts[1]!;
  const shares = payload.shares.map((each, at) =>
    at === 0 ? { ...each, influence: each.influence + (1n << 60n) } : each,
  );
  const split = splitPool(payload.pool, shares, DEFAULT_RULES.blend);
  const forged: InferenceReceipt = {
    ...payload,
    shares: shares.map((each, at) => ({ ...each, amount: split.amounts[at]! })),
    remainder: split.remainder,
  };
  receipts[1] = { payload: forged, signature: sign('Worker', hashOf(hashing, inferenceReceipt, forged)) };
  const { batch, sums } = world.batchOf(receipts);
  const [settled] = world
    .does(worker, 'Attribution', 'settle', world.signedBatch(batch))
    .filter(({ name }) => name === 'Attribution.Settled');
  const accused = forged.shares[0]!.contributor;
  const last = facts.entries.findIndex(({ contributor, last }) => last && hashKey(contributor) === hashKey(accused));
  const { entries, proof } = facts.proveEntries(last, 1);
  const item = (at: number) => ({ item: sums.items[at]!, proof: facts.proveItem(sums.items, at) });
  const influence = { type: 'Influence', value: { entry: entries[0]!, proof } };
  const challenge = (at: number) => ({
    batch: settled?.value.batch,
    challenge: { type: 'Receipt', value: { item: item(at), challenge: influence } },
  });
  const had = world.free(challenger);
  world.does(challenger, 'Attribution', 'challenge_batch', challenge(0));
  test.equal(had - world.free(challenger), OPEN, 'the first receipt is honest: challenging it costs');
  world.does(challenger, 'Attribution', 'challenge_batch', challenge(1));
  test.equal(had - world.free(challenger), OPEN);
  test.equal(inference.sessionOf(world.host, 0n as SessionId)?.deposit, 20n * OPEN, 'the payer has everything back');
  test.equal(world.fails(challenger, 'Attribution', 'challenge_batch', challenge(1)), 'Attribution.UnknownBatch');
  world.attest();
  world.wait(WINDOW);
  for (const each of facts.accounts) {
    test.equal(world.fails(each, 'Attribution', 'claim'), 'Attribution.NothingToClaim');
  }
  test.ok(world.balanced());
});

const hashKey = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

t.test('planted faults: an auditor that did not look pays, whoever planted it does not', async (test) => {
  const auditors = ['Fourth', 'Sixth', 'Seventh'];
  const world = await ledger({ bond: 8_000n * OPEN, people: [...auditors, 'Fifth'].map(account) });
  test.teardown(world.close);
  const parameters = {
    ...{ rate: 1_000_000_000, auditors: 3, commitBlocks: 3, revealBlocks: 4 },
    ...{ fee: 10n ** 17n, silenceSlash: 10n * OPEN, lazySlash: 100n * OPEN },
  };
  const training = world.serve();
  for (const name of auditors) {
    const capabilities = { ...CAPABILITIES, auditing: true };
    world.does(account(name), 'Compute', 'register', { bond: 2_000n * OPEN, capabilities });
  }
  test.equal(world.dispatch(make('Audits', 'set_parameters', { parameters })).error, undefined);

  /** An answer as the worker would give it, and as the block of the payer's commitment bends it. */
  const plant = (nonce: number, by: AccountId | null = payer) => {
    const [honest] = world.answers(training, nonce, 1);
    const { payload } = honest!;
    const planted: PlantedFault = {
      worker,
      adapter: 0 as AdapterId,
      request: payload.voucher.payload.request,
      outputTokensHash: payload.outputTokensHash,
      feature: payload.feature,
      salt: new Uint8Array(32).fill(nonce),
    };
    if (by !== null) world.does(by, 'Audits', 'plant', { commitment: hashOf(hashing, plantedFault, planted) });
    const at = world.number();
    world.next();
    const feature = bentFeature(hashing, planted, system.blockHash(world.host, at));
    const { blend } = receiptRules(DEFAULT_RULES, MARKUP);
    const { spans, shares, remainder } = attribute(
      facts.model,
      facts.model.influence(feature),
      payload.spans.map((span) => ({ ...span })),
      payload.pool,
      blend,
    );
    const bent: InferenceReceipt = { ...payload, feature, spans, shares, remainder };
    const receipt = { payload: bent, signature: sign('Worker', hashOf(hashing, inferenceReceipt, bent)) };
    return { planted, receipt, honest: honest! };
  };
  /** Settles a batch and waits until its auditors are drawn. */
  const settle = (receipts: Parameters<typeof world.batchOf>[0]) => {
    const { batch, sums } = world.batchOf(receipts);
    const done = world.does(worker, 'Attribution', 'settle', world.signedBatch(batch));
    let drawn: { audit: number; auditors: AccountId[] } | undefined;
    for (let blocks = 0; blocks < 6 && drawn === undefined; blocks++) {
      world.next();
      drawn = world.events().find(({ name }) => name === 'Audits.Drawn')?.value;
    }
    return {
      ...{ id: done.find(({ name }) => name === 'Attribution.Settled')!.value.batch as bigint, batch, sums },
      audit: drawn?.audit as number,
      auditors: (drawn?.auditors ?? []) as AccountId[],
    };
  };
  const reveal = (id: bigint, receipt: unknown, planted: PlantedFault, audit: number | undefined, by = worker) =>
    world.fails(by, 'Attribution', 'reveal_fault', { batch: id, receipt, planted, audit });
  const salt = new Uint8Array(32).fill(4);
  const says = (audit: number, auditor: AccountId, faulty: boolean) => {
    const commitment = hashOf(hashing, auditVerdict, { audit, auditor, faulty, salt });
    world.does(auditor, 'Audits', 'commit', { audit, commitment });
  };

  const free = world.free(payer);
  const first = plant(1);
  test.equal(free - world.free(payer), OPEN / 10n, 'a commitment has a deposit');
  const cosine = cosineOf(first.receipt.payload.feature, first.planted.feature);
  test.ok(cosine > 0.7 && cosine < 0.95, `near enough to look right, far enough to be wrong: ${cosine.toFixed(3)}`);
  const before = inference.sessionOf(world.host, 0n as SessionId)!;
  const settled = settle([first.receipt]);
  test.equal(settled.auditors.length, 3);
  const [finder, lazy, mute] = settled.auditors as [AccountId, AccountId, AccountId];
  const [item] = settled.sums.items;
  test.equal(
    reveal(settled.id, item, first.planted, settled.audit),
    'Audits.StillOpen',
    'no hint while verdicts are open',
  );
  says(settled.audit, finder, true);
  says(settled.audit, lazy, false);
  says(settled.audit, mute, false);
  world.wait(4);
  const wrong = { ...first.planted, feature: first.planted.feature.map((each) => -each) };
  test.equal(reveal(settled.id, item, wrong, settled.audit), 'Audits.UnknownPlant', 'not what was committed to');
  test.equal(reveal(settled.id, item, first.planted, settled.audit, payer), 'Attribution.NotWorker');
  test.equal(reveal(settled.id, item, first.planted, 99), 'Audits.UnknownAudit');
  test.equal(reveal(99n, item, first.planted, settled.audit), 'Attribution.UnknownBatch');
  test.equal(reveal(settled.id, item, first.planted, settled.audit), undefined);
  test.equal(reveal(settled.id, item, first.planted, settled.audit), 'Attribution.UnknownBatch', 'once');
  const after = inference.sessionOf(world.host, 0n as SessionId)!;
  test.equal(after.deposit, before.deposit, 'the payer has the fees back');
  test.equal(free, world.free(payer), 'and the deposit');
  for (const [auditor, faulty] of [
    [finder, true],
    [lazy, false],
  ] as const)
    world.does(auditor, 'Audits', 'reveal', { audit: settled.audit, faulty, salt });
  const bond = (who: AccountId) => compute.workerOf(world.host, who)!.bond;
  const [had, bonds] = [[world.free(finder), world.free(worker)], [lazy, mute, worker, finder].map(bond)];
  world.wait(4);
  test.same(
    [lazy, mute, worker, finder].map((who, at) => bonds[at]! - bond(who)),
    [100n * OPEN, 100n * OPEN, 0n, 0n],
    'whoever said nothing is wrong pays, and so does whoever then kept it back',
  );
  test.equal(world.free(finder) - had[0]!, parameters.fee, 'two of three were wrong: the third is paid all the same');
  test.equal(world.free(worker) - had[1]!, 100n * OPEN, 'half of it goes to who planted it');
  test.ok(world.balanced());

  // Nobody can call an honest answer planted, nor one of a payer that has not agreed.
  const again = plant(2);
  const honest = settle([again.honest]);
  world.wait(4);
  test.equal(reveal(honest.id, honest.sums.items[0], again.planted, honest.audit), 'Attribution.NotPlanted');
  const other = plant(3, account('Fifth'));
  const foreign = settle([other.receipt]);
  world.wait(4);
  test.equal(reveal(foreign.id, foreign.sums.items[0], other.planted, foreign.audit), 'Audits.UnknownPlant');
  const fourth = plant(4, null);
  const late = settle([fourth.receipt]);
  world.does(payer, 'Audits', 'plant', { commitment: hashOf(hashing, plantedFault, fourth.planted) });
  world.wait(4);
  test.equal(
    reveal(late.id, late.sums.items[0], fourth.planted, late.audit),
    'Attribution.NotPlanted',
    'a commitment after the answer bends it otherwise',
  );
  // Without an audit there is nothing to wait for.
  world.dispatch(make('Audits', 'set_parameters', { parameters: { ...parameters, rate: 0 } }));
  const fifth = plant(5);
  const quiet = settle([fifth.receipt]);
  test.equal(quiet.auditors.length, 0);
  test.equal(reveal(quiet.id, quiet.sums.items[0], fifth.planted, undefined), undefined, 'it is taken back');
  test.ok(world.balanced());
});
