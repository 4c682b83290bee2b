/** Governance, ConvictionVoting and Treasury: proposals and their deposits, votes and what they lock, enactments, spends. */
import polkadot from '@polkadot/types-support/metadata/v15/polkadot-hex';
import t, { type Test } from 'tap';
import { NONE, ROOT } from '../../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import * as balances from '../../../runtime/pallets/standard/balances.ts';
import {
  accountVote,
  balanceOf,
  type Conviction,
  MAX_VOTES,
  sided,
  sideOf,
  tallyOf,
  weighed,
} from '../../../runtime/pallets/standard/conviction-voting/types.ts';
import * as voting from '../../../runtime/pallets/standard/conviction-voting.ts';
import { addTally, NO_VOTES, statusOf, type Tally } from '../../../runtime/pallets/standard/governance/proposals.ts';
import * as governance from '../../../runtime/pallets/standard/governance.ts';
import { STAKING_HOLD } from '../../../runtime/pallets/standard/staking/hold.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { palletAccount, TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import { decode, encode } from '../../../runtime/primitives/scale/codec.ts';
import type { AccountId } from '../../../runtime/primitives/types.ts';
import { Random } from '../../fuzz/random.ts';
import { opaqueMetadataOf, shapesOf } from './shapes.ts';
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
  lockingPeriod: 7,
  quorum: 100_000_000,
};
const small = (rules: object = {}) => createWorld(genesisOf({ others: { governance: { ...RULES, ...rules } } }));
const propose = (call: RuntimeCall) => make('Governance', 'propose', { call });
const cast = (name: string, value?: unknown) => make('ConvictionVoting', name, value);
const standard = (aye: boolean, amount: bigint, conviction: Conviction = 'Locked1x') => ({
  type: 'Standard',
  value: { vote: { aye, conviction }, balance: amount },
});
const vote = (pollIndex: number, aye: boolean, amount: bigint, conviction?: Conviction) =>
  cast('vote', { pollIndex, vote: standard(aye, amount, conviction) });
const delegate = (target: AccountId, amount: bigint, conviction: Conviction = 'Locked1x') =>
  cast('delegate', { class: 0, to: to(target), conviction: { type: conviction }, balance: amount });
const undelegate = cast('undelegate', { class: 0 });
const unlock = (target: AccountId) => cast('unlock', { class: 0, target: to(target) });
const removeVote = (index: number) => cast('remove_vote', { class: 0, index });
const removeOther = (target: AccountId, index: number) =>
  cast('remove_other_vote', { target: to(target), class: 0, index });
const close = (proposal: number) => make('Governance', 'close', { proposal });
const cancel = (proposal: number) => make('Governance', 'cancel', { proposal });
const spend = (amount: bigint, beneficiary: AccountId) =>
  make('Treasury', 'spend_local', { amount, beneficiary: to(beneficiary) });
const bytesOf = (world: World, call: RuntimeCall) => encode(world.assembly.call, call).length;
const bytesDeposit = (world: World, call: RuntimeCall) => RULES.depositPerByte * BigInt(bytesOf(world, call));
const refusing = (test: Test, world: World) => (call: RuntimeCall, by: AccountId, error: string) => {
  const before = world.root();
  test.equal(world.dispatch(call, by).error, error.includes('.') ? error : `ConvictionVoting.${error}`);
  test.equal(world.root(), before, `${error} leaves no trace`);
};
const accepting = (test: Test, world: World) => (call: RuntimeCall, by: AccountId | typeof ROOT) => {
  const done = world.dispatch(call, by);
  test.equal(done.error, undefined, `${call.type}.${call.value.type}`);
  return done.events;
};
const tallyIn = (world: World, id: number) => governance.store.Proposals.get(world.host, id)?.tally;
const eventsNamed = (world: World, name: string) => world.events().filter((each) => each.name === name);

t.test('a proposal from its deposits to its enactment', async (test) => {
  const world = await small();
  test.teardown(world.close);
  const refused = refusing(test, world);
  const accepted = accepting(test, world);
  const issuance = balances.totalIssuance(world.host);
  world.dispatch(transfer(TREASURY, 100n * OPEN), EVE);
  const call = spend(40n * OPEN, person(42));
  const forBytes = bytesDeposit(world, call);

  test.equal(world.dispatch(propose(call), ROOT).error, 'BadOrigin');
  test.equal(world.dispatch(propose(call), NONE).error, 'BadOrigin');
  refused(propose(call), person(99), 'Token.FundsUnavailable');
  test.match(accepted(propose(call), ALICE).at(-1), {
    name: 'Governance.Proposed',
    value: {
      proposal: 0,
      proposer: ALICE,
      deposit: OPEN,
      bytesDeposit: forBytes,
      ends: 11,
      callHash: world.hashing.blake2_256(encode(world.assembly.call, call)),
    },
  });
  test.equal(world.reserved(ALICE), OPEN + forBytes);

  refused(vote(1, true, OPEN), BOB, 'NotOngoing');
  refused(vote(0, true, OPEN - 1n), BOB, 'TooSmall');
  refused(vote(0, true, ENDOWMENT + 1n), BOB, 'InsufficientFunds');
  refused(vote(0, true, ENDOWMENT), ALICE, 'InsufficientFunds');
  accepted(vote(0, false, 300n * OPEN), BOB);
  test.equal(world.frozen(BOB), 300n * OPEN);
  refused(transfer(DAVE, 800n * OPEN), BOB, 'Token.Frozen');
  accepted(transfer(DAVE, 100n * OPEN), BOB);
  accepted(vote(0, true, 600n * OPEN, 'Locked2x'), BOB);
  accepted(vote(0, false, 150n * OPEN, 'Locked3x'), CHARLIE);
  accepted(
    cast('vote', {
      pollIndex: 0,
      vote: { type: 'SplitAbstain', value: { aye: 10n * OPEN, nay: 20n * OPEN, abstain: 30n * OPEN } },
    }),
    DAVE,
  );
  test.same(tallyIn(world, 0), {
    ayes: 1_201n * OPEN,
    nays: 452n * OPEN,
    support: 640n * OPEN,
    turnout: 810n * OPEN,
  });
  refused(close(0), DAVE, 'Governance.VotingOpen');
  accepted(removeVote(0), CHARLIE);
  test.equal(tallyIn(world, 0)?.nays, 2n * OPEN, 'taken back while it counts');
  accepted(unlock(CHARLIE), EVE);
  test.equal(world.frozen(CHARLIE), 0n);

  world.next(10);
  refused(close(0), DAVE, 'Governance.VotingOpen');
  world.next(11);
  test.match(eventsNamed(world, 'Governance.Passed')[0]?.value, { proposal: 0, enactedAt: 16 });
  test.equal(world.reserved(ALICE), forBytes, 'the bytes of the call are still kept');
  refused(close(0), DAVE, 'Governance.VotingOver');
  refused(vote(0, true, 500n * OPEN), BOB, 'NotOngoing');
  world.next(15);
  test.equal(world.free(person(42)), 0n, 'not before its time');
  world.next(16);
  test.equal(world.free(person(42)), 40n * OPEN);
  test.equal(world.free(TREASURY), 60n * OPEN + balances.EXISTENTIAL_DEPOSIT);
  test.equal(world.free(ALICE), ENDOWMENT, 'all deposits are back');
  const names = world.events().map(({ name }) => name);
  test.same(
    names.filter((name) => /Treasury|Governance/.test(name)),
    ['Treasury.Awarded', 'Governance.Enacted'],
  );
  refused(close(0), DAVE, 'Governance.NoSuchProposal');
  test.equal([...governance.store.Calls.entries(world.host)].length, 0);
  test.ok(world.balanced());
  test.equal(balances.totalIssuance(world.host), issuance);
});

t.test('what does not pass, and where its deposits go', async (test) => {
  const world = await small();
  test.teardown(world.close);
  const accepted = accepting(test, world);
  const calls = ['too little turnout', 'more against', 'a draw', 'taken back', 'only nays reach the quorum'].map(
    remark,
  );
  for (const call of calls) accepted(propose(call), ALICE);
  const bytes = calls.map((call) => bytesDeposit(world, call));
  const forBytes = bytes.reduce((a, b) => a + b, 0n);
  test.equal(world.reserved(ALICE), 5n * OPEN + forBytes);

  accepted(vote(0, true, 500n * OPEN - 1n), BOB);
  accepted(vote(1, true, 600n * OPEN), BOB);
  accepted(vote(1, false, 601n * OPEN), CHARLIE);
  accepted(vote(2, true, 600n * OPEN, 'None'), BOB);
  accepted(vote(2, false, 600n * OPEN, 'None'), CHARLIE);
  accepted(vote(4, true, 400n * OPEN, 'Locked6x'), BOB);
  accepted(vote(4, false, 400n * OPEN), CHARLIE);
  test.equal(world.frozen(BOB), 600n * OPEN, 'freezes of several votes overlap');
  test.equal(world.dispatch(cancel(3), ALICE).error, 'BadOrigin');
  test.equal(accepted(cancel(3), ROOT).at(-1)?.name, 'Governance.Cancelled');
  test.equal(world.dispatch(cancel(3), ROOT).error, 'Governance.NoSuchProposal');
  test.equal(world.reserved(ALICE), 4n * OPEN + forBytes - bytes[3]!);

  world.next(11);
  const outcomes = eventsNamed(world, 'Governance.Rejected').map(({ value }) => [value.proposal, value.heard]);
  test.same(outcomes, [
    [0, false],
    [1, true],
    [2, true],
    [4, true],
  ]);
  test.equal(
    world.free(TREASURY),
    balances.EXISTENTIAL_DEPOSIT + OPEN,
    'where nearly nobody votes, the deposit is lost to the treasury',
  );
  test.equal(world.reserved(ALICE), 0n);
  test.equal(world.free(ALICE), ENDOWMENT - OPEN);
  test.equal(governance.store.OpenCount.get(world.host), 0);
  test.ok(world.balanced());
});

t.test(
  'what votes with the decision stays frozen until the enactment, and as long as its conviction says',
  async (test) => {
    const world = await small();
    test.teardown(world.close);
    const refused = refusing(test, world);
    const accepted = accepting(test, world);
    accepted(propose(remark()), ALICE);
    accepted(vote(0, true, 200n * OPEN, 'Locked3x'), BOB);
    const [against] = [person(61)];
    world.dispatch(make('Balances', 'force_set_balance', { who: to(against), newFree: 301n * OPEN }));
    accepted(vote(0, false, 300n * OPEN, 'Locked6x'), against);
    // A loan in the last block of the vote.
    world.next(10);
    accepted(transfer(DAVE, 900n * OPEN), EVE);
    accepted(vote(0, true, 1_800n * OPEN, 'None'), DAVE);
    accepted(delegate(DAVE, 50n * OPEN, 'None'), EVE);
    world.next(11);
    const { enactedAt } =
      eventsNamed(world, 'Governance.Rejected')[0]?.value ?? eventsNamed(world, 'Governance.Passed')[0]!.value;
    test.equal(enactedAt, undefined, 'nays of six times conviction outweigh it');

    accepted(propose(remark()), ALICE);
    accepted(vote(1, true, 200n * OPEN, 'Locked3x'), BOB);
    accepted(vote(1, false, 300n * OPEN), CHARLIE);
    accepted(removeVote(0), DAVE);
    world.next(20);
    accepted(vote(1, true, 1_800n * OPEN, 'None'), DAVE);
    const split = { type: 'Split', value: { aye: 100n * OPEN, nay: 20n * OPEN } };
    accepted(cast('vote', { pollIndex: 1, vote: split }), ALICE);
    refused(removeOther(DAVE, 1), EVE, 'NoPermission');
    world.next(21);
    test.equal(eventsNamed(world, 'Governance.Passed')[0]?.value.enactedAt, 26);

    // The loser is free at once, by anybody's hand.
    accepted(removeOther(CHARLIE, 1), EVE);
    accepted(removeOther(BOB, 0), EVE);
    refused(removeOther(against, 0), EVE, 'NoPermissionYet');
    accepted(unlock(CHARLIE), EVE);
    test.equal(world.frozen(CHARLIE), 0n);
    // Winners are not, whatever they do, with conviction or without.
    refused(removeOther(DAVE, 1), EVE, 'NoPermissionYet');
    refused(removeOther(ALICE, 1), EVE, 'NoPermissionYet');
    for (const who of [DAVE, ALICE, BOB]) {
      accepted(removeVote(1), who);
      accepted(unlock(who), who);
    }
    test.same([world.frozen(DAVE), world.frozen(ALICE), world.frozen(BOB)], [1_800n * OPEN, 120n * OPEN, 200n * OPEN]);
    refused(transfer(EVE, 900n * OPEN), DAVE, 'Token.Frozen');
    // A delegator cannot take away either what its delegate has won with.
    accepted(undelegate, EVE);
    accepted(unlock(EVE), EVE);
    test.equal(world.frozen(EVE), 50n * OPEN);
    world.next(25);
    for (const who of [DAVE, ALICE, EVE]) accepted(unlock(who), BOB);
    test.same([world.frozen(DAVE), world.frozen(ALICE), world.frozen(EVE)], [1_800n * OPEN, 120n * OPEN, 50n * OPEN]);
    world.next(26);
    test.equal(eventsNamed(world, 'Governance.Enacted').length, 1);
    for (const who of [DAVE, ALICE, BOB]) accepted(unlock(who), BOB);
    test.same([world.frozen(DAVE), world.frozen(ALICE), world.frozen(BOB)], [0n, 0n, 200n * OPEN]);
    accepted(transfer(EVE, 900n * OPEN), DAVE);
    world.next(21 + 7);
    accepted(unlock(EVE), BOB);
    test.equal(world.frozen(EVE), 0n, 'one locking period after the delegation ended');
    world.next(21 + 4 * 7 - 1);
    accepted(unlock(BOB), BOB);
    test.equal(world.frozen(BOB), 200n * OPEN);
    world.next(21 + 4 * 7);
    accepted(unlock(BOB), BOB);
    test.equal(world.frozen(BOB), 0n, 'four locking periods after the decision');
    test.equal(
      [...voting.store.VotingFor.entries(world.host)].length,
      1,
      'only the vote that won the first time is left',
    );
    test.ok(world.balanced());
  },
);

t.test('the same OPEN votes once, however it is moved, promised or borrowed', async (test) => {
  const world = await createWorld(
    genesisOf({
      others: { governance: RULES },
      session: [],
      staking: {
        validatorCount: 1,
        minimumValidatorCount: 1,
        stakers: [{ stash: ALICE, bond: 400n * OPEN, status: { type: 'Idle' } }],
        invulnerables: [],
        minNominatorBond: OPEN,
        minValidatorBond: 10n * OPEN,
        inflation: 0,
        eras: {},
      },
    }),
  );
  test.teardown(world.close);
  const refused = refusing(test, world);
  const accepted = accepting(test, world);
  const bond = (value: bigint) => make('Staking', 'bond_extra', { maxAdditional: value });
  accepted(propose(remark()), EVE);

  // Stakes vote: they leave their owner by a slash alone. And what votes can be staked.
  refused(vote(0, true, ENDOWMENT + 1n), ALICE, 'InsufficientFunds');
  accepted(vote(0, true, ENDOWMENT), ALICE);
  accepted(bond(300n * OPEN), ALICE);
  refused(transfer(BOB, OPEN), ALICE, 'Token.Frozen');
  accepted(make('Staking', 'unbond', { value: 700n * OPEN }), ALICE);
  refused(transfer(BOB, OPEN), ALICE, 'Token.Frozen');

  // What is promised to somebody does not vote, and what votes is promised to nobody.
  const order = propose(remark('a budget, or any other hold'));
  accepted(order, BOB);
  const held = world.reserved(BOB);
  refused(vote(0, true, ENDOWMENT), BOB, 'InsufficientFunds');
  accepted(vote(0, true, ENDOWMENT - held), BOB);
  refused(order, BOB, 'Token.FundsUnavailable');
  refused(
    make('Proxy', 'add_proxy', { delegate: to(EVE), proxyType: { type: 'Any' }, delay: 0 }),
    BOB,
    'Balances.LiquidityRestrictions',
  );
  for (const amount of [1n, OPEN]) refused(transfer(DAVE, amount), BOB, 'Token.Frozen');
  refused(make('Balances', 'burn', { value: OPEN, keepAlive: false }), BOB, 'Token.Frozen');
  accepted(make('Balances', 'transfer_all', { dest: to(DAVE), keepAlive: false }), BOB);
  test.equal(world.free(BOB), ENDOWMENT - held, 'there was nothing to take along');

  // A hold cannot stand in for what was frozen: here the hold came first, and covers nothing.
  accepted(propose(remark()), CHARLIE);
  const promised = world.reserved(CHARLIE);
  accepted(vote(0, true, 500n * OPEN), CHARLIE);
  accepted(transfer(DAVE, 500n * OPEN - promised), CHARLIE);
  refused(transfer(DAVE, 1n), CHARLIE, 'Token.Frozen');
  accepted(cancel(2), ROOT);
  test.equal(world.frozen(CHARLIE), 500n * OPEN);
  accepted(transfer(DAVE, promised), CHARLIE);
  refused(transfer(DAVE, 1n), CHARLIE, 'Token.Frozen');

  // Not even by holds that move from one account to another.
  const env = world.env();
  test.throws(() => balances.transferHeld(env, STAKING_HOLD, ALICE, DAVE, 700n * OPEN), { message: 'Token' });
  const { turnout } = tallyIn(world, 0)!;
  test.equal(turnout, ENDOWMENT + ENDOWMENT - held + 500n * OPEN);
  test.ok(world.balanced());
});

t.test('delegations: with the delegate’s vote, while they last', async (test) => {
  const world = await small();
  test.teardown(world.close);
  const refused = refusing(test, world);
  const accepted = accepting(test, world);
  accepted(propose(remark()), ALICE);
  accepted(vote(0, true, 100n * OPEN), BOB);
  refused(delegate(CHARLIE, 100n * OPEN), CHARLIE, 'Nonsense');
  refused(delegate(BOB, OPEN - 1n), CHARLIE, 'TooSmall');
  refused(delegate(BOB, 2n * ENDOWMENT), CHARLIE, 'InsufficientFunds');
  refused(delegate(CHARLIE, OPEN), BOB, 'AlreadyVoting');
  refused(
    cast('delegate', { class: 1, to: to(BOB), conviction: { type: 'None' }, balance: OPEN }),
    CHARLIE,
    'BadClass',
  );
  refused(undelegate, CHARLIE, 'NotDelegating');
  accepted(delegate(BOB, 200n * OPEN, 'Locked3x'), CHARLIE);
  test.same(tallyIn(world, 0), { ayes: 700n * OPEN, nays: 0n, support: 300n * OPEN, turnout: 300n * OPEN });
  refused(vote(0, false, OPEN), CHARLIE, 'AlreadyDelegating');
  refused(delegate(EVE, OPEN), CHARLIE, 'AlreadyDelegating');
  accepted(vote(0, false, 100n * OPEN), BOB);
  test.same(tallyIn(world, 0), { ayes: 0n, nays: 700n * OPEN, support: 0n, turnout: 300n * OPEN });
  accepted(cast('vote', { pollIndex: 0, vote: { type: 'Split', value: { aye: OPEN, nay: OPEN } } }), BOB);
  test.same(
    tallyIn(world, 0),
    { ayes: OPEN / 10n, nays: OPEN / 10n, support: OPEN, turnout: 2n * OPEN },
    'split: alone',
  );
  accepted(vote(0, true, 100n * OPEN), BOB);
  // What is delegated to a delegator goes no further.
  accepted(delegate(CHARLIE, 10n * OPEN), DAVE);
  test.equal(tallyIn(world, 0)?.ayes, 700n * OPEN);
  accepted(removeVote(0), BOB);
  test.same(tallyIn(world, 0), NO_VOTES);
  accepted(vote(0, true, 100n * OPEN), BOB);
  accepted(undelegate, CHARLIE);
  test.equal(tallyIn(world, 0)?.ayes, 100n * OPEN);
  accepted(vote(0, true, OPEN), CHARLIE);
  test.equal(tallyIn(world, 0)?.ayes, 111n * OPEN, 'with what was delegated to it');
  accepted(unlock(CHARLIE), EVE);
  test.equal(world.frozen(CHARLIE), 200n * OPEN);
  world.next(1 + 4 * 7);
  accepted(unlock(CHARLIE), EVE);
  test.equal(world.frozen(CHARLIE), OPEN, 'four locking periods after it ended');
  test.ok(world.balanced());
});

t.test('floods: the list is short, places grow dear, nobody loses its voice', async (test) => {
  const world = await small({ votingPeriod: 100 });
  test.teardown(world.close);
  const refused = refusing(test, world);
  const accepted = accepting(test, world);
  const rich = person(60);
  world.dispatch(make('Balances', 'force_set_balance', { who: to(rich), newFree: 1_000_000n * OPEN }));
  const long = make('System', 'remark', { remark: new Uint8Array(governance.MAX_CALL_BYTES) });
  refused(propose(long), ALICE, 'Governance.CallTooLong');
  const weight = { refTime: governance.MAX_ENACTMENT_WEIGHT.refTime + 1n, proofSize: 0n };
  refused(propose(make('Utility', 'with_weight', { call: remark(), weight })), ALICE, 'Governance.CallTooHeavy');
  const deposits: bigint[] = [];
  for (let id = 0; id < governance.MAX_OPEN; id++) {
    deposits.push(accepted(propose(remark()), rich).at(-1)!.value.deposit);
    accepted(vote(id, false, 10n * OPEN), BOB);
  }
  test.same(
    deposits.filter((_, id) => id % governance.DEPOSIT_STEP === 0),
    [1n, 2n, 4n, 8n, 16n, 32n, 64n, 128n].map((each) => each * OPEN),
  );
  refused(propose(remark()), rich, 'Governance.TooManyProposals');
  test.equal(world.frozen(BOB), 10n * OPEN, 'one amount votes on all of them');
  world.next(101);
  test.equal(eventsNamed(world, 'Governance.Rejected').length, governance.MAX_OPEN);
  test.equal(world.free(TREASURY), balances.EXISTENTIAL_DEPOSIT + deposits.reduce((a, b) => a + b, 0n), 'a dear flood');
  test.equal(world.reserved(rich), 0n);
  // Old votes make room by themselves.
  for (let round = 0; round < 2; round++) {
    const first = governance.store.ProposalCount.get(world.host);
    for (let i = 0; i < governance.MAX_OPEN; i++) {
      accepted(propose(remark()), rich);
      accepted(vote(first + i, true, 10n * OPEN), BOB);
    }
    world.next(world.number() + 100);
  }
  const kept = voting.store.VotingFor.get(world.host, [BOB, 0]);
  test.ok(kept.type === 'Casting' && kept.value.votes.length <= MAX_VOTES);
  test.ok(world.balanced());
});

t.test('nothing that passes can stop a block', async (test) => {
  const world = await small();
  test.teardown(world.close);
  const accepted = accepting(test, world);
  const none = { type: 'system', value: { type: 'None' } };
  const store = (id: number) =>
    make('System', 'set_storage', { items: [[new Uint8Array([200, id]), new Uint8Array([id])]] });
  const calls = [
    make('Utility', 'dispatch_as', { asOrigin: none, call: make('Timestamp', 'set', { now: 1n }) }),
    make('Utility', 'batch_all', { calls: [store(1), transfer(BOB, OPEN)] }),
    transfer(BOB, OPEN),
    store(3),
    store(4),
    store(5),
  ];
  for (const [id, call] of calls.entries()) {
    accepted(propose(call), ALICE);
    accepted(vote(id, true, 600n * OPEN), BOB);
  }
  world.next(15);
  // What this runtime cannot read, and what is too heavy for it.
  governance.store.Calls.insert(world.host, 4, new Uint8Array([255, 255, 1]));
  const heavy = make('Utility', 'with_weight', { call: store(9), weight: { refTime: 10n ** 12n, proofSize: 0n } });
  governance.store.Calls.insert(world.host, 5, encode(world.assembly.call, heavy));
  const enacted = new Map<number, { ok: boolean; error?: { type: string } }>();
  for (let guard = 0; guard < 20; guard++) {
    world.next();
    // What a block has left at its end goes to work that waits, too.
    world.finish();
    for (const { value } of eventsNamed(world, 'Governance.Enacted')) enacted.set(value.proposal, value.result);
  }
  world.next();
  test.equal(enacted.size, calls.length);
  test.equal(enacted.get(0)?.ok, false, 'not even what belongs to authors alone');
  test.equal(enacted.get(1)?.error?.type, 'BadOrigin');
  test.equal(enacted.get(2)?.error?.type, 'BadOrigin', 'root has no account to transfer from');
  test.same(enacted.get(3), { ok: true, value: undefined });
  test.equal(enacted.get(4)?.error?.type, 'Corruption');
  test.equal(enacted.get(5)?.error?.type, 'Exhausted');
  test.same(
    [1, 3, 9].map((id) => world.host.get(new Uint8Array([200, id]))),
    [undefined, new Uint8Array([3]), undefined],
  );
  test.equal(world.reserved(ALICE), 0n, 'deposits for bytes are back whatever came of the calls');
  test.equal([...governance.store.Proposals.entries(world.host)].length, 0);

  // Root may take back what passed: nothing is enacted, and nobody stays locked for it.
  accepted(propose(store(7)), ALICE);
  const id = governance.store.ProposalCount.get(world.host) - 1;
  accepted(vote(id, true, 700n * OPEN), CHARLIE);
  world.next(world.number() + 12);
  accepted(cancel(id), ROOT);
  accepted(removeOther(CHARLIE, id), EVE);
  accepted(unlock(CHARLIE), EVE);
  test.equal(world.frozen(CHARLIE), 0n);
  world.next(world.number() + 10);
  test.equal(world.host.get(new Uint8Array([200, 7])), undefined);
  test.ok(world.balanced());
});

t.test('rules change by root alone, within bounds, and not for what is under way', async (test) => {
  const world = await small();
  test.teardown(world.close);
  world.dispatch(propose(remark()), ALICE);
  const set = (parameters: object) => make('Governance', 'set_parameters', { parameters: { ...RULES, ...parameters } });
  test.equal(world.dispatch(set({}), ALICE).error, 'BadOrigin');
  const never = 0xffffffff;
  for (const wrong of [
    { votingPeriod: 0 },
    { votingPeriod: never },
    { enactmentDelay: never },
    { enactmentDelay: 0 },
    { lockingPeriod: never },
    { enactmentDelay: 8, lockingPeriod: 7 },
    { quorum: 0 },
    { quorum: 1_000_000_001 },
    { depositBase: 0n },
    { depositPerByte: 0n },
    { depositBase: (1n << 128n) - 1n },
  ]) {
    test.equal(world.dispatch(set(wrong)).error, 'Governance.BadParameters', Object.keys(wrong).join());
  }
  test.ok(world.dispatch(set({ depositBase: 2n * OPEN, votingPeriod: 2, quorum: 10_000_000 })).outcome.ok);
  test.match(world.dispatch(propose(remark()), BOB).events.at(-1)?.value, { proposal: 1, ends: 3, deposit: 2n * OPEN });
  world.next(3);
  test.equal(governance.store.Outcomes.get(world.host, 1)?.type, 'Rejected');
  test.equal(world.dispatch(close(0), EVE).error, 'Governance.VotingOpen');
  const longest = 90 * 28_800;
  const most = {
    votingPeriod: longest,
    enactmentDelay: longest,
    lockingPeriod: longest,
    depositBase: 1_000_000n * OPEN,
  };
  test.ok(world.dispatch(set(most)).outcome.ok);
  world.dispatch(make('Balances', 'force_set_balance', { who: to(EVE), newFree: 10n ** 30n }));
  test.equal(world.dispatch(propose(remark()), EVE).error, undefined, 'the largest bounds are no trap');
  world.dispatch(vote(2, true, 10n ** 29n, 'Locked6x'), EVE);
  test.equal(world.dispatch(delegate(BOB, OPEN, 'Locked6x'), DAVE).error, undefined);
  test.equal(world.dispatch(undelegate, DAVE).error, undefined);
  world.next();
  await test.rejects(small({ votingPeriod: 0 }), /votingPeriod/);
  await test.rejects(small({ lockingPeriod: 4 }), /locked at least until the enactment/);
  test.ok(world.balanced());
});

// ---- against a model -----------------------------------------------------------------------------------------

/** What must hold whatever voters do: tallies are the sum of votes and delegations, and everything that counts is frozen. */
function fault(world: World): string | undefined {
  const { host } = world;
  const tallies = new Map<number, Tally>();
  const given = new Map<string, { votes: bigint; capital: bigint }>();
  const all = [...voting.store.VotingFor.entries(host)];
  for (const [[who], { type, value }] of all) {
    const { frozen } = system.account(host, who).data;
    const own = type === 'Casting' ? value.votes.map(([, each]) => balanceOf(each)) : [value.balance];
    if (own.some((amount) => amount > frozen)) return `${toHex(who)} votes with more than it has frozen`;
    if (type === 'Delegating') {
      const before = given.get(toHex(value.target)) ?? { votes: 0n, capital: 0n };
      const { votes, capital } = weighed(value.conviction.type, value.balance);
      given.set(toHex(value.target), { votes: before.votes + votes, capital: before.capital + capital });
    } else {
      for (const [id, each] of value.votes) {
        const side = sideOf(each);
        const brought = side === undefined ? tallyOf(each) : addTally(tallyOf(each), sided(side, value.delegations));
        tallies.set(id, addTally(tallies.get(id) ?? NO_VOTES, brought));
      }
    }
  }
  for (const [[who], { value }] of all) {
    const { votes, capital } = given.get(toHex(who)) ?? { votes: 0n, capital: 0n };
    if (value.delegations.votes !== votes || value.delegations.capital !== capital) return 'delegations do not add up';
    given.delete(toHex(who));
  }
  if (given.size > 0) return 'a delegation reached nobody';
  for (const [id] of governance.store.Proposals.entries(host)) {
    const status = statusOf(host, id);
    if (status.type !== 'Ongoing') continue;
    const { tally } = status;
    const counted = tallies.get(id) ?? NO_VOTES;
    if (Object.entries(counted).some(([key, sum]) => sum !== tally[key as keyof Tally]))
      return `the tally of ${id} is off`;
    if (tally.turnout > balances.totalIssuance(host)) return 'more votes than there is OPEN';
  }
  for (const [who, { data }] of system.accounts(host)) {
    if (data.frozen > balances.freezable(host, who)) return `${toHex(who)} has less than it has frozen`;
  }
  return undefined;
}

t.test('random voters: tallies, delegations and freezes agree after every call', async (test) => {
  const world = await small({ votingPeriod: 12, enactmentDelay: 3, lockingPeriod: 4, quorum: 10_000_000 });
  test.teardown(world.close);
  const random = new Random('voters');
  const people = [ALICE, BOB, CHARLIE, DAVE, EVE];
  const convictions = ['None', 'Locked1x', 'Locked2x', 'Locked6x'] as const;
  const amount = () => BigInt(1 + random.below(1_500)) * OPEN;
  let done = 0;
  for (let block = 0; block < 150; block++) {
    world.next();
    const count = governance.store.ProposalCount.get(world.host);
    const id = () => Math.max(0, count - 1 - random.below(6));
    for (let i = 0; i < 6; i++) {
      const who = random.pick(people);
      const call = random.pick<() => RuntimeCall>([
        () => propose(remark()),
        () => vote(id(), random.chance(0.6), amount(), random.pick(convictions)),
        () => vote(id(), random.chance(0.6), amount(), random.pick(convictions)),
        () => cast('vote', { pollIndex: id(), vote: { type: 'Split', value: { aye: amount(), nay: amount() } } }),
        () => delegate(random.pick(people), amount(), random.pick(convictions)),
        () => undelegate,
        () => removeVote(id()),
        () => removeOther(random.pick(people), id()),
        () => unlock(random.pick(people)),
        () => transfer(random.pick(people), amount()),
        () => cancel(id()),
      ])();
      if (world.dispatch(call, call.value.type === 'cancel' && random.chance(0.1) ? ROOT : who).outcome.ok) done++;
      const problem = fault(world);
      if (problem !== undefined) {
        test.fail(`block ${world.number()}, after ${call.value.type}: ${problem}`);
        return;
      }
    }
  }
  test.ok(done > 250, `${done} calls succeeded`);
  const outcomes = [...governance.store.Outcomes.entries(world.host)].map(([, { type }]) => type);
  test.ok(outcomes.includes('Approved') && outcomes.includes('Rejected'));
});

t.test('votes look as wallets know them from Polkadot', async (test) => {
  const world = await createWorld();
  test.teardown(world.close);
  const names = ['ConvictionVoting'];
  const ours = shapesOf(opaqueMetadataOf(world.runtime.call(world.host, 'Metadata_metadata', new Uint8Array())), names);
  const theirs = shapesOf(opaqueMetadataOf(polkadot), names);
  test.same(ours.ConvictionVoting?.calls, theirs.ConvictionVoting?.calls);
  // A tuple struct of two is a tuple.
  const storage = Object.entries(theirs.ConvictionVoting?.storage ?? {}).map(([name, shape]) => [
    name,
    shape.replaceAll('{: U32, : U128}', '(U32, U128)'),
  ]);
  test.same(ours.ConvictionVoting?.storage, Object.fromEntries(storage));
  const known = theirs.ConvictionVoting?.errors ?? [];
  test.same(ours.ConvictionVoting?.errors.slice(0, known.length), known);
  test.same(
    encode(accountVote, decode(accountVote, Uint8Array.of(0, 0x86, ...new Uint8Array(16)))).slice(0, 2),
    [0, 0x86],
  );
  test.throws(() => decode(accountVote, Uint8Array.of(0, 0x87, ...new Uint8Array(16))), { code: 'OUT_OF_RANGE' });
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
