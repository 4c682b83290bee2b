/**
 * What the other nodes are known to be at, by their neighbour packets, and what they lack. A peer that repeats a packet has
 * not moved since: then it is sent what this node knows of its round, which repairs every loss without acknowledgements.
 */
import type { NeighbourPacket } from './messages.ts';
import type { Voter } from './voter.ts';

/** As the network names it. */
export type PeerId = string;

export interface PeerView {
  /** Undefined until the peer said something. */
  readonly packet: NeighbourPacket | undefined;
  /** How often the packet was repeated. */
  readonly repeats: number;
  /** How many votes, and of what, were sent to it: nothing is sent again while this would be the same. */
  readonly sent: string;
  /** When a catch-up was last given to it. */
  readonly servedAt: number;
  /** When it was last sent what it may lack. */
  readonly helpedAt: number;
}

export const strangerView: PeerView = {
  packet: undefined,
  repeats: 0,
  sent: '',
  servedAt: Number.NEGATIVE_INFINITY,
  helpedAt: Number.NEGATIVE_INFINITY,
};

/** A peer this many rounds ahead has votes that this node will not see any more. */
const CATCH_UP_DISTANCE = 2;

export const order = (a: NeighbourPacket, b: NeighbourPacket): number =>
  a.setId - b.setId || a.round - b.round || a.finalized - b.finalized;

export const packetOf = (voter: Voter): NeighbourPacket => ({
  round: voter.best.votes.number,
  setId: voter.setId,
  finalized: voter.finalized.number,
});

/** Whether a vote or commit of this round could be of use to the peer. Strangers are sent everything. */
export const wantsVote = (peer: PeerView, setId: number, round: number): boolean =>
  peer.packet === undefined ||
  (peer.packet.setId === setId && round >= peer.packet.round - 1 && round <= peer.packet.round + 1);

export const wantsCommit = (peer: PeerView, setId: number, target: number): boolean =>
  peer.packet === undefined || (peer.packet.setId === setId && target > peer.packet.finalized);

/** The round to ask a peer about, when it is too far ahead to follow by votes. */
export const catchUpRound = (voter: Voter, packet: NeighbourPacket): number | undefined =>
  packet.setId === voter.setId && packet.round >= voter.best.votes.number + CATCH_UP_DISTANCE
    ? packet.round - 1
    : undefined;

/** A repetition is answered with the same things again at 1, 2, 4, 8, 16, 24, …, in case they were lost. */
export const answersRepeat = (repeats: number): boolean =>
  repeats < 8 ? Number.isInteger(Math.log2(repeats)) : repeats % 8 === 0;
