/** Equivocations: evidence that holds is taken once, whoever brings it; whose key it was is proven for past sessions too. */
import t from 'tap';
import { slotDigest, withSeal } from '../../../consensus/aura/slots.ts';
import { blockId, equivocationProof, signingPayload, voterId } from '../../../consensus/grandpa/messages.ts';
import type { Equivocation, SignedVote } from '../../../consensus/grandpa/votes.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { signWith } from '../../../node/keystore/keys.ts';
import { derive } from '../../../node/keystore/secret-uri.ts';
import { encodeBare } from '../../../runtime/executive/extrinsic.ts';
import { NONE, ROOT } from '../../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import * as aura from '../../../runtime/pallets/standard/aura/authorities.ts';
import * as authorship from '../../../runtime/pallets/standard/authorship.ts';
import { equivocationFraction } from '../../../runtime/pallets/standard/offences.ts';
import * as session from '../../../runtime/pallets/standard/session.ts';
import { store as staking } from '../../../runtime/pallets/standard/staking/store.ts';
import {
  type GrandpaEquivocation,
  grandpaEquivocation,
  type SlotEquivocation,
} from '../../../runtime/primitives/equivocation.ts';
import { type Header, headerHash } from '../../../runtime/primitives/header.ts';
import { TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import { bytes, decode, encode, fixedBytes, option, struct, u64 } from '../../../runtime/primitives/scale/codec.ts';
import { type MembershipProof, membershipProof } from '../../../runtime/primitives/session-keys.ts';
import { type AccountId, asHash, PERBILL, ZERO_HASH } from '../../../runtime/primitives/types.ts';
import { setKeysCall } from './session-keys.ts';
import { createWorld, genesisOf, make, OPEN, person, type World } from './world.ts';

const hashing = createHashing();
const NAMES = ['Alice', 'Bob', 'Charlie', 'Dave'];
const SESSION = 5;
const validators = NAMES.map((name, i) => {
  const [author, voter] = [derive(`//${name}`, 'sr25519'), derive(`//${name}`, 'ed25519')];
  return { account: person(11 + i), author, voter, aura: author.publicKey, grandpa: voter.publicKey };
});
const [alice, bob] = validators as [(typeof validators)[0], (typeof validators)[0]];

const world = (slashDeferDuration = 0) =>
  createWorld(
    genesisOf({
      balances: [...validators.map(({ account }) => account), person(1)].map((account) => ({
        account,
        amount: 1_000n * OPEN,
      })),
      aura: { authorities: [], slotDurationMs: 3_000 },
      grandpa: { authorities: [] },
      session: validators.map(({ account, aura: a, grandpa: g }) => ({ account, aura: a, grandpa: g })),
      sessionLength: SESSION,
      staking: {
        validatorCount: 4,
        minimumValidatorCount: 1,
        stakers: validators.map(({ account: stash }) => ({ stash, bond: 100n * OPEN, status: { type: 'Validator' } })),
        invulnerables: [],
        minNominatorBond: OPEN,
        minValidatorBond: 10n * OPEN,
        inflation: 0,
        eras: { sessionsPerEra: 2, bondingDuration: 4, slashDeferDuration },
      },
    }),
  );

const target = (fill: number, number = 7) => ({ hash: blockId(new Uint8Array(32).fill(fill)), number });

/** Votes as a voter signs and a driver reports them. */
function votes(by: (typeof validators)[0], setId = 0, round = 3, [a, b] = [1, 2]): Equivocation {
  const vote = (fill: number): SignedVote => ({
    kind: 'prevote',
    target: target(fill),
    voter: voterId(by.grandpa),
    signature: signWith(by.voter, signingPayload('prevote', target(fill), round, setId), hashing),
  });
  return { setId, round, phase: 'prevote', voter: voterId(by.grandpa), first: vote(a), second: vote(b) };
}
const asRuntimeTakesIt = (proof: Equivocation): GrandpaEquivocation =>
  decode(grandpaEquivocation, encode(equivocationProof, proof));

function blocks(by: (typeof validators)[0], slot: number, fills: readonly [number, number] = [1, 2]): SlotEquivocation {
  const sealed = (fill: number): Header => {
    const unsealed: Header = {
      parentHash: ZERO_HASH,
      number: 9,
      stateRoot: asHash(new Uint8Array(32).fill(fill)),
      extrinsicsRoot: ZERO_HASH,
      digest: { logs: [slotDigest(slot)] },
    };
    return withSeal(unsealed, signWith(by.author, headerHash(hashing, unsealed), hashing));
  };
  return { offender: by.aura, slot: BigInt(slot), firstHeader: sealed(fills[0]), secondHeader: sealed(fills[1]) };
}

const opaque = option(bytes());
function ownership(of: World, pallet: 'Grandpa' | 'Aura', key: Uint8Array): MembershipProof | undefined {
  const [api, question] =
    pallet === 'Grandpa'
      ? ['GrandpaApi', struct({ at: u64, key: fixedBytes(32) })]
      : ['AuraEquivocationApi', struct({ at: u64, key: fixedBytes(32) })];
  const answer = of.runtime.call(of.host, `${api}_generate_key_ownership_proof`, encode(question, { at: 0n, key }));
  const proof = decode(opaque, answer);
  return proof && decode(membershipProof, proof);
}
const report = (
  pallet: 'Grandpa' | 'Aura',
  equivocation: unknown,
  keyOwnerProof: MembershipProof,
  unsigned = false,
): RuntimeCall =>
  make(pallet, unsigned ? 'report_equivocation_unsigned' : 'report_equivocation', {
    equivocationProof: equivocation,
    keyOwnerProof,
  });
const stakeOf = (of: World, { account }: { account: AccountId }) => staking.Ledger.get(of.host, account)?.total;
/** What the pool is told of an unsigned transaction. */
const validity = (of: World, call: RuntimeCall, source: 'Local' | 'External' | 'InBlock' = 'Local') => {
  of.finish();
  const bare = encodeBare(of.assembly.call, call);
  return of.runtime.executive.validateTransaction(of.host, { type: source }, bare, ZERO_HASH);
};
const reason = (answer: ReturnType<typeof validity>) => (answer.ok ? undefined : answer.error.value.type);

t.test('the part of the stake: min(3k/n, 1)²', (test) => {
  test.equal(equivocationFraction(1, 4), 562_500_000);
  test.equal(equivocationFraction(2, 4), PERBILL);
  test.equal(equivocationFraction(1, 100), 900_000);
  test.equal(equivocationFraction(33, 100), 980_100_000);
  test.equal(equivocationFraction(34, 100), PERBILL);
  test.equal(equivocationFraction(1, 1), PERBILL);
  test.end();
});

t.test('votes: a signed report of the current session', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const owner = ownership(of, 'Grandpa', bob.grandpa)!;
  test.equal(owner.session, 0);
  test.equal(ownership(of, 'Grandpa', person(9)), undefined, 'nobody’s key');
  const before = of.root();
  const refused = (call: RuntimeCall, error: string, by: AccountId | typeof ROOT = person(1)) => {
    test.equal(of.dispatch(call, by).error, error);
    test.equal(of.root(), before, `${error} leaves no trace`);
  };
  const good = asRuntimeTakesIt(votes(bob));
  const change = (edit: (copy: GrandpaEquivocation) => void): GrandpaEquivocation => {
    const copy = decode(grandpaEquivocation, encode(grandpaEquivocation, good).slice());
    edit(copy);
    return copy;
  };
  refused(report('Grandpa', good, owner), 'BadOrigin', ROOT);
  refused(report('Grandpa', good, ownership(of, 'Grandpa', alice.grandpa)!), 'Grandpa.InvalidKeyOwnershipProof');
  for (const forged of [
    { ...owner, session: 9 },
    { ...owner, session: 1, validatorCount: 3 },
    { ...owner, validatorCount: 5 },
    { ...owner, trieNodes: owner.trieNodes.slice(0, -1) },
    { ...owner, trieNodes: [] },
    { ...owner, trieNodes: [owner.trieNodes[0]!, ...owner.trieNodes.slice(1).reverse()] },
    {
      ...owner,
      trieNodes: owner.trieNodes.map((each, i) =>
        i === 0 ? each.map((byte, at) => (at === 5 ? byte ^ 1 : byte)) : each,
      ),
    },
    { ...owner, trieNodes: [new Uint8Array(3), new Uint8Array(5)] },
  ]) {
    refused(report('Grandpa', good, forged), 'Grandpa.InvalidKeyOwnershipProof');
  }
  const bad = [
    asRuntimeTakesIt(votes(bob, 0, 3, [1, 1])),
    change((copy) => {
      copy.setId = 1n;
    }),
    change((copy) => {
      copy.equivocation.value.roundNumber = 4n;
    }),
    change((copy) => {
      copy.equivocation.value.second[0].targetNumber = 8;
    }),
    { ...good, equivocation: { type: 'Precommit' as const, value: good.equivocation.value } },
  ];
  for (const each of bad) refused(report('Grandpa', each, owner), 'Grandpa.InvalidEquivocationProof');

  const treasury = of.free(TREASURY);
  const done = of.dispatch(report('Grandpa', good, owner), person(1));
  test.same(done.outcome, { ok: true, post: { paysFee: false } });
  test.match(done.events.at(-1), {
    name: 'Offences.Offence',
    value: { kind: new TextEncoder().encode('grandpa:equivoca') },
  });
  const taken = (100n * OPEN * 9n) / 16n;
  test.equal(stakeOf(of, bob), 100n * OPEN - taken);
  test.equal(of.free(person(1)), 1_000n * OPEN + taken / 10n);
  test.equal(of.free(TREASURY) - treasury, taken - taken / 10n);
  test.same(
    session.disabledValidators(of.host).map((at) => session.validators(of.host)[at]),
    [bob.account],
  );
  test.equal(of.dispatch(report('Grandpa', good, owner), person(1)).error, 'Grandpa.DuplicateOffenceReport');
  const again = asRuntimeTakesIt(votes(bob, 0, 3, [2, 5]));
  test.equal(
    of.dispatch(report('Grandpa', again, owner), person(1)).error,
    'Grandpa.DuplicateOffenceReport',
    'one offence a round',
  );

  // A second in the same round: both lose everything.
  const both = asRuntimeTakesIt(votes(alice));
  test.ok(of.dispatch(report('Grandpa', both, ownership(of, 'Grandpa', alice.grandpa)!), person(1)).outcome.ok);
  test.equal(stakeOf(of, alice), 0n);
  test.equal(stakeOf(of, bob), 0n);
  test.ok(of.balanced());
});

t.test('blocks: the slot must be of the session, the blocks two', async (test) => {
  const of = await world();
  test.teardown(of.close);
  of.next(SESSION + 2);
  const slot = Number(aura.currentSlot(of.host));
  const owner = ownership(of, 'Aura', bob.aura)!;
  test.equal(owner.session, 1);
  const refused = (proof: SlotEquivocation, error: string) =>
    test.equal(of.dispatch(report('Aura', proof, owner), person(1)).error, `Aura.${error}`);
  const good = blocks(bob, slot);
  refused(blocks(bob, slot, [1, 1]), 'InvalidEquivocationProof');
  test.notSame(good.firstHeader, blocks(bob, slot, [1, 2]).firstHeader, 'one block sealed twice has two seals');
  refused({ ...good, secondHeader: { ...good.secondHeader, number: 10 } }, 'InvalidEquivocationProof');
  refused({ ...good, slot: BigInt(slot + 1) }, 'InvalidEquivocationProof');
  refused({ ...good, secondHeader: blocks(bob, slot + 1).secondHeader }, 'InvalidEquivocationProof');
  refused({ ...good, secondHeader: { ...good.secondHeader, digest: { logs: [] } } }, 'InvalidEquivocationProof');
  refused({ ...good, offender: alice.aura }, 'InvalidKeyOwnershipProof');
  refused(blocks(bob, slot - SESSION), 'InvalidEquivocationProof');
  // The block that began the session was still made by the session before.
  refused(blocks(bob, 1_000 + SESSION), 'InvalidEquivocationProof');
  test.ok(of.dispatch(report('Aura', good, owner), person(1)).outcome.ok);
  test.equal(stakeOf(of, bob), 100n * OPEN - (100n * OPEN * 9n) / 16n);
  refused(good, 'DuplicateOffenceReport');
  test.ok(of.balanced());
});

t.test('past sessions and sets; forgotten ones', async (test) => {
  const of = await world(2);
  test.teardown(of.close);
  const early = ownership(of, 'Grandpa', bob.grandpa)!;
  of.next(4 * SESSION);
  // Charlie changes his keys: a new set from session 7 on.
  test.ok(of.dispatch(setKeysCall('fresh', validators[2]!.account), validators[2]!.account).outcome.ok);
  of.next(7 * SESSION);
  const late = ownership(of, 'Grandpa', bob.grandpa)!;
  test.equal(late.session, 7);
  test.equal(ownership(of, 'Grandpa', validators[2]!.grandpa), undefined, 'it is nobody’s any more');
  const old = asRuntimeTakesIt(votes(bob, 0, 12));
  test.equal(
    of.dispatch(report('Grandpa', old, late), person(1)).error,
    'Grandpa.InvalidEquivocationProof',
    'another set’s session',
  );
  test.ok(of.dispatch(report('Grandpa', old, early), person(1)).outcome.ok, 'a proof from then');
  test.same(
    [...staking.UnappliedSlashes.entries(of.host)].map(([era]) => era),
    [],
  );
  test.equal(stakeOf(of, bob), 100n * OPEN - (100n * OPEN * 9n) / 16n, 'era 0 is too long ago to wait any longer');
  const now = asRuntimeTakesIt(votes(bob, 1, 1));
  test.ok(of.dispatch(report('Grandpa', now, late), person(1)).outcome.ok);
  test.same(
    [...staking.UnappliedSlashes.entries(of.host)].map(([era]) => era),
    [3 + 3],
  );
  // Back in duty, since blocks are made slot by slot here.
  session.reenable(of.env(), bob.account);
  of.next(12 * SESSION);
  const forgotten = asRuntimeTakesIt(votes(bob, 0, 13));
  test.equal(of.dispatch(report('Grandpa', forgotten, early), person(1)).error, 'Grandpa.InvalidKeyOwnershipProof');
  test.ok(of.balanced());
});

t.test('unsigned: by this node’s own block only, first of all, once', async (test) => {
  const of = await world();
  test.teardown(of.close);
  const owner = ownership(of, 'Grandpa', bob.grandpa)!;
  const call = report('Grandpa', asRuntimeTakesIt(votes(bob)), owner, true);
  const bare = encodeBare(of.assembly.call, call);
  of.next();
  test.equal(of.dispatch(call, person(1)).error, 'BadOrigin');
  const author = authorship.author(of.host)!;
  const applied = of.runtime.executive.applyExtrinsic(of.host, bare);
  test.match(applied, { ok: true, outcome: { ok: true } });
  test.ok(of.events().some(({ name }) => name === 'System.ExtrinsicSuccess'));
  test.equal(of.free(author), 1_000n * OPEN - 100n * OPEN + (100n * OPEN * 9n) / 160n, 'the author is the reporter');
  test.match(of.runtime.executive.applyExtrinsic(of.host, bare), { ok: false, error: { value: { type: 'Stale' } } });
  test.equal(of.dispatch(call, NONE).error, 'Grandpa.DuplicateOffenceReport');
  test.equal(reason(validity(of, call)), 'Stale');

  const other = await world();
  test.teardown(other.close);
  const fine = validity(other, call);
  test.match(fine, {
    ok: true,
    value: { priority: (1n << 64n) - 1n, propagate: false, longevity: 2n * 4n * BigInt(SESSION) },
  });
  test.equal(fine.ok && fine.value.provides.length, 1);
  test.equal(reason(validity(other, call, 'External')), 'Call', 'not from strangers');
  const wrong = report('Grandpa', asRuntimeTakesIt(votes(bob, 0, 3, [1, 1])), owner, true);
  test.equal(reason(validity(other, wrong)), 'BadProof');
  test.equal(reason(validity(other, make('System', 'remark', { remark: new Uint8Array(1) }))), 'NoUnsignedValidator');
  other.next();
  test.match(
    other.runtime.executive.applyExtrinsic(
      other.host,
      encodeBare(other.assembly.call, make('System', 'remark', { remark: new Uint8Array(1) })),
    ),
    { ok: false },
  );

  // Aura's, through the API that makes the transaction.
  const slot = Number(aura.currentSlot(other.host));
  const made: Uint8Array[] = [];
  const host = { ...other.host, submitTransaction: (extrinsic: Uint8Array) => made.push(extrinsic) > 0 };
  const proof = ownership(other, 'Aura', alice.aura)!;
  const { codec } = { codec: struct({ proof: bytes() }) };
  const evidence = blocks(alice, slot);
  const input = encodeBare(other.assembly.call, report('Aura', evidence, proof, true));
  const equivocation = input.slice(3, input.length - encode(membershipProof, proof).length);
  const parameters = new Uint8Array([...equivocation, ...encode(codec, { proof: encode(membershipProof, proof) })]);
  const method = 'AuraEquivocationApi_submit_report_equivocation_unsigned_extrinsic';
  test.same(other.runtime.call(host, method, parameters), Uint8Array.of(1), 'Some(())');
  test.same(other.runtime.call(other.host, method, parameters), Uint8Array.of(0), 'None where there is no pool');
  test.same(made, [input]);
  test.match(other.runtime.executive.applyExtrinsic(other.host, made[0]!), { ok: true, outcome: { ok: true } });
  test.equal(stakeOf(other, alice), 100n * OPEN - (100n * OPEN * 9n) / 16n);
  test.ok(other.balanced());
});
