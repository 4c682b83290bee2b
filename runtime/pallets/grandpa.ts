/** Grandpa: who finalizes, and how the set changes (`pallet_grandpa`). Votes and justifications live in consensus. */
import { cost } from '../framework/dispatch.ts';
import { apiMethod, constant, type Env, event, pallet, runtimeApi } from '../framework/pallet.ts';
import { map, optionalValue, storage, twox64Concat, value } from '../framework/storage.ts';
import type { Host } from '../host.ts';
import { equalBytes } from '../primitives/bytes.ts';
import { GRANDPA_ENGINE } from '../primitives/header.ts';
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
} from '../primitives/scale/codec.ts';
import * as system from './system.ts';

const authorityId = named('sp_consensus_grandpa::app::Public', fixedBytes(32));
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
const consensusLog = variants({
  ScheduledChange: [1, struct({ nextAuthorities: grandpaAuthorities, delay: u32 })],
});

const MAX_AUTHORITIES = 1_000;
/** Sets whose session is remembered, for evidence of old equivocations. */
const MAX_SET_ID_SESSION_ENTRIES = 168n;

const store = storage('Grandpa', {
  State: value(storedState, { type: 'Live' }, 'State of the current authority set.'),
  PendingChange: optionalValue(storedPendingChange, 'Pending change: (signaled at, scheduled change).'),
  NextForced: optionalValue(u32, 'Next block number where a forced change can be made; never used here.'),
  Stalled: optionalValue(tuple(u32, u32), 'Whether finality is stalled, and since when; never used here.'),
  CurrentSetId: value(u64, 0n, 'The number of changes of the authority set.'),
  SetIdSession: map(twox64Concat(u64), u32, 'The last session, so far, in which a set was in charge.'),
  Authorities: value(grandpaAuthorities, [], 'The current list of authorities.'),
});

const events = {
  NewAuthorities: event(0, { authoritySet: grandpaAuthorities }, 'New authority set has been applied.'),
};

export const authorities = (host: Host): GrandpaAuthorities => store.Authorities.get(host);
export const currentSetId = (host: Host): bigint => store.CurrentSetId.get(host);
export const sessionOf = (host: Host, setId: bigint): number | undefined => store.SetIdSession.get(host, setId);

/**
 * Hands finality over to another set when this block is final; nothing happens if it is the same. The delay is always 0,
 * since verifiers treat a change as immediate.
 */
export function changeAuthorities({ host }: Env, next: GrandpaAuthorities, session: number): void {
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
  if (setId >= MAX_SET_ID_SESSION_ENTRIES) store.SetIdSession.remove(host, setId - MAX_SET_ID_SESSION_ENTRIES);
}

/** The set stays in charge for another session. */
export const noteSession = (host: Host, session: number): void =>
  store.SetIdSession.insert(host, currentSetId(host), session);

/** The authorities of the first blocks. */
export const beginWith = (host: Host, first: GrandpaAuthorities): void => store.Authorities.put(host, first);

export interface GrandpaGenesis {
  readonly authorities: readonly { readonly key: Uint8Array; readonly weight: bigint }[];
}

export const grandpa = pallet<GrandpaGenesis>({
  name: 'Grandpa',
  index: 3,
  docs: 'The authorities that finalize blocks.',
  storage: store,
  events,
  constants: {
    MaxAuthorities: constant(u32, MAX_AUTHORITIES, 'Max authorities in use.'),
    MaxSetIdSessionEntries: constant(
      u64,
      MAX_SET_ID_SESSION_ENTRIES,
      'The maximum number of entries to keep in the set id to session index mapping.',
    ),
  },
  hooks: {
    onInitialize: () => cost(2_000_000n, 1, 2),
    onFinalize({ host, emit }) {
      const change = store.PendingChange.take(host);
      if (change === undefined) return;
      const { nextAuthorities, delay } = change;
      const log = encode(consensusLog, { type: 'ScheduledChange', value: { nextAuthorities, delay } });
      system.depositLog(host, { type: 'Consensus', value: [GRANDPA_ENGINE, log] });
      store.Authorities.put(host, nextAuthorities);
      emit(events.NewAuthorities, { authoritySet: nextAuthorities });
    },
  },
  apis: [
    runtimeApi({
      name: 'GrandpaApi',
      version: 3,
      docs: 'What voters and verifiers need to know of GRANDPA.',
      methods: {
        grandpa_authorities: apiMethod({
          inputs: {},
          output: grandpaAuthorities,
          docs: 'The current authorities and their weights; a change announced in this block is included.',
          run: ({ host }) => authorities(host),
        }),
        current_set_id: apiMethod({
          inputs: {},
          output: u64,
          docs: 'The id of the current authority set.',
          run: ({ host }) => currentSetId(host),
        }),
      },
    }),
  ],
  genesis({ host }, config) {
    store.Authorities.put(
      host,
      config.authorities.map(({ key, weight }): [Uint8Array, bigint] => [key, weight]),
    );
    store.SetIdSession.insert(host, 0n, 0);
  },
});
