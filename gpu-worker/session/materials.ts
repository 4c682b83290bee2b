/** What orders, adapters and audits are made from: records and published files, from the node's blob store. */
import { LedgerError } from '../../rpc/client/errors.ts';
import { trainingReceiptOf } from '../../rpc/client/models.ts';
import * as datanets from '../../runtime/pallets/ledger/datanets.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import type { AdapterId, DatanetId, OrderId } from '../../runtime/primitives/attribution/ids.ts';
import { splitLines } from '../../runtime/primitives/attribution/records.ts';
import type { AccountId } from '../../runtime/primitives/types.ts';
import type { AdapterMaterial } from '../serving/served-adapter.ts';
import type { NodeLink } from './link.ts';

export interface ContributedRecord {
  readonly line: Uint8Array;
  readonly contributor: AccountId;
}

const known = <T>(value: T | undefined, what: string): T => {
  if (value === undefined) throw new LedgerError('UNKNOWN', `the chain has no ${what}`);
  return value;
};

/** The records of a snapshot, in its order. Rejects with a LedgerError, or a RecordError for a blob that is no JSONL. */
export async function snapshotRecords(
  link: NodeLink,
  datanet: DatanetId,
  version: number,
): Promise<ContributedRecord[]> {
  const stored = await link.ledger.read(datanets.store.Ranges, [datanet, version]);
  const records: ContributedRecord[] = [];
  for (const { batch, contributor, count } of known(stored, `snapshot ${version} of Datanet ${datanet}`)) {
    const entry = await link.ledger.read(datanets.store.Batches, [datanet, batch]);
    const lines = splitLines(await link.ledger.blobs.get(known(entry, `batch ${batch}`).blob));
    if (lines.length !== count)
      throw new LedgerError('WRONG_COUNT', `batch ${batch}: ${lines.length} records where ${count} were declared`);
    for (const line of lines) records.push({ line, contributor });
  }
  return records;
}

/** An order with the base model and the Datanet that it names. */
export async function orderTerms(link: NodeLink, order: OrderId) {
  const ordered = known(await link.ledger.read(models.store.Orders, order), `order ${order}`);
  const base = await link.ledger.read(models.store.BaseModels, ordered.baseModel);
  const net = await link.ledger.read(datanets.store.Datanets, ordered.snapshot.datanet);
  return { ordered, base: known(base, 'such base model'), net: known(net, 'such Datanet') };
}

/** All that serving or auditing an adapter takes. Rejects with a LedgerError `BLOB_NOT_FOUND` while files are missing. */
export async function adapterMaterial(link: NodeLink, id: AdapterId): Promise<AdapterMaterial> {
  const { payload: training } = await trainingReceiptOf(link.ledger, id);
  const { basis, features } = training;
  const { config } = known(await link.ledger.read(models.store.Orders, training.order), 'such order');
  const blob = (hash: Uint8Array) => link.ledger.blobs.get(hash);
  return {
    training,
    config,
    adapter: await blob(training.adapter),
    adapterConfig: await blob(training.adapterConfig),
    checkpoint: await blob(basis.checkpoint),
    eigenbases: await blob(basis.eigenbases),
    projection: await blob(basis.projection),
    files: {
      features: await blob(features.featureFile),
      sums: await blob(features.sumFile),
      frequencies: await blob(features.frequencyFile),
    },
    lines: (await snapshotRecords(link, training.snapshot.datanet, training.snapshot.version)).map(({ line }) => line),
  };
}
