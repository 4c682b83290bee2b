/** Orders and adapters that are over leave the state, and what they built on is free of them. */
import { addWeight, cost, PS_PER_MS } from '../../../framework/dispatch.ts';
import type { Env } from '../../../framework/pallet.ts';
import { workQueue } from '../../../framework/work-queue.ts';
import type { Host } from '../../../host.ts';
import type { AdapterId, BaseModelId, OrderId } from '../../../primitives/attribution/ids.ts';
import type { Infer } from '../../../primitives/scale/codec.ts';
import * as balances from '../../standard/balances.ts';
import * as system from '../../standard/system.ts';
import * as blobs from '../blobs.ts';
import * as datanets from '../datanets.ts';
import { ENTRY_DEPOSIT, events, store } from './store.ts';
import { departure, type Order } from './types.ts';

/** Blocks until an adapter is looked at again of which receipts are in their window when its time is over. */
const LOOK_AGAIN = 200;
/** An adapter's leaving with its order, which the call pays for that has it leave. */
export const DEPART = addWeight(cost(100_000_000n, 14, 16), blobs.claimWeight(8));

function useBaseModel(host: Host, id: BaseModelId, change: 1 | -1): void {
  store.BaseModels.mutate(host, id, (found) => found && { ...found, users: found.users + change });
}

/** The order needs its snapshot and its base model for as long as it or its adapter is there. */
export function useMaterial(host: Host, { snapshot, baseModel }: Order, change: 1 | -1): void {
  datanets.useSnapshot(host, snapshot.datanet, snapshot.version, change);
  useBaseModel(host, baseModel, change);
}

export function removeOrder(env: Env, id: OrderId): void {
  const { host } = env;
  const found = store.Orders.take(host, id);
  if (found === undefined) return;
  balances.release(env, ENTRY_DEPOSIT, found.owner, found.deposit);
  env.emit(events.OrderRemoved, { order: id });
}

/** Whether the adapter is gone: false while receipts of it are in their window. */
export function removeAdapter(env: Env, id: AdapterId): boolean {
  const { host } = env;
  const found = store.Adapters.get(host, id);
  if (found === undefined || found.status.type === 'Live' || found.status.type === 'Pending') return true;
  if (found.users > 0) return false;
  store.Adapters.remove(host, id);
  store.Receipts.remove(host, id);
  if (found.status.type === 'Retired') {
    blobs.release(env, found.artifacts);
    const ordered = store.Orders.get(host, found.order);
    if (ordered !== undefined) useMaterial(host, ordered, -1);
    removeOrder(env, found.order);
  }
  env.emit(events.AdapterRemoved, { adapter: id });
  return true;
}

export const departures = workQueue({
  name: 'Departures',
  docs: 'Orders and adapters that leave the state.',
  item: departure,
  budget: 20n * PS_PER_MS,
  weight: () => DEPART,
  run(env, leaves) {
    if (leaves.type === 'Order') removeOrder(env, leaves.value);
    else if (!removeAdapter(env, leaves.value)) departLater(env.host, leaves, LOOK_AGAIN);
    return undefined;
  },
});

export function departLater(host: Host, leaves: Infer<typeof departure>, blocks: number): void {
  const now = system.blockNumber(host);
  departures.schedule(host, { now, due: now + blocks }, leaves);
}
