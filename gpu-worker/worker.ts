/**
 * The worker process: proves its key to a node, offers its services on the chain, trains under leases, serves adapters,
 * settles receipts, audits others. Everything it must not forget is in its journal, so that it may die at any point.
 */
import { join } from 'node:path';
import type { Ledger } from '../rpc/client/ledger.ts';
import { Auditor } from './auditing/auditor.ts';
import { FaultPlanter } from './auditing/fault-planter.ts';
import type { Standing, WorkerOptions } from './options.ts';
import { AdapterServer } from './serving/adapter-server.ts';
import { BondKeeper } from './session/bond.ts';
import { WorkerJournal } from './session/journal.ts';
import { NodeLink, pause } from './session/link.ts';
import { Attachment, findBaseModel, register } from './session/registration.ts';
import { Uploads } from './session/uploads.ts';
import { Settler, settleBy } from './settlement/settler.ts';
import { OrderTrainer } from './training/order-trainer.ts';

const TICK_MS = 1_000;

/** Runs until the signal; rejects when the worker cannot start, or its journal cannot be written to any more. */
export async function runWorker(options: WorkerOptions, signal: AbortSignal): Promise<void> {
  const journal = await WorkerJournal.open(join(options.directory, 'journal'));
  const link = new NodeLink(options);
  const worker = new Worker(options, journal, link);
  const until = AbortSignal.any([signal, journal.broken]);
  try {
    await link.run((ledger, over) => worker.session(ledger, over, until), until);
  } finally {
    await worker.close();
    await journal.close();
  }
  if (!signal.aborted) journal.broken.throwIfAborted();
}

class Worker {
  readonly #options: WorkerOptions;
  readonly #link: NodeLink;
  readonly #uploads: Uploads;
  readonly #bond: BondKeeper;
  readonly #settler: Settler;
  readonly #server: AdapterServer;
  readonly #trainer: OrderTrainer;
  readonly #auditor: Auditor;
  readonly #planter: FaultPlanter | undefined;
  #recovered = false;

  constructor(options: WorkerOptions, journal: WorkerJournal, link: NodeLink) {
    this.#options = options;
    this.#link = link;
    this.#uploads = new Uploads(link, journal);
    this.#settler = new Settler({ link, settle: settleBy(link), journal, options, uploads: this.#uploads });
    this.#server = new AdapterServer(link, journal, options, () => this.#settler.kept());
    this.#bond = new BondKeeper(link, options);
    this.#trainer = new OrderTrainer(link, journal, options, this.#uploads, this.#bond);
    this.#auditor = new Auditor(link, journal, options, this.#uploads);
    const { planting } = options;
    this.#planter = planting && new FaultPlanter(link, journal, options, this.#server, planting);
  }

  /** One connection, until it or the whole worker (`signal`) is over. */
  async session(ledger: Ledger, over: AbortSignal, signal: AbortSignal): Promise<void> {
    const { training, serving, log, node, key } = this.#options;
    const standing: Standing = { baseModel: await findBaseModel(this.#link, this.#options) };
    await register(this.#link, this.#options, standing.baseModel);
    if (!this.#recovered) {
      await this.#server.recover();
      await this.#settler.recover();
    }
    this.#recovered = true;
    // A bond that was slashed is made up for first: without it the node does not take the worker in.
    await this.#bond.look();
    const line = await Attachment.open(this.#link, this.#options, this.#server.adapters, (job) =>
      this.#server.hear(ledger.rpc, job as { type: string; job: string; request?: string }),
    );
    this.#options.telemetry?.attached(true);
    log('info', `attached to ${node} as ${key.address}`);
    const parts = [
      this.#repeat('attachment', over, () => line.look()),
      this.#repeat('uploads', over, () => this.#uploads.look()),
      this.#repeat('bond', over, () => this.#bond.look()),
      this.#repeat('audits', over, () => this.#auditor.look(signal)),
      this.#repeat('settlement', over, () => this.#settler.look(this.#server)),
    ];
    if (training) parts.push(this.#repeat('training', over, () => this.#trainer.look(standing, signal)));
    if (serving) parts.push(this.#repeat('serving', over, () => this.#server.look(standing)));
    const planter = this.#planter;
    if (planter !== undefined) parts.push(this.#repeat('planted faults', over, () => planter.look()));
    await Promise.all(parts);
    this.#options.telemetry?.attached(false);
    if (!signal.aborted) return;
    await this.#server.drop();
    // Whoever stops the worker is owed what it has earned.
    await this.#settler.settle(this.#server).catch(() => {});
  }

  /** A part's turns, one after the other, while the connection stands; one that fails is told of and tried again. */
  async #repeat(name: string, over: AbortSignal, look: () => Promise<void>): Promise<void> {
    let told = '';
    for (; !over.aborted; await pause(TICK_MS, over)) {
      try {
        await look();
        told = '';
      } catch (problem) {
        const { message } = problem as Error;
        if (!over.aborted && message !== told) this.#options.log('warn', `${name}: ${message}`);
        told = message;
      }
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.#server.drop(), this.#trainer.idle(), this.#auditor.idle()]);
    await this.#server.close();
  }
}
