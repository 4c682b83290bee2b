/**
 * Offences: what was reported against validators (`pallet_offences`). The same offence counts once, whoever reports it; those
 * of one kind at one time weigh on each other, since together they endanger the chain.
 */

import {
  addWeight,
  cost,
  DispatchFailure,
  type ErrorDef,
  ensure,
  ensureNone,
  ensureSigned,
} from '../../framework/dispatch.ts';
import { call, type Env, event, pallet } from '../../framework/pallet.ts';
import { map, nMapWithDefault, storage, twox64Concat } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import {
  bytes,
  type Codec,
  decode,
  encode,
  fixedBytes,
  named,
  type StructValue,
  struct,
  tuple,
  unit,
  vec,
} from '../../primitives/scale/codec.ts';
import { ScaleError } from '../../primitives/scale/io.ts';
import { type KeyName, type MembershipProof, membershipProof } from '../../primitives/session-keys.ts';
import { type AccountId, accountId, asHash, type Hash, hash, PERBILL } from '../../primitives/types.ts';
import { invalid, type ValidTransaction } from '../../primitives/validity.ts';
import * as authorship from './authorship.ts';
import * as historical from './historical.ts';
import { currentIndex, sessionLength } from './session.ts';
import { onOffence, TAKING } from './staking/slashing.ts';
import { eras } from './staking/store.ts';
import { MAX_NOMINATORS } from './staking/types.ts';

const kind = fixedBytes(16);
/** Offences of one kind at one time: no more than there are validators. */
const MAX_CONCURRENT = 1_000;

const identification = tuple(accountId, unit);
const offenceDetails = named(
  'sp_staking::offence::OffenceDetails',
  struct({ offender: identification, reporters: vec(accountId) }),
  {
    params: [
      { name: 'Reporter', type: accountId.type },
      { name: 'Offender', type: identification.type },
    ],
  },
);

export const store = storage('Offences', {
  Reports: map(
    twox64Concat(hash),
    offenceDetails,
    'The primary structure that holds all offence records keyed by report identifiers.',
  ),
  ConcurrentReportsIndex: nMapWithDefault(
    [twox64Concat(kind), twox64Concat(bytes())],
    vec(hash, MAX_CONCURRENT),
    [],
    'A vector of reports of the same kind that happened at the same time slot.',
  ),
});

export const events = {
  Offence: event(
    0,
    { kind, timeslot: bytes() },
    'There is an offence reported of the given `kind` happened at the `session_index` and (kind-specific) time slot. This event is not deposited for duplicate slashes.',
  ),
};

export interface Offence {
  /** Sixteen bytes. */
  readonly kind: Uint8Array;
  /** What makes two offences of a kind simultaneous, encoded. */
  readonly timeslot: Uint8Array;
  readonly offender: AccountId;
  readonly session: number;
  /** How many validators there were. */
  readonly validatorCount: number;
}

const reportKey = struct({ kind, timeslot: bytes(), offender: accountId });
const idOf = (host: Host, { kind: of, timeslot, offender }: Offence): Hash =>
  asHash(host.blake2_256(encode(reportKey, { kind: of, timeslot, offender })));

export const isKnown = (host: Host, offence: Offence): boolean => store.Reports.has(host, idOf(host, offence));

/**
 * Part of the stake that `offenders` of `validators` lose: `min(3k/n, 1)²`. A lone mistake costs little, a third of the
 * validators together everything (Polkadot, "Slashing": equivocations).
 */
export function equivocationFraction(offenders: number, validators: number): number {
  const share = Math.min(PERBILL, Math.floor((3 * offenders * PERBILL) / Math.max(1, validators)));
  return Number((BigInt(share) * BigInt(share)) / BigInt(PERBILL));
}

/** Takes a report to Staking. False if the offence is known. */
export function report(env: Env, reporter: AccountId | undefined, offence: Offence): boolean {
  const { host } = env;
  const id = idOf(host, offence);
  if (store.Reports.has(host, id)) return false;
  const { kind: of, timeslot, offender, session, validatorCount } = offence;
  const reporters = reporter === undefined ? [] : [reporter];
  store.Reports.insert(host, id, { offender: [offender, undefined], reporters });
  const together = [...store.ConcurrentReportsIndex.get(host, [of, timeslot]), id];
  store.ConcurrentReportsIndex.insert(host, [of, timeslot], together);
  const fraction = equivocationFraction(together.length, validatorCount);
  const offenders = together.flatMap((each) => {
    const known = store.Reports.get(host, each);
    return known === undefined ? [] : [{ who: known.offender[0], reporters: known.reporters, fraction }];
  });
  onOffence(env, offenders, session);
  env.emit(events.Offence, { kind: of, timeslot });
  return true;
}

// ---- equivocations of consensus --------------------------------------------------------------------------------

export interface EquivocationErrors {
  readonly InvalidKeyOwnershipProof: ErrorDef;
  readonly InvalidEquivocationProof: ErrorDef;
  readonly DuplicateOffenceReport: ErrorDef;
}

/** Evidence as a pallet knows it, before it is said whose key it is. */
export interface Evidence {
  readonly kind: Uint8Array;
  readonly timeslot: Uint8Array;
  readonly key: KeyName;
  readonly id: Uint8Array;
  /** Whether the equivocation is one, and of the session that the ownership is proven for. Dear: asked last. */
  readonly holds: () => boolean;
}

/** The offence in the evidence. Fails with the pallet's errors. */
export function offenceIn(host: Host, evidence: Evidence, proof: MembershipProof, errors: EquivocationErrors): Offence {
  const { kind: of, timeslot, key, id, holds } = evidence;
  const offender = historical.ownerOf(host, key, id, proof);
  ensure(offender !== undefined, errors.InvalidKeyOwnershipProof);
  ensure(holds(), errors.InvalidEquivocationProof);
  return { kind: of, timeslot, offender, session: proof.session, validatorCount: proof.validatorCount };
}

/** Without a reporter the author of the block is the one: only it can put an unsigned report in. */
function reportEquivocation(
  env: Env,
  reporter: AccountId | undefined,
  evidence: Evidence,
  proof: MembershipProof,
  errors: EquivocationErrors,
): { readonly paysFee: false } {
  const offence = offenceIn(env.host, evidence, proof, errors);
  ensure(report(env, reporter ?? authorship.author(env.host), offence), errors.DuplicateOffenceReport);
  return { paysFee: false };
}

/**
 * What the pool makes of an unsigned report: first of all, once, not passed on to others. Throws `TransactionRefused`:
 * `BadProof`, or `Stale` for what is known.
 */
function unsignedValidity(
  host: Host,
  evidence: Evidence,
  proof: MembershipProof,
  errors: EquivocationErrors,
): ValidTransaction {
  let offence: Offence;
  try {
    offence = offenceIn(host, evidence, proof, errors);
  } catch (problem) {
    if (problem instanceof DispatchFailure) throw invalid('BadProof');
    throw problem;
  }
  if (isKnown(host, offence)) throw invalid('Stale');
  const { sessionsPerEra, bondingDuration } = eras(host);
  return {
    priority: (1n << 64n) - 1n,
    requires: [],
    provides: [encode(tag, { kind: offence.kind, id: idOf(host, offence) })],
    longevity: BigInt(sessionsPerEra * bondingDuration * sessionLength(host)),
    propagate: false,
  };
}
const tag = struct({ kind, id: hash });

/**
 * The calls by which a pallet takes evidence of its kind, signed and unsigned, and what the pool makes of the second.
 * `refTime`: of looking at the proof, in picoseconds.
 */
export function equivocationReports<Proof>(of: {
  readonly proof: Codec<Proof>;
  readonly refTime: bigint;
  readonly docs: string;
  readonly errors: EquivocationErrors;
  evidenceOf(host: Host, proof: Proof, session: number): Evidence;
}) {
  const { evidenceOf, errors } = of;
  const args = { equivocationProof: of.proof, keyOwnerProof: membershipProof };
  // What the offender had behind it is written down, and the first stakers pay at once.
  const weight = addWeight(addWeight(cost(of.refTime, 30, 30), cost(0n, MAX_NOMINATORS, MAX_NOMINATORS)), TAKING);
  return {
    calls: {
      reportEquivocation: call({
        index: 0,
        args,
        weight,
        docs: `${of.docs} Free when it is true and new.`,
        run({ origin, ...env }, { equivocationProof, keyOwnerProof }) {
          const found = evidenceOf(env.host, equivocationProof, keyOwnerProof.session);
          return reportEquivocation(env, ensureSigned(origin), found, keyOwnerProof, errors);
        },
      }),
      reportEquivocationUnsigned: call({
        index: 1,
        args,
        weight,
        docs: 'As `report_equivocation`, without a signer: only the author of a block puts it in, and is the reporter.',
        run({ origin, ...env }, { equivocationProof, keyOwnerProof }) {
          ensureNone(origin);
          const found = evidenceOf(env.host, equivocationProof, keyOwnerProof.session);
          return reportEquivocation(env, undefined, found, keyOwnerProof, errors);
        },
      }),
    },
    unsigned: {
      call: 'report_equivocation_unsigned',
      validate({ host }: Env, given: unknown) {
        const { equivocationProof, keyOwnerProof } = given as StructValue<typeof args>;
        const found = evidenceOf(host, equivocationProof, keyOwnerProof.session);
        return unsignedValidity(host, found, keyOwnerProof, errors);
      },
    },
  };
}

/** Of a key of the session that the state is in. */
export function proveOwnership(host: Host, key: KeyName, id: Uint8Array): Uint8Array | undefined {
  const proof = historical.prove(host, currentIndex(host), key, id);
  return proof && encode(membershipProof, proof);
}

/** Gives a report to the pool of this node, if there is one. */
export function submitReport(
  env: Env,
  pallet: 'Aura' | 'Grandpa',
  equivocationProof: unknown,
  opaque: Uint8Array,
): boolean {
  let keyOwnerProof: MembershipProof;
  try {
    keyOwnerProof = decode(membershipProof, opaque);
  } catch (problem) {
    if (problem instanceof ScaleError) return false;
    throw problem;
  }
  const value = { equivocationProof, keyOwnerProof };
  return env.submitUnsigned({ type: pallet, value: { type: 'report_equivocation_unsigned', value } });
}

export const offences = pallet({
  name: 'Offences',
  index: 35,
  docs: 'What validators were shown to have done wrong.',
  storage: store,
  events,
});
