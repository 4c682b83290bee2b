/** How the rounds stand, for `grandpa_roundState` and metrics (`sc-consensus-grandpa-rpc`). */

import type { Round } from './round.ts';
import type { Voter } from './voter.ts';
import type { Phase, VoterId } from './votes.ts';

export interface PhaseReport {
  readonly currentWeight: number;
  readonly missing: readonly VoterId[];
}

export interface RoundReport {
  readonly round: number;
  readonly totalWeight: number;
  readonly thresholdWeight: number;
  readonly prevotes: PhaseReport;
  readonly precommits: PhaseReport;
}

export interface RoundStateReport {
  readonly setId: number;
  readonly best: RoundReport;
  readonly background: readonly RoundReport[];
}

const phaseReport = (round: Round, phase: Phase): PhaseReport => ({
  currentWeight: round[phase].weight,
  missing: round.voters.voters.filter((each) => round[phase].cast[each.position] === undefined).map((each) => each.id),
});

const roundReport = (round: Round): RoundReport => ({
  round: round.number,
  totalWeight: round.voters.totalWeight,
  thresholdWeight: round.voters.threshold,
  prevotes: phaseReport(round, 'prevote'),
  precommits: phaseReport(round, 'precommit'),
});

export const roundState = (voter: Voter): RoundStateReport => ({
  setId: voter.setId,
  best: roundReport(voter.best.votes),
  background: voter.past.map((each) => roundReport(each.votes)),
});
