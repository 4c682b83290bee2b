/** The watcher's eyes: forgeries of each kind, and the evidence that the chain upholds; honest work passes. */
import t from 'tap';
import { createSignatures } from '../../../node/crypto/signatures.ts';
import { type BatchFinding, findInBatch } from '../../../node/watcher/batch-evidence.ts';
import { findInTraining } from '../../../node/watcher/training-evidence.ts';
import type { PendingBatch } from '../../../runtime/pallets/ledger/attribution.ts';
import { hashOf } from '../../../runtime/primitives/attribution/canonical.ts';
import { type FeatureRow, featureFile, featureRoot } from '../../../runtime/primitives/attribution/features.ts';
import type { ClaimId } from '../../../runtime/primitives/attribution/ids.ts';
import {
  type BatchItem,
  batchFile,
  batchLedger,
  itemRoot,
  ledgerRoot,
} from '../../../runtime/primitives/attribution/ledger.ts';
import {
  type InferenceReceipt,
  inferenceReceipt,
  type ReceiptBatch,
  type SignedInferenceReceipt,
  trainingReceipt,
  type Voucher,
  voucher,
} from '../../../runtime/primitives/attribution/receipts.ts';
import { splitPool } from '../../../runtime/primitives/attribution/shares.ts';
import { DEFAULT_RULES, receiptRules } from '../../../runtime/primitives/attribution/split.ts';
import { type SumEntry, sumFile, sumRoot } from '../../../runtime/primitives/attribution/sums.ts';
import { attribute } from '../../../runtime/primitives/attribution/verify.ts';
import { encode } from '../../../runtime/primitives/scale/codec.ts';
import { ZERO_HASH } from '../../../runtime/primitives/types.ts';
import { someHash } from '../../runtime/attribution/world.ts';
import { account, facts, hashing, MARKUP, PRICE, payer, sign, worker } from '../../runtime/ledger/world.ts';

const training = { ...facts.training, worker };
const trainingHash = hashOf(hashing, trainingReceipt, training);
const rules = receiptRules(DEFAULT_RULES, MARKUP);
const data = {
  ...{ rows: facts.rows, table: facts.table, entries: facts.entries, model: facts.model },
  frequencies: { records: facts.rows.length, frequencies: facts.frequencies },
};

/** An answer as an honest worker signs it, with changes before it is signed. */
function answer(
  nonce: number,
  cumulative: bigint,
  change: (receipt: InferenceReceipt) => InferenceReceipt = (each) => each,
  promise: Partial<Voucher> = {},
): SignedInferenceReceipt {
  const { receipt } = facts.inference(nonce);
  const fee = PRICE.input * BigInt(receipt.tokensIn) + PRICE.output * BigInt(receipt.tokensOut);
  const payload: Voucher = {
    ...{
      chain: ZERO_HASH,
      session: 0n as never,
      worker,
      nonce: BigInt(nonce),
      cumulative: cumulative + fee,
      most: fee,
    },
    ...{ adapter: 0 as never, price: PRICE, markup: MARKUP, request: ZERO_HASH },
    ...promise,
  };
  const pool = rules.poolOf(fee);
  const split = attribute(facts.model, facts.model.influence(receipt.feature), receipt.spans, pool, rules.blend);
  const made = change({
    ...receipt,
    voucher: { payload, signature: sign('Session', hashOf(hashing, voucher, payload)) },
    ...{ worker, training: trainingHash, fee, pool },
    ...{ spans: split.spans, shares: split.shares, remainder: split.remainder },
  });
  return { payload: made, signature: sign('Worker', hashOf(hashing, inferenceReceipt, made)) };
}

/** Shares that follow from their standings, whatever these are. */
function divided(receipt: InferenceReceipt, shares: InferenceReceipt['shares']): InferenceReceipt {
  const split = splitPool(receipt.pool, shares, DEFAULT_RULES.blend);
  const amounts = shares.map((share, at) => ({ ...share, amount: split.amounts[at]! }));
  return { ...receipt, shares: amounts, remainder: split.remainder };
}

interface Change {
  readonly items?: (items: BatchItem[]) => BatchItem[];
  readonly batch?: (batch: ReceiptBatch) => ReceiptBatch;
  readonly file?: Uint8Array;
}

async function look(receipts: readonly SignedInferenceReceipt[], change: Change = {}): Promise<BatchFinding> {
  const sums = batchLedger(receipts);
  const items = change.items?.(sums.items) ?? sums.items;
  const nonces = receipts.map(({ payload }) => payload.voucher.payload.nonce);
  const honest: ReceiptBatch = {
    ...{ chain: ZERO_HASH, worker, session: 0n as never, adapter: 0 as never },
    ...{ root: itemRoot(hashing, items), receipts: items.length, firstNonce: nonces[0]!, lastNonce: nonces.at(-1)! },
    ...{ ledgerRoot: ledgerRoot(hashing, sums.entries), ledgerEntries: sums.entries.length },
    ...{ fees: sums.fees, pool: sums.pool, remainder: sums.remainder, totals: sums.totals },
    voucher: receipts.at(-1)!.payload.voucher,
    blob: ZERO_HASH,
  };
  const pending: PendingBatch = {
    ...{ batch: change.batch?.(honest) ?? honest, payer, key: account('Session') },
    ...{ terms: { prices: [PRICE], markup: MARKUP }, rules: DEFAULT_RULES, until: 0, stake: 0n, claim: 0n as ClaimId },
  };
  const host = { ...hashing, ...(await createSignatures()) };
  const file = change.file ?? encode(batchFile, { items });
  return findInBatch(host, { pending, file, training, trainingHash, data });
}

t.test('batches', async (test) => {
  const some = (change?: (receipt: InferenceReceipt) => InferenceReceipt, promise?: Partial<Voucher>) => [
    answer(1, 0n),
    answer(2, 10n ** 18n, change, promise),
    answer(3, 2n * 10n ** 18n),
  ];
  const of = (found: BatchFinding) => (found.type === 'Sound' ? 'Sound' : `${found.type} ${found.fault}`);
  test.equal(of(await look(some())), 'Sound');

  /** Until there is somebody with influence, who can be left out. */
  const influenced = (change: (receipt: InferenceReceipt) => InferenceReceipt) => {
    let has = false;
    for (let tries = 0; tries < 20; tries++) {
      const receipts = some((receipt) => {
        has = receipt.shares.some(({ influence }) => influence > 0n);
        return change(receipt);
      });
      if (has) return receipts;
    }
    throw new Error('nobody has influence');
  };
  const [first] = facts.accounts;
  const raised = (receipt: InferenceReceipt) =>
    divided(
      receipt,
      receipt.shares.map((share, at) => (at === 0 ? { ...share, influence: share.influence + (1n << 60n) } : share)),
    );
  const forgeries: readonly (readonly [string, readonly SignedInferenceReceipt[], Change?])[] = [
    ['Challenge FEE', some((receipt) => ({ ...receipt, fee: receipt.fee + 1n }))],
    ['Challenge POOL', some((receipt) => ({ ...receipt, pool: receipt.pool - 1n }))],
    ['Challenge OVER_MOST', some(undefined, { most: 1n })],
    ['Challenge INFLUENCE', some(raised)],
    [
      'Challenge MISSING_SHARE',
      influenced((receipt) => {
        const [, ...others] = receipt.shares.filter(({ influence }) => influence > 0n);
        return divided(
          { ...receipt, spans: [] },
          others.map((each) => ({ ...each, spanMass: 0n })),
        );
      }),
    ],
    [
      'Challenge UNKNOWN_CONTRIBUTOR',
      some((receipt) => {
        const stranger = { contributor: payer, influence: 1n << 40n, spanMass: 0n, amount: 0n };
        const shares = [...receipt.shares.map((each) => ({ ...each, spanMass: 0n })), stranger];
        return divided(
          { ...receipt, spans: [] },
          shares
            .filter(({ influence }) => influence > 0n)
            .sort((a, b) => Buffer.compare(a.contributor, b.contributor)) as never,
        );
      }),
    ],
    [
      'Challenge MATCH_ROW',
      some((receipt) => {
        const [span, ...spans] = receipt.spans;
        const matches = span!.matches.with(-1, { ...span!.matches.at(-1)!, record: 1 << 19 });
        return { ...receipt, spans: [{ ...span!, matches }, ...spans] };
      }),
    ],
    ['Challenge FOREIGN_RECEIPT', some(undefined, { adapter: 5 as never })],
    ['Challenge OTHER_TERMS', some(undefined, { price: { ...PRICE, output: PRICE.output + 1n } })],
    ['Challenge ITEM_ORDER', [answer(2, 0n), answer(1, 10n ** 18n), answer(3, 2n * 10n ** 18n)]],
    ['Challenge FEATURE_WIDTH', some((receipt) => ({ ...receipt, feature: receipt.feature.slice(1) }))],
    [
      'Challenge ITEM_STEP',
      some(),
      { items: (items) => items.map((each, at) => (at === 1 ? { ...each, fees: each.fees + 1n } : each)) },
    ],
    ['Challenge ITEM_TOTAL', some(), { batch: (batch) => ({ ...batch, fees: batch.fees + 1n }) }],
    ['Audit FILE', some(), { file: new Uint8Array([9, 9, 9]) }],
    ['Audit ROOT', some(), { batch: (batch) => ({ ...batch, root: someHash('another') }) }],
    ['Audit LEDGER', some(), { batch: (batch) => ({ ...batch, ledgerRoot: someHash('nobody has it') }) }],
    [
      'Audit LEDGER',
      some(),
      { batch: (batch) => ({ ...batch, totals: [{ contributor: first!, amount: batch.pool - batch.remainder }] }) },
    ],
  ];
  for (const [wanted, receipts, change] of forgeries) {
    const found = await look(receipts, change);
    test.equal(of(found), wanted);
  }
  // Somebody else's signature in place of the session's key.
  const forged = some();
  const { payload } = forged[1]!;
  const promise = payload.voucher.payload;
  const other = {
    ...payload,
    voucher: { payload: promise, signature: sign('Payer', hashOf(hashing, voucher, promise)) },
  };
  forged[1] = { payload: other, signature: sign('Worker', hashOf(hashing, inferenceReceipt, other)) };
  test.equal(of(await look(forged)), 'Challenge BAD_SIGNATURE');
});

t.test('trainings', async (test) => {
  const records = async (range: (typeof facts.ranges)[number]) => facts.batches[facts.ranges.indexOf(range)];
  const trained = async (
    rows: readonly FeatureRow[],
    entries: readonly SumEntry[],
    files: { sums?: Uint8Array } = {},
  ) => {
    const features = {
      ...training.features,
      ...{ featureRoot: featureRoot(hashing, rows), rows: rows.length },
      ...{ sumRoot: sumRoot(hashing, entries), sumEntries: entries.length },
    };
    const found = await findInTraining(hashing, {
      context: { receipt: { ...training, features }, ranges: facts.ranges.length, noveltyFloor: 52_429 },
      ranges: facts.ranges,
      features: encode(featureFile, { k: facts.k, rows: [...rows] }),
      sums: files.sums ?? encode(sumFile, { k: facts.k, entries: [...entries] }),
      records,
    });
    return found.type === 'Sound' ? 'Sound' : `${found.type} ${found.fault}`;
  };
  const { rows, entries } = facts;
  const changed = (at: number, change: Partial<FeatureRow>) =>
    rows.map((row, i) => (i === at ? { ...row, ...change } : row));
  const entry = (at: number, change: Partial<SumEntry>) =>
    entries.map((each, i) => (i === at ? { ...each, ...change } : each));
  test.equal(await trained(rows, entries), 'Sound');
  test.equal(await trained(changed(7, { scale: 1 }), entries), 'Challenge NOT_UNIT_NORM');
  test.equal(await trained(changed(7, { record: someHash('another') }), entries), 'Challenge WRONG_RECORD');
  test.equal(await trained(changed(7, { contributor: payer }), entries), 'Challenge WRONG_CONTRIBUTOR');
  const sums = entries[0]!.sums.map((each) => each + 1n);
  test.equal(await trained(rows, entry(1, { sums })), 'Challenge WRONG_SUM');
  test.equal(await trained(rows, entry(0, { sums })), 'Challenge WRONG_SUM');
  test.equal(await trained(rows, entry(2, { sums: sums.slice(1) })), 'Challenge MALFORMED');
  test.equal(await trained(rows, entry(0, { last: !entries[0]!.last })), 'Challenge WRONG_ORDER');
  test.match(await trained(rows, entries.slice(1)), /^Challenge (MISSING_ROW|WRONG_SUM|WRONG_ORDER)$/);
  test.match(await trained(rows, entries.slice(0, -1)), /^Challenge (MISSING_ROW|WRONG_ORDER)$/);
  test.equal(await trained(rows, []), 'Challenge MISSING_ROW');
  test.equal(await trained(rows, entries, { sums: new Uint8Array([1]) }), 'Audit FILE');
});
