/** Keeps connections up: to boot nodes and reserved peers always, to others while this node has reached out to too few. */
import { peerIdFromString } from '@libp2p/peer-id';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import type { Clock, Log } from '../../node/ports/machine.ts';
import { pause } from '../sync/pause.ts';
import { isPublic, rangeOf } from './addresses.ts';
import { NetworkError } from './errors.ts';
import { type Host, MAX_PER_RANGE } from './host.ts';
import type { KnownPeers } from './known-peers.ts';
import type { PeerId, PeerLedger } from './peer-scores.ts';

export interface DialerOptions {
  readonly host: Host;
  readonly ledger: PeerLedger;
  readonly clock: Clock;
  readonly log: Log;
  readonly known: KnownPeers;
  /** Whether there is a place for a peer that this node reaches out to. Others' places are not counted. */
  readonly wantMore: () => boolean;
  /** See {@link import('./host.ts').HostOptions}. */
  readonly privateAddresses: boolean;
}

const EVERY_MS = 1_000;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;
const MAX_AT_ONCE = 4;
const MAX_DISCOVERED = 512;
const MAX_ADDRESSES = 8;
const SAVE_MS = 60_000;

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

  /** Whether the operator named the address, with its peer or without. */
  isNamedAddress(address: Multiaddr): boolean {
    const wanted = withoutPeer(address);
    for (const { kept, addresses } of this.#targets.values()) {
      if (kept && addresses.some((each) => withoutPeer(each) === wanted)) return true;
    }
    return false;
  }

  /** A boot node or a reserved peer. */
  isKept(peer: PeerId): boolean {
    return this.#targets.get(peer)?.kept ?? false;
  }

  /** Somebody says that a peer can be reached there. */
  discovered(peer: PeerId, told: readonly Multiaddr[]): void {
    if (peer === this.#options.host.peerId.toString()) return;
    const addresses = told.filter((each) => this.#options.privateAddresses || isPublic(each)).slice(0, MAX_ADDRESSES);
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
    const { clock, known, log } = this.#options;
    for (const { peer, addresses } of known.all()) this.discovered(peer, addresses);
    const dials = new Set<Promise<void>>();
    let savedAt = clock.monotonic();
    const save = async (): Promise<void> => {
      savedAt = clock.monotonic();
      await known.save().catch((problem: unknown) => log('warn', String(problem)));
    };
    while (!signal.aborted) {
      for (const [peer, target] of this.#due()) {
        if (this.#dialing.size >= MAX_AT_ONCE) break;
        if (!target.kept && !this.#options.wantMore()) continue;
        const dial = this.#dial(peer, target, signal).finally(() => dials.delete(dial));
        dials.add(dial);
      }
      if (clock.monotonic() - savedAt > SAVE_MS) await save();
      await pause(clock, EVERY_MS, signal);
    }
    await Promise.allSettled(dials);
    await save();
  }

  /** Who could be dialled now: those whom the operator named, and then the others in no order that anybody else decides. */
  #due(): (readonly [PeerId, Target])[] {
    const { host, clock, ledger } = this.#options;
    const connected = new Set(host.getPeers().map(String));
    const now = clock.monotonic();
    const due: (readonly [PeerId, Target, number])[] = [];
    for (const [peer, target] of this.#targets) {
      if (connected.has(peer)) target.pauseMs = FIRST_PAUSE_MS;
      else if (!this.#dialing.has(peer) && target.notBefore <= now && !ledger.isBanned(peer)) {
        due.push([peer, target, target.kept ? -1 : Math.random()]);
      }
    }
    return due.sort((a, b) => a[2] - b[2]).map(([peer, target]) => [peer, target] as const);
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
      if (!target.kept && target.pauseMs === LONGEST_PAUSE_MS) {
        this.#targets.delete(peer);
        this.#options.known.forget(peer);
      }
    } finally {
      target.notBefore = clock.monotonic() + target.pauseMs;
      this.#dialing.delete(peer);
    }
  }
}

const withoutPeer = (address: Multiaddr): string => address.toString().replace(/\/p2p\/[^/]+$/, '');
