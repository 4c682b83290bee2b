/**
 * Finding peers: nodes ask those they are connected to for others (Kademlia's `FIND_NODE`), and tell only of such as they have reached
 * themselves or as stand where they say to stand. So nobody is sent to third parties, and what a node keeps of others is bounded.
 */
import { createHash, randomBytes } from 'node:crypto';
import { publicKeyFromRaw } from '@libp2p/crypto/keys';
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id';
import { type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import type { Log } from '../../node/ports/machine.ts';
import {
  type Contact,
  decodeContacts,
  decodeFindNode,
  encodeContacts,
  encodeFindNode,
  MAX_CONTACT_ADDRESSES,
  MAX_CONTACTS,
  MAX_KADEMLIA_REQUEST,
  MAX_KADEMLIA_RESPONSE,
} from '../protocols/kademlia.ts';
import { pause } from '../sync/pause.ts';
import { type RequestPorts, Requests } from '../wire/requests.ts';
import { isPublic } from './addresses.ts';
import type { NetworkError } from './errors.ts';
import type { Host } from './host.ts';
import type { KnownPeer, KnownPeers } from './known-peers.ts';
import { FEE, type PeerId } from './peer-scores.ts';

export interface DiscoveryPorts extends RequestPorts {
  readonly host: Host;
  /** `/<genesis hash>[/<fork id>]`. */
  readonly prefix: string;
  readonly known: KnownPeers;
  /** Peers that are spoken with. */
  readonly peers: () => readonly PeerId[];
  readonly wantMore: () => boolean;
  readonly discovered: (peer: PeerId, addresses: readonly Multiaddr[]) => void;
  readonly privateAddresses: boolean;
  readonly log: Log;
}

/** How often others are asked for peers: while there are too few, and otherwise. */
const SEEKING_MS = 5_000;
const SETTLED_MS = 60_000;
/** An ed25519 key within the identity multihash that a peer id is: the only kind of key that nodes of this chain have. */
const ED25519_ID = Uint8Array.of(0x00, 0x24, 0x08, 0x01, 0x12, 0x20);

export class Discovery {
  readonly #ports: DiscoveryPorts;
  readonly #requests: Requests;
  /** Of those who are connected: where they listen, at the host that they came from. */
  readonly #listening = new Map<PeerId, readonly Multiaddr[]>();

  constructor(ports: DiscoveryPorts) {
    this.#ports = ports;
    this.#requests = new Requests(
      {
        name: `${ports.prefix}/kad`,
        maxRequest: MAX_KADEMLIA_REQUEST,
        maxResponse: MAX_KADEMLIA_RESPONSE,
        timeoutMs: 10_000,
        perSecond: 1,
        burst: 20,
        answerBytes: MAX_KADEMLIA_RESPONSE,
        answer: (peer, request) => this.#answer(peer, request),
      },
      ports,
    );
  }

  register(): Promise<void> {
    return this.#requests.register();
  }

  async run(signal: AbortSignal): Promise<void> {
    const { clock, peers, wantMore } = this.#ports;
    let askedAt = Number.NEGATIVE_INFINITY;
    while (!signal.aborted) {
      const connected = peers();
      const due = clock.monotonic() - askedAt > (wantMore() ? SEEKING_MS : SETTLED_MS);
      const peer = connected[Math.floor(Math.random() * connected.length)];
      if (due && peer !== undefined) {
        askedAt = clock.monotonic();
        await this.#ask(peer, signal);
      }
      await pause(clock, 1_000, signal);
    }
  }

  /** A peer that is connected says where it listens. It is believed of the host that it speaks from, and of no other. */
  identified(peer: PeerId, from: Multiaddr, listening: readonly Multiaddr[]): void {
    const host = hostOf(from);
    const there = listening.filter((each) => hostOf(each) === host).slice(0, MAX_CONTACT_ADDRESSES);
    if (there.length > 0) this.#listening.set(peer, there);
  }

  disconnected(peer: PeerId): void {
    this.#listening.delete(peer);
  }

  async #ask(peer: PeerId, signal: AbortSignal): Promise<void> {
    const { discovered, charge, log } = this.#ports;
    try {
      const answer = await this.#requests.request(peerIdFromString(peer), encodeFindNode(randomBytes(32)), signal);
      for (const { id, addresses } of decodeContacts(answer)) {
        const found = peerOf(id);
        if (found === undefined) continue;
        discovered(
          found,
          addresses.flatMap((each) => addressOf(each) ?? []),
        );
      }
    } catch (problem) {
      log('debug', 'a peer tells of no others', { peer, problem: String(problem) });
      const { code } = problem as { readonly code?: unknown };
      if (code === 'MALFORMED' || code === 'TOO_LARGE') charge(peer, FEE.malformed, 'malformed contacts');
    }
  }

  #answer(peer: PeerId, request: Uint8Array): Uint8Array {
    let key: Uint8Array;
    try {
      key = decodeFindNode(request);
    } catch (problem) {
      const { code, message } = problem as NetworkError;
      this.#ports.charge(peer, code === 'MALFORMED' ? FEE.malformed : FEE.badResponse, message);
      throw problem;
    }
    const wanted = sha256(key);
    return encodeContacts(
      [...this.#contacts()]
        .filter(([id]) => id !== peer)
        .map(([id, addresses]) => {
          const bytes = peerIdFromString(id).toMultihash().bytes;
          return { contact: { id: bytes, addresses: addresses.map(({ bytes: each }) => each) }, far: sha256(bytes) };
        })
        .sort((a, b) => closer(wanted, a.far, b.far))
        .slice(0, MAX_CONTACTS)
        .map(({ contact }): Contact => contact),
    );
  }

  /** Those whom this node has reached, and those that reached it from the host that they say to be at. */
  #contacts(): Map<PeerId, readonly Multiaddr[]> {
    const { known, privateAddresses } = this.#ports;
    const found = new Map<PeerId, readonly Multiaddr[]>();
    for (const { peer, addresses } of [...this.#standing(), ...known.all()]) {
      const usable = addresses.filter((each) => privateAddresses || isPublic(each));
      if (usable.length > 0) found.set(peer, usable.slice(0, MAX_CONTACT_ADDRESSES));
    }
    return found;
  }

  #standing(): readonly KnownPeer[] {
    return [...this.#listening].map(([peer, addresses]) => ({ peer, addresses }));
  }
}

const hostOf = (address: Multiaddr): string | undefined => address.getComponents()[0]?.value;

/** Kademlia's distance: the exclusive or, as a number. */
function closer(wanted: Uint8Array, a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < wanted.length; i++) {
    const difference = (a[i]! ^ wanted[i]!) - (b[i]! ^ wanted[i]!);
    if (difference !== 0) return difference;
  }
  return 0;
}

const sha256 = (bytes: Uint8Array): Uint8Array => createHash('sha256').update(bytes).digest();

function peerOf(id: Uint8Array): PeerId | undefined {
  if (id.length !== ED25519_ID.length + 32 || ED25519_ID.some((byte, i) => id[i] !== byte)) return undefined;
  try {
    return peerIdFromPublicKey(publicKeyFromRaw(id.subarray(ED25519_ID.length))).toString();
  } catch {
    return undefined;
  }
}

function addressOf(bytes: Uint8Array): Multiaddr | undefined {
  try {
    return multiaddr(bytes);
  } catch {
    return undefined;
  }
}
