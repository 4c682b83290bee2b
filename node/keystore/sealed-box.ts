/**
 * Encryption under a password: scrypt (RFC 7914) makes the key, XChaCha20-Poly1305 seals. The header is public and says
 * how the key is made; its seal over nothing tells a wrong password at once.
 */
import { randomBytes, scryptSync } from 'node:crypto';
import sodium from 'sodium-native';
import { fromHex, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { KeystoreError } from './keys.ts';

const NONCE = 24;
const TAG = 16;
const PURPOSE = utf8('openledger keystore 1');
/** 32 MiB of memory and about a tenth of a second for each guess. */
const COST = { n: 2 ** 15, r: 8, p: 1 };
/** Above this a forged header would stall the start. */
const MAX_MEMORY = 2 ** 30;

export interface BoxHeader {
  readonly version: 1;
  readonly kdf: 'scrypt';
  readonly n: number;
  readonly r: number;
  readonly p: number;
  readonly salt: string;
  readonly check: string;
}

export class SealedBox {
  readonly header: BoxHeader;
  readonly #key: Uint8Array;

  private constructor(header: BoxHeader, key: Uint8Array) {
    this.header = header;
    this.#key = key;
  }

  static create(password: string): SealedBox {
    const salt = randomBytes(16);
    const key = stretch(password, salt, COST);
    const check = toHex(seal(key, new Uint8Array(0), PURPOSE));
    return new SealedBox({ version: 1, kdf: 'scrypt', ...COST, salt: toHex(salt), check }, key);
  }

  /** Throws {@link KeystoreError}: `WRONG_PASSWORD`; `TAMPERED` if `header` is none. */
  static open(header: unknown, password: string): SealedBox {
    const { n, r, p, salt, check } = parseHeader(header);
    const key = stretch(password, fromHex(salt), { n, r, p });
    if (unseal(key, fromHex(check), PURPOSE) === undefined) {
      throw new KeystoreError('WRONG_PASSWORD', 'the password does not open the keystore');
    }
    return new SealedBox(header as BoxHeader, key);
  }

  /** `context` is not stored; the same one is needed to open the seal. */
  seal(secret: Uint8Array, context: Uint8Array): Uint8Array {
    return seal(this.#key, secret, context);
  }

  /** Undefined when a byte of the sealed secret or the context differs. */
  unseal(sealed: Uint8Array, context: Uint8Array): Uint8Array | undefined {
    return unseal(this.#key, sealed, context);
  }

  clear(): void {
    this.#key.fill(0);
  }
}

function parseHeader(value: unknown): BoxHeader {
  const header = value as Partial<BoxHeader> | null;
  const isNumber = (n: unknown, min: number): n is number => Number.isSafeInteger(n) && (n as number) >= min;
  const isHex = (text: unknown): text is string => typeof text === 'string' && /^0x([0-9a-f]{2})+$/.test(text);
  if (
    typeof header !== 'object' ||
    header === null ||
    header.version !== 1 ||
    header.kdf !== 'scrypt' ||
    !isNumber(header.n, 2 ** 14) ||
    !Number.isInteger(Math.log2(header.n)) ||
    !isNumber(header.r, 1) ||
    !isNumber(header.p, 1) ||
    header.p > 16 ||
    128 * header.n * header.r > MAX_MEMORY ||
    !isHex(header.salt) ||
    !isHex(header.check)
  ) {
    throw new KeystoreError('TAMPERED', 'the header of the keystore is damaged');
  }
  return header as BoxHeader;
}

function stretch(password: string, salt: Uint8Array, { n, r, p }: typeof COST): Uint8Array {
  return scryptSync(password.normalize('NFKC'), salt, 32, { N: n, r, p, maxmem: 2 * MAX_MEMORY });
}

function seal(key: Uint8Array, secret: Uint8Array, context: Uint8Array): Uint8Array {
  const out = new Uint8Array(NONCE + secret.length + TAG);
  const nonce = out.subarray(0, NONCE);
  sodium.randombytes_buf(nonce);
  sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(out.subarray(NONCE), secret, context, null, nonce, key);
  return out;
}

function unseal(key: Uint8Array, sealed: Uint8Array, context: Uint8Array): Uint8Array | undefined {
  if (sealed.length < NONCE + TAG) return undefined;
  const secret = new Uint8Array(sealed.length - NONCE - TAG);
  try {
    const nonce = sealed.subarray(0, NONCE);
    sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(secret, null, sealed.subarray(NONCE), context, nonce, key);
    return secret;
  } catch {
    return undefined;
  }
}
