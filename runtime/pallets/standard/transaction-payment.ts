/**
 * TransactionPayment: what transactions cost, and who gets it (`pallet_transaction_payment`).
 *
 * fee = base + length · per byte + multiplier · weight · per picosecond + tip. The multiplier rises while blocks are fuller
 * than the target and falls back to 1. What a block collects is shared out at its end: a part is burnt, the rest goes to
 * author and treasury; tips are the author's alone.
 */
import {
  cost,
  DispatchFailure,
  type DispatchInfo,
  type DispatchOutcome,
  ensure,
  ensureRoot,
  error,
} from '../../framework/dispatch.ts';
import { extension, type TransactionContext } from '../../framework/extension.ts';
import { call, constant, type Env, event, pallet } from '../../framework/pallet.ts';
import { storage, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { TREASURY } from '../../primitives/pallet-id.ts';
import { compact, type Infer, named, struct, u8, unit, variants } from '../../primitives/scale/codec.ts';
import {
  accountId,
  type Balance,
  balance,
  FIXED_U128_ONE,
  fixedU128,
  PERBILL,
  perbill,
  type Weight,
} from '../../primitives/types.ts';
import { invalid } from '../../primitives/validity.ts';
import * as authorship from './authorship.ts';
import * as balances from './balances.ts';
import * as system from './system.ts';

/** Units of OPEN for a picosecond: a plain transfer comes to about a thousandth of an OPEN. */
const FEE_PER_PS: Balance = 8_000_000n;
const FEE_PER_BYTE: Balance = 10n ** 12n;
const OPERATIONAL_FEE_MULTIPLIER = 5;
/** Tips rank transactions in steps of this many units: with 18 decimals, u64 priorities would saturate otherwise. */
const TIP_STEP: Balance = 10n ** 9n;

/** Fullness of the normal class at which the multiplier stays as it is. */
const TARGET_FULLNESS = FIXED_U128_ONE / 4n;
/** How strongly the multiplier reacts: an hour of full blocks of three seconds multiplies it by about 2.5. */
const VARIABILITY = FIXED_U128_ONE / 1_000n;
const MIN_MULTIPLIER = FIXED_U128_ONE;
const MAX_MULTIPLIER = 1_000n * FIXED_U128_ONE;

// ---- types and storage ---------------------------------------------------------------------------------------

const feeShares = named('pallet_transaction_payment::FeeShares', struct({ burn: perbill, author: perbill }));
const collectedFees = named('pallet_transaction_payment::CollectedFees', struct({ fees: balance, tips: balance }));
const NOTHING: Infer<typeof collectedFees> = { fees: 0n, tips: 0n };

export const store = storage('TransactionPayment', {
  NextFeeMultiplier: value(fixedU128, FIXED_U128_ONE, 'The multiplier of the weight fee of the next block.'),
  StorageVersion: value(
    named('pallet_transaction_payment::Releases', variants({ V1Ancient: null, V2: null })),
    { type: 'V2' },
    'Layout of the storage.',
  ),
  FeeShares: value(
    feeShares,
    { burn: 500_000_000, author: 300_000_000 },
    'Parts of the fees that are burnt and that the author gets; the treasury gets the rest.',
  ),
  Collected: value(collectedFees, NOTHING, 'What the current block took in; shared out at its end.'),
});

export const events = {
  TransactionFeePaid: event(
    0,
    { who: accountId, actualFee: balance, tip: balance },
    'A transaction fee `actual_fee`, of which `tip` was added to the minimum inclusion fee, has been paid by `who`.',
  ),
  FeesShared: event(
    1,
    { burnt: balance, author: balance, treasury: balance },
    'The fees and tips of a block were shared out.',
  ),
};

export const errors = {
  SharesExceedWhole: error(0, 'The shares of the fees add up to more than the whole.'),
};

// ---- fees ----------------------------------------------------------------------------------------------------

export const weightToFee = (weight: Weight): Balance => weight.refTime * FEE_PER_PS;
export const lengthToFee = (length: number): Balance => BigInt(length) * FEE_PER_BYTE;
const multiplied = (fee: Balance, multiplier: bigint): Balance => (fee * multiplier) / FIXED_U128_ONE;

export interface InclusionFee {
  readonly baseFee: Balance;
  readonly lenFee: Balance;
  readonly adjustedWeightFee: Balance;
}

/** Undefined for calls that pay nothing. `weight` is the announced one unless the actual one is known. */
export function inclusionFee(
  host: Host,
  info: DispatchInfo,
  length: number,
  weight: Weight = info.weight,
): InclusionFee | undefined {
  if (!info.paysFee) return undefined;
  return {
    baseFee: weightToFee(system.limitsOf(info.class).baseExtrinsic),
    lenFee: lengthToFee(length),
    adjustedWeightFee: multiplied(weightToFee(weight), store.NextFeeMultiplier.get(host)),
  };
}

const sumOf = (fee: InclusionFee | undefined): Balance =>
  fee === undefined ? 0n : fee.baseFee + fee.lenFee + fee.adjustedWeightFee;

export const feeOf = (host: Host, info: DispatchInfo, length: number, tip: Balance, weight?: Weight): Balance =>
  sumOf(inclusionFee(host, info, length, weight)) + tip;

const least = (a: bigint, b: bigint): bigint => (a < b ? a : b);

/** Tip for each share of a block that the transaction takes, so that the fullest use of a block pays best. */
function priorityOf(info: DispatchInfo, length: number, tip: Balance, fee: Balance): bigint {
  const { maxBlock } = system.BLOCK_WEIGHTS;
  const times = (whole: bigint, part: bigint): bigint => (part <= 1n ? whole : whole / least(part, whole));
  const perBlock = least(
    least(times(maxBlock.refTime, info.weight.refTime), times(maxBlock.proofSize, info.weight.proofSize)),
    times(BigInt(system.maxLengthOf(info.class)), BigInt(length)),
  );
  const reward = (amount: Balance): bigint => (amount / TIP_STEP + 1n) * perBlock;
  const priority =
    info.class === 'Operational' ? reward(tip) + reward(fee * BigInt(OPERATIONAL_FEE_MULTIPLIER)) : reward(tip);
  return least(priority, (1n << 64n) - 1n);
}

/** `1 + v·d + (v·d)²/2` with `d` the fullness beyond the target (Substrate's `TargetedFeeAdjustment`). */
function nextMultiplier(previous: bigint, normal: Weight): bigint {
  const max = system.limitsOf('Normal').maxTotal ?? system.BLOCK_WEIGHTS.maxBlock;
  const part = (used: bigint, whole: bigint): bigint => (least(used, whole) * FIXED_U128_ONE) / whole;
  const byTime = part(normal.refTime, max.refTime);
  const byProof = part(normal.proofSize, max.proofSize);
  const fullness = byTime > byProof ? byTime : byProof;
  const first = (VARIABILITY * (fullness - TARGET_FULLNESS)) / FIXED_U128_ONE;
  const second = (first * first) / FIXED_U128_ONE / 2n;
  const next = (previous * (FIXED_U128_ONE + first + second)) / FIXED_U128_ONE;
  return next < MIN_MULTIPLIER ? MIN_MULTIPLIER : least(next, MAX_MULTIPLIER);
}

// ---- the extension -------------------------------------------------------------------------------------------

interface Charged {
  readonly fee: Balance;
  readonly tip: Balance;
}

export const chargeTransactionPayment = extension<Balance, Charged | undefined>({
  name: 'ChargeTransactionPayment',
  extra: named('pallet_transaction_payment::ChargeTransactionPayment', compact(balance)),
  implicit: unit,
  implicitOf: () => undefined,
  precheck({ env, signer, length }, tip) {
    const least = weightToFee(system.limitsOf('Normal').baseExtrinsic) + lengthToFee(length) + tip;
    if (least > balances.reducible(env.host, signer, true)) throw invalid('Payment');
  },
  validate({ env, signer, info, length }, tip) {
    if (signer === undefined) return undefined;
    const fee = feeOf(env.host, info, length, tip);
    if (fee > balances.reducible(env.host, signer, true)) throw invalid('Payment');
    return { priority: priorityOf(info, length, tip, fee) };
  },
  prepare({ env, signer, info, length }, tip) {
    if (signer === undefined) return undefined;
    const fee = feeOf(env.host, info, length, tip);
    try {
      balances.take(env, signer, fee);
    } catch (problem) {
      if (problem instanceof DispatchFailure) throw invalid('Payment');
      throw problem;
    }
    return { fee, tip };
  },
  postDispatch(tx: TransactionContext, charged, outcome: DispatchOutcome) {
    const { env, signer, info, length } = tx;
    if (charged === undefined || signer === undefined) return;
    const { post } = outcome;
    const settled = { ...info, paysFee: info.paysFee && post.paysFee !== false };
    const actual = least(feeOf(env.host, settled, length, charged.tip, post.actualWeight), charged.fee);
    const refund = charged.fee - actual;
    const kept = balances.give(env, signer, refund) ? actual : charged.fee;
    store.Collected.mutate(env.host, ({ fees, tips }) => ({
      fees: fees + kept - charged.tip,
      tips: tips + charged.tip,
    }));
    env.emit(events.TransactionFeePaid, { who: signer, actualFee: kept, tip: charged.tip });
  },
});

function shareOut(env: Env): void {
  const { fees, tips } = store.Collected.take(env.host);
  if (fees === 0n && tips === 0n) return;
  const shares = store.FeeShares.get(env.host);
  const part = (ppb: number): Balance => (fees * BigInt(ppb)) / BigInt(PERBILL);
  const burnt = part(shares.burn);
  const author = part(shares.author) + tips;
  const treasury = fees + tips - burnt - author;
  const paid = (who: Parameters<typeof balances.give>[1] | undefined, amount: Balance): Balance =>
    who !== undefined && balances.give(env, who, amount) ? amount : 0n;
  const toAuthor = paid(authorship.author(env.host), author);
  const toTreasury = paid(TREASURY, treasury + author - toAuthor);
  const lost = fees + tips - toAuthor - toTreasury;
  balances.rescind(env, lost);
  env.emit(events.FeesShared, { burnt: lost, author: toAuthor, treasury: toTreasury });
}

// ---- the pallet ----------------------------------------------------------------------------------------------

export const transactionPayment = pallet({
  name: 'TransactionPayment',
  index: 11,
  docs: 'Fees in OPEN by weight and length, congestion, and their split.',
  storage: store,
  events,
  errors,
  constants: {
    OperationalFeeMultiplier: constant(
      u8,
      OPERATIONAL_FEE_MULTIPLIER,
      'A fee multiplier for operational extrinsics to compute a virtual tip that boosts their priority.',
    ),
  },
  calls: {
    setFeeShares: call({
      index: 0,
      args: { burn: perbill, author: perbill },
      weight: cost(5_000_000n, 0, 1),
      class: 'Operational',
      docs: 'Set which parts of the fees are burnt and go to the author; the treasury gets the rest. Root only.',
      run({ origin, host }, shares) {
        ensureRoot(origin);
        ensure(shares.burn + shares.author <= PERBILL, errors.SharesExceedWhole);
        store.FeeShares.put(host, shares);
      },
    }),
  },
  hooks: {
    onInitialize: () => cost(20_000_000n, 6, 4),
    onFinalize(env) {
      shareOut(env);
      const { normal } = system.consumed(env.host);
      store.NextFeeMultiplier.mutate(env.host, (previous) => nextMultiplier(previous, normal));
    },
  },
});

export const { calls } = transactionPayment;
