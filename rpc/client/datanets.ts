/** Datanets as contributors and curators use them: JSONL becomes a committed batch, batches become snapshots. */
import type { KeyringPair } from '@polkadot/keyring/types';
import { availabilityReport, MAX_ASKED } from '../../runtime/pallets/ledger/blobs.ts';
import * as pallet from '../../runtime/pallets/ledger/datanets.ts';
import type { Blake } from '../../runtime/primitives/attribution/canonical.ts';
import { blobName } from '../../runtime/primitives/attribution/commitment.ts';
import { type ClaimId, claimId, type DatanetId, datanetId } from '../../runtime/primitives/attribution/ids.ts';
import { MAX_RECORD_BYTES } from '../../runtime/primitives/attribution/limits.ts';
import { minHash, sketchCommitment } from '../../runtime/primitives/attribution/minhash.ts';
import {
  batchRoot,
  canonicalJson,
  RecordError,
  recordHash,
  recordText,
} from '../../runtime/primitives/attribution/records.ts';
import { shingles } from '../../runtime/primitives/attribution/shingles.ts';
import { fromHex, fromUtf8, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { decode, encode, type Infer, struct, u32, vec } from '../../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId, type Hash } from '../../runtime/primitives/types.ts';
import { firstField, idOfKey, type Ledger, LedgerError } from './connection.ts';

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

/** A batch ready to be committed to. */
export interface PreparedBatch {
  /** Canonical JSONL. */
  readonly blob: Uint8Array;
  readonly hash: Hash;
  /** Its Merkle root, which is bound to who contributes it. */
  rootFor(contributor: AccountId): Hash;
  readonly sketches: Hash;
  readonly records: number;
}

export const openDatanet = async (ledger: Ledger, pair: KeyringPair, terms: DatanetTerms): Promise<DatanetId> => {
  const { admission, duplicateOverlap, ...words } = terms;
  const call = ledger.tx(
    'datanets',
    'create',
    words.name,
    words.description,
    words.schema,
    words.licence,
    admission,
    words.stake,
    Math.round(duplicateOverlap * 65_536),
    words.accessPrice,
  );
  return firstField(await ledger.submit(pair, call), 'Datanets.Created', datanetId);
};

/**
 * JSONL as people write it, one object a line in any notation, as the ledger keeps it. Throws a {@link RecordError} that
 * names the first bad line: what is no object, what is too long, what repeats an earlier line.
 */
export function prepareBatch(hashing: Blake, jsonl: Uint8Array | string): PreparedBatch {
  const lines = sourceLines(jsonl);
  const first = new Map<string, number>();
  const canonical = lines.map((source, at) => {
    const record = parsed(source, at + 1);
    const line = lineOf(record, at + 1);
    const before = first.get(line);
    if (before !== undefined) {
      throw new RecordError('RECORD_REPEATED', at + 1, `the same record as line ${before}`);
    }
    first.set(line, at + 1);
    return { record, bytes: utf8(line) };
  });
  if (canonical.length === 0) throw new RecordError('RECORD_EMPTY', 1, 'there is no record');
  const blob = utf8([...first.keys()].map((line) => `${line}\n`).join(''));
  const leaves = canonical.map(({ bytes }) => recordHash(hashing, bytes));
  return {
    blob,
    hash: blobName(hashing, blob),
    rootFor: (contributor) => batchRoot(hashing, contributor, leaves),
    sketches: sketchCommitment(
      hashing,
      canonical.map(({ record }) => minHash(shingles(utf8(recordText(record))))),
    ),
    records: canonical.length,
  };
}

type RecordValue = Parameters<typeof recordText>[0];

/** Lines without their line feeds; the last one may go without. */
function sourceLines(jsonl: Uint8Array | string): string[] {
  let text: string;
  if (typeof jsonl === 'string') text = jsonl;
  else {
    try {
      text = fromUtf8(jsonl);
    } catch {
      throw new RecordError('RECORD_NOT_UTF8', badUtf8Line(jsonl), 'not valid UTF-8');
    }
  }
  const lines = text.split('\n').map((line) => line.replace(/\r$/, ''));
  if (lines.at(-1) === '') lines.pop();
  return lines;
}

function badUtf8Line(bytes: Uint8Array): number {
  let line = 1;
  for (let start = 0; start < bytes.length; line++) {
    const end = bytes.indexOf(10, start);
    try {
      fromUtf8(bytes.subarray(start, end < 0 ? bytes.length : end));
    } catch {
      return line;
    }
    start = end < 0 ? bytes.length : end + 1;
  }
  return line;
}

function parsed(source: string, line: number): RecordValue {
  if (source.trim() === '') throw new RecordError('RECORD_EMPTY', line, 'empty');
  let value: RecordValue;
  try {
    value = JSON.parse(source) as RecordValue;
  } catch (problem) {
    throw new RecordError('RECORD_NOT_JSON', line, `not valid JSON: ${(problem as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new RecordError('RECORD_NOT_OBJECT', line, 'not a JSON object');
  }
  return value;
}

function lineOf(record: RecordValue, at: number): string {
  let line: string;
  try {
    line = canonicalJson(record);
  } catch (problem) {
    if (problem instanceof RecordError) throw new RecordError(problem.code, at, 'nested too deeply');
    throw problem;
  }
  const bytes = Buffer.byteLength(line);
  if (bytes > MAX_RECORD_BYTES) {
    throw new RecordError('RECORD_TOO_LONG', at, `${bytes} bytes where at most ${MAX_RECORD_BYTES} may stand`);
  }
  return line;
}

const contributed = struct({ id: datanetId, batch: u32 });

/**
 * Commits to a batch and hands its records to the node. Returns the batch's index. What was committed to before the
 * records arrived is only handed in again.
 */
export async function contribute(
  ledger: Ledger,
  pair: KeyringPair,
  datanet: DatanetId,
  batch: PreparedBatch,
): Promise<number> {
  const { hash, blob, records, sketches } = batch;
  const root = batch.rootFor(asAccountId(pair.publicKey));
  const call = ledger.tx(
    'datanets',
    'contribute',
    datanet,
    toHex(hash),
    blob.length,
    records,
    toHex(root),
    toHex(sketches),
  );
  let index: number;
  try {
    index = firstField(await ledger.submit(pair, call), 'Datanets.Contributed', contributed).batch;
  } catch (problem) {
    if (!(problem instanceof LedgerError && problem.code === 'Datanets.AlreadyCommitted')) throw problem;
    const before = await ledger.read('datanets', 'committed', u32, datanet, toHex(hash));
    const known = before === undefined ? undefined : await batchOf(ledger, datanet, before);
    const own = known !== undefined && Buffer.from(known.contributor).equals(pair.publicKey);
    if (!own || (await ledger.hasBlob(hash))) throw problem;
    index = before as number;
  }
  await ledger.putBlob(hash, blob);
  return index;
}

export async function curate(
  ledger: Ledger,
  pair: KeyringPair,
  datanet: DatanetId,
  batch: number,
  admit: boolean,
): Promise<void> {
  await ledger.submit(pair, ledger.tx('datanets', 'curate', datanet, batch, admit));
}

/** Takes a batch's stake back. Rejects with `Datanets.StakeLocked` while records can be disputed. */
export async function releaseStake(
  ledger: Ledger,
  pair: KeyringPair,
  datanet: DatanetId,
  batch: number,
): Promise<void> {
  await ledger.submit(pair, ledger.tx('datanets', 'releaseStake', datanet, batch));
}

const taken = struct({ id: datanetId, version: u32 });

/** Fixes a version of all admitted batches and returns its number. */
export async function takeSnapshot(ledger: Ledger, pair: KeyringPair, datanet: DatanetId): Promise<number> {
  const { batches } = await datanetOf(ledger, datanet);
  // One contributed meanwhile is let in too.
  const most = Math.min(batches + 16, pallet.MAX_SNAPSHOT_BATCHES);
  const events = await ledger.submit(pair, ledger.tx('datanets', 'snapshot', datanet, most));
  return firstField(events, 'Datanets.SnapshotTaken', taken).version;
}

/** Rejects with `Datanets.UnknownDatanet`. */
export async function datanetOf(ledger: Ledger, id: DatanetId): Promise<pallet.Datanet> {
  const found = await ledger.read('datanets', 'datanets', pallet.datanet, id);
  if (found === undefined) throw new LedgerError('Datanets.UnknownDatanet', `there is no Datanet ${id}`);
  return found;
}

export async function batchOf(ledger: Ledger, datanet: DatanetId, index: number): Promise<pallet.Batch> {
  const found = await ledger.read('datanets', 'batches', pallet.batch, datanet, index);
  if (found === undefined) throw new LedgerError('Datanets.UnknownBatch', `Datanet ${datanet} has no batch ${index}`);
  return found;
}

export async function snapshotOf(ledger: Ledger, datanet: DatanetId, version: number): Promise<pallet.StoredSnapshot> {
  const found = await ledger.read('datanets', 'snapshots', pallet.storedSnapshot, datanet, version);
  if (found === undefined)
    throw new LedgerError('Models.UnknownSnapshot', `Datanet ${datanet} has no snapshot ${version}`);
  return found;
}

export const datanets = async (ledger: Ledger): Promise<{ readonly id: DatanetId; readonly value: pallet.Datanet }[]> =>
  (await ledger.entries('datanets', 'datanets', pallet.datanet))
    .map(({ key, value }) => ({ id: idOfKey(key) as DatanetId, value }))
    .sort((a, b) => a.id - b.id);

/** In the order of their commitment. */
export const batchesOf = async (
  ledger: Ledger,
  datanet: DatanetId,
): Promise<{ readonly index: number; readonly batch: pallet.Batch }[]> =>
  (await ledger.entries('datanets', 'batches', pallet.batch, datanet))
    .map(({ key, value }) => ({ index: idOfKey(key), batch: value }))
    .sort((a, b) => a.index - b.index);

/** How many validators there are, and how many of them attested that they hold the files of each claim. */
export async function availabilityOf(
  ledger: Ledger,
  claims: readonly ClaimId[],
): Promise<Infer<typeof availabilityReport>> {
  const holders: number[] = [];
  let validators = 0;
  for (let at = 0; at === 0 || at < claims.length; at += MAX_ASKED) {
    const question = toHex(encode(vec(claimId), claims.slice(at, at + MAX_ASKED)));
    const answer = await ledger.rpc.call<string>('state_call', 'BlobsApi_availability', question);
    const report = decode(availabilityReport, fromHex(answer));
    validators = report.validators;
    holders.push(...report.holders);
  }
  return { validators, holders };
}
