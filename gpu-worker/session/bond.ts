/**
 * The worker's bond on the ledger: it stands for everything that the worker has open, and without all of it the worker is
 * given nothing to do. What was slashed is made up for, as far as the account has it.
 */
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import type { WorkerOptions } from '../options.ts';
import type { NodeLink } from './link.ts';

const LOOK_MS = 15_000;
/** A transaction that fails costs its fee: it is not tried again at once. */
const RETRY_MS = 300_000;

export class BondKeeper {
  readonly #link: NodeLink;
  readonly #options: WorkerOptions;
  #lookAt = 0;

  constructor(link: NodeLink, options: WorkerOptions) {
    this.#link = link;
    this.#options = options;
  }

  /** From time to time: tops the bond up where it is too small. Rejects where that failed. */
  async look(): Promise<void> {
    if (Date.now() < this.#lookAt) return;
    this.#lookAt = Date.now() + LOOK_MS;
    const { found, parameters } = await this.#read();
    if (found === undefined || found.leaving !== undefined || compute.hasFullBond(found, parameters)) return;
    const { bond: wanted, log } = this.#options;
    const needed = [wanted, parameters.minBond, found.atStake].reduce((most, each) => (each > most ? each : most));
    this.#lookAt = Date.now() + RETRY_MS;
    await this.#link.submit(compute.calls.bondMore, { amount: needed - found.bond });
    this.#lookAt = 0;
    log('warn', `the bond was ${found.bond / 10n ** 18n} OPEN, less than is needed: made up for it`);
  }

  /** What of the bond can be put at stake; undefined for a worker that is given nothing to do. */
  async free(): Promise<bigint | undefined> {
    const { found, parameters } = await this.#read();
    if (found === undefined || found.leaving !== undefined || !compute.hasFullBond(found, parameters)) return undefined;
    return found.bond - found.atStake;
  }

  async #read() {
    const { ledger, account } = this.#link;
    const [found, parameters] = await ledger.readTogether([
      ledger.query(compute.store.Workers, account),
      ledger.query(compute.store.Parameters),
    ]);
    return { found, parameters };
  }
}
