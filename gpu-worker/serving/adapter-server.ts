/** Serves adapters: opens what is live and gives it up again; requests for it are answered by {@link PaidRequests}. */

import { LedgerError } from '../../rpc/client/errors.ts';
import type { JsonRpcClient } from '../../rpc/client/json-rpc.ts';
import { store as attribution } from '../../runtime/pallets/ledger/attribution.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import type { AdapterId, SessionId } from '../../runtime/primitives/attribution/ids.ts';
import type { SignedInferenceReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { DEFAULT_RULES, receiptRules } from '../../runtime/primitives/attribution/split.ts';
import type { Standing, WorkerOptions } from '../options.ts';
import type { WorkerJournal } from '../session/journal.ts';
import type { NodeLink } from '../session/link.ts';
import { adapterMaterial } from '../session/materials.ts';
import { isPassing } from '../session/transient.ts';
import { PaidRequests, type Served } from './paid-requests.ts';
import { ServedAdapter } from './served-adapter.ts';

interface Serving {
  readonly adapter: ServedAdapter;
  readonly lease: inference.Serving['lease'];
  readonly markup: number;
}

export class AdapterServer {
  readonly #link: NodeLink;
  readonly #journal: WorkerJournal;
  readonly #options: WorkerOptions;
  readonly #requests: PaidRequests;
  /** A receipt was put into the journal by somebody else. */
  readonly settleSoon: () => void;
  #rules = DEFAULT_RULES;
  readonly #served = new Map<number, Serving>();
  readonly #refused = new Set<number>();
  /** No longer live, with receipts to settle. */
  readonly #ending = new Set<AdapterId>();

  /** `kept` is told of every receipt that waits for settlement. */
  constructor(link: NodeLink, journal: WorkerJournal, options: WorkerOptions, kept: () => void) {
    this.#link = link;
    this.#journal = journal;
    this.#options = options;
    this.settleSoon = kept;
    this.#requests = new PaidRequests(link, journal, options, (adapter) => this.served(adapter), kept);
  }

  get adapters(): number[] {
    return [...this.#served.keys()];
  }

  /** An adapter that is served, with what its receipts are made by. */
  served(id: number): Served | undefined {
    const found = this.#served.get(id);
    return found && { ...found, rules: receiptRules(this.#rules, found.markup) };
  }

  /** What sessions owe by receipts that wait in the journal: once, before the first job. */
  recover(): Promise<void> {
    return this.#requests.recover();
  }

  /** A message of the node's. `line`: the connection that it came over, and that the answer goes back over. */
  hear(line: JsonRpcClient, message: { readonly type: string; readonly job: string; readonly request?: string }): void {
    this.#requests.hear(line, message);
  }

  /** Of waiting receipts, those that can be settled together now: see {@link PaidRequests.close}. */
  closeReceipts(session: SessionId, adapter: AdapterId, receipts: readonly SignedInferenceReceipt[]) {
    return this.#requests.close(session, adapter, receipts);
  }

  // ---- adapters ----------------------------------------------------------------------------------------------

  /** Takes up what is live, gives up what no longer is. */
  async look({ baseModel }: Standing): Promise<void> {
    const { ledger } = this.#link;
    this.#rules = await ledger.read(attribution.Rules);
    const before = this.#served.size;
    for await (const [id, value] of ledger.entries(models.store.Adapters)) {
      if (value.baseModel !== baseModel) continue;
      if (value.status.type !== 'Live') await this.#giveUp(id);
      else if (!this.#served.has(id) && !this.#refused.has(id) && this.#served.size < this.#options.maxAdapters)
        await this.#takeUp(id, value);
    }
    this.#options.telemetry?.serving(this.adapters);
    if (before !== this.#served.size) this.#link.tell('worker_serving', this.adapters);
    await this.#end();
    await this.#requests.tidy();
  }

  async #takeUp(id: AdapterId, { name, markup }: models.Adapter): Promise<void> {
    const { hashing, model, log } = this.#options;
    let adapter: ServedAdapter | undefined;
    try {
      adapter = await ServedAdapter.open(hashing, model, await adapterMaterial(this.#link, id));
      if ((await this.#lease(id)) === undefined) await this.#link.submit(inference.calls.serve, { adapter: id });
      const leased = await this.#lease(id);
      if (leased === undefined) throw new LedgerError('NOT_SERVING', 'the chain gave no lease');
      this.#served.set(id, { adapter, lease: leased.lease, markup });
      this.#link.tell('worker_serving', this.adapters);
      log('info', `serving adapter ${id} (${name})`);
    } catch (problem) {
      await adapter?.close().catch(() => {});
      const code = problem instanceof Error && 'code' in problem ? String(problem.code) : '';
      if (code === 'BLOB_NOT_FOUND') return;
      if (isPassing(problem) || code === '') throw problem;
      this.#refused.add(id);
      log('warn', `adapter ${id} cannot be served: ${(problem as Error).message}`);
    }
  }

  async #giveUp(id: AdapterId): Promise<void> {
    const served = this.#served.get(id);
    if (served === undefined) return;
    this.#served.delete(id);
    this.#ending.add(id);
    this.#link.tell('worker_serving', this.adapters);
    await served.adapter.close();
    this.#options.log('info', `adapter ${id} is no longer live`);
  }

  /** The lease goes when nothing is left to settle under it. */
  async #end(): Promise<void> {
    if (this.#ending.size === 0) return;
    const waiting = new Set((await this.#journal.unsettled()).map(({ adapter }) => adapter));
    for (const id of this.#ending) {
      if (this.#requests.isBusy(id) || waiting.has(id)) continue;
      if ((await this.#lease(id)) !== undefined) await this.#link.submit(inference.calls.stopServing, { adapter: id });
      this.#ending.delete(id);
    }
  }

  #lease(id: AdapterId): Promise<inference.Serving | undefined> {
    return this.#link.ledger.read(inference.store.Serving, [id, this.#link.account]);
  }

  /** The worker ends: what is under way is refused. */
  drop(): Promise<void> {
    return this.#requests.drop();
  }

  async close(): Promise<void> {
    for (const { adapter } of this.#served.values()) await adapter.close();
  }
}
