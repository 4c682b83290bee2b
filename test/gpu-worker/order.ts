/** A small training order with an engine but without a chain, and answers of its adapter. */
import { fileURLToPath } from 'node:url';
import { embeddedEngine } from '../../gpu-worker/engines/embedded/engine.ts';
import { type Engine, LORA_TARGETS, type LoadedModel } from '../../gpu-worker/engines/engine.ts';
import { type AdapterMaterial, type AnswerRequest, ServedAdapter } from '../../gpu-worker/serving/served-adapter.ts';
import { transcript } from '../../gpu-worker/serving/transcript.ts';
import { receiptsBatch } from '../../gpu-worker/settlement/receipt-batch.ts';
import {
  type TrainedOrder,
  type TrainingAssignment,
  type TrainingWatch,
  trainOrder,
} from '../../gpu-worker/training/train-order.ts';
import { createHashing } from '../../node/crypto/hashing.ts';
import { type KeyPair, signWith } from '../../node/keystore/keys.ts';
import { derive } from '../../node/keystore/secret-uri.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import type {
  AdapterId,
  BaseModelId,
  DatanetId,
  LeaseId,
  OrderId,
  SessionId,
} from '../../runtime/primitives/attribution/ids.ts';
import {
  type InferenceReceipt,
  inferenceReceipt,
  type SignedInferenceReceipt,
  voucher,
} from '../../runtime/primitives/attribution/receipts.ts';
import { recordLine } from '../../runtime/primitives/attribution/records.ts';
import { type RequestTerms, requestTerms } from '../../runtime/primitives/attribution/request.ts';
import { DEFAULT_RULES, receiptRules } from '../../runtime/primitives/attribution/split.ts';
import type { TrainingConfig } from '../../runtime/primitives/attribution/training.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { encode } from '../../runtime/primitives/scale/codec.ts';
import { type AccountId, asAccountId, asHash, ZERO_HASH } from '../../runtime/primitives/types.ts';

export const GLOSSA = fileURLToPath(new URL('../../gpu-worker/models/glossa-3m', import.meta.url));
export const hashing = createHashing();
const key = (name: string): KeyPair => derive(`//${name}`, 'sr25519');
export const account = (name: string): AccountId => asAccountId(key(name).publicKey);
export const sign = (name: string, digest: Uint8Array) => ({
  type: 'Sr25519' as const,
  value: signWith(key(name), digest, hashing),
});

const WORDS = ['pear', 'fig', 'plum', 'quince', 'lime', 'date', 'olive', 'sloe', 'medlar', 'mango', 'guava', 'papaya'];
const CONTRIBUTORS = ['Ada', 'Ben', 'Cid'];
/** Two records a word, by three contributors in turn. */
export const RECORDS = WORDS.flatMap((word, i) => [
  { line: recordLine({ prompt: `What is a ${word}?`, response: `A ${word} is fruit number ${i} of the garden.` }) },
  { line: recordLine({ prompt: `Where grows the ${word}?`, response: `The ${word} grows on the tree in row ${i}.` }) },
]).map(({ line }, i) => ({ line, contributor: account(CONTRIBUTORS[i % 3]!) }));

export const CONFIG: TrainingConfig = {
  rank: 4,
  alpha: 8,
  targets: (1 << LORA_TARGETS.indexOf('q_proj')) | (1 << LORA_TARGETS.indexOf('v_proj')),
  learningRate: 10_000_000,
  epochs: 1,
  steps: 10,
  batch: 4,
  sequenceLength: 64,
  warmup: 100_000_000,
  weightDecay: 0,
  k: 16,
  sketchWidth: 1024,
  block: 32,
  damping: 10_000_000,
  projectionRows: 64,
  attributionLayers: 0,
  attributionStride: 1,
};

export const ASSIGNMENT: TrainingAssignment = {
  chain: ZERO_HASH,
  order: 1 as OrderId,
  lease: 2n as LeaseId,
  nonce: new Uint8Array(32).fill(3),
  worker: account('Worker'),
  snapshot: { datanet: 0 as DatanetId, version: 0, root: ZERO_HASH, count: RECORDS.length },
  baseModel: 0 as BaseModelId,
  baseModelHash: asHash(new Uint8Array(32).fill(4)),
  baseName: 'glossa-3m',
  config: CONFIG,
  trainingSeed: 11n,
  sketchSeed: 12n,
  rotationSeed: 13n,
  dedupThreshold: 52_429,
  records: RECORDS,
};

export async function startEngine(): Promise<{ readonly engine: Engine; readonly model: LoadedModel }> {
  const engine = await embeddedEngine();
  return { engine, model: await engine.load(GLOSSA) };
}

/** A published file of a training by its name. */
export const fileOf =
  ({ files }: TrainedOrder) =>
  async (name: Uint8Array): Promise<Uint8Array> =>
    files.find(({ hash }) => equalBytes(hash, name))!.bytes;

/** What is published of a training. */
export function materialOf({ receipt, files }: TrainedOrder, config: TrainingConfig = CONFIG): AdapterMaterial {
  const bytes = files.map((each) => each.bytes);
  const [adapter, adapterConfig, checkpoint, eigenbases] = bytes as [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
  const [projection, features, sums, frequencies] = bytes.slice(4) as typeof bytes &
    [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
  return {
    training: receipt,
    config,
    adapter,
    adapterConfig,
    checkpoint,
    eigenbases,
    projection,
    files: { features, sums, frequencies },
    lines: RECORDS.map(({ line }) => line),
  };
}

export const train = (
  model: LoadedModel,
  change: Partial<TrainingAssignment> = {},
  watch: TrainingWatch = { exact: true },
): Promise<TrainedOrder> => trainOrder(hashing, model, { ...ASSIGNMENT, ...change }, watch);

const PRICE = { input: 10n ** 12n, output: 10n ** 14n };
export const RULES = receiptRules(DEFAULT_RULES, 250_000_000);

/** What an application asks; `nonce` tells one request from another. */
export function request(nonce: bigint, change: Partial<RequestTerms> = {}, by = 'Session'): AnswerRequest {
  const terms: RequestTerms = {
    input: { type: 'Text', value: '<|begin|><|user|>What is a quince?<|assistant|>' },
    maxTokens: 24,
    temperature: 0,
    topP: 1_000_000_000,
    seed: 5n,
    stop: [],
    ...change,
  };
  const payload = {
    chain: ZERO_HASH,
    session: 0n as SessionId,
    worker: account('Worker'),
    nonce,
    cumulative: nonce * 10n ** 17n,
    most: 10n ** 17n,
    adapter: 0 as AdapterId,
    price: PRICE,
    markup: 250_000_000,
    request: hashOf(hashing, requestTerms, terms),
  };
  return { voucher: { payload, signature: sign(by, hashOf(hashing, voucher, payload)) }, ...terms };
}

export const signReceipt = (payload: InferenceReceipt, by = 'Worker'): SignedInferenceReceipt => ({
  payload,
  signature: sign(by, hashOf(hashing, inferenceReceipt, payload)),
});

/** An answer with its signed receipt, and what a worker would disclose of it. */
export async function answer(served: ServedAdapter, asked: AnswerRequest) {
  const { voucher: _, ...terms } = asked;
  const made = await served.answer(asked, { worker: account('Worker'), lease: 9n as LeaseId, rules: RULES });
  const said = { request: terms, text: made.text, tokens: [...made.tokens] };
  return { ...made, receipt: signReceipt(made.receipt), said, disclosed: encode(transcript, said) };
}

/** As an auditor gets it: a batch with its file, `item` of which is looked at. */
export function batchCase(receipts: readonly SignedInferenceReceipt[], item = 0) {
  return { ...receiptsBatch(hashing, receipts), item, sessionKey: account('Session'), rules: RULES, exact: true };
}

export const open = (model: LoadedModel, material: AdapterMaterial): Promise<ServedAdapter> =>
  ServedAdapter.open(hashing, model, material);

/** Methods of a model that keep to it: it has private fields. */
export function forwarding(model: LoadedModel): LoadedModel {
  return {
    info: model.info,
    tokenizer: model.tokenizer,
    openAdapter: (files) => model.openAdapter(files),
    train: (job, hooks) => model.train(job, hooks),
    generate: (asked, hooks) => model.generate(asked, hooks),
    losses: (examples, adapter, signal) => model.losses(examples, adapter, signal),
    layout: (lora, options) => model.layout(lora, options),
    gradients: (examples, adapter, options) => model.gradients(examples, adapter, options),
    covariances: (examples, adapter, options) => model.covariances(examples, adapter, options),
    metrics: () => model.metrics(),
    close: () => model.close(),
  };
}
