/**
 * What is wrong with a training's commitments by its published files and the snapshot on the chain, as evidence that the
 * chain decides by itself. Every training is audited as well: what needs its leaves from elsewhere (a file that is not what
 * was committed to), the texts of records, or an engine is the auditors' business.
 */
import type { Hashing } from '../../runtime/host.ts';
import {
  type FeatureRow,
  featureFile,
  featureRoot,
  featureRow,
  featureTable,
  rowFault,
  rowLeaf,
} from '../../runtime/primitives/attribution/features.ts';
import { proveRange } from '../../runtime/primitives/attribution/merkle.ts';
import { proveRecord, type SnapshotRange } from '../../runtime/primitives/attribution/records.ts';
import {
  runningSums,
  type SumEntry,
  sumEntry,
  sumFile,
  sumLeaf,
  sumRoot,
} from '../../runtime/primitives/attribution/sums.ts';
import {
  decideTraining,
  type TrainingChallenge,
  type TrainingContext,
} from '../../runtime/primitives/attribution/training-challenge.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { type Codec, decode, encode } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { type Hash, sameAccount } from '../../runtime/primitives/types.ts';

export type TrainingFinding =
  | { readonly type: 'Sound' }
  | { readonly type: 'Challenge'; readonly challenge: TrainingChallenge; readonly fault: string }
  /** A file is not what was committed to: the auditors will say so. */
  | { readonly type: 'Audit'; readonly fault: 'FILE' | 'ROOT' };

export interface TrainingMaterial {
  readonly context: TrainingContext;
  readonly ranges: readonly SnapshotRange[];
  readonly features: Uint8Array;
  readonly sums: Uint8Array;
  /** Hashes of the records of a batch of the snapshot, in order; undefined where its file cannot be had. */
  records(range: SnapshotRange): Promise<readonly Hash[] | undefined>;
}

/** Bytes that an uncooperative worker may have published. */
function tryFile<T>(codec: Codec<T>, bytes: Uint8Array): T | undefined {
  try {
    return decode(codec, bytes);
  } catch (problem) {
    if (problem instanceof ScaleError) return undefined;
    throw problem;
  }
}

export async function findInTraining(hashing: Hashing, material: TrainingMaterial): Promise<TrainingFinding> {
  const { context, ranges } = material;
  const { receipt } = context;
  const features = tryFile(featureFile, material.features);
  if (features === undefined) return { type: 'Audit', fault: 'FILE' };
  const { rows } = features;
  if (rows.length !== receipt.features.rows || !equalBytes(featureRoot(hashing, rows), receipt.features.featureRoot)) {
    return { type: 'Audit', fault: 'ROOT' };
  }
  const leaves = rows.map((row) => rowLeaf(hashing, row));
  const proveRow = (at: number) => ({ row: rows[at]!, proof: proveRange(hashing, 'features', leaves, at) });
  const upheld = (challenge: TrainingChallenge): TrainingFinding | undefined => {
    const verdict = decideTraining(hashing, context, challenge);
    return verdict.type === 'Upheld' ? { type: 'Challenge', challenge, fault: verdict.fault } : undefined;
  };
  for (const [at, row] of rows.entries()) {
    if (rowFault(row, at, receipt.features.k) === undefined) continue;
    const proof = proveRange(hashing, 'features', leaves, at);
    return (
      upheld({ type: 'RowMalformed', value: { leaf: encodedRow(row), proof } }) ?? { type: 'Audit', fault: 'ROOT' }
    );
  }
  for (const range of ranges) {
    const records = await material.records(range);
    for (let i = 0; i < range.count; i++) {
      const at = range.first + i;
      const row = rows[at];
      const wrong =
        row !== undefined &&
        (!sameAccount(row.contributor, range.contributor) ||
          (records !== undefined && !equalBytes(row.record, records[i]!)));
      if (!wrong || records === undefined) continue;
      const recordProof = proveRecord(hashing, ranges, ranges.indexOf(range), records, at);
      const found = upheld({ type: 'RowRecord', value: { row: proveRow(at), record: records[i]!, recordProof } });
      if (found !== undefined) return found;
    }
  }
  return inSums(hashing, material, rows, leaves, upheld) ?? { type: 'Sound' };
}

const encodedRow = (row: FeatureRow): Uint8Array => encode(featureRow, row);

function inSums(
  hashing: Hashing,
  { context, sums }: TrainingMaterial,
  rows: readonly FeatureRow[],
  leaves: readonly Hash[],
  upheld: (challenge: TrainingChallenge) => TrainingFinding | undefined,
): TrainingFinding | undefined {
  const { features } = context.receipt;
  const published = tryFile(sumFile, sums);
  if (published === undefined) return { type: 'Audit', fault: 'FILE' };
  const { entries } = published;
  if (entries.length !== features.sumEntries || !equalBytes(sumRoot(hashing, entries), features.sumRoot)) {
    return { type: 'Audit', fault: 'ROOT' };
  }
  const right = runningSums(featureTable(features.k, rows));
  const first = Math.max(
    0,
    Array.from({ length: Math.max(entries.length, right.length) }, (_, at) => at).findIndex(
      (at) => !same(entries[at], right[at]),
    ),
  );
  if (same(entries[first], right[first]) && entries.length === right.length) return undefined;
  const sumLeaves = entries.map((entry) => sumLeaf(hashing, entry));
  const evidence = (from: number, count: number) => ({
    entries: entries.slice(from, from + count),
    proof: proveRange(hashing, 'sums', sumLeaves, from, count),
  });
  const candidates: TrainingChallenge[] = [];
  const entry = entries[first];
  if (entry !== undefined) {
    const pair = first === 0 ? evidence(0, 1) : evidence(first - 1, 2);
    const { first: row, count } = entry;
    candidates.push({
      type: 'SumMalformed',
      value: { leaf: encode(sumEntry, entry), proof: proveRange(hashing, 'sums', sumLeaves, first) },
    });
    if (count >= 1 && row + count <= rows.length) {
      const rowsProof = proveRange(hashing, 'features', leaves, row, count);
      candidates.push({ type: 'SumStep', value: { entries: pair, rows: rows.slice(row, row + count), rowsProof } });
    }
  }
  for (const from of [first - 1, first]) {
    if (from < 0 || from >= entries.length) continue;
    candidates.push({ type: 'SumOrder', value: { entries: evidence(from, from + 1 < entries.length ? 2 : 1) } });
  }
  const missing = right[first] ?? right.at(-1);
  if (missing !== undefined && entries.length > 0) {
    const row = { row: rows[missing.first]!, proof: proveRange(hashing, 'features', leaves, missing.first) };
    for (const from of [first - 1, first, entries.length - 1]) {
      if (from < 0 || from >= entries.length) continue;
      for (const count of from + 1 < entries.length ? [2, 1] : [1]) {
        candidates.push({ type: 'SumGap', value: { entries: evidence(from, count), row } });
      }
    }
  } else if (missing !== undefined) {
    const row = { row: rows[missing.first]!, proof: proveRange(hashing, 'features', leaves, missing.first) };
    candidates.push({ type: 'SumGap', value: { entries: { entries: [], proof: { first: 0, siblings: [] } }, row } });
  }
  for (const challenge of candidates) {
    const found = upheld(challenge);
    if (found !== undefined) return found;
  }
  return { type: 'Audit', fault: 'ROOT' };
}

const same = (a: SumEntry | undefined, b: SumEntry | undefined): boolean =>
  a !== undefined && b !== undefined && equalBytes(encode(sumEntry, a), encode(sumEntry, b));
