/**
 * The watcher looks at everything that is to be paid: it makes all integers of every batch of receipts and of every
 * training again, shows on the chain what is wrong, and is paid for that (`node/watcher/`). What the chain cannot decide by
 * itself it has audited. It runs in every validator, and by `openledger watch` anywhere, over a node's JSON-RPC.
 *
 * Evidence is committed to before it is said, so that nobody is paid for a copy of it. An account without OPEN can still
 * tell, in its log, what it has found.
 */
import { randomBytes } from 'node:crypto';
import { LedgerError } from '../../rpc/client/errors.ts';
import type { Ledger } from '../../rpc/client/ledger.ts';
import type { Signer } from '../../rpc/client/signer.ts';
import type { Hashing, Signatures } from '../../runtime/host.ts';
import * as attribution from '../../runtime/pallets/ledger/attribution.ts';
import type * as audits from '../../runtime/pallets/ledger/audits.ts';
import * as commitments from '../../runtime/pallets/ledger/commitments.ts';
import * as datanets from '../../runtime/pallets/ledger/datanets.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import {
  type AttributionData,
  CommitmentError,
  openCommitment,
} from '../../runtime/primitives/attribution/commitment.ts';
import { FeatureError } from '../../runtime/primitives/attribution/features.ts';
import { contentHash, findingHash } from '../../runtime/primitives/attribution/findings.ts';
import type { AdapterId, DatanetId, ReceiptBatchId } from '../../runtime/primitives/attribution/ids.ts';
import type { TrainingReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { recordHash, type SnapshotRange, splitLines } from '../../runtime/primitives/attribution/records.ts';
import type { Codec } from '../../runtime/primitives/scale/codec.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import type { Service } from '../ports/chain.ts';
import type { Log } from '../ports/machine.ts';
import { findInBatch } from '../watcher/batch-evidence.ts';
import { findInTraining } from '../watcher/training-evidence.ts';

/** Milliseconds between two looks at the ledger. */
const LOOK_EVERY = 3_000;
/** Adapters whose rows are kept in memory. */
const KEPT_ADAPTERS = 4;
/** Attempts to have something decided before the watcher leaves it to others. */
const ATTEMPTS = 5;

export interface WatcherPorts {
  readonly ledger: Ledger;
  readonly signer: Signer;
  readonly hashing: Hashing;
  readonly signatures: Signatures;
  readonly log: Log;
  /** Milliseconds between two looks. */
  readonly everyMs?: number;
}

export interface Found {
  /** `batch 7`, `training 3`. */
  readonly what: string;
  readonly fault: string;
}

/** Resolves after a while, or at once when the signal comes. */
const pause = (ms: number, signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
    signal.addEventListener('abort', done);
    if (signal.aborted) done();
  });

/** Signature checks may be the methods of a cache: they are not copied along with it. */
const hostOf = (hashing: Hashing, signatures: Signatures): Hashing & Signatures => ({
  ...hashing,
  verifySr25519: (signature, message, key) => signatures.verifySr25519(signature, message, key),
  verifyEd25519: (signature, message, key) => signatures.verifyEd25519(signature, message, key),
  recoverEcdsa: (signature, digest) => signatures.recoverEcdsa(signature, digest),
});

const otherTurns = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

export class Watcher implements Service {
  readonly name = 'watcher';
  readonly #ports: WatcherPorts;
  /** What was looked at, or is being shown: by its name, how often that failed. */
  readonly #seen = new Map<string, number>();
  readonly #rows = new Map<string, Promise<AttributionData | undefined>>();
  readonly #found: Found[] = [];
  #looked = 0;

  constructor(ports: WatcherPorts) {
    this.#ports = ports;
  }

  /** How many batches and trainings it has looked at, and what was wrong with them. */
  get report(): { readonly looked: number; readonly found: readonly Found[] } {
    return { looked: this.#looked, found: [...this.#found] };
  }

  async run(signal: AbortSignal): Promise<void> {
    const { log, everyMs = LOOK_EVERY } = this.#ports;
    while (!signal.aborted) {
      try {
        await this.look(signal);
      } catch (problem) {
        if (!signal.aborted) log('debug', 'the watcher could not look at the ledger', { problem: String(problem) });
      }
      await pause(everyMs, signal);
    }
  }

  /** Looks at everything new that is in its window. */
  async look(signal: AbortSignal): Promise<void> {
    const { ledger } = this.#ports;
    const open = new Set<string>();
    for await (const [id, pending] of ledger.entries(attribution.store.Batches)) {
      open.add(`batch ${id}`);
      await this.#once(`batch ${id}`, signal, () => this.#lookAtBatch(id, pending, signal));
    }
    for await (const [id, pending] of ledger.entries(attribution.store.Trainings)) {
      open.add(`training ${id}`);
      await this.#once(`training ${id}`, signal, () => this.#lookAtTraining(id, pending.ranges, signal));
    }
    for (const name of this.#seen.keys()) if (!open.has(name)) this.#seen.delete(name);
  }

  /** What cannot be had yet is looked at again; what fails for another reason, a few times. */
  async #once(name: string, signal: AbortSignal, body: () => Promise<void>): Promise<void> {
    const failures = this.#seen.get(name) ?? 0;
    if (signal.aborted || failures >= ATTEMPTS) return;
    try {
      await body();
      this.#looked++;
      this.#seen.set(name, ATTEMPTS);
    } catch (problem) {
      if (problem instanceof LedgerError && problem.code.startsWith('BLOB_')) return;
      this.#seen.set(name, failures + 1);
      if (!signal.aborted)
        this.#ports.log('warn', `the watcher could not deal with ${name}`, { problem: String(problem) });
    }
  }

  // ---- batches -------------------------------------------------------------------------------------------------

  async #lookAtBatch(id: ReceiptBatchId, pending: attribution.PendingBatch, signal: AbortSignal): Promise<void> {
    const { ledger, hashing, signatures } = this.#ports;
    const { adapter, blob } = pending.batch;
    const [entry, receipt] = await ledger.readTogether([
      ledger.query(models.store.Adapters, adapter),
      ledger.query(models.store.Receipts, adapter),
    ]);
    if (entry === undefined || receipt === undefined) return;
    const file = await ledger.blobs.get(blob);
    const data = await this.#dataOf(adapter, receipt.payload);
    const material = { pending, file, training: receipt.payload, trainingHash: entry.training, data };
    const found = await findInBatch(hostOf(hashing, signatures), material, otherTurns);
    if (found.type === 'Sound') return;
    this.#tell(`batch ${id}`, found.fault);
    if (found.type === 'Audit') {
      await this.#requestAudit({ type: 'Batch', value: id });
      return;
    }
    const { challenge } = found;
    const evidence = { batch: id, challenge };
    await this.#show(attribution.batchFinding, evidence, signal, (salt) =>
      ledger.submit(this.#ports.signer, attribution.calls.challengeBatch, { ...evidence, salt }),
    );
  }

  /** The adapter's rows, sums and frequencies; undefined where they are not what was committed to. */
  #dataOf(adapter: AdapterId, { features }: TrainingReceipt): Promise<AttributionData | undefined> {
    const { ledger, hashing } = this.#ports;
    const name = String(adapter);
    const known = this.#rows.get(name);
    if (known !== undefined) return known;
    const opening = (async () => {
      const [rows, sums, frequencies] = await Promise.all(
        [features.featureFile, features.sumFile, features.frequencyFile].map((each) => ledger.blobs.get(each)),
      );
      try {
        return openCommitment(hashing, features, { features: rows!, sums: sums!, frequencies: frequencies! });
      } catch (problem) {
        if (problem instanceof CommitmentError || problem instanceof FeatureError) return undefined;
        throw problem;
      }
    })();
    this.#rows.set(name, opening);
    // Files may come later.
    opening.catch(() => this.#rows.delete(name));
    const [oldest] = this.#rows.keys();
    if (this.#rows.size > KEPT_ADAPTERS && oldest !== undefined) this.#rows.delete(oldest);
    return opening;
  }

  // ---- trainings -----------------------------------------------------------------------------------------------

  async #lookAtTraining(id: AdapterId, count: number, signal: AbortSignal): Promise<void> {
    const { ledger, hashing } = this.#ports;
    const receipt = (await ledger.read(models.store.Receipts, id))?.payload;
    if (receipt === undefined) return;
    const { datanet, version } = receipt.snapshot;
    const ranges = await ledger.read(datanets.store.Ranges, [datanet, version]);
    if (ranges === undefined) return;
    const { noveltyFloor } = await ledger.read(attribution.store.Parameters);
    const [features, sums] = await Promise.all(
      [receipt.features.featureFile, receipt.features.sumFile].map((each) => ledger.blobs.get(each)),
    );
    const found = await findInTraining(hashing, {
      context: { receipt, ranges: count, noveltyFloor },
      ranges,
      ...{ features: features!, sums: sums! },
      records: (range) => this.#recordsOf(datanet, range),
    });
    if (found.type === 'Sound') return;
    this.#tell(`training ${id}`, found.fault);
    // Every training is audited: who is drawn will see that the file is another.
    if (found.type === 'Audit') return;
    const evidence = { adapter: id, challenge: found.challenge };
    await this.#show(attribution.trainingFinding, evidence, signal, (salt) =>
      ledger.submit(this.#ports.signer, attribution.calls.challengeTraining, { ...evidence, salt }),
    );
  }

  async #recordsOf(datanet: DatanetId, range: SnapshotRange): Promise<readonly Hash[] | undefined> {
    const { ledger, hashing } = this.#ports;
    const batch = await ledger.read(datanets.store.Batches, [datanet, range.batch]);
    if (batch === undefined) return undefined;
    const lines = splitLines(await ledger.blobs.get(batch.blob));
    return lines.length === range.count ? lines.map((line) => recordHash(hashing, line)) : undefined;
  }

  // ---- acting --------------------------------------------------------------------------------------------------

  #tell(what: string, fault: string): void {
    if (this.#found.some((each) => each.what === what && each.fault === fault)) return;
    this.#found.push({ what, fault });
    this.#ports.log('warn', `the watcher has found a fault in ${what}: ${fault}`);
  }

  /** Commits to the evidence, waits until it is old enough, and says it. */
  async #show<T>(
    codec: Codec<T>,
    evidence: T,
    signal: AbortSignal,
    say: (salt: Uint8Array) => Promise<unknown>,
  ): Promise<void> {
    const { ledger, signer, hashing } = this.#ports;
    const salt = new Uint8Array(randomBytes(32));
    const finding = { finder: signer.account, salt, content: contentHash(hashing, codec, evidence) };
    await ledger.submit(signer, commitments.calls.commit, { commitment: findingHash(hashing, finding) });
    const from = (await ledger.bestNumber()) + commitments.MIN_AGE;
    while (!signal.aborted && (await ledger.bestNumber()) < from) await pause(200, signal);
    try {
      await say(salt);
    } catch (problem) {
      // Somebody else was faster.
      if (!(problem instanceof LedgerError && /\.(UnknownBatch|WindowClosed)$/.test(problem.code))) throw problem;
      await ledger.submit(signer, commitments.calls.withdraw, { commitment: findingHash(hashing, finding) });
    }
  }

  async #requestAudit(subject: audits.Subject): Promise<void> {
    const { ledger, signer } = this.#ports;
    try {
      await ledger.submit(signer, attribution.calls.requestAudit, { subject });
    } catch (problem) {
      if (!(problem instanceof LedgerError && /\.(InAudit|UnknownBatch|WindowClosed)$/.test(problem.code)))
        throw problem;
    }
  }
}
