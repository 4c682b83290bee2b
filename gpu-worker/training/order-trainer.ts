/**
 * Takes training orders, one at a time, works them off under their leases and hands the results in. A lease is worked off
 * once: a result that is journaled is only handed in, however often the process dies or the node goes.
 */
import { CallFailed, failedWith, LedgerError } from '../../rpc/client/errors.ts';
import * as attribution from '../../runtime/pallets/ledger/attribution.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type { OrderId } from '../../runtime/primitives/attribution/ids.ts';
import { signedProgress, trainingProgress } from '../../runtime/primitives/attribution/messages.ts';
import { type SnapshotRef, trainingReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { sameAccount } from '../../runtime/primitives/types.ts';
import type { TrainingProgress } from '../engines/engine.ts';
import type { Standing, WorkerOptions } from '../options.ts';
import type { BondKeeper } from '../session/bond.ts';
import type { WorkerJournal } from '../session/journal.ts';
import { type NodeLink, pause } from '../session/link.ts';
import { type ContributedRecord, orderTerms, snapshotRecords } from '../session/materials.ts';
import { isPassing } from '../session/transient.ts';
import type { Uploads } from '../session/uploads.ts';
import { trainOrder } from './train-order.ts';

const PROGRESS_MS = 400;
const RETRY_MS = 1_000;
const HEARTBEAT_MS = 1_000;
const RECORDS_MS = 30_000;
/** Refusals of a lease after which the order can be looked at again. */
const PASSING = [compute.errors.NotOpen, compute.errors.NotCovered, compute.errors.UnknownTask];
/** After so many failures an order is left to others. */
const MAX_FAILURES = 5;

export class OrderTrainer {
  readonly #link: NodeLink;
  readonly #journal: WorkerJournal;
  readonly #options: WorkerOptions;
  readonly #uploads: Uploads;
  readonly #bond: BondKeeper;
  /** How often work on an order failed. */
  readonly #failures = new Map<OrderId, number>();
  /** Orders whose records cannot be had yet, and when to look for them again: a lease without them costs. */
  readonly #lookAgain = new Map<OrderId, number>();
  /** Those of the order that is about to be taken. */
  #records: { readonly order: OrderId; readonly records: readonly ContributedRecord[] } | undefined;
  #running: Promise<void> | undefined;

  constructor(link: NodeLink, journal: WorkerJournal, options: WorkerOptions, uploads: Uploads, bond: BondKeeper) {
    this.#link = link;
    this.#journal = journal;
    this.#options = options;
    this.#uploads = uploads;
    this.#bond = bond;
  }

  /** Resolves when the work under way is over or has heeded its signal. */
  async idle(): Promise<void> {
    await this.#running?.catch(() => {});
  }

  /** Goes on with a lease of this worker's, or takes an open order. `signal`: ends the work too. */
  async look({ baseModel }: Standing, signal: AbortSignal): Promise<void> {
    if (this.#running !== undefined) return;
    const orders: (compute.Task & { readonly order: OrderId })[] = [];
    for await (const [order, task] of this.#link.ledger.entries(compute.store.Tasks)) {
      if (task.baseModel === baseModel) orders.push({ order, ...task });
    }
    for (const { order, status } of orders) {
      if (status.type !== 'Leased' || !sameAccount(status.value.worker, this.#link.account)) continue;
      this.#start(order, status.value, signal);
      return;
    }
    await this.#journal.forgetLeases();
    const waiting = orders.filter(
      ({ order, status, returned }) =>
        status.type === 'Open' &&
        !returned.some((each) => sameAccount(each, this.#link.account)) &&
        (this.#failures.get(order) ?? 0) < MAX_FAILURES,
    );
    const free = waiting.length === 0 ? undefined : await this.#bond.free();
    if (free === undefined) return;
    const { leaseStake } = await this.#link.ledger.read(compute.store.Parameters);
    const open = waiting.filter(({ budget }) => leaseStake + budget <= free);
    if (open.length === 0) return;
    // Workers begin at different places, so that they do not all pay for the same lease.
    const first = this.#link.account[0]! % open.length;
    for (const { order } of [...open.slice(first), ...open.slice(0, first)]) {
      if (!(await this.#hasRecords(order))) continue;
      const lease = await this.#take(order);
      if (lease === undefined) continue;
      this.#start(order, lease, signal);
      return;
    }
  }

  /** Whether what the order is trained on can be had from this node. */
  async #hasRecords(order: OrderId): Promise<boolean> {
    if (Date.now() < (this.#lookAgain.get(order) ?? 0)) return false;
    if (this.#records?.order === order) return true;
    const { snapshot } = (await orderTerms(this.#link, order)).ordered;
    try {
      this.#records = { order, records: await snapshotRecords(this.#link, snapshot.datanet, snapshot.version) };
      this.#lookAgain.delete(order);
      return true;
    } catch (problem) {
      this.#lookAgain.set(order, Date.now() + RECORDS_MS);
      if (!isPassing(problem)) this.#failures.set(order, MAX_FAILURES);
      this.#options.log('warn', `order ${order} is not taken: ${(problem as Error).message}`);
      return false;
    }
  }

  /** Undefined where another worker was quicker. */
  async #take(order: OrderId): Promise<compute.Lease | undefined> {
    try {
      await this.#link.submit(compute.calls.takeLease, { order });
    } catch (problem) {
      if (!(problem instanceof CallFailed)) throw problem;
      // Asked again and again, a call that cannot succeed costs its fee again and again.
      if (!PASSING.some((each) => problem.is(each))) {
        this.#failures.set(order, MAX_FAILURES);
        this.#options.log('warn', `order ${order} cannot be taken: ${problem.message}`);
      }
      return undefined;
    }
    return this.#leaseOf(order);
  }

  async #leaseOf(order: OrderId): Promise<compute.Lease | undefined> {
    const task = await this.#link.ledger.read(compute.store.Tasks, order);
    if (task?.status.type !== 'Leased' || !sameAccount(task.status.value.worker, this.#link.account)) return undefined;
    return task.status.value;
  }

  #start(order: OrderId, lease: compute.Lease, signal: AbortSignal): void {
    const { log } = this.#options;
    this.#running = this.#work(order, lease, signal)
      .catch(async (problem: Error) => {
        if (signal.aborted) return;
        log('error', `order ${order}: ${problem.message}`);
        // Lost work is another worker's now.
        if (problem instanceof LeaseLost) return;
        const failures = isPassing(problem) ? (this.#failures.get(order) ?? 0) + 1 : MAX_FAILURES;
        this.#failures.set(order, failures);
        if (failures < MAX_FAILURES) return;
        await this.#link.submit(compute.calls.giveUpLease, { order }).catch(() => {});
      })
      .finally(() => {
        this.#running = undefined;
      });
  }

  async #work(order: OrderId, lease: compute.Lease, signal: AbortSignal): Promise<void> {
    const { log } = this.#options;
    const lost = new AbortController();
    const until = AbortSignal.any([signal, lost.signal]);
    let handedIn = false;
    const heart = this.#keepAlive(order, lease, lost, until);
    try {
      if ((await this.#journal.result(lease.id)) === undefined) await this.#train(order, lease, until);
      await this.#handIn(order, lease, until);
      handedIn = true;
      log('info', `order ${order}: handed in under lease ${lease.id}`);
    } catch (problem) {
      throw lost.signal.aborted ? lost.signal.reason : problem;
    } finally {
      this.#options.telemetry?.trained(handedIn);
      lost.abort();
      await heart;
    }
    await this.#uploads.look().catch(() => {});
  }

  /** Renews the lease in time; ends the work when it is gone. */
  async #keepAlive(order: OrderId, lease: compute.Lease, lost: AbortController, until: AbortSignal): Promise<void> {
    let { expires } = lease;
    for (; !until.aborted; await pause(HEARTBEAT_MS, until)) {
      try {
        const { ledger } = this.#link;
        const best = await ledger.bestNumber();
        const { leaseBlocks } = await ledger.read(compute.store.Parameters);
        if (expires - best > leaseBlocks / 2) continue;
        await this.#link.submit(compute.calls.renewLease, { order }).catch((problem: unknown) => {
          // As long as a lease may last: what is left of it must do.
          if (!failedWith(problem, compute.errors.LeaseTooLong)) throw problem;
        });
        const renewed = await this.#leaseOf(order);
        if (renewed?.id !== lease.id) lost.abort(new LeaseLost('the lease is gone'));
        else ({ expires } = renewed);
      } catch (problem) {
        if (failedWith(problem, compute.errors.NotLeased) && !until.aborted) {
          lost.abort(new LeaseLost('the lease ran out'));
        }
      }
    }
  }

  async #train(order: OrderId, lease: compute.Lease, signal: AbortSignal): Promise<void> {
    const { model, hashing, log, checkpointSteps, telemetry } = this.#options;
    const { ordered, base, net } = await orderTerms(this.#link, order);
    const resume = await this.#journal.checkpoint(lease.id);
    const from = resume === undefined ? 'from the start' : `from step ${resume.losses.length}`;
    log('info', `order ${order} (${ordered.name}): training under lease ${lease.id}, ${from}`);
    const chain = this.#link.ledger.genesisHash;
    let reported = 0;
    let progress: TrainingProgress | undefined;
    const report = (phase: string, done: number): void => {
      telemetry?.training(order, phase, progress);
      if (Date.now() - reported < PROGRESS_MS && done < 1) return;
      reported = Date.now();
      const payload = {
        chain,
        order,
        lease: lease.id,
        at: BigInt(reported),
        phase,
        done: Math.round(done * 1_000),
        step: progress?.step,
        total: progress?.total,
        loss: progress && Math.round(progress.loss * 1_000),
        tokensPerSecond: progress && Math.round(progress.tokensPerSecond),
      };
      const signature = this.#link.sign(hashOf(hashing, trainingProgress, payload));
      this.#link.tell('worker_progress', toHex(encode(signedProgress, { payload, signature })));
    };
    const trained = await trainOrder(
      hashing,
      model,
      {
        chain,
        order,
        lease: lease.id,
        nonce: lease.nonce,
        worker: this.#link.account,
        snapshot: ordered.snapshot,
        baseModel: ordered.baseModel,
        baseModelHash: base.hash,
        baseName: base.manifest.name,
        config: ordered.config,
        trainingSeed: ordered.trainingSeed,
        sketchSeed: ordered.sketchSeed,
        rotationSeed: ordered.rotationSeed,
        dedupThreshold: net.dedupThreshold,
        records: await this.#recordsOf(order, ordered.snapshot),
      },
      {
        signal,
        exact: this.#options.exact,
        phase: report,
        ...(resume !== undefined && { resume }),
        checkpoints: {
          every: checkpointSteps,
          keep: (checkpoint) => this.#journal.keepCheckpoint(lease.id, checkpoint),
        },
        progress(each) {
          progress = each;
        },
      },
    );
    signal.throwIfAborted();
    const signature = this.#link.sign(hashOf(hashing, trainingReceipt, trained.receipt));
    await this.#journal.keepResult({ payload: trained.receipt, signature }, trained.sizes, trained.files);
    log('info', `order ${order}: trained, loss ${(trained.receipt.loss.last / 65_536).toFixed(3)}`);
  }

  async #recordsOf(order: OrderId, { datanet, version }: SnapshotRef): Promise<readonly ContributedRecord[]> {
    const here = this.#records?.order === order ? this.#records.records : undefined;
    this.#records = undefined;
    return here ?? snapshotRecords(this.#link, datanet, version);
  }

  /** Submits the journaled result. When the answer to a submission is lost with the connection, the chain knows it. */
  async #handIn(order: OrderId, lease: compute.Lease, signal: AbortSignal): Promise<void> {
    const { receipt, sizes } = (await this.#journal.result(lease.id))!;
    for (let tried = false; ; tried = true) {
      await this.#link.ready(signal);
      try {
        if ((await this.#leaseOf(order))?.id !== lease.id) {
          if (tried) return;
          throw new LeaseLost('the lease is gone');
        }
        await this.#link.submit(attribution.calls.submitTraining, { receipt, sizes });
        return;
      } catch (problem) {
        if (problem instanceof CallFailed || !(problem instanceof LedgerError)) throw problem;
      }
      await pause(RETRY_MS, signal);
      signal.throwIfAborted();
    }
  }
}

class LeaseLost extends Error {}
