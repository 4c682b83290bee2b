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
  readonly payments: Payments;
}

export function featureSettings(rows: number, seed: bigint, k: number = DEFAULT_FEATURES.k): FeatureSettings {
  return { ...DEFAULT_FEATURES, k: Math.min(k, rows), sketchSeed: seed * 7n + 1n, rotationSeed: seed * 7n + 2n };
}

/** Record weights of a retraining: presence times the ν that it trained with. */
const weightsOf = ({ present }: Retraining, { novelties }: Material): Float64Array =>
  Float64Array.from(present, (each, i) => (each * novelties[i]!.novelty) / NOVELTY_ONE);

interface Retrained {
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
      return { weights: some.map((each) => weightsOf(each, material)), losses: some.map(({ losses }) => losses) };
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

/** All comparisons. `seed` draws sketches and probes. */
export async function evaluate(material: Material, truth: readonly Retraining[], seed: bigint): Promise<Evaluation> {
  const { corpus, model, outcome, examples, queries } = material;
  const judge = new Judge(material, truth);
  const count = corpus.records.length;
  const settings = featureSettings(count, seed);
  const probes = await probeGradients(model, outcome.attribution, seed);
  const projected = await probes.of(examples.map(({ example }) => example));
  const projectedQueries = await probes.of(queries);
  await probes.close();
  const full = await ours(material, settings);
  const methods = [
    gradientDot(material),
    gradientCosine(material),
    dataInf(material),
    trakLike(material, 512),
    logra(projected, projectedQueries, probes.part),
    spanMatch(
      examples.map(({ tokens }) => [...tokens]),
      material.outputs.map((output) => [...output]),
      model.tokenizer.vocabulary,
    ),
    await uncompressed(material, settings, false),
    await uncompressed(material, settings),
    full.float,
    full.int8,
    (await ours(material, featureSettings(count, seed, count >> 1))).int8,
    (await ours(material, featureSettings(count, seed, 64))).int8,
  ];
  const results = methods.map((method) => judge.result(method));
  const paid = await payments(material, settings);
  results.push({
    ...judge.result(full.int8),
    method: 'ours, int8, as paid: novelty, 30 % spans',
    distance: judge.distance(paid.shares),
  });
  const income = incomes(paid, corpus);
  const byText = incomes(await payments(material, settings, undefined, true), corpus);
  const honest = income.filter((_, c) => c !== corpus.copier && c !== corpus.noise);
  return {
    results,
    incomes: { copier: income[corpus.copier]!, noise: income[corpus.noise]!, leastHonest: Math.min(...honest) },
    textOnly: { copier: byText[corpus.copier]!, noise: byText[corpus.noise]! },
    payments: paid,
  };
}
