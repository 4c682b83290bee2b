/**
 * Where peers come from, so that new identities are no new allowances. On a live chain a group is a range of addresses. Among
 * the nodes of one house, where everybody has the same address, all who have not been of use yet are one group.
 */
import type { Multiaddr } from '@multiformats/multiaddr';
import { LRUCache } from 'lru-cache';
import { rangeOf } from '../host/addresses.ts';
import type { PeerId } from '../host/peer-scores.ts';

export interface OriginOptions {
  /** False among the nodes of one machine or one house. */
  readonly byAddress: boolean;
  /** Whether the operator named the peer, as a boot node or a reserved one. */
  readonly isNamed: (peer: PeerId) => boolean;
  /** In milliseconds, never going back. */
  readonly now: () => number;
}

const REMEMBERED = 8_192;
const STRANGERS = 'strangers';
/** Useful messages, each at least so long after the one before, that make a stranger a neighbour. */
const PROVEN_BY = 10;
const PROVEN_EVERY_MS = 1_000;

export class Origins {
  readonly #options: OriginOptions;
  readonly #ranges = new LRUCache<PeerId, string>({ max: REMEMBERED });
  readonly #useful = new LRUCache<PeerId, { count: number; at: number }>({ max: REMEMBERED });

  constructor(options: OriginOptions) {
    this.#options = options;
  }

  /** A connection with the peer. What is known of it outlives the connection. */
  connected(peer: PeerId, address: Multiaddr): void {
    this.#ranges.set(peer, rangeOf(address));
  }

  /** The peer brought something new that holds: a block, a vote, a transaction. */
  wasUseful(peer: PeerId): void {
    const now = this.#options.now();
    const known = this.#useful.get(peer) ?? { count: 0, at: Number.NEGATIVE_INFINITY };
    if (now - known.at < PROVEN_EVERY_MS) return;
    this.#useful.set(peer, { count: known.count + 1, at: now });
  }

  /** The peer did harm: it has to prove itself anew. */
  didHarm(peer: PeerId): void {
    this.#useful.delete(peer);
  }

  /** Undefined where addresses say nothing. */
  rangeOf(peer: PeerId): string | undefined {
    return this.#options.byAddress ? this.#ranges.get(peer) : undefined;
  }

  /** With whom the peer shares its allowances. */
  groupOf(peer: PeerId): string {
    const { byAddress, isNamed } = this.#options;
    if (isNamed(peer)) return peer;
    if (byAddress) return this.#ranges.get(peer) ?? STRANGERS;
    return (this.#useful.get(peer)?.count ?? 0) >= PROVEN_BY ? peer : STRANGERS;
  }
}
