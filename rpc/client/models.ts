/** Orders and adapters: what to train on what, how far it is, what came of it. */
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import type { AdapterId, BaseModelId, DatanetId, OrderId } from '../../runtime/primitives/attribution/ids.ts';
import { skeletonOf } from '../../runtime/primitives/attribution/names.ts';
import type { Price, SignedTrainingReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import type { TrainingConfig } from '../../runtime/primitives/attribution/training.ts';
import { fromUtf8 } from '../../runtime/primitives/bytes.ts';
import { BYTE_DEPOSIT } from '../../runtime/primitives/deposit.ts';
import { PERBILL } from '../../runtime/primitives/types.ts';
import { datanetOf } from './datanets.ts';
import { LedgerError, palletError } from './errors.ts';
import type { Ledger } from './ledger.ts';
import type { Signer } from './signer.ts';

export interface OrderTerms {
  /** What the adapter will be called, which is its name at the gateway. */
  readonly name: string;
  readonly datanet: DatanetId;
  readonly version: number;
  readonly baseModel: BaseModelId;
  readonly config: TrainingConfig;
  readonly seed: bigint;
  /** For the worker; on hold until the adapter is accepted. */
  readonly budget: bigint;
  /** Most that may be on hold for the adapter's files, 0.1 OPEN a megabyte; what they do not need comes back ({@link DEFAULT_STORAGE}). */
  readonly storage?: bigint | undefined;
  /** Most that the Datanet's owner may be paid (default: what it asks for now). */
  readonly maxAccessPrice?: bigint | undefined;
  /** Of the owner on the base price, 0 … 1. */
  readonly markup: number;
  /** OPEN's smallest units a token. */
  readonly price: Price;
}

/** Enough for 512 MiB of files. */
export const DEFAULT_STORAGE: bigint = 512n * 2n ** 20n * BYTE_DEPOSIT + 10n ** 18n;

/** Orders an adapter. The hash of the Datanet's terms stands in the order: that is how its licence is accepted. */
export async function orderTraining(ledger: Ledger, signer: Signer, terms: OrderTerms): Promise<OrderId> {
  const { terms: accepted, accessPrice } = await datanetOf(ledger, terms.datanet);
  const { seed, markup, storage = DEFAULT_STORAGE, maxAccessPrice = accessPrice, ...rest } = terms;
  const made = await ledger.submit(signer, models.calls.orderTraining, {
    ...rest,
    ...{ terms: accepted, storage, maxAccessPrice },
    trainingSeed: seed,
    markup: Math.round(markup * PERBILL),
  });
  return made.event(models.events.Ordered).order;
}

export interface Listed<Id, T> {
  readonly id: Id;
  readonly value: T;
}

async function listed<Id extends number, T>(entries: AsyncIterable<[Id, T]>): Promise<Listed<Id, T>[]> {
  const found = await Array.fromAsync(entries, ([id, value]) => ({ id, value }));
  return found.sort((a, b) => a.id - b.id);
}

export const baseModels = (ledger: Ledger) => listed(ledger.entries(models.store.BaseModels));
export const orders = (ledger: Ledger) => listed(ledger.entries(models.store.Orders));
export const adapters = (ledger: Ledger) => listed(ledger.entries(models.store.Adapters));

/** Rejects with `Models.UnknownOrder`. */
export async function orderOf(ledger: Ledger, id: OrderId): Promise<models.Order> {
  const found = await ledger.read(models.store.Orders, id);
  if (found === undefined) throw palletError(models.errors.UnknownOrder, `there is no order ${id}`);
  return found;
}

/** Rejects with `Models.UnknownAdapter`. */
export async function adapterOf(ledger: Ledger, id: AdapterId): Promise<models.Adapter> {
  const found = await ledger.read(models.store.Adapters, id);
  if (found === undefined) throw palletError(models.errors.UnknownAdapter, `there is no adapter ${id}`);
  return found;
}

/** The adapter that bears a name: one read of the chain. Rejects with `Models.UnknownName`. */
export async function adapterNamed(ledger: Ledger, name: string): Promise<AdapterId> {
  const found = await ledger.read(models.store.Names, skeletonOf(name));
  if (found?.name !== name || found.target.type !== 'Adapter') {
    throw palletError(models.errors.UnknownName, `no adapter is called ${name}`);
  }
  return found.target.value;
}

/** How many transformer layers a base model has, by its published configuration. Rejects with a LedgerError. */
export async function layersOf(ledger: Ledger, id: BaseModelId): Promise<number> {
  const found = await ledger.read(models.store.BaseModels, id);
  if (found === undefined) throw palletError(models.errors.UnknownBaseModel, `there is no base model ${id}`);
  const config: unknown = JSON.parse(fromUtf8(await ledger.blobs.get(found.manifest.config.blob)));
  const layers = (config as { num_hidden_layers?: unknown } | null)?.num_hidden_layers;
  if (typeof layers !== 'number' || !Number.isInteger(layers) || layers < 1) {
    throw new LedgerError('BAD_CONFIG', `the configuration of base model ${id} does not say how many layers it has`);
  }
  return layers;
}

/** As the worker tells it; `loss` in nats a token. */
export interface TrainingReport {
  readonly phase: string;
  /** 0 … 1 of the phase. */
  readonly done: number;
  readonly step?: number;
  readonly total?: number;
  readonly loss?: number;
  readonly tokensPerSecond?: number;
}

/** How far an order is, by the chain's word. */
export type OrderProgress =
  | { readonly type: 'waiting' }
  | { readonly type: 'training'; readonly attempts: number }
  | { readonly type: 'audit'; readonly adapter: AdapterId }
  | { readonly type: 'live'; readonly adapter: AdapterId }
  | { readonly type: 'cancelled' };

async function pendingAdapter(ledger: Ledger, order: OrderId): Promise<AdapterId | undefined> {
  let found: AdapterId | undefined;
  for (const { id, value } of await adapters(ledger)) {
    if (value.order === order && value.status.type === 'Pending') found = id;
  }
  return found;
}

async function progressOf(
  ledger: Ledger,
  id: OrderId,
  { status }: models.Order,
  task: compute.Task | undefined,
): Promise<OrderProgress> {
  if (status.type === 'Done') return { type: 'live', adapter: status.value };
  if (status.type === 'Cancelled') return { type: 'cancelled' };
  if (task?.status.type === 'Cancelled') return { type: 'cancelled' };
  if (task?.status.type === 'Leased') return { type: 'training', attempts: task.attempts };
  if (task?.status.type !== 'Submitted') return { type: 'waiting' };
  const adapter = await pendingAdapter(ledger, id);
  return adapter === undefined ? { type: 'waiting' } : { type: 'audit', adapter };
}

/** Rejects with `Models.UnknownOrder`. */
export async function orderProgress(ledger: Ledger, id: OrderId): Promise<OrderProgress> {
  return progressOf(ledger, id, await orderOf(ledger, id), await ledger.read(compute.store.Tasks, id));
}

/**
 * Follows an order until its adapter is live. `report` hears the worker, `progress` each change on the chain. Rejects when
 * the order is cancelled, the connection goes for good, or the signal says so.
 */
export async function awaitAdapter(
  ledger: Ledger,
  id: OrderId,
  hooks: {
    readonly report?: (report: TrainingReport) => void;
    readonly progress?: (progress: OrderProgress) => void;
    readonly signal?: AbortSignal;
  } = {},
): Promise<AdapterId> {
  const over = new AbortController();
  const signal = AbortSignal.any([over.signal, ...(hooks.signal === undefined ? [] : [hooks.signal])]);
  const stop = await ledger.rpc.subscribe('training_watch', 'training_unwatch', [id], (report) =>
    hooks.report?.(report as TrainingReport),
  );
  try {
    let before = '';
    for await (const _change of changesOf(ledger, id, signal)) {
      const progress = await orderProgress(ledger, id);
      if (progress.type !== before) hooks.progress?.(progress);
      before = progress.type;
      if (progress.type === 'live') return progress.adapter;
      if (progress.type === 'cancelled') throw palletError(models.errors.NotActive, `order ${id} was cancelled`);
    }
    hooks.signal?.throwIfAborted();
    throw new LedgerError('NO_NODE', 'the connection to the node is gone');
  } finally {
    over.abort();
    stop();
  }
}

/** Yields when the order or its task may have changed. */
async function* changesOf(ledger: Ledger, id: OrderId, signal: AbortSignal): AsyncGenerator<void> {
  const order = ledger.watch(models.store.Orders, id, { signal });
  const task = ledger.watch(compute.store.Tasks, id, { signal });
  const next = { order: order.next(), task: task.next() };
  for (;;) {
    const [which, { done }] = await Promise.race([
      next.order.then((result) => ['order', result] as const),
      next.task.then((result) => ['task', result] as const),
    ]);
    if (done) return;
    if (which === 'order') next.order = order.next();
    else next.task = task.next();
    yield;
  }
}

/** Rejects with `Models.UnknownAdapter`. */
export async function trainingReceiptOf(ledger: Ledger, id: AdapterId): Promise<SignedTrainingReceipt> {
  const found = await ledger.read(models.store.Receipts, id);
  if (found === undefined) throw palletError(models.errors.UnknownAdapter, `there is no adapter ${id}`);
  return found;
}
