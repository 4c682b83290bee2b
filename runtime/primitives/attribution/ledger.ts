/**
 * The two lists behind a receipt batch. Items: the receipts with running fees, in the order of their nonces. Ledger: who
 * gets how much of which receipt, with running totals, ordered by (contributor, receipt). As with the running sums of
 * rows, a wrong total implies a wrong step, a wrong order or a gap between two adjacent entries, each of which is shown
 * with two entries and one receipt.
 */
import { compareBytes } from '../bytes.ts';
import { bool, encode, type Infer, struct, u32, u128, vec } from '../scale/codec.ts';
import { accountId, type Hash } from '../types.ts';
import { type Blake, canonical, part } from './canonical.ts';
import { accountKey } from './features.ts';
import { MAX_BATCH_RECEIPTS } from './limits.ts';
import { leafHash, merkleRoot } from './merkle.ts';
import { type ContributorTotal, type SignedInferenceReceipt, signedInferenceReceipt } from './receipts.ts';

export const ledgerEntry = part(
  'LedgerEntry',
  struct({
    contributor: accountId,
    /** Position of the receipt in the batch. */
    receipt: u32,
    amount: u128,
    /** Of this contributor, up to and including this receipt. */
    cumulative: u128,
    last: bool,
  }),
);
export type LedgerEntry = Infer<typeof ledgerEntry>;

export const ledgerLeaf = (hashing: Blake, entry: LedgerEntry): Hash =>
  leafHash(hashing, 'ledger', encode(ledgerEntry, entry));

export const ledgerRoot = (hashing: Blake, entries: readonly LedgerEntry[]): Hash =>
  merkleRoot(
    hashing,
    'ledger',
    entries.map((entry) => ledgerLeaf(hashing, entry)),
  );

/** A receipt of a batch with the sums of all receipts up to and including it. */
export const batchItem = part(
  'BatchItem',
  struct({ receipt: signedInferenceReceipt, fees: u128, pool: u128, remainder: u128 }),
);
export type BatchItem = Infer<typeof batchItem>;

/** The blob that a batch publishes. */
export const batchFile = canonical('batch-file/1', 'BatchFile', struct({ items: vec(batchItem, MAX_BATCH_RECEIPTS) }));

export const itemLeaf = (hashing: Blake, item: BatchItem): Hash =>
  leafHash(hashing, 'receipts', encode(batchItem, item));

export const itemRoot = (hashing: Blake, items: readonly BatchItem[]): Hash =>
  merkleRoot(
    hashing,
    'receipts',
    items.map((item) => itemLeaf(hashing, item)),
  );

/** Whether an item is its predecessor (the first has none) plus its receipt. */
export function itemStepHolds(item: BatchItem, before: BatchItem | undefined): boolean {
  const { fee, pool, remainder } = item.receipt.payload;
  return (
    item.fees === (before?.fees ?? 0n) + fee &&
    item.pool === (before?.pool ?? 0n) + pool &&
    item.remainder === (before?.remainder ?? 0n) + remainder
  );
}

export interface BatchSums {
  readonly items: BatchItem[];
  readonly entries: LedgerEntry[];
  readonly totals: ContributorTotal[];
  readonly fees: bigint;
  readonly pool: bigint;
  readonly remainder: bigint;
}

/** The right lists for receipts in the order of their nonces. Shares of amount 0 have no entry. */
export function batchLedger(receipts: readonly SignedInferenceReceipt[]): BatchSums {
  const accounts = new Map<string, LedgerEntry[]>();
  let fees = 0n;
  let pool = 0n;
  let remainder = 0n;
  const items: BatchItem[] = [];
  for (const [at, receipt] of receipts.entries()) {
    const { payload } = receipt;
    fees += payload.fee;
    pool += payload.pool;
    remainder += payload.remainder;
    items.push({ receipt, fees, pool, remainder });
    for (const { contributor, amount } of payload.shares) {
      if (amount === 0n) continue;
      const key = accountKey(contributor);
      const own = accounts.get(key);
      const before = own?.at(-1);
      const entry = { contributor, receipt: at, amount, cumulative: (before?.cumulative ?? 0n) + amount, last: true };
      if (before === undefined) accounts.set(key, [entry]);
      else {
        before.last = false;
        own!.push(entry);
      }
    }
  }
  const sorted = [...accounts.values()].sort((a, b) => compareBytes(a[0]!.contributor, b[0]!.contributor));
  const totals = sorted.map((own) => ({ contributor: own[0]!.contributor, amount: own.at(-1)!.cumulative }));
  return { items, entries: sorted.flat(), totals, fees, pool, remainder };
}

/** Whether an entry follows from its predecessor in the list and the receipt that it names. */
export function ledgerStepHolds(
  entry: LedgerEntry,
  before: LedgerEntry | undefined,
  receipt: SignedInferenceReceipt,
): boolean {
  const share = receipt.payload.shares.find((each) => compareBytes(each.contributor, entry.contributor) === 0);
  const carried = before && compareBytes(before.contributor, entry.contributor) === 0 ? before.cumulative : 0n;
  return (
    share !== undefined &&
    share.amount > 0n &&
    share.amount === entry.amount &&
    carried + entry.amount === entry.cumulative
  );
}

/** Whether two adjacent entries may follow each other (`after` undefined: `entry` is the last of the list). */
export function ledgerOrderHolds(entry: LedgerEntry, after: LedgerEntry | undefined): boolean {
  if (after === undefined) return entry.last;
  const order = compareBytes(entry.contributor, after.contributor);
  return order === 0 ? !entry.last && entry.receipt < after.receipt : order < 0 && entry.last;
}

/** Order of (contributor, receipt) pairs. */
export function ledgerOrder(
  a: { readonly contributor: Uint8Array; readonly receipt: number },
  b: { readonly contributor: Uint8Array; readonly receipt: number },
): number {
  return compareBytes(a.contributor, b.contributor) || a.receipt - b.receipt;
}
