/** A small honest world of rows, sums, receipts and batches, made from a seed, for tests to tamper with. */
import { blake2b } from '@noble/hashes/blake2.js';
import type { Blake } from '../../../runtime/primitives/attribution/canonical.ts';
import { hashOf } from '../../../runtime/primitives/attribution/canonical.ts';
import {
  type FeatureRow,
  featureRoot,
  featureTable,
  rowLeaf,
} from '../../../runtime/primitives/attribution/features.ts';
import type {
  AdapterId,
  BaseModelId,
  DatanetId,
  LeaseId,
  OrderId,
  SessionId,
} from '../../../runtime/primitives/attribution/ids.ts';
import {
  batchLedger,
  itemLeaf,
  itemRoot,
  ledgerLeaf,
  ledgerRoot,
} from '../../../runtime/primitives/attribution/ledger.ts';
import { MAX_SCALE, NOVELTY_ONE } from '../../../runtime/primitives/attribution/limits.ts';
import { proveRange } from '../../../runtime/primitives/attribution/merkle.ts';
import { type RowDirection, rowOverlap } from '../../../runtime/primitives/attribution/novelty.ts';
import {
  feeOf,
  type InferenceReceipt,
  type Price,
  type ReceiptBatch,
  type SignedInferenceReceipt,
  type TrainingReceipt,
  textDigest,
  trainingReceipt,
} from '../../../runtime/primitives/attribution/receipts.ts';
import {
  batchRoot,
  parseRecord,
  recordHash,
  recordLine,
  recordText,
  type SnapshotRange,
  snapshotRoot,
} from '../../../runtime/primitives/attribution/records.ts';
import { DEFAULT_BLEND } from '../../../runtime/primitives/attribution/shares.ts';
import { jaccard, shingles } from '../../../runtime/primitives/attribution/shingles.ts';
import {
  frequencyLeaf,
  frequencyRoot,
  spanMass,
  tokenSequence,
} from '../../../runtime/primitives/attribution/spans.ts';
import { contributorSums, runningSums, sumLeaf, sumRoot } from '../../../runtime/primitives/attribution/sums.ts';
import {
  attribute,
  attributionModel,
  type FoundSpan,
  type ReceiptRules,
} from '../../../runtime/primitives/attribution/verify.ts';
import { utf8 } from '../../../runtime/primitives/bytes.ts';
import { type AccountId, type Hash, ZERO_HASH } from '../../../runtime/primitives/types.ts';

export const hashing: Blake = { blake2_256: (data) => blake2b(data, { dkLen: 32 }) };

/** Mulberry32: enough for tests, and the same on every run. */
export function random(seed: number) {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return { next, below: (limit: number) => Math.floor(next() * limit) };
}
export type Random = ReturnType<typeof random>;

export const account = (n: number): AccountId => hashing.blake2_256(Uint8Array.of(n, n >> 8, 7)) as AccountId;
export const someHash = (text: string): Hash => hashing.blake2_256(utf8(text)) as Hash;

/** int8 values with a scale that makes their norm 1. */
export function unitRow(rng: Random, k: number): { scale: number; values: Int8Array } {
  const values = Int8Array.from({ length: k }, () => rng.below(255) - 127);
  values[rng.below(k)] = 127;
  const norm = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));
  return { scale: Math.min(MAX_SCALE, Math.round(2 ** 32 / norm)), values };
}

const VOCABULARY = 40;
/** Of the adapter that all receipts are of. */
export const price: Price = { input: 7n, output: 1_000_000_007n };
export const rules: ReceiptRules = { blend: DEFAULT_BLEND, poolOf: (fee) => fee / 2n };

export function world(seed = 1, { records = 200, contributors = 5, k = 24 } = {}) {
  const rng = random(seed);
  const accounts = Array.from({ length: contributors }, (_, n) => account(n));
  // Batches of 8 … 27 records, contributors in turn, so that each has several ranges.
  const ranges: SnapshotRange[] = [];
  const lines: Uint8Array[] = [];
  const tokens: number[][] = [];
  const owners: AccountId[] = [];
  const batches: Hash[][] = [];
  while (lines.length < records) {
    const count = Math.min(records - lines.length, 8 + rng.below(20));
    const contributor = accounts[ranges.length % contributors]!;
    const first = lines.length;
    for (let i = 0; i < count; i++) {
      const words = Array.from({ length: 20 }, () => rng.below(VOCABULARY));
      // Every seventh record repeats most of an earlier one.
      if (lines.length % 7 === 6) words.splice(0, 19, ...tokens[rng.below(tokens.length)]!.slice(0, 19));
      tokens.push(words);
      lines.push(recordLine({ text: words.map((word) => `w${word}`).join(' '), n: lines.length }));
      owners.push(contributor);
    }
    const leaves = lines.slice(first).map((line) => recordHash(hashing, line));
    batches.push(leaves);
    ranges.push({ contributor, batch: ranges.length, first, count, root: batchRoot(hashing, contributor, leaves) });
  }
  const sets = lines.map((line) => shingles(utf8(recordText(parseRecord(line)))));
  const directions: RowDirection[] = lines.map(() => unitRow(rng, k));
  const rows: FeatureRow[] = lines.map((line, index) => {
    let nearest = index;
    let overlap = 0;
    for (let j = 0; j < index; j++) {
      const each = Math.max(
        jaccard(sets[index]!, sets[j]!),
        rowOverlap(directions[index]!, directions[j]!, lines.length),
      );
      if (each > overlap) [nearest, overlap] = [j, each];
    }
    return {
      index,
      record: recordHash(hashing, line),
      tokens: hashOf(hashing, tokenSequence, tokens[index]!),
      contributor: owners[index]!,
      novelty: NOVELTY_ONE - overlap,
      nearest,
      ...directions[index]!,
    };
  });
  const table = featureTable(k, rows);
  const entries = runningSums(table);
  const frequencies = Array.from({ length: VOCABULARY }, (_, t) => tokens.filter((each) => each.includes(t)).length);
  const training: TrainingReceipt = {
    chain: someHash('genesis'),
    order: 3 as OrderId,
    lease: 9n as LeaseId,
    nonce: someHash('nonce'),
    worker: account(900),
    snapshot: { datanet: 1 as DatanetId, version: 2, root: snapshotRoot(hashing, ranges), count: records },
    baseModel: 0 as BaseModelId,
    baseModelHash: someHash('base'),
    configHash: someHash('config'),
    trainingSeed: 42n,
    adapter: someHash('adapter'),
    adapterConfig: someHash('adapter config'),
    basis: {
      checkpoint: someHash('checkpoint'),
      eigenbases: someHash('eigenbases'),
      projection: someHash('projection'),
      sketchSeed: 11n,
      rotationSeed: 12n,
      sketchWidth: 16_384,
      k,
    },
    features: {
      featureRoot: featureRoot(hashing, rows),
      rows: records,
      k,
      sumRoot: sumRoot(hashing, entries),
      sumEntries: entries.length,
      frequencyRoot: frequencyRoot(hashing, frequencies),
      vocabulary: VOCABULARY,
      featureFile: ZERO_HASH,
      sumFile: ZERO_HASH,
      frequencyFile: ZERO_HASH,
    },
    segments: [],
    loss: {
      first: 200_000,
      last: 90_000,
      best: 88_000,
      heldOutBase: 210_000,
      heldOut: undefined,
      steps: 60,
      tokens: 9000n,
    },
  };
  const model = attributionModel(table, contributorSums(k, entries));

  /** Spans by brute force: for tests, one record's run of 5 tokens, with all earlier holders. */
  const spansOf = (output: readonly number[], length: number): FoundSpan[] => {
    const found: FoundSpan[] = [];
    for (let start = 0; start + length <= output.length; start += length) {
      const run = output.slice(start, start + length).join();
      const matches = tokens
        .map((each, record) => ({
          record,
          offset: each.findIndex((_, at) => each.slice(at, at + length).join() === run),
        }))
        .filter(({ offset }) => offset >= 0)
        .slice(0, 8);
      const mass = spanMass(
        records,
        output.slice(start, start + length).map((token) => frequencies[token]!),
      );
      if (matches.length > 0 && mass > 0) found.push({ start, length, mass, matches });
    }
    return found;
  };

  const inference = (nonce: number): { receipt: InferenceReceipt; output: number[] } => {
    const { values: feature } = unitRow(rng, k);
    // An output of two stretches of training records and some noise.
    const output = [
      ...tokens[rng.below(records)]!.slice(2, 7),
      ...tokens[rng.below(records)]!.slice(5, 10),
      ...Array.from({ length: 5 }, () => rng.below(VOCABULARY)),
    ];
    const fee = feeOf(price, 12, output.length);
    const pool = rules.poolOf(fee);
    const { spans, shares, remainder } = attribute(
      model,
      model.influence(feature),
      spansOf(output, 5),
      pool,
      rules.blend,
    );
    const receipt: InferenceReceipt = {
      voucher: {
        payload: {
          chain: training.chain,
          session: 5n as SessionId,
          worker: training.worker,
          nonce: BigInt(nonce),
          cumulative: 10n ** 18n,
          most: 10n ** 18n,
          adapter: 1 as AdapterId,
          price,
          markup: 0,
          request: ZERO_HASH,
        },
        signature: { type: 'Sr25519', value: new Uint8Array(64).fill(1) },
      },
      worker: training.worker,
      lease: 10n as LeaseId,
      training: hashOf(hashing, trainingReceipt, training),
      promptHash: textDigest(hashing, utf8('why?')),
      outputHash: textDigest(hashing, utf8('because')),
      outputTokensHash: hashOf(hashing, tokenSequence, output),
      tokensIn: 12,
      tokensOut: output.length,
      finish: 0,
      feature,
      spans,
      fee,
      pool,
      shares,
      remainder,
    };
    return { receipt, output };
  };

  const sign = (payload: InferenceReceipt): SignedInferenceReceipt => ({
    payload,
    signature: { type: 'Ed25519', value: new Uint8Array(64).fill(2) },
  });

  const settle = (receipts: readonly SignedInferenceReceipt[]) => {
    const sums = batchLedger(receipts);
    const nonces = receipts.map((each) => each.payload.voucher.payload.nonce);
    const batch: ReceiptBatch = {
      chain: training.chain,
      worker: training.worker,
      session: 5n as SessionId,
      adapter: 1 as AdapterId,
      root: itemRoot(hashing, sums.items),
      receipts: receipts.length,
      firstNonce: nonces[0]!,
      lastNonce: nonces.at(-1)!,
      ledgerRoot: ledgerRoot(hashing, sums.entries),
      ledgerEntries: sums.entries.length,
      fees: sums.fees,
      pool: sums.pool,
      remainder: sums.remainder,
      totals: sums.totals,
      voucher: receipts.at(-1)!.payload.voucher,
      blob: ZERO_HASH,
    };
    return { batch, sums };
  };

  return {
    k,
    rows,
    table,
    entries,
    ranges,
    batches,
    lines,
    tokens,
    frequencies,
    training,
    model,
    accounts,
    inference,
    sign,
    settle,
    proveRow: (index: number, from: readonly FeatureRow[] = rows) => ({
      row: from[index]!,
      proof: proveRange(
        hashing,
        'features',
        from.map((row) => rowLeaf(hashing, row)),
        index,
      ),
    }),
    proveEntries: (first: number, count: number, from = entries) => ({
      entries: from.slice(first, first + count),
      proof: proveRange(
        hashing,
        'sums',
        from.map((entry) => sumLeaf(hashing, entry)),
        first,
        count,
      ),
    }),
    proveFrequency: (token: number) => ({
      frequency: frequencies[token]!,
      proof: proveRange(
        hashing,
        'frequencies',
        frequencies.map((n, t) => frequencyLeaf(hashing, t, n)),
        token,
      ),
    }),
    proveItem: (items: ReturnType<typeof batchLedger>['items'], first: number, count = 1) =>
      proveRange(
        hashing,
        'receipts',
        items.map((item) => itemLeaf(hashing, item)),
        first,
        count,
      ),
    proveLedger: (from: ReturnType<typeof batchLedger>['entries'], first: number, count = 1) => ({
      entries: from.slice(first, first + count),
      proof: proveRange(
        hashing,
        'ledger',
        from.map((entry) => ledgerLeaf(hashing, entry)),
        first,
        count,
      ),
    }),
  };
}
export type World = ReturnType<typeof world>;
