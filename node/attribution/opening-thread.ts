/** The thread that opens adapters' files and holds receipts against them: seconds of work for a large one, and no business of blocks. */
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { LRUCache } from 'lru-cache';
import { CommitmentError } from '../../runtime/primitives/attribution/commitment.ts';
import { explainReceipt } from '../../runtime/primitives/attribution/explain.ts';
import { FeatureError } from '../../runtime/primitives/attribution/features.ts';
import { type OpenedAdapter, openAdapter } from '../../runtime/primitives/attribution/opened.ts';
import { inferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { receiptRules } from '../../runtime/primitives/attribution/split.ts';
import { verifyInferenceReceipt } from '../../runtime/primitives/attribution/verify.ts';
import { decode } from '../../runtime/primitives/scale/codec.ts';
import { createHashing } from '../crypto/hashing.ts';
import type { Material, OpeningAnswer, OpeningJob } from './openings.ts';

const port = parentPort;
if (port === null) throw new Error('opening-thread.ts runs as a worker thread only');
const hashing = createHashing();
/** Adapters that stay open, by what they take of memory. */
const KEPT_BYTES = 96 * 2 ** 20;
const PIECE = 1 << 20;
const kept = new LRUCache<string, OpenedAdapter>({
  maxSize: KEPT_BYTES,
  sizeCalculation: ({ bytes }) => Math.max(1, bytes),
});

function* piecesOf(file: Uint8Array | string): Generator<Uint8Array> {
  if (typeof file !== 'string') {
    yield file;
    return;
  }
  const handle = openSync(file, 'r');
  try {
    for (;;) {
      const piece = new Uint8Array(PIECE);
      const count = readSync(handle, piece);
      if (count === 0) return;
      yield piece.subarray(0, count);
    }
  } finally {
    closeSync(handle);
  }
}

function opened({ key, commitment, features, frequencies }: Material): OpenedAdapter {
  const known = kept.get(key);
  if (known !== undefined) return known;
  const counts = typeof frequencies === 'string' ? new Uint8Array(readFileSync(frequencies)) : frequencies;
  const adapter = openAdapter(hashing, commitment, piecesOf(features), counts);
  kept.set(key, adapter);
  return adapter;
}

function answer({ id, material, receipt: bytes, task }: OpeningJob): OpeningAnswer {
  try {
    const adapter = opened(material);
    const receipt = decode(inferenceReceipt, bytes);
    if (task.type === 'explain') {
      return { id, type: 'explained', explanation: explainReceipt(hashing, adapter, receipt, task.top) };
    }
    const faults = task.rules.map(({ rules, markup }) =>
      verifyInferenceReceipt(receipt, adapter.model, receiptRules(rules, markup)),
    );
    return { id, type: 'verified', faults };
  } catch (problem) {
    const bad = problem instanceof CommitmentError || problem instanceof FeatureError;
    return { id, type: 'failed', code: bad ? 'BAD_DATA' : 'FAILED', message: (problem as Error).message };
  }
}

port.on('message', (job: OpeningJob) => port.postMessage(answer(job)));
