/** Grandpa's state: who finalizes, and how that is handed over. Sessions build on it. */
import type { Env } from '../../../framework/pallet.ts';
import { map, optionalValue, storage, twox64Concat, value } from '../../../framework/storage.ts';
import type { Host } from '../../../host.ts';
import { equalBytes } from '../../../primitives/bytes.ts';
import {
  encode,
  fixedBytes,
  type Infer,
  named,
  option,
  struct,
  tuple,
  u32,
  u64,
  variants,
  vec,
} from '../../../primitives/scale/codec.ts';
import { KEPT_SESSIONS } from '../historical.ts';
import * as system from '../system.ts';

export const authorityId = named('sp_consensus_grandpa::app::Public', fixedBytes(32));
export const grandpaAuthorities = vec(tuple(authorityId, u64));
/** Ed25519 key and weight. */
export type GrandpaAuthorities = Infer<typeof grandpaAuthorities>;

const storedState = named(
  'pallet_grandpa::StoredState',
  variants({
    Live: null,
    PendingPause: struct({ scheduledAt: u32, delay: u32 }),
    Paused: null,
    PendingResume: struct({ scheduledAt: u32, delay: u32 }),
  }),
);
const storedPendingChange = named(
  'pallet_grandpa::StoredPendingChange',
  struct({ scheduledAt: u32, delay: u32, nextAuthorities: grandpaAuthorities, forced: option(u32) }),
);
export const store = storage('Grandpa', {
  State: value(storedState, { type: 'Live' }, 'State of the current authority set.'),
  PendingChange: optionalValue(storedPendingChange, 'Pending change: (signaled at, scheduled change).'),
  NextForced: optionalValue(u32, 'Next block number where a forced change can be made; never used here.'),
  Stalled: optionalValue(tuple(u32, u32), 'Whether finality is stalled, and since when; never used here.'),
  CurrentSetId: value(u64, 0n, 'The number of changes of the authority set.'),
  SetIdSession: map(twox64Concat(u64), u32, 'The last session, so far, in which a set was in charge.'),
  OldestSetId: value(u64, 0n, 'The oldest set whose last session is remembered, for evidence of old equivocations.'),
  Authorities: value(grandpaAuthorities, [], 'The current list of authorities.'),
});

export const authorities = (host: Host): GrandpaAuthorities => store.Authorities.get(host);
export const currentSetId = (host: Host): bigint => store.CurrentSetId.get(host);
export const sessionOf = (host: Host, setId: bigint): number | undefined => store.SetIdSession.get(host, setId);

/** The session that begins, and the first one whose validators still answer for what they did. */
export interface Handover {
  readonly session: number;
  readonly first: number | undefined;
}

/**
 * Hands finality over to another set when this block is final; nothing happens if it is the same. The delay is always 0,
 * since verifiers treat a change as immediate.
 */
export function changeAuthorities({ host }: Env, next: GrandpaAuthorities, { session, first }: Handover): void {
  const same = equalBytes(encode(grandpaAuthorities, authorities(host)), encode(grandpaAuthorities, next));
  if (next.length === 0 || same || store.PendingChange.exists(host)) {
    noteSession(host, session);
    return;
  }
  store.PendingChange.put(host, {
    scheduledAt: system.blockNumber(host),
    delay: 0,
    nextAuthorities: next,
    forced: undefined,
  });
  const setId = store.CurrentSetId.mutate(host, (id) => id + 1n);
  store.SetIdSession.insert(host, setId, session);
  forgetSets(host, first ?? session - KEPT_SESSIONS);
}

/** Forgets sets whose last session was before `first`: two at a time, as many as one change may leave behind at most. */
function forgetSets(host: Host, first: number): void {
  const current = currentSetId(host);
  const before = store.OldestSetId.get(host);
  let oldest = before;
  // The set before the oldest that matters says where that one began.
  while (oldest < before + 2n && oldest + 1n < current && (sessionOf(host, oldest + 1n) ?? 0) < first) {
    store.SetIdSession.remove(host, oldest);
    oldest++;
  }
  if (oldest > before) store.OldestSetId.put(host, oldest);
}

/** The set stays in charge for another session. */
export const noteSession = (host: Host, session: number): void =>
  store.SetIdSession.insert(host, currentSetId(host), session);

/** The authorities of the first blocks. */
export const beginWith = (host: Host, first: GrandpaAuthorities): void => store.Authorities.put(host, first);
