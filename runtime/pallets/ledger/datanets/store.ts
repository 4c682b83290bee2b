/** Storage, events, errors and parameters of Datanets. */
import { error } from '../../../framework/dispatch.ts';
import { event, type Reason } from '../../../framework/pallet.ts';
import { boundedParameters, type ParametersOf } from '../../../framework/parameters.ts';
import { blake2_128Concat, identity, map, nMap, storage, twox64Concat, value } from '../../../framework/storage.ts';
import {
  batchIndex,
  blobHash,
  type DatanetId,
  datanetId,
  snapshotVersion,
} from '../../../primitives/attribution/ids.ts';
import { bool, u32 } from '../../../primitives/scale/codec.ts';
import { accountId, balance, hash, PERBILL, perbill } from '../../../primitives/types.ts';
import { admission, admittedBatch, batch, datanet, storedRanges, storedSnapshot } from './types.ts';

export const DATANET_DEPOSIT: Reason = { pallet: 20, reason: 0 };
export const BATCH_STAKE: Reason = { pallet: 20, reason: 1 };
export const BATCH_DEPOSIT: Reason = { pallet: 20, reason: 2 };
export const SNAPSHOT_DEPOSIT: Reason = { pallet: 20, reason: 3 };

export const parameters = boundedParameters('openledger_primitives::attribution::DatanetParameters', {
  datanetDeposit: {
    codec: balance,
    initial: 10n ** 19n,
    min: 10n ** 17n,
    max: 10n ** 24n,
    docs: 'OPEN held from the owner of a Datanet.',
  },
  curatorDeposit: {
    codec: balance,
    initial: 10n ** 17n,
    min: 10n ** 16n,
    max: 10n ** 22n,
    docs: 'OPEN held from the owner for each curator.',
  },
  stakePeriod: {
    codec: u32,
    initial: 28_800,
    min: 1,
    max: 10_512_000,
    docs: 'Blocks before a batch’s stake can be released.',
  },
  availabilityPeriod: {
    codec: u32,
    initial: 4_800,
    min: 8,
    max: 403_200,
    docs: 'Blocks in which validators must attest a batch’s records before it falls out.',
  },
  finderReward: {
    codec: perbill,
    initial: PERBILL / 2,
    min: 0,
    max: PERBILL,
    docs: 'Part of a slashed stake that its finder gets, in billionths; the treasury has the rest.',
  },
});
export type DatanetParameters = ParametersOf<typeof parameters>;

export const store = storage('Datanets', {
  NextId: value(datanetId, 0 as DatanetId, 'Id of the next Datanet.'),
  Datanets: map(twox64Concat(datanetId), datanet, 'Every Datanet.'),
  Curators: nMap(
    [twox64Concat(datanetId), blake2_128Concat(accountId)],
    balance,
    'Who admits batches beside the owner, with the deposit held for it.',
  ),
  Batches: nMap(
    [twox64Concat(datanetId), twox64Concat(batchIndex)],
    batch,
    'Batches in the order of their commitment.',
  ),
  Committed: nMap(
    [twox64Concat(datanetId), blake2_128Concat(accountId), identity(blobHash)],
    batchIndex,
    'Which batch of a contributor a blob is.',
  ),
  Admitted: nMap(
    [twox64Concat(datanetId), twox64Concat(batchIndex)],
    admittedBatch,
    'The batches that the next snapshot will name.',
  ),
  Contributors: nMap(
    [twox64Concat(datanetId), blake2_128Concat(accountId)],
    u32,
    'How many admitted batches a contributor has.',
  ),
  Snapshots: nMap([twox64Concat(datanetId), twox64Concat(snapshotVersion)], storedSnapshot, 'Immutable versions.'),
  Ranges: nMap(
    [twox64Concat(datanetId), twox64Concat(snapshotVersion)],
    storedRanges,
    'The ranges of a version’s records, by batch and contributor.',
  ),
  Parameters: parameters.item,
});

export const events = {
  Created: event(0, { id: datanetId, owner: accountId }, 'A Datanet was opened.'),
  TermsChanged: event(
    1,
    { id: datanetId, stake: balance, accessPrice: balance, admission },
    'The terms for what comes changed.',
  ),
  OwnerChanged: event(2, { id: datanetId, owner: accountId }, 'The Datanet has another owner.'),
  CuratorChanged: event(3, { id: datanetId, curator: accountId, allowed: bool }, 'A curator came or went.'),
  Contributed: event(
    4,
    { id: datanetId, batch: batchIndex, contributor: accountId, blob: blobHash, records: u32 },
    'A batch of records was committed to. It waits for validators that hold it.',
  ),
  Admitted: event(5, { id: datanetId, batch: batchIndex }, 'The batch will be part of snapshots.'),
  Refused: event(
    6,
    { id: datanetId, batch: batchIndex },
    'The owner or a curator does not want the batch in later snapshots.',
  ),
  SnapshotTaken: event(7, { id: datanetId, version: snapshotVersion, root: hash, count: u32 }, 'A version was fixed.'),
  StakeReleased: event(8, { id: datanetId, batch: batchIndex, amount: balance }, 'The stake went back.'),
  Struck: event(
    9,
    { id: datanetId, batch: batchIndex, by: accountId, slashed: balance },
    'A bad record was shown: the batch is out, its stake is lost.',
  ),
  ParametersChanged: parameters.changed(10),
  Arrived: event(11, { id: datanetId, batch: batchIndex }, 'More than half of the validators hold the records.'),
  Withdrawn: event(12, { id: datanetId, batch: batchIndex }, 'The contributor took the batch out.'),
  Unavailable: event(13, { id: datanetId, batch: batchIndex }, 'Nobody had the records in time: the batch fell out.'),
  Removed: event(
    14,
    { id: datanetId, batch: batchIndex },
    'The batch left the state; the deposits for it went back to its contributor.',
  ),
  SnapshotDropped: event(15, { id: datanetId, version: snapshotVersion }, 'A version left the state.'),
  Offered: event(16, { id: datanetId, to: accountId }, 'The Datanet is another account’s for the taking.'),
  Closed: event(17, { id: datanetId }, 'The Datanet left the state; the deposit went back to its owner.'),
};

export const errors = {
  UnknownDatanet: error(0, 'There is no such Datanet.'),
  UnknownBatch: error(1, 'There is no such batch.'),
  NotOwner: error(2, 'Only the owner of the Datanet may do this.'),
  NotCurator: error(3, 'Only the owner and the curators of the Datanet may do this.'),
  BadTerms: error(
    4,
    'A name and a licence are needed, no text may hold what cannot be seen, and the duplicate threshold lies within 2^15 … 2^16.',
  ),
  EmptyBatch: error(5, 'A batch has between 1 and 2^20 records, and at least three bytes a record.'),
  AlreadyCommitted: error(6, 'The account has contributed this blob to the Datanet already.'),
  AlreadyDecided: error(7, 'None of the batches is one that this could still be decided of.'),
  NothingAdmitted: error(8, 'There is no admitted record to take a snapshot of.'),
  TooManyBatches: error(9, 'There are more batches than the call allows for, or than a snapshot may list.'),
  StakeLocked: error(10, 'The stake is not free yet, or there is none.'),
  NotContributor: error(11, 'Only the contributor may do this.'),
  BadProof: error(12, 'The Merkle proof does not lead to the batch’s root.'),
  NotProven: error(13, 'The evidence is in order but shows no fault.'),
  NotEarlier: error(14, 'The other record does not stand in an earlier place of an available batch.'),
  Full: error(15, 'A snapshot would have more batches, records or contributors than an adapter can be trained on.'),
  BadParameters: parameters.refused(16),
  OtherTerms: error(17, 'The Datanet’s terms are not those that were signed for.'),
  StakeTooHigh: error(18, 'A batch stakes more than was signed for.'),
  ClosedDatanet: error(19, 'The Datanet takes no more batches.'),
  UnknownSnapshot: error(20, 'The Datanet has no such snapshot.'),
  InUse: error(21, 'Batches, curators, snapshots or orders still need it.'),
  NotOffered: error(22, 'The Datanet was not offered to this account.'),
  StillNamed: error(23, 'None of the batches can leave the state: a snapshot may name them, or they are not out.'),
};
