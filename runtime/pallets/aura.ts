/** Aura: who may author in which slot (`pallet_aura`). The seal is checked outside, by consensus. */
import { cost, ensureNone, ensureSigned, error } from '../framework/dispatch.ts';
import { apiMethod, call, constant, type Env, pallet, runtimeApi } from '../framework/pallet.ts';
import { optionalValue, storage, value } from '../framework/storage.ts';
import type { Host } from '../host.ts';
import { equalBytes, utf8 } from '../primitives/bytes.ts';
import { isSlotEquivocation, type SlotEquivocation, slotEquivocation } from '../primitives/equivocation.ts';
import { AURA_ENGINE } from '../primitives/header.ts';
import { InvalidBlock } from '../primitives/invalid-block.ts';
import {
  decode,
  encode,
  fixedBytes,
  named,
  option,
  type StructValue,
  u64,
  variants,
  vec,
} from '../primitives/scale/codec.ts';
import { ScaleError } from '../primitives/scale/io.ts';
import { membershipProof, opaqueKeyOwnershipProof, submitted } from '../primitives/session-keys.ts';
import * as historical from './historical.ts';
import * as offences from './offences.ts';
import * as system from './system.ts';

const authorityId = named('sp_consensus_aura::sr25519::app_sr25519::Public', fixedBytes(32));
const slot = named('sp_consensus_slots::Slot', u64);
/** Also `SlotDuration` of the API, in milliseconds. */
const slotDurationType = named('sp_consensus_slots::SlotDuration', u64);
const consensusLog = variants({ AuthoritiesChange: [1, vec(authorityId)], OnDisabled: [2, u64] });

export const DEFAULT_SLOT_DURATION_MS = 3_000n;

const store = storage('Aura', {
  Authorities: value(vec(authorityId), [], 'The current authority set.'),
  CurrentSlot: value(slot, 0n, 'The current slot of this block.'),
  SlotDuration: optionalValue(slotDurationType, 'Milliseconds of a slot, set by the chain spec for good.'),
});

export const slotDuration = (host: Host): bigint => store.SlotDuration.get(host) ?? DEFAULT_SLOT_DURATION_MS;
export const currentSlot = (host: Host): bigint => store.CurrentSlot.get(host);
export const authorities = (host: Host): readonly Uint8Array[] => store.Authorities.get(host);
/** Position among the authorities of the one that may author in the current slot. */
export const authorIndex = (host: Host): number | undefined => {
  const count = authorities(host).length;
  return count === 0 ? undefined : Number(currentSlot(host) % BigInt(count));
};

function preDigestSlot(host: Host): bigint {
  for (const item of system.blockDigest(host).logs) {
    if (item.type !== 'PreRuntime' || !equalBytes(item.value[0], AURA_ENGINE)) continue;
    try {
      return decode(u64, item.value[1]);
    } catch (problem) {
      if (problem instanceof ScaleError)
        throw new InvalidBlock('BAD_PRE_DIGEST', 'the slot in the digest is malformed');
      throw problem;
    }
  }
  throw new InvalidBlock('BAD_PRE_DIGEST', 'the digest names no slot');
}

/** Hands authoring over to another set from the next block on; nothing happens if it is the same. */
export function changeAuthorities({ host }: Env, next: readonly Uint8Array[]): void {
  const set = vec(authorityId);
  const current = encode(set, [...authorities(host)]);
  if (next.length === 0 || equalBytes(current, encode(set, [...next]))) return;
  store.Authorities.put(host, [...next]);
  const log = encode(consensusLog, { type: 'AuthoritiesChange', value: [...next] });
  system.depositLog(host, { type: 'Consensus', value: [AURA_ENGINE, log] });
}

// ---- equivocations -------------------------------------------------------------------------------------------

const KIND = utf8('aura:equivocatio');

const errors = {
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

const evidence = { equivocationProof: slotEquivocation, keyOwnerProof: membershipProof };
const EVIDENCE_WEIGHT = cost(900_000_000n, 30, 30);

/** The authorities of the first blocks. */
export const beginWith = (host: Host, first: readonly Uint8Array[]): void => store.Authorities.put(host, [...first]);

export interface AuraGenesis {
  readonly authorities: readonly Uint8Array[];
  readonly slotDurationMs: number;
}

export const aura = pallet<AuraGenesis>({
  name: 'Aura',
  index: 2,
  docs: 'Slots and their authors.',
  storage: store,
  errors,
  calls: {
    reportEquivocation: call({
      index: 0,
      args: evidence,
      weight: EVIDENCE_WEIGHT,
      docs: 'Report an author that sealed two blocks for one slot, and whose key it was. Free when it is true and new.',
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
    SlotDuration: constant(u64, slotDuration, 'The slot duration in milliseconds.'),
  },
  hooks: {
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
  genesis({ host }, config) {
    store.Authorities.put(host, [...config.authorities]);
    store.SlotDuration.put(host, BigInt(config.slotDurationMs));
  },
});
