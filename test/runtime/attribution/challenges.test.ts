/** The chain's verdicts: every forged integer falls to one challenge, no honest one to any. */
import { test } from 'tap';
import { hashOf } from '../../../runtime/primitives/attribution/canonical.ts';
import type { Verdict } from '../../../runtime/primitives/attribution/challenge.ts';
import {
  type FeatureRow,
  featureRoot,
  featureRow,
  featureTable,
  rowLeaf,
} from '../../../runtime/primitives/attribution/features.ts';
import {
  type BatchChallenge,
  type BatchContext,
  batchChallenge,
  batchFault,
  decideBatch,
  decideReceipt,
  type ReceiptChallenge,
  receiptChallenge,
} from '../../../runtime/primitives/attribution/inference-challenge.ts';
import type { BatchItem, LedgerEntry } from '../../../runtime/primitives/attribution/ledger.ts';
import { itemRoot, ledgerRoot } from '../../../runtime/primitives/attribution/ledger.ts';
import { NOVELTY_ONE } from '../../../runtime/primitives/attribution/limits.ts';
import { leafHash, merkleRoot, proveRange } from '../../../runtime/primitives/attribution/merkle.ts';
import { recordOverlap, rowOverlap } from '../../../runtime/primitives/attribution/novelty.ts';
import type { ReceiptBatch, TrainingReceipt } from '../../../runtime/primitives/attribution/receipts.ts';
import { trainingReceipt } from '../../../runtime/primitives/attribution/receipts.ts';
import { proveRecord } from '../../../runtime/primitives/attribution/records.ts';
import { runningSums, type SumEntry, sumEntry, sumRoot } from '../../../runtime/primitives/attribution/sums.ts';
import {
  decideTraining,
  type TrainingChallenge,
  trainingChallenge,
} from '../../../runtime/primitives/attribution/training-challenge.ts';
import { decode, encode } from '../../../runtime/primitives/scale/codec.ts';
import { account, hashing, price, rules, someHash, world } from './world.ts';

const here = world(21);
const { rows, entries, ranges, batches, lines, tokens, training, k } = here;
const NOVELTY_FLOOR = 52_429;

/** Through its encoding, as it would reach the chain. */
function judge(challenge: TrainingChallenge, receipt: TrainingReceipt = training): Verdict {
  const parsed = decode(trainingChallenge, encode(trainingChallenge, challenge));
  return decideTraining(hashing, { receipt, ranges: ranges.length, noveltyFloor: NOVELTY_FLOOR }, parsed);
}
const upheld = (fault: string): Verdict => ({ type: 'Upheld', fault });
const dismissed = (reason: 'NotProven' | 'BadProof' | 'BadEvidence' | 'BadRecord'): Verdict => ({
  type: 'Dismissed',
  reason,
});

const withRows = (forged: readonly FeatureRow[]): TrainingReceipt => ({
  ...training,
  features: { ...training.features, featureRoot: featureRoot(hashing, forged), rows: forged.length },
});
const withSums = (forged: readonly SumEntry[]): TrainingReceipt => ({
  ...training,
  features: { ...training.features, sumRoot: sumRoot(hashing, forged), sumEntries: forged.length },
});
const recordEvidence = (index: number) => {
  const at = ranges.findIndex((range) => index >= range.first && index < range.first + range.count);
  return { record: rows[index]!.record, recordProof: proveRecord(hashing, ranges, at, batches[at]!, index) };
};

test('rows', async (t) => {
  const forgeRow = (index: number, change: Partial<FeatureRow>) =>
    rows.map((row, i) => (i === index ? { ...row, ...change } : row));
  const malformed = (receipt: TrainingReceipt, forged: readonly FeatureRow[], index: number) =>
    judge(
      {
        type: 'RowMalformed',
        value: {
          leaf: encode(featureRow, forged[index]!),
          proof: proveRange(
            hashing,
            'features',
            forged.map((row) => rowLeaf(hashing, row)),
            index,
          ),
        },
      },
      receipt,
    );
  for (let i = 0; i < rows.length; i += 13) {
    t.same(malformed(training, rows, i), dismissed('NotProven'));
    t.same(
      judge({ type: 'RowRecord', value: { row: here.proveRow(i), ...recordEvidence(i) } }),
      dismissed('NotProven'),
    );
  }
  const loud = forgeRow(30, { scale: Math.floor(rows[30]!.scale * 1.5) });
  t.same(malformed(withRows(loud), loud, 30), upheld('NOT_UNIT_NORM'), 'a row that shouts');
  t.same(malformed(training, loud, 30), dismissed('BadProof'));
  const junk = [
    ...rows.map((row) => rowLeaf(hashing, row)).slice(0, 5),
    leafHash(hashing, 'features', Uint8Array.of(1, 2, 3)),
  ];
  t.same(
    judge(
      {
        type: 'RowMalformed',
        value: { leaf: Uint8Array.of(1, 2, 3), proof: proveRange(hashing, 'features', junk, 5) },
      },
      { ...training, features: { ...training.features, featureRoot: merkleRoot(hashing, 'features', junk), rows: 6 } },
    ),
    upheld('MALFORMED'),
    'a leaf that is no row at all',
  );

  const stolen = forgeRow(40, { contributor: account(777) });
  t.same(
    judge({ type: 'RowRecord', value: { row: here.proveRow(40, stolen), ...recordEvidence(40) } }, withRows(stolen)),
    upheld('WRONG_CONTRIBUTOR'),
  );
  const swapped = forgeRow(40, { record: someHash('x') });
  t.same(
    judge({ type: 'RowRecord', value: { row: here.proveRow(40, swapped), ...recordEvidence(40) } }, withRows(swapped)),
    upheld('WRONG_RECORD'),
  );
  t.same(
    judge({ type: 'RowRecord', value: { row: here.proveRow(40), ...recordEvidence(41) } }),
    dismissed('BadProof'),
    'the record of another index proves nothing',
  );

  await t.test('novelty', async (t) => {
    const near = rows.findIndex((row) => row.novelty < 20_000);
    const { nearest, novelty } = rows[near]!;
    const case_ = (forged: readonly FeatureRow[], index: number, earlier: number, change = {}) =>
      judge(
        {
          type: 'Novelty',
          value: {
            row: here.proveRow(index, forged),
            line: lines[index]!,
            earlier: here.proveRow(earlier, forged),
            earlierLine: lines[earlier]!,
            ...change,
          },
        },
        withRows(forged),
      );
    t.ok(near > 0);
    for (let earlier = 0; earlier < near; earlier++) t.same(case_(rows, near, earlier), dismissed('NotProven'));
    t.same(
      case_(forgeRow(near, { novelty: 65_536, nearest: near }), near, nearest),
      upheld('WRONG_NOVELTY'),
      'a copier waved through',
    );
    t.same(
      case_(forgeRow(near, { novelty: novelty + 1 }), near, nearest),
      upheld('WRONG_NOVELTY'),
      'one unit too much',
    );
    t.same(
      case_(forgeRow(near, { novelty: novelty - 1 }), near, nearest),
      upheld('WRONG_NOVELTY'),
      'one unit too little',
    );
    t.same(case_(forgeRow(20, { novelty: 9, nearest: 3 }), 20, 3), upheld('WRONG_NOVELTY'), 'an original defamed');
    t.same(
      case_(rows, near, nearest, { line: lines[0]! }),
      dismissed('BadEvidence'),
      'texts must be the committed ones',
    );
    t.same(case_(rows, nearest, near), dismissed('BadEvidence'), 'only earlier records count');

    // Other words, nearly the same direction: of what the texts share there is nothing.
    const turned = rows[20]!.values.slice();
    turned[turned.findIndex((value) => value > 3 && value < 9)]! *= -1;
    const reworded = { values: turned, scale: rows[20]!.scale };
    t.equal(recordOverlap(lines[25]!, lines[20]!), 0);
    t.equal(rowOverlap(reworded, rows[20]!, rows.length), NOVELTY_ONE);
    t.same(
      case_(forgeRow(25, { ...reworded, novelty: NOVELTY_ONE, nearest: 25 }), 25, 20),
      upheld('WRONG_NOVELTY'),
      'a reworded copy waved through',
    );
    t.same(
      case_(forgeRow(25, { ...reworded, novelty: 1, nearest: 4 }), 25, 20),
      upheld('WRONG_NOVELTY'),
      'another neighbour named, one unit too much',
    );
    t.same(
      case_(forgeRow(25, { ...reworded, novelty: 0, nearest: 20 }), 25, 20),
      dismissed('NotProven'),
      'the right credit stands',
    );
  });
});

test('running sums', async (t) => {
  const step = (forged: readonly SumEntry[], at: number, receipt = withSums(forged)) => {
    const entry = forged[at]!;
    return judge(
      {
        type: 'SumStep',
        value: {
          entries: at === 0 ? here.proveEntries(0, 1, [...forged]) : here.proveEntries(at - 1, 2, [...forged]),
          rows: rows.slice(entry.first, entry.first + entry.count),
          rowsProof: proveRange(
            hashing,
            'features',
            rows.map((row) => rowLeaf(hashing, row)),
            entry.first,
            entry.count,
          ),
        },
      },
      receipt,
    );
  };
  const order = (forged: readonly SumEntry[], at: number) =>
    judge(
      { type: 'SumOrder', value: { entries: here.proveEntries(at, at + 1 < forged.length ? 2 : 1, [...forged]) } },
      withSums(forged),
    );
  const gap = (forged: readonly SumEntry[], at: number, count: number, index: number) =>
    judge(
      { type: 'SumGap', value: { entries: here.proveEntries(at, count, [...forged]), row: here.proveRow(index) } },
      withSums(forged),
    );

  await t.test('the honest list stands every challenge', async (t) => {
    for (let at = 0; at < entries.length; at++) {
      t.same(step(entries, at), dismissed('NotProven'));
      t.same(order(entries, at), dismissed('NotProven'));
      for (const index of [0, 5, 77, rows.length - 1]) {
        t.same(gap(entries, at, at + 1 < entries.length ? 2 : 1, index), dismissed('NotProven'));
        t.same(gap(entries, at, 1, index), dismissed('NotProven'));
      }
    }
  });

  await t.test('any lie about any sum is found in one step', async (t) => {
    // A worker that wants contributor c to earn more must change the last sum; wherever the lie enters, a step breaks.
    for (const enter of [0, 3, entries.length - 1]) {
      const { contributor } = entries[enter]!;
      const forged = entries.map((entry, at) =>
        at >= enter && entry.contributor === contributor
          ? { ...entry, sums: entry.sums.map((value, j) => (j === 2 ? value + 1n : value)) }
          : entry,
      );
      t.same(step(forged, enter), upheld('WRONG_SUM'));
    }
  });

  await t.test('left-out, doubled and misplaced rows', async (t) => {
    const at = entries.findIndex(
      (entry, i) => i > 0 && i + 1 < entries.length && !entry.last && entries[i - 1]!.contributor === entry.contributor,
    );
    const missing = entries.filter((_, i) => i !== at);
    t.same(gap(missing, at - 1, 2, entries[at]!.first), upheld('MISSING_ROW'));
    t.same(gap(entries.slice(1), 0, 1, entries[0]!.first), upheld('MISSING_ROW'), 'before the first');
    const headless = entries.slice(0, -1);
    t.same(gap(headless, headless.length - 1, 1, entries.at(-1)!.first), upheld('MISSING_ROW'), 'after the last');
    t.same(
      judge({ type: 'SumGap', value: { entries: here.proveEntries(0, 1), row: here.proveRow(0) } }, withSums([])),
      upheld('MISSING_ROW'),
    );
    t.same(order(entries.toSpliced(at, 0, entries[at]!), at), upheld('WRONG_ORDER'), 'doubled');
    t.same(order(entries.with(at, { ...entries[at]!, last: true }), at), upheld('WRONG_ORDER'), 'ended too early');
    t.same(
      order(entries.with(-1, { ...entries.at(-1)!, last: false }), entries.length - 1),
      upheld('WRONG_ORDER'),
      'never ended',
    );
    t.same(order([entries[1]!, entries[0]!], 0), upheld('WRONG_ORDER'));
    t.same(
      order(entries.with(-1, { ...entries.at(-1)!, first: rows.length }), entries.length - 1),
      upheld('WRONG_ORDER'),
      'rows that do not exist',
    );
    t.same(
      order(entries.with(at, { ...entries[at]!, count: 33 }), at),
      upheld('WRONG_ORDER'),
      'too many at once to replay',
    );
  });

  await t.test('bad evidence costs the challenger', async (t) => {
    t.same(step(entries, 2, withSums(entries.slice(1))), dismissed('BadProof'));
    t.same(judge({ type: 'SumOrder', value: { entries: here.proveEntries(1, 1) } }), dismissed('BadEvidence'));
    const leaf = encode(sumEntry, entries[1]!);
    const proof = here.proveEntries(1, 1).proof;
    t.same(judge({ type: 'SumMalformed', value: { leaf, proof } }), dismissed('NotProven'));
    t.same(judge({ type: 'SumMalformed', value: { leaf: leaf.slice(1), proof } }), dismissed('BadProof'));
    const narrow = entries.map((entry) => ({ ...entry, sums: entry.sums.slice(1) }));
    t.same(
      judge(
        {
          type: 'SumMalformed',
          value: { leaf: encode(sumEntry, narrow[1]!), proof: here.proveEntries(1, 1, narrow).proof },
        },
        withSums(narrow),
      ),
      upheld('MALFORMED'),
    );
  });
  t.same(runningSums(featureTable(k, rows)), entries);
});

test('inference receipts', async (t) => {
  const { receipt, output } = here.inference(1);
  const context = { training, rules };
  const claim = (challenge: ReceiptChallenge, about = receipt) =>
    decideReceipt(hashing, context, about, decode(receiptChallenge, encode(receiptChallenge, challenge)));
  const influence = (at: number, about = receipt) => {
    const { entries: found, proof } = here.proveEntries(at, 1);
    return claim({ type: 'Influence', value: { entry: found[0]!, proof } }, about);
  };
  const lasts = entries.map((entry, at) => ({ entry, at })).filter(({ entry }) => entry.last);
  const change = (c: number, share: Partial<(typeof receipt.shares)[number]>) => ({
    ...receipt,
    shares: receipt.shares.map((each, i) => (i === c ? { ...each, ...share } : each)),
  });

  t.same(claim({ type: 'Arithmetic' }), dismissed('NotProven'));
  t.same(claim({ type: 'FeatureWidth' }), dismissed('NotProven'));
  t.same(claim({ type: 'FeatureWidth' }, { ...receipt, feature: receipt.feature.slice(1) }), upheld('FEATURE_WIDTH'));
  t.same(claim({ type: 'Arithmetic' }, change(0, { amount: receipt.shares[0]!.amount + 1n })), upheld('AMOUNT'));

  await t.test('influence: every contributor can be checked by one entry', async (t) => {
    let positive = 0;
    for (const { entry, at } of lasts) {
      t.same(influence(at), dismissed('NotProven'));
      const c = receipt.shares.findIndex((each) => each.contributor === entry.contributor);
      if (c < 0) continue;
      t.same(influence(at, change(c, { influence: receipt.shares[c]!.influence + 1n })), upheld('INFLUENCE'));
      if (receipt.shares[c]!.influence <= 0n) continue;
      positive++;
      t.same(influence(at, { ...receipt, shares: receipt.shares.filter((_, i) => i !== c) }), upheld('MISSING_SHARE'));
    }
    t.ok(positive > 0);
    const inner = entries.findIndex((entry) => !entry.last);
    t.same(influence(inner), dismissed('BadEvidence'), 'an entry in the middle is not the sum');
  });

  await t.test('strangers', async (t) => {
    const stranger = (fill: number) => ({
      ...receipt,
      shares: [...receipt.shares, { ...receipt.shares[0]!, contributor: new Uint8Array(32).fill(fill) as never }],
    });
    const at = (about: typeof receipt, first: number, count: number) =>
      claim(
        { type: 'UnknownContributor', value: { share: receipt.shares.length, ...here.proveEntries(first, count) } },
        about,
      );
    t.same(at(stranger(0), 0, 1), upheld('UNKNOWN_CONTRIBUTOR'));
    t.same(at(stranger(255), entries.length - 1, 1), upheld('UNKNOWN_CONTRIBUTOR'));
    const border = entries.findIndex((entry) => entry.last);
    const between = {
      ...receipt,
      shares: [
        ...receipt.shares,
        { ...receipt.shares[0]!, contributor: justAfter(entries[border]!.contributor) as never },
      ],
    };
    t.same(at(between, border, 2), upheld('UNKNOWN_CONTRIBUTOR'));
    t.same(at(between, border, 1), dismissed('NotProven'));
    const known = {
      ...receipt,
      shares: [...receipt.shares, { ...receipt.shares[0]!, contributor: entries[border]!.contributor }],
    };
    for (let first = 0; first < entries.length; first++) {
      t.same(at(known, first, Math.min(2, entries.length - first)), dismissed('NotProven'));
    }
  });

  await t.test('spans', async (t) => {
    t.ok(receipt.spans.length >= 2);
    for (const [s, span] of receipt.spans.entries()) {
      for (const [m, match] of span.matches.entries()) {
        const evidence = { span: s, match: m, row: here.proveRow(match.record) };
        const record = tokens[match.record]!;
        const frequencies = output.slice(span.start, span.start + span.length).map(here.proveFrequency);
        const massClaim: ReceiptChallenge = { type: 'SpanMass', value: { ...evidence, record, frequencies } };
        const tokensClaim: ReceiptChallenge = { type: 'MatchTokens', value: { ...evidence, record, output } };
        t.same(claim({ type: 'MatchBeyond', value: evidence }), dismissed('NotProven'));
        t.same(claim({ type: 'MatchRow', value: evidence }), dismissed('NotProven'));
        t.same(claim(tokensClaim), dismissed('NotProven'));
        t.same(claim(massClaim), dismissed('NotProven'));
        t.same(
          claim({ type: 'MatchTokens', value: { ...evidence, record, output: output.toReversed() } }),
          dismissed('BadEvidence'),
        );
        t.same(
          claim({ type: 'SpanMass', value: { ...evidence, record, frequencies: frequencies.slice(1) } }),
          dismissed('BadEvidence'),
        );

        const forge = (of: Partial<typeof match>, spanChange: Partial<typeof span> = {}) => ({
          ...receipt,
          spans: receipt.spans.map((each, i) =>
            i === s
              ? { ...each, ...spanChange, matches: each.matches.map((one, j) => (j === m ? { ...one, ...of } : one)) }
              : each,
          ),
        });
        t.same(
          claim({ type: 'MatchRow', value: evidence }, forge({ share: (match.share + 1) % receipt.shares.length })),
          upheld('MATCH_ROW'),
        );
        t.same(
          claim({ type: 'MatchRow', value: evidence }, forge({ novelty: match.novelty - 1 })),
          upheld('MATCH_ROW'),
        );
        t.same(claim(tokensClaim, forge({ offset: match.offset + 1 })), upheld('MATCH_TOKENS'));
        t.same(claim(massClaim, forge({}, { mass: span.mass + 1 })), upheld('SPAN_MASS'));
        t.same(claim({ type: 'MatchBeyond', value: evidence }, forge({ record: rows.length })), upheld('MATCH_ROW'));
        const without = forge({});
        without.spans = receipt.spans.map((each, i) =>
          i === s ? { ...each, matches: each.matches.toSpliced(m, 1) } : each,
        );
        const omitted: ReceiptChallenge = {
          type: 'MatchOmitted',
          value: { span: s, row: evidence.row, record, offset: match.offset, output },
        };
        t.same(claim(omitted), dismissed('NotProven'));
        t.same(claim(omitted, without), upheld('MATCH_OMITTED'));
      }
    }
  });
});

test('batches', async (t) => {
  const receipts = Array.from({ length: 9 }, (_, n) => here.sign(here.inference(n + 10).receipt));
  const { batch, sums } = here.settle(receipts);
  t.equal(batchFault(batch), undefined);
  t.equal(batchFault({ ...batch, remainder: batch.remainder + 1n }), 'TOTAL_SUM');
  t.equal(batchFault({ ...batch, totals: batch.totals.toReversed() }), 'TOTAL_ORDER');

  const claim = (challenge: BatchChallenge, about: ReceiptBatch = batch, signaturesHold = () => true) => {
    const context: BatchContext = {
      batch: about,
      terms: { prices: [price], markup: 0 },
      training,
      rules,
      trainingHash: hashOf(hashing, trainingReceipt, training),
      signaturesHold,
    };
    return decideBatch(hashing, context, decode(batchChallenge, encode(batchChallenge, challenge)));
  };
  const withItems = (items: readonly BatchItem[]): ReceiptBatch => ({
    ...batch,
    root: itemRoot(hashing, items),
    receipts: items.length,
  });
  const withLedger = (list: readonly LedgerEntry[]): ReceiptBatch => ({
    ...batch,
    ledgerRoot: ledgerRoot(hashing, list),
    ledgerEntries: list.length,
  });
  const item = (at: number, from = sums.items) => ({ item: from[at]!, proof: here.proveItem(from, at) });
  const two = (at: number, from = sums.items) => ({
    items: { items: from.slice(at, at + 2), proof: here.proveItem(from, at, Math.min(2, from.length - at)) },
  });
  const ledgerStep = (at: number, from = sums.entries, about = withLedger(from)) =>
    claim(
      {
        type: 'LedgerStep',
        value: {
          entries: here.proveLedger(from, Math.max(0, at - 1), at === 0 ? 1 : 2),
          item: item(from[at]!.receipt),
        },
      },
      about,
    );
  const ledgerOrder = (at: number, from = sums.entries) =>
    claim(
      { type: 'LedgerOrder', value: { entries: here.proveLedger(from, at, Math.min(2, from.length - at)) } },
      withLedger(from),
    );

  await t.test('an honest batch stands', async (t) => {
    for (let at = 0; at < receipts.length; at++) {
      t.same(claim({ type: 'ForeignReceipt', value: { item: item(at) } }), dismissed('NotProven'));
      t.same(
        claim({ type: 'Receipt', value: { item: item(at), challenge: { type: 'Arithmetic' } } }),
        dismissed('NotProven'),
      );
      t.same(claim({ type: 'ItemOrder', value: two(at) }), dismissed('NotProven'));
      t.same(
        claim({ type: 'ItemStep', value: two(at) }),
        dismissed(at === receipts.length - 1 ? 'BadEvidence' : 'NotProven'),
      );
      for (const [share] of receipts[at]!.payload.shares.entries()) {
        for (let e = 0; e < sums.entries.length; e += 3) {
          const entry = here.proveLedger(sums.entries, e, Math.min(2, sums.entries.length - e));
          t.not(claim({ type: 'LedgerGap', value: { entries: entry, item: item(at), share } }).type, 'Upheld');
        }
      }
    }
    for (let at = 0; at < sums.entries.length; at++) {
      t.same(ledgerStep(at), dismissed('NotProven'));
      t.same(ledgerOrder(at), dismissed('NotProven'));
      const total = claim({ type: 'LedgerTotal', value: { entry: here.proveLedger(sums.entries, at) } });
      t.same(total, dismissed(sums.entries[at]!.last ? 'NotProven' : 'BadEvidence'));
    }
    t.same(claim({ type: 'ItemTotal', value: { item: item(8) } }), dismissed('NotProven'));
    t.same(claim({ type: 'ItemTotal', value: { item: item(7) } }), dismissed('BadEvidence'));
  });

  await t.test('forged receipts and sums', async (t) => {
    t.same(
      claim({ type: 'ForeignReceipt', value: { item: item(2) } }, batch, () => false),
      upheld('BAD_SIGNATURE'),
    );
    t.same(
      claim({ type: 'ForeignReceipt', value: { item: item(2) } }, { ...batch, adapter: 2 as never }),
      upheld('FOREIGN_RECEIPT'),
    );
    const replayed = here.settle([...receipts, receipts[3]!]);
    t.same(
      claim({ type: 'ItemOrder', value: two(8, replayed.sums.items) }, { ...replayed.batch, lastNonce: 99n }),
      upheld('ITEM_ORDER'),
      'replayed',
    );
    t.same(
      claim({ type: 'ItemOrder', value: two(0) }, { ...batch, firstNonce: 11n }),
      upheld('ITEM_ORDER'),
      'an old nonce',
    );
    const dear = sums.items.map((each, at) => (at >= 4 ? { ...each, fees: each.fees + 1n } : each));
    t.same(claim({ type: 'ItemStep', value: two(3, dear) }, withItems(dear)), upheld('ITEM_STEP'));
    t.same(
      claim({ type: 'ItemTotal', value: { item: item(8) } }, { ...batch, fees: batch.fees + 1n }),
      upheld('ITEM_TOTAL'),
    );
  });

  await t.test('forged ledgers', async (t) => {
    const { entries: list } = sums;
    const at = list.findIndex((entry, i) => i > 0 && !entry.last && list[i - 1]!.contributor === entry.contributor);
    const richer = list.with(at, {
      ...list[at]!,
      amount: list[at]!.amount + 1n,
      cumulative: list[at]!.cumulative + 1n,
    });
    t.same(ledgerStep(at, richer), upheld('LEDGER_STEP'), 'an amount that the receipt does not have');
    t.same(
      ledgerStep(at, list.with(at, { ...list[at]!, cumulative: list[at]!.cumulative + 1n })),
      upheld('LEDGER_STEP'),
    );
    t.same(ledgerOrder(at, list.toSpliced(at, 0, list[at]!)), upheld('LEDGER_ORDER'), 'counted twice');
    const missing = list.toSpliced(at, 1);
    const { receipt, contributor } = list[at]!;
    const share = receipts[receipt]!.payload.shares.findIndex((each) => each.contributor === contributor);
    t.same(
      claim(
        { type: 'LedgerGap', value: { entries: here.proveLedger(missing, at - 1, 2), item: item(receipt), share } },
        withLedger(missing),
      ),
      upheld('LEDGER_GAP'),
    );
    const last = list.findIndex((entry) => entry.last);
    const who = batch.totals.findIndex((each) => each.contributor === list[last]!.contributor);
    const robbed = { ...batch, totals: batch.totals.with(who, { ...batch.totals[who]!, amount: 1n }) };
    t.same(
      claim({ type: 'LedgerTotal', value: { entry: here.proveLedger(list, last) } }, robbed),
      upheld('LEDGER_TOTAL'),
    );
    t.same(
      claim(
        { type: 'LedgerTotal', value: { entry: here.proveLedger(list, last) } },
        { ...batch, totals: batch.totals.toSpliced(who, 1) },
      ),
      upheld('LEDGER_TOTAL'),
    );
    const stranger = {
      ...batch,
      totals: [...batch.totals, { contributor: new Uint8Array(32).fill(255) as never, amount: 5n }],
    };
    t.same(
      claim(
        {
          type: 'UnknownTotal',
          value: { total: batch.totals.length, entries: here.proveLedger(list, list.length - 1) },
        },
        stranger,
      ),
      upheld('UNKNOWN_TOTAL'),
    );
    t.same(
      claim({ type: 'UnknownTotal', value: { total: 0, entries: here.proveLedger(list, list.length - 1) } }),
      dismissed('NotProven'),
    );
  });
});

function justAfter(bytes: Uint8Array): Uint8Array {
  const out = bytes.slice();
  out[31] = out[31]! === 255 ? 255 : out[31]! + 1;
  return out;
}
