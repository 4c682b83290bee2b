/** Datanets: what contributors, curators and finders may do, and what strangers cannot. */
import t from 'tap';
import * as blobs from '../../../runtime/pallets/ledger/blobs.ts';
import { MIN_AGE } from '../../../runtime/pallets/ledger/commitments.ts';
import * as datanets from '../../../runtime/pallets/ledger/datanets.ts';
import { contentHash, findingHash } from '../../../runtime/primitives/attribution/findings.ts';
import type { DatanetId } from '../../../runtime/primitives/attribution/ids.ts';
import { MAX_CONTRIBUTORS, MAX_ROWS } from '../../../runtime/primitives/attribution/limits.ts';
import { leafHash, proveRange } from '../../../runtime/primitives/attribution/merkle.ts';
import { batchRoot } from '../../../runtime/primitives/attribution/records.ts';
import { toHex, utf8 } from '../../../runtime/primitives/bytes.ts';
import { BYTE_DEPOSIT, stateDeposit } from '../../../runtime/primitives/deposit.ts';
import { TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import { type AccountId, ZERO_HASH } from '../../../runtime/primitives/types.ts';
import { random as seeded, someHash } from '../attribution/world.ts';
import { make, OPEN } from '../pallets/world.ts';
import { account, challenger, facts, hashing, ledger, owner, payer, second, third, worker } from './world.ts';

const [mallory, victim] = ['Mallory', 'Victim'].map(account) as [AccountId, AccountId];
const NET = 1 as DatanetId;
const CURATED = {
  name: 'law',
  description: '',
  schema: '',
  licence: 'CC0-1.0',
  admission: { type: 'Curated' },
  stake: 5n * OPEN,
  dedupThreshold: 52_429,
  accessPrice: 0n,
};
const line = (text: string) => utf8(`{"text":"${text}"}`);
const leaves = (lines: readonly Uint8Array[]) => lines.map((each) => leafHash(hashing, 'records', each));
const proof = (lines: readonly Uint8Array[], at: number) => proveRange(hashing, 'records', leaves(lines), at);

/** A second Datanet, of the owner's, and two accounts more. */
async function world(terms: object = {}, others?: object) {
  const of = await ledger(others === undefined ? {} : { others: others as never });
  of.does(owner, 'Datanets', 'create', { ...CURATED, ...terms });
  for (const who of [mallory, victim]) {
    of.does(owner, 'Balances', 'transfer_keep_alive', { dest: { type: 'Id', value: who }, value: 1_000n * OPEN });
  }
  const batch = (by: AccountId, name: string, lines: readonly Uint8Array[], change: object = {}) => ({
    ...{ id: NET, terms: of.termsOf(NET), blob: someHash(name), bytes: 500n, records: lines.length },
    ...{ root: batchRoot(hashing, by, leaves(lines)), sketches: ZERO_HASH, maxStake: 5n * OPEN },
    ...change,
  });
  const net = () => datanets.datanetOf(of.host, NET)!;
  const batchAt = (index: number) => datanets.manifestOf(of.host, NET, index);
  return { ...of, batch, net, batchAt };
}
type Of = Awaited<ReturnType<typeof world>>;

/** Commits to a finding and shows it when the commitment is old enough. */
function find(of: Of, who: AccountId, fault: unknown, salt = new Uint8Array(32).fill(7)): string | undefined {
  const content = contentHash(hashing, datanets.recordFinding, { id: NET, fault } as never);
  of.does(who, 'Commitments', 'commit', { commitment: findingHash(hashing, { finder: who, salt, content }) });
  of.wait(MIN_AGE);
  return of.fails(who, 'Datanets', 'dispute_record', { id: NET, fault, salt });
}

t.test('a Datanet’s rules', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const { does, fails, batch } = of;
  for (const bad of [
    { name: '' },
    { name: 'two\nlines' },
    { name: 'right \u202eot tfel' },
    { name: 'zero\u200bwidth' },
    { licence: '' },
    { description: 'a \u0007 bell' },
    { dedupThreshold: 32_767 },
  ])
    test.equal(fails(owner, 'Datanets', 'create', { ...CURATED, ...bad }), 'Datanets.BadTerms', JSON.stringify(bad));
  const words = line('the same words stand here as there they stand');
  const bad = utf8('{"text": "a space too many"}');
  const first = [words, line('something else entirely, so to speak')];
  const contribute = (by: AccountId, value: object) => fails(by, 'Datanets', 'contribute', value);
  test.equal(contribute(payer, { ...batch(payer, 'x', first), id: 9 }), 'Datanets.UnknownDatanet');
  test.equal(contribute(payer, { ...batch(payer, 'x', first), records: 0 }), 'Datanets.EmptyBatch');
  test.equal(contribute(payer, { ...batch(payer, 'x', first), bytes: 5n }), 'Datanets.EmptyBatch');
  const many = { records: MAX_ROWS + 1, bytes: 10n * BigInt(MAX_ROWS) };
  test.equal(contribute(payer, { ...batch(payer, 'x', first), ...many }), 'Datanets.EmptyBatch');
  test.equal(contribute(payer, { ...batch(payer, 'x', first), bytes: 1n << 40n }), 'Blobs.TooLarge');
  const reserved = of.reserved(payer);
  does(payer, 'Datanets', 'contribute', batch(payer, 'one', first));
  const deposits = 500n * BYTE_DEPOSIT + stateDeposit(2, 64 + 44) + stateDeposit(4, 400);
  test.equal(of.reserved(payer) - reserved, 5n * OPEN + deposits, 'stake, bytes and entries are on hold');
  test.equal(contribute(payer, batch(payer, 'one', first)), 'Datanets.AlreadyCommitted');
  test.equal(fails(owner, 'Datanets', 'curate', { id: NET, batches: [0], admit: true }), 'Datanets.AlreadyDecided');
  of.attest();
  test.equal(of.batchAt(0)?.status.type, 'Pending', 'validators hold it: now whoever decides decides');
  test.equal(fails(owner, 'Datanets', 'snapshot', { id: NET, maxBatches: 10 }), 'Datanets.NothingAdmitted');
  const admit = { id: NET, batches: [0], admit: true };
  test.equal(fails(second, 'Datanets', 'curate', admit), 'Datanets.NotCurator');
  const held = of.reserved(owner);
  does(owner, 'Datanets', 'set_curator', { id: NET, curator: second, allowed: true });
  test.equal(of.reserved(owner) - held, OPEN / 10n, 'a curator’s entry has a deposit');
  does(second, 'Datanets', 'curate', admit);
  test.equal(fails(second, 'Datanets', 'curate', admit), 'Datanets.AlreadyDecided');

  const copied = [bad, words];
  does(third, 'Datanets', 'contribute', batch(third, 'two', copied));
  of.attest();
  does(second, 'Datanets', 'curate', { id: NET, batches: [0, 1, 7], admit: true });
  const evidence = (at: number) => ({ batch: 1, line: copied[at]!, proof: proof(copied, at) });
  const earlier = { batch: 0, line: words, proof: proof(first, 0) };
  const dispute = (fault: unknown) =>
    fails(challenger, 'Datanets', 'dispute_record', { id: NET, fault, salt: undefined });
  const duplicate = (record: unknown, other: unknown) => ({ type: 'Duplicate', value: { record, earlier: other } });
  test.equal(dispute({ type: 'Malformed', value: evidence(1) }), 'Datanets.NotProven');
  test.equal(dispute({ type: 'Malformed', value: { ...evidence(0), line: first[1] } }), 'Datanets.BadProof');
  test.equal(dispute(duplicate(earlier, evidence(1))), 'Datanets.NotEarlier');
  const [had, lost] = [of.free(challenger), of.reserved(third)];
  test.equal(find(of, challenger, duplicate(evidence(1), earlier)), undefined);
  test.equal(of.free(challenger) - had, (5n * OPEN) / 2n, 'half the stake is the finder’s');
  test.equal(lost - of.reserved(third), 5n * OPEN + deposits, 'in no snapshot: the deposits go back');
  test.equal(fails(third, 'Datanets', 'release_stake', { id: NET, batch: 1 }), 'Datanets.UnknownBatch');
  const [, , taken] = does(owner, 'Datanets', 'snapshot', { id: NET, maxBatches: 10 }).map(({ value }) => value);
  test.equal(taken?.count ?? datanets.snapshotOf(of.host, NET, 0)?.count, 2, 'the struck batch is not part of it');
  test.ok(of.balanced());
});

t.test('nobody pays more than was signed for', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const { does, fails } = of;
  const signed = of.batch(victim, 'work', [line('a record that nobody had before')]);
  const had = of.free(victim);
  does(owner, 'Datanets', 'set_terms', { id: NET, stake: 900n * OPEN, accessPrice: 0n, admission: { type: 'Open' } });
  test.equal(fails(victim, 'Datanets', 'contribute', signed), 'Datanets.StakeTooHigh');
  test.equal(of.free(victim), had);
  does(owner, 'Datanets', 'set_terms', { id: NET, stake: OPEN, accessPrice: 0n, admission: { type: 'Open' } });
  does(victim, 'Datanets', 'contribute', signed);
  test.equal(of.batchAt(0)?.stake, OPEN, 'what is on the chain holds, where it is less');
  // Another Datanet under the number that was signed for, as after a reorganisation of the chain.
  test.equal(
    fails(victim, 'Datanets', 'contribute', { ...of.batch(victim, 'more', [line('more')]), terms: of.termsOf(0) }),
    'Datanets.OtherTerms',
  );
});

t.test(
  'a contribution that is copied out of the pool gives the copier nothing, and costs its maker nothing',
  async (test) => {
    const of = await world({ admission: { type: 'Open' } });
    test.teardown(of.close);
    const { does, fails } = of;
    const lines = [
      line('what the victim wrote in a year of work'),
      line('and a second record of it, which is as dear'),
    ];
    const honest = of.batch(victim, 'the victim’s bytes', lines);
    // First the manifest as it is, then its root under a junk blob: both before the victim's.
    does(mallory, 'Datanets', 'contribute', honest);
    does(mallory, 'Datanets', 'contribute', { ...honest, blob: someHash('junk') });
    test.equal(fails(victim, 'Datanets', 'contribute', honest), undefined, 'nobody is in the way');
    const [copy, junk, mine] = [0, 1, 2].map((index) => of.batchAt(index)!);
    // Validators attest what the file says (`batch-check`): under Mallory's name that root is not the file's.
    of.attest([mine!.claim]);
    test.same(
      [0, 1, 2].map((index) => of.batchAt(index)?.status.type),
      ['Waiting', 'Waiting', 'Admitted'],
    );
    // The victim has uploaded its records: Mallory knows them now.
    const fault = (batch: number) => ({
      type: 'Duplicate',
      value: {
        record: { batch: 2, line: lines[0]!, proof: proof(lines, 0) },
        earlier: { batch, line: lines[0]!, proof: proof(lines, 0) },
      },
    });
    for (const batch of [0, 1]) {
      test.equal(find(of, mallory, fault(batch), new Uint8Array(32).fill(batch)), 'Datanets.NotEarlier');
    }
    // Even if validators had been wrong about it, nothing can be proven with another's root.
    of.attest([copy!.claim, junk!.claim]);
    for (const batch of [0, 1])
      test.equal(find(of, mallory, fault(batch), new Uint8Array(32).fill(9 - batch)), 'Datanets.BadProof');
    does(owner, 'Datanets', 'curate', { id: NET, batches: [0, 1], admit: false });
    does(owner, 'Datanets', 'snapshot', { id: NET, maxBatches: 10 });
    const ranges = datanets.store.Ranges.get(of.host, [NET, 0])!;
    test.same(
      ranges.map(({ contributor }) => toHex(contributor)),
      [toHex(victim)],
    );
    // Whoever contributes the published records again is the later one, and loses its stake.
    const again = of.batch(mallory, 'the same again', lines);
    does(mallory, 'Datanets', 'contribute', again);
    of.attest();
    const index = of.net().batches - 1;
    const copied = { batch: index, line: lines[0]!, proof: proof(lines, 0) };
    const original = { batch: 2, line: lines[0]!, proof: proof(lines, 0) };
    const had = of.free(victim);
    test.equal(find(of, victim, { type: 'Duplicate', value: { record: copied, earlier: original } }), undefined);
    test.equal(of.free(victim) - had, (5n * OPEN) / 2n);
    test.ok(of.balanced());
  },
);

t.test('whoever copies a dispute out of the pool gets nothing for it', async (test) => {
  const of = await world({ admission: { type: 'Open' } });
  test.teardown(of.close);
  const { does, fails } = of;
  const bad = [utf8('{"text": "a space too many"}')];
  for (const name of ['one', 'two', 'three']) does(third, 'Datanets', 'contribute', of.batch(third, name, bad));
  of.attest();
  const fault = (batch: number) => ({ type: 'Malformed', value: { batch, line: bad[0]!, proof: proof(bad, 0) } });
  const salt = new Uint8Array(32).fill(3);
  const commit = (who: AccountId, batch: number) => {
    const content = contentHash(hashing, datanets.recordFinding, { id: NET, fault: fault(batch) } as never);
    return fails(who, 'Commitments', 'commit', { commitment: findingHash(hashing, { finder: who, salt, content }) });
  };
  const show = (who: AccountId, batch: number, with_: Uint8Array | undefined = salt) =>
    fails(who, 'Datanets', 'dispute_record', { id: NET, fault: fault(batch), salt: with_ });
  const reserved = of.reserved(victim);
  test.equal(commit(victim, 0), undefined);
  test.equal(commit(victim, 0), 'Commitments.AlreadyCommitted');
  test.ok(of.reserved(victim) > reserved, 'a commitment has a deposit');
  of.wait(MIN_AGE);
  // The victim's dispute is in the pool: Mallory shows it first, with a commitment of the same block, or with none.
  test.equal(commit(mallory, 0), undefined);
  const [had, treasury] = [of.free(mallory), of.free(TREASURY)];
  test.equal(show(mallory, 0), undefined, 'the batch is struck');
  test.equal(of.free(mallory), had, 'but nothing is Mallory’s');
  test.equal(of.free(TREASURY) - treasury, 5n * OPEN);
  test.equal(show(victim, 0), 'Datanets.UnknownBatch');
  const content = contentHash(hashing, datanets.recordFinding, { id: NET, fault: fault(0) } as never);
  const commitment = findingHash(hashing, { finder: victim, salt, content });
  test.equal(fails(mallory, 'Commitments', 'withdraw', { commitment }), 'Commitments.UnknownCommitment');
  does(victim, 'Commitments', 'withdraw', { commitment });
  test.equal(of.reserved(victim), reserved, 'what came too late has its deposit back');

  // Another's commitment is no commitment, nor is one with another salt.
  test.equal(commit(victim, 1), undefined);
  of.wait(MIN_AGE);
  test.equal(show(mallory, 1), undefined);
  test.equal(of.free(mallory) < had + OPEN, true);
  test.equal(commit(victim, 2), undefined);
  of.wait(MIN_AGE);
  const before = of.free(victim);
  test.equal(show(victim, 2, new Uint8Array(32)), undefined);
  test.equal(of.free(victim), before);
  test.ok(of.balanced());
});

t.test('strangers cannot fill a Datanet, nor end it', async (test) => {
  const short = { datanets: { availabilityPeriod: 20 } };
  const of = await world({ admission: { type: 'Open' }, stake: 0n }, short);
  test.teardown(of.close);
  const { does, fails, batch } = of;
  does(payer, 'Datanets', 'contribute', batch(payer, 'honest', [line('an honest record')]));
  of.attest();
  const claims = [...blobs.claims(of.host)].length;
  const reserved = of.reserved(mallory);
  // Junk that nobody ever sees, many records that are only claimed among it.
  for (let i = 0; i < 60; i++) {
    const claimed = i % 3 === 0 ? { records: MAX_ROWS, bytes: 3n * BigInt(MAX_ROWS) } : {};
    does(mallory, 'Datanets', 'contribute', batch(mallory, `junk ${i}`, [line(`junk ${i}`)], claimed));
  }
  test.ok(of.reserved(mallory) - reserved > 60n * stateDeposit(6, 500), 'all of it has deposits');
  does(owner, 'Datanets', 'snapshot', { id: NET, maxBatches: 10 });
  test.equal(datanets.snapshotOf(of.host, NET, 0)?.ranges, 1, 'what nobody holds is in no snapshot');
  of.wait(25);
  test.equal(of.net().entries, 1, 'it fell out by itself');
  test.equal(of.reserved(mallory), reserved, 'at no cost but fees');
  test.equal([...blobs.claims(of.host)].length, claims, 'nodes are free of it');
  test.equal(of.batchAt(0)?.status.type, 'Admitted');

  // Records that are there fill the room in snapshots; the owner makes room again, many batches at a time.
  const big = { records: MAX_ROWS - 1, bytes: 3n * BigInt(MAX_ROWS) };
  does(mallory, 'Datanets', 'contribute', batch(mallory, 'real junk', [line('junk')], big));
  of.attest();
  test.equal(of.net().admitted, MAX_ROWS);
  does(payer, 'Datanets', 'contribute', batch(payer, 'late', [line('an honest record that comes late')]));
  of.attest();
  const late = of.net().batches - 1;
  test.equal(of.batchAt(late)?.status.type, 'Pending', 'no room: it waits, and nothing fails');
  test.equal(fails(owner, 'Datanets', 'curate', { id: NET, batches: [late], admit: true }), 'Datanets.Full');
  does(owner, 'Datanets', 'curate', { id: NET, batches: [late - 1], admit: false });
  test.equal(of.batchAt(late - 1), undefined);
  does(owner, 'Datanets', 'curate', { id: NET, batches: [late], admit: true });
  does(owner, 'Datanets', 'snapshot', { id: NET, maxBatches: 10 });
  test.same([datanets.snapshotOf(of.host, NET, 1)?.count, of.reserved(mallory)], [2, reserved]);
  // A Datanet that is closed takes nothing.
  does(owner, 'Datanets', 'set_terms', { id: NET, stake: 0n, accessPrice: 0n, admission: { type: 'Closed' } });
  test.equal(fails(mallory, 'Datanets', 'contribute', batch(mallory, 'z', [line('z')])), 'Datanets.ClosedDatanet');
  test.ok(of.balanced());
});

t.test('no snapshot has more contributors than an adapter can', async (test) => {
  const of = await world({ admission: { type: 'Open' }, stake: 0n });
  test.teardown(of.close);
  // All but one of the places are taken.
  datanets.store.Datanets.insert(of.host, NET, { ...of.net(), contributors: MAX_CONTRIBUTORS - 1 });
  for (const who of [mallory, victim]) of.does(who, 'Datanets', 'contribute', of.batch(who, 'a batch', [line('a')]));
  of.does(mallory, 'Datanets', 'contribute', of.batch(mallory, 'another', [line('b')]));
  const [first, second, third_] = [0, 1, 2].map((index) => of.batchAt(index)!.claim);
  for (const claim of [first!, second!, third_!]) of.attest([claim]);
  test.equal(of.net().contributors, MAX_CONTRIBUTORS);
  test.same(
    [0, 1, 2].map((index) => of.batchAt(index)?.status.type),
    ['Admitted', 'Pending', 'Admitted'],
    'a new contributor waits until there is room; one that is there does not',
  );
  const held = of.reserved(owner);
  of.does(owner, 'Datanets', 'snapshot', { id: NET, maxBatches: 2 });
  test.equal(of.reserved(owner) - held, stateDeposit(2, 200 + 76 * 2), 'what it stores has a deposit');
  of.does(owner, 'Datanets', 'curate', { id: NET, batches: [0, 2], admit: false });
  test.equal(of.net().contributors, MAX_CONTRIBUTORS - 1);
  of.does(owner, 'Datanets', 'curate', { id: NET, batches: [1], admit: true });
  test.equal(of.batchAt(1)?.status.type, 'Admitted');
  test.ok(of.balanced());
});

t.test('what is kept has a deposit for as long as it is kept, and leaves the state afterwards', async (test) => {
  const of = await world({ admission: { type: 'Open' } }, { datanets: { stakePeriod: 30 } });
  test.teardown(of.close);
  const { does, fails } = of;
  const before = [owner, payer, third].map(of.reserved);
  does(payer, 'Datanets', 'contribute', of.batch(payer, 'a', [line('a')], { bytes: 1n << 30n }));
  does(third, 'Datanets', 'contribute', of.batch(third, 'b', [line('b')]));
  of.attest();
  test.equal(fails(payer, 'Datanets', 'withdraw_batch', { id: NET, batch: 0 }), 'Datanets.StakeLocked');
  test.equal(fails(third, 'Datanets', 'withdraw_batch', { id: NET, batch: 0 }), 'Datanets.NotContributor');
  of.wait(30);
  const held = of.reserved(payer);
  does(payer, 'Datanets', 'release_stake', { id: NET, batch: 0 });
  test.equal(held - of.reserved(payer), 5n * OPEN, 'the stake alone');
  test.ok(of.reserved(payer) > before[1]! + (1n << 30n) * BYTE_DEPOSIT, 'the bytes are still there');
  does(owner, 'Datanets', 'snapshot', { id: NET, maxBatches: 10 });
  does(payer, 'Datanets', 'withdraw_batch', { id: NET, batch: 0 });
  test.match(of.batchAt(0)?.status, { type: 'Out', value: { from: 1, struck: false } });
  test.ok(blobs.isExpected(of.host, someHash('a'), 1n << 30n), 'the snapshot still names it');
  const prune = () => fails(mallory, 'Datanets', 'prune_batches', { id: NET, batches: [0, 1] });
  test.equal(prune(), 'Datanets.StillNamed');
  does(owner, 'Datanets', 'snapshot', { id: NET, maxBatches: 10 });
  const drop = (who: AccountId, version: number) => fails(who, 'Datanets', 'drop_snapshot', { id: NET, version });
  test.equal(drop(mallory, 0), 'Datanets.NotCurator');
  datanets.useSnapshot(of.host, NET, 0, 1);
  test.equal(drop(owner, 0), 'Datanets.InUse', 'an order trains on it');
  datanets.useSnapshot(of.host, NET, 0, -1);
  test.equal(drop(owner, 0), undefined);
  test.equal(drop(owner, 0), 'Datanets.UnknownSnapshot');
  test.equal(prune(), undefined);
  test.equal(of.reserved(payer), before[1], 'everything is back');
  test.notOk(blobs.isExpected(of.host, someHash('a'), 1n << 30n));
  test.equal(fails(owner, 'Datanets', 'close', { id: NET }), 'Datanets.InUse');
  does(owner, 'Datanets', 'curate', { id: NET, batches: [1], admit: false });
  test.equal(drop(owner, 1), undefined);
  test.equal(prune(), undefined);
  const deposit = of.reserved(owner);
  does(owner, 'Datanets', 'close', { id: NET });
  test.equal(deposit - of.reserved(owner), 10n * OPEN);
  test.same([of.net(), of.reserved(third)], [undefined, before[2]]);
  for (const item of ['Batches', 'Committed', 'Admitted', 'Contributors', 'Snapshots', 'Ranges'] as const) {
    test.same([...datanets.store[item].keys(of.host, [NET])], [], `${item} has nothing left`);
  }
  test.ok(of.balanced());
});

t.test('a hash whose size somebody else got wrong hinders nobody', async (test) => {
  const of = await world({ admission: { type: 'Open' } });
  test.teardown(of.close);
  const training = facts.training;
  of.does(
    mallory,
    'Datanets',
    'contribute',
    of.batch(mallory, 'x', [line('x')], { blob: someHash('adapter'), bytes: 3n }),
  );
  of.does(owner, 'Models', 'order_training', of.order());
  of.wait(2);
  of.does(worker, 'Compute', 'take_lease', { order: 0 });
  test.ok(training.features.rows > 0);
  test.ok(blobs.isExpected(of.host, someHash('adapter'), 3n));
  const files = [{ hash: someHash('adapter'), bytes: 1_000n }];
  const env = of.env();
  const id = blobs.commit(env, { depositor: worker, purpose: { type: 'Receipts', value: 0n as never }, files });
  env.flush();
  test.ok(blobs.isExpected(of.host, someHash('adapter'), 1_000n), 'both are expected, the bytes decide');
  of.attest([id], 1);
  test.notOk(blobs.isAvailable(of.host, id), 'one of three validators is not enough');
  of.attest([id]);
  test.ok(blobs.isAvailable(of.host, id));
  blobs.release(env, id);
  env.flush();
  test.notOk(blobs.isExpected(of.host, someHash('adapter'), 1_000n));
  test.ok(blobs.isExpected(of.host, someHash('adapter'), 3n), 'another’s claim is untouched');
});

t.test('the costliest dispute takes no longer than it weighs', async (test) => {
  const of = await world({ admission: { type: 'Open' }, dedupThreshold: 65_536 });
  test.teardown(of.close);
  // One-letter words make the most shingles a byte, strings of one letter the most values.
  const random = seeded(5);
  const letters = (count: number) => Array.from({ length: count }, () => random.below(36).toString(36));
  const all = [
    [0, 1].map(() => line(letters(32_700).join(' '))),
    [0, 1].map(() => utf8(JSON.stringify({ t: letters(16_300) }))),
    [0, 1].map(() => line(Array.from({ length: 21_800 }, () => 'éèêëàâä'[random.below(7)]).join(' '))),
  ];
  for (const [i, lines] of all.entries()) {
    of.does(third, 'Datanets', 'contribute', of.batch(third, `long ${i}`, lines, { bytes: 200_000n }));
    of.attest();
    const fault = {
      type: 'Duplicate',
      value: {
        record: { batch: i, line: lines[1]!, proof: proof(lines, 1) },
        earlier: { batch: i, line: lines[0]!, proof: proof(lines, 0) },
      },
    };
    const call = make('Datanets', 'dispute_record', { id: NET, fault, salt: undefined });
    const weighed = Number(of.assembly.infoOf(call).weight.refTime) / 1e9;
    test.equal(of.dispatch(call, challenger).error, 'Datanets.NotProven');
    const start = process.cpuUsage();
    for (let n = 0; n < 10; n++) of.dispatch(call, challenger);
    const { user, system } = process.cpuUsage(start);
    const took = (user + system) / 1e4;
    test.comment(`${lines[0]!.length} bytes: ${took.toFixed(2)} ms where ${weighed.toFixed(2)} are weighed`);
    test.ok(took < 2 * weighed, `${took} ms`);
  }
});
