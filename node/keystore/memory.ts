/** Keys in memory: all there is for development chains, and what the keystore on disk works from. */
import { randomBytes } from 'node:crypto';
import type { Hashing } from '../../runtime/host.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import type { Keystore } from '../ports/chain.ts';
import { checkKeyType, type KeyPair, KeystoreError, type Scheme, schemeOf, signWith } from './keys.ts';
import { derive } from './secret-uri.ts';

export class MemoryKeystore implements Keystore {
  readonly #hashing: Pick<Hashing, 'blake2_256'>;
  /** By key type, then by public key in hex, in the order of insertion. */
  readonly #keys = new Map<string, Map<string, KeyPair>>();

  constructor(hashing: Pick<Hashing, 'blake2_256'>) {
    this.#hashing = hashing;
  }

  publicKeys(keyType: string): readonly Uint8Array[] {
    return [...(this.#keys.get(keyType)?.values() ?? [])].map(({ publicKey }) => publicKey.slice());
  }

  has(keyType: string, publicKey: Uint8Array): boolean {
    return this.#find(keyType, publicKey) !== undefined;
  }

  sign(keyType: string, publicKey: Uint8Array, message: Uint8Array): Uint8Array | undefined {
    const pair = this.#find(keyType, publicKey);
    return pair === undefined ? undefined : signWith(pair, message, this.#hashing);
  }

  /** Throws {@link KeystoreError}: `BAD_URI`, `BAD_KEY_TYPE`, `MISMATCH`. */
  insert(keyType: string, secretUri: string, publicKey: Uint8Array): void {
    this.add(keyType, matchingPair(keyType, secretUri, publicKey));
  }

  /** Adds the key of a URI without knowing its public key, which comes back. */
  insertUri(keyType: string, secretUri: string): Uint8Array {
    checkKeyType(keyType);
    const pair = derive(secretUri, schemeOf(keyType) ?? 'sr25519');
    this.add(keyType, pair);
    return pair.publicKey.slice();
  }

  /** As {@link insertUri}, for the life of this process. */
  hold(keyType: string, secretUri: string): void {
    this.insertUri(keyType, secretUri);
  }

  generate(keyType: string): Uint8Array {
    return this.insertUri(keyType, toHex(randomBytes(32)));
  }

  add(keyType: string, pair: KeyPair): void {
    checkKeyType(keyType);
    const keys = this.#keys.get(keyType) ?? new Map<string, KeyPair>();
    this.#keys.set(keyType, keys.set(toHex(pair.publicKey), pair));
  }

  /** Overwrites all secrets. */
  clear(): void {
    for (const keys of this.#keys.values()) for (const { secret } of keys.values()) secret.fill(0);
    this.#keys.clear();
  }

  #find(keyType: string, publicKey: Uint8Array): KeyPair | undefined {
    return this.#keys.get(keyType)?.get(toHex(publicKey));
  }
}

/** The pair that a URI and a public key agree on. A purpose that is not known here may use any scheme. */
export function matchingPair(keyType: string, secretUri: string, publicKey: Uint8Array): KeyPair {
  checkKeyType(keyType);
  const scheme = schemeOf(keyType);
  const candidates: readonly Scheme[] =
    scheme !== undefined ? [scheme] : publicKey.length === 33 ? ['ecdsa'] : ['sr25519', 'ed25519'];
  const problems: unknown[] = [];
  for (const candidate of candidates) {
    try {
      const pair = derive(secretUri, candidate);
      if (equalBytes(pair.publicKey, publicKey)) return pair;
    } catch (problem) {
      problems.push(problem);
    }
  }
  // Not every scheme can do every derivation; but if none can, the URI is at fault.
  if (problems.length === candidates.length) throw problems[0];
  throw new KeystoreError('MISMATCH', `the secret does not belong to the public key ${toHex(publicKey)}`);
}

/** The keys of development accounts for authoring and finality, such as `developmentKeys(hashing, '//Alice')`. */
export function developmentKeys(hashing: Pick<Hashing, 'blake2_256'>, ...uris: readonly string[]): MemoryKeystore {
  const keystore = new MemoryKeystore(hashing);
  for (const uri of uris) for (const keyType of ['aura', 'gran', 'imon']) keystore.insertUri(keyType, uri);
  return keystore;
}
