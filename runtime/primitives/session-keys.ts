/** The keys that validators work with, and proofs of whose a key was (`sp_session`). */
import type { Signatures } from '../host.ts';
import { concatBytes, equalBytes, joinBytes, utf8 } from './bytes.ts';
import {
  bool,
  bytes,
  type Codec,
  fixedBytes,
  type Infer,
  named,
  option,
  struct,
  tuple,
  u32,
  unit,
  vec,
} from './scale/codec.ts';
import { type AccountId, accountId } from './types.ts';

const auraKey = named('sp_consensus_aura::sr25519::app_sr25519::Public', fixedBytes(32));
const grandpaKey = named('sp_consensus_grandpa::app::Public', fixedBytes(32));
/** The public keys of a validator, in the order in which the node makes them. */
export const sessionKeys = named('openledger_runtime::SessionKeys', struct({ aura: auraKey, grandpa: grandpaKey }));
export type SessionKeys = Infer<typeof sessionKeys>;

export const keyTypeId = named('sp_core::crypto::KeyTypeId', fixedBytes(4));
/** Four letters of the node's keystore for each key. */
export const KEY_TYPES = { aura: utf8('aura'), grandpa: utf8('gran') } as const satisfies Record<
  keyof SessionKeys,
  Uint8Array
>;
export type KeyName = keyof SessionKeys;
export const KEY_NAMES: readonly KeyName[] = ['aura', 'grandpa'];

export const sameKeys = (a: SessionKeys, b: SessionKeys): boolean =>
  KEY_NAMES.every((name) => equalBytes(a[name], b[name]));

// ---- proofs of possession ------------------------------------------------------------------------------------

const SIGNATURE_LENGTH = 64;
const PROOF_LENGTH = SIGNATURE_LENGTH * KEY_NAMES.length;

/** What each key signs to show that its secret is with those who register it for `owner` (`sp_core::proof_of_possession`). */
export const ownershipStatement = (owner: AccountId): Uint8Array => concatBytes(utf8('POP_'), owner);

/** Signatures of the statement by the keys, in the order of the keys: the proof that `set_keys` takes. */
export const ownershipProof = (signatures: Readonly<Record<KeyName, Uint8Array>>): Uint8Array =>
  joinBytes(KEY_NAMES.map((name) => signatures[name]));

/** Whether every one of the keys signed that it belongs to `owner`. */
export function isOwnershipProof(
  host: Pick<Signatures, 'verifySr25519' | 'verifyEd25519'>,
  keys: SessionKeys,
  owner: AccountId,
  proof: Uint8Array,
): boolean {
  if (proof.length !== PROOF_LENGTH) return false;
  const statement = ownershipStatement(owner);
  const signatureAt = (at: number): Uint8Array => proof.subarray(at * SIGNATURE_LENGTH, (at + 1) * SIGNATURE_LENGTH);
  return (
    host.verifySr25519(signatureAt(0), statement, keys.aura) &&
    host.verifyEd25519(signatureAt(1), statement, keys.grandpa)
  );
}

/** The validators of a session with their keys. */
export const validatorKeys = vec(tuple(accountId, sessionKeys));
export type ValidatorKeys = Infer<typeof validatorKeys>;

/** Nodes of one proof: the leaf and at most two siblings for each of 32 levels. */
const MAX_NODES = 65;

/**
 * That a key belonged to a validator of a session (`sp_session::MembershipProof`). The nodes are those of a binary Merkle
 * tree, which only the runtime makes and reads: the leaf, then its siblings from left to right.
 */
export const membershipProof = named(
  'sp_session::MembershipProof',
  struct({ session: u32, trieNodes: vec(bytes(), MAX_NODES), validatorCount: u32 }),
);
export type MembershipProof = Infer<typeof membershipProof>;

/** The proof as runtime APIs hand it out (`OpaqueKeyOwnershipProof`). */
export const opaqueKeyOwnershipProof = named('sp_runtime::OpaqueValue', bytes());

/** `Option<()>`, which says no more than yes or no: whether a report went to the pool. */
export const submitted: Codec<boolean> = Object.create(bool, { type: { value: option(unit as Codec<never>).type } });
