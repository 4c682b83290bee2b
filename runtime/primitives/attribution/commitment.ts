/**
 * The three published files behind an adapter (rows, running sums, token frequencies) and what the training receipt says
 * of them: made once by the worker, opened and checked by every node that verifies receipts.
 */
import { compareBytes, equalBytes } from '../bytes.ts';
import { type Codec, decode, encode } from '../scale/codec.ts';
import { ScaleError } from '../scale/io.ts';
import { type AccountId, asHash, type Hash } from '../types.ts';
import { type Blake, hashOf } from './canonical.ts';
import { type FeatureRow, type FeatureTable, featureFile, featureRoot, featureTable } from './features.ts';
import { MAX_CONTRIBUTORS, MAX_RECORD_TOKENS } from './limits.ts';
import type { FeatureCommitment } from './receipts.ts';
import { recordHash } from './records.ts';
import { type FrequencyFile, frequencyFile, frequencyRoot, tokenSequence } from './spans.ts';
import { contributorSums, runningSums, type SumEntry, sumFile, sumRoot } from './sums.ts';
import { type AttributionModel, attributionModel } from './verify.ts';

export type CommitmentErrorCode =
  | 'MALFORMED_FILE'
  | 'WRONG_FEATURE_ROOT'
  | 'WRONG_SUM_ROOT'
  | 'WRONG_FREQUENCY_ROOT'
  | 'WRONG_COUNT'
  | 'TOO_MANY_CONTRIBUTORS';

export class CommitmentError extends Error {
  readonly code: CommitmentErrorCode;
  constructor(code: CommitmentErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

/** Blobs are named by the blake2b-256 of their bytes. */
export const blobName = (hashing: Blake, bytes: Uint8Array): Hash => asHash(hashing.blake2_256(bytes));

/** Everything about one record that goes into its row; records stand in the order of the snapshot. */
export interface RowSource {
  readonly line: Uint8Array;
  /** Ids of the record's tokens; cut after {@link MAX_RECORD_TOKENS}. */
  readonly tokens: readonly number[];
  readonly contributor: AccountId;
  readonly novelty: number;
  readonly nearest: number;
  readonly scale: number;
  readonly values: Int8Array;
}

export interface AttributionFiles {
  readonly features: Uint8Array;
  readonly sums: Uint8Array;
  readonly frequencies: Uint8Array;
}

/** An adapter's attribution data, opened. */
export interface AttributionData {
  readonly rows: readonly FeatureRow[];
  readonly table: FeatureTable;
  readonly entries: readonly SumEntry[];
  readonly frequencies: FrequencyFile;
  readonly model: AttributionModel;
}

/** Made by the worker after training. `frequencies[token]`: records that the token stands in. */
export function commitRows(
  hashing: Blake,
  k: number,
  sources: readonly RowSource[],
  frequencies: ArrayLike<number>,
): { readonly commitment: FeatureCommitment; readonly files: AttributionFiles; readonly data: AttributionData } {
  const rows: FeatureRow[] = sources.map(({ line, tokens, contributor, novelty, nearest, scale, values }, index) => ({
    index,
    record: recordHash(hashing, line),
    tokens: hashOf(hashing, tokenSequence, tokens.slice(0, MAX_RECORD_TOKENS)),
    contributor,
    novelty,
    nearest,
    scale,
    values,
  }));
  const counts: FrequencyFile = { records: rows.length, frequencies: Array.from(frequencies) };
  const table = featureTable(k, rows);
  checkContributors(table);
  const entries = runningSums(table);
  const files: AttributionFiles = {
    features: encode(featureFile, { k, rows }),
    sums: encode(sumFile, { k, entries }),
    frequencies: encode(frequencyFile, counts),
  };
  const commitment: FeatureCommitment = {
    featureRoot: featureRoot(hashing, rows),
    rows: rows.length,
    k,
    sumRoot: sumRoot(hashing, entries),
    sumEntries: entries.length,
    frequencyRoot: frequencyRoot(hashing, counts.frequencies),
    vocabulary: counts.frequencies.length,
    featureFile: blobName(hashing, files.features),
    sumFile: blobName(hashing, files.sums),
    frequencyFile: blobName(hashing, files.frequencies),
  };
  return { commitment, files, data: opened(table, rows, entries, counts) };
}

/**
 * Opens the files and holds all of them against the receipt: the rows one by one, the sums by making them again. Throws
 * {@link CommitmentError}, or a FeatureError for a row that is wrong by itself: each of them is a reason for a challenge.
 */
export function openCommitment(
  hashing: Blake,
  commitment: FeatureCommitment,
  files: AttributionFiles,
): AttributionData {
  const { k, rows } = parse(featureFile, files.features, 'rows');
  if (k !== commitment.k || rows.length !== commitment.rows) {
    throw new CommitmentError(
      'WRONG_COUNT',
      `${rows.length} rows of ${k} where ${commitment.rows} of ${commitment.k} belong`,
    );
  }
  if (!equalBytes(featureRoot(hashing, rows), commitment.featureRoot)) {
    throw new CommitmentError('WRONG_FEATURE_ROOT', 'the rows do not have the committed root');
  }
  const table = featureTable(k, rows);
  checkContributors(table);
  const entries = runningSums(table);
  if (entries.length !== commitment.sumEntries || !equalBytes(sumRoot(hashing, entries), commitment.sumRoot)) {
    throw new CommitmentError('WRONG_SUM_ROOT', 'the rows do not add up to the committed running sums');
  }
  const counts = parse(frequencyFile, files.frequencies, 'frequencies');
  if (counts.records !== rows.length || counts.frequencies.length !== commitment.vocabulary) {
    throw new CommitmentError('WRONG_COUNT', 'the frequencies are of other records or another vocabulary');
  }
  if (!equalBytes(frequencyRoot(hashing, counts.frequencies), commitment.frequencyRoot)) {
    throw new CommitmentError('WRONG_FREQUENCY_ROOT', 'the frequencies do not have the committed root');
  }
  return opened(table, rows, entries, counts);
}

/**
 * The first entry in which the published sums differ from the right ones: what a SumStep, SumOrder or SumGap challenge is
 * made from. `undefined`: none.
 */
export function wrongSumEntry(data: AttributionData, published: Uint8Array): number | undefined {
  const { entries } = parse(sumFile, published, 'sums');
  const count = Math.max(entries.length, data.entries.length);
  for (let at = 0; at < count; at++) {
    const [a, b] = [entries[at], data.entries[at]];
    if (a === undefined || b === undefined || !sameEntry(a, b)) return at;
  }
  return undefined;
}

const sameEntry = (a: SumEntry, b: SumEntry): boolean =>
  compareBytes(a.contributor, b.contributor) === 0 &&
  a.first === b.first &&
  a.count === b.count &&
  a.last === b.last &&
  a.sums.length === b.sums.length &&
  a.sums.every((value, j) => value === b.sums[j]);

function opened(
  table: FeatureTable,
  rows: readonly FeatureRow[],
  entries: readonly SumEntry[],
  frequencies: FrequencyFile,
): AttributionData {
  return { rows, table, entries, frequencies, model: attributionModel(table, contributorSums(table.k, entries)) };
}

function checkContributors({ contributors }: FeatureTable): void {
  if (contributors.length > MAX_CONTRIBUTORS) {
    throw new CommitmentError(
      'TOO_MANY_CONTRIBUTORS',
      `${contributors.length} contributors, at most ${MAX_CONTRIBUTORS}`,
    );
  }
}

function parse<T>(codec: Codec<T>, bytes: Uint8Array, what: string): T {
  try {
    return decode(codec, bytes);
  } catch (error) {
    if (error instanceof ScaleError) throw new CommitmentError('MALFORMED_FILE', `${what}: ${error.message}`);
    throw error;
  }
}
