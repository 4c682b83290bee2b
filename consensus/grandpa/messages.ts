/**
 * What GRANDPA voters say, in Substrate's encoding (`sc-consensus-grandpa`, `finality-grandpa`). Rounds and set ids are u64 on
 * the wire and safe integers here: a larger one is refused when decoded, since no chain gets there.
 */
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { header } from '../../runtime/primitives/header.ts';
import {
  type Codec,
  decode,
  encode,
  fixedBytes,
  type Infer,
  mapped,
  struct,
  tuple,
  u32,
  u64,
  variants,
  vec,
} from '../../runtime/primitives/scale/codec.ts';
import { ScaleError } from '../../runtime/primitives/scale/io.ts';
import { hash } from '../../runtime/primitives/types.ts';
import type {
  BlockId,
  CatchUp,
  Commit,
  Equivocation,
  Precommit,
  SignedVote,
  Target,
  VoteKind,
  VoterId,
} from './votes.ts';

export const blockId = (bytes: Uint8Array): BlockId => toHex(bytes) as BlockId;
export const voterId = (publicKey: Uint8Array): VoterId => toHex(publicKey) as VoterId;
/** Raw bytes of a block or voter. */
export const idBytes = (id: BlockId | VoterId): Uint8Array => fromHex(id);

export const counter: Codec<number> = mapped(
  u64,
  (value) => {
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw new ScaleError('OUT_OF_RANGE', `${value} is beyond 2^53`);
    return Number(value);
  },
  BigInt,
);
const blockIdCodec: Codec<BlockId> = mapped(hash, blockId, (id) => idBytes(id) as Infer<typeof hash>);
export const voterIdCodec: Codec<VoterId> = mapped(fixedBytes(32), voterId, idBytes);
/** Copied, since a view would keep a whole message alive for as long as the vote. */
const signature: Codec<Uint8Array> = mapped(
  fixedBytes(64),
  (view) => view.slice(),
  (bytes) => bytes,
);

export const targetCodec: Codec<Target> = struct({ hash: blockIdCodec, number: u32 });

const KINDS = { Prevote: 'prevote', Precommit: 'precommit', PrimaryPropose: 'propose' } as const;
const KIND_NAMES = { prevote: 'Prevote', precommit: 'Precommit', propose: 'PrimaryPropose' } as const;
const message = variants({ Prevote: targetCodec, Precommit: targetCodec, PrimaryPropose: targetCodec });

export const signedMessage: Codec<SignedVote> = mapped(
  struct({ message, signature, id: voterIdCodec }),
  (raw) => ({ kind: KINDS[raw.message.type], target: raw.message.value, voter: raw.id, signature: raw.signature }),
  (vote) => ({
    message: { type: KIND_NAMES[vote.kind], value: vote.target },
    signature: vote.signature,
    id: vote.voter,
  }),
);

const signedOf = <K extends 'prevote' | 'precommit'>(kind: K): Codec<SignedVote & { readonly kind: K }> =>
  mapped(
    struct({ target: targetCodec, signature, voter: voterIdCodec }),
    (raw) => ({ kind, ...raw }),
    (vote) => vote,
  );
const signedPrevote = signedOf('prevote');
export const signedPrecommit: Codec<Precommit> = signedOf('precommit');

export const commitCodec: Codec<Commit> = mapped(
  struct({ target: targetCodec, precommits: vec(signedPrecommit) }),
  (raw) => raw,
  (commit) => ({ target: commit.target, precommits: [...commit.precommits] }),
);

/** Targets and signatures in two lists, for signature schemes that could aggregate the second. */
export const compactCommit: Codec<Commit> = mapped(
  struct({ target: targetCodec, precommits: vec(targetCodec), authData: vec(tuple(signature, voterIdCodec)) }),
  ({ target, precommits, authData }) => {
    if (precommits.length !== authData.length) {
      throw new ScaleError('OUT_OF_RANGE', `${precommits.length} precommits with ${authData.length} signatures`);
    }
    return {
      target,
      precommits: precommits.map((each, i): Precommit => {
        const [bytes, voter] = authData[i]!;
        return { kind: 'precommit', target: each, signature: bytes, voter };
      }),
    };
  },
  ({ target, precommits }) => ({
    target,
    precommits: precommits.map((each) => each.target),
    authData: precommits.map((each): [Uint8Array, VoterId] => [each.signature, each.voter]),
  }),
);

export const catchUpCodec: Codec<CatchUp> = mapped(
  struct({ round: counter, prevotes: vec(signedPrevote), precommits: vec(signedPrecommit), base: targetCodec }),
  (raw) => raw,
  (value) => ({
    round: value.round,
    prevotes: value.prevotes as (SignedVote & { readonly kind: 'prevote' })[],
    precommits: [...value.precommits],
    base: value.base,
  }),
);

/** What a peer tells about itself: it wants the votes of this round, and commits above this height. */
export interface NeighbourPacket {
  readonly round: number;
  readonly setId: number;
  readonly finalized: number;
}
const neighbourV1: Codec<NeighbourPacket> = struct({ round: counter, setId: counter, finalized: u32 });

export type GossipMessage =
  | { readonly type: 'vote'; readonly round: number; readonly setId: number; readonly vote: SignedVote }
  | { readonly type: 'commit'; readonly round: number; readonly setId: number; readonly commit: Commit }
  | ({ readonly type: 'neighbour' } & NeighbourPacket)
  | { readonly type: 'catchUpRequest'; readonly round: number; readonly setId: number }
  | { readonly type: 'catchUp'; readonly setId: number; readonly catchUp: CatchUp };

const rawGossip = variants({
  Vote: struct({ round: counter, setId: counter, vote: signedMessage }),
  Commit: struct({ round: counter, setId: counter, commit: compactCommit }),
  Neighbor: variants({ V1: [1, neighbourV1] }),
  CatchUpRequest: struct({ round: counter, setId: counter }),
  CatchUp: struct({ setId: counter, catchUp: catchUpCodec }),
});

export const gossipMessage: Codec<GossipMessage> = mapped(
  rawGossip,
  (raw): GossipMessage => {
    switch (raw.type) {
      case 'Vote':
        return { type: 'vote', ...raw.value };
      case 'Commit':
        return { type: 'commit', ...raw.value };
      case 'Neighbor':
        return { type: 'neighbour', ...raw.value.value };
      case 'CatchUpRequest':
        return { type: 'catchUpRequest', ...raw.value };
      case 'CatchUp':
        return { type: 'catchUp', ...raw.value };
    }
  },
  (value) => {
    switch (value.type) {
      case 'vote':
        return { type: 'Vote', value } as const;
      case 'commit':
        return { type: 'Commit', value } as const;
      case 'neighbour':
        return { type: 'Neighbor', value: { type: 'V1', value } } as const;
      case 'catchUpRequest':
        return { type: 'CatchUpRequest', value } as const;
      case 'catchUp':
        return { type: 'CatchUp', value } as const;
    }
  },
);

export const encodeGossip = (value: GossipMessage): Uint8Array => encode(gossipMessage, value);
/** Throws {@link ScaleError}. */
export const decodeGossip = (bytes: Uint8Array): GossipMessage => decode(gossipMessage, bytes);

const payload = struct({ message, round: counter, setId: counter });

/** The bytes that a voter signs: the vote with its round and set, so that it holds nowhere else. */
export const signingPayload = (kind: VoteKind, target: Target, round: number, setId: number): Uint8Array =>
  encode(payload, { message: { type: KIND_NAMES[kind], value: target }, round, setId });

export const justificationCodec = struct({
  round: counter,
  commit: commitCodec,
  /** Headers between the lowest precommit's target (exclusive) and the others' (inclusive). */
  votesAncestries: vec(header),
});
export type Justification = Infer<typeof justificationCodec>;

const equivocationOf = struct({
  round: counter,
  identity: voterIdCodec,
  first: tuple(targetCodec, signature),
  second: tuple(targetCodec, signature),
});

/** `sp_consensus_grandpa::EquivocationProof`, as the runtime takes it. */
export const equivocationProof: Codec<Equivocation> = mapped(
  struct({ setId: counter, equivocation: variants({ Prevote: equivocationOf, Precommit: equivocationOf }) }),
  ({ setId, equivocation: { type, value } }): Equivocation => {
    const phase = type === 'Prevote' ? 'prevote' : 'precommit';
    const vote = ([target, bytes]: [Target, Uint8Array]): SignedVote => ({
      kind: phase,
      target,
      voter: value.identity,
      signature: bytes,
    });
    return {
      setId,
      round: value.round,
      phase,
      voter: value.identity,
      first: vote(value.first),
      second: vote(value.second),
    };
  },
  (proof) => ({
    setId: proof.setId,
    equivocation: {
      type: proof.phase === 'prevote' ? ('Prevote' as const) : ('Precommit' as const),
      value: {
        round: proof.round,
        identity: proof.voter,
        first: [proof.first.target, proof.first.signature] as [Target, Uint8Array],
        second: [proof.second.target, proof.second.signature] as [Target, Uint8Array],
      },
    },
  }),
);
