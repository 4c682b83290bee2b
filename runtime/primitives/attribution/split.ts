/** Who gets which part of an inference fee. Floor division everywhere; what rounding leaves is the treasury's. */
import { type Infer, struct } from '../scale/codec.ts';
import { type Balance, PERBILL, perbill } from '../types.ts';
import { part } from './canonical.ts';
import { blend, DEFAULT_BLEND } from './shares.ts';
import type { ReceiptRules } from './verify.ts';

/** Parts of the base fee; together at most one. */
export const feeSplit = part(
  'FeeSplit',
  struct({
    platform: perbill,
    /** Part of the platform's part that is burnt; the treasury has the rest. */
    burnt: perbill,
    worker: perbill,
    stakers: perbill,
    contributors: perbill,
  }),
);
export type FeeSplit = Infer<typeof feeSplit>;

export const rules = part('Rules', struct({ split: feeSplit, blend }));
export type Rules = Infer<typeof rules>;
export const DEFAULT_RULES: Rules = {
  split: {
    platform: 100_000_000,
    burnt: 500_000_000,
    worker: 200_000_000,
    stakers: 200_000_000,
    contributors: 500_000_000,
  },
  blend: DEFAULT_BLEND,
};

/** The owner's markup on the base price, at most. */
export const MAX_MARKUP = PERBILL;
/**
 * Self-dealing must cost something: at least 10 % of what is paid never come back to whoever is payer, worker, contributor
 * and owner at once (docs/method.md), whatever the markup is, and even if a third of all stake is theirs too. Who has
 * more than that decides alone what the chain says.
 */
export const MIN_OUTFLOW = 100_000_000;
const DEALERS_STAKE = 3n;

/** Whether the parts exceed the whole, or less than {@link MIN_OUTFLOW} would be lost to those who pay themselves. */
export function rulesFault({ split, blend: mix }: Rules): boolean {
  const { platform, burnt, worker, stakers, contributors } = split;
  const lost = DEALERS_STAKE * BigInt(platform) + (DEALERS_STAKE - 1n) * BigInt(stakers);
  return (
    platform + worker + stakers + contributors > PERBILL ||
    burnt > PERBILL ||
    mix.influence + mix.spans > PERBILL ||
    // The markup comes back whole: what is lost is a part of the base price, which is the smaller the higher the markup.
    lost * BigInt(PERBILL) < DEALERS_STAKE * BigInt(MIN_OUTFLOW) * BigInt(PERBILL + MAX_MARKUP)
  );
}

const partOf = (amount: Balance, parts: number): Balance => (amount * BigInt(parts)) / BigInt(PERBILL);

/** What is left of a fee without the owner's markup on it, rounded down: no sum of pools exceeds the pool of a sum. */
export const baseOf = (fee: Balance, markup: number): Balance => (fee * BigInt(PERBILL)) / BigInt(PERBILL + markup);
/** The owner's markup in a fee, rounded down: no fee is so small that all of it is markup. */
const markupIn = (fee: Balance, markup: number): Balance => (fee * BigInt(markup)) / BigInt(PERBILL + markup);

/** The rules for receipts of an adapter with that markup. */
export const receiptRules = ({ split, blend: mix }: Rules, markup: number): ReceiptRules => ({
  blend: mix,
  poolOf: (fee) => partOf(baseOf(fee, markup), split.contributors),
});

export interface Distribution {
  readonly owner: Balance;
  readonly worker: Balance;
  readonly stakers: Balance;
  readonly burnt: Balance;
  /** Its own part, and all that rounding leaves; not the remainder of the contributors' pool. */
  readonly treasury: Balance;
}

/** The rest of a batch's fees beside its `pool`. `owner + worker + stakers + burnt + treasury + pool = fees`. */
export function distribute(fees: Balance, pool: Balance, markup: number, { split }: Rules): Distribution {
  const owner = markupIn(fees, markup);
  const base = fees - owner;
  const worker = partOf(base, split.worker);
  const stakers = partOf(base, split.stakers);
  const burnt = partOf(partOf(base, split.platform), split.burnt);
  return { owner, worker, stakers, burnt, treasury: base - pool - worker - stakers - burnt };
}
