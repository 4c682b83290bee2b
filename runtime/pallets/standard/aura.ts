/** Aura: who may author in which slot (`pallet_aura`). The seal is checked outside, by consensus. */
import { cost, error } from '../../framework/dispatch.ts';
import { apiMethod, constant, pallet, runtimeApi } from '../../framework/pallet.ts';
import type { Host } from '../../host.ts';
import { utf8 } from '../../primitives/bytes.ts';
import { isSlotEquivocation, type SlotEquivocation, slotEquivocation } from '../../primitives/equivocation.ts';
import { InvalidBlock } from '../../primitives/invalid-block.ts';
import { encode, option, u64, vec } from '../../primitives/scale/codec.ts';
import { opaqueKeyOwnershipProof, submitted } from '../../primitives/session-keys.ts';
import {
  authorities,
  authorityId,
  currentSlot,
  preDigestSlot,
  slot,
  slotDuration,
  slotDurationType,
  store,
} from './aura/authorities.ts';
import * as historical from './historical.ts';
import * as offences from './offences.ts';

// ---- equivocations -------------------------------------------------------------------------------------------

const KIND = utf8('aura:equivocatio');

export const errors = {
  InvalidEquivocationProof: error(0, 'An equivocation proof provided as part of an equivocation report is invalid.'),
  InvalidKeyOwnershipProof: error(1, 'A key ownership proof provided as part of an equivocation report is invalid.'),
  DuplicateOffenceReport: error(2, 'A given equivocation report is valid but already previously reported.'),
};

const evidenceOf = (host: Host, proof: SlotEquivocation, session: number): offences.Evidence => ({
  kind: KIND,
  timeslot: encode(u64, proof.slot),
  key: 'aura',
  id: proof.offender,
  holds: () => historical.isSlotOf(host, proof.slot, session) && isSlotEquivocation(host, proof),
});

const reports = offences.equivocationReports({
  proof: slotEquivocation,
  refTime: 900_000_000n,
  docs: 'Report an author that sealed two blocks for one slot, and whose key it was.',
  errors,
  evidenceOf,
});

export interface AuraGenesis {
  readonly authorities: readonly Uint8Array[];
  readonly slotDurationMs: number;
}

export const aura = pallet({
  name: 'Aura',
  index: 2,
  docs: 'Slots and their authors.',
  storage: store,
  errors,
  ...reports,
  constants: {
    SlotDuration: constant(u64, slotDuration, 'The slot duration in milliseconds.'),
  },
  hooks: {
    judgesBlocks: true,
    onInitialize({ host }) {
      const next = preDigestSlot(host);
      if (next <= currentSlot(host)) {
        throw new InvalidBlock('BAD_PRE_DIGEST', `slot ${next} is not after slot ${currentSlot(host)}`);
      }
      store.CurrentSlot.put(host, next);
      return cost(5_000_000n, 3, 1);
    },
  },
  apis: [
    runtimeApi({
      name: 'AuraApi',
      version: 1,
      docs: 'What authors and verifiers need to know of Aura.',
      methods: {
        slot_duration: apiMethod({
          inputs: {},
          output: slotDurationType,
          docs: 'The slot duration in milliseconds.',
          run: ({ host }) => slotDuration(host),
        }),
        authorities: apiMethod({
          inputs: {},
          output: vec(authorityId),
          docs: 'The current set of authorities.',
          run: ({ host }) => [...authorities(host)],
        }),
      },
    }),
    runtimeApi({
      name: 'AuraEquivocationApi',
      version: 1,
      docs: 'Evidence against authors, in the shape of `BabeApi`.',
      methods: {
        generate_key_ownership_proof: apiMethod({
          inputs: { slot, authorityId },
          output: option(opaqueKeyOwnershipProof),
          docs: 'Generates a proof of key ownership for the given author, in the session of the state that is asked.',
          run: ({ host }, { authorityId: key }) => offences.proveOwnership(host, 'aura', key),
        }),
        submit_report_equivocation_unsigned_extrinsic: apiMethod({
          inputs: { equivocationProof: slotEquivocation, keyOwnerProof: opaqueKeyOwnershipProof },
          output: submitted,
          docs: 'Submits an unsigned extrinsic to report an equivocation; none where it cannot be submitted.',
          run: (env, { equivocationProof, keyOwnerProof }) =>
            offences.submitReport(env, 'Aura', equivocationProof, keyOwnerProof),
        }),
      },
    }),
  ],
  genesis({ host }, config: AuraGenesis) {
    store.Authorities.put(host, [...config.authorities]);
    store.SlotDuration.put(host, BigInt(config.slotDurationMs));
  },
});

export const { calls } = aura;
export const [api] = aura.apis;
