/**
 * Datanets: networks of records for one domain. Contributors commit batches of records (a blob, its Merkle root, a stake);
 * owners and curators admit them; snapshots are immutable versions that adapters are trained on. The chain stores
 * O(batches): a bad record is shown with a Merkle proof, and costs the batch its stake.
 */
import {
  addWeight,
  cost,
  ensure,
  ensureRoot,
  ensureSigned,
  error,
  fail,
  scaleWeight,
} from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import { blake2_128Concat, map, nMap, storage, twox64Concat, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { part } from '../../primitives/attribution/canonical.ts';
import {
  batchIndex,
  blobHash,
  claimId,
  type DatanetId,
  datanetId,
  snapshotVersion,
} from '../../primitives/attribution/ids.ts';
import { MAX_RECORD_BYTES, NOVELTY_ONE } from '../../primitives/attribution/limits.ts';
import { leafHash, merkleProof } from '../../primitives/attribution/merkle.ts';
import { recordOverlap } from '../../primitives/attribution/novelty.ts';
import {
  parseRecord,
  RecordError,
  recordHash,
  snapshotRange,
  snapshotRoot,
  verifyBatchRecord,
} from '../../primitives/attribution/records.ts';
import { equalBytes } from '../../primitives/bytes.ts';
import { TREASURY } from '../../primitives/pallet-id.ts';
import { bool, bytes, type Infer, struct, text, u32, u64, variants, vec } from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, balance, hash, PERBILL, perbill, sameAccount } from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import * as system from '../standard/system.ts';
import * as blobs from './blobs.ts';

/** Batches that one snapshot may list: its weight and its storage grow with them. */
export const MAX_SNAPSHOT_BATCHES = 4_096;

const DATANET_DEPOSIT: Reason = { pallet: 20, reason: 0 };
const BATCH_STAKE: Reason = { pallet: 20, reason: 1 };

// ---- types ---------------------------------------------------------------------------------------------------

const admission = part('Admission', variants({ Open: null, Curated: null }));

export const datanet = part(
  'Datanet',
  struct({
    owner: accountId,
    name: text(64),
    description: text(1024),
    /** What a record looks like: a JSON Schema, or words. */
    schema: text(4096),
    /** SPDX identifier or URL; orders must name it, which is how they accept it. */
    licence: text(128),
    admission,
    /** OPEN that every batch stakes, beside the deposit for its bytes. */
    stake: balance,
    /** Shingle overlap from which on two records are duplicates, in units of 2^−16. */
    dedupThreshold: u32,
    /** OPEN that a training order pays the owner. */
    accessPrice: balance,
    deposit: balance,
    batches: u32,
    /** Records in all batches, and in the admitted ones. */
    records: u32,
    admitted: u32,
    snapshots: u32,
  }),
);
export type Datanet = Infer<typeof datanet>;

const batchStatus = part('BatchStatus', variants({ Pending: null, Admitted: null, Refused: null, Struck: null }));
export const batch = part(
  'Batch',
  struct({
    contributor: accountId,
    blob: blobHash,
    bytes: u64,
    records: u32,
    root: hash,
    sketches: hash,
    status: batchStatus,
    /** Keeps the blob with the nodes. */
    claim: claimId,
    /** On hold; 0 once released or slashed. */
    stake: balance,
    at: u32,
  }),
);
export type Batch = Infer<typeof batch>;

export const storedSnapshot = part(
  'StoredSnapshot',
  struct({ root: hash, count: u32, ranges: vec(snapshotRange, MAX_SNAPSHOT_BATCHES), at: u32 }),
);
export type StoredSnapshot = Infer<typeof storedSnapshot>;

export const parameters = part(
  'DatanetParameters',
  struct({
    /** Held from the owner. */
    datanetDeposit: balance,
    /** Blocks before a batch's stake can be released. */
    stakePeriod: u32,
    /** Part of a slashed stake that whoever showed the fault gets; the treasury has the rest. */
    finderReward: perbill,
  }),
);
export type DatanetParameters = Infer<typeof parameters>;
export const DEFAULT_PARAMETERS: DatanetParameters = {
  datanetDeposit: 10n ** 19n,
  stakePeriod: 28_800,
  finderReward: 500_000_000,
};

const recordEvidence = part(
  'BatchRecord',
  struct({ batch: batchIndex, line: bytes(MAX_RECORD_BYTES + 1), proof: merkleProof }),
);
const recordFault = part(
  'RecordFault',
  variants({
    /** The leaf is no canonical JSON object. */
    Malformed: recordEvidence,
    /** The same record, or one that overlaps by the Datanet's threshold, stands in an earlier place. */
    Duplicate: struct({ record: recordEvidence, earlier: recordEvidence }),
  }),
);

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Datanets', {
  NextId: value(datanetId, 0 as DatanetId, 'Id of the next Datanet.'),
  Datanets: map(twox64Concat(datanetId), datanet, 'Every Datanet.'),
  Curators: nMap([twox64Concat(datanetId), blake2_128Concat(accountId)], bool, 'Who admits batches beside the owner.'),
  Batches: nMap(
    [twox64Concat(datanetId), twox64Concat(batchIndex)],
    batch,
    'Batches in the order of their commitment.',
  ),
  Committed: nMap([twox64Concat(datanetId), blake2_128Concat(blobHash)], batchIndex, 'Which batch a blob is.'),
  Snapshots: nMap([twox64Concat(datanetId), twox64Concat(snapshotVersion)], storedSnapshot, 'Immutable versions.'),
  Parameters: value(parameters, DEFAULT_PARAMETERS, 'What governance can change.'),
});

export const events = {
  Created: event(0, { id: datanetId, owner: accountId }, 'A Datanet was opened.'),
  TermsChanged: event(1, { id: datanetId, stake: balance, accessPrice: balance }, 'The terms for what comes changed.'),
  OwnerChanged: event(2, { id: datanetId, owner: accountId }, 'The Datanet has another owner.'),
  CuratorChanged: event(3, { id: datanetId, curator: accountId, allowed: bool }, 'A curator came or went.'),
  Contributed: event(
    4,
    { id: datanetId, batch: batchIndex, contributor: accountId, blob: blobHash, records: u32 },
    'A batch of records was committed to.',
  ),
  Admitted: event(5, { id: datanetId, batch: batchIndex }, 'The batch will be part of snapshots.'),
  Refused: event(
    6,
    { id: datanetId, batch: batchIndex },
    'The batch will not be part of snapshots; its stake is free.',
  ),
  SnapshotTaken: event(7, { id: datanetId, version: snapshotVersion, root: hash, count: u32 }, 'A version was fixed.'),
  StakeReleased: event(8, { id: datanetId, batch: batchIndex, amount: balance }, 'The stake went back.'),
  Struck: event(
    9,
    { id: datanetId, batch: batchIndex, by: accountId, slashed: balance },
    'A bad record was shown: the batch is out, its stake is lost.',
  ),
  ParametersChanged: event(10, { parameters }, 'Governance changed the parameters.'),
};

export const errors = {
  UnknownDatanet: error(0, 'There is no such Datanet.'),
  UnknownBatch: error(1, 'There is no such batch.'),
  NotOwner: error(2, 'Only the owner of the Datanet may do this.'),
  NotCurator: error(3, 'Only the owner and the curators of the Datanet may do this.'),
  BadTerms: error(4, 'A name is needed, and the duplicate threshold lies within 2^15 … 2^16.'),
  EmptyBatch: error(5, 'A batch has at least one record, and at least three bytes a record.'),
  AlreadyCommitted: error(6, 'The blob is a batch of this Datanet already: the first to commit wins.'),
  AlreadyDecided: error(7, 'The batch was admitted, refused or struck before.'),
  NothingAdmitted: error(8, 'There is no admitted record to take a snapshot of.'),
  TooManyBatches: error(9, 'There are more batches than the call allows for, or than a snapshot may list.'),
  StakeLocked: error(10, 'The stake is not free yet, or there is none.'),
  NotContributor: error(11, 'Only the contributor may do this.'),
  BadProof: error(12, 'The Merkle proof does not lead to the batch’s root.'),
  NotProven: error(13, 'The evidence is in order but shows no fault.'),
  NotEarlier: error(14, 'The other record does not stand in an earlier place.'),
  TooManyRecords: error(15, 'A Datanet holds at most 2^32 − 1 records.'),
};

// ---- what other pallets build on -----------------------------------------------------------------------------

export const parametersOf = (host: Host): DatanetParameters => store.Parameters.get(host);
export const datanetOf = (host: Host, id: DatanetId): Datanet | undefined => store.Datanets.get(host, id);
export const snapshotOf = (host: Host, id: DatanetId, version: number): StoredSnapshot | undefined =>
  store.Snapshots.get(host, [id, version]);

/** What a batch says of its file, for those who attest that it is so. */
export function manifestOf(host: Host, id: DatanetId, index: number): Batch | undefined {
  return store.Batches.get(host, [id, index]);
}

function known(host: Host, id: DatanetId): Datanet {
  return store.Datanets.get(host, id) ?? fail(errors.UnknownDatanet);
}
function knownBatch(host: Host, id: DatanetId, index: number): Batch {
  return store.Batches.get(host, [id, index]) ?? fail(errors.UnknownBatch);
}
function ensureCurator(host: Host, id: DatanetId, owner: AccountId, who: AccountId): void {
  ensure(sameAccount(owner, who) || store.Curators.has(host, [id, who]), errors.NotCurator);
}

function releaseStake(env: Env, id: DatanetId, index: number, held: Batch): Batch {
  balances.release(env, BATCH_STAKE, held.contributor, held.stake);
  env.emit(events.StakeReleased, { id, batch: index, amount: held.stake });
  return { ...held, stake: 0n };
}

/** Whether the line stands in the batch where the proof says. */
function proves(host: Host, found: Batch, { line, proof }: Infer<typeof recordEvidence>): boolean {
  const leaf = leafHash(host, 'records', line);
  return verifyBatchRecord(host, found, leaf, proof);
}

function isMalformed(line: Uint8Array): boolean {
  try {
    parseRecord(line);
    return false;
  } catch (problem) {
    if (problem instanceof RecordError) return true;
    throw problem;
  }
}

function overlaps(host: Host, a: Uint8Array, b: Uint8Array, threshold: number): boolean {
  if (equalBytes(recordHash(host, a), recordHash(host, b))) return true;
  if (isMalformed(a) || isMalformed(b)) return false;
  return recordOverlap(a, b) >= threshold;
}

// ---- calls ---------------------------------------------------------------------------------------------------

export const calls = {
  create: call({
    index: 0,
    args: {
      name: text(64),
      description: text(1024),
      schema: text(4096),
      licence: text(128),
      admission,
      stake: balance,
      dedupThreshold: u32,
      accessPrice: balance,
    },
    weight: cost(60_000_000n, 4, 4),
    docs: 'Open a Datanet owned by the signer, who puts down a deposit.',
    run({ origin, host, ...env }, terms) {
      const owner = ensureSigned(origin);
      ensure(terms.name !== '', errors.BadTerms);
      ensure(terms.dedupThreshold >= NOVELTY_ONE / 2 && terms.dedupThreshold <= NOVELTY_ONE, errors.BadTerms);
      const { datanetDeposit: deposit } = parametersOf(host);
      balances.hold({ host, ...env }, DATANET_DEPOSIT, owner, deposit);
      const id = store.NextId.get(host);
      store.NextId.put(host, (id + 1) as DatanetId);
      store.Datanets.insert(host, id, { ...terms, owner, deposit, batches: 0, records: 0, admitted: 0, snapshots: 0 });
      env.emit(events.Created, { id, owner });
    },
  }),
  setTerms: call({
    index: 1,
    args: { id: datanetId, stake: balance, accessPrice: balance },
    weight: cost(20_000_000n, 1, 1),
    docs: 'Change what later batches stake and later orders pay. Owner only.',
    run({ origin, host, emit }, { id, stake, accessPrice }) {
      const found = known(host, id);
      ensure(sameAccount(found.owner, ensureSigned(origin)), errors.NotOwner);
      store.Datanets.insert(host, id, { ...found, stake, accessPrice });
      emit(events.TermsChanged, { id, stake, accessPrice });
    },
  }),
  transferOwnership: call({
    index: 2,
    args: { id: datanetId, owner: accountId },
    weight: cost(60_000_000n, 4, 4),
    docs: 'Hand the Datanet and the deposit for it to another account. Owner only.',
    run({ origin, ...env }, { id, owner }) {
      const found = known(env.host, id);
      ensure(sameAccount(found.owner, ensureSigned(origin)), errors.NotOwner);
      // Whoever is given a Datanet has not been asked: it may not cost anything.
      balances.transferHeld(env, DATANET_DEPOSIT, found.owner, owner, found.deposit);
      balances.hold(env, DATANET_DEPOSIT, owner, found.deposit);
      store.Datanets.insert(env.host, id, { ...found, owner });
      env.emit(events.OwnerChanged, { id, owner });
    },
  }),
  setCurator: call({
    index: 3,
    args: { id: datanetId, curator: accountId, allowed: bool },
    weight: cost(20_000_000n, 2, 1),
    docs: 'Appoint or dismiss a curator. Owner only.',
    run({ origin, host, emit }, { id, curator, allowed }) {
      ensure(sameAccount(known(host, id).owner, ensureSigned(origin)), errors.NotOwner);
      if (allowed) store.Curators.insert(host, [id, curator], true);
      else store.Curators.remove(host, [id, curator]);
      emit(events.CuratorChanged, { id, curator, allowed });
    },
  }),
  contribute: call({
    index: 4,
    args: { id: datanetId, blob: blobHash, bytes: u64, records: u32, root: hash, sketches: hash },
    weight: cost(80_000_000n, 6, 6),
    docs: 'Commit a batch: a blob of canonical JSONL with its Merkle root. Its stake and a deposit by size are held.',
    run({ origin, ...env }, { id, ...manifest }) {
      const { host } = env;
      const contributor = ensureSigned(origin);
      const found = known(host, id);
      // The shortest record is `{}` with its line feed.
      ensure(manifest.records > 0 && manifest.bytes >= 3n * BigInt(manifest.records), errors.EmptyBatch);
      ensure(found.records + manifest.records <= 0xffffffff, errors.TooManyRecords);
      ensure(!store.Committed.has(host, [id, manifest.blob]), errors.AlreadyCommitted);
      const { stake } = found;
      const open = found.admission.type === 'Open';
      const index = found.batches;
      const claim = blobs.commit(env, {
        depositor: contributor,
        purpose: { type: 'Records', value: { datanet: id, batch: index } },
        files: [{ hash: manifest.blob, bytes: manifest.bytes }],
      });
      balances.hold(env, BATCH_STAKE, contributor, stake);
      store.Committed.insert(host, [id, manifest.blob], index);
      store.Batches.insert(host, [id, index], {
        ...manifest,
        contributor,
        claim,
        stake,
        at: system.blockNumber(host),
        status: { type: open ? 'Admitted' : 'Pending' },
      });
      store.Datanets.insert(host, id, {
        ...found,
        batches: index + 1,
        records: found.records + manifest.records,
        admitted: found.admitted + (open ? manifest.records : 0),
      });
      env.emit(events.Contributed, { id, batch: index, contributor, blob: manifest.blob, records: manifest.records });
      if (open) env.emit(events.Admitted, { id, batch: index });
    },
  }),
  curate: call({
    index: 5,
    args: { id: datanetId, batch: batchIndex, admit: bool },
    weight: cost(50_000_000n, 5, 4),
    docs: 'Admit or refuse a pending batch. Owner and curators only.',
    run({ origin, ...env }, { id, batch: index, admit }) {
      const { host } = env;
      const found = known(host, id);
      ensureCurator(host, id, found.owner, ensureSigned(origin));
      const pending = knownBatch(host, id, index);
      ensure(pending.status.type === 'Pending', errors.AlreadyDecided);
      if (admit) {
        store.Batches.insert(host, [id, index], { ...pending, status: { type: 'Admitted' } });
        store.Datanets.insert(host, id, { ...found, admitted: found.admitted + pending.records });
        env.emit(events.Admitted, { id, batch: index });
      } else {
        store.Batches.insert(host, [id, index], {
          ...releaseStake(env, id, index, pending),
          status: { type: 'Refused' },
        });
        blobs.release(env, pending.claim);
        env.emit(events.Refused, { id, batch: index });
      }
    },
  }),
  snapshot: call({
    index: 6,
    args: { id: datanetId, maxBatches: u32 },
    weight: ({ maxBatches }) =>
      addWeight(
        cost(40_000_000n, 2, 2),
        scaleWeight(cost(4_000_000n, 1), BigInt(Math.min(maxBatches, MAX_SNAPSHOT_BATCHES))),
      ),
    docs: 'Fix a version of all admitted batches. `max_batches` bounds the work that is paid for. Owner and curators only.',
    run({ origin, host, emit }, { id, maxBatches }) {
      const found = known(host, id);
      ensureCurator(host, id, found.owner, ensureSigned(origin));
      ensure(found.batches <= Math.min(maxBatches, MAX_SNAPSHOT_BATCHES), errors.TooManyBatches);
      let first = 0;
      const ranges: Infer<typeof snapshotRange>[] = [];
      for (let index = 0; index < found.batches; index++) {
        const { contributor, records: count, root, status } = knownBatch(host, id, index);
        if (status.type !== 'Admitted') continue;
        ranges.push({ contributor, batch: index, first, count, root });
        first += count;
      }
      ensure(first > 0, errors.NothingAdmitted);
      const version = found.snapshots;
      const root = snapshotRoot(host, ranges);
      store.Snapshots.insert(host, [id, version], { root, count: first, ranges, at: system.blockNumber(host) });
      store.Datanets.insert(host, id, { ...found, snapshots: version + 1 });
      emit(events.SnapshotTaken, { id, version, root, count: first });
    },
  }),
  releaseStake: call({
    index: 7,
    args: { id: datanetId, batch: batchIndex },
    weight: cost(40_000_000n, 3, 3),
    docs: 'Take a batch’s stake back when the time for disputes is over. Contributor only.',
    run({ origin, ...env }, { id, batch: index }) {
      const { host } = env;
      const found = knownBatch(host, id, index);
      ensure(sameAccount(found.contributor, ensureSigned(origin)), errors.NotContributor);
      const free = found.at + parametersOf(host).stakePeriod;
      ensure(found.stake > 0n && system.blockNumber(host) >= free, errors.StakeLocked);
      store.Batches.insert(host, [id, index], releaseStake(env, id, index, found));
    },
  }),
  disputeRecord: call({
    index: 8,
    args: { id: datanetId, fault: recordFault },
    weight: cost(2_000_000_000n, 6, 5),
    docs: 'Show a malformed or doubled record. The batch is struck from later snapshots, its stake slashed, part of it the finder’s.',
    run({ origin, ...env }, { id, fault }) {
      const { host } = env;
      const finder = ensureSigned(origin);
      const found = known(host, id);
      const record = fault.type === 'Malformed' ? fault.value : fault.value.record;
      const accused = knownBatch(host, id, record.batch);
      ensure(accused.status.type === 'Admitted' || accused.status.type === 'Pending', errors.AlreadyDecided);
      ensure(proves(host, accused, record), errors.BadProof);
      if (fault.type === 'Malformed') ensure(isMalformed(record.line), errors.NotProven);
      else {
        const { earlier } = fault.value;
        const other = knownBatch(host, id, earlier.batch);
        ensure(other.status.type === 'Admitted' || other.status.type === 'Pending', errors.NotEarlier);
        const inOrder =
          earlier.batch < record.batch || (earlier.batch === record.batch && earlier.proof.first < record.proof.first);
        ensure(inOrder, errors.NotEarlier);
        ensure(proves(host, other, earlier), errors.BadProof);
        ensure(overlaps(host, record.line, earlier.line, found.dedupThreshold), errors.NotProven);
      }
      const reward = (accused.stake * BigInt(parametersOf(host).finderReward)) / BigInt(PERBILL);
      balances.transferHeld(env, BATCH_STAKE, accused.contributor, finder, reward);
      balances.transferHeld(env, BATCH_STAKE, accused.contributor, TREASURY, accused.stake - reward);
      store.Batches.insert(host, [id, record.batch], { ...accused, stake: 0n, status: { type: 'Struck' } });
      if (accused.status.type === 'Admitted') {
        store.Datanets.insert(host, id, { ...found, admitted: found.admitted - accused.records });
      }
      env.emit(events.Struck, { id, batch: record.batch, by: finder, slashed: accused.stake });
    },
  }),
  setParameters: call({
    index: 9,
    args: { parameters },
    weight: cost(10_000_000n, 0, 1),
    docs: 'Change the parameters. Root only.',
    run({ origin, host, emit }, { parameters: next }) {
      ensureRoot(origin);
      ensure(next.finderReward <= PERBILL, errors.BadTerms);
      store.Parameters.put(host, next);
      emit(events.ParametersChanged, { parameters: next });
    },
  }),
};

export const datanets = pallet({
  name: 'Datanets',
  index: 20,
  docs: 'Records: who contributed them, in which order, under which terms.',
  storage: store,
  calls,
  events,
  errors,
  constants: { MaxSnapshotBatches: constant(u32, MAX_SNAPSHOT_BATCHES, 'Batches that a snapshot may list.') },
  holdReasons: { DatanetDeposit: DATANET_DEPOSIT, BatchStake: BATCH_STAKE },
});
