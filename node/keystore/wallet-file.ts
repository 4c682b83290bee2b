/**
 * Accounts as wallets export them (polkadot-js JSON, version 3): PKCS#8 with the key pair, sealed with xsalsa20-poly1305
 * under a key that scrypt makes of the password.
 */
import { randomBytes, scryptSync } from 'node:crypto';
import sodium from 'sodium-native';
import { concatBytes, equalBytes, fromHex } from '../../runtime/primitives/bytes.ts';
import { type KeyPair, KeystoreError, type Scheme } from './keys.ts';

export interface WalletFile {
  readonly encoded: string;
  readonly encoding: {
    readonly content: readonly string[];
    readonly type: readonly string[] | string;
    readonly version: string;
  };
  readonly address: string;
  readonly meta: Readonly<Record<string, unknown>>;
}

const HEADER = fromHex('3053020101300506032b657004220420');
const DIVIDER = fromHex('a123032100');
const SECRET_BYTES: Readonly<Record<Scheme, number>> = { sr25519: 64, ed25519: 64, ecdsa: 32 };
const PUBLIC_BYTES: Readonly<Record<Scheme, number>> = { sr25519: 32, ed25519: 32, ecdsa: 33 };
const SCRYPT = { N: 131_072, r: 8, p: 1 };
/** Parameters that files may name: others could take all memory there is. */
const MOST = { N: 1 << 20, r: 16, p: 16 };
const SALT = 32;
const NONCE = 24;
const TAG = 16;

const bad = (why: string): KeystoreError =>
  new KeystoreError('TAMPERED', `the key file is not as wallets write it: ${why}`);

const isScheme = (name: string | undefined): name is Scheme =>
  name === 'sr25519' || name === 'ed25519' || name === 'ecdsa';

function keyOf(password: string, salt: Uint8Array, { N, r, p }: typeof SCRYPT): Uint8Array {
  // 64 bytes are made, as wallets do, and 32 used.
  return new Uint8Array(scryptSync(password, salt, 64, { N, r, p, maxmem: 256 * N * r })).subarray(0, 32);
}

/** Whether a parsed JSON file is an account of a wallet. */
export function isWalletFile(value: unknown): value is WalletFile {
  const { encoded, encoding, address } = (value ?? {}) as Partial<WalletFile>;
  return typeof encoded === 'string' && typeof address === 'string' && Array.isArray(encoding?.content);
}

/** Throws a {@link KeystoreError}: `WRONG_PASSWORD`, or `TAMPERED` for what no wallet writes. */
export function openWallet({ encoded, encoding }: WalletFile, password: string): KeyPair {
  const scheme = encoding.content[1];
  if (encoding.content[0] !== 'pkcs8' || !isScheme(scheme)) throw bad(`it holds ${encoding.content.join(' ')}`);
  const types = typeof encoding.type === 'string' ? [encoding.type] : encoding.type;
  const bytes = encoded.startsWith('0x') ? fromHex(encoded) : new Uint8Array(Buffer.from(encoded, 'base64'));
  if (types.length === 1 && types[0] === 'none') return pairIn(bytes, scheme);
  if (types.join(' ') !== 'scrypt xsalsa20-poly1305') throw bad(`it is sealed by ${types.join(' ')}`);
  const start = SALT + 12;
  if (bytes.length < start + NONCE + TAG) throw bad('it is cut off');
  const view = new DataView(bytes.buffer, bytes.byteOffset + SALT, 12);
  const cost = { N: view.getUint32(0, true), p: view.getUint32(4, true), r: view.getUint32(8, true) };
  const sound = cost.N > 1 && (cost.N & (cost.N - 1)) === 0 && cost.r > 0 && cost.p > 0;
  if (!sound || cost.N > MOST.N || cost.r > MOST.r || cost.p > MOST.p) throw bad('its scrypt costs are out of range');
  const sealed = bytes.subarray(start + NONCE);
  const opened = new Uint8Array(sealed.length - TAG);
  const key = keyOf(password, bytes.subarray(0, SALT), cost);
  const isOpen = sodium.crypto_secretbox_open_easy(opened, sealed, bytes.subarray(start, start + NONCE), key);
  key.fill(0);
  if (!isOpen) throw new KeystoreError('WRONG_PASSWORD', 'the key file does not open with this password');
  return pairIn(opened, scheme);
}

function pairIn(bytes: Uint8Array, scheme: Scheme): KeyPair {
  const [secretBytes, publicBytes] = [SECRET_BYTES[scheme], PUBLIC_BYTES[scheme]];
  const divider = HEADER.length + secretBytes;
  const sound =
    bytes.length === divider + DIVIDER.length + publicBytes &&
    equalBytes(bytes.subarray(0, HEADER.length), HEADER) &&
    equalBytes(bytes.subarray(divider, divider + DIVIDER.length), DIVIDER);
  if (!sound) throw bad('what is in it is no key pair');
  // An ed25519 secret is the seed with the public key behind it.
  const secret = bytes.slice(HEADER.length, HEADER.length + (scheme === 'ed25519' ? 32 : secretBytes));
  return { scheme, secret, publicKey: bytes.slice(divider + DIVIDER.length) };
}

/** The file for a wallet to import. `address`: as people know the account. */
export function sealWallet(
  pair: KeyPair,
  password: string,
  address: string,
  meta: WalletFile['meta'] = {},
): WalletFile {
  const secret = pair.scheme === 'ed25519' ? concatBytes(pair.secret, pair.publicKey) : pair.secret;
  const content = concatBytes(HEADER, secret, DIVIDER, pair.publicKey);
  const salt = new Uint8Array(randomBytes(SALT));
  const nonce = new Uint8Array(randomBytes(NONCE));
  const costs = new DataView(new ArrayBuffer(12));
  for (const [at, value] of [SCRYPT.N, SCRYPT.p, SCRYPT.r].entries()) costs.setUint32(4 * at, value, true);
  const key = keyOf(password, salt, SCRYPT);
  const sealed = new Uint8Array(content.length + TAG);
  sodium.crypto_secretbox_easy(sealed, content, nonce, key);
  key.fill(0);
  content.fill(0);
  return {
    encoded: Buffer.from(concatBytes(salt, new Uint8Array(costs.buffer), nonce, sealed)).toString('base64'),
    encoding: { content: ['pkcs8', pair.scheme], type: ['scrypt', 'xsalsa20-poly1305'], version: '3' },
    address,
    meta,
  };
}
