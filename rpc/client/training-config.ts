/** What a training order says when nobody says otherwise: for applications, the command line and the demo alike. */
import { LORA_MODULES, type TrainingConfig } from '../../runtime/primitives/attribution/training.ts';
import { PERBILL } from '../../runtime/primitives/types.ts';
import { LedgerError } from './errors.ts';

type LoraModule = (typeof LORA_MODULES)[number];

/** Choices of whoever orders; everything else has defaults that suit small models and some hundreds of records. */
export interface TrainingChoices {
  readonly rank?: number;
  readonly alpha?: number;
  /** PEFT names out of {@link LORA_MODULES}. */
  readonly targets?: readonly string[] | undefined;
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

/** They suit small models and some hundreds of records. `learningRate`: at its peak. */
export const TRAINING_DEFAULTS = {
  rank: 8,
  targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'],
  learningRate: 3e-3,
  epochs: 3,
  batch: 8,
  sequenceLength: 96,
  k: 256,
  sketchWidth: 65_536,
  attributionLayers: 0,
  attributionStride: 1,
} as const;

const OPEN = 10n ** 18n;

/** Terms of an order. `budget`: for the worker; `price`: a token; `markup`: the owner's part on top of every fee, 0 … 1. */
export const ORDER_DEFAULTS = {
  budget: 20n * OPEN,
  markup: 0.1,
  price: { input: OPEN / 10_000n, output: OPEN / 1_000n },
} as const;

/** The decomposition's work grows with the cube: more rows than this say little more. */
const PROJECTION_ROWS = 1_024;

const isModule = (name: string): name is LoraModule => LORA_MODULES.some((each) => each === name);

/** Throws a LedgerError `BAD_TARGET`. */
export function trainingConfigOf(choices: TrainingChoices = {}): TrainingConfig {
  const { targets = TRAINING_DEFAULTS.targets } = choices;
  const bits = targets.map((name) => {
    if (!isModule(name)) throw new LedgerError('BAD_TARGET', `${name} is none of ${LORA_MODULES.join(', ')}`);
    return 1 << LORA_MODULES.indexOf(name);
  });
  const { rank = TRAINING_DEFAULTS.rank, k = TRAINING_DEFAULTS.k } = choices;
  return {
    rank,
    alpha: choices.alpha ?? 2 * rank,
    targets: bits.reduce((all, bit) => all | bit, 0),
    learningRate: Math.round((choices.learningRate ?? TRAINING_DEFAULTS.learningRate) * 1e9),
    epochs: choices.epochs ?? TRAINING_DEFAULTS.epochs,
    steps: choices.steps,
    batch: choices.batch ?? TRAINING_DEFAULTS.batch,
    sequenceLength: choices.sequenceLength ?? TRAINING_DEFAULTS.sequenceLength,
    warmup: PERBILL / 10,
    weightDecay: 0,
    k,
    sketchWidth: choices.sketchWidth ?? TRAINING_DEFAULTS.sketchWidth,
    block: 32,
    damping: PERBILL / 100,
    projectionRows: Math.max(PROJECTION_ROWS, k),
    attributionLayers: choices.attributionLayers ?? TRAINING_DEFAULTS.attributionLayers,
    attributionStride: choices.attributionStride ?? TRAINING_DEFAULTS.attributionStride,
  };
}
