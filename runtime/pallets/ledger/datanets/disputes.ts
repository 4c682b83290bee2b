/** What a dispute about a record shows, decided by the evidence alone. */
import { ensure, fail } from '../../../framework/dispatch.ts';
import type { Host } from '../../../host.ts';
import type { DatanetId } from '../../../primitives/attribution/ids.ts';
import { recordOverlap } from '../../../primitives/attribution/novelty.ts';
import { parseRecord, RecordError, recordHash, verifyBatchRecord } from '../../../primitives/attribution/records.ts';
import { equalBytes } from '../../../primitives/bytes.ts';
import { errors, store } from './store.ts';
import type { Batch, RecordEvidence, RecordFault } from './types.ts';

const proves = (host: Host, found: Batch, { line, proof }: RecordEvidence): boolean =>
  verifyBatchRecord(host, found, recordHash(host, line), proof);

/** What `read` makes of records; undefined where one of them is none. */
function unlessMalformed<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (problem) {
    if (problem instanceof RecordError) return undefined;
    throw problem;
  }
}

const isMalformed = (line: Uint8Array): boolean => unlessMalformed(() => parseRecord(line)) === undefined;

const overlaps = (a: Uint8Array, b: Uint8Array, threshold: number): boolean =>
  equalBytes(a, b) || (unlessMalformed(() => recordOverlap(a, b)) ?? 0) >= threshold;

const isAvailable = ({ status }: Batch): boolean => status.type === 'Admitted' || status.type === 'Pending';

/** Fails unless the fault is one. Returns the index of the accused batch with the batch. */
export function accusedOf(host: Host, id: DatanetId, dedupThreshold: number, fault: RecordFault): [number, Batch] {
  const record = fault.type === 'Malformed' ? fault.value : fault.value.record;
  const accused = store.Batches.get(host, [id, record.batch]) ?? fail(errors.UnknownBatch);
  ensure(isAvailable(accused), errors.AlreadyDecided);
  ensure(proves(host, accused, record), errors.BadProof);
  if (fault.type === 'Malformed') ensure(isMalformed(record.line), errors.NotProven);
  else {
    const { earlier } = fault.value;
    const other = store.Batches.get(host, [id, earlier.batch]) ?? fail(errors.UnknownBatch);
    // Nobody can have copied from records that nobody has seen.
    ensure(isAvailable(other), errors.NotEarlier);
    const inOrder =
      earlier.batch < record.batch || (earlier.batch === record.batch && earlier.proof.first < record.proof.first);
    ensure(inOrder, errors.NotEarlier);
    ensure(proves(host, other, earlier), errors.BadProof);
    ensure(overlaps(record.line, earlier.line, dedupThreshold), errors.NotProven);
  }
  return [record.batch, accused];
}
