/** What Datanets are made of: terms, batches of records, snapshots. */
import { canonical, part } from '../../../primitives/attribution/canonical.ts';
import { batchIndex, blobHash, claimId, datanetId, snapshotVersion } from '../../../primitives/attribution/ids.ts';
import { MAX_RECORD_BYTES } from '../../../primitives/attribution/limits.ts';
import { merkleProof } from '../../../primitives/attribution/merkle.ts';
import { snapshotRange } from '../../../primitives/attribution/records.ts';
import {
  bool,
  bytes,
  type Infer,
  option,
  struct,
  text,
  u32,
  u64,
  variants,
  vec,
} from '../../../primitives/scale/codec.ts';
import { accountId, balance, hash } from '../../../primitives/types.ts';

/** Batches that one snapshot may list: its weight and its deposit grow with them. */
export const MAX_SNAPSHOT_BATCHES = 4_096;

export const admission = part(
  'Admission',
  variants({
    /** What is available is admitted, as long as there is room in a snapshot. */
    Open: null,
    /** The owner and curators decide. */
    Curated: null,
    /** Nothing more is taken. */
    Closed: null,
  }),
);
export type Admission = Infer<typeof admission>;

/** What a Datanet is and under which licence: it never changes, and its hash stands in every contribution and order. */
export const datanetTerms = canonical(
  'datanet-terms/1',
  'DatanetTerms',
  struct({
    name: text(64),
    description: text(1024),
    /** What a record looks like: a JSON Schema, or words. */
    schema: text(4096),
    /** SPDX identifier or URL. */
    licence: text(128),
    /** Shingle overlap from which on two records are duplicates, in units of 2^−16. */
    dedupThreshold: u32,
  }),
);
export type DatanetTerms = Infer<typeof datanetTerms>;

export const datanet = part(
  'Datanet',
  struct({
    owner: accountId,
    /** Who may take the Datanet over. */
    offeredTo: option(accountId),
    name: text(64),
    description: text(1024),
    schema: text(4096),
    licence: text(128),
    dedupThreshold: u32,
    /** Hash of the five fields above ({@link datanetTerms}). */
    terms: hash,
    admission,
    /** OPEN that every batch stakes, beside the deposits for its bytes and its entry. */
    stake: balance,
    /** OPEN that a training order pays the owner. */
    accessPrice: balance,
    /** Held from the owner, for the Datanet and its curators. */
    deposit: balance,
    curators: u32,
    /** Batches that were ever contributed: the next one's index. */
    batches: u32,
    /** Batches that are in the state, whatever became of them. */
    entries: u32,
    /** What the next snapshot will hold: batches, their records, their contributors. */
    admittedBatches: u32,
    admitted: u32,
    contributors: u32,
    /** Snapshots that were ever taken: the next one's version. */
    snapshots: u32,
    /** Snapshots that are in the state, and the first version that may be. */
    keptSnapshots: u32,
    oldestSnapshot: u32,
  }),
);
export type Datanet = Infer<typeof datanet>;

export const batchStatus = part(
  'BatchStatus',
  variants({
    /** Until more than half of the validators attest that they hold the records. */
    Waiting: null,
    /** Until the owner or a curator decides, or there is room in snapshots. */
    Pending: null,
    Admitted: null,
    /** Out of snapshots from this version on; kept for the earlier ones that name it. */
    Out: struct({ from: snapshotVersion, struck: bool }),
  }),
);
export const batch = part(
  'Batch',
  struct({
    contributor: accountId,
    blob: blobHash,
    bytes: u64,
    records: u32,
    /** Bound to the contributor: copied, it proves nothing. */
    root: hash,
    sketches: hash,
    status: batchStatus,
    /** Keeps the blob with the nodes. */
    claim: claimId,
    /** On hold; 0 once released or slashed. */
    stake: balance,
    /** On hold for the entries of the state. */
    deposit: balance,
    at: u32,
    /** The first snapshot that may name it, once it is admitted. */
    since: snapshotVersion,
  }),
);
export type Batch = Infer<typeof batch>;

/** A batch that the next snapshot will name. */
export const admittedBatch = part('AdmittedBatch', struct({ contributor: accountId, records: u32, root: hash }));

export const storedSnapshot = part(
  'StoredSnapshot',
  struct({
    root: hash,
    /** Records, and the ranges that they stand in. */
    count: u32,
    ranges: u32,
    at: u32,
    /** Orders that name it: it stays for them. */
    users: u32,
    depositor: accountId,
    deposit: balance,
  }),
);
export type StoredSnapshot = Infer<typeof storedSnapshot>;
export const storedRanges = vec(snapshotRange, MAX_SNAPSHOT_BATCHES);

export const recordEvidence = part(
  'BatchRecord',
  struct({ batch: batchIndex, line: bytes(MAX_RECORD_BYTES + 1), proof: merkleProof }),
);
export type RecordEvidence = Infer<typeof recordEvidence>;
export const recordFault = part(
  'RecordFault',
  variants({
    /** The leaf is no canonical JSON object. */
    Malformed: recordEvidence,
    /** The same record, or one that overlaps by the Datanet's threshold, stands in an earlier place. */
    Duplicate: struct({ record: recordEvidence, earlier: recordEvidence }),
  }),
);
export type RecordFault = Infer<typeof recordFault>;
/** What the finder of a bad record commits to (`Commitments`). */
export const recordFinding = struct({ id: datanetId, fault: recordFault });
