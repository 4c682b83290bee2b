/** What the chain has committed to, at its best block: read once as a whole, then by what blocks change of it. */
import type { Hashing, Host } from '../../runtime/host.ts';
import { committed, committedPrefix } from '../../runtime/pallets/ledger/blobs.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import type { Chain } from '../chain/chain.ts';

export interface CommittedPorts {
  readonly chain: Pick<Chain, 'blocks' | 'differences'>;
  /** The state of the best block. */
  readonly state: () => Host;
  readonly hashing: Hashing;
}

export class CommittedBlobs {
  readonly #ports: CommittedPorts;
  readonly #all = new Map<string, Hash>();
  #at: Hash | undefined;

  constructor(ports: CommittedPorts) {
    this.#ports = ports;
  }

  /** All of them, as of the best block. Not to be kept across awaits: a block may change what is iterated. */
  all(): Iterable<Hash> {
    const { chain, state, hashing } = this.#ports;
    const best = chain.blocks.info().best.hash;
    const prefix = committedPrefix(hashing);
    const changes = this.#at && chain.differences(this.#at, best, prefix);
    if (changes === undefined) {
      this.#all.clear();
      for (const blob of committed(state())) this.#all.set(toHex(blob), blob);
    } else {
      for (const { key, after } of changes) {
        const blob = asHash(key.slice(prefix.length));
        if (after === undefined) this.#all.delete(toHex(blob));
        else this.#all.set(toHex(blob), blob);
      }
    }
    this.#at = best;
    return this.#all.values();
  }
}
