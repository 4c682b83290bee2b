/** Every method against what retraining showed. */
import { DEFAULT_FEATURES, type FeatureSettings } from '../../../gpu-worker/attribution/extractor.ts';
import { NOVELTY_ONE } from '../../../runtime/primitives/attribution/limits.ts';
import { incomes, type Payments, payments } from './incomes.ts';
import type { Material, Retraining } from './lab.ts';
import {
  dataInf,
  gradientCosine,
  gradientDot,
  logra,
  type Method,
  ours,
  type Scores,
  spanMatch,
  trakLike,
  uncompressed,
} from './methods.ts';
import { datamodelScore, groupEffects, mean, positiveShares, precision, shareDistance } from './metrics.ts';
import { probeGradients } from './probes.ts';

export interface Result {
  readonly method: string;
  /** Linear datamodelling score over random halves, and over coalitions of contributors. */
  readonly byRecord: number;
  readonly byContributor: number;
  /** The same for the answers that the adapter gave itself. */
  readonly ownByRecord: number;
  readonly ownByContributor: number;
  readonly precision: number;
  /** Total variation to the shares that retraining shows, a query. */
  readonly distance: number;
  readonly bytes: number;
  readonly queryMs: number;
}

export interface Evaluation {
  readonly results: readonly Result[];
  /** Parts of an honest contributor's mean income. */
  readonly incomes: { readonly copier: number; readonly noise: number; readonly leastHonest: number };
  /** The same with novelty by texts alone. */
  readonly textOnly: { readonly copier: number; readonly noise: number };
  /** What they would get if retraining itself set the shares. */
  readonly truth: { readonly copier: number; readonly noise: number };
  readonly payments: Payments;
}

/** As ordered for an adapter of `parameters`: the first power of two of buckets above a third of them. */
export function featureSettings(
  { corpus, layout }: Pick<Material, 'corpus' | 'layout'>,
  seed: bigint,
  { k, sketchWidth }: { readonly k?: number; readonly sketchWidth?: number } = {},
): FeatureSettings {
  const rows = corpus.records.length;
  const seeds = { sketchSeed: seed * 7n + 1n, rotationSeed: seed * 7n + 2n };
  const buckets = sketchWidth ?? 2 ** Math.ceil(Math.log2(layout.size / 3));
  return { ...DEFAULT_FEATURES, k: Math.min(k ?? DEFAULT_FEATURES.k, rows), sketchWidth: buckets, ...seeds };
}

/** Record weights of a retraining: presence times the ν that it trained with. */
const weightsOf = ({ present }: Retraining, { novelties }: Material): Float64Array =>
  Float64Array.from(present, (each, i) => (each * novelties[i]!.novelty) / NOVELTY_ONE);

interface Retrained {
  readonly present: readonly (readonly number[])[];
  readonly weights: readonly Float64Array[];
  readonly losses: readonly (readonly number[])[];
}

export class Judge {
  readonly #material: Material;
  readonly #held: number;
  readonly #halves: Retrained;
  readonly #coalitions: Retrained;
  readonly #shares: number[][];

  constructor(material: Material, truth: readonly Retraining[]) {
    this.#material = material;
    this.#held = material.corpus.queries.length;
    const of = (kind: Retraining['kind']) => {
      const some = truth.filter((each) => each.kind === kind);
      return {
        present: some.map(({ present }) => present),
        weights: some.map((each) => weightsOf(each, material)),
        losses: some.map(({ losses }) => losses),
      };
    };
    this.#halves = of('half');
    this.#coalitions = of('coalition');
    const { corpus, queries } = material;
    const presence = truth.map(({ present }) => {
      const [sums, counts] = [new Float64Array(corpus.contributors), new Float64Array(corpus.contributors)];
      for (const [i, { contributor }] of corpus.records.entries()) {
        sums[contributor]! += present[i]!;
        counts[contributor]!++;
      }
      return sums.map((sum, c) => sum / counts[c]!);
    });
    this.#shares = queries.map((_, q) =>
      positiveShares(
        groupEffects(
          presence,
          truth.map(({ losses }) => -losses[q]!),
          corpus.contributors,
        ),
      ),
    );
  }

  result(method: Method): Result {
    const { corpus, novelties } = this.#material;
    const { records, queries, contributors } = corpus;
    const { scores } = method;
    const shares = scores.map((score) => {
      const sums = new Float64Array(contributors);
      for (const [i, { contributor }] of records.entries()) {
        sums[contributor]! += (score[i]! * novelties[i]!.novelty) / NOVELTY_ONE;
      }
      return positiveShares(sums);
    });
    return {
      method: method.name,
      ...this.#scores(scores, this.#halves, this.#coalitions),
      precision: precision(
        scores.slice(0, this.#held),
        (query, record) => records[record]!.domain === queries[query]!.domain,
      ),
      distance: this.distance(shares),
      bytes: method.bytes,
      queryMs: method.queryMs,
    };
  }

  /** The row of what the chain pays: `scores` still ranks records, shares stand for contributors. */
  paid(scores: Method, shares: readonly (readonly number[])[]): Result {
    const { records } = this.#material.corpus;
    // A coalition has all of a contributor's records or none.
    const first = shares[0]!.map((_, c) => records.findIndex(({ contributor }) => contributor === c));
    const present = this.#coalitions.present.map((each) => Float64Array.from(first, (record) => each[record]!));
    const part = (from: number, to: number): number =>
      datamodelScore(
        shares.slice(from, to).map((share) => Float64Array.from(share)),
        present,
        this.#coalitions.losses.map((loss) => loss.slice(from, to)),
      );
    return {
      ...this.result(scores),
      method: 'shares as paid: novelty, floor, 30 % spans',
      byContributor: part(0, this.#held),
      ownByContributor: part(this.#held, shares.length),
      distance: this.distance(shares),
    };
  }

  /** What retraining shows, by query and contributor. */
  truthShares(): readonly (readonly number[])[] {
    return this.#shares;
  }

  distance(shares: readonly (readonly number[])[]): number {
    return mean(shares.map((share, q) => shareDistance(share, this.#shares[q]!)));
  }

  #scores(scores: Scores, halves: Retrained, coalitions: Retrained) {
    const part = (from: number, to: number, { weights, losses }: Retrained): number =>
      datamodelScore(
        scores.slice(from, to),
        weights,
        losses.map((loss) => loss.slice(from, to)),
      );
    const [held, all] = [this.#held, scores.length];
    return {
      byRecord: part(0, held, halves),
      byContributor: part(0, held, coalitions),
      ownByRecord: part(held, all, halves),
      ownByContributor: part(held, all, coalitions),
    };
  }
}

/** All methods, or with `few` only what the aims are about. `seed` draws sketches and probes. */
export async function evaluate(
  material: Material,
  truth: readonly Retraining[],
  seed: bigint,
  few = false,
): Promise<Evaluation> {
  const { corpus } = material;
  const judge = new Judge(material, truth);
  const settings = featureSettings(material, seed);
  const full = await ours(material, settings);
  const methods = [
    gradientDot(material),
    ...(few ? [] : await others(material, seed)),
    await uncompressed(material, settings),
    full.float,
    full.int8,
    ...(few ? [] : [(await ours(material, featureSettings(material, seed, { k: corpus.records.length >> 1 }))).int8]),
  ];
  if (!few) {
    const narrow = (await ours(material, featureSettings(material, seed, { sketchWidth: 16_384 }))).int8;
    methods.push({ ...narrow, name: `${narrow.name}, 16k buckets` });
  }
  const results = methods.map((method) => judge.result(method));
  const { paid, byText: paidByText } = await payments(material, settings);
  results.push(judge.paid(full.int8, paid.shares));
  const income = incomes(paid, corpus);
  const byText = incomes(paidByText, corpus);
  const byTruth = incomes({ shares: judge.truthShares() }, corpus);
  const { copier, noise } = corpus;
  const honest = income.filter((_, c) => c !== copier && c !== noise);
  return {
    results,
    incomes: { copier: income[copier]!, noise: income[noise]!, leastHonest: Math.min(...honest) },
    textOnly: { copier: byText[copier]!, noise: byText[noise]! },
    truth: { copier: byTruth[copier]!, noise: byTruth[noise]! },
    payments: paid,
  };
}

/** What the method is compared with. */
async function others(material: Material, seed: bigint): Promise<Method[]> {
  const { model, outcome, examples, outputs, queries } = material;
  const probes = await probeGradients(model, outcome.attribution, seed);
  const projected = await probes.of(examples.map(({ example }) => example));
  const projectedQueries = await probes.of(queries);
  await probes.close();
  const tokens = examples.map((example) => [...example.tokens]);
  return [
    gradientCosine(material),
    dataInf(material),
    trakLike(material, 256),
    logra(projected, projectedQueries, probes.part),
    spanMatch(
      tokens,
      outputs.map((output) => [...output]),
      model.tokenizer.vocabulary,
    ),
    await uncompressed(material, featureSettings(material, seed), false),
  ];
}
