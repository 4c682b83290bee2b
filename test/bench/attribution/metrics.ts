/** How well scores predict what retraining shows. */

/** Ranks from 0, equal values sharing the mean of theirs. */
export function ranks(values: ArrayLike<number>): Float64Array {
  const order = Array.from({ length: values.length }, (_, i) => i).sort((a, b) => values[a]! - values[b]!);
  const out = new Float64Array(values.length);
  for (let i = 0; i < order.length; ) {
    let end = i;
    while (end < order.length && values[order[end]!] === values[order[i]!]) end++;
    for (let j = i; j < end; j++) out[order[j]!] = (i + end - 1) / 2;
    i = end;
  }
  return out;
}

export function pearson(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const n = a.length;
  let [meanA, meanB] = [0, 0];
  for (let i = 0; i < n; i++) {
    meanA += a[i]! / n;
    meanB += b[i]! / n;
  }
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < n; i++) {
    const [x, y] = [a[i]! - meanA, b[i]! - meanB];
    ab += x * y;
    aa += x * x;
    bb += y * y;
  }
  return aa === 0 || bb === 0 ? 0 : ab / Math.sqrt(aa * bb);
}

export const spearman = (a: ArrayLike<number>, b: ArrayLike<number>): number => pearson(ranks(a), ranks(b));

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/**
 * Linear datamodelling score (Park et al. 2023): over subsets, the rank correlation of the summed scores of the records
 * trained on with the negative loss; mean over queries. `losses[subset][query]`, `subsets[subset][record]` the weights.
 */
export function datamodelScore(
  scores: readonly Float64Array[],
  subsets: readonly ArrayLike<number>[],
  losses: readonly ArrayLike<number>[],
): number {
  return mean(
    scores.map((score, q) => {
      const predicted = subsets.map((weights) => {
        let sum = 0;
        for (let i = 0; i < score.length; i++) sum += weights[i]! * score[i]!;
        return sum;
      });
      return spearman(
        predicted,
        losses.map((loss) => -loss[q]!),
      );
    }),
  );
}

/** Part of the `top` best records that are of the query's domain. */
export function precision(
  scores: readonly Float64Array[],
  same: (query: number, record: number) => boolean,
  top = 10,
): number {
  return mean(
    scores.map((score, q) => {
      const order = Array.from(score.keys()).sort((a, b) => score[b]! - score[a]!);
      return order.slice(0, top).filter((record) => same(q, record)).length / top;
    }),
  );
}

/** Effect of each group's presence on the negative loss, by least squares with a little ridge. */
export function groupEffects(
  present: readonly ArrayLike<number>[],
  gains: readonly number[],
  groups: number,
): Float64Array {
  const n = groups + 1;
  const a = Array.from({ length: n }, (_, i) => {
    const row = new Float64Array(n + 1);
    row[i] = i < groups ? 0.1 : 1e-9;
    return row;
  });
  for (const [s, weights] of present.entries()) {
    const x = Float64Array.from({ length: n }, (_, g) => (g < groups ? weights[g]! : 1));
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) a[i]![j]! += x[i]! * x[j]!;
      a[i]![n]! += x[i]! * gains[s]!;
    }
  }
  for (let i = 0; i < n; i++) {
    for (let r = i + 1; r < n; r++) {
      const factor = a[r]![i]! / a[i]![i]!;
      for (let c = i; c <= n; c++) a[r]![c]! -= factor * a[i]![c]!;
    }
  }
  const x = new Float64Array(n);
  for (let i = n - 1; i >= 0; i--) {
    let sum = a[i]![n]!;
    for (let c = i + 1; c < n; c++) sum -= a[i]![c]! * x[c]!;
    x[i] = sum / a[i]![i]!;
  }
  return x.subarray(0, groups);
}

/** Positive parts, scaled to 1. */
export function positiveShares(values: ArrayLike<number>): number[] {
  const positive = Array.from({ length: values.length }, (_, i) => Math.max(0, values[i]!));
  const sum = positive.reduce((total, value) => total + value, 0);
  return positive.map((value) => (sum === 0 ? 0 : value / sum));
}

export const shareDistance = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, value, i) => sum + Math.abs(value - b[i]!), 0) / 2;
