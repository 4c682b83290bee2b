/** Which adapters are served now, and which one a name means. */
import { store } from '../../runtime/pallets/ledger/models.ts';
import type { AdapterId } from '../../runtime/primitives/attribution/ids.ts';
import { isAdapterName, skeletonOf } from '../../runtime/primitives/attribution/names.ts';
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { type AccountId, asAccountId } from '../../runtime/primitives/types.ts';
import { PaidFailure } from './job-failure.ts';
import type { Ledger } from './ledger.ts';

/** One worker's offer of an adapter. */
export interface ServedAdapter {
  readonly adapter: AdapterId;
  readonly name: string;
  readonly worker: AccountId;
  /** Requests that wait for the worker at the node, whoever asked. */
  readonly waiting: number;
}

interface ModelJson {
  readonly adapter: number;
  readonly name: string;
  readonly worker: string;
  readonly waiting: number;
}

export async function servedAdapters(ledger: Ledger): Promise<ServedAdapter[]> {
  const list = await ledger.rpc.ask<readonly ModelJson[]>('inference_models');
  return list.map(({ adapter, name, worker, waiting }) => ({
    adapter: adapter as AdapterId,
    name,
    worker: asAccountId(fromHex(worker)),
    waiting,
  }));
}

const BY_ID = /^adapter:(\d{1,10})$/;

/**
 * The adapter that is meant, if somebody serves it: `adapter:7` by its number, or the one that bears the name on the chain,
 * where each name is one adapter's; what the node calls its adapters is not asked. Rejects with a {@link PaidFailure}
 * `NOT_SERVED`.
 */
export async function chooseAdapter(
  ledger: Ledger,
  served: readonly ServedAdapter[],
  model: string,
): Promise<AdapterId> {
  const number = BY_ID.exec(model)?.[1];
  const wanted = number === undefined ? await named(ledger, model) : Number(number);
  const found = served.find(({ adapter }) => adapter === wanted);
  if (found === undefined) throw new PaidFailure('NOT_SERVED', `the model ${model} is not served here`);
  return found.adapter;
}

async function named(ledger: Ledger, name: string): Promise<AdapterId | undefined> {
  if (!isAdapterName(name)) return undefined;
  const found = await ledger.read(store.Names, skeletonOf(name));
  return found?.name === name && found.target.type === 'Adapter' ? found.target.value : undefined;
}
