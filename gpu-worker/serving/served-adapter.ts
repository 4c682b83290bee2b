/** Answers with their receipts: generation with the final adapter, the query's feature at the checkpoint, spans, shares. */
import { type Blake, hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { type AttributionFiles, openCommitment } from '../../runtime/primitives/attribution/commitment.ts';
import type { LeaseId } from '../../runtime/primitives/attribution/ids.ts';
import { MAX_RECORD_TOKENS } from '../../runtime/primitives/attribution/limits.ts';
import {
  FINISH,
  feeOf,
  type InferenceReceipt,
  type SignedVoucher,
  type TrainingReceipt,
  textDigest,
  trainingReceipt,
} from '../../runtime/primitives/attribution/receipts.ts';
import type { RequestInput, RequestTerms } from '../../runtime/primitives/attribution/request.ts';
import type { Blend } from '../../runtime/primitives/attribution/shares.ts';
import { tokenSequence } from '../../runtime/primitives/attribution/spans.ts';
import { attributedLayer, type TrainingConfig } from '../../runtime/primitives/attribution/training.ts';
import {
  type Attribution,
  type AttributionModel,
  attribute,
  type ReceiptFault,
  type ReceiptRules,
  verifyInferenceReceipt,
} from '../../runtime/primitives/attribution/verify.ts';
import { utf8 } from '../../runtime/primitives/bytes.ts';
import { type AccountId, type Hash, PERBILL } from '../../runtime/primitives/types.ts';
import { readEigenbases, readProjection } from '../attribution/basis-files.ts';
import { type SuffixIndex, suffixIndex } from '../attribution/suffix-index.ts';
import type { Adapter, Generation, GenerationHooks, LoadedModel, ModelTokenizer } from '../engines/engine.ts';
import { type FeatureSource, openFeatures } from '../engines/features.ts';
import { recordExample, spoken } from '../training/examples.ts';

/** What serving needs of an adapter: its published files and the snapshot's lines. */
export interface AdapterMaterial {
  readonly training: TrainingReceipt;
  /** As it was ordered: the receipt names its hash. */
  readonly config: TrainingConfig;
  readonly adapter: Uint8Array;
  readonly adapterConfig: Uint8Array;
  readonly checkpoint: Uint8Array;
  readonly eigenbases: Uint8Array;
  readonly projection: Uint8Array;
  readonly files: AttributionFiles;
  readonly lines: readonly Uint8Array[];
}

export interface AnswerRequest extends RequestTerms {
  readonly voucher: SignedVoucher;
}

/** What the model reads: text as it is, a conversation in the model's template. Throws EngineError `BAD_TEMPLATE`. */
export const promptOf = (tokenizer: ModelTokenizer, input: RequestInput): string =>
  input.type === 'Text' ? input.value : tokenizer.chat(input.value);

export interface Answer {
  readonly receipt: InferenceReceipt;
  readonly text: string;
  /** Everything that was sampled, end tokens and stop sequences included. */
  readonly tokens: readonly number[];
  readonly finish: Generation['finish'];
  /** Of the time from request to receipt, what generation and what attribution took. */
  readonly generationMs: number;
  readonly attributionMs: number;
}

export class ServedAdapter {
  readonly #hashing: Blake;
  readonly #model: LoadedModel;
  readonly #training: Hash;
  readonly #adapter: Adapter;
  readonly #checkpoint: Adapter;
  readonly #features: FeatureSource;
  /** What an answer's gradient is of. */
  readonly #scope: { readonly fromLayer: number; readonly stride: number };
  readonly #index: SuffixIndex;
  readonly #attribution: AttributionModel;
  readonly #opened: AsyncDisposableStack;

  private constructor(parts: {
    hashing: Blake;
    model: LoadedModel;
    training: Hash;
    adapter: Adapter;
    checkpoint: Adapter;
    features: FeatureSource;
    scope: { readonly fromLayer: number; readonly stride: number };
    index: SuffixIndex;
    attribution: AttributionModel;
    opened: AsyncDisposableStack;
  }) {
    this.#hashing = parts.hashing;
    this.#model = parts.model;
    this.#training = parts.training;
    this.#adapter = parts.adapter;
    this.#checkpoint = parts.checkpoint;
    this.#features = parts.features;
    this.#scope = parts.scope;
    this.#index = parts.index;
    this.#attribution = parts.attribution;
    this.#opened = parts.opened;
  }

  /** Opens everything once. Throws CommitmentError, BasisFileError or EngineError for files that are not what they claim. */
  static async open(hashing: Blake, model: LoadedModel, material: AdapterMaterial): Promise<ServedAdapter> {
    const { training, config } = material;
    const { model: attribution } = openCommitment(hashing, training.features, material.files);
    const { layout, eigenbases } = readEigenbases(material.eigenbases);
    const projection = readProjection(material.projection);
    const records = material.lines.map((line) => recordExample(model.tokenizer, line).tokens);
    await using opened = new AsyncDisposableStack();
    const { sketchSeed, rotationSeed } = training.basis;
    const features = await openFeatures(model, {
      ...{ layout, eigenbases, projection, sketchSeed, rotationSeed },
      files: { eigenbases: material.eigenbases, projection: material.projection },
    });
    opened.defer(() => features.close());
    const adapter = await model.openAdapter({ config: material.adapterConfig, weights: material.adapter });
    opened.defer(() => adapter.close());
    const checkpoint = await model.openAdapter({ config: material.adapterConfig, weights: material.checkpoint });
    opened.defer(() => checkpoint.close());
    return new ServedAdapter({
      hashing,
      model,
      training: hashOf(hashing, trainingReceipt, training),
      adapter,
      checkpoint,
      features,
      scope: { fromLayer: attributedLayer(config, model.info.layers), stride: config.attributionStride },
      index: suffixIndex(records, model.tokenizer.vocabulary),
      attribution,
      opened: opened.move(),
    });
  }

  /** Generates and attributes; the receipt is unsigned. `token` hears the text as it becomes final. */
  async answer(
    request: AnswerRequest,
    by: { readonly worker: AccountId; readonly lease: LeaseId; readonly rules: ReceiptRules },
    hooks: { readonly signal?: AbortSignal; token?(delta: string): void } = {},
  ): Promise<Answer> {
    const { tokenizer } = this.#model;
    const asked = promptOf(tokenizer, request.input);
    const prompt = tokenizer.encode(asked);
    const started = performance.now();
    const made = await this.generate(request, {
      ...(hooks.signal !== undefined && { signal: hooks.signal }),
      token: ({ delta }) => hooks.token?.(delta),
    });
    const generated = performance.now();
    const { price } = request.voucher.payload;
    const output = this.spoken(made.tokens);
    const [tokensIn, tokensOut] = [prompt.length, output.length];
    const fee = feeOf(price, tokensIn, tokensOut);
    const pool = by.rules.poolOf(fee);
    const { feature, split } = await this.attributed(prompt, made.tokens, pool, by.rules.blend, hooks.signal);
    const receipt: InferenceReceipt = {
      voucher: request.voucher,
      worker: by.worker,
      lease: by.lease,
      training: this.#training,
      promptHash: textDigest(this.#hashing, utf8(asked)),
      outputHash: textDigest(this.#hashing, utf8(made.text)),
      outputTokensHash: hashOf(this.#hashing, tokenSequence, output),
      tokensIn,
      tokensOut,
      finish: made.finish === 'aborted' ? FINISH.cancelled : FINISH[made.finish],
      feature,
      spans: split.spans,
      fee,
      pool,
      shares: split.shares,
      remainder: split.remainder,
    };
    return {
      receipt,
      text: made.text,
      tokens: made.tokens,
      finish: made.finish,
      generationMs: generated - started,
      attributionMs: performance.now() - generated,
    };
  }

  /** The tokens of an answer that are paid for and matched: without those that end a text. */
  spoken(tokens: readonly number[]): number[] {
    return spoken(this.#model.tokenizer, tokens).slice(0, MAX_RECORD_TOKENS);
  }

  /** Feature, spans and shares of an answer: what a receipt claims, and what an auditor makes again. */
  async attributed(
    prompt: readonly number[],
    tokens: readonly number[],
    pool: bigint,
    blend: Blend,
    signal?: AbortSignal,
  ): Promise<{ readonly feature: Int8Array; readonly split: Attribution }> {
    const feature = await this.#feature(prompt, tokens, signal);
    const found = this.#index.spans(this.spoken(tokens));
    return { feature, split: attribute(this.#attribution, this.#attribution.influence(feature), found, pool, blend) };
  }

  /** A receipt as it would be if its answer had another feature: influence and shares are those of that one. */
  withFeature(receipt: InferenceReceipt, tokens: readonly number[], feature: Int8Array, mix: Blend): InferenceReceipt {
    const found = this.#index.spans(this.spoken(tokens));
    const { spans, shares, remainder } = attribute(
      this.#attribution,
      this.#attribution.influence(feature),
      found,
      receipt.pool,
      mix,
    );
    return { ...receipt, feature, spans, shares, remainder };
  }

  /** What the final adapter says to a request. */
  generate(request: RequestTerms, hooks: GenerationHooks = {}): Promise<Generation> {
    const { tokenizer } = this.#model;
    return this.#model.generate(
      {
        adapter: this.#adapter,
        prompt: tokenizer.encode(promptOf(tokenizer, request.input)),
        maxTokens: request.maxTokens,
        temperature: request.temperature / 1e9,
        topP: request.topP / PERBILL,
        seed: request.seed,
        stop: request.stop,
      },
      hooks,
    );
  }

  /** What is wrong with a receipt's arithmetic over the adapter's rows (`undefined`: nothing). */
  fault(receipt: InferenceReceipt, rules: ReceiptRules): ReceiptFault | undefined {
    return verifyInferenceReceipt(receipt, this.#attribution, rules);
  }

  /** The feature of prompt and answer; zero where there is no answer to take a gradient of. */
  async #feature(prompt: readonly number[], answer: readonly number[], signal?: AbortSignal): Promise<Int8Array> {
    if (answer.length === 0 || prompt.length === 0) return new Int8Array(this.#features.k);
    const tokens = [...prompt, ...answer].slice(0, this.#model.info.maxPositions);
    const example = { tokens, from: Math.min(prompt.length, tokens.length - 1) };
    const options = { ...this.#scope, ...(signal !== undefined && !signal.aborted && { signal }) };
    for await (const { row } of this.#features.features([example], this.#checkpoint, options)) return row.values;
    return new Int8Array(this.#features.k);
  }

  async close(): Promise<void> {
    await this.#opened.disposeAsync();
  }
}
