/**
 * Disputes about a training receipt's commitments. A wrong commitment always has a small witness:
 * a malformed leaf, a row that is not its record's, a novelty that two records refute, or a step, order or gap of the
 * running sums (see `sums.ts` for why those three are enough).
 */
import { compareBytes, equalBytes } from '../bytes.ts';
import { bytes, type Infer, struct, variants, vec } from '../scale/codec.ts';
import { hash } from '../types.ts';
import { type Blake, part } from './canonical.ts';
import { dismissed, provenIf, tryDecode, upheld, type Verdict } from './challenge.ts';
import { featureRow, rowFault, rowLeaf } from './features.ts';
import { MAX_K, MAX_RECORD_BYTES, SUM_CHUNK } from './limits.ts';
import { leafHash, type MerkleProof, merkleProof, verifyLeaf, verifyRange } from './merkle.ts';
import { noveltyHolds, recordOverlap } from './novelty.ts';
import type { TrainingReceipt } from './receipts.ts';
import { RecordError, recordHash, recordProof, verifyRecord } from './records.ts';
import { rowAfter, rowBefore, type SumEntry, sumEntry, sumLeaf, sumOrderHolds, sumStepHolds } from './sums.ts';

const MAX_LEAF_BYTES = 256 + 16 * MAX_K;

/** A row with its place under the feature root; the proof's `first` must be the row's index. */
export const rowEvidence = part('RowEvidence', struct({ row: featureRow, proof: merkleProof }));
export type RowEvidence = Infer<typeof rowEvidence>;

/** One entry of the running sums, or two adjacent ones. */
const entryEvidence = part('SumEvidence', struct({ entries: vec(sumEntry, 2), proof: merkleProof }));

export const trainingChallenge = part(
  'TrainingChallenge',
  variants({
    /** The leaf decodes to no row, or to one that is wrong by itself (width, scale, norm). */
    RowMalformed: struct({ leaf: bytes(MAX_LEAF_BYTES), proof: merkleProof }),
    /** The snapshot has another record, or another contributor, at the row's index. */
    RowRecord: struct({ row: rowEvidence, record: hash, recordProof }),
    /** Novelty is not what the texts and rows of the record and an earlier one make it. */
    Novelty: struct({
      row: rowEvidence,
      line: bytes(MAX_RECORD_BYTES),
      earlier: rowEvidence,
      earlierLine: bytes(MAX_RECORD_BYTES),
    }),
    /** The leaf decodes to no entry, or to one of wrong width or bounds. */
    SumMalformed: struct({ leaf: bytes(MAX_LEAF_BYTES), proof: merkleProof }),
    /** The last of the entries is not its predecessor plus its rows. One entry alone must be the first of the list. */
    SumStep: struct({ entries: entryEvidence, rows: vec(featureRow, SUM_CHUNK), rowsProof: merkleProof }),
    /** Two adjacent entries, or the last one alone, break the order. */
    SumOrder: struct({ entries: entryEvidence }),
    /** The row stands between two adjacent entries, before the first or after the last. */
    SumGap: struct({ entries: entryEvidence, row: rowEvidence }),
  }),
);
export type TrainingChallenge = Infer<typeof trainingChallenge>;

export interface TrainingContext {
  readonly receipt: TrainingReceipt;
  /** Ranges under the snapshot's root. */
  readonly ranges: number;
  /**
   * Overlap (in units of 2^−16) from which on a worker must have found an earlier record; below it, MinHash may miss it
   * (at .8 with 4.6·10^−8), so that only a wrong figure for the named neighbour counts. At least 2^16 · 0.8.
   */
  readonly noveltyFloor: number;
}

export function decideTraining(hashing: Blake, context: TrainingContext, challenge: TrainingChallenge): Verdict {
  const { features, snapshot } = context.receipt;
  switch (challenge.type) {
    case 'RowMalformed': {
      const { leaf, proof } = challenge.value;
      const hashed = leafHash(hashing, 'features', leaf);
      if (!verifyLeaf(hashing, 'features', features.featureRoot, features.rows, hashed, proof)) {
        return dismissed('BadProof');
      }
      const row = tryDecode(featureRow, leaf);
      const fault = row === undefined ? 'MALFORMED' : rowFault(row, proof.first, features.k);
      return provenIf(fault !== undefined, fault ?? '');
    }
    case 'RowRecord': {
      const { row, record, recordProof } = challenge.value;
      if (!provesRow(hashing, context.receipt, row)) return dismissed('BadProof');
      const index = row.proof.first;
      if (!verifyRecord(hashing, snapshot.root, context.ranges, index, record, recordProof)) {
        return dismissed('BadProof');
      }
      if (!equalBytes(row.row.record, record)) return upheld('WRONG_RECORD');
      return provenIf(!equalBytes(row.row.contributor, recordProof.range.contributor), 'WRONG_CONTRIBUTOR');
    }
    case 'Novelty':
      return decideNovelty(hashing, context, challenge.value);
    case 'SumMalformed': {
      const { leaf, proof } = challenge.value;
      const hashed = leafHash(hashing, 'sums', leaf);
      if (!verifyLeaf(hashing, 'sums', features.sumRoot, features.sumEntries, hashed, proof)) {
        return dismissed('BadProof');
      }
      const entry = tryDecode(sumEntry, leaf);
      return provenIf(entry === undefined || entry.sums.length !== features.k, 'MALFORMED');
    }
    case 'SumStep': {
      const { entries, rows, rowsProof } = challenge.value;
      if (!provesEntries(hashing, context.receipt, entries)) return dismissed('BadProof');
      const entry = entries.entries.at(-1)!;
      const before = entries.entries.length === 2 ? entries.entries[0] : undefined;
      if (before === undefined && entries.proof.first !== 0) return dismissed('BadEvidence');
      if (rows.length !== entry.count || rowsProof.first !== entry.first) return dismissed('BadEvidence');
      const leaves = rows.map((row) => rowLeaf(hashing, row));
      if (!verifyRange(hashing, 'features', features.featureRoot, features.rows, leaves, rowsProof)) {
        return dismissed('BadProof');
      }
      return provenIf(!sumStepHolds(entry, before, rows), 'WRONG_SUM');
    }
    case 'SumOrder': {
      const { entries } = challenge.value;
      if (!provesEntries(hashing, context.receipt, entries)) return dismissed('BadProof');
      const [entry, after] = entries.entries as [SumEntry, SumEntry?];
      if (after === undefined && entries.proof.first !== features.sumEntries - 1) return dismissed('BadEvidence');
      const beyond = entries.entries.some((each) => each.first + each.count > features.rows);
      return provenIf(beyond || !sumOrderHolds(entry, after), 'WRONG_ORDER');
    }
    case 'SumGap': {
      const { entries, row } = challenge.value;
      if (!provesRow(hashing, context.receipt, row)) return dismissed('BadProof');
      const { contributor } = row.row;
      const index = row.proof.first;
      if (features.sumEntries === 0) return upheld('MISSING_ROW');
      if (!provesEntries(hashing, context.receipt, entries)) return dismissed('BadProof');
      const [entry, after] = entries.entries as [SumEntry, SumEntry?];
      if (after !== undefined) {
        return provenIf(rowAfter(entry, contributor, index) && rowBefore(after, contributor, index), 'MISSING_ROW');
      }
      const isFirst = entries.proof.first === 0;
      const isLast = entries.proof.first === features.sumEntries - 1;
      return provenIf(
        (isFirst && rowBefore(entry, contributor, index)) || (isLast && rowAfter(entry, contributor, index)),
        'MISSING_ROW',
      );
    }
  }
}

export function provesRow(hashing: Blake, { features }: TrainingReceipt, { row, proof }: RowEvidence): boolean {
  return verifyLeaf(hashing, 'features', features.featureRoot, features.rows, rowLeaf(hashing, row), proof);
}

export function provesEntries(
  hashing: Blake,
  { features }: TrainingReceipt,
  { entries, proof }: { readonly entries: readonly SumEntry[]; readonly proof: MerkleProof },
): boolean {
  const leaves = entries.map((entry) => sumLeaf(hashing, entry));
  return verifyRange(hashing, 'sums', features.sumRoot, features.sumEntries, leaves, proof);
}

function decideNovelty(
  hashing: Blake,
  { receipt, noveltyFloor }: TrainingContext,
  evidence: {
    readonly row: RowEvidence;
    readonly line: Uint8Array;
    readonly earlier: RowEvidence;
    readonly earlierLine: Uint8Array;
  },
): Verdict {
  const { row, line, earlier, earlierLine } = evidence;
  if (!provesRow(hashing, receipt, row) || !provesRow(hashing, receipt, earlier)) return dismissed('BadProof');
  if (earlier.proof.first >= row.proof.first) return dismissed('BadEvidence');
  if (compareBytes(recordHash(hashing, line), row.row.record) !== 0) return dismissed('BadEvidence');
  if (compareBytes(recordHash(hashing, earlierLine), earlier.row.record) !== 0) return dismissed('BadEvidence');
  let overlap: number;
  try {
    overlap = recordOverlap(line, earlierLine);
  } catch (error) {
    if (error instanceof RecordError) return dismissed('BadRecord');
    throw error;
  }
  return provenIf(!noveltyHolds(row.row, earlier.row, receipt.features.rows, overlap, noveltyFloor), 'WRONG_NOVELTY');
}
