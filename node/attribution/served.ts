/**
 * Who serves what by the chain's word. It is asked of many pairs of adapter and worker again and again, by adverts and by whoever looks for
 * models; what was found is believed for a few blocks, since whoever answers a question looks at the chain itself.
 */
import { LRUCache } from 'lru-cache';
import type { Host } from '../../runtime/host.ts';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import * as inference from '../../runtime/pallets/ledger/inference.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import type { AdapterId } from '../../runtime/primitives/attribution/ids.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import type { AccountId } from '../../runtime/primitives/types.ts';
import type { ServedModel } from '../ports/inference.ts';

const MAX_PAIRS = 16_384;
const MAX_WORKERS = 4_096;
const FOUND_MS = 15_000;
/** A lease may begin with the next block. */
const NOT_FOUND_MS = 1_500;

export class ServedByChain {
  readonly #state: () => Host;
  readonly #names = new LRUCache<string, { readonly name: string | undefined }>({ max: MAX_PAIRS });
  readonly #obligations = new LRUCache<string, { readonly count: number }>({ max: MAX_WORKERS });

  /** `state`: of the best block. */
  constructor(state: () => Host) {
    this.#state = state;
  }

  /** Undefined when the worker does not serve that adapter, or has not its full bond. */
  model(adapter: number, worker: AccountId, waiting: number): ServedModel | undefined {
    const id = adapter as AdapterId;
    const key = `${adapter}/${toHex(worker)}`;
    let known = this.#names.get(key);
    if (known === undefined) {
      const host = this.#state();
      const serves = inference.servingOf(host, id, worker) !== undefined && compute.isActive(host, worker);
      const name = serves ? models.adapterOf(host, id).name : undefined;
      known = { name };
      this.#names.set(key, known, { ttl: name === undefined ? NOT_FOUND_MS : FOUND_MS });
    }
    return known.name === undefined ? undefined : { adapter: id, name: known.name, worker, waiting };
  }

  /**
   * Leases and unsettled work that the worker's bond stands for: it serves no more adapters than these. Undefined for an account
   * that is no registered worker with a whole bond.
   */
  obligationsOf(worker: AccountId): number | undefined {
    const key = toHex(worker);
    let known = this.#obligations.get(key);
    if (known === undefined) {
      const host = this.#state();
      const found = compute.workerOf(host, worker);
      const whole = found !== undefined && compute.isActive(host, worker);
      known = { count: whole ? found.obligations : -1 };
      this.#obligations.set(key, known, { ttl: whole ? FOUND_MS / 5 : NOT_FOUND_MS });
    }
    return known.count < 0 ? undefined : known.count;
  }
}
