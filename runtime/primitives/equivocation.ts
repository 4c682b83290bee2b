/** Evidence that one key said two things where it may say one, in Substrate's encoding, and whether it holds. */
import type { Hashing, Signatures } from '../host.ts';
import { equalBytes } from './bytes.ts';
import { AURA_ENGINE, type Header, header, headerHash } from './header.ts';
import { decode, encode, fixedBytes, type Infer, named, struct, tuple, u32, u64, variants } from './scale/codec.ts';
import { ScaleError } from './scale/io.ts';
import { hash } from './types.ts';

// ---- GRANDPA: two votes of one kind in one round ---------------------------------------------------------------

const grandpaId = named('sp_consensus_grandpa::app::Public', fixedBytes(32));
const grandpaSignature = named('sp_consensus_grandpa::app::Signature', fixedBytes(64));

const target = struct({ targetHash: hash, targetNumber: u32 });
const prevote = named('finality_grandpa::Prevote', target, {
  params: [
    { name: 'H', type: hash.type },
    { name: 'N', type: u32.type },
  ],
});
const precommit = named('finality_grandpa::Precommit', target, {
  params: [
    { name: 'H', type: hash.type },
    { name: 'N', type: u32.type },
  ],
});
const equivocationOf = (vote: typeof prevote) =>
  named(
    'finality_grandpa::Equivocation',
    struct({
      roundNumber: u64,
      identity: grandpaId,
      first: tuple(vote, grandpaSignature),
      second: tuple(vote, grandpaSignature),
    }),
    {
      params: [
        { name: 'Id', type: grandpaId.type },
        { name: 'V', type: vote.type },
        { name: 'S', type: grandpaSignature.type },
      ],
    },
  );

/** `sp_consensus_grandpa::EquivocationProof`. */
export const grandpaEquivocation = named(
  'sp_consensus_grandpa::EquivocationProof',
  struct({
    setId: u64,
    equivocation: named(
      'sp_consensus_grandpa::Equivocation',
      variants({ Prevote: equivocationOf(prevote), Precommit: equivocationOf(precommit) }),
      {
        params: [
          { name: 'H', type: hash.type },
          { name: 'N', type: u32.type },
        ],
      },
    ),
  }),
  {
    params: [
      { name: 'H', type: hash.type },
      { name: 'N', type: u32.type },
    ],
  },
);
export type GrandpaEquivocation = Infer<typeof grandpaEquivocation>;

/** What a voter signs (`sp_consensus_grandpa::localized_payload`). */
const signedVote = struct({
  message: variants({ Prevote: target, Precommit: target }),
  round: u64,
  setId: u64,
});

/** Whether the votes are for different blocks, and both by the key. */
export function isGrandpaEquivocation(
  signatures: Pick<Signatures, 'verifyEd25519'>,
  { setId, equivocation: { type, value } }: GrandpaEquivocation,
): boolean {
  const { roundNumber: round, identity, first, second } = value;
  const holds = ([vote, signature]: typeof first): boolean =>
    signatures.verifyEd25519(signature, encode(signedVote, { message: { type, value: vote }, round, setId }), identity);
  const same =
    first[0].targetNumber === second[0].targetNumber && equalBytes(first[0].targetHash, second[0].targetHash);
  return !same && holds(first) && holds(second);
}

// ---- Aura: two blocks in one slot ------------------------------------------------------------------------------

const auraId = named('sp_consensus_aura::sr25519::app_sr25519::Public', fixedBytes(32));
const slot = named('sp_consensus_slots::Slot', u64);

/** `sp_consensus_slots::EquivocationProof`: the headers with their seals. */
export const slotEquivocation = named(
  'sp_consensus_slots::EquivocationProof',
  struct({ offender: auraId, slot, firstHeader: header, secondHeader: header }),
  {
    params: [
      { name: 'Header', type: header.type },
      { name: 'Id', type: auraId.type },
    ],
  },
);
export type SlotEquivocation = Infer<typeof slotEquivocation>;

/** Hash and signature of a sealed header that names the slot; undefined for any other. */
function sealed(
  hashing: Pick<Hashing, 'blake2_256'>,
  given: Header,
  at: bigint,
): { readonly preHash: Uint8Array; readonly signature: Uint8Array } | undefined {
  const { logs } = given.digest;
  const last = logs.at(-1);
  if (last?.type !== 'Seal' || !equalBytes(last.value[0], AURA_ENGINE) || last.value[1].length !== 64) return undefined;
  const slots = logs.filter((item) => item.type === 'PreRuntime' && equalBytes(item.value[0], AURA_ENGINE));
  const [claim] = slots;
  if (slots.length !== 1 || claim?.type !== 'PreRuntime') return undefined;
  try {
    if (decode(u64, claim.value[1]) !== at) return undefined;
  } catch (problem) {
    if (problem instanceof ScaleError) return undefined;
    throw problem;
  }
  const unsealed = { ...given, digest: { logs: logs.slice(0, -1) } };
  return { preHash: headerHash(hashing, unsealed), signature: last.value[1] };
}

/** Whether the headers are two, for the slot, and both sealed by the key. One block sealed twice is no offence. */
export function isSlotEquivocation(
  host: Pick<Hashing, 'blake2_256'> & Pick<Signatures, 'verifySr25519'>,
  { offender, slot: at, firstHeader, secondHeader }: SlotEquivocation,
): boolean {
  const first = sealed(host, firstHeader, at);
  const second = sealed(host, secondHeader, at);
  if (first === undefined || second === undefined || equalBytes(first.preHash, second.preHash)) return false;
  return [first, second].every(({ preHash, signature }) => host.verifySr25519(signature, preHash, offender));
}
