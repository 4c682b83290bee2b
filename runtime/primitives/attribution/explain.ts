/** Why a receipt pays whom: contributors, their best records, the matching spans, each with its Merkle proof. */
import { compareBytes } from '../bytes.ts';
import type { AccountId, Hash } from '../types.ts';
import type { Blake } from './canonical.ts';
import type { AttributionData } from './commitment.ts';
import { rowLeaf } from './features.ts';
import { topRows } from './influence.ts';
import { type MerkleProof, proveRange } from './merkle.ts';
import type { InferenceReceipt, Share } from './receipts.ts';
import { sumLeaf } from './sums.ts';

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

export class Explainer {
  readonly #hashing: Blake;
  readonly #data: AttributionData;
  readonly #rowLeaves: Hash[];
  readonly #sumLeaves: Hash[];

  /** Hashes all leaves once; keep it with the adapter. */
  constructor(hashing: Blake, data: AttributionData) {
    this.#hashing = hashing;
    this.#data = data;
    this.#rowLeaves = data.rows.map((row) => rowLeaf(hashing, row));
    this.#sumLeaves = data.entries.map((entry) => sumLeaf(hashing, entry));
  }

  /** `receipt` has been verified against the same data. */
  explain(receipt: InferenceReceipt, top = 10): Explanation {
    const { rows, table, entries } = this.#data;
    const best = topRows(table, receipt.feature, top);
    return {
      shares: receipt.shares.map((share) => {
        const entry = entries.findIndex((each) => each.last && compareBytes(each.contributor, share.contributor) === 0);
        return { ...share, entry, proof: proveRange(this.#hashing, 'sums', this.#sumLeaves, entry) };
      }),
      records: best.map(({ row, score }) => {
        const { record, contributor, novelty } = rows[row]!;
        const proof = proveRange(this.#hashing, 'features', this.#rowLeaves, row);
        return { index: row, record, contributor, score, novelty, proof };
      }),
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
}
