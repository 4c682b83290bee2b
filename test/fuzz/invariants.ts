/**
 * What must hold of the ledger after every block, whatever was called. Owners of pallets add theirs: a function that
 * returns what is wrong, or nothing.
 */
import { addWeight, exceeds, PS_PER_MS } from '../../runtime/framework/dispatch.ts';
import * as balances from '../../runtime/pallets/standard/balances.ts';
import * as system from '../../runtime/pallets/standard/system.ts';
import type { EventRecord, World } from '../runtime/pallets/world.ts';

export interface Invariant {
  readonly name: string;
  /** `events`: those of the block that ended. Returns what is wrong. */
  check(of: World, events: readonly EventRecord[]): string | undefined;
}

/** What hooks and queues may take of a block at most: what transactions leave. */
const HOOKS = addWeight(
  { refTime: 10n * PS_PER_MS, proofSize: 0n },
  { refTime: system.BLOCK_WEIGHTS.maxBlock.refTime - system.NORMAL_WEIGHT.refTime, proofSize: 2n ** 63n },
);

export const INVARIANTS: readonly Invariant[] = [
  {
    name: 'the accounts have together what was issued',
    check({ host }) {
      const { held, issued } = balances.books(host);
      return held === issued ? undefined : `${held} held, ${issued} issued`;
    },
  },
  {
    name: 'no hook fails for a reason that nobody expects',
    check(_, events) {
      const failed = events.find(
        ({ name, value }) => name.startsWith('Work.') && 'error' in value && value.error.type === 'Other',
      );
      return failed && `${failed.name}: ${JSON.stringify(failed.value, (_key, each) => String(each))}`;
    },
  },
  {
    name: 'hooks leave the block to transactions',
    check({ host }) {
      const { mandatory } = system.consumed(host);
      return exceeds(mandatory, HOOKS) ? `${mandatory.refTime / PS_PER_MS} ms` : undefined;
    },
  },
];
