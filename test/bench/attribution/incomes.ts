/** What the chain would pay: rows, novelty, spans and shares as a worker commits to them and every node checks them. */
import { blake2b } from '@noble/hashes/blake2.js';
import { buildBases, type FeatureSettings, featureExtractor } from '../../../gpu-worker/attribution/extractor.ts';
import { creditNovelty, type Novelty } from '../../../gpu-worker/attribution/novelty.ts';
import { suffixIndex } from '../../../gpu-worker/attribution/suffix-index.ts';
import type { Blake } from '../../../runtime/primitives/attribution/canonical.ts';
import { commitRows } from '../../../runtime/primitives/attribution/commitment.ts';
import { NOVELTY_ONE } from '../../../runtime/primitives/attribution/limits.ts';
import { type Blend, DEFAULT_BLEND } from '../../../runtime/primitives/attribution/shares.ts';
import { attribute } from '../../../runtime/primitives/attribution/verify.ts';
import { utf8 } from '../../../runtime/primitives/bytes.ts';
import { asAccountId } from '../../../runtime/primitives/types.ts';
import type { Material } from './lab.ts';

export const hashing: Blake = { blake2_256: (data) => blake2b(data, { dkLen: 32 }) };
const POOL = 10n ** 18n;

/** Contributor c's account: they are in ascending order so. */
const accountOf = (c: number) => asAccountId(new Uint8Array(32).fill(c + 1));

export interface Payments {
  /** Parts of the pool by query and contributor; the treasury's part is what is missing to 1. */
  readonly shares: readonly (readonly number[])[];
  /** ν of each record as credited, 0 … 1. */
  readonly credit: readonly number[];
}

/** With novelty as credited, and with novelty by texts alone for comparison. */
export async function payments(
  { layout, rows, queryGradients, covariances, corpus, examples, lines, novelties, outputs, model }: Material,
  settings: FeatureSettings,
  blend: Blend = DEFAULT_BLEND,
): Promise<{ readonly paid: Payments; readonly byText: Payments }> {
  const extractor = featureExtractor(await buildBases(layout, rows, covariances, settings));
  const kept = Array.from({ length: rows.length }, (_, i) => extractor.feature(rows.at(i)));
  const texts = examples.map(({ text }) => utf8(text));
  const index = suffixIndex(
    examples.map(({ tokens }) => tokens),
    model.tokenizer.vocabulary,
  );
  const features = Array.from(
    { length: queryGradients.length },
    (_, q) => extractor.feature(queryGradients.at(q)).values,
  );
  const pay = (credited: readonly Novelty[]): Payments => {
    const sources = lines.map((line, i) => ({
      ...{ line, tokens: examples[i]!.tokens, contributor: accountOf(corpus.records[i]!.contributor) },
      ...credited[i]!,
      ...kept[i]!,
    }));
    const { model: chain } = commitRows(hashing, extractor.k, sources, index.frequencies).data;
    const shares = outputs.map((output, q) => {
      const split = attribute(chain, chain.influence(features[q]!), index.spans(output), POOL, blend);
      const parts = new Array<number>(corpus.contributors).fill(0);
      for (const { contributor, amount } of split.shares) parts[contributor[0]! - 1] = Number(amount) / Number(POOL);
      return parts;
    });
    return { shares, credit: credited.map(({ novelty }) => novelty / NOVELTY_ONE) };
  };
  return { paid: pay(await creditNovelty(kept, novelties, texts)), byText: pay(novelties) };
}

/** Income of each contributor over all queries as a part of an honest one's mean. */
export function incomes(
  { shares }: Pick<Payments, 'shares'>,
  { contributors, copier, noise }: Material['corpus'],
): number[] {
  const sums = Array.from({ length: contributors }, (_, c) => shares.reduce((sum, share) => sum + share[c]!, 0));
  const honest = sums.filter((_, c) => c !== copier && c !== noise);
  const mean = honest.reduce((sum, each) => sum + each, 0) / honest.length;
  return sums.map((sum) => sum / mean);
}
