/** Orders and adapters: what to train on what, how far it is, what came of it. */
import type { KeyringPair } from '@polkadot/keyring/types';
import * as compute from '../../runtime/pallets/ledger/compute.ts';
import * as models from '../../runtime/pallets/ledger/models.ts';
import {
  type AdapterId,
  type BaseModelId,
  type DatanetId,
  type OrderId,
  orderId,
} from '../../runtime/primitives/attribution/ids.ts';
import { type Price, signedTrainingReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import { LORA_MODULES, type TrainingConfig } from '../../runtime/primitives/attribution/training.ts';
import { fromUtf8 } from '../../runtime/primitives/bytes.ts';
import type { Infer } from '../../runtime/primitives/scale/codec.ts';
import { PERBILL } from '../../runtime/primitives/types.ts';
import { firstField, idOfKey, type Ledger, LedgerError } from './connection.ts';
import { datanetOf } from './datanets.ts';

/** Choices of whoever orders; everything else has defaults that suit small models and some hundreds of records. */
export interface TrainingChoices {
  readonly rank?: number;
  readonly alpha?: number;
  /** PEFT names out of {@link LORA_MODULES}. */
  readonly targets?: readonly string[];
  readonly learningRate?: number;
  readonly epochs?: number;
  /** In place of epochs. */
  readonly steps?: number | undefined;
  readonly batch?: number;
  readonly sequenceLength?: number;
  /** Entries of a feature row: more records want more. */
  readonly k?: number;
  /**
   * Buckets of the sketch, a power of two. The default ranks contributors nearly as well as no sketch does; 16,384 cost a
   * quarter of it and a tenth of that (gpu-worker/attribution/README.md).
   */
  readonly sketchWidth?: number | undefined;
  /** The last so many layers carry attribution (default 0: all). Answers are attributed faster with fewer. */
  readonly attributionLayers?: number;
  /** One in so many tokens of an answer bears the loss of its gradient (default 1: all). */
  readonly attributionStride?: number;
}

export function trainingConfigOf(choices: TrainingChoices = {}): TrainingConfig {
  const { targets = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] } = choices;
  const unknown = targets.find((name) => !(LORA_MODULES as readonly string[]).includes(name));
  if (unknown !== undefined) {
    throw new LedgerError('BAD_TARGET', `${unknown} is none of ${LORA_MODULES.join(', ')}`);
  }
  const { rank = 8, k = 256 } = choices;
  return {
    rank,
    alpha: choices.alpha ?? 2 * rank,
    targets: targets.reduce((bits, name) => bits | (1 << LORA_MODULES.indexOf(name as never)), 0),
    learningRate: Math.round((choices.learningRate ?? 4e-3) * 1e9),
    epochs: choices.epochs ?? 3,
    steps: choices.steps,
    batch: choices.batch ?? 8,
    sequenceLength: choices.sequenceLength ?? 96,
    warmup: PERBILL / 10,
    weightDecay: 0,
    k,
    sketchWidth: choices.sketchWidth ?? 65_536,
    block: 32,
    damping: PERBILL / 100,
    // The decomposition's work grows with the cube: more rows than this say little more.
    projectionRows: Math.max(1_024, k),
    attributionLayers: choices.attributionLayers ?? 0,
    attributionStride: choices.attributionStride ?? 1,
  };
}

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
  /** Of the owner on the base price, 0 … 1. */
  readonly markup: number;
  /** OPEN's smallest units a token. */
  readonly price: Price;
}

/** Orders an adapter; naming the Datanet's licence is how it is accepted. */
export async function orderTraining(ledger: Ledger, pair: KeyringPair, terms: OrderTerms): Promise<OrderId> {
  const { licence } = await datanetOf(ledger, terms.datanet);
  const call = ledger.tx(
    'models',
    'orderTraining',
    terms.name,
    terms.datanet,
    terms.version,
    licence,
    terms.baseModel,
    terms.config,
    terms.seed,
    terms.budget,
    Math.round(terms.markup * PERBILL),
    terms.price,
  );
  return firstField(await ledger.submit(pair, call), 'Models.Ordered', orderId);
}

export interface Listed<Id, T> {
  readonly id: Id;
  readonly value: T;
}

const listed = async <Id, T>(entries: Promise<{ key: Uint8Array; value: T }[]>): Promise<Listed<Id, T>[]> =>
  (await entries)
    .map(({ key, value }) => ({ id: idOfKey(key) as Id, value }))
    .sort((a, b) => Number(a.id) - Number(b.id));

export const baseModels = (ledger: Ledger) =>
  listed<BaseModelId, models.BaseModel>(ledger.entries('models', 'baseModels', models.baseModel));
export const orders = (ledger: Ledger) =>
  listed<OrderId, models.Order>(ledger.entries('models', 'orders', models.order));
export const adapters = (ledger: Ledger) =>
  listed<AdapterId, models.Adapter>(ledger.entries('models', 'adapters', models.adapter));

export async function orderOf(ledger: Ledger, id: OrderId): Promise<models.Order> {
  const found = await ledger.read('models', 'orders', models.order, id);
  if (found === undefined) throw new LedgerError('Models.UnknownOrder', `there is no order ${id}`);
  return found;
}

export async function adapterOf(ledger: Ledger, id: AdapterId): Promise<models.Adapter> {
  const found = await ledger.read('models', 'adapters', models.adapter, id);
  if (found === undefined) throw new LedgerError('Models.UnknownAdapter', `there is no adapter ${id}`);
  return found;
}

/** How many transformer layers a base model has, by its published configuration. Rejects with a LedgerError. */
export async function layersOf(ledger: Ledger, id: BaseModelId): Promise<number> {
  const found = await ledger.read('models', 'baseModels', models.baseModel, id);
  if (found === undefined) throw new LedgerError('Models.UnknownBaseModel', `there is no base model ${id}`);
  const config: unknown = JSON.parse(fromUtf8(await ledger.blob(found.manifest.config.blob)));
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

/** Where an order stands by the chain's word. */
export type OrderStanding =
  | { readonly type: 'waiting' }
  | { readonly type: 'training'; readonly attempts: number }
  | { readonly type: 'audit'; readonly adapter: AdapterId }
  | { readonly type: 'live'; readonly adapter: AdapterId }
  | { readonly type: 'cancelled' };

export async function standingOf(ledger: Ledger, id: OrderId): Promise<OrderStanding> {
  const { status } = await orderOf(ledger, id);
  if (status.type === 'Done') return { type: 'live', adapter: status.value };
  if (status.type === 'Cancelled') return { type: 'cancelled' };
  const task = await ledger.read('compute', 'tasks', compute.task, id);
  if (task?.status.type === 'Leased') return { type: 'training', attempts: task.attempts };
  if (task?.status.type !== 'Submitted') return { type: 'waiting' };
  const made = (await adapters(ledger)).filter(({ value }) => value.order === id && value.status.type === 'Pending');
  return made.length === 0 ? { type: 'waiting' } : { type: 'audit', adapter: made.at(-1)!.id };
}

const POLL_MS = 500;

/**
 * Follows an order until its adapter is live. `report` hears the worker, `standing` each change on the chain. Rejects when
 * the order is cancelled, the connection goes, or the signal says so.
 */
export async function awaitAdapter(
  ledger: Ledger,
  id: OrderId,
  hooks: {
    readonly report?: (report: TrainingReport) => void;
    readonly standing?: (standing: OrderStanding) => void;
    readonly signal?: AbortSignal;
  } = {},
): Promise<AdapterId> {
  const stop = await ledger.rpc.subscribe('training_watch', 'training_unwatch', [id], (report) =>
    hooks.report?.(report as TrainingReport),
  );
  try {
    for (let before = ''; ; ) {
      hooks.signal?.throwIfAborted();
      const standing = await standingOf(ledger, id);
      if (standing.type !== before) hooks.standing?.(standing);
      before = standing.type;
      if (standing.type === 'live') return standing.adapter;
      if (standing.type === 'cancelled') throw new LedgerError('Models.NotActive', `order ${id} was cancelled`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  } finally {
    stop();
  }
}

export async function trainingReceiptOf(ledger: Ledger, id: AdapterId): Promise<Infer<typeof signedTrainingReceipt>> {
  const found = await ledger.read('models', 'receipts', signedTrainingReceipt, id);
  if (found === undefined) throw new LedgerError('Models.UnknownAdapter', `there is no adapter ${id}`);
  return found;
}
