/**
 * Models: base models by the hashes of their files, training orders with their budget on hold, and the adapters that come
 * of them, each with the receipt that says what it was made of and a name that no other adapter has.
 *
 * Orders and adapters leave the state when they are over: the history has them. While they are there, deposits are on hold.
 */
import { addWeight, cost, ensure, ensureSigned, fail } from '../../framework/dispatch.ts';
import { apiMethod, call, constant, type Env, pallet, runtimeApi } from '../../framework/pallet.ts';
import type { ParametersConfig } from '../../framework/parameters.ts';
import { storage } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { hashOf } from '../../primitives/attribution/canonical.ts';
import {
  type AdapterId,
  adapterId,
  type BaseModelId,
  baseModelId,
  datanetId,
  type OrderId,
  orderId,
  snapshotVersion,
} from '../../primitives/attribution/ids.ts';
import { adapterName, MAX_NAME_LENGTH } from '../../primitives/attribution/names.ts';
import { price } from '../../primitives/attribution/receipts.ts';
import { MAX_MARKUP } from '../../primitives/attribution/split.ts';
import { baseModelManifest, configFault, trainingConfig } from '../../primitives/attribution/training.ts';
import { equalBytes } from '../../primitives/bytes.ts';
import { stateDeposit } from '../../primitives/deposit.ts';
import { TREASURY } from '../../primitives/pallet-id.ts';
import { isLabel } from '../../primitives/plain-text.ts';
import { option, u32, u64 } from '../../primitives/scale/codec.ts';
import { type AccountId, accountId, balance, hash, perbill, sameAccount } from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import * as system from '../standard/system.ts';
import * as blobs from './blobs.ts';
import * as compute from './compute.ts';
import * as datanets from './datanets.ts';
import { DEPART, departLater, departures, useMaterial } from './models/departures.ts';
import { adapterOf, announcedPrices, baseModelOf, ensureLive, orderOf, seeds } from './models/lifecycle.ts';
import { adapterNamed, freeName, giveUpName, handName, point, reserveName } from './models/naming.ts';
import {
  BUDGET,
  ENTRY_DEPOSIT,
  errors,
  events,
  type ModelParameters,
  NAME_DEPOSIT,
  parameters,
  STORAGE,
  store,
} from './models/store.ts';
import type { Adapter, Order } from './models/types.ts';

export {
  acceptAdapter,
  adapterOf,
  addAdapter,
  baseModelOf,
  ensureActive,
  ensureLive,
  isLive,
  isPending,
  orderOf,
  pricesOf,
  receiptOf,
  strikeAdapter,
  termsOf,
  useAdapter,
} from './models/lifecycle.ts';
export { adapterNamed } from './models/naming.ts';
export { errors, events, parameters, store } from './models/store.ts';
export {
  type Adapter,
  adapter,
  type BaseModel,
  baseModel,
  type NameEntry,
  nameEntry,
  type Order,
  order,
} from './models/types.ts';

/** For an order with its adapter and its receipt, and for a base model. */
const ORDER_ENTRIES = stateDeposit(3, 2_500);
const BASE_MODEL_ENTRIES = stateDeposit(1, 600);
// ---- calls ---------------------------------------------------------------------------------------------------

function ownOrder(host: Host, id: OrderId, who: AccountId): Order {
  const found = orderOf(host, id);
  ensure(sameAccount(found.owner, who), errors.NotOwner);
  return found;
}
function own(host: Host, id: AdapterId, who: AccountId): Adapter {
  const found = adapterOf(host, id);
  ensure(sameAccount(found.owner, who), errors.NotOwner);
  return found;
}

/** Out of existence where it is too little for the treasury to come alive on. */
function toTreasury(env: Env, from: AccountId, amount: bigint): void {
  balances.takeFromHold(env, BUDGET, from, amount);
  if (!balances.give(env, TREASURY, amount)) balances.rescind(env, amount);
}

export const calls = {
  registerBaseModel: call({
    index: 0,
    args: { manifest: baseModelManifest },
    weight: addWeight(cost(100_000_000n, 4, 5), blobs.claimWeight(3)),
    docs: 'Register a base model by the hashes of its files. Deposits by their size and for the entry are held until it is withdrawn.',
    run({ origin, ...env }, { manifest }) {
      const { host } = env;
      const owner = ensureSigned(origin);
      ensure(isLabel(manifest.name) && isLabel(manifest.licence), errors.BadTerms);
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
      balances.hold(env, ENTRY_DEPOSIT, owner, BASE_MODEL_ENTRIES);
      const digest = hashOf(host, baseModelManifest, manifest);
      const deposit = BASE_MODEL_ENTRIES;
      store.BaseModels.insert(host, id, { owner, manifest, hash: digest, claim, deposit, users: 0 });
      env.emit(events.BaseModelRegistered, { id, owner, hash: digest });
    },
  }),
  orderTraining: call({
    index: 1,
    args: {
      name: adapterName,
      datanet: datanetId,
      version: snapshotVersion,
      terms: hash,
      maxAccessPrice: balance,
      baseModel: baseModelId,
      config: trainingConfig,
      trainingSeed: u64,
      budget: balance,
      storage: balance,
      markup: perbill,
      price,
    },
    // The draw of its seeds is paid for as well.
    weight: cost(280_000_000n, 24, 24),
    docs: "Order an adapter: pays the Datanet's access price (at most `max_access_price`; `terms` is the hash of the terms, licence included, that the signer accepts), puts the worker's budget on hold, `storage` for the deposits of the adapter's files, and deposits for its name and its entries. Its seeds are drawn some blocks later, and then workers can take it. In the configuration, attribution_layers names how many of the last transformer layers carry attribution (0: all), attribution_stride that one in so many tokens of an answer bears the loss of its gradient (1: all).",
    run({ origin, ...env }, { datanet, version, terms, maxAccessPrice, ...wanted }) {
      const { host } = env;
      const owner = ensureSigned(origin);
      const { minBudget, drawDelay } = parameters.get(host);
      ensure(wanted.markup <= MAX_MARKUP, errors.BadTerms);
      ensure(configFault(wanted.config) === undefined, errors.BadConfig);
      ensure(wanted.budget >= minBudget, errors.BudgetTooSmall);
      baseModelOf(host, wanted.baseModel);
      const net = datanets.datanetOf(host, datanet) ?? fail(errors.UnknownSnapshot);
      const taken = datanets.snapshotOf(host, datanet, version) ?? fail(errors.UnknownSnapshot);
      ensure(equalBytes(net.terms, terms), errors.OtherTerms);
      if (!sameAccount(owner, net.owner)) {
        ensure(net.accessPrice <= maxAccessPrice, errors.AccessTooDear);
        balances.transfer(env, owner, net.owner, net.accessPrice, 'KeepAlive');
      }
      balances.hold(env, BUDGET, owner, wanted.budget);
      balances.hold(env, STORAGE, owner, wanted.storage);
      balances.hold(env, ENTRY_DEPOSIT, owner, ORDER_ENTRIES);
      const id = store.NextOrder.get(host);
      store.NextOrder.put(host, (id + 1) as OrderId);
      reserveName(env, wanted.name, owner, id);
      const now = system.blockNumber(host);
      const made: Order = {
        ...wanted,
        ...{ owner, deposit: ORDER_ENTRIES, status: { type: 'Drawing' }, at: now, sketchSeed: 0n, rotationSeed: 0n },
        snapshot: { datanet, version, root: taken.root, count: taken.count },
        configHash: hashOf(host, trainingConfig, wanted.config),
      };
      store.Orders.insert(host, id, made);
      useMaterial(host, made, 1);
      seeds.schedule(host, { now, due: now + drawDelay }, id);
      env.emit(events.Ordered, { order: id, owner, datanet, version, budget: wanted.budget });
    },
  }),
  cancelOrder: call({
    index: 2,
    args: { order: orderId },
    weight: addWeight(cost(120_000_000n, 16, 16), DEPART),
    docs: 'Take an order back: at once where nobody works on it. Else nobody gets another lease of it, and once the running one has ended without a result, a second call takes it back. The access price stays paid; once the seeds are drawn, a fee is taken from the budget. Owner only.',
    run({ origin, ...env }, { order: id }) {
      const { host } = env;
      const found = ownOrder(host, id, ensureSigned(origin));
      const isDrawn = found.status.type === 'Active';
      ensure(isDrawn || found.status.type === 'Drawing', errors.NotActive);
      if (isDrawn && !compute.cancelTask(env, id)) return;
      const { cancelFee, closedPeriod } = parameters.get(host);
      const most = cancelFee < found.budget ? cancelFee : found.budget;
      const fee = isDrawn ? most : 0n;
      toTreasury(env, found.owner, fee);
      balances.release(env, BUDGET, found.owner, found.budget - fee);
      balances.release(env, STORAGE, found.owner, found.storage);
      freeName(env, found.name);
      useMaterial(host, found, -1);
      const status = { type: 'Cancelled' } as const;
      store.Orders.insert(host, id, { ...found, budget: 0n, storage: 0n, status });
      departLater(host, { type: 'Order', value: id }, closedPeriod);
      env.emit(events.OrderCancelled, { order: id, fee });
    },
  }),
  setPrice: call({
    index: 3,
    args: { adapter: adapterId, price },
    weight: cost(70_000_000n, 7, 8),
    docs: 'Announce a price. It is in force `price_notice` blocks later; answers at the price before are settled for a while. Owner only.',
    run({ origin, host, emit }, { adapter: id, price: wanted }) {
      const found = own(host, id, ensureSigned(origin));
      const now = system.blockNumber(host);
      const isSettled = found.formerPrice === undefined || now >= found.formerPrice.until;
      ensure(found.nextPrice === undefined && isSettled, errors.PriceAnnounced);
      const from = now + parameters.get(host).priceNotice;
      const nextPrice = { price: wanted, from };
      store.Adapters.insert(host, id, { ...found, nextPrice, formerPrice: undefined });
      announcedPrices.schedule(host, { now, due: from }, id);
      emit(events.PriceAnnounced, { adapter: id, price: wanted, from });
    },
  }),
  retireAdapter: call({
    index: 4,
    args: { adapter: adapterId },
    weight: addWeight(cost(60_000_000n, 7, 7), DEPART),
    docs: 'End an adapter’s service. What was answered before can be settled for a while; then it leaves the state, and deposits go back. Owner only.',
    run({ origin, ...env }, { adapter: id }) {
      const { host } = env;
      const found = own(host, id, ensureSigned(origin));
      ensure(found.status.type === 'Live', errors.NotLive);
      store.Adapters.insert(host, id, { ...found, status: { type: 'Retired' } });
      freeName(env, found.name);
      departLater(host, { type: 'Adapter', value: id }, parameters.get(host).retiredPeriod);
      env.emit(events.Retired, { adapter: id });
    },
  }),
  offerAdapter: call({
    index: 5,
    args: { adapter: adapterId, to: option(accountId) },
    weight: cost(30_000_000n, 1, 1),
    docs: 'Offer a live adapter with its name and markup to another account, which takes it by `accept_adapter`, or take the offer back. Owner only.',
    run({ origin, host, emit }, { adapter: id, to }) {
      const found = own(host, id, ensureSigned(origin));
      ensure(found.status.type === 'Live', errors.NotLive);
      store.Adapters.insert(host, id, { ...found, offeredTo: to });
      emit(events.Offered, { adapter: id, to: to ?? found.owner });
    },
  }),
  acceptAdapter: call({
    index: 6,
    args: { adapter: adapterId },
    weight: cost(150_000_000n, 14, 14),
    docs: 'Take over an adapter that was offered to the signer, with the deposits for its files, its name and its entries.',
    run({ origin, ...env }, { adapter: id }) {
      const { host } = env;
      const owner = ensureSigned(origin);
      const found = ensureLive(host, id);
      ensure(found.offeredTo !== undefined && sameAccount(found.offeredTo, owner), errors.NotOffered);
      const ordered = orderOf(host, found.order);
      blobs.handOver(env, found.artifacts, owner);
      handName(env, found, owner);
      balances.release(env, ENTRY_DEPOSIT, ordered.owner, ordered.deposit);
      balances.hold(env, ENTRY_DEPOSIT, owner, ordered.deposit);
      store.Orders.insert(host, found.order, { ...ordered, owner });
      store.Adapters.insert(host, id, { ...found, owner, offeredTo: undefined });
      env.emit(events.OwnerChanged, { adapter: id, owner });
    },
  }),
  swapNames: call({
    index: 7,
    args: { one: adapterId, other: adapterId },
    weight: cost(60_000_000n, 4, 4),
    docs: 'Let two live adapters of the signer have each other’s names: so a new version takes the place of the old one.',
    run({ origin, host, emit }, { one, other }) {
      const who = ensureSigned(origin);
      const [a, b] = [own(host, one, who), own(host, other, who)];
      ensure(a.status.type === 'Live' && b.status.type === 'Live', errors.NotLive);
      if (one === other) return;
      store.Adapters.insert(host, one, { ...a, name: b.name });
      store.Adapters.insert(host, other, { ...b, name: a.name });
      point(host, b.name, { type: 'Adapter', value: one });
      point(host, a.name, { type: 'Adapter', value: other });
      emit(events.NameChanged, { adapter: one, name: b.name });
      emit(events.NameChanged, { adapter: other, name: a.name });
    },
  }),
  releaseName: call({
    index: 8,
    args: { name: adapterName },
    weight: cost(60_000_000n, 4, 4),
    docs: 'Give up a name that nothing bears any more, for its deposit. Owner only.',
    run({ origin, ...env }, { name }) {
      giveUpName(env, name, ensureSigned(origin));
    },
  }),
  withdrawBaseModel: call({
    index: 9,
    args: { baseModel: baseModelId },
    weight: addWeight(cost(60_000_000n, 4, 4), blobs.claimWeight(3)),
    docs: 'Have a base model leave the state that no order and no adapter builds on; its deposits go back. Owner only.',
    run({ origin, ...env }, { baseModel: id }) {
      const found = baseModelOf(env.host, id);
      ensure(sameAccount(found.owner, ensureSigned(origin)), errors.NotOwner);
      ensure(found.users === 0, errors.InUse);
      blobs.release(env, found.claim);
      balances.release(env, ENTRY_DEPOSIT, found.owner, found.deposit);
      store.BaseModels.remove(env.host, id);
      env.emit(events.BaseModelRemoved, { id });
    },
  }),
  setParameters: parameters.setter(10, events.ParametersChanged, errors.BadParameters),
};

const api = runtimeApi({
  name: 'ModelsApi',
  version: 1,
  docs: 'Adapters by their names.',
  methods: {
    adapter_named: apiMethod({
      inputs: { name: adapterName },
      output: option(adapterId),
      docs: 'The adapter that bears exactly this name.',
      run: ({ host }, { name }) => adapterNamed(host, name),
    }),
  },
});

export const models = pallet({
  name: 'Models',
  index: 21,
  docs: 'Base models, training orders, adapters.',
  storage: storage('Models', { ...store, ...seeds.storage, ...announcedPrices.storage, ...departures.storage }),
  calls,
  events,
  errors,
  constants: {
    MaxMarkup: constant(perbill, MAX_MARKUP, 'The highest markup on the base price.'),
    MaxNameLength: constant(u32, MAX_NAME_LENGTH, 'The longest name of an adapter.'),
    ...parameters.constants,
  },
  holdReasons: { Budget: BUDGET, Storage: STORAGE, EntryDeposit: ENTRY_DEPOSIT, NameDeposit: NAME_DEPOSIT },
  work: [seeds, announcedPrices, departures],
  apis: [api],
  genesis({ host }, config: ParametersConfig<ModelParameters>) {
    parameters.begin(host, config);
  },
});
