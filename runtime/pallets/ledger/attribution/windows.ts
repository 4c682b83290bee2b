/**
 * Windows: how receipts become money, step by step, by two queues of work. When a window ends, its work must be there (most
 * validators have attested that they hold its files) and not be under audit; then a training is accepted, and a batch
 * is paid out in pieces. What does not come to be there in time is struck.
 */
import { addWeight, cost, PS_PER_MS, scaleWeight } from '../../../framework/dispatch.ts';
import type { Env } from '../../../framework/pallet.ts';
import { type Progress, workQueue } from '../../../framework/work-queue.ts';
import type { Host } from '../../../host.ts';
import { part } from '../../../primitives/attribution/canonical.ts';
import { type AdapterId, type ReceiptBatchId, receiptBatchId } from '../../../primitives/attribution/ids.ts';
import { distribute } from '../../../primitives/attribution/split.ts';
import { AUDIT_ONE, auditLoad } from '../../../primitives/attribution/stakes.ts';
import { TREASURY } from '../../../primitives/pallet-id.ts';
import { type Infer, struct, u8, u32, variants } from '../../../primitives/scale/codec.ts';
import type { AccountId, Balance } from '../../../primitives/types.ts';
import * as balances from '../../standard/balances.ts';
import { POT as STAKERS } from '../../standard/staking.ts';
import * as system from '../../standard/system.ts';
import * as audits from '../audits.ts';
import * as blobs from '../blobs.ts';
import * as compute from '../compute.ts';
import * as models from '../models.ts';
import { letGo, passOn, strikeBatch, strikeTraining, withdrawBatch, withdrawTraining } from './faults.ts';
import { events, type PendingBatch, POT, parametersOf, store } from './store.ts';

/** Totals that one step pays out. */
const TOTALS_A_STEP = 256;
/** Looks, in blocks 1, 2, 4, … after the end of a window, for files that are not attested yet: 1,023 blocks in all. */
const MAX_LOOKS = 10;

const closing = part(
  'ClosingStep',
  variants({
    /** `looks`: how often files were looked for in vain. */
    Close: struct({ subject: audits.subject, looks: u8 }),
    Pay: struct({ batch: receiptBatchId, from: u32 }),
  }),
);
type Closing = Infer<typeof closing>;

// ---- payouts -------------------------------------------------------------------------------------------------

/** Adds to what an account can claim; the OPEN is in the pot already. */
function credit(env: Env, account: AccountId, batch: ReceiptBatchId, amount: Balance): void {
  if (amount === 0n) return;
  store.Rewards.mutate(env.host, account, ({ claimable, earned }) => ({
    claimable: claimable + amount,
    earned: earned + amount,
  }));
  env.emit(events.Earned, { account, batch, amount });
}

/** What is left of a batch's fees when its contributors have theirs. */
function payRest(env: Env, id: ReceiptBatchId, { batch, terms, rules: by, stake }: PendingBatch): void {
  const { host } = env;
  const { owner, worker, stakers, burnt, treasury } = distribute(batch.fees, batch.pool, terms.markup, by);
  credit(env, models.adapterOf(host, batch.adapter).owner, id, owner);
  credit(env, batch.worker, id, worker);
  passOn(env, STAKERS, stakers);
  passOn(env, TREASURY, treasury + batch.remainder);
  balances.take(env, POT, burnt);
  balances.rescind(env, burnt);
  compute.unpledge(host, batch.worker, stake);
  const contributors = batch.pool - batch.remainder;
  env.emit(events.Paid, { batch: id, contributors, burnt, treasury: treasury + batch.remainder });
}

function pay(env: Env, id: ReceiptBatchId, from: number): Progress<Closing> {
  const { host } = env;
  const pending = store.Paying.get(host, id);
  if (pending === undefined) return {};
  const { totals } = pending.batch;
  const upTo = Math.min(totals.length, from + TOTALS_A_STEP);
  for (const { contributor, amount } of totals.slice(from, upTo)) credit(env, contributor, id, amount);
  if (upTo < totals.length) return { rest: { type: 'Pay', value: { batch: id, from: upTo } } };
  store.Paying.remove(host, id);
  letGo(env, pending);
  payRest(env, id, pending);
  return { used: payWeight(upTo - from) };
}

// ---- windows -------------------------------------------------------------------------------------------------

/** Whether the validators attest that all files of the work are there, or have been. */
function isThere(host: Host, of: audits.Subject): boolean {
  if (of.type === 'Batch') {
    const pending = store.Batches.get(host, of.value);
    return pending !== undefined && blobs.isAvailable(host, pending.claim);
  }
  const { artifacts, segments } = models.adapterOf(host, of.value);
  return blobs.isAvailable(host, artifacts) && (segments === undefined || blobs.isAvailable(host, segments));
}

/** The block in which the window of the work ends; undefined when it is over. */
const endOf = (host: Host, of: audits.Subject): number | undefined =>
  of.type === 'Batch' ? store.Batches.get(host, of.value)?.until : store.Trainings.get(host, of.value)?.until;

function close(env: Env, of: audits.Subject, looks: number): Progress<Closing> | undefined {
  const { host } = env;
  // An audit that goes on has the window closed when it ends.
  if (endOf(host, of) === undefined || audits.isSuspended(host, of)) return undefined;
  if (!isThere(host, of)) {
    if (looks >= MAX_LOOKS) strike(env, of, undefined, 'Withheld');
    else closeLater(host, of, system.blockNumber(host) + 2 ** looks, looks + 1);
    return undefined;
  }
  if (of.type === 'Training') {
    accept(env, of.value);
    return undefined;
  }
  const pending = store.Batches.take(host, of.value);
  if (pending !== undefined) store.Paying.insert(host, of.value, pending);
  return { rest: { type: 'Pay', value: { batch: of.value, from: 0 } }, used: CLOSE };
}

function accept(env: Env, id: AdapterId): void {
  store.Trainings.remove(env.host, id);
  models.acceptAdapter(env, id);
}

function strike(env: Env, of: audits.Subject, finder: AccountId | undefined, why: 'Audit' | 'Withheld'): void {
  if (of.type === 'Batch') strikeBatch(env, of.value, finder, { type: why });
  else strikeTraining(env, of.value, finder, { type: why });
}

function undecided(env: Env, of: audits.Subject): void {
  if (of.type === 'Training') withdrawTraining(env, of.value);
  else {
    const pending = store.Batches.get(env.host, of.value);
    if (pending !== undefined) withdrawBatch(env, of.value, pending);
  }
  env.emit(events.Undecided, { subject: of });
}

// ---- queues --------------------------------------------------------------------------------------------------

const CLOSE = cost(250_000_000n, 45, 30);
const perTotal = cost(35_000_000n, 1, 1);
const payWeight = (totals: number) => addWeight(cost(1_500_000_000n, 12, 10), scaleWeight(perTotal, BigInt(totals)));
/** A draw looks at up to 256 workers; a conclusion pays or slashes up to 28 auditors and strikes. */
const REVIEW = cost(6n * PS_PER_MS, 600, 200);

export const windows = workQueue({
  name: 'Windows',
  docs: 'Windows that end, and batches that are being paid out.',
  item: closing,
  budget: 120n * PS_PER_MS,
  weight: (item) => (item.type === 'Close' ? CLOSE : payWeight(TOTALS_A_STEP)),
  run: (env, item) =>
    item.type === 'Close'
      ? close(env, item.value.subject, item.value.looks)
      : pay(env, item.value.batch, item.value.from),
});

export const reviews = workQueue({
  name: 'Reviews',
  docs: 'Auditors to be drawn, and audits that end.',
  item: audits.step,
  budget: 60n * PS_PER_MS,
  weight: () => REVIEW,
  run(env, step) {
    const { host } = env;
    if (step.type === 'Draw') {
      const { request, requester } = step.value;
      // Struck by a challenge meanwhile: nothing is left to be looked at.
      if (endOf(host, request.subject) === undefined) audits.release(host, request.subject);
      else if (!audits.drawFirst(env, laterIn(host), request, requester)) closeSoon(host, request.subject);
      return undefined;
    }
    const ended = audits.conclude(env, step.value, laterIn(host), (of) => isThere(host, of));
    if (ended === undefined || endOf(host, ended.subject) === undefined) return undefined;
    if (ended.outcome === 'Faulty') strike(env, ended.subject, ended.finder, 'Audit');
    else if (ended.outcome === 'Undecided') undecided(env, ended.subject);
    else closeSoon(host, ended.subject);
    return undefined;
  },
});

const laterIn =
  (host: Host): audits.Later =>
  (due, what) =>
    reviews.schedule(host, { now: system.blockNumber(host), due }, what);

function closeLater(host: Host, subject: audits.Subject, due: number, looks = 0): void {
  windows.schedule(host, { now: system.blockNumber(host), due }, { type: 'Close', value: { subject, looks } });
}

const closeSoon = (host: Host, of: audits.Subject): void => closeLater(host, of, endOf(host, of) ?? 0);

/**
 * Opens the window of work that could take `value` from others: it can be challenged, and drawn for an audit, until the
 * block that is returned. Without a value, as for trainings, on which all later answers rest, it is audited for certain.
 */
export function openWindow(host: Host, request: audits.Request, value: Balance | undefined): number {
  const now = system.blockNumber(host);
  const { windowBlocks, slash } = parametersOf(host);
  const until = now + Math.max(windowBlocks, audits.span(host) + 1);
  closeLater(host, request.subject, until);
  const load = value === undefined ? AUDIT_ONE : auditLoad(value, slash, audits.parametersOf(host).rate);
  audits.enter(host, laterIn(host), request, load);
  return until;
}

/** Has work looked at that somebody pays for. */
export const orderAudit = (host: Host, request: audits.Request, by: AccountId): void =>
  audits.order(host, laterIn(host), request, by);

/** In every block: draws from the work that is in its window. */
export const select = (env: Env, now: number) => audits.select(env, now, laterIn(env.host));
