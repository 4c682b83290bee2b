/**
 * Proposals of Governance: their state, their tallies, and what others may know of them. Votes are counted by
 * ConvictionVoting, which reads and writes tallies here.
 */

import { map, storage, twox64Concat, value } from '../../../framework/storage.ts';
import type { Host } from '../../../host.ts';
import { bytes, type Infer, named, struct, u32, variants } from '../../../primitives/scale/codec.ts';
import { accountId, type Balance, balance, blockNumber, hash, PERBILL, perbill } from '../../../primitives/types.ts';
import * as system from '../system.ts';
import { parameters } from './parameters.ts';

/** Proposals that may wait for votes or for their decision at a time. */
export const MAX_OPEN = 64;
/** Bytes of a call that can be proposed. */
export const MAX_CALL_BYTES = 64 * 1024;

/**
 * `ayes` and `nays` are votes weighed by conviction. `support` is the OPEN behind ayes and abstentions, `turnout` the OPEN
 * behind all votes.
 */
export const tally = named(
  'pallet_governance::Tally',
  struct({ ayes: balance, nays: balance, support: balance, turnout: balance }),
);
export type Tally = Infer<typeof tally>;
export const NO_VOTES: Tally = { ayes: 0n, nays: 0n, support: 0n, turnout: 0n };

export const addTally = (a: Tally, b: Tally): Tally => ({
  ayes: a.ayes + b.ayes,
  nays: a.nays + b.nays,
  support: a.support + b.support,
  turnout: a.turnout + b.turnout,
});
export const subTally = (a: Tally, b: Tally): Tally => ({
  ayes: a.ayes - b.ayes,
  nays: a.nays - b.nays,
  support: a.support - b.support,
  turnout: a.turnout - b.turnout,
});

const stage = named(
  'pallet_governance::Stage',
  variants({
    /** Votes count in blocks before `ends`. */
    Voting: struct({ ends: blockNumber }),
    Passed: struct({ enactedAt: blockNumber }),
  }),
);

export const proposal = named(
  'pallet_governance::Proposal',
  struct({
    proposer: accountId,
    /** On hold until the decision; lost where too little OPEN voted. */
    deposit: balance,
    /** On hold for as long as the call is kept. */
    bytesDeposit: balance,
    callHash: hash,
    tally,
    quorum: perbill,
    enactmentDelay: blockNumber,
    stage,
  }),
);
export type Proposal = Infer<typeof proposal>;

const outcome = named(
  'pallet_governance::Outcome',
  variants({
    /** In block `at`; enacted in block `enactedAt` at the earliest. */
    Approved: struct({ at: blockNumber, enactedAt: blockNumber }),
    Rejected: struct({ at: blockNumber }),
  }),
);
export type Outcome = Infer<typeof outcome>;

export const store = storage('Governance', {
  Parameters: parameters.item,
  ProposalCount: value(u32, 0, 'How many proposals there have been; the next one gets this number.'),
  OpenCount: value(u32, 0, 'Proposals that are not decided yet.'),
  Proposals: map(twox64Concat(u32), proposal, 'Proposals that are voted on or wait for their enactment.'),
  Calls: map(twox64Concat(u32), bytes(MAX_CALL_BYTES), 'The encoded calls of these proposals.'),
  Outcomes: map(twox64Concat(u32), outcome, 'How proposals were decided: locks of those who voted go by it.'),
});

/** What a vote may still do about a proposal. `Over`: it counts no more votes and is not decided yet. */
export type Status =
  | { readonly type: 'Ongoing'; readonly tally: Tally }
  | { readonly type: 'Over' }
  | { readonly type: 'Decided'; readonly approved: boolean; readonly at: number; readonly enactedAt: number }
  /** Never made, or taken back. */
  | { readonly type: 'None' };

export const isOpen = (host: Host, { stage: of }: Proposal): boolean =>
  of.type === 'Voting' && system.blockNumber(host) < of.value.ends;

export function statusOf(host: Host, id: number): Status {
  const decided = store.Outcomes.get(host, id);
  if (decided !== undefined) {
    const { at } = decided.value;
    const approved = decided.type === 'Approved';
    return { type: 'Decided', approved, at, enactedAt: approved ? decided.value.enactedAt : at };
  }
  const found = store.Proposals.get(host, id);
  if (found === undefined) return { type: 'None' };
  return isOpen(host, found) ? { type: 'Ongoing', tally: found.tally } : { type: 'Over' };
}

/** Writes the tally of a proposal that is voted on. */
export const putTally = (host: Host, id: number, next: Tally): void =>
  store.Proposals.mutate(host, id, (found) => found && { ...found, tally: next });

const isPart = (part: Balance, whole: Balance, ppb: number): boolean => part * BigInt(PERBILL) >= whole * BigInt(ppb);

/** Passed: enough of all OPEN supports it, and more votes are for it than against. Heard: enough of all OPEN voted. */
export function judge({ tally: of, quorum }: Proposal, issuance: Balance): { passed: boolean; heard: boolean } {
  return {
    passed: of.ayes > of.nays && isPart(of.support, issuance, quorum),
    heard: isPart(of.turnout, issuance, quorum),
  };
}
