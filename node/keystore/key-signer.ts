/** A key pair of this process as clients sign with it. */
import { addressOf } from '../../rpc/client/address.ts';
import { accountOfKey, type LocalSigner, type Scheme } from '../../rpc/client/signer.ts';
import type { Hashing } from '../../runtime/host.ts';
import type { AccountId } from '../../runtime/primitives/types.ts';
import { type KeyPair, signWith } from './keys.ts';
import { derive, deriveFrom } from './secret-uri.ts';
import { sealWallet, type WalletFile } from './wallet-file.ts';

export class KeySigner implements LocalSigner {
  readonly scheme: Scheme;
  readonly publicKey: Uint8Array;
  readonly account: AccountId;
  readonly #pair: KeyPair;
  readonly #hashing: Pick<Hashing, 'blake2_256'>;

  constructor(pair: KeyPair, hashing: Pick<Hashing, 'blake2_256'>) {
    this.scheme = pair.scheme;
    this.publicKey = pair.publicKey;
    this.account = accountOfKey(hashing, pair.scheme, pair.publicKey);
    this.#pair = pair;
    this.#hashing = hashing;
  }

  /** Throws a KeystoreError `BAD_URI`. */
  static fromUri(uri: string, hashing: Pick<Hashing, 'blake2_256'>, scheme: Scheme = 'sr25519'): KeySigner {
    return new KeySigner(derive(uri, scheme), hashing);
  }

  get address(): string {
    return addressOf(this.account);
  }

  sign(message: Uint8Array): Uint8Array {
    return signWith(this.#pair, message, this.#hashing);
  }

  /** The file for a wallet to import. */
  toWallet(password: string): WalletFile {
    return sealWallet(this.#pair, password, this.address);
  }

  /** The key that a path such as `//session` leads to. Throws a KeystoreError `BAD_URI`. */
  derive(path: string): KeySigner {
    return new KeySigner(deriveFrom(this.#pair, path), this.#hashing);
  }
}
