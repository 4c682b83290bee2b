/** The rules of votes, and the bounds within which a vote can change them. */
import { boundedParameters, type ParametersOf } from '../../../framework/parameters.ts';
import type { Host } from '../../../host.ts';
import { balance, blockNumber, PERBILL, perbill } from '../../../primitives/types.ts';

const OPEN = 10n ** 18n;
/** Blocks of three seconds. */
const DAY = 28_800;

export const parameters = boundedParameters(
  'pallet_governance::Parameters',
  {
    depositBase: {
      codec: balance,
      initial: 100n * OPEN,
      min: OPEN,
      max: 1_000_000n * OPEN,
      docs: 'What a proposal leaves until its decision, doubled for every eight that are open. It is lost where too little OPEN votes.',
    },
    depositPerByte: {
      codec: balance,
      initial: OPEN / 1_000n,
      min: OPEN / 1_000_000n,
      max: OPEN,
      docs: 'What a proposal leaves for each byte of its call, for as long as the call is kept.',
    },
    votingPeriod: { codec: blockNumber, initial: 7 * DAY, min: 2, max: 90 * DAY, docs: 'Blocks in which votes count.' },
    enactmentDelay: {
      codec: blockNumber,
      initial: 2 * DAY,
      min: 1,
      max: 90 * DAY,
      docs: 'Blocks between the decision and what it brings about.',
    },
    lockingPeriod: {
      codec: blockNumber,
      initial: 7 * DAY,
      min: 1,
      max: 90 * DAY,
      docs: 'Blocks for which OPEN stays frozen that voted with what was decided, times what the conviction says.',
    },
    quorum: {
      codec: perbill,
      initial: PERBILL / 20,
      min: PERBILL / 100,
      max: PERBILL / 2,
      docs: 'Part of all OPEN that must support what passes, and that must have voted for the deposit to come back. In parts of 10⁹.',
    },
  },
  { 'votes must be locked at least until the enactment': (next) => next.lockingPeriod >= next.enactmentDelay },
);
export type Parameters = ParametersOf<typeof parameters>;

export const lockingPeriod = (host: Host): number => parameters.get(host).lockingPeriod;
