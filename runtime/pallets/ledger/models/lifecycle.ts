/** From an order to an adapter: seeds, files, acceptance, strikes, prices. */
import { cost, ensure, fail, PS_PER_MS } from '../../../framework/dispatch.ts';
import type { Env } from '../../../framework/pallet.ts';
import { workQueue } from '../../../framework/work-queue.ts';
import type { Host } from '../../../host.ts';
import { hashOf } from '../../../primitives/attribution/canonical.ts';
import {
  type AdapterId,
  adapterId,
  type BaseModelId,
  type BlobRef,
  type ClaimId,
  type OrderId,
  orderId,
} from '../../../primitives/attribution/ids.ts';
import type {
  Price,
  ServiceTerms,
  SignedTrainingReceipt,
  TrainingReceipt,
} from '../../../primitives/attribution/receipts.ts';
import type { ArtifactSizes } from '../../../primitives/attribution/training.ts';
import type { Hash } from '../../../primitives/types.ts';
import * as balances from '../../standard/balances.ts';
import * as system from '../../standard/system.ts';
import * as beacon from '../beacon.ts';
import * as blobs from '../blobs.ts';
import * as compute from '../compute.ts';
import { departLater } from './departures.ts';
import { point } from './naming.ts';
import { BUDGET, errors, events, parameters, STORAGE, store } from './store.ts';
import { type Adapter, type BaseModel, type Order, seedDraw } from './types.ts';

// ---- reading -------------------------------------------------------------------------------------------------

export const baseModelOf = (host: Host, id: BaseModelId): BaseModel =>
  store.BaseModels.get(host, id) ?? fail(errors.UnknownBaseModel);
export const orderOf = (host: Host, id: OrderId): Order => store.Orders.get(host, id) ?? fail(errors.UnknownOrder);
export const adapterOf = (host: Host, id: AdapterId): Adapter =>
  store.Adapters.get(host, id) ?? fail(errors.UnknownAdapter);
export const receiptOf = (host: Host, id: AdapterId): SignedTrainingReceipt =>
  store.Receipts.get(host, id) ?? fail(errors.UnknownAdapter);
export function ensureLive(host: Host, id: AdapterId): Adapter {
  const found = adapterOf(host, id);
  ensure(found.status.type === 'Live', errors.NotLive);
  return found;
}
export function ensureActive(found: Order): void {
  ensure(found.status.type === 'Active', errors.NotActive);
}
export const isLive = (host: Host, id: AdapterId): boolean => store.Adapters.get(host, id)?.status.type === 'Live';
/** Whether the adapter's training can still be disputed. False for what is history. */
export const isPending = (host: Host, id: AdapterId): boolean =>
  store.Adapters.get(host, id)?.status.type === 'Pending';

/** The prices at which answers of the adapter are settled now: the one in force, and the one before for a while. */
export function pricesOf(host: Host, id: AdapterId): readonly Price[] {
  const { price, formerPrice } = adapterOf(host, id);
  return formerPrice === undefined || system.blockNumber(host) >= formerPrice.until
    ? [price]
    : [price, formerPrice.price];
}

/** What vouchers for the adapter may say that an answer costs. */
export const termsOf = (host: Host, id: AdapterId): ServiceTerms => ({
  prices: [...pricesOf(host, id)],
  markup: adapterOf(host, id).markup,
});

/** One batch of receipts more (`1`) or less (`-1`) is in its window: an adapter stays in the state for them. */
export function useAdapter(host: Host, id: AdapterId, change: 1 | -1): void {
  store.Adapters.mutate(host, id, (found) => found && { ...found, users: found.users + change });
}

// ---- orders --------------------------------------------------------------------------------------------------

/** Draws an order's seeds from secrets that were promised before it was paid for. Workers can take it from then on. */
export function drawSeeds(env: Env, id: OrderId): void {
  const { host } = env;
  const found = store.Orders.get(host, id);
  if (found?.status.type !== 'Drawing') return;
  const subject = hashOf(host, seedDraw, { order: id, owner: found.owner, at: found.at });
  const draw = (purpose: number): bigint => beacon.draw(host, subject, purpose).getBigUint64(0, true);
  const seeds = { sketchSeed: draw(0), rotationSeed: draw(1) };
  store.Orders.insert(host, id, { ...found, ...seeds, status: { type: 'Active' } });
  compute.openTask(env, id, found.baseModel, found.budget);
  env.emit(events.SeedsDrawn, { order: id, ...seeds });
}

// ---- adapters ------------------------------------------------------------------------------------------------

/** What a training publishes, in the order of the receipt, with the sizes that its worker declares. */
const artifactsOf = ({ adapter, adapterConfig, basis, features }: TrainingReceipt, sizes: ArtifactSizes): BlobRef[] => [
  { hash: adapter, bytes: sizes.adapter },
  { hash: adapterConfig, bytes: sizes.adapterConfig },
  { hash: basis.checkpoint, bytes: sizes.checkpoint },
  { hash: basis.eigenbases, bytes: sizes.eigenbases },
  { hash: basis.projection, bytes: sizes.projection },
  { hash: features.featureFile, bytes: sizes.featureFile },
  { hash: features.sumFile, bytes: sizes.sumFile },
  { hash: features.frequencyFile, bytes: sizes.frequencyFile },
];

/** Enters the adapter of a submitted receipt, pending. Its files are kept at its owner's expense: fails if the order allows for less. */
export function addAdapter(env: Env, receipt: SignedTrainingReceipt, training: Hash, sizes: ArtifactSizes): AdapterId {
  const { host } = env;
  const { payload } = receipt;
  const { order: id, worker } = payload;
  const ordered = orderOf(host, id);
  const { owner: depositor, name, baseModel, markup, price } = ordered;
  const made = store.NextAdapter.get(host);
  store.NextAdapter.put(host, (made + 1) as AdapterId);
  let { storage } = ordered;
  const keep = (type: 'Training' | 'Segments', files: readonly BlobRef[]): ClaimId => {
    const deposit = blobs.depositFor(files);
    ensure(deposit <= storage, errors.TooLarge);
    storage -= deposit;
    return blobs.commit(env, { depositor, purpose: { type, value: made }, files, from: STORAGE });
  };
  const states = payload.segments.map((hash, at) => ({ hash, bytes: sizes.segments[at] ?? 0n }));
  store.Adapters.insert(host, made, {
    ...{ owner: depositor, offeredTo: undefined, name, order: id, baseModel, worker, training, markup, price },
    ...{ nextPrice: undefined, formerPrice: undefined, status: { type: 'Pending' } },
    ...{ at: system.blockNumber(host), users: 0 },
    artifacts: keep('Training', artifactsOf(payload, sizes)),
    segments: states.length === 0 ? undefined : keep('Segments', states),
  });
  store.Orders.insert(host, id, { ...ordered, storage });
  store.Receipts.insert(host, made, receipt);
  env.emit(events.AdapterSubmitted, { adapter: made, order: id, worker, training });
  return made;
}

/** The audit window closed: the worker gets the budget, and the owner back what the files did not need. */
export function acceptAdapter(env: Env, id: AdapterId): void {
  const { host } = env;
  const found = adapterOf(host, id);
  // Nobody can ask any more how the adapter came about.
  if (found.segments !== undefined) blobs.release(env, found.segments);
  const filled = orderOf(host, found.order);
  balances.transferHeld(env, BUDGET, filled.owner, found.worker, filled.budget);
  balances.release(env, STORAGE, filled.owner, filled.storage);
  store.Orders.insert(host, found.order, { ...filled, storage: 0n, status: { type: 'Done', value: id } });
  store.Adapters.insert(host, id, { ...found, segments: undefined, status: { type: 'Live' } });
  point(host, found.name, { type: 'Adapter', value: id });
  compute.finishTask(host, found.order);
  env.emit(events.AdapterLive, { adapter: id });
}

/** The receipt was wrong: the order waits for another worker, with what its files had on hold. */
export function strikeAdapter(env: Env, id: AdapterId): void {
  const { host } = env;
  const found = adapterOf(host, id);
  const ordered = orderOf(host, found.order);
  let { storage } = ordered;
  for (const claim of [found.artifacts, found.segments]) {
    if (claim === undefined) continue;
    storage += blobs.claimOf(host, claim)?.deposit ?? 0n;
    blobs.release(env, claim, STORAGE);
  }
  store.Orders.insert(host, found.order, { ...ordered, storage });
  store.Adapters.insert(host, id, { ...found, segments: undefined, status: { type: 'Struck' } });
  compute.reopenTask(env, found.order);
  // It is in nobody's way: it stays for a while, for those who ask what became of it.
  departLater(host, { type: 'Adapter', value: id }, parameters.get(host).closedPeriod);
  env.emit(events.AdapterStruck, { adapter: id });
}

/** An announced price comes into force. */
export function changePrice(env: Env, id: AdapterId): void {
  const { host } = env;
  const found = store.Adapters.get(host, id);
  const now = system.blockNumber(host);
  if (found?.nextPrice === undefined || found.nextPrice.from > now) return;
  const { price } = found.nextPrice;
  store.Adapters.insert(host, id, {
    ...found,
    price,
    nextPrice: undefined,
    formerPrice: { price: found.price, until: now + parameters.get(host).priceGrace },
  });
  env.emit(events.PriceChanged, { adapter: id, price });
}

// ---- what happens later --------------------------------------------------------------------------------------

export const seeds = workQueue({
  name: 'Seeds',
  docs: 'Orders whose seeds are drawn.',
  item: orderId,
  budget: 20n * PS_PER_MS,
  weight: () => cost(60_000_000n, 4, 3),
  run(env, id) {
    drawSeeds(env, id);
    return undefined;
  },
});

export const announcedPrices = workQueue({
  name: 'Prices',
  docs: 'Adapters whose announced price comes into force.',
  item: adapterId,
  budget: 10n * PS_PER_MS,
  weight: () => cost(20_000_000n, 2, 1),
  run(env, id) {
    changePrice(env, id);
    return undefined;
  },
});
