/** The economy of OPEN: what gas costs under load, who gets it, and that holders of OPEN can change all of it by vote. */
import t from 'tap';
import { signWith } from '../../../node/keystore/keys.ts';
import { derive } from '../../../node/keystore/secret-uri.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import * as attribution from '../../../runtime/pallets/ledger/attribution.ts';
import * as authorship from '../../../runtime/pallets/standard/authorship.ts';
import * as balances from '../../../runtime/pallets/standard/balances.ts';
import { store as staking } from '../../../runtime/pallets/standard/staking/store.ts';
import { POT } from '../../../runtime/pallets/standard/staking.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { feeOf, inclusionFee, weightToFee } from '../../../runtime/pallets/standard/transaction-payment.ts';
import { DEFAULT_RULES } from '../../../runtime/primitives/attribution/split.ts';
import { concatBytes, fromHex } from '../../../runtime/primitives/bytes.ts';
import { TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import { compact, encode, u32, u128 } from '../../../runtime/primitives/scale/codec.ts';
import {
  type AccountId,
  asAccountId,
  asHash,
  multiAddress,
  multiSignature,
  PERBILL,
} from '../../../runtime/primitives/types.ts';
import { ALICE, BOB, CHARLIE, createWorld, genesisOf, make, OPEN, person, remark, to, type World } from './world.ts';

const payer = derive('//Payer', 'sr25519');
const PAYER = asAccountId(payer.publicKey);
const GENESIS_HASH = asHash(new Uint8Array(32).fill(7));
const genesis = (others: Record<string, object> = {}) =>
  genesisOf({
    balances: [ALICE, BOB, CHARLIE, PAYER].map((account) => ({ account, amount: 1_000n * OPEN })),
    others,
  });

/** A signed transaction, immortal, as a wallet makes it. */
function signed(of: World, call: RuntimeCall, nonce: number, tip = 0n): Uint8Array {
  const { extrinsics } = of.runtime.executive;
  const extra = concatBytes(fromHex('0x00'), encode(compact(u32), nonce), encode(compact(u128), tip), fromHex('0x00'));
  const made = (signature: Uint8Array) =>
    concatBytes(
      fromHex('0x84'),
      encode(multiAddress, { type: 'Id', value: PAYER }),
      encode(multiSignature, { type: 'Sr25519', value: signature }),
      extra,
      encode(of.assembly.call, call),
    );
  const payload = extrinsics.signingPayload(of.env(), extrinsics.decode(made(new Uint8Array(64))), of.number());
  return made(signWith(payer, payload, of.hashing));
}

t.test('gas: charged, refunded, and shared among fire, author and treasury to the last unit', async (test) => {
  const of = await createWorld(genesis(), GENESIS_HASH);
  test.teardown(of.close);
  const { host } = of;
  const pay = (shares: { burn: number; author: number }, tip: bigint, nonce: number) => {
    test.ok(of.dispatch(make('TransactionPayment', 'set_fee_shares', shares)).outcome.ok);
    of.next();
    const [payerBefore, authorBefore, treasuryBefore] = [PAYER, ALICE, TREASURY].map(of.free) as [
      bigint,
      bigint,
      bigint,
    ];
    const issuance = balances.totalIssuance(host);
    const bytes = signed(of, remark('what it costs'), nonce, tip);
    const info = of.runtime.executive.infoOfCall(remark('what it costs'), bytes.length + 2);
    const expected = feeOf(host, info, bytes.length + 2, tip);
    test.match(of.runtime.executive.applyExtrinsic(host, bytes), { ok: true, outcome: { ok: true } });
    test.equal(payerBefore - of.free(PAYER), expected, 'the fee that was foretold');
    test.same(authorship.author(host), ALICE);
    of.finish();
    const fee = expected - tip;
    const burnt = (fee * BigInt(shares.burn)) / BigInt(PERBILL);
    const author = (fee * BigInt(shares.author)) / BigInt(PERBILL) + tip;
    test.equal(issuance - balances.totalIssuance(host), burnt);
    test.equal(of.free(ALICE) - authorBefore, author);
    test.equal(of.free(TREASURY) - treasuryBefore, expected - burnt - author, 'rounding is the treasury’s');
    test.ok(of.balanced());
    of.next();
  };
  pay({ burn: 500_000_000, author: 300_000_000 }, 0n, 0);
  pay({ burn: 333_333_333, author: 333_333_334 }, 7n, 1);
  pay({ burn: 0, author: PERBILL }, 0n, 2);
  pay({ burn: PERBILL, author: 0 }, OPEN, 3);
  test.equal(
    of.dispatch(make('TransactionPayment', 'set_fee_shares', { burn: PERBILL, author: 1 })).error,
    'TransactionPayment.SharesExceedWhole',
  );
  test.equal(
    of.dispatch(make('TransactionPayment', 'set_fee_shares', { burn: 0, author: 0 }), ALICE).error,
    'BadOrigin',
  );
});

t.test('congestion: full blocks raise the price of weight, empty ones bring it back', async (test) => {
  const of = await createWorld(genesis(), GENESIS_HASH);
  test.teardown(of.close);
  const { host } = of;
  const info = of.assembly.infoOf(remark());
  const parts = () => inclusionFee(host, info, 100)!;
  const most = system.limitsOf('Normal').maxTotal!;
  /** A block whose normal class is full to a part. */
  const block = (part: bigint) => {
    of.next();
    system.addConsumed(host, 'Normal', { refTime: (most.refTime * part) / 100n, proofSize: 0n });
    of.finish();
  };
  const plain = parts();
  test.equal(plain.adjustedWeightFee, weightToFee(info.weight), 'the multiplier begins at 1');
  for (let i = 0; i < 20; i++) block(0n);
  test.same(parts(), plain, 'and never falls below');
  for (let i = 0; i < 20; i++) block(25n);
  test.same(parts(), plain, 'at the target it stays');
  // Exactly Substrate's 1 + v·d + (v·d)²/2 with v = 1/1000 and d = 3/4, in fractions.
  block(100n);
  test.equal(parts().adjustedWeightFee, (plain.adjustedWeightFee * 8_006_002_250n) / 8_000_000_000n + 0n);
  for (let i = 1; i < 1_200; i++) block(100n);
  const ratio = Number((parts().adjustedWeightFee * 1_000n) / plain.adjustedWeightFee) / 1_000;
  test.ok(ratio > 2.4 && ratio < 2.5, `an hour of full blocks: ${ratio} times, e^0.9 = 2.46`);
  test.same([parts().baseFee, parts().lenFee], [plain.baseFee, plain.lenFee], 'only weight gets dearer');
  for (let i = 0; i < 3_700; i++) block(0n);
  test.same(parts(), plain, 'three hours of empty ones');
});

t.test('holders of OPEN change it all by one vote', async (test) => {
  const RULES = {
    depositBase: OPEN,
    depositPerByte: OPEN / 1_000n,
    votingPeriod: 4,
    enactmentDelay: 2,
    lockingPeriod: 2,
    quorum: 100_000_000,
  };
  const of = await createWorld(genesis({ governance: RULES }));
  test.teardown(of.close);
  const { host } = of;
  of.dispatch(make('Balances', 'transfer_keep_alive', { dest: to(TREASURY), value: 50n * OPEN }), CHARLIE);
  const split = { ...DEFAULT_RULES.split, platform: 150_000_000, stakers: 250_000_000, contributors: 400_000_000 };
  const noop = { type: 'Noop' };
  const wanted = make('Utility', 'batch_all', {
    calls: [
      make('TransactionPayment', 'set_fee_shares', { burn: 100_000_000, author: 200_000_000 }),
      make('Attribution', 'set_rules', { rules: { ...DEFAULT_RULES, split } }),
      make('Staking', 'set_inflation', { annual: 20_000_000 }),
      make('Staking', 'set_staking_configs', {
        minNominatorBond: { type: 'Set', value: OPEN },
        minValidatorBond: noop,
        maxNominatorCount: noop,
        maxValidatorCount: noop,
        chillThreshold: noop,
        minCommission: noop,
        maxStakedRewards: noop,
      }),
      make('Staking', 'set_validator_count', { new: 7 }),
      make('Treasury', 'spend_local', { amount: 20n * OPEN, beneficiary: to(person(60)) }),
      make('Governance', 'set_parameters', { parameters: { ...RULES, votingPeriod: 9 } }),
    ],
  });
  const enact = (call: RuntimeCall, by: AccountId, votingPeriod = RULES.votingPeriod) => {
    const start = of.number();
    const proposed = of.dispatch(make('Governance', 'propose', { call }), by).events.at(-1)!.value;
    for (const who of [BOB, CHARLIE]) {
      const aye = { type: 'Standard', value: { vote: { aye: true, conviction: 'Locked1x' }, balance: 600n * OPEN } };
      const vote = make('ConvictionVoting', 'vote', { pollIndex: proposed.proposal, vote: aye });
      test.equal(of.dispatch(vote, who).error, undefined);
    }
    of.next(start + votingPeriod + RULES.enactmentDelay);
    return of.events().find(({ name }) => name === 'Governance.Enacted')?.value.result;
  };
  test.match(enact(wanted, ALICE), { ok: true });
  test.same(attribution.rulesInForce(host)[0]?.split, split);
  test.equal(staking.Inflation.get(host), 20_000_000);
  test.equal(staking.MinNominatorBond.get(host), OPEN);
  test.equal(staking.ValidatorCount.get(host), 7);
  test.equal(of.free(person(60)), 20n * OPEN);
  test.equal(of.free(POT), balances.EXISTENTIAL_DEPOSIT);

  // What breaks a rule is not enacted, in whole: nine tenths to those who take part would make self-dealing free.
  const greedy = { ...split, platform: 0, stakers: 50_000_000 };
  const bad = make('Utility', 'batch_all', {
    calls: [
      make('Staking', 'set_inflation', { annual: 1 }),
      make('Attribution', 'set_rules', { rules: { ...DEFAULT_RULES, split: greedy } }),
    ],
  });
  test.match(enact(bad, BOB, 9), { ok: false });
  test.equal(staking.Inflation.get(host), 20_000_000);
  test.ok(of.balanced());
});
