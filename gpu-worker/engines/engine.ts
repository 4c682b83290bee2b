/**
 * What a worker asks of an engine. Two implement it: `embedded` (TypeScript and WebAssembly, CPU, nothing to install) and
 * `torch` (a Python child process). Everything that crosses is text, token ids, PEFT files or plain float arrays, so that
 * either may live in another thread or process.
 *
 * **Gradients.** The gradient of an example is that of its *mean* loss over its response tokens (`Example.from` on; with a
 * stride m over those at 0, m, 2m …) with respect to the LoRA matrices of an adapter. Its layout is `gradientLayout` of `attribution/layout.ts`, no other: all
 * matrices one after the other, ascending by PEFT name (UTF-16 units), each `[rank][hidden]` row-major:
 * - `base_model.model.model.layers.{l}.self_attn.{q,k,v,o}_proj.lora_{A,B}.weight`,
 *   `base_model.model.model.layers.{l}.mlp.{gate,up,down}_proj.lora_{A,B}.weight` for each target module of the adapter;
 * - `lora_A` is stored by PEFT as `[rank, in]` and laid out so; hidden = in;
 * - `lora_B` is stored by PEFT as `[out, rank]` and laid out **transposed**, `[rank, out]`; hidden = out.
 *   Ascending names put layer 10 before layer 2; use {@link LoadedModel.layout}, never a count of your own.
 */
import type { FeatureBases, FeatureSettings, Projected } from '../attribution/extractor.ts';
import type { GradientLayout } from '../attribution/layout.ts';
import type { MatrixCovariance } from '../attribution/precondition.ts';

export type EngineKind = 'embedded' | 'torch' | 'vllm';

export interface ModelInfo {
  /** `LlamaForCausalLM` … as in config.json. */
  readonly architecture: string;
  /** Name for people, from the directory or the config. */
  readonly name: string;
  readonly parameters: number;
  readonly vocabulary: number;
  readonly width: number;
  readonly layers: number;
  readonly maxPositions: number;
  /** Hex SHA-256 of the files as they lie in the directory. */
  readonly files: { readonly config: string; readonly weights: string; readonly tokenizer: string };
}

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

/** Text to token ids and back. Pure and synchronous: it runs in the caller's thread, whatever the engine is. */
export interface ModelTokenizer {
  readonly vocabulary: number;
  readonly bos: number | undefined;
  /** Ids that end a generation. */
  readonly eos: readonly number[];
  /** Without special tokens, except those spelt out in `text`. */
  encode(text: string): number[];
  /** `skipSpecial` (default true) leaves special tokens out of the text. */
  decode(ids: readonly number[], skipSpecial?: boolean): string;
  /**
   * Ids with the half-open range of UTF-16 units of `text` that each covers (for spans that people see). A character of
   * several tokens belongs to all of them.
   */
  offsets(text: string): { readonly ids: number[]; readonly starts: number[]; readonly ends: number[] };
  /** The model's chat template applied; with `answer` (default true) the opening of the assistant's turn follows. */
  chat(messages: readonly ChatMessage[], answer?: boolean): string;
  /** A question and its answer as the template puts them, the end-of-text token behind the answer. */
  question(prompt: string, response: string): Example;
  /** Plain text, every token but the first counting: begin token if the model has one, text, end token. */
  plain(text: string): Example;
}

/** Token ids, of which those from index `from` (≥ 1) on are the response: they bear the loss. */
export interface Example {
  readonly tokens: readonly number[];
  readonly from: number;
}

// ---- adapters --------------------------------------------------------------------------------------------------------

export const LORA_TARGETS = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] as const;
export type LoraTarget = (typeof LORA_TARGETS)[number];

export interface LoraSettings {
  readonly rank: number;
  readonly alpha: number;
  readonly targets: readonly LoraTarget[];
}

/** A PEFT adapter's two files, byte for byte: what is published, hashed and loaded. */
export interface AdapterFiles {
  readonly config: Uint8Array;
  readonly weights: Uint8Array;
}

/** An adapter in the engine's memory. `lora` is what its config said. */
export interface Adapter {
  readonly lora: LoraSettings;
  readonly bytes: number;
  close(): Promise<void>;
}

// ---- training --------------------------------------------------------------------------------------------------------

export interface TrainingSettings {
  readonly lora: LoraSettings;
  readonly learningRate: number;
  /** Passes over the examples; ignored when `steps` is given. */
  readonly epochs: number;
  readonly steps?: number;
  /** Examples a step. */
  readonly batch: number;
  /** Tokens an example at most; longer ones are cut at the end. */
  readonly sequenceLength: number;
  /** Part of the steps over which the rate rises from 0; it then falls to 0 along a cosine. */
  readonly warmup: number;
  readonly weightDecay?: number;
  readonly betas?: readonly [number, number];
  /** Gradient norm is clipped to this (default 1; 0 is off). */
  readonly clip?: number;
  /** u64: initial factors and order of the examples. */
  readonly seed: bigint;
  /** Steps between checkpoints (default: none). */
  readonly checkpointEvery?: number;
}

export interface TrainingJob {
  readonly settings: TrainingSettings;
  readonly examples: readonly Example[];
  /** ν of each example, 0 … 1 (novelty): multiplies its loss; those of 0 are left out. Default 1. */
  readonly weights?: ArrayLike<number>;
  /** A checkpoint of this very job to go on from; the result is the same to the last bit. */
  readonly resume?: Uint8Array;
  /** What `base_model_name_or_path` of the adapter shall say (default: the model's name). */
  readonly baseName?: string;
}

export interface TrainingProgress {
  readonly step: number;
  readonly total: number;
  /** Mean loss a response token of this step's batch. */
  readonly loss: number;
  readonly learningRate: number;
  /** Since the last report. */
  readonly tokensPerSecond: number;
}

export interface TrainingHooks {
  readonly signal?: AbortSignal;
  progress?(progress: TrainingProgress): void;
  /** Opaque bytes, engine-specific, complete for `resume`. Training waits until it is stored. */
  checkpoint?(state: Uint8Array, step: number): Promise<void> | void;
}

export interface TrainingOutcome {
  readonly adapter: AdapterFiles;
  /** θₐ: the adapter at mid-run (after ⌈steps/2⌉ of them), from which features are taken. */
  readonly attribution: AdapterFiles;
  readonly steps: number;
  readonly tokens: number;
  /** Mean over the last epoch's worth of steps. */
  readonly loss: number;
  readonly milliseconds: number;
}

// ---- serving ---------------------------------------------------------------------------------------------------------

export interface GenerationRequest {
  readonly adapter?: Adapter;
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  /** 0 is greedy. */
  readonly temperature: number;
  readonly topP: number;
  /** u64; the same request gives the same tokens whatever else is in the batch (embedded engine). */
  readonly seed: bigint;
  /** Generation ends before the first of these in the text; at most 16. */
  readonly stop?: readonly string[];
}

export interface GeneratedToken {
  readonly id: number;
  readonly index: number;
  /** Text that is final now: held back while it is an incomplete character or may begin a stop sequence. */
  readonly delta: string;
}

export type FinishReason = 'stop' | 'length' | 'aborted';

export interface Generation {
  /** All ids that were sampled, an end token or the tokens of a stop sequence included. */
  readonly tokens: readonly number[];
  /** Without end token and stop sequence: the concatenation of all deltas. */
  readonly text: string;
  readonly finish: FinishReason;
  readonly promptTokens: number;
  readonly firstTokenMilliseconds: number;
  readonly milliseconds: number;
}

export interface GenerationHooks {
  /** Aborting ends the generation with what there is (`finish: 'aborted'`); it does not reject. */
  readonly signal?: AbortSignal;
  token?(token: GeneratedToken): void;
}

export interface ServingLimits {
  /** Sequences decoded at a time. */
  readonly batch: number;
  /** Requests that may wait; beyond it `OVERLOADED`. */
  readonly queue: number;
}

export interface EngineMetrics {
  readonly active: number;
  readonly waiting: number;
  readonly adapters: number;
  readonly generatedTokens: number;
  readonly promptTokens: number;
  readonly memoryBytes: number;
  /** How many adapters each tier holds, where an engine has tiers: what is in device memory is in the others too, as a rule. */
  readonly tiers?: { readonly device: number; readonly host: number; readonly disk: number };
  /** Engine processes that took over from one that died. */
  readonly restarts?: number;
}

/** What one adapter did since the engine process began. Sums, not means. */
export interface AdapterMetrics {
  /** In the order in which they were opened, from 1. */
  readonly adapter: number;
  /** Where it lies now: the fastest tier that holds it. */
  readonly tier: 'device' | 'host' | 'disk';
  readonly requests: number;
  readonly promptTokens: number;
  readonly generatedTokens: number;
  /** Where it lay when a request came. */
  readonly hits: { readonly device: number; readonly host: number; readonly disk: number };
  /** From request to a place in the batch. */
  readonly waitedMilliseconds: number;
  /** From request to first token. */
  readonly firstTokenMilliseconds: number;
}

// ---- gradients -------------------------------------------------------------------------------------------------------

export interface GradientOptions {
  readonly signal?: AbortSignal;
  /** Only the matrices of this and later layers (default 0): cheaper, since the backward pass ends there. */
  readonly fromLayer?: number;
}

export interface ExampleGradientOptions extends GradientOptions {
  /** Response token t (from 0) bears the loss where t ≡ 0 modulo this (default 1: every one does). */
  readonly stride?: number;
}

export interface ExampleGradient {
  readonly index: number;
  /** Gradient of the example's mean loss, in {@link LoadedModel.layout}'s order. Its own copy. */
  readonly gradient: Float32Array;
  readonly loss: number;
  /** Response tokens it is the mean over: those that bear the loss. */
  readonly tokens: number;
}

// ---- features --------------------------------------------------------------------------------------------------------

/** Bases opened on an engine's device. */
export interface FeatureReader {
  /**
   * Of each example, in order, what the bases make of its gradient, which stays where it is. `BAD_REQUEST` when they are of other
   * matrices than the adapter has from `fromLayer` on.
   */
  projected(
    examples: readonly Example[],
    adapter: Adapter,
    options?: ExampleGradientOptions,
  ): AsyncIterable<ProjectedExample>;
  close(): Promise<void>;
}

export interface ProjectedExample extends Projected {
  readonly index: number;
  readonly loss: number;
}

export type FitPhase = 'gradients' | 'bases' | 'features';

export interface FitHooks extends GradientOptions {
  /** Width of the hidden side's blocks. */
  readonly block: number;
  /** `done`: 0 … 1 of the phase. */
  progress?(phase: FitPhase, done: number): void;
}

// ---- the engine ------------------------------------------------------------------------------------------------------

export interface LoadedModel {
  readonly info: ModelInfo;
  readonly tokenizer: ModelTokenizer;
  /** `BAD_ADAPTER` when the files are malformed or of another base, `UNSUPPORTED_ADAPTER` for kinds that are not plain LoRA. */
  openAdapter(files: AdapterFiles): Promise<Adapter>;
  train(job: TrainingJob, hooks?: TrainingHooks): Promise<TrainingOutcome>;
  /** Joins the running batch as soon as there is room: call it once a request, concurrently. */
  generate(request: GenerationRequest, hooks?: GenerationHooks): Promise<Generation>;
  /** Mean loss of each example's response tokens. No adapter: the base alone. */
  losses(examples: readonly Example[], adapter?: Adapter, signal?: AbortSignal): Promise<Float64Array>;
  /** Where each matrix of `lora` lies in a gradient. `block` (default 32) is the width for eigenbases. */
  layout(lora: LoraSettings, options?: { readonly block?: number; readonly fromLayer?: number }): GradientLayout;
  /**
   * One gradient an example, in order, a bounded number at a time. A query is one example: prompt and answer, `from`
   * at the first token of the answer.
   */
  gradients(
    examples: readonly Example[],
    adapter: Adapter,
    options?: ExampleGradientOptions,
  ): AsyncIterable<ExampleGradient>;
  /**
   * K-FAC's factors of each matrix, in the order of `layout` (Martens & Grosse 2015; both sides of a LoRA matrix are small
   * or cut into `block`s). Sums over the response-bearing sequence's tokens, activations and gradients of the *summed* loss:
   * - `lora_A`: hidden side Σ x xᵀ of the inputs, rank side Σ δ δᵀ of the gradient at its output;
   * - `lora_B`: rank side Σ (Ax)(Ax)ᵀ, hidden side Σ δ δᵀ of the gradient at its output.
   */
  covariances(
    examples: readonly Example[],
    adapter: Adapter,
    options?: GradientOptions & { readonly block?: number },
  ): Promise<MatrixCovariance[]>;
  /**
   * Features without gradients that cross: engines in another process have it, those in this one need not. Ask through
   * `attribution/features.ts`, which does with gradients where there is none. `BAD_REQUEST` for bases that are none.
   */
  openFeatures?(bases: FeatureBases): Promise<FeatureReader>;
  /** Bases of training records, and every record's gradient in them. `BAD_REQUEST` for settings that make no sense. */
  fitFeatures?(
    examples: readonly Example[],
    adapter: Adapter,
    settings: FeatureSettings,
    hooks: FitHooks,
  ): Promise<{ readonly bases: FeatureBases; readonly projected: readonly Projected[] }>;
  metrics(): EngineMetrics;
  /** Adapters that had requests; engines without tiers do not tell. */
  adapterMetrics?(): Promise<AdapterMetrics[]>;
  /** Ends generations as aborted, rejects the rest with `ENGINE_CLOSED`, and frees the memory. */
  close(): Promise<void>;
}

export interface Engine {
  readonly kind: EngineKind;
  /** Whether results are bit-identical on every machine; else audits go by tolerance. */
  readonly exact: boolean;
  /** Loads a base model from a directory in Hugging Face layout. */
  load(
    directory: string,
    options?: { readonly serving?: Partial<ServingLimits>; readonly signal?: AbortSignal },
  ): Promise<LoadedModel>;
  close(): Promise<void>;
}
