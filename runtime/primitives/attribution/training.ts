/** What a training order fixes: the base model by its files, and every setting that the result depends on. */
import { compact, type Infer, option, struct, text, u8, u16, u32, u64, vec } from '../scale/codec.ts';
import { PERBILL, perbill } from '../types.ts';
import { canonical, part } from './canonical.ts';
import { blobHash } from './ids.ts';
import { MAX_ATTRIBUTION_STRIDE, MAX_K, MAX_SEGMENTS, MIN_SEGMENT_STEPS } from './limits.ts';

const modelFile = part('ModelFile', struct({ blob: blobHash, bytes: u64 }));

/** A base model in Hugging Face layout. Its hash stands in every training receipt. */
export const baseModelManifest = canonical(
  'base-model/1',
  'BaseModelManifest',
  struct({
    name: text(128),
    /** SPDX identifier or URL. */
    licence: text(128),
    parameters: u64,
    vocabulary: u32,
    config: modelFile,
    weights: modelFile,
    tokenizer: modelFile,
  }),
);
export type BaseModelManifest = Infer<typeof baseModelManifest>;

/** Names of PEFT's target modules; bit `i` of `targets` chooses the i-th. */
export const LORA_MODULES = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const;

export const trainingConfig = canonical(
  'training-config/1',
  'TrainingConfig',
  struct({
    rank: u16,
    alpha: u16,
    targets: u8,
    /** In units of 10^−9. */
    learningRate: u32,
    epochs: u16,
    /** In place of epochs. */
    steps: option(u32),
    batch: u16,
    sequenceLength: u16,
    /** Part of the steps over which the rate rises. */
    warmup: perbill,
    /** In units of 10^−9. */
    weightDecay: u32,
    /** Entries of a feature row, buckets of the sketch, width of the blocks that get an eigenbasis each. */
    k: u16,
    sketchWidth: u32,
    block: u16,
    /** Part of Λ's mean that damps the preconditioner. */
    damping: perbill,
    /** Rows that V_k is computed from, at most. */
    projectionRows: u32,
    /** The last so many transformer layers' LoRA matrices carry attribution; 0, or more than the model has: all. */
    attributionLayers: u16,
    /**
     * Of an answer, the tokens t ≡ 0 modulo this bear the loss of its gradient (t from 0; 1: all of them). Records' gradients
     * take all tokens.
     */
    attributionStride: u16,
  }),
);
export type TrainingConfig = Infer<typeof trainingConfig>;

export type ConfigFault = 'LORA' | 'OPTIMISER' | 'FEATURES';

/** What no engine could train with (`undefined`: nothing). */
export function configFault(config: TrainingConfig): ConfigFault | undefined {
  const { rank, alpha, targets, learningRate, epochs, steps, batch, sequenceLength, warmup } = config;
  if (rank < 1 || rank > 256 || alpha < 1 || targets < 1 || targets >= 1 << LORA_MODULES.length) return 'LORA';
  if (learningRate < 1 || batch < 1 || sequenceLength < 8 || warmup > PERBILL) return 'OPTIMISER';
  if (steps === undefined ? epochs < 1 : steps < 1) return 'OPTIMISER';
  const { k, sketchWidth, block, damping, projectionRows } = config;
  const powerOfTwo = sketchWidth >= 256 && sketchWidth <= 1 << 20 && (sketchWidth & (sketchWidth - 1)) === 0;
  if (k < 1 || k > MAX_K || k > sketchWidth || !powerOfTwo) return 'FEATURES';
  if (block < 8 || block > 256 || damping < 1 || damping > PERBILL || projectionRows < k) return 'FEATURES';
  const { attributionStride } = config;
  return attributionStride < 1 || attributionStride > MAX_ATTRIBUTION_STRIDE ? 'FEATURES' : undefined;
}

/** The first layer, of a model with `layers`, whose matrices carry attribution. */
export const attributedLayer = ({ attributionLayers }: TrainingConfig, layers: number): number =>
  attributionLayers === 0 ? 0 : Math.max(0, layers - attributionLayers);

/**
 * Steps of a segment. `records`: of the snapshot; those that are copies are left out, so that a training may have fewer steps
 * than this goes by, and fewer segments. A multiple of 8, so that workers can keep checkpoints of their own in between.
 */
export function segmentSteps({ steps, epochs, batch }: TrainingConfig, records: number): number {
  const most = steps ?? epochs * Math.ceil(records / batch);
  return Math.ceil(Math.max(MIN_SEGMENT_STEPS, most / MAX_SEGMENTS) / 8) * 8;
}

/** Bytes of the files that a training run publishes, in the order of the receipt's hashes. */
export const artifactSizes = part(
  'ArtifactSizes',
  struct({
    adapter: compact(u64),
    adapterConfig: compact(u64),
    checkpoint: compact(u64),
    eigenbases: compact(u64),
    projection: compact(u64),
    featureFile: compact(u64),
    sumFile: compact(u64),
    frequencyFile: compact(u64),
    segments: vec(compact(u64), MAX_SEGMENTS - 1),
  }),
);
export type ArtifactSizes = Infer<typeof artifactSizes>;
