/** Datanets as contributors and curators use them: prepared batches are committed to, admitted batches become snapshots. */
import * as blobs from '../../runtime/pallets/ledger/blobs.ts';
import * as pallet from '../../runtime/pallets/ledger/datanets.ts';
import { errors as modelErrors } from '../../runtime/pallets/ledger/models.ts';
import type { ClaimId, DatanetId } from '../../runtime/primitives/attribution/ids.ts';
import type { SnapshotRange } from '../../runtime/primitives/attribution/records.ts';
import type { Infer } from '../../runtime/primitives/scale/codec.ts';
import type { PreparedBatch } from './batches.ts';
import { failedWith, LedgerError, palletError } from './errors.ts';
import type { Ledger } from './ledger.ts';
import type { Signer } from './signer.ts';

/** What a Datanet is opened with; amounts in OPEN's smallest unit. */
export interface DatanetTerms {
  readonly name: string;
  readonly description: string;
  /** A JSON Schema, or words. */
  readonly schema: string;
  /** SPDX identifier or URL. */
  readonly licence: string;
  readonly admission: 'Open' | 'Curated';
  /** Held of every batch, beside the deposit for its bytes. */
  readonly stake: bigint;
  /** Overlap from which on two records are duplicates, ½ … 1. */
  readonly duplicateOverlap: number;
  /** What a training order pays the owner. */
  readonly accessPrice: bigint;
}

export async function openDatanet(ledger: Ledger, signer: Signer, terms: DatanetTerms): Promise<DatanetId> {
  const { admission, duplicateOverlap, ...words } = terms;
  const made = await ledger.submit(signer, pallet.calls.create, {
    ...words,
    admission: { type: admission },
    dedupThreshold: Math.round(duplicateOverlap * 65_536),
  });
  return made.event(pallet.events.Created).id;
}

/** So long a contribution is followed until validators hold its records. */
const AVAILABLE_MS = 180_000;

/**
 * Commits to a batch, hands its records to the node, and waits until validators have them. Returns the batch's index. What
 * was committed to before the records arrived is only handed in again. `maxStake`: the most that may be put on hold as
 * its stake (default: what the Datanet asks for now). Rejects with `BATCH_WAITING` where validators take too long: the
 * batch stands, and falls out by itself if they never have it.
 */
export async function contribute(
  ledger: Ledger,
  signer: Signer,
  datanet: DatanetId,
  batch: PreparedBatch,
  { maxStake }: { readonly maxStake?: bigint } = {},
): Promise<number> {
  const { hash, blob, records, sketches } = batch;
  const { terms, stake } = await datanetOf(ledger, datanet);
  const args = {
    ...{ id: datanet, terms, blob: hash, bytes: BigInt(blob.length), records },
    ...{ root: batch.rootFor(signer.account), sketches, maxStake: maxStake ?? stake },
  };
  let index: number;
  try {
    index = (await ledger.submit(signer, pallet.calls.contribute, args)).event(pallet.events.Contributed).batch;
  } catch (problem) {
    if (!failedWith(problem, pallet.errors.AlreadyCommitted)) throw problem;
    const before = await ledger.read(pallet.store.Committed, [datanet, signer.account, hash]);
    if (before === undefined || (await ledger.blobs.has(hash))) throw problem;
    index = before;
  }
  await ledger.blobs.put(hash, blob);
  await awaitBatch(ledger, datanet, index);
  return index;
}

/** Resolves with the batch once validators have its records: admitted, or waiting for whoever decides. */
export async function awaitBatch(ledger: Ledger, datanet: DatanetId, index: number): Promise<pallet.Batch> {
  const signal = AbortSignal.timeout(AVAILABLE_MS);
  for await (const found of ledger.watch(pallet.store.Batches, [datanet, index], { signal })) {
    if (found === undefined) throw palletError(pallet.errors.UnknownBatch, `Datanet ${datanet} has no batch ${index}`);
    if (found.status.type !== 'Waiting') return found;
  }
  throw new LedgerError('BATCH_WAITING', `validators do not have the records of batch ${index} yet`);
}

export async function curate(
  ledger: Ledger,
  signer: Signer,
  datanet: DatanetId,
  batch: number,
  admit: boolean,
): Promise<void> {
  await ledger.submit(signer, pallet.calls.curate, { id: datanet, batches: [batch], admit });
}

/** Takes a batch's stake back. Rejects with `Datanets.StakeLocked` while records can be disputed. */
export async function releaseStake(ledger: Ledger, signer: Signer, datanet: DatanetId, batch: number): Promise<void> {
  await ledger.submit(signer, pallet.calls.releaseStake, { id: datanet, batch });
}

/** Fixes a version of all admitted batches and returns its number. */
export async function takeSnapshot(ledger: Ledger, signer: Signer, datanet: DatanetId): Promise<number> {
  const { admittedBatches } = await datanetOf(ledger, datanet);
  // One admitted meanwhile is let in too.
  const maxBatches = Math.min(admittedBatches + 16, pallet.MAX_SNAPSHOT_BATCHES);
  const made = await ledger.submit(signer, pallet.calls.snapshot, { id: datanet, maxBatches });
  return made.event(pallet.events.SnapshotTaken).version;
}

/** Rejects with `Datanets.UnknownDatanet`. */
export async function datanetOf(ledger: Ledger, id: DatanetId): Promise<pallet.Datanet> {
  const found = await ledger.read(pallet.store.Datanets, id);
  if (found === undefined) throw palletError(pallet.errors.UnknownDatanet, `there is no Datanet ${id}`);
  return found;
}

/** Rejects with `Datanets.UnknownBatch`. */
export async function batchOf(ledger: Ledger, datanet: DatanetId, index: number): Promise<pallet.Batch> {
  const found = await ledger.read(pallet.store.Batches, [datanet, index]);
  if (found === undefined) throw palletError(pallet.errors.UnknownBatch, `Datanet ${datanet} has no batch ${index}`);
  return found;
}

/** Rejects with `Models.UnknownSnapshot`. */
export async function snapshotOf(ledger: Ledger, datanet: DatanetId, version: number): Promise<pallet.StoredSnapshot> {
  const found = await ledger.read(pallet.store.Snapshots, [datanet, version]);
  if (found === undefined) {
    throw palletError(modelErrors.UnknownSnapshot, `Datanet ${datanet} has no snapshot ${version}`);
  }
  return found;
}

/** The ranges of a snapshot's records, by batch and contributor. Rejects with `Models.UnknownSnapshot`. */
export async function rangesOf(ledger: Ledger, datanet: DatanetId, version: number): Promise<readonly SnapshotRange[]> {
  const found = await ledger.read(pallet.store.Ranges, [datanet, version]);
  if (found === undefined) {
    throw palletError(modelErrors.UnknownSnapshot, `Datanet ${datanet} has no snapshot ${version}`);
  }
  return found;
}

export async function datanets(ledger: Ledger): Promise<{ readonly id: DatanetId; readonly value: pallet.Datanet }[]> {
  const entries = await Array.fromAsync(ledger.entries(pallet.store.Datanets));
  return entries.map(([id, value]) => ({ id, value })).sort((a, b) => a.id - b.id);
}

/** In the order of their commitment. */
export async function batchesOf(
  ledger: Ledger,
  datanet: DatanetId,
): Promise<{ readonly index: number; readonly batch: pallet.Batch }[]> {
  const entries = await Array.fromAsync(ledger.entries(pallet.store.Batches, datanet));
  return entries.map(([[, index], batch]) => ({ index, batch })).sort((a, b) => a.index - b.index);
}

/** How many validators there are, and how many of them attested that they hold the files of each claim. */
export async function availabilityOf(
  ledger: Ledger,
  claims: readonly ClaimId[],
): Promise<Infer<typeof blobs.availabilityReport>> {
  const holders: number[] = [];
  let validators = 0;
  for (let at = 0; at === 0 || at < claims.length; at += blobs.MAX_ASKED) {
    const asked = claims.slice(at, at + blobs.MAX_ASKED);
    const report = await ledger.ask(blobs.api.methods.availability, { claims: asked });
    validators = report.validators;
    for (const held of report.holders) holders.push(held);
  }
  return { validators, holders };
}
