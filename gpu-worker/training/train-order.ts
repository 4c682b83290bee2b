/**
 * A training order from records to receipt (docs/method.md, steps 1–6): adapter, features of every record at the mid-run
 * checkpoint, their commitment. Pure but for the engine: leases, files and signatures are the caller's.
 */
import { type Blake, hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { blobName, commitRows, type RowSource } from '../../runtime/primitives/attribution/commitment.ts';
import type { BaseModelId, LeaseId, OrderId } from '../../runtime/primitives/attribution/ids.ts';
import { MAX_RECORD_TOKENS, NOVELTY_ONE } from '../../runtime/primitives/attribution/limits.ts';
import type { LossSummary, SnapshotRef, TrainingReceipt } from '../../runtime/primitives/attribution/receipts.ts';
import {
  type ArtifactSizes,
  attributedLayer,
  LORA_MODULES,
  segmentSteps,
  type TrainingConfig,
  trainingConfig,
} from '../../runtime/primitives/attribution/training.ts';
import { utf8 } from '../../runtime/primitives/bytes.ts';
import { type AccountId, type Hash, PERBILL } from '../../runtime/primitives/types.ts';
import { writeEigenbases, writeProjection } from '../attribution/basis-files.ts';
import { creditNovelty, type Novelty, NoveltyIndex } from '../attribution/novelty.ts';
import { suffixIndex } from '../attribution/suffix-index.ts';
import type { FitPhase, LoadedModel, LoraSettings, TrainingProgress, TrainingSettings } from '../engines/engine.ts';
import { type FittedFeatures, fitFeatures } from '../engines/features.ts';
import { cutExample, recordExample } from './examples.ts';

/** The order as the chain has it, with the lease and the records. */
export interface TrainingAssignment {
  readonly chain: Hash;
  readonly order: OrderId;
  readonly lease: LeaseId;
  readonly nonce: Uint8Array;
  readonly worker: AccountId;
  readonly snapshot: SnapshotRef;
  readonly baseModel: BaseModelId;
  readonly baseModelHash: Hash;
  readonly baseName: string;
  readonly config: TrainingConfig;
  readonly trainingSeed: bigint;
  readonly sketchSeed: bigint;
  readonly rotationSeed: bigint;
  /** Overlap from which on records count as duplicates, in units of 2^−16. */
  readonly dedupThreshold: number;
  /** Lines in the order of the snapshot, each with whose it is. */
  readonly records: readonly { readonly line: Uint8Array; readonly contributor: AccountId }[];
}

export type TrainingPhase = 'novelty' | 'training' | FitPhase;

/** Where training can go on from: the engine's own state, the losses of the steps before, the states that are published. */
export interface TrainingCheckpoint {
  readonly state: Uint8Array;
  readonly losses: readonly number[];
  readonly segments: readonly Uint8Array[];
}

export interface TrainingWatch {
  readonly signal?: AbortSignal;
  /** `done`: 0 … 1 of the phase. */
  phase?(phase: TrainingPhase, done: number): void;
  progress?(progress: TrainingProgress): void;
  /** Whether every machine would get the same bits, so that states are published for audits to go from one to the next. */
  readonly exact?: boolean;
  /** What to go on from after a crash: the result is the same to the last bit. */
  readonly resume?: TrainingCheckpoint;
  /** Hears what to go on from, every so many steps. */
  readonly checkpoints?: {
    readonly every: number;
    keep(checkpoint: TrainingCheckpoint): Promise<void>;
  };
}

export interface TrainedOrder {
  readonly receipt: TrainingReceipt;
  readonly sizes: ArtifactSizes;
  /** All published files, by name (blake2b-256). */
  readonly files: readonly { readonly hash: Hash; readonly bytes: Uint8Array }[];
}

export const loraOf = (config: TrainingConfig): LoraSettings => ({
  rank: config.rank,
  alpha: config.alpha,
  targets: LORA_MODULES.filter((_, bit) => config.targets & (1 << bit)),
});

export const settingsOf = (config: TrainingConfig, seed: bigint, checkpointEvery?: number): TrainingSettings => ({
  lora: loraOf(config),
  learningRate: config.learningRate / 1e9,
  epochs: config.epochs,
  ...(config.steps !== undefined && { steps: config.steps }),
  batch: config.batch,
  sequenceLength: config.sequenceLength,
  warmup: config.warmup / PERBILL,
  weightDecay: config.weightDecay / 1e9,
  seed,
  ...(checkpointEvery !== undefined && { checkpointEvery }),
});

/** Often enough for the worker, and after every segment. */
function checkpointEvery(segment: number, { exact, checkpoints }: TrainingWatch): number | undefined {
  if (!exact) return checkpoints?.every;
  let every = Math.min(segment, checkpoints?.every ?? segment);
  while (segment % every !== 0) every--;
  return every;
}

/** Files that every training publishes; the states follow. */
const PUBLISHED = 8;

/** Losses travel in units of 2^−16 nats. */
const fixed = (loss: number): number => Math.min(0xffffffff, Math.round(loss * 65_536));

/** The seed of MinHash: the low half of the sketch's, drawn after the data was committed as well. */
export const noveltySeed = (sketchSeed: bigint): number => Number(sketchSeed & 0xffffffffn);

/** ν of each record by its text: what it trains with. `texts`: UTF-8, in the order of the snapshot. */
export function textNovelties(
  texts: readonly Uint8Array[],
  { sketchSeed, dedupThreshold }: { readonly sketchSeed: bigint; readonly dedupThreshold: number },
  progress?: (done: number) => void,
): Novelty[] {
  const index = new NoveltyIndex(noveltySeed(sketchSeed), dedupThreshold, (at) => texts[at]!);
  return texts.map((text, at) => {
    progress?.(at / texts.length);
    return index.add(text);
  });
}

export async function trainOrder(
  hashing: Blake,
  model: LoadedModel,
  assignment: TrainingAssignment,
  watch: TrainingWatch = {},
): Promise<TrainedOrder> {
  const { config, records } = assignment;
  const { tokenizer } = model;
  const examples = records.map(({ line }) => recordExample(tokenizer, line));

  const texts = examples.map(({ text }) => utf8(text));
  const novelties = textNovelties(texts, assignment, (done) => watch.phase?.('novelty', done));

  const { resume, checkpoints } = watch;
  const losses: number[] = [...(resume?.losses ?? [])];
  const segments: Uint8Array[] = [...(resume?.segments ?? [])];
  const segment = segmentSteps(config, records.length);
  const every = checkpointEvery(segment, watch);
  let total = 0;
  const outcome = await model.train(
    {
      settings: settingsOf(config, assignment.trainingSeed, every),
      examples: examples.map(({ example }) => example),
      weights: novelties.map(({ novelty }) => novelty / NOVELTY_ONE),
      baseName: assignment.baseName,
      ...(resume !== undefined && { resume: resume.state }),
    },
    {
      ...(watch.signal !== undefined && { signal: watch.signal }),
      progress(each) {
        losses.push(each.loss);
        total = each.total;
        watch.progress?.(each);
        watch.phase?.('training', each.step / each.total);
      },
      ...(every !== undefined && {
        async checkpoint(state, step) {
          if (watch.exact && step % segment === 0 && step < total) segments.push(state);
          await checkpoints?.keep({ state, losses: losses.slice(0, step), segments: [...segments] });
        },
      }),
    },
  );

  const cut = examples.map(({ example }) => cutExample(example, config.sequenceLength));
  const checkpoint = await model.openAdapter(outcome.attribution);
  let fitted: FittedFeatures;
  try {
    const settings = {
      k: Math.min(config.k, records.length),
      sketchWidth: config.sketchWidth,
      sketchSeed: assignment.sketchSeed,
      rotationSeed: assignment.rotationSeed,
      damping: config.damping / PERBILL,
      projectionRows: config.projectionRows,
    };
    fitted = await fitFeatures(model, cut, checkpoint, settings, {
      ...(watch.signal !== undefined && { signal: watch.signal }),
      fromLayer: attributedLayer(config, model.info.layers),
      block: config.block,
      progress: (phase, done) => watch.phase?.(phase, done),
    });
  } finally {
    await checkpoint.close();
  }
  const { bases, rows: kept } = fitted;
  const { k } = bases.projection;

  const { frequencies } = suffixIndex(
    examples.map(({ tokens }) => tokens),
    tokenizer.vocabulary,
  );
  const credited = await creditNovelty(kept, novelties, texts, watch.signal);
  const sources: RowSource[] = records.map(({ line, contributor }, at) => ({
    line,
    contributor,
    tokens: examples[at]!.tokens.slice(0, MAX_RECORD_TOKENS),
    ...credited[at]!,
    ...kept[at]!,
  }));
  const { commitment, files } = commitRows(hashing, k, sources, frequencies);

  const published = [
    outcome.adapter.weights,
    outcome.adapter.config,
    outcome.attribution.weights,
    writeEigenbases(bases.layout, bases.eigenbases),
    writeProjection(bases.projection),
    files.features,
    files.sums,
    files.frequencies,
    ...segments,
  ].map((bytes) => ({ hash: blobName(hashing, bytes), bytes }));
  const [adapter, adapterConfig, theta, eigen, directions] = published.map(({ hash }) => hash) as [
    Hash,
    Hash,
    Hash,
    Hash,
    Hash,
  ];
  const loss: LossSummary = {
    first: fixed(losses[0] ?? outcome.loss),
    last: fixed(outcome.loss),
    best: fixed(losses.reduce((best, each) => Math.min(best, each), losses[0] ?? outcome.loss)),
    heldOutBase: undefined,
    heldOut: undefined,
    steps: outcome.steps,
    tokens: BigInt(outcome.tokens),
  };
  const receipt: TrainingReceipt = {
    chain: assignment.chain,
    order: assignment.order,
    lease: assignment.lease,
    nonce: assignment.nonce,
    worker: assignment.worker,
    snapshot: assignment.snapshot,
    baseModel: assignment.baseModel,
    baseModelHash: assignment.baseModelHash,
    configHash: hashOf(hashing, trainingConfig, config),
    trainingSeed: assignment.trainingSeed,
    adapter,
    adapterConfig,
    basis: {
      checkpoint: theta,
      eigenbases: eigen,
      projection: directions,
      sketchSeed: assignment.sketchSeed,
      rotationSeed: assignment.rotationSeed,
      sketchWidth: config.sketchWidth,
      k,
    },
    features: commitment,
    segments: published.slice(PUBLISHED).map(({ hash }) => hash),
    loss,
  };
  const lengths = published.map(({ bytes }) => BigInt(bytes.length));
  const sizes: ArtifactSizes = {
    adapter: lengths[0]!,
    adapterConfig: lengths[1]!,
    checkpoint: lengths[2]!,
    eigenbases: lengths[3]!,
    projection: lengths[4]!,
    featureFile: lengths[5]!,
    sumFile: lengths[6]!,
    frequencyFile: lengths[7]!,
    segments: lengths.slice(PUBLISHED),
  };
  return { receipt, sizes, files: published };
}
