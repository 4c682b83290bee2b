/** Timestamp: the time that the author of a block put into it (`pallet_timestamp`). */
import { cost, ensure, ensureNone } from '../../framework/dispatch.ts';
import { call, constant, pallet } from '../../framework/pallet.ts';
import { storage, value } from '../../framework/storage.ts';
import type { Host } from '../../host.ts';
import { InvalidBlock } from '../../primitives/invalid-block.ts';
import { bool, compact, decode, u64 } from '../../primitives/scale/codec.ts';
import * as aura from './aura/authorities.ts';

/** How far a block's time may be ahead of this node's clock. */
const MAX_DRIFT_MS = 30_000n;

export const store = storage('Timestamp', {
  Now: value(u64, 0n, 'The current time for the current block, in milliseconds.'),
  DidUpdate: value(bool, false, 'Whether the timestamp has been updated in this block.'),
});

/** Milliseconds since the Unix epoch; 0 in the genesis block. */
export const now = (host: Host): bigint => store.Now.get(host);

/** Half a slot, so that a block a slot can always be made. */
const minimumPeriod = (host: Host): bigint => aura.slotDuration(host) / 2n;

/** A call of the author's that fails makes the whole block invalid: nothing else than the author can make it. */
function must(condition: boolean): void {
  ensure(condition, { type: 'Other' });
}

export const timestamp = pallet({
  name: 'Timestamp',
  index: 1,
  docs: 'The time on the chain, set by the author of each block and bound to its slot.',
  storage: store,
  constants: {
    MinimumPeriod: constant(u64, minimumPeriod, 'The minimum period between blocks, in milliseconds.'),
  },
  calls: {
    set: call({
      index: 0,
      args: { now: compact(u64) },
      weight: cost(8_000_000n, 3, 2),
      class: 'Mandatory',
      docs: 'Set the current time. An inherent of the author; may be called once a block.',
      run({ origin, host }, { now: time }) {
        ensureNone(origin);
        must(!store.DidUpdate.get(host));
        const before = store.Now.get(host);
        must(before === 0n || time >= before + minimumPeriod(host));
        must(time / aura.slotDuration(host) === aura.currentSlot(host));
        store.Now.put(host, time);
        store.DidUpdate.put(host, true);
      },
    }),
  },
  inherent: {
    identifier: 'timstap0',
    call: 'set',
    required: true,
    create({ host }, data) {
      const time = decode(u64, data);
      const earliest = store.Now.get(host) + minimumPeriod(host);
      return { type: 'set', value: { now: time > earliest ? time : earliest } };
    },
    check({ host }, args, data) {
      const time = (args as { now: bigint }).now;
      if (time > decode(u64, data) + MAX_DRIFT_MS) {
        return { fatal: false, message: 'The timestamp of the block is too far in the future.' };
      }
      const before = store.Now.get(host);
      if (before !== 0n && time < before + minimumPeriod(host)) {
        return { fatal: true, message: 'The time since the last timestamp is lower than the minimum period.' };
      }
      return undefined;
    },
  },
  hooks: {
    judgesBlocks: true,
    onInitialize: () => cost(1_000_000n, 1, 1),
    onFinalize({ host }) {
      if (!store.DidUpdate.take(host)) {
        throw new InvalidBlock('MISSING_INHERENT', 'the block does not set the time');
      }
    },
  },
});

export const { calls } = timestamp;
