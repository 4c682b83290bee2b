import { readFileSync } from 'node:fs';
import { test } from 'tap';
import { canonical, hashOf, int8s, preimageOf } from '../../../runtime/primitives/attribution/canonical.ts';
import { commitRows, openCommitment, wrongSumEntry } from '../../../runtime/primitives/attribution/commitment.ts';
import { explainReceipt } from '../../../runtime/primitives/attribution/explain.ts';
import {
  featureFile,
  featureRow,
  featureTable,
  rowFault,
  rowLeaf,
} from '../../../runtime/primitives/attribution/features.ts';
import { influenceByRows, topRows } from '../../../runtime/primitives/attribution/influence.ts';
import { MAX_SCALE, NOVELTY_ONE } from '../../../runtime/primitives/attribution/limits.ts';
import {
  leafHash,
  type MerkleProof,
  merkleRoot,
  proveRange,
  verifyLeaf,
  verifyRange,
} from '../../../runtime/primitives/attribution/merkle.ts';
import { openAdapter } from '../../../runtime/primitives/attribution/opened.ts';
import { inferenceReceipt, receiptBatch, trainingReceipt } from '../../../runtime/primitives/attribution/receipts.ts';
import { DEFAULT_BLEND, splitPool } from '../../../runtime/primitives/attribution/shares.ts';
import {
  frequencyFile,
  inverseFrequency,
  log2Fixed,
  spanMasses,
  spansFault,
} from '../../../runtime/primitives/attribution/spans.ts';
import {
  contributorSums,
  influenceBySums,
  influenceOfEntry,
  runningSums,
  sumFile,
  sumLeaf,
  sumRoot,
} from '../../../runtime/primitives/attribution/sums.ts';
import { type ReceiptFault, verifyInferenceReceipt } from '../../../runtime/primitives/attribution/verify.ts';
import { concatBytes, toHex, utf8 } from '../../../runtime/primitives/bytes.ts';
import { decode, encode, fixedBytes } from '../../../runtime/primitives/scale/codec.ts';
import { account, hashing, random, rules, someHash, unitRow, world } from './world.ts';

const answers = JSON.parse(
  readFileSync(new URL('../../vectors/attribution/known-answers.json', import.meta.url), 'utf8'),
);

test('Merkle trees', async (t) => {
  for (const { count, root } of answers.merkle) {
    const leaves = Array.from({ length: count }, (_, i) => leafHash(hashing, 'records', utf8(`record ${i}`)));
    t.equal(toHex(merkleRoot(hashing, 'records', leaves)), root, `root of ${count} leaves as Python computes it`);
  }

  await t.test('every range of every small tree has a proof, and only it', async (t) => {
    let proofs = 0;
    for (let total = 1; total <= 18; total++) {
      const leaves = Array.from({ length: total }, (_, i) => someHash(`leaf ${i}`));
      const root = merkleRoot(hashing, 'sums', leaves);
      for (let first = 0; first < total; first++) {
        for (let count = 1; first + count <= total; count++) {
          const proof = proveRange(hashing, 'sums', leaves, first, count);
          const range = leaves.slice(first, first + count);
          const holds = (p: MerkleProof = proof, l = range, n = total, r = root) =>
            verifyRange(hashing, 'sums', r, n, l, p);
          if (!holds()) t.fail(`range ${first}+${count} of ${total}`);
          const wrong = [
            holds({ ...proof, first: first + 1 }),
            holds({ ...proof, first: first - 1 }),
            holds({ ...proof, siblings: [...proof.siblings, root] }),
            proof.siblings.length > 0 && holds({ ...proof, siblings: proof.siblings.slice(1) }),
            proof.siblings.length > 1 && holds({ ...proof, siblings: proof.siblings.toReversed() }),
            count > 1 && holds(proof, range.slice(1)),
            count > 1 && holds(proof, range.toReversed()),
            holds(proof, [...range, range[0]!]),
            holds(proof, range, total + 1),
            holds(proof, range, total - 1),
            holds(proof, [...range.slice(0, -1), someHash('another')]),
            verifyRange(hashing, 'features', root, total, range, proof),
          ];
          if (wrong.some(Boolean)) t.fail(`a wrong proof for ${first}+${count} of ${total} passes: ${wrong}`);
          proofs++;
        }
      }
    }
    t.equal(proofs, 1140);
  });

  await t.test('an inner node is no leaf, and a lone sibling no tree', async (t) => {
    const leaves = Array.from({ length: 4 }, (_, i) => leafHash(hashing, 'records', utf8(`record ${i}`)));
    const root = merkleRoot(hashing, 'records', leaves);
    // The classic second preimage: the two inner nodes as the leaves of a tree of two.
    const inner = (a: number, b: number) => {
      const proof = proveRange(hashing, 'records', leaves, a, 2);
      t.ok(verifyRange(hashing, 'records', root, 4, [leaves[a]!, leaves[b]!], proof));
      return proof.siblings[0]!;
    };
    const right = inner(0, 1);
    const left = inner(2, 3);
    t.notOk(verifyLeaf(hashing, 'records', root, 2, left, { first: 0, siblings: [right] }));
    t.not(toHex(merkleRoot(hashing, 'records', [left, right])), toHex(root));
    // Data that looks like a node's input hashes differently, since it is hashed as a leaf.
    const data = new Uint8Array(64);
    data.set(leaves[0]!);
    data.set(leaves[1]!, 32);
    t.not(toHex(leafHash(hashing, 'records', data)), toHex(left));
    // Doubling the last leaf (the flaw of trees that pad) gives another root.
    const three = leaves.slice(0, 3);
    t.not(toHex(merkleRoot(hashing, 'records', three)), toHex(merkleRoot(hashing, 'records', [...three, three[2]!])));
    t.notOk(
      verifyLeaf(hashing, 'records', merkleRoot(hashing, 'records', []), 0, leaves[0]!, { first: 0, siblings: [] }),
    );
    t.throws(() => proveRange(hashing, 'records', leaves, 3, 2), { code: 'INVALID_RANGE' });
    t.notOk(verifyLeaf(hashing, 'records', root, 4, leaves[0]!, { first: Number.NaN, siblings: [] }));
  });
});

test('influence', async (t) => {
  await t.test('agrees with Python integers', async (t) => {
    const { k, scale, novelty, owner, influence } = answers.scores;
    const values = new Int8Array(Buffer.from(answers.scores.values, 'base64'));
    const u = new Int8Array(Buffer.from(answers.scores.u, 'base64'));
    const table = {
      k,
      rows: owner.length,
      contributors: [0, 1, 2, 3].map(account),
      owner: Uint32Array.from(owner),
      novelty: Uint32Array.from(novelty),
      scale: Uint32Array.from(scale),
      values,
    };
    t.same(influenceByRows(table, u).map(String), influence);
  });

  await t.test('rows, running sums and plain bigints agree, at the extremes too', async (t) => {
    for (const [seed, k, rows, extreme] of [
      [1, 1, 1, false],
      [2, 3, 97, false],
      [3, 64, 500, false],
      [4, 256, 3000, true],
      [5, 1024, 700, true],
    ] as const) {
      const rng = random(seed);
      const owner = Uint32Array.from({ length: rows }, () => rng.below(4));
      const table = {
        k,
        rows,
        contributors: [0, 1, 2, 3].map(account),
        owner,
        novelty: Uint32Array.from({ length: rows }, () => (extreme ? NOVELTY_ONE : rng.below(NOVELTY_ONE + 1))),
        scale: Uint32Array.from({ length: rows }, () => (extreme ? MAX_SCALE : rng.below(MAX_SCALE))),
        values: Int8Array.from({ length: rows * k }, () => (extreme ? 127 : rng.below(255) - 127)),
      };
      const u = Int8Array.from({ length: k }, () => (extreme ? -127 : rng.below(255) - 127));
      const plain = [0n, 0n, 0n, 0n];
      for (let i = 0; i < rows; i++) {
        let dot = 0n;
        for (let j = 0; j < k; j++) dot += BigInt(table.values[i * k + j]!) * BigInt(u[j]!);
        plain[owner[i]!]! += BigInt(table.novelty[i]!) * BigInt(table.scale[i]!) * dot;
      }
      const entries = runningSums(table);
      const lasts = entries.filter((entry) => entry.last);
      const present = [0, 1, 2, 3].filter((c) => owner.includes(c));
      t.same(influenceByRows(table, u), plain, `rows, k=${k}`);
      t.same(
        influenceBySums(contributorSums(k, entries), u),
        present.map((c) => plain[c]),
        `sums, k=${k}`,
      );
      t.same(
        lasts.map((entry) => influenceOfEntry(entry, u)),
        present.map((c) => plain[c]),
        `last entries, k=${k}`,
      );
    }
  });

  await t.test('the best rows come first', async (t) => {
    const { table, model } = world(3);
    const u = unitRow(random(8), table.k).values;
    const best = topRows(table, u, table.rows);
    t.equal(best.length, table.rows);
    t.ok(best.every((each, i) => i === 0 || best[i - 1]!.score >= each.score));
    const sum = best.reduce((total, { score }) => total + score, 0n);
    t.equal(
      sum,
      model.influence(u).reduce((total, value) => total + value, 0n),
    );
  });
});

test('feature rows', async (t) => {
  const { rows, k } = world(2);
  t.ok(rows.every((row, i) => rowFault(row, i, k) === undefined));
  const row = rows[7]!;
  t.equal(rowFault(row, 8, k), 'WRONG_INDEX');
  t.equal(rowFault(row, 7, k + 1), 'WRONG_WIDTH');
  t.equal(rowFault({ ...row, scale: MAX_SCALE + 1 }, 7, k), 'SCALE_TOO_LARGE');
  t.equal(rowFault({ ...row, scale: Math.floor(row.scale * 1.02) }, 7, k), 'NOT_UNIT_NORM', 'an inflated row');
  t.equal(rowFault({ ...row, scale: 0 }, 7, k), 'NOT_UNIT_NORM');
  t.equal(rowFault({ ...row, scale: 0, values: new Int8Array(k) }, 7, k), undefined, 'an empty gradient is allowed');
  t.equal(rowFault({ ...row, nearest: 8, novelty: 5 }, 7, k), 'NEAREST_NOT_EARLIER');
  t.equal(rowFault({ ...row, nearest: 7, novelty: 5 }, 7, k), 'NEAREST_NOT_EARLIER');
  t.throws(() => featureTable(k, [...rows, row]), { code: 'WRONG_INDEX' });
  t.throws(() => encode(featureRow, { ...row, novelty: NOVELTY_ONE + 1 }), { code: 'OUT_OF_RANGE' });
  t.throws(() => encode(int8s(4), Int8Array.of(1, -128)), { code: 'OUT_OF_RANGE' });
  t.throws(() => decode(int8s(4), Uint8Array.of(8, 1, 128)), { code: 'OUT_OF_RANGE' });
  t.throws(() => decode(int8s(1), Uint8Array.of(8, 1, 1)), { code: 'TOO_LONG' });
});

test('shares', async (t) => {
  for (const each of answers.shares) {
    const standings = each.influence.map((influence: string, c: number) => ({
      influence: BigInt(influence),
      spanMass: BigInt(each.spanMass[c]),
    }));
    const { amounts, remainder } = splitPool(BigInt(each.pool), standings, DEFAULT_BLEND);
    t.same(amounts.map(String), each.amounts, 'as exact fractions in Python');
    t.equal(String(remainder), each.remainder);
  }
  t.same(splitPool(100n, [], DEFAULT_BLEND), { amounts: [], remainder: 100n });
  t.same(splitPool(100n, [{ influence: -5n, spanMass: 0n }], DEFAULT_BLEND).remainder, 100n, 'nobody stands');

  await t.test('influence by chance', async (t) => {
    const standing = (influence: bigint) => ({ influence, spanMass: 0n });
    const paid = (...influences: bigint[]) => splitPool(1_000_000n, influences.map(standing), DEFAULT_BLEND).amounts;
    t.same(paid(1000n, 100n), [1_000_000n, 0n], 'a tenth of the greatest is nothing');
    t.same(paid(1000n, 200n), [900_000n, 100_000n]);
    t.same(paid(7n), [1_000_000n]);
    const whole = paid(1000n, 600n)[1]!;
    const pieces = paid(1000n, ...new Array<bigint>(6).fill(100n)).slice(1);
    t.ok(whole > 0n && pieces.every((each) => each === 0n), 'an account in pieces below the floor earns nothing');
  });

  await t.test('sums are exact, shares monotone', async (t) => {
    const rng = random(77);
    const big = (bits: number): bigint => {
      let value = 0n;
      for (let i = 0; i < bits; i += 16) value = (value << 16n) | BigInt(rng.below(65_536));
      return value;
    };
    for (let run = 0; run < 2000; run++) {
      const n = rng.below(12);
      const standings = Array.from({ length: n }, () => ({
        influence: rng.below(4) === 0 ? 0n : big(96) * (rng.below(3) === 0 ? -1n : 1n),
        spanMass: rng.below(2) === 0 ? 0n : big(32),
      }));
      const pool = big(16 * (1 + rng.below(8)));
      const blend = { influence: rng.below(1e9), spans: 0 };
      blend.spans = rng.below(1e9 - blend.influence);
      const { amounts, remainder } = splitPool(pool, standings, rng.below(2) ? DEFAULT_BLEND : blend);
      const sum = amounts.reduce((total, value) => total + value, remainder);
      if (sum !== pool || remainder < 0n || amounts.some((value) => value < 0n))
        t.fail(`run ${run}: ${sum} of ${pool}`);
      for (const [i, a] of standings.entries()) {
        for (const [j, b] of standings.entries()) {
          if (a.influence >= b.influence && a.spanMass >= b.spanMass && amounts[i]! < amounts[j]!) t.fail(`run ${run}`);
        }
      }
    }
    t.pass('2,000 random pools');
  });
});

test('span credit', async (t) => {
  for (const { value, log2 } of answers.log2) t.equal(log2Fixed(value), log2, `log2(${value})`);
  t.equal(log2Fixed(0xffffffff) >> 16, 31);
  t.equal(inverseFrequency(1023, 1023), 0, 'a token of every record weighs nothing');
  t.equal(inverseFrequency(1023, 0), 10 << 16);
  t.equal(inverseFrequency(10, 99), 0, 'a frequency above the count counts as the count');
  const match = (record: number, share: number, novelty: number) => ({ record, offset: 0, share, novelty });
  const span = { start: 1, length: 4, mass: 1001, matches: [match(3, 0, 65_536), match(5, 1, 32_768), match(9, 0, 0)] };
  t.same(spanMasses([span, { ...span, mass: 10, matches: [match(9, 2, 0)] }], 3), [667n, 333n, 0n]);
  t.equal(spansFault([span], 5, 2), undefined);
  t.equal(spansFault([span], 4, 2), 'SPAN_LENGTH');
  t.equal(spansFault([{ ...span, length: 2 }], 5, 2), 'SPAN_LENGTH');
  t.equal(spansFault([{ ...span, start: 0, length: 65 }], 99, 2), 'SPAN_LENGTH');
  t.equal(spansFault([span, span], 9, 2), 'SPAN_ORDER');
  t.equal(spansFault([span, { ...span, start: 2, length: 3 }], 9, 2), 'SPAN_ORDER', 'one within another');
  t.equal(spansFault([span, { ...span, start: 2 }], 9, 2), undefined, 'overlap is fine');
  t.equal(spansFault([{ ...span, matches: [] }], 9, 2), 'SPAN_MATCHES');
  t.equal(spansFault([{ ...span, matches: [match(3, 0, 1), match(3, 1, 1)] }], 9, 2), 'SPAN_MATCHES');
  t.equal(spansFault([span], 9, 1), 'SPAN_SHARE');
  t.equal(spansFault([{ ...span, mass: 2 ** 31 }], 9, 2), 'SPAN_MASS');
});

test('receipts', async (t) => {
  const { inference, model, training, sign, settle } = world(11);
  await t.test('an honest one passes, over rows and over sums; each forgery has its fault', async (t) => {
    for (let i = 0; i < 20; i++) {
      const { receipt } = inference(i);
      t.equal(verifyInferenceReceipt(receipt, model, rules), undefined);
      t.ok(receipt.shares.length > 1);
      t.equal(
        receipt.shares.reduce((sum, share) => sum + share.amount, receipt.remainder),
        receipt.pool,
      );
    }
    const { receipt } = inference(99);
    const [share, ...others] = receipt.shares;
    const [span] = receipt.spans;
    const faults: [ReceiptFault, Partial<typeof receipt>][] = [
      ['FEE', { fee: receipt.fee + 1n }],
      ['FEE', { tokensOut: receipt.tokensOut + 1 }],
      ['POOL', { pool: receipt.pool - 1n }],
      ['AMOUNT', { remainder: receipt.remainder + 1n }],
      ['AMOUNT', { shares: [{ ...share!, amount: share!.amount + 1n }, ...others] }],
      ['SHARE_ORDER', { shares: receipt.shares.toReversed() }],
      ['SHARE_ORDER', { shares: [share!, ...receipt.shares] }],
      ['FEATURE_WIDTH', { feature: receipt.feature.slice(1) }],
      ['SPAN_TOTAL', { spans: [{ ...span!, mass: span!.mass + 7 }, ...receipt.spans.slice(1)] }],
      ['INFLUENCE', { feature: receipt.feature.toReversed() }],
    ];
    for (const [fault, change] of faults)
      t.equal(verifyInferenceReceipt({ ...receipt, ...change }, model, rules), fault);
  });
  await t.test('a worker that computes consistent lies is caught by the rows', async (t) => {
    const receipt = Array.from({ length: 20 }, (_, i) => inference(100 + i).receipt).find(
      ({ shares }) => shares.filter((each) => each.influence > 0n).length > 1,
    )!;
    // Favour the first contributor and recompute everything else honestly.
    const lie = (shares: typeof receipt.shares, spans = receipt.spans) => {
      const split = splitPool(receipt.pool, shares, rules.blend);
      return verifyInferenceReceipt(
        {
          ...receipt,
          spans,
          shares: shares.map((each, i) => ({ ...each, amount: split.amounts[i]! })),
          remainder: split.remainder,
        },
        model,
        rules,
      );
    };
    t.equal(lie(receipt.shares), undefined);
    t.equal(
      lie(receipt.shares.map((each, i) => (i === 0 ? { ...each, influence: each.influence + 2n ** 60n } : each))),
      'INFLUENCE',
    );
    const plain = receipt.shares.filter((each) => each.influence > 0n).map((each) => ({ ...each, spanMass: 0n }));
    t.ok(plain.length > 1);
    t.equal(lie(plain, []), undefined);
    for (const c of plain.keys()) t.equal(lie(plain.toSpliced(c, 1), []), 'MISSING_SHARE');
    const stranger = [
      ...receipt.shares,
      { ...receipt.shares[0]!, contributor: new Uint8Array(32).fill(255) as never, influence: 5n, spanMass: 0n },
    ];
    t.equal(lie(stranger), 'UNKNOWN_CONTRIBUTOR');
  });
  await t.test('encodings read back and refuse anything longer', async (t) => {
    const receipts = [sign(inference(101).receipt), sign(inference(102).receipt)];
    const { batch } = settle(receipts);
    const first = receipts[0]!.payload;
    t.same(decode(inferenceReceipt, encode(inferenceReceipt, first)), first);
    t.same(decode(receiptBatch, encode(receiptBatch, batch)), batch);
    t.same(decode(trainingReceipt, encode(trainingReceipt, training)), training);
    t.throws(() => decode(trainingReceipt, Uint8Array.of(...encode(trainingReceipt, training), 0)), {
      code: 'TRAILING_BYTES',
    });
    t.equal(encode(inferenceReceipt, first).length < 2000, true, 'small enough to gossip');
    const hashes = new Set([
      toHex(hashOf(hashing, inferenceReceipt, first)),
      toHex(hashOf(hashing, inferenceReceipt, { ...first, tokensIn: 13 })),
      toHex(hashOf(hashing, trainingReceipt, training)),
    ]);
    t.equal(hashes.size, 3);
  });
  t.test('the hash is blake2b-256 over domain and bytes', async (t) => {
    const three = canonical('voucher/1', 'Three', fixedBytes(3));
    t.equal(preimageOf(three, utf8('abc')).length, 35);
    t.equal(toHex(hashOf(hashing, three, utf8('abc'))), answers.blake.hash);
  });
});

test('the published files', async (t) => {
  const here = world(41);
  const sources = here.rows.map((row, i) => ({ ...row, line: here.lines[i]!, tokens: here.tokens[i]! }));
  const { commitment, files, data } = commitRows(hashing, here.k, sources, here.frequencies);
  const { features } = here.training;
  for (const root of ['featureRoot', 'sumRoot', 'frequencyRoot'] as const) {
    t.equal(toHex(commitment[root]), toHex(features[root]), root);
  }
  const opened = openCommitment(hashing, commitment, files);
  const u = unitRow(random(1), here.k).values;
  t.same(opened.model.influence(u), here.model.influence(u));
  t.equal(wrongSumEntry(opened, files.sums), undefined);

  const entries = data.entries.with(4, { ...data.entries[4]!, sums: data.entries[4]!.sums.with(0, 5n) });
  const forged = encode(sumFile, { k: here.k, entries });
  t.equal(wrongSumEntry(opened, forged), 4, 'the entry to challenge');
  t.throws(() => openCommitment(hashing, { ...commitment, sumRoot: sumRoot(hashing, entries) }, files), {
    code: 'WRONG_SUM_ROOT',
  });
  t.throws(() => openCommitment(hashing, commitment, { ...files, features: files.features.slice(1) }), {
    code: 'MALFORMED_FILE',
  });
  const other = encode(featureFile, {
    k: here.k,
    rows: here.rows.with(3, { ...here.rows[3]!, values: here.rows[3]!.values.map((v) => -v) }),
  });
  t.throws(() => openCommitment(hashing, commitment, { ...files, features: other }), { code: 'WRONG_FEATURE_ROOT' });
  t.throws(() => openCommitment(hashing, { ...commitment, rows: 9 }, files), { code: 'WRONG_COUNT' });
  const counts = encode(frequencyFile, { records: here.rows.length, frequencies: here.frequencies.with(0, 1) });
  t.throws(() => openCommitment(hashing, commitment, { ...files, frequencies: counts }), {
    code: 'WRONG_FREQUENCY_ROOT',
  });

  // Row by row, for those who verify receipts: the same model, from pieces of any size.
  const inPieces = (bytes: Uint8Array, size: number): Uint8Array[] =>
    Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
  for (const size of [1, 7, 1_000, files.features.length]) {
    const flat = openAdapter(hashing, commitment, inPieces(files.features, size), files.frequencies);
    t.same(flat.model.influence(u), here.model.influence(u), `in pieces of ${size} bytes`);
    t.same([flat.model.owner, flat.model.novelty], [opened.model.owner, opened.model.novelty]);
    t.same(flat.table.contributors, opened.table.contributors);
  }
  const wrong = { features: files.features, frequencies: files.frequencies };
  const open = (change: Partial<typeof commitment>, bytes: Partial<typeof wrong> = {}) => {
    const { features: rows, frequencies } = { ...wrong, ...bytes };
    return () => openAdapter(hashing, { ...commitment, ...change }, inPieces(rows, 100), frequencies);
  };
  t.throws(open({ sumRoot: sumRoot(hashing, entries) }), { code: 'WRONG_SUM_ROOT' });
  t.throws(open({ sumEntries: commitment.sumEntries - 1 }), { code: 'WRONG_SUM_ROOT' });
  t.throws(open({ sumEntries: commitment.sumEntries + 1 }), { code: 'WRONG_SUM_ROOT' });
  t.throws(open({}, { features: files.features.slice(0, -1) }), { code: 'MALFORMED_FILE' });
  t.throws(open({}, { features: concatBytes(files.features, Uint8Array.of(0)) }), { code: 'MALFORMED_FILE' });
  t.throws(open({}, { features: other }), { code: 'WRONG_FEATURE_ROOT' });
  t.throws(open({ rows: 9 }), { code: 'WRONG_COUNT' });
  t.throws(open({}, { frequencies: counts }), { code: 'WRONG_FREQUENCY_ROOT' });

  const { receipt } = here.inference(5);
  const flat = openAdapter(hashing, commitment, [files.features], files.frequencies);
  const { shares, records, spans } = explainReceipt(hashing, flat, receipt, 7);
  t.equal(shares.length, receipt.shares.length);
  for (const { entry, proof, contributor, influence } of shares) {
    const committed = opened.entries[entry]!;
    t.same(committed.contributor, contributor);
    t.equal(influenceOfEntry(committed, receipt.feature), influence);
    t.ok(verifyLeaf(hashing, 'sums', commitment.sumRoot, commitment.sumEntries, sumLeaf(hashing, committed), proof));
  }
  t.equal(records.length, 7);
  for (const { index, proof } of records) {
    t.ok(
      verifyLeaf(
        hashing,
        'features',
        commitment.featureRoot,
        commitment.rows,
        rowLeaf(hashing, here.rows[index]!),
        proof,
      ),
    );
  }
  t.same(
    spans.map(({ matches }) => matches.map(({ record }) => record)),
    receipt.spans.map(({ matches }) => matches.map(({ record }) => record)),
  );
});
