/** Keeps connections up: to boot nodes and reserved peers always, to discovered ones while there is room. */
import { peerIdFromString } from '@libp2p/peer-id';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import type { Clock, Log } from '../../node/ports/machine.ts';
import { NetworkError } from './errors.ts';
import { type Host, MAX_PER_RANGE, rangeOf } from './host.ts';
import type { PeerId, PeerLedger } from './peer-scores.ts';

export interface DialerOptions {
  readonly host: Host;
  readonly ledger: PeerLedger;
  readonly clock: Clock;
  readonly log: Log;
  readonly wantMore: () => boolean;
  /** See {@link import('./host.ts').HostOptions}. */
  readonly privateAddresses: boolean;
}

const EVERY_MS = 1_000;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;
const MAX_AT_ONCE = 4;
const MAX_DISCOVERED = 512;

interface Target {
  readonly addresses: readonly Multiaddr[];
  readonly kept: boolean;
  pauseMs: number;
  notBefore: number;
}

/** The peer id at the end of an address. Throws {@link NetworkError} `BAD_ADDRESS`. */
export function parsePeerAddress(text: string): { readonly peer: PeerId; readonly address: Multiaddr } {
  try {
    const address = multiaddr(text);
    const last = address.getComponents().at(-1);
    if (last?.name === 'p2p' && last.value !== undefined) {
      return { peer: peerIdFromString(last.value).toString(), address };
    }
  } catch (problem) {
    throw new NetworkError('BAD_ADDRESS', `"${text}" is no multiaddress`, { cause: problem });
  }
  throw new NetworkError('BAD_ADDRESS', `"${text}" does not end in /p2p/<peer id>`);
}

export class Dialer {
  readonly #options: DialerOptions;
  readonly #targets = new Map<PeerId, Target>();
  readonly #reserved = new Set<PeerId>();
  readonly #dialing = new Set<PeerId>();

  constructor(options: DialerOptions) {
    this.#options = options;
  }

  /** Throws {@link NetworkError} `BAD_ADDRESS`. */
  keep(text: string, reserved: boolean): void {
    const { peer, address } = parsePeerAddress(text);
    if (peer === this.#options.host.peerId.toString()) return;
    const known = this.#targets.get(peer);
    const addresses = known?.kept ? [...known.addresses, address] : [address];
    this.#targets.set(peer, { addresses, kept: true, pauseMs: FIRST_PAUSE_MS, notBefore: 0 });
    if (reserved) this.#reserved.add(peer);
  }

  removeReserved(peer: PeerId): boolean {
    this.#targets.delete(peer);
    return this.#reserved.delete(peer);
  }

  reserved(): readonly PeerId[] {
    return [...this.#reserved];
  }

  isReserved(peer: PeerId): boolean {
    return this.#reserved.has(peer);
  }

  /** A boot node or a reserved peer. */
  isKept(peer: PeerId): boolean {
    return this.#targets.get(peer)?.kept ?? false;
  }

  discovered(peer: PeerId, addresses: readonly Multiaddr[]): void {
    if (this.#targets.has(peer) || addresses.length === 0 || this.#targets.size >= MAX_DISCOVERED) return;
    if (!this.#options.privateAddresses) {
      // Whoever makes up identities makes them up where it is.
      const ranges = new Set(addresses.map(rangeOf));
      let same = 0;
      for (const target of this.#targets.values())
        if (target.addresses.some((each) => ranges.has(rangeOf(each)))) same++;
      if (same >= MAX_PER_RANGE) return;
    }
    this.#targets.set(peer, { addresses, kept: false, pauseMs: FIRST_PAUSE_MS, notBefore: 0 });
  }

  async run(signal: AbortSignal): Promise<void> {
    const { host, clock } = this.#options;
    const dials = new Set<Promise<void>>();
    while (!signal.aborted) {
      const connected = new Set(host.getPeers().map(String));
      for (const [peer, target] of this.#targets) {
        if (this.#dialing.size >= MAX_AT_ONCE) break;
        if (connected.has(peer)) {
          target.pauseMs = FIRST_PAUSE_MS;
          continue;
        }
        if (this.#dialing.has(peer) || target.notBefore > clock.monotonic()) continue;
        if (this.#options.ledger.isBanned(peer) || (!target.kept && !this.#options.wantMore())) continue;
        const dial = this.#dial(peer, target, signal).finally(() => dials.delete(dial));
        dials.add(dial);
      }
      await new Promise<void>((resolve) => {
        const done = (): void => {
          cancel();
          signal.removeEventListener('abort', done);
          resolve();
        };
        const cancel = clock.after(EVERY_MS, done);
        signal.addEventListener('abort', done, { once: true });
      });
    }
    await Promise.allSettled(dials);
  }

  async #dial(peer: PeerId, target: Target, signal: AbortSignal): Promise<void> {
    const { host, clock, log } = this.#options;
    this.#dialing.add(peer);
    try {
      const until = AbortSignal.any([signal, AbortSignal.timeout(10_000)]);
      const id = peerIdFromString(peer);
      const addresses = target.addresses.map((each) =>
        each.getComponents().some(({ name }) => name === 'p2p') ? each : each.encapsulate(`/p2p/${id.toString()}`),
      );
      await host.dial(addresses, { signal: until });
    } catch (problem) {
      log('debug', 'a peer could not be reached', { peer, problem: String(problem) });
      target.pauseMs = Math.min(LONGEST_PAUSE_MS, target.pauseMs * (target.kept ? 1.5 : 4));
      if (!target.kept && target.pauseMs === LONGEST_PAUSE_MS) this.#targets.delete(peer);
    } finally {
      target.notBefore = clock.monotonic() + target.pauseMs;
      this.#dialing.delete(peer);
    }
  }
}
