/**
 * Keys on disk: one encrypted file a key, readable by its owner only, beside a header that says how the password is
 * used. File names are Substrate's: the key type and the public key in hex. Writes are atomic and durable.
 */

import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Hashing } from '../../runtime/host.ts';
import { concatBytes, fromHex, fromUtf8, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import type { Keystore } from '../ports/chain.ts';
import { ALL_SCHEMES, checkKeyType, type KeyPair, KeystoreError, type Scheme, schemeOf } from './keys.ts';
import { MemoryKeystore, matchingPair } from './memory.ts';
import { SealedBox } from './sealed-box.ts';
import { derive } from './secret-uri.ts';

const HEADER = 'keystore.json';
const KEY_FILE = /^[0-9a-f]{8}([0-9a-f]{64}|[0-9a-f]{66})$/;

export interface KeystoreFilesOptions {
  readonly directory: string;
  /** May be empty: then only the permissions of the files protect the keys. */
  readonly password: string;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
}

export class FileKeystore implements Keystore {
  readonly #directory: string;
  readonly #box: SealedBox;
  readonly #memory: MemoryKeystore;
  #closed = false;

  /**
   * Creates the directory if there is none. Throws {@link KeystoreError}: `WRONG_PASSWORD`, `TAMPERED`, `IO`.
   */
  constructor({ directory, password, hashing }: KeystoreFilesOptions) {
    this.#directory = directory;
    this.#memory = new MemoryKeystore(hashing);
    this.#box = guarded(`the keystore ${directory} cannot be opened`, () => {
      mkdirSync(directory, { recursive: true, mode: 0o700 });
      const present = readdirSync(directory);
      if (present.includes(HEADER)) return SealedBox.open(parseJson(directory, HEADER), password);
      if (present.some((name) => KEY_FILE.test(name))) {
        throw new KeystoreError('TAMPERED', `${directory} holds keys, but ${HEADER} is missing`);
      }
      chmodSync(directory, 0o700);
      const box = SealedBox.create(password);
      writeAtomically(directory, HEADER, JSON.stringify(box.header));
      return box;
    });
    this.refresh();
  }

  /** Reads the keys that another process has put there meanwhile. Throws as the constructor does. */
  refresh(): void {
    this.#checkOpen();
    const names = guarded(`the keystore ${this.#directory} cannot be read`, () => readdirSync(this.#directory));
    for (const name of names) {
      if (!KEY_FILE.test(name)) continue;
      const keyType = Buffer.from(name.slice(0, 8), 'hex').toString('latin1');
      const publicKey = fromHex(name.slice(8));
      if (!this.#memory.has(keyType, publicKey)) this.#memory.add(keyType, this.#read(name, publicKey));
    }
  }

  publicKeys(keyType: string): readonly Uint8Array[] {
    return this.#memory.publicKeys(keyType);
  }

  has(keyType: string, publicKey: Uint8Array): boolean {
    return this.#memory.has(keyType, publicKey);
  }

  sign(keyType: string, publicKey: Uint8Array, message: Uint8Array): Uint8Array | undefined {
    return this.#memory.sign(keyType, publicKey, message);
  }

  /** Throws {@link KeystoreError}: `BAD_URI`, `BAD_KEY_TYPE`, `MISMATCH`, `IO`. */
  insert(keyType: string, secretUri: string, publicKey: Uint8Array): void {
    this.#write(keyType, matchingPair(keyType, secretUri, publicKey));
  }

  /** Adds the key of a URI without knowing its public key, which comes back. */
  insertUri(keyType: string, secretUri: string): Uint8Array {
    checkKeyType(keyType);
    const pair = derive(secretUri, schemeOf(keyType) ?? 'sr25519');
    this.#write(keyType, pair);
    return pair.publicKey.slice();
  }

  /** Adds the key of a URI for the life of this process: nothing is written. */
  hold(keyType: string, secretUri: string): void {
    this.#checkOpen();
    this.#memory.hold(keyType, secretUri);
  }

  generate(keyType: string): Uint8Array {
    return this.insertUri(keyType, toHex(randomBytes(32)));
  }

  /** Overwrites the secrets in memory. Nothing can be signed or inserted afterwards. */
  close(): void {
    this.#closed = true;
    this.#memory.clear();
    this.#box.clear();
  }

  #checkOpen(): void {
    if (this.#closed) throw new KeystoreError('CLOSED', 'the keystore is closed');
  }

  #read(name: string, publicKey: Uint8Array): KeyPair {
    const { sealed } = (guarded(`${name} cannot be read`, () => parseJson(this.#directory, name)) ?? {}) as {
      sealed?: unknown;
    };
    const bytes = typeof sealed === 'string' && /^0x([0-9a-f]{2})*$/.test(sealed) ? fromHex(sealed) : undefined;
    const plain = bytes && this.#box.unseal(bytes, utf8(name));
    const split = plain?.indexOf(0) ?? -1;
    const scheme = ALL_SCHEMES.find((each) => split > 0 && each === fromUtf8(plain!.subarray(0, split)));
    if (plain === undefined || scheme === undefined) {
      throw new KeystoreError('TAMPERED', `the key file ${name} is damaged or was not written with this password`);
    }
    return { scheme, publicKey, secret: plain.slice(split + 1) };
  }

  /** The name is sealed in with the secret, so that renaming a file does not give a key another purpose. */
  #write(keyType: string, pair: KeyPair): void {
    this.#checkOpen();
    checkKeyType(keyType);
    const name = toHex(utf8(keyType)).slice(2) + toHex(pair.publicKey).slice(2);
    const plain = concatBytes(utf8(pair.scheme satisfies Scheme), Uint8Array.of(0), pair.secret);
    const sealed = toHex(this.#box.seal(plain, utf8(name)));
    plain.fill(0);
    guarded(`the key cannot be written to ${this.#directory}`, () =>
      writeAtomically(this.#directory, name, JSON.stringify({ version: 1, sealed })),
    );
    this.#memory.add(keyType, pair);
  }
}

function guarded<T>(what: string, run: () => T): T {
  try {
    return run();
  } catch (problem) {
    if (problem instanceof KeystoreError) throw problem;
    const { code = 'unknown error' } = problem as NodeJS.ErrnoException;
    throw new KeystoreError('IO', `${what}: ${code}`, { cause: problem });
  }
}

function parseJson(directory: string, name: string): unknown {
  const text = readFileSync(join(directory, name), 'utf8');
  try {
    return JSON.parse(text);
  } catch {
    throw new KeystoreError('TAMPERED', `the file ${name} of the keystore is damaged`);
  }
}

function writeAtomically(directory: string, name: string, text: string): void {
  const temporary = join(directory, `.${name}.${randomBytes(4).toString('hex')}`);
  try {
    const file = openSync(temporary, 'wx', 0o600);
    try {
      writeSync(file, text);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
    renameSync(temporary, join(directory, name));
  } catch (problem) {
    rmSync(temporary, { force: true });
    throw problem;
  }
  const folder = openSync(directory, 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}
