/** Multisig: every call and every error, deposits to the unit, and accounts as wallets derive them. */
import { createKeyMulti } from '@polkadot/util-crypto';
import t from 'tap';
import { ROOT } from '../../../runtime/framework/dispatch.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import { depositFor, MAX_SIGNATORIES, multisigAccount } from '../../../runtime/pallets/standard/multisig.ts';
import { encode } from '../../../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId } from '../../../runtime/primitives/types.ts';
import { ALICE, BOB, CHARLIE, createWorld, DAVE, ENDOWMENT, EVE, make, OPEN, person, transfer } from './world.ts';

const MAX_WEIGHT = { refTime: 10n ** 10n, proofSize: 100_000n };
const NO_WEIGHT = { refTime: 0n, proofSize: 0n };

t.test('multisig', async (test) => {
  const world = await createWorld();
  test.teardown(world.close);
  const three = [ALICE, BOB, CHARLIE];
  const id = multisigAccount(world.host, three, 2);
  test.same(id, createKeyMulti([CHARLIE, ALICE, BOB], 2), 'as @polkadot/util-crypto');
  const others = (who: AccountId) => three.filter((each) => each !== who);
  world.dispatch(transfer(id, 10n * OPEN), EVE);

  const inner = transfer(DAVE, OPEN);
  const callHash = world.hashing.blake2_256(encode(world.assembly.call, inner));
  const asMulti = (who: AccountId, maybeTimepoint?: unknown, more: object = {}) =>
    make('Multisig', 'as_multi', {
      threshold: 2,
      otherSignatories: others(who),
      maybeTimepoint,
      call: inner,
      maxWeight: MAX_WEIGHT,
      ...more,
    });
  const approve = (who: AccountId, maybeTimepoint?: unknown, more: object = {}) =>
    make('Multisig', 'approve_as_multi', {
      threshold: 2,
      otherSignatories: others(who),
      maybeTimepoint,
      callHash,
      maxWeight: NO_WEIGHT,
      ...more,
    });
  const cancel = (who: AccountId, timepoint: unknown, more: object = {}) =>
    make('Multisig', 'cancel_as_multi', { threshold: 2, otherSignatories: others(who), timepoint, callHash, ...more });
  const refused = (call: RuntimeCall, by: AccountId, error: string) => {
    const before = world.root();
    test.equal(world.dispatch(call, by).error, `Multisig.${error}`);
    test.equal(world.root(), before, `${error} leaves no trace`);
  };

  // What is wrong with the lists, for the three calls that take them.
  const when = { height: 1, index: 1 };
  for (const call of [asMulti, approve, cancel]) {
    refused(call(ALICE, when, { threshold: 1 }), ALICE, 'MinimumThreshold');
    refused(call(ALICE, when, { otherSignatories: [] }), ALICE, 'TooFewSignatories');
    const many = Array.from({ length: MAX_SIGNATORIES }, (_, i) => person(i + 100));
    refused(call(ALICE, when, { otherSignatories: many }), ALICE, 'TooManySignatories');
    refused(call(ALICE, when, { otherSignatories: [CHARLIE, BOB] }), ALICE, 'SignatoriesOutOfOrder');
    refused(call(ALICE, when, { otherSignatories: [BOB, BOB] }), ALICE, 'SignatoriesOutOfOrder');
    refused(call(ALICE, when, { otherSignatories: [ALICE, BOB] }), ALICE, 'SenderInSignatories');
    test.equal(world.dispatch(call(ALICE, when), ROOT).error, 'BadOrigin');
  }

  refused(asMulti(ALICE, when), ALICE, 'UnexpectedTimepoint');
  refused(cancel(ALICE, when), ALICE, 'NotFound');
  const begun = world.dispatch(asMulti(ALICE), ALICE);
  test.equal(begun.events.at(-1)?.name, 'Multisig.NewMultisig');
  test.match(begun.events.at(-1)?.value, { approving: ALICE, multisig: id, callHash });
  test.ok(begun.outcome.post.actualWeight!.refTime < MAX_WEIGHT.refTime, 'only the last approval pays for the call');
  test.equal(world.reserved(ALICE), depositFor(2));
  test.equal(world.free(ALICE), ENDOWMENT - depositFor(2));

  refused(asMulti(BOB), BOB, 'NoTimepoint');
  refused(asMulti(BOB, { height: 9, index: 9 }), BOB, 'WrongTimepoint');
  refused(asMulti(ALICE, when), ALICE, 'AlreadyApproved');
  refused(approve(ALICE, when), ALICE, 'AlreadyApproved');
  refused(asMulti(BOB, when, { maxWeight: NO_WEIGHT }), BOB, 'MaxWeightTooLow');
  const dave = world.free(DAVE);
  const done = world.dispatch(asMulti(BOB, when), BOB);
  test.match(done.events.at(-1), {
    name: 'Multisig.MultisigExecuted',
    value: { approving: BOB, timepoint: when, multisig: id, callHash, result: { ok: true } },
  });
  test.equal(world.free(DAVE), dave + OPEN);
  test.equal(world.free(id), 9n * OPEN);
  test.equal(world.reserved(ALICE), 0n);
  test.equal(world.free(ALICE), ENDOWMENT, 'the deposit is back, whole');
  refused(asMulti(BOB, when), BOB, 'UnexpectedTimepoint');

  // By hash first; the hash alone never executes, however many agree.
  test.ok(world.dispatch(approve(CHARLIE), CHARLIE).outcome.ok);
  test.equal(world.dispatch(approve(BOB, when), BOB).events.at(-1)?.name, 'Multisig.MultisigApproval');
  refused(approve(ALICE, when), ALICE, 'AlreadyApproved');
  test.equal(world.free(DAVE), dave + OPEN);
  refused(cancel(BOB, when), BOB, 'NotOwner');
  refused(cancel(CHARLIE, { height: 2, index: 1 }), CHARLIE, 'WrongTimepoint');
  test.equal(world.reserved(CHARLIE), depositFor(2));
  test.ok(world.dispatch(asMulti(ALICE, when), ALICE).outcome.ok, 'whoever has the call may carry out what was agreed');
  test.equal(world.free(DAVE), dave + 2n * OPEN);
  test.equal(world.reserved(CHARLIE), 0n);

  test.ok(world.dispatch(approve(CHARLIE), CHARLIE).outcome.ok);
  test.equal(world.dispatch(cancel(CHARLIE, when), CHARLIE).events.at(-1)?.name, 'Multisig.MultisigCancelled');
  test.equal(world.free(CHARLIE), ENDOWMENT);
  refused(cancel(CHARLIE, when), CHARLIE, 'NotFound');

  // A call that fails when it is carried out uses the operation up, says so, and leaves no trace of its own.
  const broke = transfer(DAVE, 1_000n * OPEN);
  world.dispatch(asMulti(ALICE, undefined, { call: broke }), ALICE);
  const failed = world.dispatch(asMulti(BOB, when, { call: broke }), BOB);
  test.match(failed.events.at(-1)?.value.result, { ok: false, error: { type: 'Token' } });
  test.equal(world.free(id), 8n * OPEN);
  test.equal(world.reserved(ALICE), 0n);

  const poor = person(77);
  const broken = world.dispatch(asMulti(poor, undefined, { otherSignatories: three }), poor);
  test.equal(broken.error, 'Balances.InsufficientBalance', 'no deposit, no operation');

  // One is enough: no deposit, no waiting.
  const one = asAccountId(createKeyMulti([ALICE, BOB], 1));
  world.dispatch(transfer(one, 5n * OPEN), EVE);
  const alone = (call: RuntimeCall, otherSignatories: AccountId[] = [ALICE]) =>
    make('Multisig', 'as_multi_threshold_1', { otherSignatories, call });
  test.equal(world.dispatch(alone(inner), BOB).events.at(-1)?.name, 'Multisig.MultisigExecuted');
  test.equal(world.free(one), 4n * OPEN);
  test.equal(world.dispatch(alone(broke), BOB).error, 'Token.FundsUnavailable');
  refused(alone(inner, []), BOB, 'TooFewSignatories');
  refused(alone(inner, [BOB]), BOB, 'SenderInSignatories');
  const info = world.assembly.infoOf(alone(inner));
  test.ok(info.weight.refTime > world.assembly.infoOf(inner).weight.refTime);
  test.ok(world.balanced());
});
