/** Governance and Treasury: proposals, votes and what they freeze, quorum, delay, enactment, spends. */
import t, { type Test } from 'tap';
import { NONE, ROOT } from '../../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import * as balances from '../../../runtime/pallets/standard/balances.ts';
import * as governance from '../../../runtime/pallets/standard/governance.ts';
import { palletAccount, TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import { encode } from '../../../runtime/primitives/scale/codec.ts';
import type { AccountId } from '../../../runtime/primitives/types.ts';
import {
  ALICE,
  BOB,
  CHARLIE,
  createWorld,
  DAVE,
  ENDOWMENT,
  EVE,
  genesisOf,
  make,
  OPEN,
  person,
  remark,
  to,
  transfer,
  type World,
} from './world.ts';

/** Five accounts of 1,000 OPEN and what little other pallets begin with: the quorum is just above 500. */
const RULES = {
  depositBase: OPEN,
  depositPerByte: OPEN / 1_000n,
  votingPeriod: 10,
  enactmentDelay: 5,
  quorum: 100_000_000,
};
const small = () => createWorld(genesisOf({ others: { governance: RULES } }));
const propose = (call: RuntimeCall) => make('Governance', 'propose', { call });
const vote = (proposal: number, aye: boolean, amount: bigint) => make('Governance', 'vote', { proposal, aye, amount });
const close = (proposal: number) => make('Governance', 'close', { proposal });
const unlock = (target: AccountId, proposal: number) => make('Governance', 'unlock', { target: to(target), proposal });
const spend = (amount: bigint, beneficiary: AccountId) =>
  make('Treasury', 'spend_local', { amount, beneficiary: to(beneficiary) });
const depositOf = (world: World, call: RuntimeCall) =>
  RULES.depositBase + RULES.depositPerByte * BigInt(encode(world.assembly.call, call).length);
const refusing = (test: Test, world: World) => (call: RuntimeCall, by: AccountId, error: string) => {
  const before = world.root();
  test.equal(world.dispatch(call, by).error, error.includes('.') ? error : `Governance.${error}`);
  test.equal(world.root(), before, `${error} leaves no trace`);
};

t.test('a proposal from its deposit to its enactment', async (test) => {
  const world = await small();
  test.teardown(world.close);
  const refused = refusing(test, world);
  const issuance = balances.totalIssuance(world.host);
  world.dispatch(transfer(TREASURY, 100n * OPEN), EVE);
  const call = spend(40n * OPEN, person(42));

  test.equal(world.dispatch(propose(call), ROOT).error, 'BadOrigin');
  test.equal(world.dispatch(propose(call), NONE).error, 'BadOrigin');
  refused(propose(call), person(99), 'Token.FundsUnavailable');
  const proposed = world.dispatch(propose(call), ALICE).events.at(-1)!;
  const deposit = depositOf(world, call);
  test.match(proposed, {
    name: 'Governance.Proposed',
    value: {
      proposal: 0,
      proposer: ALICE,
      deposit,
      ends: 11,
      callHash: world.hashing.blake2_256(encode(world.assembly.call, call)),
    },
  });
  test.equal(world.reserved(ALICE), deposit);
  test.equal(world.free(ALICE), ENDOWMENT - deposit);

  refused(vote(1, true, OPEN), BOB, 'NoSuchProposal');
  refused(vote(0, true, 0n), BOB, 'NothingVoted');
  refused(vote(0, true, ENDOWMENT + 1n), BOB, 'InsufficientFunds');
  test.ok(world.dispatch(vote(0, false, 300n * OPEN), BOB).outcome.ok);
  test.equal(world.frozen(BOB), 300n * OPEN);
  refused(transfer(DAVE, 800n * OPEN), BOB, 'Token.Frozen');
  test.ok(world.dispatch(transfer(DAVE, 100n * OPEN), BOB).outcome.ok, 'the rest moves freely');
  refused(vote(0, true, 299n * OPEN), BOB, 'AmountLowered');
  test.ok(world.dispatch(vote(0, true, 400n * OPEN), BOB).outcome.ok, 'sides may change, amounts may grow');
  test.ok(world.dispatch(vote(0, false, 100n * OPEN), CHARLIE).outcome.ok);
  test.ok(world.dispatch(vote(0, true, deposit), ALICE).outcome.ok, 'what is on hold votes too');
  refused(close(0), DAVE, 'VotingOpen');
  refused(unlock(BOB, 0), DAVE, 'VotingOpen');

  world.next(10);
  refused(close(0), DAVE, 'VotingOpen');
  world.next(11);
  refused(vote(0, true, 500n * OPEN), BOB, 'VotingOver');
  const closed = world.dispatch(close(0), DAVE);
  test.match(closed.events.at(-1), {
    name: 'Governance.Passed',
    value: { proposal: 0, ayes: 400n * OPEN + deposit, nays: 100n * OPEN, enactedAt: 16 },
  });
  test.same(closed.outcome.post, { paysFee: false });
  test.equal(world.reserved(ALICE), 0n);
  test.equal(world.free(ALICE), ENDOWMENT, 'the deposit is back, whole');
  refused(close(0), DAVE, 'VotingOver');
  refused(vote(0, true, 500n * OPEN), BOB, 'VotingOver');

  test.ok(world.dispatch(unlock(BOB, 0), DAVE).outcome.ok, 'anybody unlocks what is over');
  test.equal(world.frozen(BOB), 0n);
  refused(unlock(BOB, 0), DAVE, 'NoSuchVote');
  refused(unlock(DAVE, 0), DAVE, 'NoSuchVote');

  world.next(15);
  test.equal(world.free(person(42)), 0n, 'not before its time');
  world.next(16);
  test.equal(world.free(person(42)), 40n * OPEN);
  test.equal(world.free(TREASURY), 60n * OPEN + balances.EXISTENTIAL_DEPOSIT);
  const names = world.events().map(({ name }) => name);
  test.same(
    names.filter((name) => /Treasury|Governance/.test(name)),
    ['Treasury.Awarded', 'Governance.Enacted'],
  );
  refused(close(0), DAVE, 'NoSuchProposal');
  test.ok(world.dispatch(unlock(CHARLIE, 0), CHARLIE).outcome.ok, 'votes on what is gone unlock');
  test.ok(world.dispatch(unlock(ALICE, 0), CHARLIE).outcome.ok);
  test.equal(world.frozen(CHARLIE) + world.frozen(ALICE), 0n);
  test.ok(world.balanced());
  test.equal(balances.totalIssuance(world.host), issuance);
});

t.test('what does not pass, and where its deposit goes', async (test) => {
  const world = await small();
  test.teardown(world.close);
  const calls = [remark('below the quorum'), remark('more against'), remark('a draw'), remark('taken back')];
  for (const call of calls) world.dispatch(propose(call), ALICE);
  const deposits = calls.map((call) => depositOf(world, call));
  const sum = deposits.reduce((a, b) => a + b, 0n);
  test.equal(world.reserved(ALICE), sum);

  world.dispatch(vote(0, true, 500n * OPEN - 1n), BOB);
  world.dispatch(vote(1, true, 200n * OPEN), BOB);
  world.dispatch(vote(1, false, 301n * OPEN), CHARLIE);
  world.dispatch(vote(2, true, 251n * OPEN), BOB);
  world.dispatch(vote(2, false, 251n * OPEN), CHARLIE);
  test.equal(world.frozen(BOB), 500n * OPEN - 1n, 'freezes of several votes overlap');
  const cancel = (id: number) => make('Governance', 'cancel', { proposal: id });
  test.equal(world.dispatch(cancel(3), ALICE).error, 'BadOrigin');
  test.equal(world.dispatch(cancel(3), ROOT).events.at(-1)?.name, 'Governance.Cancelled');
  test.equal(world.dispatch(cancel(3), ROOT).error, 'Governance.NoSuchProposal');
  test.equal(world.reserved(ALICE), sum - deposits[3]!);

  world.next(11);
  const outcome = (id: number) => world.dispatch(close(id), EVE).events.at(-1);
  test.match(outcome(0), { name: 'Governance.Rejected', value: { proposal: 0, quorumReached: false } });
  test.equal(
    world.free(TREASURY),
    balances.EXISTENTIAL_DEPOSIT + deposits[0]!,
    'below the quorum the deposit is lost to the treasury',
  );
  test.match(outcome(1), { name: 'Governance.Rejected', value: { quorumReached: true } });
  test.match(outcome(2), { name: 'Governance.Rejected', value: { quorumReached: true } });
  test.equal(world.reserved(ALICE), 0n);
  test.equal(world.free(ALICE), ENDOWMENT - deposits[0]!);

  world.dispatch(unlock(BOB, 0), BOB);
  test.equal(world.frozen(BOB), 251n * OPEN, 'the largest of what is left');
  world.dispatch(unlock(BOB, 1), BOB);
  world.dispatch(unlock(BOB, 2), BOB);
  test.equal(world.frozen(BOB), 0n);
  test.ok(world.balanced());
});

t.test('limits: calls, votes, agendas; enactments that fail', async (test) => {
  const world = await small();
  test.teardown(world.close);
  const refused = refusing(test, world);
  const long = make('System', 'remark', { remark: new Uint8Array(governance.MAX_CALL_BYTES) });
  refused(propose(long), ALICE, 'CallTooLong');
  const weight = { refTime: governance.MAX_ENACTMENT_WEIGHT.refTime + 1n, proofSize: 0n };
  refused(propose(make('Utility', 'with_weight', { call: remark(), weight })), ALICE, 'CallTooHeavy');

  const count = governance.MAX_VOTES + 1;
  const store = (id: number) =>
    make('System', 'set_storage', { items: [[new Uint8Array([200, id]), new Uint8Array([id])]] });
  for (let id = 0; id < count; id++) {
    // One of them cannot work: root has no account to transfer from.
    test.ok(world.dispatch(propose(id === 1 ? transfer(BOB, OPEN) : store(id)), ALICE).outcome.ok);
    test.equal(world.dispatch(vote(id, true, 600n * OPEN), BOB).error, id < 16 ? undefined : 'Governance.TooManyVotes');
    world.dispatch(vote(id, true, 600n * OPEN), id < 16 ? BOB : CHARLIE);
  }
  test.equal(world.frozen(BOB), 600n * OPEN);
  world.next(11);
  const enactedAt = Array.from(
    { length: count },
    (_, id) => world.dispatch(close(id), EVE).events.at(-1)?.value.enactedAt,
  );
  test.same(enactedAt, [...Array(8).fill(16), ...Array(8).fill(17), 18], 'full agendas spill over');
  const cancelled = world.dispatch(make('Governance', 'cancel', { proposal: 2 }), ROOT);
  test.ok(cancelled.outcome.ok, 'what passed can still be taken back');
  world.next(16);
  const enacted = world.events().filter(({ name }) => name === 'Governance.Enacted');
  test.equal(enacted.length, 7);
  test.match(enacted.find(({ value }) => value.proposal === 1)?.value.result, { error: { type: 'BadOrigin' } });
  test.equal(world.host.get(new Uint8Array([200, 2])), undefined);
  world.next(18);
  for (const id of [0, 3, 7, 8, 16]) test.same(world.host.get(new Uint8Array([200, id])), new Uint8Array([id]));
  const left = [...Array(count).keys()].map((id) => world.dispatch(close(id), EVE).error);
  test.same(new Set(left), new Set(['Governance.NoSuchProposal']), 'nothing of them stays in the state');
  test.ok(world.balanced());
});

t.test('rules change by root alone, and not for what is under way', async (test) => {
  const world = await small();
  test.teardown(world.close);
  world.dispatch(make('Balances', 'force_set_balance', { who: to(TREASURY), newFree: 0n }));
  const issuance = balances.totalIssuance(world.host);
  world.dispatch(propose(remark()), ALICE);
  const set = (parameters: object) => make('Governance', 'set_parameters', { parameters: { ...RULES, ...parameters } });
  test.equal(world.dispatch(set({}), ALICE).error, 'BadOrigin');
  test.equal(world.dispatch(set({ votingPeriod: 0 })).error, 'Governance.BadParameters');
  test.equal(world.dispatch(set({ quorum: 1_000_000_001 })).error, 'Governance.BadParameters');
  test.ok(world.dispatch(set({ depositBase: 0n, depositPerByte: 1n, votingPeriod: 2, quorum: 0 })).outcome.ok);
  test.match(world.dispatch(propose(remark()), BOB).events.at(-1)?.value, { proposal: 1, ends: 3 });
  const deposit = BigInt(encode(world.assembly.call, remark()).length);
  test.equal(world.reserved(BOB), deposit);
  world.next(3);
  test.equal(world.dispatch(close(0), EVE).error, 'Governance.VotingOpen');
  test.match(world.dispatch(close(1), EVE).events.at(-1), {
    name: 'Governance.Rejected',
    value: { quorumReached: true },
  });
  world.dispatch(set({ depositBase: 0n, depositPerByte: 1n, votingPeriod: 1, quorum: 1 }));
  world.dispatch(propose(remark()), BOB);
  world.next(4);
  world.dispatch(close(2), EVE);
  test.equal(
    balances.totalIssuance(world.host),
    issuance - deposit,
    'too little to bring a treasury back to life: burnt',
  );
  test.equal(world.reserved(BOB), 0n);
  test.ok(world.balanced());
});

t.test('the treasury', async (test) => {
  const world = await createWorld();
  test.teardown(world.close);
  test.same(TREASURY, palletAccount('py/trsry'));
  test.equal(world.dispatch(spend(OPEN, BOB), ALICE).error, 'BadOrigin');
  test.equal(world.dispatch(spend(OPEN, BOB)).error, 'Token.FundsUnavailable');
  world.dispatch(transfer(TREASURY, 5n * OPEN), ALICE);
  test.equal(world.dispatch(spend(1n, person(50))).error, 'Token.BelowMinimum');
  test.equal(world.dispatch(spend(5n * OPEN + 1n, BOB)).error, 'Token.NotExpendable', 'it stays alive');
  const before = world.free(BOB);
  test.match(world.dispatch(spend(4n * OPEN, BOB)).events.at(-1), {
    name: 'Treasury.Awarded',
    value: { proposalIndex: 0, award: 4n * OPEN, account: BOB },
  });
  test.match(world.dispatch(spend(OPEN / 2n, BOB)).events.at(-1)?.value, { proposalIndex: 1 });
  test.equal(world.free(BOB), before + 4n * OPEN + OPEN / 2n);
  test.equal(world.free(TREASURY), OPEN / 2n + balances.EXISTENTIAL_DEPOSIT, 'it was there from the genesis on');
  test.ok(world.balanced());
});
