/** Session keys with their secrets, and the calls that register them with their proof. */
import { createHashing } from '../../../node/crypto/hashing.ts';
import { signWith } from '../../../node/keystore/keys.ts';
import { derive } from '../../../node/keystore/secret-uri.ts';
import type { RuntimeCall } from '../../../runtime/framework/runtime-call.ts';
import { ownershipProof, ownershipStatement, type SessionKeys } from '../../../runtime/primitives/session-keys.ts';
import type { AccountId } from '../../../runtime/primitives/types.ts';
import { make } from './world.ts';

const hashing = createHashing();

export interface KeySet {
  readonly keys: SessionKeys;
  /** Signatures by these keys over whatever the chain asks `owner`'s keys to sign. */
  proofFor(owner: AccountId): Uint8Array;
}

/** The same keys for the same name, in every test. */
export function keySet(name: string): KeySet {
  const [author, voter] = [derive(`//${name}`, 'sr25519'), derive(`//${name}`, 'ed25519')];
  return {
    keys: { aura: author.publicKey, grandpa: voter.publicKey },
    proofFor(owner) {
      const statement = ownershipStatement(owner);
      return ownershipProof({
        aura: signWith(author, statement, hashing),
        grandpa: signWith(voter, statement, hashing),
      });
    },
  };
}

/** `set_keys` of the named keys as `owner` may call it. */
export const setKeysCall = (name: string, owner: AccountId): RuntimeCall => {
  const { keys, proofFor } = keySet(name);
  return make('Session', 'set_keys', { keys, proof: proofFor(owner) });
};
