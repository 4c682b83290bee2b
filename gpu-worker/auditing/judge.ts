/**
 * What an auditor finds (docs/method.md, "Keeping workers honest"): features made again within the tolerances of
 * `attribution/audit.ts`; where both engines are exact, generation and training made again to the last bit. Pure but for
 * the engine: files, disclosures and deadlines are the caller's.
 */
import { verifySignature } from '../../runtime/executive/extrinsic.ts';
import type { Hashing, Signatures } from '../../runtime/host.ts';
import { hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { blobName, CommitmentError, openCommitment } from '../../runtime/primitives/attribution/commitment.ts';
import { accountKey, FeatureError, type FeatureRow } from '../../runtime/primitives/attribution/features.ts';
import {
  type BatchItem,
  batchFile,
  batchLedger,
  itemRoot,
  ledgerRoot,
} from '../../runtime/primitives/attribution/ledger.ts';
import { MAX_RECORD_TOKENS, NOVELTY_ONE } from '../../runtime/primitives/attribution/limits.ts';
import {
  FINISH,
  type InferenceReceipt,
  inferenceReceipt,
  type ReceiptBatch,
  type Share,
  type TrainingReceipt,
  textDigest,
  trainingReceipt,
  voucher,
} from '../../runtime/primitives/attribution/receipts.ts';
import { recordHash } from '../../runtime/primitives/attribution/records.ts';
import { asksFor } from '../../runtime/primitives/attribution/request.ts';
import { tokenSequence } from '../../runtime/primitives/attribution/spans.ts';
import { attributedLayer, segmentSteps, type TrainingConfig } from '../../runtime/primitives/attribution/training.ts';
import type { ReceiptRules } from '../../runtime/primitives/attribution/verify.ts';
import { equalBytes, utf8 } from '../../runtime/primitives/bytes.ts';
import { decode } from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { type AccountId, type Hash, sameAccount } from '../../runtime/primitives/types.ts';
import { type AuditFault, compareFeatures, leavesOut } from '../attribution/audit.ts';
import { BasisFileError, readEigenbases, readProjection } from '../attribution/basis-files.ts';
import type { Projection } from '../attribution/projection.ts';
import { dot, seededSample } from '../attribution/seeded.ts';
import type { Adapter, LoadedModel } from '../engines/engine.ts';
import { EngineError } from '../engines/engine-error.ts';
import { openFeatures } from '../engines/features.ts';
import { type AdapterMaterial, promptOf, type ServedAdapter } from '../serving/served-adapter.ts';
import { type Transcript, transcript } from '../serving/transcript.ts';
import { cutExample, recordExample } from '../training/examples.ts';
import { loraOf, settingsOf, textNovelties } from '../training/train-order.ts';

/** Rows of a training that are made again: 64 find 5 % of falsified ones with 96 %. */
export const AUDIT_ROWS = 64;
/** Of 1 or 0: float32 sums over a sketch's width. */
const ORTHONORMAL_TOLERANCE = 1e-3;

export type Fault =
  | AuditFault
  /** Files. */
  | 'UNAVAILABLE'
  | 'COMMITMENT'
  | 'BASES'
  | 'PROJECTION'
  | 'ENERGY'
  | 'ADAPTER'
  /** Training. */
  | 'RECORD'
  | 'CONTRIBUTOR'
  | 'TOKENS'
  | 'SEGMENTS'
  | 'RETRAINING'
  /** Answers. */
  | 'BATCH'
  | 'SIGNATURE'
  | 'VOUCHER'
  | 'ARITHMETIC'
  | 'UNDISCLOSED'
  | 'TRANSCRIPT'
  | 'REQUEST'
  | 'PROMPT'
  | 'OUTPUT'
  | 'SPANS'
  | 'GENERATION';

// ---- training ------------------------------------------------------------------------------------------------

export interface TrainingCase {
  readonly material: AdapterMaterial;
  readonly contributors: readonly AccountId[];
  /** Where the sample of rows begins. */
  readonly item: number;
  /** The Datanet's, in units of 2^−16. */
  readonly dedupThreshold: number;
  /** What the adapter's configuration calls its base. */
  readonly baseName: string;
  /** Both engines give the same bits: the training is made again, if the time is enough. */
  readonly exact: boolean;
  /** A published state of the training. */
  state(blob: Hash): Promise<Uint8Array>;
  /** Ends the retraining without a finding. */
  readonly deadline: AbortSignal;
}

/** What is wrong with a training (`undefined`: nothing found). */
export async function judgeTraining(
  hashing: Hashing,
  model: LoadedModel,
  given: TrainingCase,
): Promise<Fault | undefined> {
  const { material, contributors, item, exact } = given;
  const { training, config, lines } = material;
  let rows: readonly FeatureRow[];
  try {
    ({ rows } = openCommitment(hashing, training.features, material.files));
  } catch (problem) {
    if (problem instanceof CommitmentError || problem instanceof FeatureError) return 'COMMITMENT';
    throw problem;
  }
  const sample = sampleOf(hashing, training, item, rows.length);
  for (const at of sample) {
    const row = rows[at]!;
    const { tokens } = recordExample(model.tokenizer, lines[at]!);
    if (!equalBytes(row.record, recordHash(hashing, lines[at]!))) return 'RECORD';
    if (!sameAccount(row.contributor, contributors[at]!)) return 'CONTRIBUTOR';
    if (!equalBytes(row.tokens, hashOf(hashing, tokenSequence, tokens.slice(0, MAX_RECORD_TOKENS)))) return 'TOKENS';
  }
  const checkpoint = await opened(model, { config: material.adapterConfig, weights: material.checkpoint }, config);
  if (checkpoint === undefined) return 'ADAPTER';
  try {
    const fault = await judgeRows(model, checkpoint, material, rows, sample);
    if (fault !== undefined) return fault;
  } finally {
    await checkpoint.close();
  }
  const final = await opened(model, { config: material.adapterConfig, weights: material.adapter }, config);
  if (final === undefined) return 'ADAPTER';
  await final.close();
  return exact ? await judgeBySegment(hashing, model, given) : undefined;
}

/** Drawn over all rows, by the chain's word and by what was committed to before it. */
function sampleOf(hashing: Hashing, training: TrainingReceipt, item: number, rows: number): number[] {
  const drawn = hashOf(hashing, trainingReceipt, training);
  const seed = new DataView(drawn.buffer, drawn.byteOffset).getBigUint64(0, true) ^ BigInt(item);
  return seededSample(seed, rows, Math.min(AUDIT_ROWS, rows));
}

async function opened(
  model: LoadedModel,
  files: { readonly config: Uint8Array; readonly weights: Uint8Array },
  config: TrainingConfig,
): Promise<Adapter | undefined> {
  try {
    const adapter = await model.openAdapter(files);
    const { rank, alpha, targets } = loraOf(config);
    const { lora } = adapter;
    const same =
      lora.rank === rank &&
      lora.alpha === alpha &&
      lora.targets.length === targets.length &&
      targets.every((each) => lora.targets.includes(each));
    if (same) return adapter;
    await adapter.close();
    return undefined;
  } catch (problem) {
    if (problem instanceof EngineError && /ADAPTER/.test(problem.code)) return undefined;
    throw problem;
  }
}

async function judgeRows(
  model: LoadedModel,
  checkpoint: Adapter,
  { training, config, eigenbases: eigenbaseFile, projection: projectionFile, lines }: AdapterMaterial,
  rows: readonly FeatureRow[],
  sample: readonly number[],
): Promise<Fault | undefined> {
  const { basis } = training;
  const fromLayer = attributedLayer(config, model.info.layers);
  const layout = model.layout(loraOf(config), { block: config.block, fromLayer });
  let bases: ReturnType<typeof readEigenbases>;
  let projection: Projection;
  try {
    bases = readEigenbases(eigenbaseFile);
    projection = readProjection(projectionFile);
  } catch (problem) {
    if (problem instanceof BasisFileError) return 'BASES';
    throw problem;
  }
  const sameLayout =
    bases.layout.size === layout.size &&
    bases.layout.block === layout.block &&
    bases.layout.matrices.length === layout.matrices.length &&
    bases.layout.matrices.every(({ name, offset }, m) => {
      const own = layout.matrices[m];
      return own?.name === name && own.offset === offset;
    });
  if (!sameLayout) return 'BASES';
  if (projection.k !== basis.k || projection.width !== config.sketchWidth) return 'PROJECTION';
  if (!isOrthonormal(projection)) return 'PROJECTION';
  const { sketchSeed, rotationSeed } = basis;
  const source = await openFeatures(model, {
    ...{ layout, eigenbases: bases.eigenbases, projection, sketchSeed, rotationSeed },
    files: { eigenbases: eigenbaseFile, projection: projectionFile },
  });
  const examples = sample.map((at) =>
    cutExample(recordExample(model.tokenizer, lines[at]!).example, config.sequenceLength),
  );
  const captured: number[] = [];
  try {
    for await (const { index, row, captured: part } of source.features(examples, checkpoint, { fromLayer })) {
      captured.push(part);
      const claimed = rows[sample[index]!]!.values;
      const { fault } = compareFeatures({ values: claimed, amounts: [] }, { values: row.values, amounts: [] });
      if (fault !== undefined) return fault;
    }
  } finally {
    await source.close();
  }
  const owners = sample.map((at) => accountKey(rows[at]!.contributor));
  return leavesOut(captured, owners) ? 'ENERGY' : undefined;
}

/** Rows of unit norm and at right angles to their neighbours; those from the data's rank on are zero. */
function isOrthonormal({ k, width, vectors }: Projection): boolean {
  const row = (at: number): Float64Array => Float64Array.from(vectors.subarray(at * width, (at + 1) * width));
  let before: Float64Array | undefined;
  let ended = false;
  for (let at = 0; at < k; at++) {
    const each = row(at);
    const norm = dot(each, each);
    if (norm === 0) ended = true;
    else if (ended || Math.abs(norm - 1) > ORTHONORMAL_TOLERANCE) return false;
    if (before !== undefined && Math.abs(dot(before, each)) > ORTHONORMAL_TOLERANCE) return false;
    before = each;
  }
  return true;
}

/**
 * One segment of the training made again, drawn by the chain: from the published state before it (or the seed) to the one
 * after it (or the adapter). A training of one segment is made again as a whole.
 */
async function judgeBySegment(
  hashing: Hashing,
  model: LoadedModel,
  { material, item, dedupThreshold, baseName, deadline, state }: TrainingCase,
): Promise<Fault | undefined> {
  const { training, config, lines } = material;
  const { segments, loss } = training;
  const every = segmentSteps(config, lines.length);
  const count = Math.max(1, Math.ceil(loss.steps / every));
  if (segments.length !== count - 1) return 'SEGMENTS';
  const at = item % count;
  const after = segments[at];
  const resume = at === 0 ? undefined : await state(segments[at - 1]!);
  const records = lines.map((line) => recordExample(model.tokenizer, line));
  const { sketchSeed } = training.basis;
  const texts = records.map(({ text }) => utf8(text));
  const novelties = textNovelties(texts, { sketchSeed, dedupThreshold });
  const reached = new AbortController();
  let made: Hash | undefined;
  /** The first step that was made again: a state may be of another one than its place says. */
  let begun: number | undefined;
  try {
    const { adapter, attribution, steps } = await model.train(
      {
        settings: settingsOf(config, training.trainingSeed, every),
        examples: records.map(({ example }) => example),
        weights: novelties.map(({ novelty }) => novelty / NOVELTY_ONE),
        baseName,
        ...(resume !== undefined && { resume }),
      },
      {
        signal: AbortSignal.any([deadline, reached.signal]),
        progress({ step }) {
          begun ??= step;
          if (begun !== at * every + 1) reached.abort();
        },
        checkpoint(bytes, step) {
          if (after === undefined || step !== (at + 1) * every) return;
          made = blobName(hashing, bytes);
          reached.abort();
        },
      },
    );
    const same =
      after === undefined &&
      steps === loss.steps &&
      equalBytes(blobName(hashing, adapter.weights), training.adapter) &&
      equalBytes(blobName(hashing, adapter.config), training.adapterConfig) &&
      equalBytes(blobName(hashing, attribution.weights), training.basis.checkpoint);
    return same ? undefined : 'RETRAINING';
  } catch (problem) {
    if (begun !== undefined && begun !== at * every + 1) return 'SEGMENTS';
    if (made !== undefined && after !== undefined) return equalBytes(made, after) ? undefined : 'RETRAINING';
    if (deadline.aborted) return undefined;
    if (problem instanceof EngineError && problem.code === 'BAD_CHECKPOINT') return 'SEGMENTS';
    throw problem;
  }
}

// ---- answers -------------------------------------------------------------------------------------------------

export interface AnswerCase {
  readonly batch: ReceiptBatch;
  /** The batch's published file, and which receipt in it. */
  readonly file: Uint8Array;
  readonly item: number;
  /** What the accused disclosed. */
  readonly disclosed: Uint8Array | undefined;
  /** What must have signed the voucher, and so the request; undefined when the session is gone. */
  readonly sessionKey: AccountId | undefined;
  readonly rules: ReceiptRules;
  /** Both engines give the same bits: the answer is generated again. */
  readonly exact: boolean;
}

/** What is wrong with an answer (`undefined`: nothing found). */
export async function judgeAnswer(
  host: Hashing & Signatures,
  model: LoadedModel,
  served: ServedAdapter,
  { batch, file, item, disclosed, sessionKey, rules, exact }: AnswerCase,
): Promise<Fault | undefined> {
  let items: readonly BatchItem[];
  try {
    ({ items } = decode(batchFile, file));
  } catch (problem) {
    if (problem instanceof ScaleError) return 'BATCH';
    throw problem;
  }
  if (items.length !== batch.receipts || !equalBytes(itemRoot(host, items), batch.root)) return 'BATCH';
  if (!addsUp(host, batch, items)) return 'BATCH';
  const { payload, signature } = items[item % items.length]!.receipt;
  const digest = hashOf(host, inferenceReceipt, payload);
  if (!sameAccount(payload.worker, batch.worker)) return 'SIGNATURE';
  if (!verifySignature(host, signature, digest, payload.worker)) return 'SIGNATURE';
  const promise = payload.voucher;
  const promised = (key: AccountId): boolean =>
    verifySignature(host, promise.signature, hashOf(host, voucher, promise.payload), key);
  if (sessionKey !== undefined && !promised(sessionKey)) return 'VOUCHER';
  if (served.fault(payload, rules) !== undefined) return 'ARITHMETIC';
  if (disclosed === undefined) return 'UNDISCLOSED';
  let said: Transcript;
  try {
    said = decode(transcript, disclosed);
  } catch (problem) {
    if (problem instanceof ScaleError) return 'TRANSCRIPT';
    throw problem;
  }
  const { tokenizer } = model;
  if (!asksFor(host, payload.voucher.payload, said.request)) return 'REQUEST';
  const asked = promptOf(tokenizer, said.request.input);
  const prompt = tokenizer.encode(asked);
  const samePrompt =
    equalBytes(payload.promptHash, textDigest(host, utf8(asked))) && payload.tokensIn === prompt.length;
  if (!samePrompt) return 'PROMPT';
  const spoken = served.spoken(said.tokens);
  const sameOutput =
    equalBytes(payload.outputHash, textDigest(host, utf8(said.text))) &&
    equalBytes(payload.outputTokensHash, hashOf(host, tokenSequence, spoken)) &&
    payload.tokensOut === spoken.length &&
    tokenizer.decode(said.tokens).startsWith(said.text);
  if (!sameOutput) return 'OUTPUT';
  const { feature, split } = await served.attributed(prompt, said.tokens, payload.pool, rules.blend);
  const [claimed, recomputed] = amounts(payload.shares, split.shares);
  const { fault } = compareFeatures(
    { values: payload.feature, amounts: claimed },
    { values: feature, amounts: recomputed },
  );
  if (fault !== undefined) return fault;
  const sameSpans =
    payload.spans.length === split.spans.length &&
    payload.spans.every(({ start, length }, at) => {
      const own = split.spans[at]!;
      return own.start === start && own.length === length;
    });
  if (!sameSpans) return 'SPANS';
  return exact ? await judgeByRegeneration(served, said, payload) : undefined;
}

/** Whether totals and ledger are what the receipts make them: nobody else has the leaves of a ledger that is not. */
function addsUp(host: Hashing, batch: ReceiptBatch, items: readonly BatchItem[]): boolean {
  const sums = batchLedger(items.map(({ receipt }) => receipt));
  return (
    sums.fees === batch.fees &&
    sums.pool === batch.pool &&
    sums.remainder === batch.remainder &&
    sums.entries.length === batch.ledgerEntries &&
    equalBytes(ledgerRoot(host, sums.entries), batch.ledgerRoot) &&
    sums.totals.length === batch.totals.length &&
    sums.totals.every(({ contributor, amount }, at) => {
      const total = batch.totals[at]!;
      return amount === total.amount && sameAccount(contributor, total.contributor);
    })
  );
}

async function judgeByRegeneration(
  served: ServedAdapter,
  { request, ...said }: Transcript,
  { finish }: InferenceReceipt,
): Promise<Fault | undefined> {
  // A cancelled answer is the beginning of the whole one.
  const cancelled = finish === FINISH.cancelled;
  if (cancelled && said.tokens.length === 0) return undefined;
  const again = await served.generate(cancelled ? { ...request, maxTokens: said.tokens.length } : request);
  const same = again.tokens.length === said.tokens.length && again.tokens.every((id, at) => id === said.tokens[at]);
  if (!same) return 'GENERATION';
  if (cancelled) return undefined;
  return again.text === said.text && again.finish !== 'aborted' && FINISH[again.finish] === finish
    ? undefined
    : 'GENERATION';
}

/** Income of both sides by contributor, in the same order. */
function amounts(a: readonly Share[], b: readonly Share[]): [bigint[], bigint[]] {
  const keys = [...new Set([...a, ...b].map(({ contributor }) => accountKey(contributor)))];
  const of = (shares: readonly Share[]) => {
    const known = new Map(shares.map(({ contributor, amount }) => [accountKey(contributor), amount]));
    return keys.map((key) => known.get(key) ?? 0n);
  };
  return [of(a), of(b)];
}
