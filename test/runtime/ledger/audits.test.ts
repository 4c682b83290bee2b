/** Windows, payouts and audits under attack: what is paid was there, what was drawn nobody chose, who is wrong pays. */
import t from 'tap';
import { store as attributionStore } from '../../../runtime/pallets/ledger/attribution/store.ts';
import * as attribution from '../../../runtime/pallets/ledger/attribution.ts';
import { drawAuditors } from '../../../runtime/pallets/ledger/audits/selection.ts';
import { store as auditStore } from '../../../runtime/pallets/ledger/audits/store.ts';
import { outcomeOf, reckon, type Vote } from '../../../runtime/pallets/ledger/audits/verdicts.ts';
import { auditVerdict } from '../../../runtime/pallets/ledger/audits.ts';
import * as beacon from '../../../runtime/pallets/ledger/beacon.ts';
import * as compute from '../../../runtime/pallets/ledger/compute.ts';
import * as datanets from '../../../runtime/pallets/ledger/datanets.ts';
import * as inference from '../../../runtime/pallets/ledger/inference.ts';
import * as models from '../../../runtime/pallets/ledger/models.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { hashOf } from '../../../runtime/primitives/attribution/canonical.ts';
import { contentHash, findingHash } from '../../../runtime/primitives/attribution/findings.ts';
import type { AdapterId, BaseModelId, DatanetId, SessionId } from '../../../runtime/primitives/attribution/ids.ts';
import { type ReceiptBatch, voucher } from '../../../runtime/primitives/attribution/receipts.ts';
import { AUDIT_ONE, auditLoad } from '../../../runtime/primitives/attribution/stakes.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import { encode, u32 } from '../../../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId, asHash } from '../../../runtime/primitives/types.ts';
import { someHash } from '../attribution/world.ts';
import { make, OPEN } from '../pallets/world.ts';
import {
  account,
  CAPABILITIES,
  challenger,
  facts,
  hashing,
  type LedgerWorld,
  ledger,
  payer,
  sign,
  VALIDATORS,
  WINDOW,
  worker,
} from './world.ts';

const names = (of: LedgerWorld) => of.events().map(({ name }) => name);
const eventOf = (of: LedgerWorld, wanted: string) => of.events().find(({ name }) => name === wanted)?.value;
const bondOf = (of: LedgerWorld, who: AccountId) => compute.workerOf(of.host, who)?.bond ?? 0n;
const AUDITORS = ['A1', 'A2', 'A3', 'A4', 'A5', 'A6', 'A7', 'A8', 'A9', 'A10'];
const nameOf = new Map(AUDITORS.map((name) => [toHex(account(name)), name]));
const salt = new Uint8Array(32).fill(7);

/** A ledger with auditors, in which every batch is audited if `rate` is 1. */
async function audited({ rate = 1_000_000_000, auditors = AUDITORS.length } = {}) {
  const people = AUDITORS.slice(0, auditors).map(account);
  const of = await ledger({ people });
  const training = of.serve(200n * OPEN);
  for (const each of people) {
    of.does(each, 'Compute', 'register', { bond: 2_000n * OPEN, capabilities: { ...CAPABILITIES, auditing: true } });
  }
  const parameters = {
    ...{ rate, auditors: 3, commitBlocks: 4, revealBlocks: 3, fee: OPEN / 2n },
    ...{ silenceSlash: 10n * OPEN, lazySlash: 100n * OPEN },
  };
  const { error } = of.dispatch(make('Audits', 'set_parameters', { parameters }));
  if (error !== undefined) throw new Error(error);
  /** Settles honest answers. Returns the batch and its id. */
  const settle = (first: number, count = 1) => {
    const { batch } = of.batchOf(of.answers(training, first, count));
    const [settled] = of
      .does(worker, 'Attribution', 'settle', of.signedBatch(batch))
      .filter(({ name }) => name === 'Attribution.Settled');
    of.attest();
    return { batch, id: settled?.value.batch as bigint };
  };
  /** Goes on until auditors are drawn. */
  const drawn = (): { audit: number; auditors: AccountId[] } => {
    for (let i = 0; i < 12; i++) {
      const found = eventOf(of, 'Audits.Drawn');
      if (found !== undefined) return found;
      of.next();
    }
    throw new Error('nobody was drawn');
  };
  const disclose = (audit: number) => {
    of.does(worker, 'Audits', 'disclose', { audit, blob: someHash(`said ${audit}`), bytes: 500n });
    of.attest();
  };
  const commit = (audit: number, who: AccountId, faulty: boolean) =>
    of.does(who, 'Audits', 'commit', {
      audit,
      commitment: hashOf(hashing, auditVerdict, { audit, auditor: who, faulty, salt }),
    });
  const reveal = (audit: number, who: AccountId, faulty: boolean) =>
    of.does(who, 'Audits', 'reveal', { audit, faulty, salt });
  /** One round in which the auditors say so; goes on to its end. */
  const round = (audit: number, said: readonly (readonly [AccountId, boolean])[]) => {
    for (const [who, faulty] of said) commit(audit, who, faulty);
    const { commitUntil, revealUntil } = auditStore.Audits.get(of.host, audit)!;
    of.next(commitUntil + 1);
    for (const [who, faulty] of said) reveal(audit, who, faulty);
    of.next(revealUntil);
  };
  return { ...of, training, settle, drawn, disclose, commit, reveal, round };
}

// ---- beacon ----------------------------------------------------------------------------------------------------

t.test('the beacon: each author tells the secret that it promised, once, or makes no block', async (test) => {
  const of = await ledger({ validators: VALIDATORS.slice(0, 1) });
  test.teardown(of.close);
  const { executive } = of.runtime;
  const secrets = [1, 2, 3].map((fill) => asHash(new Uint8Array(32).fill(fill)));
  const tell = (secret: Uint8Array | undefined, next: number) => ({
    type: 'Beacon',
    value: {
      type: 'tell',
      value: { disclosure: { secret, next: beacon.promiseOf(hashing, secrets[next]!) } },
    },
  });
  const applied = (call: ReturnType<typeof tell>) =>
    executive.applyExtrinsic(of.host, executive.extrinsics.encodeBare(call));
  const seed = () => toHex(beacon.store.Seed.get(of.host));
  of.next();
  test.notOk(applied(tell(secrets[0], 1)).ok, 'nothing was promised yet');
  test.ok(applied(tell(undefined, 0)).ok);
  test.notOk(applied(tell(undefined, 1)).ok, 'once a block');
  of.next();
  test.notOk(applied(tell(undefined, 1)).ok, 'it cannot promise anew without telling');
  test.notOk(applied(tell(secrets[1], 1)).ok, 'nor tell another secret');
  const before = seed();
  test.ok(applied(tell(secrets[0], 1)).ok);
  test.not(seed(), before);
  of.next();
  test.throws(() => of.finish(), { code: 'BAD_BEACON' }, 'who keeps its secret back has made no block');
});

// ---- selection -------------------------------------------------------------------------------------------------

t.test('which work is audited depends on its value, not on what else is handed in', async (test) => {
  const of = await audited({ rate: 2_000_000 });
  test.teardown(of.close);
  const { slash } = attribution.parametersOf(of.host);
  test.equal(auditLoad((3n * slash) / 10n, slash, 0), AUDIT_ONE, 'one audit for three tenths of a slash');
  test.ok(auditLoad(0n, slash, 2_000_000) * 1_000n > AUDIT_ONE, 'and a few of next to nothing');
  // A great batch among hundreds of small ones: it is audited for certain, in its own time.
  for (let i = 0; i < 20; i++) {
    of.does(worker, 'Attribution', 'settle', of.signedBatch(of.batchOf(of.answers(of.training, 1 + i, 1)).batch));
  }
  const great = 160n * OPEN;
  const { batch } = of.batchOf(of.answers(of.training, 21, 1));
  const fees = great;
  const pool = (fees * 4n) / 10n;
  const [contributor] = facts.accounts.toSorted((a, b) => Buffer.compare(a, b));
  const promise = { ...batch.voucher.payload, cumulative: 190n * OPEN, most: great };
  const large: ReceiptBatch = {
    ...batch,
    ...{ fees, pool, remainder: 0n, totals: [{ contributor: contributor!, amount: pool }] },
    voucher: { payload: promise, signature: sign('Session', hashOf(hashing, voucher, promise)) },
  };
  const [settled] = of
    .does(worker, 'Attribution', 'settle', of.signedBatch(large))
    .filter(({ name }) => name === 'Attribution.Settled');
  let found = false;
  for (let i = 0; i < 8 && !found; i++) {
    of.next();
    found = of
      .events()
      .some(({ name, value }) => name === 'Audits.Drawn' && value.subject.value === settled?.value.batch);
  }
  test.ok(found);
});

t.test('auditors are drawn by bond, and a block’s hash has no say in it', async (test) => {
  const of = await audited();
  test.teardown(of.close);
  of.does(account('A1'), 'Compute', 'bond_more', { amount: 6_000n * OPEN });
  const counts = new Map<string, number>();
  const first = (block: number): string => {
    const env = of.env();
    beacon.store.Seed.put(env.host, asHash(hashing.blake2_256(encode(u32, block))));
    const [who] = drawAuditors(env.host, someHash('work'), [worker], 0 as BaseModelId, 1);
    return nameOf.get(toHex(who!)) ?? '';
  };
  const draws = 1_300;
  for (let i = 0; i < draws; i++) {
    const who = first(i);
    counts.set(who, (counts.get(who) ?? 0) + 1);
  }
  // 8,000 of 26,000 OPEN: the same as four of the others together.
  const share = counts.get('A1')! / draws;
  test.ok(share > 0.26 && share < 0.36, `A1 has ${share}`);
  test.notOk(counts.has(''), 'nobody else');
  beacon.store.Seed.put(of.host, someHash('seed'));
  const [a] = drawAuditors(of.host, someHash('work'), [worker], 0 as BaseModelId, 3);
  of.host.put(system.store.ParentHash.key(of.host), new Uint8Array(32).fill(9));
  const [b] = drawAuditors(of.host, someHash('work'), [worker], 0 as BaseModelId, 3);
  test.same(a, b, 'another seal on the parent draws the same');
});

// ---- verdicts --------------------------------------------------------------------------------------------------

t.test('an honest answer: unanimous in the first round', async (test) => {
  const of = await audited();
  test.teardown(of.close);
  const { batch } = of.settle(1, 3);
  const { audit, auditors } = of.drawn();
  test.equal(auditors.length, 3);
  of.disclose(audit);
  const had = auditors.map((who) => of.free(who));
  of.round(
    audit,
    auditors.map((who) => [who, false] as const),
  );
  test.same(
    auditors.map((who, at) => of.free(who) - had[at]!),
    auditors.map(() => OPEN / 2n),
  );
  of.wait(WINDOW);
  test.equal(of.fails(batch.totals[0]!.contributor, 'Attribution', 'claim'), undefined, 'and is paid');
  test.ok(of.balanced());
});

t.test('a lie of two auditors about an honest answer costs them, and nobody else', async (test) => {
  const of = await audited();
  test.teardown(of.close);
  const { batch } = of.settle(1, 3);
  const { audit, auditors } = of.drawn();
  of.disclose(audit);
  const [one, two, three] = auditors as [AccountId, AccountId, AccountId];
  const bonds = [worker, ...auditors].map((who) => bondOf(of, who));
  of.round(audit, [
    [one, true],
    [two, true],
    [three, false],
  ]);
  test.ok(names(of).includes('Audits.Contested'));
  const second = eventOf(of, 'Audits.Drawn').auditors as AccountId[];
  test.equal(second.length, 7, 'all others, an odd number of them');
  test.notOk(second.some((who) => auditors.some((each) => toHex(each) === toHex(who))));
  of.wait(1);
  test.ok(attributionStore.Batches.has(of.host, 0n as never), 'nothing is paid meanwhile');
  of.round(
    audit,
    second.map((who) => [who, false] as const),
  );
  const lost = [worker, ...auditors].map((who, at) => bonds[at]! - bondOf(of, who));
  test.same(lost, [0n, 100n * OPEN, 100n * OPEN, 0n]);
  of.wait(WINDOW);
  test.equal(of.fails(batch.totals[0]!.contributor, 'Attribution', 'claim'), undefined);
  test.ok(of.balanced());
});

t.test('a cheat that two of three auditors cover up is struck by the second round', async (test) => {
  const of = await audited();
  test.teardown(of.close);
  const { id } = of.settle(1, 3);
  const { audit, auditors } = of.drawn();
  of.disclose(audit);
  const [one, two, honest] = auditors as [AccountId, AccountId, AccountId];
  const bonds = [worker, ...auditors].map((who) => bondOf(of, who));
  const { batch } = attributionStore.Batches.get(of.host, id as never)!;
  of.round(audit, [
    [one, false],
    [two, false],
    [honest, true],
  ]);
  const second = eventOf(of, 'Audits.Drawn').auditors as AccountId[];
  const had = of.free(honest);
  of.round(
    audit,
    second.map((who) => [who, true] as const),
  );
  test.ok(names(of).includes('Attribution.BatchStruck'));
  const lost = [worker, ...auditors].map((who, at) => bonds[at]! - bondOf(of, who));
  test.same(lost, [500n * OPEN + batch.fees, 100n * OPEN, 100n * OPEN, 0n]);
  test.equal(of.free(honest) - had, OPEN / 2n + (500n * OPEN + batch.fees) / 10n, 'the finder has its part');
  test.equal(inference.sessionOf(of.host, 0n as SessionId)!.settled, 0n, 'the payer has everything back');
  test.ok(of.balanced());
});

t.test('silence, kept-back verdicts and what cannot be had', async (test) => {
  const of = await audited();
  test.teardown(of.close);
  of.settle(1, 3);
  const { audit, auditors } = of.drawn();
  of.disclose(audit);
  const [_silent, keeping, absent] = auditors as [AccountId, AccountId, AccountId];
  const bonds = auditors.map((who) => bondOf(of, who));
  of.commit(audit, keeping, true);
  of.does(absent, 'Audits', 'abstain', { audit });
  test.equal(of.fails(absent, 'Audits', 'abstain', { audit }), 'Audits.AlreadyCommitted');
  test.equal(of.fails(payer, 'Audits', 'abstain', { audit }), 'Audits.NotAuditor');
  of.next(auditStore.Audits.get(of.host, audit)!.commitUntil + 1);
  const other = { audit, faulty: false, salt };
  test.equal(of.fails(keeping, 'Audits', 'reveal', other), 'Audits.OtherCommitment', 'another verdict than promised');
  of.next(auditStore.Audits.get(of.host, audit)!.revealUntil);
  const second = eventOf(of, 'Audits.Drawn').auditors as AccountId[];
  of.round(
    audit,
    second.map((who) => [who, false] as const),
  );
  const lost = auditors.map((who, at) => bonds[at]! - bondOf(of, who));
  test.same(lost, [10n * OPEN, 100n * OPEN, 0n], 'what was attested to be there could be had: it earns nothing');
  // The accused says nothing: no vote is needed.
  const { batch } = of.settle(10, 2);
  const next = of.drawn();
  const bond = bondOf(of, worker);
  of.next(auditStore.Audits.get(of.host, next.audit)!.revealUntil);
  test.equal(bond - bondOf(of, worker), 500n * OPEN + batch.fees);
  test.ok(of.balanced());
  const vote = (...votes: Vote[]) => ({ votes, mayContest: false, withheld: false });
  test.equal(outcomeOf(vote('Unavailable', 'Unavailable', 'Sound')), 'Undecided');
  test.equal(outcomeOf({ ...vote('Unavailable', 'Unavailable', 'Sound'), withheld: true }), 'Faulty');
  test.equal(outcomeOf({ ...vote('Sound', 'Silent', 'Silent'), mayContest: true }), 'Contested');
  test.equal(reckon('Unavailable', 'Faulty', true), 'Paid');
});

t.test('somebody pays for an audit: once at a time, while the window is open', async (test) => {
  const of = await audited({ rate: 0 });
  test.teardown(of.close);
  const { id } = of.settle(1, 3);
  const subject = { type: 'Batch', value: id };
  const had = of.free(challenger);
  of.does(challenger, 'Attribution', 'request_audit', { subject });
  test.equal(had - of.free(challenger), (3n * OPEN) / 2n);
  test.equal(of.fails(payer, 'Attribution', 'request_audit', { subject }), 'Attribution.InAudit');
  const { audit } = of.drawn();
  const bond = bondOf(of, worker);
  of.next(auditStore.Audits.get(of.host, audit)!.revealUntil);
  const taken = bond - bondOf(of, worker);
  test.equal(of.free(challenger) - had, taken / 10n - (3n * OPEN) / 2n, 'it has the finder’s part');
  test.equal(of.fails(payer, 'Attribution', 'request_audit', { subject }), 'Attribution.UnknownBatch');
});

// ---- what is paid ----------------------------------------------------------------------------------------------

t.test('what was not attested to be there is not paid, and is struck after a while', async (test) => {
  const of = await ledger();
  test.teardown(of.close);
  of.train();
  const adapter = () => models.adapterOf(of.host, 0 as AdapterId).status.type;
  of.wait(60);
  test.equal(adapter(), 'Pending');
  of.attest();
  of.wait(64);
  test.equal(adapter(), 'Live', 'late is not too late');
  of.does(worker, 'Inference', 'serve', { adapter: 0 });
  of.does(payer, 'Inference', 'open_session', { key: account('Session'), deposit: 30n * OPEN });
  of.does(payer, 'Inference', 'allocate', { session: 0n, worker, amount: 20n * OPEN });
  const { batch } = of.batchOf(of.answers(models.receiptOf(of.host, 0 as AdapterId).payload, 1, 5));
  of.does(worker, 'Attribution', 'settle', of.signedBatch(batch));
  const bond = bondOf(of, worker);
  of.wait(1_040);
  test.equal(bond - bondOf(of, worker), 500n * OPEN + batch.fees);
  test.equal(of.fails(batch.totals[0]!.contributor, 'Attribution', 'claim'), 'Attribution.NothingToClaim');
  test.equal(inference.sessionOf(of.host, 0n as SessionId)!.settled, 0n);
  test.ok(of.balanced());
});

t.test('settlements that are worth nothing, pay strangers or are not covered', async (test) => {
  const of = await ledger();
  test.teardown(of.close);
  const training = of.serve(2_000n * OPEN);
  const { batch } = of.batchOf(of.answers(training, 1, 4));
  const settle = (change: Partial<ReceiptBatch>) =>
    of.fails(worker, 'Attribution', 'settle', of.signedBatch({ ...batch, ...change }));
  const promise = { ...batch.voucher.payload, cumulative: 1_900n * OPEN };
  const rich = { payload: promise, signature: sign('Session', hashOf(hashing, voucher, promise)) };
  test.equal(settle({ fees: 0n, pool: 0n, remainder: 0n, totals: [] }), 'Attribution.EmptyBatch');
  test.equal(
    settle({ remainder: 0n, totals: [{ contributor: payer, amount: batch.pool }] }),
    'Attribution.NotContributor',
  );
  const fees = 1_000n * OPEN;
  const pool = (fees * 4n) / 10n;
  test.equal(settle({ fees, pool, remainder: pool, totals: [], voucher: rich }), 'Compute.NotCovered');
  test.equal(settle({}), undefined);
});

t.test(
  'a batch with 4,096 totals is paid in pieces, to the last unit, and cannot be struck meanwhile',
  async (test) => {
    const of = await ledger();
    test.teardown(of.close);
    const training = of.serve();
    const people = Array.from({ length: 4_096 }, (_, i) => asAccountId(hashing.blake2_256(encode(u32, i))));
    people.sort((a, b) => Buffer.compare(a, b));
    const { datanet, version } = training.snapshot;
    const [range] = datanets.store.Ranges.get(of.host, [datanet as DatanetId, version])!;
    const ranges = people.map((contributor, at) => ({ ...range!, contributor, batch: at }));
    datanets.store.Ranges.insert(of.host, [datanet as DatanetId, version], ranges);
    const { batch } = of.batchOf(of.answers(training, 1, 4));
    const each = batch.pool / 4_096n;
    const large = {
      ...batch,
      totals: people.map((contributor) => ({ contributor, amount: each })),
      remainder: batch.pool - each * 4_096n,
    };
    of.does(worker, 'Attribution', 'settle', of.signedBatch(large));
    of.attest();
    const { until } = attributionStore.Batches.get(of.host, 0n as never)!;
    of.next(until - 1);
    let blocks = 0;
    let most = 0;
    while (!names(of).includes('Attribution.Paid') && blocks < 30) {
      of.next();
      blocks++;
      most = Math.max(most, names(of).filter((name) => name === 'Attribution.Earned').length);
      const consumed = system.consumed(of.host).mandatory.refTime;
      test.ok(consumed < 200n * 10n ** 9n, `${consumed} of weight`);
      const request = { subject: { type: 'Batch', value: 0n } };
      test.equal(of.fails(payer, 'Attribution', 'request_audit', request), 'Attribution.UnknownBatch');
    }
    test.ok(blocks > 1 && most < 2_500, `${blocks} blocks, up to ${most} totals in one`);
    const earned = people.map((who) => attributionStore.Rewards.get(of.host, who).claimable);
    test.ok(earned.every((amount) => amount === each));
    test.ok(of.balanced());
  },
);

t.test('strangers cannot keep others from settling', async (test) => {
  const of = await ledger();
  test.teardown(of.close);
  const training = of.serve(100n * OPEN);
  // More windows than 64 a block ever were, in one block.
  for (let i = 0; i < 80; i++) {
    const { batch } = of.batchOf(of.answers(training, 1 + i, 1));
    of.does(worker, 'Attribution', 'settle', of.signedBatch(batch));
  }
  of.attest();
  const { until } = attributionStore.Batches.get(of.host, 79n as never)!;
  of.next(until - 1);
  let blocks = 0;
  while (attributionStore.Batches.has(of.host, 79n as never) && blocks < 40) {
    of.next();
    blocks++;
    test.ok(system.consumed(of.host).mandatory.refTime < 200n * 10n ** 9n);
  }
  test.ok(blocks > 0 && blocks < 40, `${blocks} blocks`);
});

t.test('a strike that fails is tried again, and the work is not paid', async (test) => {
  const of = await audited();
  test.teardown(of.close);
  const { batch, id } = of.settle(1, 3);
  const { audit } = of.drawn();
  // Bytes that mean nothing where the accused's bond lies: the strike throws what no pallet throws.
  const key = compute.store.Workers.key(of.host, worker);
  const before = of.host.get(key)!;
  of.next(auditStore.Audits.get(of.host, audit)!.revealUntil - 1);
  of.host.put(key, new Uint8Array([1, 2, 3]));
  of.next();
  test.ok(names(of).includes('Work.ItemFailed'));
  test.ok(attributionStore.Batches.has(of.host, id as never));
  of.host.put(key, before);
  of.wait(2);
  test.notOk(attributionStore.Batches.has(of.host, id as never));
  test.equal(bondOf(of, worker), 2_000n * OPEN - 500n * OPEN - batch.fees);
});

t.test('a batch can be struck whatever has become of its payer', async (test) => {
  const of = await audited();
  test.teardown(of.close);
  const { batch, id } = of.settle(1, 3);
  const { audit } = of.drawn();
  attributionStore.Batches.mutate(of.host, id as never, (found) => found && { ...found, payer: account('Gone') });
  of.next(auditStore.Audits.get(of.host, audit)!.revealUntil);
  test.notOk(attributionStore.Batches.has(of.host, id as never));
  test.equal(bondOf(of, worker), 2_000n * OPEN - 500n * OPEN - batch.fees);
  test.ok(of.balanced());
});

// ---- challenges ------------------------------------------------------------------------------------------------

t.test('a challenge that was copied out of the pool brings its copier nothing', async (test) => {
  const of = await ledger();
  test.teardown(of.close);
  const training = of.serve();
  const receipts = of.answers(training, 1, 2);
  const { batch, sums } = of.batchOf(receipts);
  // The sums claim a unit more than the receipts.
  const wrong = { ...batch, fees: batch.fees + 1n };
  const raised = { ...batch.voucher.payload, cumulative: batch.voucher.payload.cumulative + 1n };
  const lie = { ...wrong, voucher: { payload: raised, signature: sign('Session', hashOf(hashing, voucher, raised)) } };
  of.does(worker, 'Attribution', 'settle', of.signedBatch(lie));
  const of1 = { item: sums.items.at(-1)!, proof: facts.proveItem(sums.items, 1) };
  const shown = { type: 'ItemTotal', value: { item: of1 } } as const;
  const told = contentHash(hashing, attribution.batchFinding, { batch: 0n as never, challenge: shown });
  const early = findingHash(hashing, { finder: challenger, salt, content: told });
  of.does(challenger, 'Commitments', 'commit', { commitment: early });
  of.wait(3);
  const [copier, bond] = [of.free(payer), bondOf(of, worker)];
  of.does(payer, 'Attribution', 'challenge_batch', { batch: 0n, challenge: shown, salt });
  test.notOk(attributionStore.Batches.has(of.host, 0n as never), 'it is struck all the same');
  test.ok(of.free(payer) - copier < OPEN, 'but the copier is not paid');
  test.equal(bond - bondOf(of, worker), 500n * OPEN + lie.fees);
  // Said by the one who committed to it.
  const more = of.answers(training, 10, 2);
  const second = of.batchOf(more);
  const last = { ...second.batch.voucher.payload, cumulative: second.batch.voucher.payload.cumulative + 1n };
  of.does(
    worker,
    'Attribution',
    'settle',
    of.signedBatch({
      ...second.batch,
      fees: second.batch.fees + 1n,
      voucher: { payload: last, signature: sign('Session', hashOf(hashing, voucher, last)) },
    }),
  );
  const item = { item: second.sums.items.at(-1)!, proof: facts.proveItem(second.sums.items, 1) };
  const challenge = { type: 'ItemTotal', value: { item } } as const;
  const content = contentHash(hashing, attribution.batchFinding, { batch: 1n as never, challenge });
  of.does(challenger, 'Commitments', 'commit', {
    commitment: findingHash(hashing, { finder: challenger, salt, content }),
  });
  of.wait(3);
  const had = of.free(challenger);
  of.does(challenger, 'Attribution', 'challenge_batch', { batch: 1n, challenge, salt });
  test.ok(of.free(challenger) - had > 50n * OPEN, 'has its part');
  test.ok(of.balanced());
});

t.test('parameters have bounds', async (test) => {
  const of = await ledger();
  test.teardown(of.close);
  const { initial } = (await import('../../../runtime/pallets/ledger/audits/store.ts')).parameters;
  const set = (change: object) =>
    of.dispatch(make('Audits', 'set_parameters', { parameters: { ...initial, ...change } })).error;
  test.equal(set({}), undefined);
  for (const bad of [
    ...[{ auditors: 0 }, { auditors: 8 }, { rate: 1_000_000_001 }, { commitBlocks: 1 }, { revealBlocks: 1 }],
    ...[{ commitBlocks: 2 ** 32 - 1 }, { revealBlocks: 2 ** 32 - 1 }, { fee: 10n ** 30n }],
  ])
    test.equal(set(bad), 'Audits.BadParameters');
  const { initial: shipped } = (await import('../../../runtime/pallets/ledger/attribution/store.ts')).parameters;
  const put = (change: object) =>
    of.dispatch(make('Attribution', 'set_parameters', { parameters: { ...shipped, ...change } })).error;
  test.equal(put({}), undefined);
  for (const bad of [
    ...[{ windowBlocks: 0 }, { windowBlocks: 2 ** 32 - 1 }, { slash: 0n }, { finderReward: 600_000_000 }],
    ...[{ challengeFee: 0n }, { noveltyFloor: 1 }, { graceBlocks: 2 ** 32 - 1 }],
  ])
    test.equal(put(bad), 'Attribution.BadParameters');
  test.equal(of.free(TREASURY) > 0n, true);
});
