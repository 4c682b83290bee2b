/** Which adapters are served now, and which one a name means. */
import { store } from '../../runtime/pallets/ledger/models.ts';
import type { AdapterId } from '../../runtime/primitives/attribution/ids.ts';
import { fromHex } from '../../runtime/primitives/bytes.ts';
import { type AccountId, asAccountId } from '../../runtime/primitives/types.ts';
import { addressOf } from './address.ts';
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
const BY_OWNER = /^([1-9A-HJ-NP-Za-km-z]{46,50})\/(.+)$/;

/**
 * The adapter that is meant: `adapter:7` by its number; a name, if it is that of one served adapter only; or
 * `ADDRESS/name`, the one of that owner. Rejects with a {@link PaidFailure}: `NOT_SERVED`, or `AMBIGUOUS` for a name that
 * stands for several, since anybody can call an adapter as another one is called.
 */
export async function chooseAdapter(
  ledger: Ledger,
  served: readonly ServedAdapter[],
  model: string,
): Promise<AdapterId> {
  const id = BY_ID.exec(model)?.[1];
  const owned = BY_OWNER.exec(model);
  const named = (name: string): AdapterId[] => [
    ...new Set(served.filter((each) => each.name === name).map(({ adapter }) => adapter)),
  ];
  let found: AdapterId[];
  if (id !== undefined)
    found = served
      .filter(({ adapter }) => adapter === Number(id))
      .map(({ adapter }) => adapter)
      .slice(0, 1);
  else if (owned !== null) {
    const [, owner, name] = owned;
    const candidates = named(name ?? '');
    const stored = await ledger.readMany(store.Adapters, candidates);
    found = candidates.filter((_, at) => {
      const adapter = stored[at];
      return adapter !== undefined && addressOf(adapter.owner) === owner;
    });
  } else found = named(model);
  const [first] = found;
  if (first === undefined) throw new PaidFailure('NOT_SERVED', `the model ${model} is not served here`);
  if (found.length > 1) {
    const ids = found.map((each) => `adapter:${each}`).join(', ');
    throw new PaidFailure('AMBIGUOUS', `${model} is the name of several adapters: say which one (${ids})`);
  }
  return first;
}
