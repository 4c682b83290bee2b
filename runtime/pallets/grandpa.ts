/** Grandpa: who finalizes, and how the set changes (`pallet_grandpa`). Votes and justifications live in consensus. */
import { cost, ensureNone, ensureSigned, error } from '../framework/dispatch.ts';
import { apiMethod, call, constant, type Env, event, pallet, runtimeApi } from '../framework/pallet.ts';
import { map, optionalValue, storage, twox64Concat, value } from '../framework/storage.ts';
import type { Host } from '../host.ts';
import { equalBytes, utf8 } from '../primitives/bytes.ts';
import { type GrandpaEquivocation, grandpaEquivocation, isGrandpaEquivocation } from '../primitives/equivocation.ts';
import { GRANDPA_ENGINE } from '../primitives/header.ts';
import {
  encode,
  fixedBytes,
  type Infer,
  named,
  option,
  type StructValue,
  struct,
  tuple,
  u32,
  u64,
  variants,
  vec,
} from '../primitives/scale/codec.ts';
import { membershipProof, opaqueKeyOwnershipProof, submitted } from '../primitives/session-keys.ts';
import * as offences from './offences.ts';
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

const errors = {
  InvalidKeyOwnershipProof: error(4, 'A key ownership proof provided as part of an equivocation report is invalid.'),
  InvalidEquivocationProof: error(5, 'An equivocation proof provided as part of an equivocation report is invalid.'),
  DuplicateOffenceReport: error(6, 'A given equivocation report is valid but already previously reported.'),
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

// ---- equivocations -------------------------------------------------------------------------------------------

const KIND = utf8('grandpa:equivoca');
const timeslot = struct({ setId: u64, round: u64 });

function evidenceOf(host: Host, proof: GrandpaEquivocation, session: number): offences.Evidence {
  const { setId, equivocation } = proof;
  const { identity, roundNumber } = equivocation.value;
  return {
    kind: KIND,
    timeslot: encode(timeslot, { setId, round: roundNumber }),
    key: 'grandpa',
    id: identity,
    holds() {
      // The ownership must be of a session in which that set was in charge.
      const last = sessionOf(host, setId);
      const before = setId === 0n ? -1 : sessionOf(host, setId - 1n);
      if (last === undefined || before === undefined || session > last || session <= before) return false;
      return isGrandpaEquivocation(host, proof);
    },
  };
}

const evidence = { equivocationProof: grandpaEquivocation, keyOwnerProof: membershipProof };
const EVIDENCE_WEIGHT = cost(600_000_000n, 30, 30);

export interface GrandpaGenesis {
  readonly authorities: readonly { readonly key: Uint8Array; readonly weight: bigint }[];
}

export const grandpa = pallet<GrandpaGenesis>({
  name: 'Grandpa',
  index: 3,
  docs: 'The authorities that finalize blocks.',
  storage: store,
  events,
  errors,
  calls: {
    reportEquivocation: call({
      index: 0,
      args: evidence,
      weight: EVIDENCE_WEIGHT,
      docs: 'Report voter equivocation/misbehaviour: two votes in one round, and whose key it was. Free when it is true and new.',
      run({ origin, ...env }, { equivocationProof, keyOwnerProof }) {
        const of = evidenceOf(env.host, equivocationProof, keyOwnerProof.session);
        return offences.reportEquivocation(env, ensureSigned(origin), of, keyOwnerProof, errors);
      },
    }),
    reportEquivocationUnsigned: call({
      index: 1,
      args: evidence,
      weight: EVIDENCE_WEIGHT,
      docs: 'As `report_equivocation`, without a signer: only the author of a block puts it in, and is the reporter.',
      run({ origin, ...env }, { equivocationProof, keyOwnerProof }) {
        ensureNone(origin);
        const of = evidenceOf(env.host, equivocationProof, keyOwnerProof.session);
        return offences.reportEquivocation(env, undefined, of, keyOwnerProof, errors);
      },
    }),
  },
  unsigned: {
    call: 'report_equivocation_unsigned',
    validate({ host }, args) {
      const { equivocationProof, keyOwnerProof } = args as StructValue<typeof evidence>;
      const of = evidenceOf(host, equivocationProof, keyOwnerProof.session);
      return offences.unsignedValidity(host, of, keyOwnerProof, errors);
    },
  },
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
        submit_report_equivocation_unsigned_extrinsic: apiMethod({
          inputs: { equivocationProof: grandpaEquivocation, keyOwnerProof: opaqueKeyOwnershipProof },
          output: submitted,
          docs: 'Submits an unsigned extrinsic to report an equivocation; none where it cannot be submitted.',
          run: (env, { equivocationProof, keyOwnerProof }) =>
            offences.submitReport(env, 'Grandpa', equivocationProof, keyOwnerProof),
        }),
        generate_key_ownership_proof: apiMethod({
          inputs: { setId: u64, authorityId },
          output: option(opaqueKeyOwnershipProof),
          docs: 'Generates a proof of key ownership for the given authority in the set of the state that is asked.',
          run: ({ host }, { authorityId: key }) => offences.proveOwnership(host, 'grandpa', key),
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
