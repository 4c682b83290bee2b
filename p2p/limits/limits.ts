/** All that bounds what peers can make this node do, hold and send, in one place. */
import type { Clock } from '../../node/ports/machine.ts';
import type { PeerId } from '../host/peer-scores.ts';
import { Budget } from './budget.ts';
import { HeldBytes } from './held-bytes.ts';
import { Origins } from './origins.ts';
import { Throttle } from './throttle.ts';
import { Workbench } from './workbench.ts';

export interface Limits {
  readonly origins: Origins;
  /** Time of this thread, by connection: who has used up what it has is not read for a while. */
  readonly throttle: Throttle;
  /** Where answers are made. */
  readonly bench: Workbench;
  readonly held: {
    /** Frames of peers that speak unasked, as far as they have come or wait. */
    readonly incoming: HeldBytes;
    /** Answers to what this node has asked. */
    readonly answers: HeldBytes;
    /** What peers have asked for and not taken yet. */
    readonly outgoing: HeldBytes;
  };
}

export interface LimitOptions {
  readonly clock: Clock;
  /** See {@link import('./origins.ts').OriginOptions}. */
  readonly byAddress: boolean;
  readonly isNamed: (peer: PeerId) => boolean;
}

const MIB = 2 ** 20;

/** Milliseconds of this thread a second; what is left belongs to blocks. */
export const THREAD_TIME = {
  peer: { perSecond: 250, burst: 1_000 },
  group: { perSecond: 400, burst: 1_500 },
  all: { perSecond: 500, burst: 2_000 },
} as const;
/** After a piece of work as much time again, and more, is others': a burst would be one long piece for them. */
const BENCH = { perSecond: 250, burst: 5, waiting: { peer: 16, all: 128 } } as const;
/** Together they are what all peers can make this node hold beside rooms and blobs. */
export const HELD = {
  incoming: { peer: 12 * MIB, all: 40 * MIB },
  answers: { peer: 17 * MIB, all: 64 * MIB },
  outgoing: { peer: 12 * MIB, all: 48 * MIB },
} as const;

export function createLimits({ clock, byAddress, isNamed }: LimitOptions): Limits {
  const now = (): number => clock.monotonic();
  const origins = new Origins({ byAddress, isNamed, now });
  const groupOf = (peer: PeerId): string => origins.groupOf(peer);
  const throttle = new Throttle({ clock, time: new Budget(now, groupOf, THREAD_TIME) });
  return {
    origins,
    throttle,
    bench: new Workbench({ clock, groupOf, ...BENCH, spent: (peer, ms) => throttle.spent(peer, ms) }),
    held: {
      incoming: new HeldBytes(HELD.incoming),
      answers: new HeldBytes(HELD.answers),
      outgoing: new HeldBytes(HELD.outgoing),
    },
  };
}
