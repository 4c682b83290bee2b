/**
 * Reads connections no faster than their peers may cost: what came in bytes and what was done with it are one account, and who
 * has overdrawn it is not read for a while. TCP then makes the peer wait, and nothing of what it sends lies here.
 */
import type { MultiaddrConnection } from '@libp2p/interface';
import type { Clock } from '../../node/ports/machine.ts';
import { NetworkError } from '../host/errors.ts';
import type { PeerId } from '../host/peer-scores.ts';
import type { Budget } from './budget.ts';

export interface ThrottleOptions {
  readonly clock: Pick<Clock, 'after' | 'monotonic'>;
  /** In milliseconds of this thread. */
  readonly time: Budget;
}

/** What a packet costs beside the time that it was seen to take: reading it, and what its frames are waited for with. */
const MS_PER_PACKET = 0.02;
const MS_PER_BYTE = 0.2 / 65_536;
/** Shorter pauses are not worth their timers. */
const LEAST_PAUSE_MS = 5;
const LONGEST_PAUSE_MS = 2_000;
/** What a peer may send while it takes nothing of what it was sent, and for how long; some answers need no question of a stream. */
const DEAF_BYTES = 1 << 20;
const DEAF_MS = 10_000;
const DEAF_PAUSE_MS = 500;

interface Watched {
  readonly connection: MultiaddrConnection;
  /** How the pause under way ends early. */
  cancel: (() => void) | undefined;
  /** What came since the connection could last be written to, and since when it can not. */
  deafBytes: number;
  deafSince: number | undefined;
}

export class Throttle {
  readonly #options: ThrottleOptions;
  readonly #connections = new Map<PeerId, Set<Watched>>();

  constructor(options: ThrottleOptions) {
    this.#options = options;
  }

  /** Connections that are not read now. */
  get paused(): number {
    let count = 0;
    for (const all of this.#connections.values()) for (const { cancel } of all) if (cancel !== undefined) count++;
    return count;
  }

  /** From now on the connection is read by what its peer may cost. */
  watch(peer: PeerId, connection: MultiaddrConnection): void {
    const all = this.#connections.get(peer) ?? new Set();
    this.#connections.set(peer, all);
    const watched: Watched = { connection, cancel: undefined, deafBytes: 0, deafSince: undefined };
    all.add(watched);
    // Listeners run in the order in which they came: by now the packet was decrypted and all was done that it asked for at once.
    connection.addEventListener('message', ({ data, timeStamp }) => {
      const took = Math.max(0, performance.now() - timeStamp);
      this.#options.time.owe(peer, took + MS_PER_PACKET + MS_PER_BYTE * data.byteLength);
      this.#heed(watched, data.byteLength);
      this.#check(peer);
    });
    connection.addEventListener('drain', () => {
      watched.deafBytes = 0;
      watched.deafSince = undefined;
    });
    connection.addEventListener(
      'close',
      () => {
        all.delete(watched);
        if (all.size === 0 && this.#connections.get(peer) === all) this.#connections.delete(peer);
        watched.cancel?.();
      },
      { once: true },
    );
  }

  /** Something was done for the peer, or because of it, that took so long. */
  spent(peer: PeerId, ms: number): void {
    this.#options.time.owe(peer, ms);
    this.#check(peer);
  }

  /** Pings and resets are answered without a stream's back-pressure: who sends on and on must read. */
  #heed(watched: Watched, bytes: number): void {
    const { connection } = watched;
    if (!connection.writableNeedsDrain) return;
    const now = this.#options.clock.monotonic();
    watched.deafSince ??= now;
    watched.deafBytes += bytes;
    if (watched.deafBytes < DEAF_BYTES) return;
    if (now - watched.deafSince < DEAF_MS) this.#pause(watched, DEAF_PAUSE_MS);
    else connection.abort(new NetworkError('CLOSED', 'the peer sends and does not read'));
  }

  #check(peer: PeerId): void {
    const wait = this.#options.time.waitMs(peer);
    if (wait < LEAST_PAUSE_MS) return;
    for (const each of this.#connections.get(peer) ?? []) this.#pause(each, Math.min(wait, LONGEST_PAUSE_MS));
  }

  #pause(watched: Watched, ms: number): void {
    const { connection } = watched;
    if (watched.cancel !== undefined || connection.status !== 'open') return;
    connection.pause();
    const cancel = this.#options.clock.after(ms, () => {
      watched.cancel = undefined;
      if (connection.status === 'open') connection.resume();
    });
    watched.cancel = cancel;
  }
}
