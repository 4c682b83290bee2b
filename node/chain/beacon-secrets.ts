/**
 * The secrets that this node's Aura keys promise to the beacon (`runtime/pallets/ledger/beacon.ts`). Nothing is kept: each
 * secret is the hash of an ed25519 signature by a GRANDPA key of the keystore over what it is for, which is the same every
 * time it is made. A node that has lost the GRANDPA key it promised with cannot author with that Aura key any more, and
 * rotates its keys.
 */
import type { Hashing, Host } from '../../runtime/host.ts';
import { BEACON_INHERENT, disclosure, promiseFor, promiseOf } from '../../runtime/pallets/ledger/beacon.ts';
import { canonical, hashOf } from '../../runtime/primitives/attribution/canonical.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { encode, fixedBytes, struct, u64 } from '../../runtime/primitives/scale/codec.ts';
import { asHash, type Hash, hash } from '../../runtime/primitives/types.ts';
import type { Keystore } from '../ports/chain.ts';

const KEY_TYPE = 'gran';
const purpose = canonical('beacon-key/1', 'BeaconKey', struct({ chain: hash, author: fixedBytes(32), count: u64 }));

export interface SecretPorts {
  readonly keystore: Pick<Keystore, 'publicKeys' | 'sign'>;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  readonly genesisHash: Hash;
}

/**
 * What the author of a block tells and promises, by the identifier of the inherent. `host`: the parent's state; `author`:
 * the Aura key of the slot. Nothing where no GRANDPA key of this node can make the secret.
 */
export function beaconInherent(
  { keystore, hashing, genesisHash }: SecretPorts,
  host: Host,
  author: Uint8Array,
): Readonly<Record<string, Uint8Array>> {
  const secretBy = (key: Uint8Array, count: bigint): Hash | undefined => {
    const signature = keystore.sign(KEY_TYPE, key, hashOf(hashing, purpose, { chain: genesisHash, author, count }));
    return signature === undefined ? undefined : asHash(hashing.blake2_256(signature));
  };
  const keys = keystore.publicKeys(KEY_TYPE);
  const before = promiseFor(host, author);
  const count = before?.count ?? 0n;
  const next = keys.map((key) => secretBy(key, count + 1n)).find((each) => each !== undefined);
  if (next === undefined) return {};
  const secret =
    before === undefined
      ? undefined
      : keys
          .map((key) => secretBy(key, count))
          .find((each) => each !== undefined && equalBytes(promiseOf(hashing, each), before.commitment));
  if (before !== undefined && secret === undefined) return {};
  return { [BEACON_INHERENT]: encode(disclosure, { secret, next: promiseOf(hashing, next) }) };
}
