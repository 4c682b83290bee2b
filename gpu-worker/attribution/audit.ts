/**
 * Whether two computations of the same features agree (docs/method.md, "Keeping workers honest"). Measured there:
 * honest bf16 against fp32 ≥ .99996; a base in 4 bits .979; half of the answer .718. Cosine alone is too loose.
 */

export interface AuditTolerance {
  readonly minCosine: number;
  /** |norm ratio − 1|, for features before quantisation. */
  readonly maxNormError: number;
  /** Total variation between the two distributions over contributors. */
  readonly maxShareDistance: number;
}

export const AUDIT_TOLERANCE: AuditTolerance = { minCosine: 0.9995, maxNormError: 0.01, maxShareDistance: 0.01 };

export interface AuditEvidence {
  readonly cosine: number;
  readonly normError: number;
  readonly shareDistance: number;
}

export type AuditFault = 'WRONG_WIDTH' | 'COSINE' | 'NORM' | 'SHARES';
export interface AuditResult extends AuditEvidence {
  readonly fault: AuditFault | undefined;
}

/** A feature with its norm: `values` in any unit, `norm` that of the unquantised vector if both sides know it. */
export interface AuditedFeature {
  readonly values: ArrayLike<number>;
  readonly norm?: number;
  /** Income by contributor for the same pool, in the same order. */
  readonly amounts: readonly bigint[];
}

export function compareFeatures(
  claimed: AuditedFeature,
  recomputed: AuditedFeature,
  tolerance: AuditTolerance = AUDIT_TOLERANCE,
): AuditResult {
  const cosine = cosineOf(claimed.values, recomputed.values);
  const normError =
    claimed.norm === undefined || recomputed.norm === undefined ? 0 : relativeError(claimed.norm, recomputed.norm);
  const shareDistance = totalVariation(claimed.amounts, recomputed.amounts);
  const evidence = { cosine, normError, shareDistance };
  if (claimed.values.length !== recomputed.values.length) return { ...evidence, fault: 'WRONG_WIDTH' };
  // Written so that NaN fails.
  if (!(cosine >= tolerance.minCosine)) return { ...evidence, fault: 'COSINE' };
  if (!(normError <= tolerance.maxNormError)) return { ...evidence, fault: 'NORM' };
  if (!(shareDistance <= tolerance.maxShareDistance)) return { ...evidence, fault: 'SHARES' };
  return { ...evidence, fault: undefined };
}

const relativeError = (a: number, b: number): number => (a === b ? 0 : Math.abs(a / b - 1));

/** 1 for two zero vectors, 0 if one is zero. */
export function cosineOf(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let ab = 0;
  let aa = 0;
  let bb = 0;
  for (let i = 0; i < a.length; i++) {
    ab += a[i]! * (b[i] ?? 0);
    aa += a[i]! * a[i]!;
  }
  for (let i = 0; i < b.length; i++) bb += b[i]! * b[i]!;
  if (aa === 0 && bb === 0) return 1;
  return aa === 0 || bb === 0 ? 0 : ab / Math.sqrt(aa * bb);
}

/** Half the sum of differences between two distributions, each scaled to 1; 1 if only one of them is empty. */
export function totalVariation(a: readonly bigint[], b: readonly bigint[]): number {
  const sum = (each: readonly bigint[]): bigint => each.reduce((total, value) => total + value, 0n);
  const [allA, allB] = [sum(a), sum(b)];
  if (allA === 0n || allB === 0n) return allA === allB ? 0 : 1;
  let distance = 0n;
  for (let c = 0; c < Math.max(a.length, b.length); c++) {
    const difference = (a[c] ?? 0n) * allB - (b[c] ?? 0n) * allA;
    distance += difference < 0n ? -difference : difference;
  }
  return Number((distance * 1_000_000_000n) / (2n * allA * allB)) / 1e9;
}

/** How many of `rows` wrong rows an audit of `sample` random ones out of `total` misses, as a probability. */
export function missProbability(total: number, wrong: number, sample: number): number {
  let missed = 1;
  for (let i = 0; i < sample; i++) missed *= Math.max(0, total - wrong - i) / (total - i);
  return missed;
}

/** A contributor whose records lose so much more than the middle one's was cut out of the projection. */
const MAX_ENERGY_LOSS = 0.1;
/** Standard errors that a sample may be off by, and records that say something. */
const ERRORS = 3;
const MIN_ROWS = 4;

/**
 * Whether a projection leaves some contributor out: `captured` is what it keeps of each sampled record, `owners` whose it is.
 * Compared with the median of the contributors, and downwards only: records that stand twice are kept better by any honest
 * projection (measured: 1.35 of the average), and nobody is harmed by that.
 */
export function leavesOut(captured: readonly number[], owners: readonly string[]): boolean {
  const groups = new Map<string, number[]>();
  for (const [i, owner] of owners.entries()) groups.set(owner, [...(groups.get(owner) ?? []), captured[i]!]);
  const means = [...groups.values()]
    .filter((values) => values.length >= MIN_ROWS)
    .map((values) => {
      const mean = values.reduce((sum, each) => sum + each, 0) / values.length;
      const variance = values.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (values.length - 1);
      return { mean, error: Math.sqrt(variance / values.length) };
    });
  if (means.length < 2) return false;
  const sorted = means.map(({ mean }) => mean).sort((a, b) => a - b);
  const median = sorted[sorted.length >> 1]!;
  return means.some(({ mean, error }) => mean < (1 - MAX_ENERGY_LOSS) * median - ERRORS * error);
}
