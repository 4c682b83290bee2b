/** What models are made of: base models, training orders, adapters, and the adapters' names. */
import { canonical, part } from '../../../primitives/attribution/canonical.ts';
import { adapterId, baseModelId, claimId, orderId } from '../../../primitives/attribution/ids.ts';
import { adapterName } from '../../../primitives/attribution/names.ts';
import { price, snapshotRef } from '../../../primitives/attribution/receipts.ts';
import { baseModelManifest, trainingConfig } from '../../../primitives/attribution/training.ts';
import { type Infer, option, struct, u32, u64, variants } from '../../../primitives/scale/codec.ts';
import { accountId, balance, hash, perbill } from '../../../primitives/types.ts';

export const baseModel = part(
  'BaseModel',
  struct({
    owner: accountId,
    manifest: baseModelManifest,
    hash,
    /** Keeps its files with the nodes. */
    claim: claimId,
    deposit: balance,
    /** Orders and adapters that build on it. */
    users: u32,
  }),
);
export type BaseModel = Infer<typeof baseModel>;

export const orderStatus = part(
  'OrderStatus',
  variants({
    /** Until its seeds are drawn. */
    Drawing: null,
    /** Open to workers, or with one. */
    Active: null,
    Done: adapterId,
    Cancelled: null,
  }),
);
export const order = part(
  'Order',
  struct({
    owner: accountId,
    /** What the adapter will be called. */
    name: adapterName,
    snapshot: snapshotRef,
    baseModel: baseModelId,
    config: trainingConfig,
    configHash: hash,
    /** Initial factors and order of examples: the owner's choice. */
    trainingSeed: u64,
    /** Drawn by the chain after the order was paid for; 0 until then. */
    sketchSeed: u64,
    rotationSeed: u64,
    /** On hold for the worker. */
    budget: balance,
    /** On hold for the deposits of the adapter's files. */
    storage: balance,
    /** On hold for the entries of order and adapter. */
    deposit: balance,
    /** On top of the base price, for the owner. */
    markup: perbill,
    price,
    status: orderStatus,
    at: u32,
  }),
);
export type Order = Infer<typeof order>;

export const adapterStatus = part(
  'AdapterStatus',
  variants({
    /** In its audit window. */
    Pending: null,
    Live: null,
    /** Its receipt was wrong. */
    Struck: null,
    /** Takes no more requests. What was answered can be settled until the adapter leaves the state. */
    Retired: null,
  }),
);

export const adapter = part(
  'Adapter',
  struct({
    owner: accountId,
    /** Who may take the adapter over. */
    offeredTo: option(accountId),
    name: adapterName,
    order: orderId,
    baseModel: baseModelId,
    worker: accountId,
    training: hash,
    markup: perbill,
    /** In force now. */
    price,
    /** The price that comes next, and the block from which on it is in force. */
    nextPrice: option(struct({ price, from: u32 })),
    /** The price before, and the block until which answers at it are settled. */
    formerPrice: option(struct({ price, until: u32 })),
    status: adapterStatus,
    at: u32,
    /** Batches of receipts in their window. */
    users: u32,
    /** Keep its files with the nodes: what the training made, and its states in between, of which there may be none. */
    artifacts: claimId,
    segments: option(claimId),
  }),
);
export type Adapter = Infer<typeof adapter>;

/** What a name stands for. */
export const nameTarget = part(
  'NameTarget',
  variants({
    /** Nothing yet: it is the order's adapter's. */
    Order: orderId,
    Adapter: adapterId,
    /** Nothing any more. Until this block its owner alone can use it again. */
    Free: u32,
  }),
);
export const nameEntry = part(
  'AdapterName',
  struct({
    /** As it is written; look-alikes have the same key. */
    name: adapterName,
    owner: accountId,
    deposit: balance,
    target: nameTarget,
  }),
);
export type NameEntry = Infer<typeof nameEntry>;

/** What leaves the state when its time is over. */
export const departure = part('Departure', variants({ Order: orderId, Adapter: adapterId }));

/** What an order's seeds are drawn about (`Beacon`). */
export const seedDraw = canonical('seed/2', 'SeedDraw', struct({ order: orderId, owner: accountId, at: u32 }));
