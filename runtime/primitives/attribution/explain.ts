/** Why a receipt pays whom: contributors, their best records, the matching spans, each with its Merkle proof. */
import { compareBytes } from '../bytes.ts';
import type { AccountId, Hash } from '../types.ts';
import type { Blake } from './canonical.ts';
import { topRows } from './influence.ts';
import { type MerkleProof, proveRange } from './merkle.ts';
import { hashesIn, type OpenedAdapter } from './opened.ts';
import type { InferenceReceipt, Share } from './receipts.ts';

export interface ExplainedShare extends Share {
  /** The contributor's last running sum: its position and proof under the training receipt's sum root. */
  readonly entry: number;
  readonly proof: MerkleProof;
}

export interface ExplainedRecord {
  readonly index: number;
  readonly record: Hash;
  readonly contributor: AccountId;
  /** ν·σ·⟨r, u⟩, in units of 2^−48. */
  readonly score: bigint;
  readonly novelty: number;
  /** Under the training receipt's feature root. */
  readonly proof: MerkleProof;
}

export interface ExplainedSpan {
  /** In tokens of the output. */
  readonly start: number;
  readonly length: number;
  readonly mass: number;
  readonly matches: readonly {
    readonly record: number;
    readonly offset: number;
    readonly contributor: AccountId;
    readonly novelty: number;
  }[];
}

export interface Explanation {
  readonly shares: readonly ExplainedShare[];
  /** Highest scores first. */
  readonly records: readonly ExplainedRecord[];
  readonly spans: readonly ExplainedSpan[];
  readonly pool: bigint;
  readonly remainder: bigint;
}

/** `receipt` has been verified against the same adapter. */
export function explainReceipt(
  hashing: Blake,
  opened: OpenedAdapter,
  receipt: InferenceReceipt,
  top = 10,
): Explanation {
  const { table, records, rowLeaves, sumLeaves, lastEntries } = opened;
  const rows = hashesIn(rowLeaves);
  const sums = hashesIn(sumLeaves);
  const hashes = hashesIn(records);
  const best = topRows(table, receipt.feature, top);
  return {
    shares: receipt.shares.map((share) => {
      const position = table.contributors.findIndex((each) => compareBytes(each, share.contributor) === 0);
      const entry = lastEntries[position] ?? -1;
      return { ...share, entry, proof: proveRange(hashing, 'sums', sums, entry) };
    }),
    records: best.map(({ row, score }) => ({
      index: row,
      record: hashes[row]!,
      contributor: table.contributors[table.owner[row]!]!,
      score,
      novelty: table.novelty[row]!,
      proof: proveRange(hashing, 'features', rows, row),
    })),
    spans: receipt.spans.map(({ start, length, mass, matches }) => ({
      start,
      length,
      mass,
      matches: matches.map(({ record, offset, share, novelty }) => ({
        record,
        offset,
        contributor: receipt.shares[share]!.contributor,
        novelty,
      })),
    })),
    pool: receipt.pool,
    remainder: receipt.remainder,
  };
}
