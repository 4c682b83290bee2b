/**
 * Records, the batches they are contributed in, and the snapshots that adapters are trained on. A record is one line of
 * canonical JSONL; its hash is its leaf in the batch's Merkle tree, so equal records have equal hashes anywhere.
 */
import { compareBytes, equalBytes, fromUtf8, utf8 } from '../bytes.ts';
import { encode, type Infer, struct, u32, u64, vec } from '../scale/codec.ts';
import { type AccountId, accountId, type Hash, hash } from '../types.ts';
import { type Blake, canonical, hashOf, part } from './canonical.ts';
import { batchIndex, blobHash, datanetId, snapshotVersion } from './ids.ts';
import { MAX_RECORD_BYTES } from './limits.ts';
import { leafHash, type MerkleProof, merkleProof, merkleRoot, proveRange, rootOfRange, verifyLeaf } from './merkle.ts';

export const MAX_SNAPSHOT_RANGES = 65_536;

/** What a contributor commits to: one blob of JSONL whose records become `first … first + records − 1`. */
export const batchManifest = canonical(
  'batch-manifest/1',
  'BatchManifest',
  struct({
    datanet: datanetId,
    contributor: accountId,
    blob: blobHash,
    bytes: u64,
    records: u32,
    /** {@link batchRoot} over the records, in file order. */
    root: hash,
    /** Hash of the MinHash sketches of the records ({@link sketchCommitment}). */
    sketches: hash,
  }),
);
export type BatchManifest = Infer<typeof batchManifest>;

/** A contiguous range of a snapshot's records: one batch of one contributor. */
export const snapshotRange = part(
  'SnapshotRange',
  struct({ contributor: accountId, batch: batchIndex, first: u32, count: u32, root: hash }),
);
export type SnapshotRange = Infer<typeof snapshotRange>;

/** An immutable version of a Datanet. Ranges follow each other from 0 without gaps. */
export const snapshot = canonical(
  'snapshot/1',
  'Snapshot',
  struct({
    datanet: datanetId,
    version: snapshotVersion,
    count: u32,
    /** Merkle root over the ranges ({@link snapshotRoot}). */
    root: hash,
    ranges: vec(snapshotRange, MAX_SNAPSHOT_RANGES),
  }),
);
export type Snapshot = Infer<typeof snapshot>;

/** Shows that a record stands at an index of a snapshot: its range, and its place in that range's batch. */
export const recordProof = part(
  'RecordProof',
  struct({ range: snapshotRange, rangeProof: merkleProof, recordProof: merkleProof }),
);
export type RecordProof = Infer<typeof recordProof>;

export const recordHash = (hashing: Blake, line: Uint8Array): Hash => leafHash(hashing, 'records', line);

const boundRoot = canonical('batch-root/1', 'BatchRoot', struct({ contributor: accountId, records: hash }));

/** The root of records, made their contributor's own: under another account's name nothing can be proven with it. */
export const bindRoot = (hashing: Blake, contributor: AccountId, records: Hash): Hash =>
  hashOf(hashing, boundRoot, { contributor, records });

/** Root of a batch over its {@link recordHash}es. */
export const batchRoot = (hashing: Blake, contributor: AccountId, leaves: readonly Hash[]): Hash =>
  bindRoot(hashing, contributor, merkleRoot(hashing, 'records', leaves));

/** Whether the record with `leaf` stands at `proof.first` of a batch of `records` records. */
export function verifyBatchRecord(
  hashing: Blake,
  { contributor, root, records }: Pick<BatchManifest, 'contributor' | 'root' | 'records'>,
  leaf: Uint8Array,
  proof: MerkleProof,
): boolean {
  const found = rootOfRange(hashing, 'records', records, [leaf], proof);
  return found !== undefined && equalBytes(bindRoot(hashing, contributor, found), root);
}

const rangeLeaf = (hashing: Blake, range: SnapshotRange): Hash =>
  leafHash(hashing, 'snapshot', encode(snapshotRange, range));

export const snapshotRoot = (hashing: Blake, ranges: readonly SnapshotRange[]): Hash =>
  merkleRoot(
    hashing,
    'snapshot',
    ranges.map((range) => rangeLeaf(hashing, range)),
  );

/** `batchLeaves`: the record hashes of the batch behind range `at`; `index` counts in the whole snapshot. */
export function proveRecord(
  hashing: Blake,
  ranges: readonly SnapshotRange[],
  at: number,
  batchLeaves: readonly Hash[],
  index: number,
): RecordProof {
  const range = ranges[at]!;
  const leaves = ranges.map((each) => rangeLeaf(hashing, each));
  return {
    range,
    rangeProof: proveRange(hashing, 'snapshot', leaves, at),
    recordProof: proveRange(hashing, 'records', batchLeaves, index - range.first),
  };
}

/** Whether the record with `leaf` stands at `index` of the snapshot with `root` over `ranges` ranges. */
export function verifyRecord(
  hashing: Blake,
  root: Uint8Array,
  ranges: number,
  index: number,
  leaf: Uint8Array,
  proof: RecordProof,
): boolean {
  const { range, rangeProof } = proof;
  return (
    index >= range.first &&
    index < range.first + range.count &&
    proof.recordProof.first === index - range.first &&
    verifyLeaf(hashing, 'snapshot', root, ranges, rangeLeaf(hashing, range), rangeProof) &&
    verifyBatchRecord(hashing, { ...range, records: range.count }, leaf, proof.recordProof)
  );
}

/** Contributors of a snapshot, each once, in ascending order of their account ids. */
export function contributorsOf(ranges: readonly SnapshotRange[]): AccountId[] {
  const sorted = ranges.map((range) => range.contributor).sort(compareBytes);
  return sorted.filter((each, at) => at === 0 || compareBytes(each, sorted[at - 1]!) !== 0);
}

// ---- the lines themselves ------------------------------------------------------------------------------------

export type RecordErrorCode =
  | 'RECORD_NOT_UTF8'
  | 'RECORD_NOT_JSON'
  | 'RECORD_NOT_OBJECT'
  | 'RECORD_NOT_CANONICAL'
  | 'RECORD_EMPTY'
  | 'RECORD_TOO_LONG'
  | 'RECORD_TOO_DEEP'
  | 'RECORD_REPEATED'
  | 'RECORDS_UNTERMINATED';

export class RecordError extends Error {
  readonly code: RecordErrorCode;
  /** Counting from 1. */
  readonly line: number;
  constructor(code: RecordErrorCode, line: number, message: string) {
    super(`line ${line}: ${message}`);
    this.code = code;
    this.line = line;
  }
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
const MAX_JSON_DEPTH = 16;

/** JSON with keys in ascending order of their UTF-16 units and no white space (RFC 8785 for strings and integers). */
export function canonicalJson(value: Json, depth = 0): string {
  if (depth > MAX_JSON_DEPTH) throw new RecordError('RECORD_TOO_DEEP', 1, `more than ${MAX_JSON_DEPTH} nested values`);
  if (Array.isArray(value)) return `[${value.map((each) => canonicalJson(each, depth + 1)).join(',')}]`;
  if (typeof value === 'object' && value !== null) {
    const fields = Object.keys(value).sort();
    return `{${fields.map((key) => `${JSON.stringify(key)}:${canonicalJson(value[key]!, depth + 1)}`).join(',')}}`;
  }
  return JSON.stringify(value);
}

/** One record as its canonical line, without a line feed. */
export const recordLine = (record: { readonly [key: string]: Json }): Uint8Array => utf8(canonicalJson({ ...record }));

/** Whether brackets outside of strings nest deeper than canonical records may; also of bytes that are no JSON. */
function isDeep(bytes: Uint8Array): boolean {
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (quoted) {
      if (byte === 0x5c) i++;
      else if (byte === 0x22) quoted = false;
    } else if (byte === 0x22) quoted = true;
    else if (byte === 0x5b || byte === 0x7b) {
      if (++depth > MAX_JSON_DEPTH + 1) return true;
    } else if (byte === 0x5d || byte === 0x7d) depth--;
  }
  return false;
}

/** Parses a canonical line. `line` is for the error only. Throws {@link RecordError}. */
export function parseRecord(bytes: Uint8Array, line = 1): { readonly [key: string]: Json } {
  if (bytes.length === 0) throw new RecordError('RECORD_EMPTY', line, 'empty');
  if (bytes.length > MAX_RECORD_BYTES) {
    throw new RecordError('RECORD_TOO_LONG', line, `${bytes.length} bytes where at most ${MAX_RECORD_BYTES} may stand`);
  }
  let source: string;
  try {
    source = fromUtf8(bytes);
  } catch {
    throw new RecordError('RECORD_NOT_UTF8', line, 'not valid UTF-8');
  }
  // Engines differ in how deep their parsers go: this one bound is everybody's.
  if (isDeep(bytes)) throw new RecordError('RECORD_TOO_DEEP', line, 'nested too deeply');
  let value: Json;
  let again: string;
  try {
    value = JSON.parse(source);
    again = canonicalJson(value);
  } catch (error) {
    if (error instanceof RecordError) throw new RecordError(error.code, line, 'nested too deeply');
    // The parser's own words differ between versions of the engine: they stay out of what a block can mean.
    throw new RecordError('RECORD_NOT_JSON', line, 'not valid JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new RecordError('RECORD_NOT_OBJECT', line, 'not a JSON object');
  }
  if (again !== source) {
    throw new RecordError(
      'RECORD_NOT_CANONICAL',
      line,
      'not canonical JSON (sorted keys, no spaces, no duplicate keys)',
    );
  }
  return value;
}

/** Splits a blob into its lines, as views. Each line ends with a line feed, the last one too. */
export function splitLines(blob: Uint8Array): Uint8Array[] {
  const lines: Uint8Array[] = [];
  for (let start = 0; start < blob.length; ) {
    const end = blob.indexOf(10, start);
    if (end < 0) throw new RecordError('RECORDS_UNTERMINATED', lines.length + 1, 'no line feed at the end');
    lines.push(blob.subarray(start, end));
    start = end + 1;
  }
  return lines;
}

/** Splits and parses a whole blob; the first bad line is reported. */
export const parseRecords = (blob: Uint8Array): { readonly [key: string]: Json }[] =>
  splitLines(blob).map((line, at) => parseRecord(line, at + 1));

/** The text of a record: all its string values, in the order of their keys, joined by line feeds. */
export function recordText(record: Json): string {
  const parts: string[] = [];
  const walk = (value: Json): void => {
    if (typeof value === 'string') parts.push(value);
    else if (Array.isArray(value)) value.forEach(walk);
    else if (typeof value === 'object' && value !== null)
      for (const key of Object.keys(value).sort()) walk(value[key]!);
  };
  walk(record);
  return parts.join('\n');
}
