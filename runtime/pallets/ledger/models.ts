/**
 * Models: base models by the hashes of their files, training orders with their budget on hold, and the adapters that come
 * of them, each with the receipt that says what it was made of.
 */
import { cost, ensure, ensureSigned, error, fail } from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import { map, storage, twox64Concat, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { canonical, hashOf, part } from '../../primitives/attribution/canonical.ts';
import {
  type AdapterId,
  adapterId,
  type BaseModelId,
  baseModelId,
  claimId,
  datanetId,
  type OrderId,
  orderId,
  snapshotVersion,
} from '../../primitives/attribution/ids.ts';
import { price, signedTrainingReceipt, snapshotRef } from '../../primitives/attribution/receipts.ts';
import { baseModelManifest, configFault, trainingConfig } from '../../primitives/attribution/training.ts';
import { type Infer, struct, text, u32, u64, variants } from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, balance, hash, PERBILL, perbill, sameAccount } from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import * as system from '../standard/system.ts';
import * as blobs from './blobs.ts';
import * as compute from './compute.ts';
import * as datanets from './datanets.ts';

/** The owner's markup on the base price, at most. */
const MAX_MARKUP = PERBILL;

const BUDGET: Reason = { pallet: 21, reason: 1 };

// ---- types ---------------------------------------------------------------------------------------------------

export const baseModel = part(
  'BaseModel',
  struct({ owner: accountId, manifest: baseModelManifest, hash, claim: claimId }),
);
export type BaseModel = Infer<typeof baseModel>;

const orderStatus = part('OrderStatus', variants({ Active: null, Done: adapterId, Cancelled: null }));
export const order = part(
  'Order',
  struct({
    owner: accountId,
    /** What the adapter will be called. */
    name: text(64),
    snapshot: snapshotRef,
    baseModel: baseModelId,
    config: trainingConfig,
    configHash: hash,
    /** Initial factors and order of examples: the owner's choice. */
    trainingSeed: u64,
    /** Drawn by the chain, after the snapshot was committed. */
    sketchSeed: u64,
    rotationSeed: u64,
    /** On hold for the worker. */
    budget: balance,
    /** On top of the base price, for the owner. */
    markup: perbill,
    price,
    status: orderStatus,
    at: u32,
  }),
);
export type Order = Infer<typeof order>;

const adapterStatus = part(
  'AdapterStatus',
  variants({
    /** In its audit window. */
    Pending: null,
    Live: null,
    /** Its receipt was wrong. */
    Struck: null,
    Retired: null,
  }),
);
export const adapter = part(
  'Adapter',
  struct({
    owner: accountId,
    name: text(64),
    order: orderId,
    baseModel: baseModelId,
    worker: accountId,
    training: hash,
    markup: perbill,
    price,
    status: adapterStatus,
    at: u32,
  }),
);
export type Adapter = Infer<typeof adapter>;

const bytesU64 = canonical('seed/1', 'SeedDraw', struct({ parent: hash, order: orderId, purpose: text(16) }));

// ---- storage, events, errors ---------------------------------------------------------------------------------

export const store = storage('Models', {
  NextBaseModel: value(baseModelId, 0 as BaseModelId, 'Id of the next base model.'),
  BaseModels: map(twox64Concat(baseModelId), baseModel, 'Base models in Hugging Face layout.'),
  NextOrder: value(orderId, 0 as OrderId, 'Id of the next order.'),
  Orders: map(twox64Concat(orderId), order, 'Training orders.'),
  NextAdapter: value(adapterId, 0 as AdapterId, 'Id of the next adapter.'),
  Adapters: map(twox64Concat(adapterId), adapter, 'Adapters.'),
  Receipts: map(twox64Concat(adapterId), signedTrainingReceipt, 'The signed training receipt of each adapter.'),
});

export const events = {
  BaseModelRegistered: event(0, { id: baseModelId, owner: accountId, hash }, 'A base model can be trained on.'),
  Ordered: event(
    1,
    { order: orderId, owner: accountId, datanet: datanetId, version: snapshotVersion, budget: balance },
    'A training was ordered.',
  ),
  OrderCancelled: event(2, { order: orderId }, 'The order was taken back; its budget is free.'),
  AdapterSubmitted: event(
    3,
    { adapter: adapterId, order: orderId, worker: accountId, training: hash },
    'A worker trained an adapter.',
  ),
  AdapterLive: event(
    4,
    { adapter: adapterId },
    'The audit window closed: the adapter can be served, the worker is paid.',
  ),
  AdapterStruck: event(5, { adapter: adapterId }, 'The adapter’s receipt was wrong; the order is open again.'),
  PriceChanged: event(6, { adapter: adapterId, price }, 'The adapter’s price for new requests.'),
  Retired: event(7, { adapter: adapterId }, 'The adapter takes no more requests.'),
  OwnerChanged: event(8, { adapter: adapterId, owner: accountId }, 'The adapter has another owner.'),
};

export const errors = {
  UnknownBaseModel: error(0, 'There is no such base model.'),
  UnknownOrder: error(1, 'There is no such order.'),
  UnknownAdapter: error(2, 'There is no such adapter.'),
  UnknownSnapshot: error(3, 'The Datanet has no such snapshot.'),
  OtherLicence: error(4, 'The order must name the Datanet’s licence: that is how it is accepted.'),
  BadConfig: error(5, 'No engine can train with this configuration.'),
  BadTerms: error(6, 'A name is needed, and a markup of at most 100 %.'),
  NotOwner: error(7, 'Only the owner may do this.'),
  NotActive: error(8, 'The order is done or cancelled.'),
  NotLive: error(9, 'The adapter is not live.'),
};

// ---- what other pallets build on -----------------------------------------------------------------------------

export const baseModelOf = (host: Host, id: BaseModelId): BaseModel =>
  store.BaseModels.get(host, id) ?? fail(errors.UnknownBaseModel);
export const orderOf = (host: Host, id: OrderId): Order => store.Orders.get(host, id) ?? fail(errors.UnknownOrder);
export const adapterOf = (host: Host, id: AdapterId): Adapter =>
  store.Adapters.get(host, id) ?? fail(errors.UnknownAdapter);
export const receiptOf = (host: Host, id: AdapterId): Infer<typeof signedTrainingReceipt> =>
  store.Receipts.get(host, id) ?? fail(errors.UnknownAdapter);
export function ensureLive(host: Host, id: AdapterId): Adapter {
  const found = adapterOf(host, id);
  ensure(found.status.type === 'Live', errors.NotLive);
  return found;
}
export function ensureActive(found: Order): void {
  ensure(found.status.type === 'Active', errors.NotActive);
}

/** Enters the adapter of a submitted receipt, pending. */
export function addAdapter(
  env: Env,
  receipt: Infer<typeof signedTrainingReceipt>,
  training: Infer<typeof hash>,
): AdapterId {
  const { host } = env;
  const { order: id, worker } = receipt.payload;
  const { owner, name, baseModel: base, markup, price: wanted } = orderOf(host, id);
  const made = store.NextAdapter.get(host);
  store.NextAdapter.put(host, (made + 1) as AdapterId);
  store.Adapters.insert(host, made, {
    owner,
    name,
    order: id,
    baseModel: base,
    worker,
    training,
    markup,
    price: wanted,
    status: { type: 'Pending' },
    at: system.blockNumber(host),
  });
  store.Receipts.insert(host, made, receipt);
  env.emit(events.AdapterSubmitted, { adapter: made, order: id, worker, training });
  return made;
}

/** The audit window closed: the worker gets the budget. */
export function acceptAdapter(env: Env, id: AdapterId): void {
  const { host } = env;
  const found = adapterOf(host, id);
  const filled = orderOf(host, found.order);
  balances.transferHeld(env, BUDGET, filled.owner, found.worker, filled.budget);
  store.Orders.insert(host, found.order, { ...filled, status: { type: 'Done', value: id } });
  store.Adapters.insert(host, id, { ...found, status: { type: 'Live' } });
  compute.finishTask(host, found.order);
  env.emit(events.AdapterLive, { adapter: id });
}

/** The receipt was wrong: the order waits for another worker. */
export function strikeAdapter(env: Env, id: AdapterId): void {
  const found = adapterOf(env.host, id);
  store.Adapters.insert(env.host, id, { ...found, status: { type: 'Struck' } });
  compute.reopenTask(env, found.order);
  env.emit(events.AdapterStruck, { adapter: id });
}

/** Eight bytes of the block before and the order: nobody knew them when the records were committed. */
function draw(host: Host, id: OrderId, purpose: string): bigint {
  const digest = hashOf(host, bytesU64, { parent: system.parentHash(host), order: id, purpose });
  return new DataView(digest.buffer, digest.byteOffset, 8).getBigUint64(0, true);
}

// ---- calls ---------------------------------------------------------------------------------------------------

export const calls = {
  registerBaseModel: call({
    index: 0,
    args: { manifest: baseModelManifest },
    weight: cost(80_000_000n, 6, 7),
    docs: 'Register a base model by the hashes of its files. A deposit by their size is held.',
    run({ origin, ...env }, { manifest }) {
      const { host } = env;
      const owner = ensureSigned(origin);
      const id = store.NextBaseModel.get(host);
      store.NextBaseModel.put(host, (id + 1) as BaseModelId);
      const claim = blobs.commit(env, {
        depositor: owner,
        purpose: { type: 'BaseModel', value: id },
        files: [manifest.config, manifest.weights, manifest.tokenizer].map(({ blob, bytes }) => ({
          hash: blob,
          bytes,
        })),
      });
      const digest = hashOf(host, baseModelManifest, manifest);
      store.BaseModels.insert(host, id, { owner, manifest, hash: digest, claim });
      env.emit(events.BaseModelRegistered, { id, owner, hash: digest });
    },
  }),
  orderTraining: call({
    index: 1,
    args: {
      name: text(64),
      datanet: datanetId,
      version: snapshotVersion,
      licence: text(128),
      baseModel: baseModelId,
      config: trainingConfig,
      trainingSeed: u64,
      budget: balance,
      markup: perbill,
      price,
    },
    weight: cost(120_000_000n, 10, 7),
    docs: 'Order an adapter: pays the Datanet’s access price and puts the worker’s budget on hold. In the configuration, attribution_layers names how many of the last transformer layers carry attribution (0: all), attribution_stride that one in so many tokens of an answer bears the loss of its gradient (1: all).',
    run({ origin, ...env }, { datanet, version, licence, ...wanted }) {
      const { host } = env;
      const owner = ensureSigned(origin);
      ensure(wanted.name !== '' && wanted.markup <= MAX_MARKUP, errors.BadTerms);
      ensure(configFault(wanted.config) === undefined, errors.BadConfig);
      baseModelOf(host, wanted.baseModel);
      const net = datanets.datanetOf(host, datanet) ?? fail(errors.UnknownSnapshot);
      const taken = datanets.snapshotOf(host, datanet, version) ?? fail(errors.UnknownSnapshot);
      ensure(net.licence === licence, errors.OtherLicence);
      if (!sameAccount(owner, net.owner)) balances.transfer(env, owner, net.owner, net.accessPrice, 'KeepAlive');
      balances.hold(env, BUDGET, owner, wanted.budget);
      const id = store.NextOrder.get(host);
      store.NextOrder.put(host, (id + 1) as OrderId);
      store.Orders.insert(host, id, {
        ...wanted,
        owner,
        snapshot: { datanet, version, root: taken.root, count: taken.count },
        configHash: hashOf(host, trainingConfig, wanted.config),
        sketchSeed: draw(host, id, 'sketch'),
        rotationSeed: draw(host, id, 'rotation'),
        status: { type: 'Active' },
        at: system.blockNumber(host),
      });
      compute.openTask(env, id, wanted.baseModel);
      env.emit(events.Ordered, { order: id, owner, datanet, version, budget: wanted.budget });
    },
  }),
  cancelOrder: call({
    index: 2,
    args: { order: orderId },
    weight: cost(50_000_000n, 4, 4),
    docs: 'Take back an order that nobody works on. Owner only.',
    run({ origin, ...env }, { order: id }) {
      const found = orderOf(env.host, id);
      ensure(sameAccount(found.owner, ensureSigned(origin)), errors.NotOwner);
      ensureActive(found);
      compute.cancelTask(env, id);
      balances.release(env, BUDGET, found.owner, found.budget);
      store.Orders.insert(env.host, id, { ...found, status: { type: 'Cancelled' } });
      env.emit(events.OrderCancelled, { order: id });
    },
  }),
  setPrice: call({
    index: 3,
    args: { adapter: adapterId, price },
    weight: cost(20_000_000n, 1, 1),
    docs: 'Change the price for requests whose voucher is not signed yet. Owner only.',
    run({ origin, host, emit }, { adapter: id, price: wanted }) {
      const found = owned(host, id, ensureSigned(origin));
      store.Adapters.insert(host, id, { ...found, price: wanted });
      emit(events.PriceChanged, { adapter: id, price: wanted });
    },
  }),
  retireAdapter: call({
    index: 4,
    args: { adapter: adapterId },
    weight: cost(20_000_000n, 1, 1),
    docs: 'End an adapter’s service. What was answered before can still be settled. Owner only.',
    run({ origin, host, emit }, { adapter: id }) {
      const found = owned(host, id, ensureSigned(origin));
      ensure(found.status.type === 'Live', errors.NotLive);
      store.Adapters.insert(host, id, { ...found, status: { type: 'Retired' } });
      emit(events.Retired, { adapter: id });
    },
  }),
  transferAdapter: call({
    index: 5,
    args: { adapter: adapterId, owner: accountId },
    weight: cost(20_000_000n, 1, 1),
    docs: 'Hand an adapter and its markup to another account. Owner only.',
    run({ origin, host, emit }, { adapter: id, owner }) {
      const found = owned(host, id, ensureSigned(origin));
      store.Adapters.insert(host, id, { ...found, owner });
      emit(events.OwnerChanged, { adapter: id, owner });
    },
  }),
};

function owned(host: Host, id: AdapterId, who: AccountId): Adapter {
  const found = adapterOf(host, id);
  ensure(sameAccount(found.owner, who), errors.NotOwner);
  return found;
}

export const models = pallet({
  name: 'Models',
  index: 21,
  docs: 'Base models, training orders, adapters.',
  storage: store,
  calls,
  events,
  errors,
  constants: { MaxMarkup: constant(perbill, MAX_MARKUP, 'The highest markup on the base price.') },
  holdReasons: { Budget: BUDGET },
});
