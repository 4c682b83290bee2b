/** What the chain has nodes keep, at its best block: read once as a whole, then by what blocks change of it. */
import type { Hashing, Host } from '../../runtime/host.ts';
import { type Claim, claim, claimOfKey, claims, claimsPrefix } from '../../runtime/pallets/ledger/blobs.ts';
import type { ClaimId } from '../../runtime/primitives/attribution/ids.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import { decode } from '../../runtime/primitives/scale/codec.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import type { Chain } from '../chain/chain.ts';

export interface CommittedPorts {
  readonly chain: Pick<Chain, 'blocks' | 'differences'>;
  /** The state of the best block. */
  readonly state: () => Host;
  readonly hashing: Hashing;
}

/** A claim on a blob: who has a deposit on hold for it, for what, and how large it is said to be. */
export interface BlobClaim {
  readonly id: ClaimId;
  readonly bytes: number;
  readonly claim: Claim;
}

interface Wanted {
  readonly hash: Hash;
  readonly by: Map<ClaimId, BlobClaim[]>;
}

/** Answers are as of the best block, and not to be kept across awaits: a block may change what is iterated. */
export class CommittedBlobs {
  readonly #ports: CommittedPorts;
  readonly #claims = new Map<ClaimId, Claim>();
  readonly #blobs = new Map<string, Wanted>();
  #at: Hash | undefined;

  constructor(ports: CommittedPorts) {
    this.#ports = ports;
  }

  /** All claims, by their ids. */
  claims(): ReadonlyMap<ClaimId, Claim> {
    this.#refresh();
    return this.#claims;
  }

  /** The hashes of all files of all claims. */
  *all(): Generator<Hash> {
    this.#refresh();
    for (const { hash } of this.#blobs.values()) yield hash;
  }

  has(blob: Uint8Array): boolean {
    this.#refresh();
    return this.#blobs.has(toHex(blob));
  }

  /** Every claim on a blob, of all sizes that it is said to have. */
  claimsOf(blob: Uint8Array): readonly BlobClaim[] {
    this.#refresh();
    return [...(this.#blobs.get(toHex(blob))?.by.values() ?? [])].flat();
  }

  #refresh(): void {
    const { chain, state, hashing } = this.#ports;
    const best = chain.blocks.info().best.hash;
    if (this.#at !== undefined && toHex(this.#at) === toHex(best)) return;
    const prefix = claimsPrefix(hashing);
    const changes = this.#at && chain.differences(this.#at, best, prefix);
    if (changes === undefined) {
      this.#claims.clear();
      this.#blobs.clear();
      for (const [id, each] of claims(state())) this.#add(id, each);
    } else {
      for (const { key, after } of changes) {
        const id = claimOfKey(key);
        this.#remove(id);
        if (after !== undefined) this.#add(id, decode(claim, after));
      }
    }
    this.#at = best;
  }

  #add(id: ClaimId, of: Claim): void {
    this.#claims.set(id, of);
    for (const { hash, bytes } of of.files) {
      const name = toHex(hash);
      const wanted = this.#blobs.get(name) ?? { hash, by: new Map<ClaimId, BlobClaim[]>() };
      this.#blobs.set(name, wanted);
      wanted.by.set(id, [...(wanted.by.get(id) ?? []), { id, bytes: Number(bytes), claim: of }]);
    }
  }

  #remove(id: ClaimId): void {
    const of = this.#claims.get(id);
    if (of === undefined) return;
    this.#claims.delete(id);
    for (const { hash } of of.files) {
      const wanted = this.#blobs.get(toHex(hash));
      wanted?.by.delete(id);
      if (wanted?.by.size === 0) this.#blobs.delete(toHex(hash));
    }
  }
}
