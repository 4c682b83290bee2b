/**
 * Peers that this node has reached and spoken with, kept over restarts: whoever fills the places of a node that begins anew must not
 * be all that it knows.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import type { Multiaddr } from '@multiformats/multiaddr';
import { multiaddr } from '@multiformats/multiaddr';
import { NetworkError } from './errors.ts';
import type { PeerId } from './peer-scores.ts';

export interface KnownPeer {
  readonly peer: PeerId;
  readonly addresses: readonly Multiaddr[];
}

const MAX_KEPT = 256;
const MAX_ADDRESSES = 8;
const MAX_FILE_BYTES = 1 << 20;

export class KnownPeers {
  readonly #file: string | undefined;
  /** The one spoken with last is the last. */
  readonly #peers = new Map<PeerId, readonly Multiaddr[]>();
  #changed = false;

  private constructor(file: string | undefined) {
    this.#file = file;
  }

  /** A file that cannot be read is none: peers are found anew. Undefined: kept for this run alone. */
  static async open(file: string | undefined): Promise<KnownPeers> {
    const known = new KnownPeers(file);
    if (file === undefined) return known;
    try {
      const text = await readFile(file, 'utf8');
      if (text.length <= MAX_FILE_BYTES) known.#take(JSON.parse(text));
    } catch {
      // None yet, or damaged.
    }
    return known;
  }

  #take(value: unknown): void {
    if (!Array.isArray(value)) return;
    for (const entry of value.slice(-MAX_KEPT)) {
      if (typeof entry?.peer !== 'string' || !Array.isArray(entry.addresses)) continue;
      const addresses = entry.addresses.slice(0, MAX_ADDRESSES).filter((each: unknown) => typeof each === 'string');
      try {
        this.#peers.set(
          entry.peer,
          addresses.map((each: string) => multiaddr(each)),
        );
      } catch {
        // An address of another version of libp2p, say.
      }
    }
  }

  /** The ones spoken with last come first. */
  all(): readonly KnownPeer[] {
    return [...this.#peers].map(([peer, addresses]) => ({ peer, addresses })).reverse();
  }

  /** This node reached the peer at the address, and it speaks this chain's protocols. */
  reached(peer: PeerId, address: Multiaddr): void {
    const before = this.#peers.get(peer) ?? [];
    const others = before.filter((each) => !each.equals(address)).slice(0, MAX_ADDRESSES - 1);
    this.#peers.delete(peer);
    this.#peers.set(peer, [address, ...others]);
    const [oldest] = this.#peers.keys();
    if (this.#peers.size > MAX_KEPT && oldest !== undefined) this.#peers.delete(oldest);
    this.#changed = true;
  }

  forget(peer: PeerId): void {
    if (this.#peers.delete(peer)) this.#changed = true;
  }

  /** Rejects with {@link NetworkError} `KNOWN_PEERS` when the file cannot be written. */
  async save(): Promise<void> {
    if (this.#file === undefined || !this.#changed) return;
    this.#changed = false;
    const list = [...this.#peers].map(([peer, addresses]) => ({ peer, addresses: addresses.map(String) }));
    try {
      await writeFile(`${this.#file}.new`, JSON.stringify(list), { mode: 0o600 });
      await rename(`${this.#file}.new`, this.#file);
    } catch (problem) {
      throw new NetworkError('KNOWN_PEERS', `${this.#file} cannot be written`, { cause: problem });
    }
  }
}
