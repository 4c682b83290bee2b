/**
 * What keeps workers honest in figures (reference method, "Keeping workers honest"): how likely work is looked at, what of
 * the bond stands for it, and what is lost if it was wrong. Chance grows with the value at stake and falls with the slash,
 * so that the expected loss of a cheat exceeds its gain whatever the parameters are set to; `test/sim` shows it.
 */
import { type Balance, PERBILL } from '../types.ts';

/** One audit, as a load. */
export const AUDIT_ONE = 1n << 32n;
/** One audit is drawn for each three tenths of a slash that are at stake. */
const VALUE_TENTHS = 3n;
/** So many times its fees are at stake for a batch: a bond of that size outlasts as many strikes as are to be expected. */
const STAKE_FACTOR = 3n;

/** Of audits: `value` is what the work could take from others, `rate` (perbill) is the load of work of any value. */
export const auditLoad = (value: Balance, slash: Balance, rate: number): bigint =>
  (value * AUDIT_ONE * 10n) / (VALUE_TENTHS * (slash > 0n ? slash : 1n)) + (BigInt(rate) * AUDIT_ONE) / BigInt(PERBILL);

/** What a bond stands for while a batch with these fees is in its window. */
export const batchStake = (fees: Balance): Balance => STAKE_FACTOR * fees;

/** Taken for wrong work. Its value counts, since the chance of an audit cannot rise above one. */
export const workSlash = (slash: Balance, value: Balance): Balance => slash + value;

/** The part of a slash that goes to whoever found the fault. */
export const finderPart = (slash: Balance, finderReward: number): Balance =>
  (slash * BigInt(finderReward)) / BigInt(PERBILL);

/**
 * How many audits one block draws from work with these loads together, if every block of `blocks` draws: as many as there
 * are in one of as many equal parts, and one more with the chance that the rest makes. `chance`: 32 random bits.
 */
export const drawsOf = (loads: bigint, blocks: number, chance: bigint): number =>
  Number(((loads << 16n) / BigInt(blocks) + (chance << 16n)) / (AUDIT_ONE << 16n));
