/** Storage, events, errors and parameters of models. */
import { error } from '../../../framework/dispatch.ts';
import { event, type Reason } from '../../../framework/pallet.ts';
import { boundedParameters, type ParametersOf } from '../../../framework/parameters.ts';
import { blake2_128Concat, map, storage, twox64Concat, value } from '../../../framework/storage.ts';
import {
  type AdapterId,
  adapterId,
  type BaseModelId,
  baseModelId,
  datanetId,
  type OrderId,
  orderId,
  snapshotVersion,
} from '../../../primitives/attribution/ids.ts';
import { adapterName } from '../../../primitives/attribution/names.ts';
import { price, signedTrainingReceipt } from '../../../primitives/attribution/receipts.ts';
import { u32, u64 } from '../../../primitives/scale/codec.ts';
import { accountId, balance, hash } from '../../../primitives/types.ts';
import { adapter, baseModel, nameEntry, order } from './types.ts';

export const BUDGET: Reason = { pallet: 21, reason: 1 };
export const STORAGE: Reason = { pallet: 21, reason: 2 };
export const ENTRY_DEPOSIT: Reason = { pallet: 21, reason: 3 };
export const NAME_DEPOSIT: Reason = { pallet: 21, reason: 4 };

export const parameters = boundedParameters(
  'openledger_primitives::attribution::ModelParameters',
  {
    nameDeposit: {
      codec: balance,
      initial: 10n ** 18n,
      min: 10n ** 16n,
      max: 10n ** 24n,
      docs: 'OPEN held for the name of an adapter.',
    },
    nameGrace: {
      codec: u32,
      initial: 28_800,
      min: 1,
      max: 10_512_000,
      docs: 'Blocks in which only its owner can use a name again whose adapter is retired.',
    },
    priceNotice: {
      codec: u32,
      initial: 100,
      min: 1,
      max: 201_600,
      docs: 'Blocks from announcing a price to its being in force.',
    },
    priceGrace: {
      codec: u32,
      initial: 1_200,
      min: 1,
      max: 201_600,
      docs: 'Blocks in which answers at the price before are still settled.',
    },
    minBudget: {
      codec: balance,
      initial: 10n ** 18n,
      min: 10n ** 15n,
      max: 10n ** 24n,
      docs: 'The least budget of a training order.',
    },
    cancelFee: {
      codec: balance,
      initial: 10n ** 18n,
      min: 10n ** 15n,
      max: 10n ** 24n,
      docs: 'OPEN that an order costs which is cancelled when its seeds are known: drawing again is not free.',
    },
    drawDelay: {
      codec: u32,
      initial: 2,
      min: 2,
      max: 1_200,
      docs: 'Blocks from an order to the block whose chance its seeds are drawn from.',
    },
    retiredPeriod: {
      codec: u32,
      initial: 28_800,
      min: 2,
      max: 10_512_000,
      docs: 'Blocks in which answers of a retired adapter are still settled; then it leaves the state.',
    },
    closedPeriod: {
      codec: u32,
      initial: 1_200,
      min: 2,
      max: 10_512_000,
      docs: 'Blocks after which cancelled orders and struck adapters leave the state.',
    },
  },
  { 'cancelFee must not exceed minBudget': ({ cancelFee, minBudget }) => cancelFee <= minBudget },
);
export type ModelParameters = ParametersOf<typeof parameters>;

export const store = storage('Models', {
  NextBaseModel: value(baseModelId, 0 as BaseModelId, 'Id of the next base model.'),
  BaseModels: map(twox64Concat(baseModelId), baseModel, 'Base models in Hugging Face layout.'),
  NextOrder: value(orderId, 0 as OrderId, 'Id of the next order.'),
  Orders: map(
    twox64Concat(orderId),
    order,
    'Training orders that are under way, or whose adapter is there. Others are in the history only.',
  ),
  NextAdapter: value(adapterId, 0 as AdapterId, 'Id of the next adapter.'),
  Adapters: map(
    twox64Concat(adapterId),
    adapter,
    'Adapters that are live, in their window, or that answers are still settled of. Others are in the history only.',
  ),
  Receipts: map(twox64Concat(adapterId), signedTrainingReceipt, 'The signed training receipt of each adapter.'),
  Names: map(blake2_128Concat(adapterName), nameEntry, 'Names of adapters, by what look-alikes have in common.'),
  Parameters: parameters.item,
});

export const events = {
  BaseModelRegistered: event(0, { id: baseModelId, owner: accountId, hash }, 'A base model can be trained on.'),
  Ordered: event(
    1,
    { order: orderId, owner: accountId, datanet: datanetId, version: snapshotVersion, budget: balance },
    'A training was ordered and paid for. Its seeds are drawn next.',
  ),
  OrderCancelled: event(
    2,
    { order: orderId, fee: balance },
    'The order was taken back; its budget is free but for the fee.',
  ),
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
  PriceChanged: event(6, { adapter: adapterId, price }, 'The price is in force.'),
  Retired: event(7, { adapter: adapterId }, 'The adapter takes no more requests.'),
  OwnerChanged: event(8, { adapter: adapterId, owner: accountId }, 'The adapter has another owner.'),
  SeedsDrawn: event(
    9,
    { order: orderId, sketchSeed: u64, rotationSeed: u64 },
    'The order’s seeds are known: workers can take it.',
  ),
  PriceAnnounced: event(10, { adapter: adapterId, price, from: u32 }, 'The price will be in force from that block on.'),
  Offered: event(11, { adapter: adapterId, to: accountId }, 'The adapter is another account’s for the taking.'),
  OrderRemoved: event(12, { order: orderId }, 'The order left the state; the deposit for it went back.'),
  AdapterRemoved: event(13, { adapter: adapterId }, 'The adapter left the state, and its files the nodes.'),
  BaseModelRemoved: event(14, { id: baseModelId }, 'The base model left the state, and its files the nodes.'),
  NameChanged: event(15, { adapter: adapterId, name: adapterName }, 'The adapter has another name.'),
  ParametersChanged: parameters.changed(17),
  NameFree: event(16, { name: adapterName, from: u32 }, 'Anybody can use the name from that block on.'),
};

export const errors = {
  UnknownBaseModel: error(0, 'There is no such base model.'),
  UnknownOrder: error(1, 'There is no such order, or it is history.'),
  UnknownAdapter: error(2, 'There is no such adapter, or it is history.'),
  UnknownSnapshot: error(3, 'The Datanet has no such snapshot.'),
  OtherTerms: error(4, 'The Datanet’s terms, its licence among them, are not those that were signed for.'),
  BadConfig: error(5, 'No engine can train with this configuration.'),
  BadTerms: error(6, 'A markup is at most 100 %, and texts hold nothing that cannot be seen.'),
  NotOwner: error(7, 'Only the owner may do this.'),
  NotActive: error(8, 'The order waits for its seeds, or is done or cancelled.'),
  NotLive: error(9, 'The adapter is not live.'),
  BadName: error(
    10,
    'A name has up to 48 lower-case letters and digits, begins with a letter, and has single dots, dashes and underscores inside.',
  ),
  NameTaken: error(11, 'The name, or one that looks like it, is another adapter’s.'),
  AccessTooDear: error(12, 'The Datanet’s access price is higher than what was signed for.'),
  BudgetTooSmall: error(13, 'The budget is below the least budget.'),
  TooLarge: error(14, 'The deposits for the adapter’s files exceed what the order has on hold for them.'),
  PriceAnnounced: error(15, 'A price was announced already, or answers at the one before are still settled.'),
  NotOffered: error(16, 'The adapter was not offered to this account.'),
  InUse: error(17, 'Orders or adapters build on it.'),
  UnknownName: error(18, 'There is no such name, or it is in use.'),
  BadParameters: parameters.refused(19),
};
