/** Grandpa: who finalizes, and how the set changes (`pallet_grandpa`). Votes and justifications live in consensus. */
import { cost, error } from '../../framework/dispatch.ts';
import { apiMethod, constant, event, pallet, runtimeApi } from '../../framework/pallet.ts';
import type { Host } from '../../host.ts';
import { utf8 } from '../../primitives/bytes.ts';
import { type GrandpaEquivocation, grandpaEquivocation, isGrandpaEquivocation } from '../../primitives/equivocation.ts';
import { GRANDPA_ENGINE } from '../../primitives/header.ts';
import { encode, option, struct, u32, u64, variants } from '../../primitives/scale/codec.ts';
import { opaqueKeyOwnershipProof, submitted } from '../../primitives/session-keys.ts';
import { authorities, authorityId, currentSetId, grandpaAuthorities, sessionOf, store } from './grandpa/authorities.ts';
import { KEPT_SESSIONS } from './historical.ts';
import * as offences from './offences.ts';
import * as system from './system.ts';

const consensusLog = variants({
  ScheduledChange: [1, struct({ nextAuthorities: grandpaAuthorities, delay: u32 })],
});

const MAX_AUTHORITIES = 1_000;

export const events = {
  NewAuthorities: event(0, { authoritySet: grandpaAuthorities }, 'New authority set has been applied.'),
};

export const errors = {
  InvalidKeyOwnershipProof: error(4, 'A key ownership proof provided as part of an equivocation report is invalid.'),
  InvalidEquivocationProof: error(5, 'An equivocation proof provided as part of an equivocation report is invalid.'),
  DuplicateOffenceReport: error(6, 'A given equivocation report is valid but already previously reported.'),
};

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

const reports = offences.equivocationReports({
  proof: grandpaEquivocation,
  refTime: 600_000_000n,
  docs: 'Report voter equivocation/misbehaviour: two votes in one round, and whose key it was.',
  errors,
  evidenceOf,
});

export interface GrandpaGenesis {
  readonly authorities: readonly { readonly key: Uint8Array; readonly weight: bigint }[];
}

export const grandpa = pallet({
  name: 'Grandpa',
  index: 3,
  docs: 'The authorities that finalize blocks.',
  storage: store,
  events,
  errors,
  ...reports,
  constants: {
    MaxAuthorities: constant(u32, MAX_AUTHORITIES, 'Max authorities in use.'),
    MaxSetIdSessionEntries: constant(
      u64,
      BigInt(KEPT_SESSIONS),
      'Sessions for which set ids are mapped to sessions where no stakes answer for them; otherwise it is as long as stakes do.',
    ),
  },
  hooks: {
    onInitialize: () => cost(2_000_000n, 5, 5),
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
  genesis({ host }, config: GrandpaGenesis) {
    store.Authorities.put(
      host,
      config.authorities.map(({ key, weight }): [Uint8Array, bigint] => [key, weight]),
    );
    store.SetIdSession.insert(host, 0n, 0);
  },
});

export const { calls } = grandpa;
