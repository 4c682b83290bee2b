/** Who signs: a key pair of this process, a wallet, a device. */
import type { Hashing } from '../../runtime/host.ts';
import { type AccountId, asAccountId, type MultiSignature } from '../../runtime/primitives/types.ts';

export type Scheme = 'sr25519' | 'ed25519' | 'ecdsa';

export interface Signer {
  readonly scheme: Scheme;
  /** 32 bytes, for ecdsa 33 (compressed). */
  readonly publicKey: Uint8Array;
  readonly account: AccountId;
  /** 64 bytes, for ecdsa 65 over the blake2b-256 of the message. */
  sign(message: Uint8Array): Uint8Array | Promise<Uint8Array>;
}

/** A key pair of this process: it signs at once, and leads to others. */
export interface LocalSigner extends Signer {
  /** Of the account, as people know it (SS58). */
  readonly address: string;
  sign(message: Uint8Array): Uint8Array;
  /** The key that a path such as `//session` leads to. */
  derive(path: string): LocalSigner;
}

/** The account of a public key: itself, for ecdsa its blake2b-256. */
export const accountOfKey = (hashing: Pick<Hashing, 'blake2_256'>, scheme: Scheme, publicKey: Uint8Array): AccountId =>
  asAccountId(scheme === 'ecdsa' ? hashing.blake2_256(publicKey) : publicKey);

/** A signature as transactions and receipts carry it. */
export function multiSignatureOf(scheme: Scheme, value: Uint8Array): MultiSignature {
  switch (scheme) {
    case 'sr25519':
      return { type: 'Sr25519', value };
    case 'ed25519':
      return { type: 'Ed25519', value };
    case 'ecdsa':
      return { type: 'Ecdsa', value };
  }
}
