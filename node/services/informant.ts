/** Lines on the chain's progress for whoever watches the log, in the words of Substrate's informant. */

import { toHex } from '../../runtime/primitives/bytes.ts';
import type { BlockRef, Client, NetworkStatus, Service, TreeRoute } from '../ports/chain.ts';
import type { Clock, Log } from '../ports/machine.ts';

const EVERY_MS = 5_000;
/** The speed of sync is that of so many of the last intervals: one alone jumps. */
const SPEED_OVER = 6;

export interface InformantPorts {
  readonly client: Client;
  readonly network: NetworkStatus;
  readonly clock: Clock;
  readonly log: Log;
}

const short = (hash: Uint8Array): string => {
  const hex = toHex(hash);
  return `${hex.slice(0, 6)}…${hex.slice(-4)}`;
};
const named = ({ number, hash }: BlockRef): string => `#${number} (${short(hash)})`;

/** In the two largest units: `2 d 3 h`, `4 min 5 s`. */
export function duration(seconds: number): string {
  const whole = Math.round(seconds);
  const units: readonly (readonly [string, number])[] = [
    ['d', 86_400],
    ['h', 3_600],
    ['min', 60],
    ['s', 1],
  ];
  const first = Math.max(
    0,
    units.findIndex(([, size]) => whole >= size),
  );
  let rest = whole;
  return (first === 0 && whole < 86_400 ? units.slice(3) : units.slice(first, first + 2))
    .map(([unit, size]) => {
      const count = Math.floor(rest / size);
      rest -= count * size;
      return `${count} ${unit}`;
    })
    .join(' ');
}

export class Informant implements Service {
  readonly name = 'informant';
  readonly #ports: InformantPorts;
  /** Best heights with their times, oldest first. */
  readonly #heights: (readonly [at: number, number: number])[] = [];

  constructor(ports: InformantPorts) {
    this.#ports = ports;
  }

  /** What there is to say now. */
  line(): string {
    const { client, network, clock } = this.#ports;
    const { best, finalized } = client.blocks.info();
    this.#heights.push([clock.monotonic(), best.number]);
    if (this.#heights.length > SPEED_OVER + 1) this.#heights.shift();
    const { ready, future } = client.pool.status();
    const peers = `${network.peers().length} peers`;
    const heads = `best: ${named(best)}, finalized ${named(finalized)}`;
    const target = network.syncTarget() ?? 0;
    if (!network.isMajorSyncing() || target <= best.number) {
      const waiting = ready + future > 0 ? `, transactions: ${ready} ready, ${future} future` : '';
      return `💤 Idle (${peers}), ${heads}${waiting}`;
    }
    const [from, low] = this.#heights[0]!;
    const speed = ((best.number - low) * 1_000) / Math.max(clock.monotonic() - from, 1);
    const left = speed > 0 ? `, ${duration((target - best.number) / speed)} left` : '';
    return `⚙️  Syncing ${speed.toFixed(1)} bps, target=#${target} (${peers}), ${heads}${left}`;
  }

  run(signal: AbortSignal): Promise<void> {
    const { client, network, log } = this.#ports;
    const { blocks, events } = client;
    const unsubscribe = events.subscribe((event) => {
      if (event.type !== 'imported' || !event.isNewBest) return;
      const { block, origin, route } = event;
      const extrinsics = blocks.body(block.hash)?.length ?? 0;
      log(network.isMajorSyncing() ? 'debug' : 'info', `🏆 Imported ${named(block)}`, { origin, extrinsics });
      if (route !== undefined && route.retracted.length > 0) log('info', this.#reorganisation(route));
    });
    const timer = setInterval(() => log('info', this.line()), EVERY_MS);
    return new Promise((resolve) => {
      const stop = () => {
        clearInterval(timer);
        unsubscribe();
        resolve();
      };
      if (signal.aborted) stop();
      else signal.addEventListener('abort', stop, { once: true });
    });
  }

  #reorganisation({ retracted, enacted }: TreeRoute): string {
    const to = enacted.at(-1);
    const common = (retracted.at(-1)?.number ?? 1) - 1;
    return `♻️  Reorg on ${named(retracted[0]!)}${to === undefined ? '' : ` to ${named(to)}`}, common ancestor #${common}`;
  }
}
