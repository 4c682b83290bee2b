/** What votes and delegations are made of (`pallet_conviction_voting`), and how much they count. */
import {
  type Infer,
  mapped,
  named,
  struct,
  tuple,
  u8,
  u16,
  u32,
  variants,
  vec,
} from '../../../primitives/scale/codec.ts';
import { ScaleError } from '../../../primitives/scale/io.ts';
import { accountId, type Balance, balance, blockNumber } from '../../../primitives/types.ts';
import { MAX_OPEN, type Tally } from '../governance/proposals.ts';

/** Votes that an account may have at a time: enough for every open proposal, so that no flood of them silences anybody. */
export const MAX_VOTES = 2 * MAX_OPEN;
/** The only class of polls: proposals of Governance. */
export const CLASS = 0;
export const classId = u16;

// ---- convictions ---------------------------------------------------------------------------------------------

/** In the order of their indices, with the lock that each costs, in locking periods. */
const CONVICTIONS = [
  ['None', 0],
  ['Locked1x', 1],
  ['Locked2x', 2],
  ['Locked3x', 4],
  ['Locked4x', 8],
  ['Locked5x', 16],
  ['Locked6x', 32],
] as const;
export type Conviction = (typeof CONVICTIONS)[number][0];

export const conviction = named(
  'pallet_conviction_voting::conviction::Conviction',
  variants({
    None: null,
    Locked1x: null,
    Locked2x: null,
    Locked3x: null,
    Locked4x: null,
    Locked5x: null,
    Locked6x: null,
  }),
);

const factorOf = (of: Conviction): number => CONVICTIONS.findIndex(([name]) => name === of);
/** Locking periods for which OPEN stays frozen after a vote that won. */
export const lockPeriods = (of: Conviction): number => CONVICTIONS[factorOf(of)]?.[1] ?? 0;

// ---- votes ---------------------------------------------------------------------------------------------------

export interface Vote {
  readonly aye: boolean;
  readonly conviction: Conviction;
}
const AYE = 0x80;

/** One byte: the conviction, with the top bit set for aye. */
const vote = mapped<number, Vote>(
  named('pallet_conviction_voting::vote::Vote', u8),
  (byte) => {
    const found = CONVICTIONS[byte & ~AYE];
    if (found === undefined) throw new ScaleError('OUT_OF_RANGE', `byte ${byte} is no vote`);
    return { aye: (byte & AYE) !== 0, conviction: found[0] };
  },
  ({ aye, conviction: of }) => factorOf(of) | (aye ? AYE : 0),
);

const balanceParam = [{ name: 'Balance', type: balance.type }];
export const accountVote = named(
  'pallet_conviction_voting::vote::AccountVote',
  variants({
    Standard: struct({ vote, balance }),
    Split: struct({ aye: balance, nay: balance }),
    SplitAbstain: struct({ aye: balance, nay: balance, abstain: balance }),
  }),
  { params: balanceParam },
);
export type AccountVote = Infer<typeof accountVote>;

/** Votes by conviction, and the OPEN behind them. */
export const delegations = named(
  'pallet_conviction_voting::types::Delegations',
  struct({ votes: balance, capital: balance }),
  { params: balanceParam },
);
export type Delegations = Infer<typeof delegations>;
export const NO_DELEGATIONS: Delegations = { votes: 0n, capital: 0n };

const priorLock = named('pallet_conviction_voting::vote::PriorLock', tuple(blockNumber, balance));
export type PriorLock = Infer<typeof priorLock>;
export const NO_LOCK: PriorLock = [0, 0n];

const casting = named(
  'pallet_conviction_voting::vote::Casting',
  struct({ votes: vec(tuple(u32, accountVote), MAX_VOTES), delegations, prior: priorLock }),
);
const delegating = named(
  'pallet_conviction_voting::vote::Delegating',
  struct({ balance, target: accountId, conviction, delegations, prior: priorLock }),
);
/** What an account does with its voice: casts it, or leaves it to another. */
export const voting = named(
  'pallet_conviction_voting::vote::Voting',
  variants({ Casting: casting, Delegating: delegating }),
);
export type Voting = Infer<typeof voting>;
export type Casting = Infer<typeof casting>;
export const NO_VOTING: Voting = {
  type: 'Casting',
  value: { votes: [], delegations: NO_DELEGATIONS, prior: NO_LOCK },
};

// ---- arithmetic ----------------------------------------------------------------------------------------------

/** `amount` with a conviction: a tenth without one, else once to six times. */
export function weighed(of: Conviction, capital: Balance): Delegations {
  const factor = factorOf(of);
  return { votes: factor === 0 ? capital / 10n : capital * BigInt(factor), capital };
}

/** The OPEN that a vote freezes. */
export function balanceOf({ type, value }: AccountVote): Balance {
  switch (type) {
    case 'Standard':
      return value.balance;
    case 'Split':
      return value.aye + value.nay;
    case 'SplitAbstain':
      return value.aye + value.nay + value.abstain;
  }
}

/** What a vote adds to a tally by itself. Only ayes and abstentions support; every OPEN behind a vote is turnout. */
export function tallyOf(cast: AccountVote): Tally {
  if (cast.type === 'Standard')
    return sided(cast.value.vote.aye, weighed(cast.value.vote.conviction, cast.value.balance));
  const ayes = sided(true, weighed('None', cast.value.aye));
  const nays = sided(false, weighed('None', cast.value.nay));
  const abstain = cast.type === 'SplitAbstain' ? cast.value.abstain : 0n;
  return {
    ayes: ayes.ayes,
    nays: nays.nays,
    support: ayes.support + abstain,
    turnout: balanceOf(cast),
  };
}

/** What votes for one side add to a tally. */
export const sided = (aye: boolean, { votes, capital }: Delegations): Tally =>
  aye
    ? { ayes: votes, nays: 0n, support: capital, turnout: capital }
    : { ayes: 0n, nays: votes, support: 0n, turnout: capital };

/** The side of a vote that takes delegations along; undefined for one that is split. */
export const sideOf = (cast: AccountVote): boolean | undefined =>
  cast.type === 'Standard' ? cast.value.vote.aye : undefined;
