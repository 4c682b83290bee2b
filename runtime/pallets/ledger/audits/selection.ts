/**
 * Which work is audited, and by whom.
 *
 * Work has a load: the number of audits to be expected of it, by its value (`stakes.ts`). A load of one or more is audited
 * for certain. All other work stands in a row, and for `commitBlocks` blocks after it was handed in each block draws from
 * the row, by load. Many blocks of different authors decide, so that an author can keep only its own ones from doing so,
 * by not making them; and what others hand in does not change anybody's chance. Auditors are drawn by bond, some blocks
 * after it was decided that there will be an audit: whoever put the work into its block, or decided, cannot know them.
 */
import { cost } from '../../../framework/dispatch.ts';
import type { Env } from '../../../framework/pallet.ts';
import type { Host } from '../../../host.ts';
import { canonical, hashOf } from '../../../primitives/attribution/canonical.ts';
import type { BaseModelId } from '../../../primitives/attribution/ids.ts';
import { AUDIT_ONE, drawsOf } from '../../../primitives/attribution/stakes.ts';
import { toHex } from '../../../primitives/bytes.ts';
import { u32 } from '../../../primitives/scale/codec.ts';
import { type AccountId, type Hash, sameAccount, type Weight } from '../../../primitives/types.ts';
import * as system from '../../standard/system.ts';
import * as beacon from '../beacon.ts';
import * as compute from '../compute.ts';
import {
  type Audit,
  events,
  type Later,
  parametersOf,
  type Request,
  SECOND_AUDITORS,
  type Subject,
  store,
  subject,
} from './store.ts';

/** Blocks from the decision that there will be an audit to the draw of its auditors, where the time allows it. */
const MOST_DELAY = 8;
/** Candidates that leave the row in one block, and audits that one block draws from it, at most. */
const MAX_LEAVING = 1_500;
const MAX_DRAWN = 16;
/** A bond counts up to so many times the least bond. */
const MOST_WEIGHT = 16n;
/** Workers that are looked at for one draw of auditors. */
const MAX_LOOKS = 256;

const subjectHash = canonical('audit-subject/1', 'AuditSubjectHash', subject);
const auditHash = canonical('audit-number/1', 'AuditNumber', u32);

/** A stream of numbers below 2^64 that the beacon decides. */
function* numbers(host: Host, about: Hash): Generator<bigint, never> {
  for (let purpose = 0; ; purpose++) {
    const drawn = beacon.draw(host, about, purpose);
    for (let at = 0; at < 32; at += 8) yield drawn.getBigUint64(at, true);
  }
}

export const drawDelay = (host: Host): number =>
  Math.min(MOST_DELAY, Math.max(1, Math.floor(parametersOf(host).commitBlocks / 2)));

/** Blocks from a commitment to the end of the first round of an audit of it, at most. */
export function span(host: Host): number {
  const { commitBlocks, revealBlocks } = parametersOf(host);
  return commitBlocks + drawDelay(host) + commitBlocks + revealBlocks;
}

/** Audits of the work that are not over. */
export const isSuspended = (host: Host, of: Subject): boolean => store.Suspended.get(host, of) > 0;

/** An audit of the work will not take place. */
export const release = (host: Host, of: Subject): void => suspend(host, of, -1);

export function suspend(host: Host, of: Subject, change: 1 | -1): void {
  const now = Math.max(0, store.Suspended.get(host, of) + change);
  if (now === 0) store.Suspended.remove(host, of);
  else store.Suspended.insert(host, of, now);
}

/** Has auditors drawn for the work, after a while. */
export function order(host: Host, later: Later, request: Request, requester?: AccountId): void {
  suspend(host, request.subject, 1);
  later(system.blockNumber(host) + drawDelay(host), { type: 'Draw', value: { request, requester } });
}

/** Enters work with its load (see `stakes.ts`). */
export function enter(host: Host, later: Later, request: Request, load: bigint): void {
  if (load >= AUDIT_ONE) {
    order(host, later, request);
    return;
  }
  const { next, upTo, ...row } = store.Range.get(host);
  const now = system.blockNumber(host);
  store.Candidates.insert(host, next, { request, at: now, upTo: upTo + load });
  store.Range.put(host, { ...row, next: next + 1n, upTo: upTo + load });
}

/** Draws from the row. Returns what that took. */
export function select(env: Env, now: number, later: Later): Weight {
  const { host } = env;
  const { commitBlocks } = parametersOf(host);
  let { first, before } = store.Range.get(host);
  const { next, upTo } = store.Range.get(host);
  let left = 0;
  for (; left < MAX_LEAVING && first < next; left++, first++) {
    const found = store.Candidates.get(host, first);
    if (found !== undefined && found.at + commitBlocks >= now) break;
    if (found !== undefined) before = found.upTo;
    store.Candidates.remove(host, first);
  }
  if (left > 0) store.Range.put(host, { first, next, before, upTo });
  const loads = upTo - before;
  if (loads === 0n) return cost(5_000_000n, 4 + left, left + 1);
  const chance = numbers(host, hashOf(host, auditHash, now));
  const drawn = Math.min(MAX_DRAWN, drawsOf(loads, commitBlocks, chance.next().value & 0xffffffffn));
  for (let i = 0; i < drawn; i++) {
    const request = candidateAt(host, before + (chance.next().value % loads), first, next);
    if (request !== undefined && !isSuspended(host, request.subject)) order(host, later, request);
  }
  return cost(10_000_000n + 60_000_000n * BigInt(drawn), 5 + left + 40 * drawn, left + 1 + 6 * drawn);
}

/** Whose load covers the point: the first candidate that goes beyond it. */
function candidateAt(host: Host, point: bigint, first: bigint, next: bigint): Request | undefined {
  let [low, high] = [first, next];
  while (low < high) {
    const middle = (low + high) / 2n;
    if ((store.Candidates.get(host, middle)?.upTo ?? 0n) > point) high = middle;
    else low = middle + 1n;
  }
  return store.Candidates.get(host, low)?.request;
}

// ---- auditors ------------------------------------------------------------------------------------------------

/** The weight of an account's bond in a draw; 0 where it cannot audit that work: it is not able, or has to do with it. */
function weightOf(host: Host, who: AccountId, out: ReadonlySet<string>, baseModel: BaseModelId): bigint {
  const found = compute.workerOf(host, who);
  if (found === undefined || out.has(toHex(who)) || !compute.isActive(host, who)) return 0n;
  if (!found.capabilities.auditing || !found.capabilities.baseModels.includes(baseModel)) return 0n;
  const most = MOST_WEIGHT * compute.parametersOf(host).minBond;
  return found.bond < most ? found.bond : most;
}

/** Draws up to `wanted` auditors by bond: an odd number, since an even one could end in a tie. */
export function drawAuditors(
  host: Host,
  about: Hash,
  out: readonly AccountId[],
  baseModel: BaseModelId,
  wanted: number,
): AccountId[] {
  const excluded = new Set(out.map((each) => toHex(each)));
  const count = compute.auditorCount(host);
  const chance = numbers(host, about);
  const drawn: AccountId[] = [];
  const odd = (): AccountId[] => (drawn.length % 2 === 1 ? drawn : drawn.slice(1));
  if (count <= MAX_LOOKS) {
    const pool: { who: AccountId; weight: bigint }[] = [];
    for (let i = 0; i < count; i++) {
      const who = compute.auditorAt(host, i);
      const weight = who === undefined ? 0n : weightOf(host, who, excluded, baseModel);
      if (who !== undefined && weight > 0n) pool.push({ who, weight });
    }
    let total = pool.reduce((sum, { weight }) => sum + weight, 0n);
    while (drawn.length < wanted && pool.length > 0) {
      let point = ((chance.next().value << 64n) + chance.next().value) % total;
      const at = pool.findIndex(({ weight }) => {
        point -= weight;
        return point < 0n;
      });
      const [{ who, weight }] = pool.splice(at, 1) as [(typeof pool)[number]];
      total -= weight;
      drawn.push(who);
    }
    return odd();
  }
  // Of many, some at random: a pick is taken with the chance that its bond gives it.
  const most = MOST_WEIGHT * compute.parametersOf(host).minBond;
  for (let looks = 0; looks < MAX_LOOKS && drawn.length < wanted; looks++) {
    const who = compute.auditorAt(host, Number(chance.next().value % BigInt(count)));
    const taken = chance.next().value % most;
    if (who === undefined || drawn.some((each) => sameAccount(each, who))) continue;
    if (taken < weightOf(host, who, excluded, baseModel)) drawn.push(who);
  }
  return odd();
}

const fresh = (account: AccountId) => ({ account, commitment: undefined, verdict: undefined, unavailable: false });

function times(host: Host, now: number) {
  const { commitBlocks, revealBlocks } = parametersOf(host);
  return {
    // Half of the time is the accused's, the other half the auditors' own.
    discloseUntil: now + Math.floor(commitBlocks / 2),
    commitUntil: now + commitBlocks,
    revealUntil: now + commitBlocks + revealBlocks,
  };
}

function begin(env: Env, later: Later, id: number, audit: Audit): void {
  const { host } = env;
  store.Audits.insert(host, id, audit);
  for (const { account } of audit.auditors) compute.oblige(host, account, 1);
  later(audit.revealUntil, { type: 'Conclude', value: id });
  const auditors = audit.auditors.map(({ account }) => account);
  env.emit(events.Drawn, { audit: id, subject: audit.subject, item: audit.item, auditors });
}

/** False where nobody can look at the work: it is no longer suspended then. */
export function drawFirst(env: Env, later: Later, request: Request, requester: AccountId | undefined): boolean {
  const { host } = env;
  const { subject: of, accused, baseModel, items } = request;
  const about = hashOf(host, subjectHash, of);
  const auditors = drawAuditors(host, about, [accused], baseModel, parametersOf(host).auditors);
  if (auditors.length === 0) {
    suspend(host, of, -1);
    env.emit(events.NoAuditors, { subject: of });
    return false;
  }
  const id = store.NextId.get(host);
  store.NextId.put(host, id + 1);
  begin(env, later, id, {
    ...{ subject: of, accused, baseModel, requester },
    item: beacon.draw(host, about, 0xffffffff).getUint32(0, true) % Math.max(1, items),
    auditors: auditors.map(fresh),
    first: [],
    disclosed: undefined,
    planted: false,
    ...times(host, system.blockNumber(host)),
  });
  return true;
}

/** False where there is nobody beside the first auditors: their majority decides then. */
export function drawSecond(env: Env, later: Later, id: number, found: Audit): boolean {
  const { host } = env;
  const out = [found.accused, ...found.auditors.map(({ account }) => account)];
  const drawn = drawAuditors(host, hashOf(host, auditHash, id), out, found.baseModel, SECOND_AUDITORS);
  if (drawn.length === 0) return false;
  const { commitUntil, revealUntil } = times(host, system.blockNumber(host));
  begin(env, later, id, { ...found, auditors: drawn.map(fresh), first: found.auditors, commitUntil, revealUntil });
  return true;
}
