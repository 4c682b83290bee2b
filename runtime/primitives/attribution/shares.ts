/** Splitting the contributors' part of a fee (docs/method.md, step 7). */
import { type Infer, struct } from '../scale/codec.ts';
import { PERBILL, perbill } from '../types.ts';
import { part } from './canonical.ts';

/** Weights of influence and spans, in parts per 10^9. If they add up to less than one, the treasury has the rest. */
export const blend = part('Blend', struct({ influence: perbill, spans: perbill }));
export type Blend = Infer<typeof blend>;
export const DEFAULT_BLEND: Blend = { influence: 700_000_000, spans: 300_000_000 };

export interface Standing {
  /** I_c, of either sign. */
  readonly influence: bigint;
  /** T_c, not negative. */
  readonly spanMass: bigint;
}

export interface Split {
  /** One for each standing, in order. */
  readonly amounts: bigint[];
  /** What rounding leaves, or everything if nobody stands: for the treasury. `Σ amounts + remainder = pool`. */
  readonly remainder: bigint;
}

/**
 * A tenth of the greatest influence is taken off everybody's. Records have a little influence on every answer by chance,
 * noise too, and since each account is clipped at 0 by itself, accounts of one record each would collect all of it that is
 * positive. Measured against retraining (gpu-worker/attribution/README.md), shares also come closer to the truth so.
 */
const FLOOR_PARTS = 10n;

/**
 * `amount_c = ⌊pool · (a·P_c/ΣP + b·T_c/ΣT)⌋` with `P_c = max(0, I_c − ⌊max I / 10⌋)`, as one division. If one of the sums is 0, the
 * other one decides alone with the weight of both; if both are, the treasury has all.
 */
export function splitPool(pool: bigint, standings: readonly Standing[], { influence: a, spans: b }: Blend): Split {
  let greatest = 0n;
  for (const { influence } of standings) if (influence > greatest) greatest = influence;
  const floor = greatest / FLOOR_PARTS;
  const positive = standings.map(({ influence }) => (influence > floor ? influence - floor : 0n));
  let allInfluence = 0n;
  let allSpans = 0n;
  for (const [c, { spanMass }] of standings.entries()) {
    allInfluence += positive[c]!;
    allSpans += spanMass;
  }
  let influenceWeight = BigInt(a);
  let spanWeight = BigInt(b);
  if (allInfluence === 0n) [influenceWeight, spanWeight] = [0n, influenceWeight + spanWeight];
  else if (allSpans === 0n) [influenceWeight, spanWeight] = [influenceWeight + spanWeight, 0n];
  const influenceBase = allInfluence === 0n ? 1n : allInfluence;
  const spanBase = allSpans === 0n ? 1n : allSpans;
  const divisor = BigInt(PERBILL) * influenceBase * spanBase;
  let remainder = pool;
  const amounts = standings.map(({ spanMass }, c) => {
    const part = influenceWeight * positive[c]! * spanBase + spanWeight * spanMass * influenceBase;
    const amount = (pool * part) / divisor;
    remainder -= amount;
    return amount;
  });
  return { amounts, remainder };
}
