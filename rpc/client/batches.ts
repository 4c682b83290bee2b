/** Records before they are on the ledger: JSONL as people write it becomes a batch that can be committed to. */
import type { Blake } from '../../runtime/primitives/attribution/canonical.ts';
import { blobName } from '../../runtime/primitives/attribution/commitment.ts';
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
import { fromUtf8, utf8 } from '../../runtime/primitives/bytes.ts';
import type { AccountId, Hash } from '../../runtime/primitives/types.ts';

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
  const bytes = utf8(line).length;
  if (bytes > MAX_RECORD_BYTES) {
    throw new RecordError('RECORD_TOO_LONG', at, `${bytes} bytes where at most ${MAX_RECORD_BYTES} may stand`);
  }
  return line;
}
