/**
 * Commitments: how somebody who has found something out is rewarded for it although everybody reads the pool. The finder
 * first commits to the hash of what will be said, bound to its account, and says it some blocks later. Whoever copies
 * what is said has no commitment that is old enough, and gets nothing.
 *
 * ```ts
 * // the finder: Commitments.commit(findingHash(hashing, { finder, salt, content })), then, MIN_AGE blocks later,
 * // the call that says it, with the salt. In that call:
 * const content = contentHash(host, codec, evidence);
 * const own = commitments.redeem(env, { finder, salt, content });   // false: no reward for the finder
 * ```
 */
import { cost, ensure, ensureSigned, error, fail } from '../../framework/dispatch.ts';
import { call, constant, type Env, event, pallet, type Reason } from '../../framework/pallet.ts';
import { blake2_128Concat, identity, nMap, storage } from '../../framework/storage.ts';
import { type Finding, findingHash } from '../../primitives/attribution/findings.ts';
import { stateDeposit } from '../../primitives/deposit.ts';
import { u32 } from '../../primitives/scale/codec.ts';
import { accountId, balance, hash } from '../../primitives/types.ts';
import * as balances from '../standard/balances.ts';
import * as system from '../standard/system.ts';

/** Blocks from a commitment to the call that says it: as long as authors would have to keep that call out of blocks. */
export const MIN_AGE = 3;

const COMMITMENT_DEPOSIT = stateDeposit(1, 100);
const DEPOSIT: Reason = { pallet: 27, reason: 0 };

export const store = storage('Commitments', {
  Commitments: nMap([blake2_128Concat(accountId), identity(hash)], u32, 'Who committed to what, and in which block.'),
});

export const events = {
  Committed: event(0, { who: accountId, commitment: hash }, 'Somebody has found something out and will say what.'),
  Redeemed: event(1, { who: accountId, commitment: hash }, 'What was committed to was said; the deposit went back.'),
  Withdrawn: event(2, { who: accountId, commitment: hash }, 'A commitment was taken back; the deposit went back.'),
};

export const errors = {
  AlreadyCommitted: error(0, 'The account has committed to this already.'),
  UnknownCommitment: error(1, 'The account has committed to no such thing.'),
};

/**
 * Whether the finder committed to what it says at least {@link MIN_AGE} blocks ago. The commitment is used up then, and its
 * deposit goes back. Two reads and three writes of the caller's weight.
 */
export function redeem(env: Env, finding: Finding): boolean {
  const { host } = env;
  const { finder } = finding;
  const commitment = findingHash(host, finding);
  const at = store.Commitments.get(host, [finder, commitment]);
  if (at === undefined || system.blockNumber(host) < at + MIN_AGE) return false;
  store.Commitments.remove(host, [finder, commitment]);
  balances.release(env, DEPOSIT, finder, COMMITMENT_DEPOSIT);
  env.emit(events.Redeemed, { who: finder, commitment });
  return true;
}

export const calls = {
  commit: call({
    index: 0,
    args: { commitment: hash },
    weight: cost(50_000_000n, 4, 3),
    docs: 'Commit to what you will say, by its hash with your account and a salt. A deposit is held until you say it or take it back.',
    run({ origin, ...env }, { commitment }) {
      const { host } = env;
      const who = ensureSigned(origin);
      ensure(!store.Commitments.has(host, [who, commitment]), errors.AlreadyCommitted);
      balances.hold(env, DEPOSIT, who, COMMITMENT_DEPOSIT);
      store.Commitments.insert(host, [who, commitment], system.blockNumber(host));
      env.emit(events.Committed, { who, commitment });
    },
  }),
  withdraw: call({
    index: 1,
    args: { commitment: hash },
    weight: cost(50_000_000n, 4, 3),
    docs: 'Take a commitment back.',
    run({ origin, ...env }, { commitment }) {
      const { host } = env;
      const who = ensureSigned(origin);
      if (store.Commitments.take(host, [who, commitment]) === undefined) fail(errors.UnknownCommitment);
      balances.release(env, DEPOSIT, who, COMMITMENT_DEPOSIT);
      env.emit(events.Withdrawn, { who, commitment });
    },
  }),
};

export const commitments = pallet({
  name: 'Commitments',
  index: 27,
  docs: 'Commitments to what will be said, so that nobody is rewarded for a copy of it.',
  storage: store,
  calls,
  events,
  errors,
  holdReasons: { Deposit: DEPOSIT },
  constants: {
    MinAge: constant(u32, MIN_AGE, 'Blocks from a commitment to the call that says it.'),
    CommitmentDeposit: constant(balance, COMMITMENT_DEPOSIT, 'OPEN held for a commitment.'),
  },
});
