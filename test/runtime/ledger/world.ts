/** A ledger to try things on: a Datanet of made-up records that validators hold, a base model, three workers, and honest work. */

import { createHashing } from '../../../node/crypto/hashing.ts';
import { type KeyPair, signWith } from '../../../node/keystore/keys.ts';
import { derive } from '../../../node/keystore/secret-uri.ts';
import { NONE } from '../../../runtime/framework/dispatch.ts';
import type { GenesisConfig } from '../../../runtime/genesis.ts';
import * as blobs from '../../../runtime/pallets/ledger/blobs.ts';
import * as compute from '../../../runtime/pallets/ledger/compute.ts';
import * as datanets from '../../../runtime/pallets/ledger/datanets.ts';
import * as inference from '../../../runtime/pallets/ledger/inference.ts';
import * as models from '../../../runtime/pallets/ledger/models.ts';
import * as system from '../../../runtime/pallets/standard/system.ts';
import { MAX_ATTESTED_CLAIMS } from '../../../runtime/primitives/attribution/availability.ts';
import { hashOf } from '../../../runtime/primitives/attribution/canonical.ts';
import type { AdapterId, ClaimId, DatanetId, OrderId, SessionId } from '../../../runtime/primitives/attribution/ids.ts';
import {
  type InferenceReceipt,
  inferenceReceipt,
  type ReceiptBatch,
  receiptBatch,
  type TrainingReceipt,
  trainingReceipt,
  voucher,
} from '../../../runtime/primitives/attribution/receipts.ts';
import { batchRoot } from '../../../runtime/primitives/attribution/records.ts';
import { DEFAULT_RULES, receiptRules } from '../../../runtime/primitives/attribution/split.ts';
import { type TrainingConfig, trainingConfig } from '../../../runtime/primitives/attribution/training.ts';
import { attribute } from '../../../runtime/primitives/attribution/verify.ts';
import { TREASURY } from '../../../runtime/primitives/pallet-id.ts';
import { type AccountId, asAccountId, ZERO_HASH } from '../../../runtime/primitives/types.ts';
import { world as attributionWorld, someHash } from '../attribution/world.ts';
import { createWorld, genesisOf, make, OPEN } from '../pallets/world.ts';

export const hashing = createHashing();
export const key = (name: string): KeyPair => derive(`//${name}`, 'sr25519');
export const account = (name: string): AccountId => asAccountId(key(name).publicKey);
export const sign = (name: string, digest: Uint8Array) => ({
  type: 'Sr25519' as const,
  value: signWith(key(name), digest, hashing),
});

export const [owner, worker, second, third, payer, challenger] = [
  'Owner',
  'Worker',
  'Second',
  'Third',
  'Payer',
  'Finder',
].map(account) as [AccountId, AccountId, AccountId, AccountId, AccountId, AccountId];
export const facts = attributionWorld(7, { records: 60, contributors: 3 });
export const CONFIG: TrainingConfig = {
  rank: 8,
  alpha: 16,
  targets: 0b101,
  learningRate: 2_000_000,
  epochs: 2,
  steps: undefined,
  batch: 8,
  sequenceLength: 64,
  warmup: 100_000_000,
  weightDecay: 0,
  k: facts.k,
  sketchWidth: 16_384,
  block: 32,
  damping: 10_000_000,
  projectionRows: 1024,
  attributionLayers: 0,
  attributionStride: 1,
};
export const MARKUP = 250_000_000;
export const PRICE = { input: 1_000n, output: 10n ** 15n };
export const SIZES = {
  adapter: 1_000n,
  adapterConfig: 100n,
  checkpoint: 1_000n,
  eigenbases: 5_000n,
  projection: 6_000n,
  featureFile: 7_000n,
  sumFile: 8_000n,
  frequencyFile: 900n,
  segments: [],
};
export const CAPABILITIES = {
  training: true,
  serving: true,
  auditing: false,
  engine: 'test',
  memoryMiB: 1,
  baseModels: [0],
};
/** Validators whose attestations count; two of them are more than half. */
export const VALIDATORS = ['Alice', 'Bob', 'Charlie'].map((name) => ({
  account: account(`${name}//stash`),
  voter: derive(`//${name}`, 'ed25519'),
  aura: key(name).publicKey,
}));
/** Blocks until the window of work that nobody audits is over. */
export const WINDOW = 9;
export const WINDOWS = { attribution: { windowBlocks: 6 }, audits: { commitBlocks: 2, revealBlocks: 2 } };

/** A ledger with a Datanet of the facts' records, a base model and three workers. `people`: more accounts with OPEN. */
export async function ledger({
  others = WINDOWS as GenesisConfig['others'],
  validators = VALIDATORS,
  bond = 2_000n * OPEN,
  people: more = [] as readonly AccountId[],
} = {}) {
  const people = [owner, worker, second, third, payer, challenger, ...facts.accounts, ...more];
  const world = await createWorld(
    genesisOf({
      balances: [
        ...people.map((each) => ({ account: each, amount: 10_000n * OPEN })),
        { account: TREASURY, amount: OPEN },
      ],
      aura: { authorities: [], slotDurationMs: 3_000 },
      grandpa: { authorities: [] },
      session: validators.map(({ account: who, aura, voter }) => ({ account: who, aura, grandpa: voter.publicKey })),
      others,
    }),
  );
  const does = (who: AccountId, pallet: string, call: string, value?: unknown) => {
    const done = world.dispatch(make(pallet, call, value), who);
    if (done.error !== undefined) throw new Error(`${pallet}.${call}: ${done.error}`);
    return done.events;
  };
  const fails = (who: AccountId, pallet: string, call: string, value?: unknown) =>
    world.dispatch(make(pallet, call, value), who).error;

  /** Has validators attest claims (default: all that are not available yet), and the next block take up what came of it. */
  const attest = (claims?: readonly ClaimId[], many = validators.length) => {
    const missing = [...blobs.claims(world.host)].filter(([, { available }]) => !available).map(([id]) => id);
    const held = (claims ?? missing).slice(0, MAX_ATTESTED_CLAIMS);
    if (held.length === 0) return;
    for (const attester of blobs.attestersAmong(world.host, () => true).slice(0, many)) {
      if (attester.from > world.number()) world.next(attester.from);
      const { session, validator, sequence, account: by } = attester;
      const more = held.filter((id) => !blobs.isHolder(world.host, id, by));
      if (more.length === 0) continue;
      const attestation = {
        ...{ chain: system.blockHash(world.host, 0), session, validator, sequence },
        ...{ held: more, lost: [] },
      };
      const call = make('Blobs', 'attest', { attestation, signature: new Uint8Array(64) });
      const { error } = world.dispatch(call, NONE);
      if (error !== undefined) throw new Error(`Blobs.attest: ${error}`);
    }
    world.next();
  };
  const termsOf = (id: number) => datanets.datanetOf(world.host, id as DatanetId)!.terms;
  /** A contribution of made-up records, bound to whoever makes it. */
  const manifest = (by: AccountId, name: string, change: object = {}) => ({
    ...{ id: 0, terms: termsOf(0), blob: someHash(name), bytes: 300n, records: 1 },
    ...{ root: batchRoot(hashing, by, [someHash(`root of ${name}`)]), sketches: ZERO_HASH, maxStake: 10n * OPEN },
    ...change,
  });

  does(owner, 'Datanets', 'create', {
    name: 'glosses',
    description: 'Short explanations',
    schema: '{"type":"object"}',
    licence: 'CC-BY-4.0',
    admission: { type: 'Open' },
    stake: 10n * OPEN,
    dedupThreshold: 52_429,
    accessPrice: OPEN,
  });
  for (const range of facts.ranges) {
    does(range.contributor, 'Datanets', 'contribute', {
      id: 0,
      terms: termsOf(0),
      maxStake: 10n * OPEN,
      blob: someHash(`batch ${range.batch}`),
      bytes: BigInt(range.count * 100),
      records: range.count,
      root: range.root,
      sketches: ZERO_HASH,
    });
  }
  attest();
  does(owner, 'Datanets', 'snapshot', { id: 0, maxBatches: 100 });
  const file = (name: string) => ({ blob: someHash(name), bytes: 1_000n });
  does(owner, 'Models', 'register_base_model', {
    manifest: {
      name: 'tiny',
      licence: 'Apache-2.0',
      parameters: 1n,
      vocabulary: 40,
      config: file('config'),
      weights: file('weights'),
      tokenizer: file('tokenizer'),
    },
  });
  for (const each of [worker, second, third]) {
    does(each, 'Compute', 'register', { bond, capabilities: CAPABILITIES });
  }
  let orders = 0;
  const order = (change: object = {}) => ({
    name: `glossary-${orders++}`,
    datanet: 0,
    version: 0,
    terms: termsOf(0),
    maxAccessPrice: OPEN,
    storage: OPEN,
    baseModel: 0,
    config: CONFIG,
    trainingSeed: 5n,
    budget: 100n * OPEN,
    markup: MARKUP,
    price: PRICE,
    ...change,
  });
  /** The receipt that an honest worker would hand in under its lease. */
  const receiptFor = (id: OrderId, lease: compute.Lease): TrainingReceipt => {
    const ordered = models.orderOf(world.host, id);
    return {
      ...facts.training,
      chain: ZERO_HASH,
      order: id,
      lease: lease.id,
      nonce: lease.nonce,
      worker: lease.worker,
      snapshot: ordered.snapshot,
      baseModel: ordered.baseModel,
      baseModelHash: models.baseModelOf(world.host, ordered.baseModel).hash,
      configHash: hashOf(hashing, trainingConfig, CONFIG),
      trainingSeed: ordered.trainingSeed,
      basis: { ...facts.training.basis, sketchSeed: ordered.sketchSeed, rotationSeed: ordered.rotationSeed },
      features: {
        ...facts.training.features,
        featureFile: someHash('features'),
        sumFile: someHash('sums'),
        frequencyFile: someHash('frequencies'),
      },
    };
  };
  const signed = (name: string, receipt: TrainingReceipt) => ({
    payload: receipt,
    signature: sign(name, hashOf(hashing, trainingReceipt, receipt)),
  });
  /** Orders, and waits until the order's seeds are drawn. */
  const place = (by = owner, change: object = {}) => {
    const { drawDelay } = models.parameters.get(world.host);
    does(by, 'Models', 'order_training', order(change));
    world.next(world.number() + drawDelay);
  };
  /** Orders and trains; the window is open. */
  const train = (id = 0) => {
    place(owner);
    does(worker, 'Compute', 'take_lease', { order: id });
    const receipt = receiptFor(id as OrderId, compute.leaseOf(world.host, id as OrderId, worker));
    does(worker, 'Attribution', 'submit_training', { receipt: signed('Worker', receipt), sizes: SIZES });
    return receipt;
  };
  const wait = (blocks: number) => world.next(world.number() + blocks);
  /** A deposit, all of it for the worker. */
  const openSession = (deposit = 20n * OPEN) => {
    const all = deposit + inference.ENTRY_DEPOSIT;
    does(payer, 'Inference', 'open_session', { key: account('Session'), deposit: all });
    does(payer, 'Inference', 'allocate', { session: 0n, worker, amount: deposit });
  };
  /** Trains, waits the window out, serves, and opens a session that pays the worker. */
  const serve = (deposit?: bigint) => {
    const receipt = train();
    attest();
    wait(WINDOW);
    does(worker, 'Inference', 'serve', { adapter: 0 });
    openSession(deposit);
    return receipt;
  };
  /** Receipts with nonces from `first` on, as an honest worker makes them. */
  const answers = (training: TrainingReceipt, first: number, count: number, adapter = 0, spent?: bigint) => {
    const rules = receiptRules(DEFAULT_RULES, MARKUP);
    let cumulative = spent ?? inference.allocationOf(world.host, 0n as SessionId, worker)?.spent ?? 0n;
    return Array.from({ length: count }, (_, i) => {
      const { receipt } = facts.inference(first + i);
      const fee = PRICE.input * BigInt(receipt.tokensIn) + PRICE.output * BigInt(receipt.tokensOut);
      cumulative += fee;
      const promise = {
        chain: ZERO_HASH,
        session: 0n as SessionId,
        worker,
        nonce: BigInt(first + i),
        cumulative,
        most: fee,
        adapter: adapter as AdapterId,
        price: PRICE,
        markup: MARKUP,
        request: ZERO_HASH,
      };
      const pool = rules.poolOf(fee);
      const found = receipt.spans.map((span) => ({ ...span }));
      const split = attribute(facts.model, facts.model.influence(receipt.feature), found, pool, rules.blend);
      const payload: InferenceReceipt = {
        ...receipt,
        voucher: { payload: promise, signature: sign('Session', hashOf(hashing, voucher, promise)) },
        worker,
        lease: inference.servingOf(world.host, adapter as AdapterId, worker)!.lease,
        training: hashOf(hashing, trainingReceipt, training),
        fee,
        pool,
        spans: split.spans,
        shares: split.shares,
        remainder: split.remainder,
      };
      return { payload, signature: sign('Worker', hashOf(hashing, inferenceReceipt, payload)) };
    });
  };
  const batchOf = (receipts: ReturnType<typeof answers>) => {
    const { batch, sums } = facts.settle(receipts);
    return {
      sums,
      batch: {
        ...batch,
        chain: ZERO_HASH,
        worker,
        session: 0n as SessionId,
        adapter: batch.voucher.payload.adapter,
        blob: someHash(`receipts ${batch.firstNonce}`),
      } satisfies ReceiptBatch,
    };
  };
  const signedBatch = (batch: ReceiptBatch, name = 'Worker') => ({
    batch: { payload: batch, signature: sign(name, hashOf(hashing, receiptBatch, batch)) },
    bytes: 10_000n,
  });
  return {
    ...world,
    does,
    fails,
    attest,
    termsOf,
    manifest,
    place,
    order,
    receiptFor,
    signed,
    train,
    openSession,
    serve,
    wait,
    answers,
    batchOf,
    signedBatch,
  };
}
export type LedgerWorld = Awaited<ReturnType<typeof ledger>>;
