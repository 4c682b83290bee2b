/** Keys of people's accounts: a secret URI, or a file that holds one or an encrypted key as wallets export it. */
import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { Keyring } from '@polkadot/api';
import type { KeyringPair, KeyringPair$Json } from '@polkadot/keyring/types';
import { cryptoWaitReady, decodeAddress, encodeAddress, mnemonicGenerate } from '@polkadot/util-crypto';

export class KeyError extends Error {
  readonly code: 'BAD_ADDRESS' | 'BAD_KEY' | 'WRONG_PASSWORD' | 'NO_PASSWORD';
  constructor(code: KeyError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * `key`: a secret URI (`//Alice`, a mnemonic, a 0x-seed), or the path of a file with one, or of a wallet's JSON. The
 * password of the latter comes from a file, from `OPENLEDGER_PASSWORD`, or is asked for. Throws {@link KeyError}.
 */
export async function openKey(key: string, passwordFile?: string): Promise<KeyringPair> {
  await cryptoWaitReady();
  const keyring = new Keyring({ type: 'sr25519', ss58Format: 42 });
  if (!existsSync(key)) return fromUri(keyring, key);
  const text = readFileSync(key, 'utf8').trim();
  const json = walletJson(text);
  if (json === undefined) return fromUri(keyring, text);
  const pair = keyring.createFromJson(json);
  try {
    pair.unlock(await password(passwordFile));
  } catch (problem) {
    if (problem instanceof KeyError) throw problem;
    throw new KeyError('WRONG_PASSWORD', `the key in ${key} does not open with this password`);
  }
  return pair;
}

/** The messages say nothing of the URI itself. */
function fromUri(keyring: Keyring, uri: string): KeyringPair {
  try {
    return keyring.createFromUri(uri);
  } catch {
    throw new KeyError(
      'BAD_KEY',
      'the key is neither a secret URI (a mnemonic, a 0x-seed, //Alice …) nor a file that holds one',
    );
  }
}

function walletJson(text: string): KeyringPair$Json | undefined {
  if (!text.startsWith('{')) return undefined;
  try {
    const json = JSON.parse(text) as KeyringPair$Json;
    if (typeof json.encoded === 'string' && typeof json.address === 'string') return json;
  } catch {
    // Told below.
  }
  throw new KeyError('BAD_KEY', 'the key file is no account as wallets export it');
}

/** From a file, the environment, or whoever sits at the terminal. */
export async function password(file: string | undefined): Promise<string> {
  if (file !== undefined) return readFileSync(file, 'utf8').replace(/\r?\n$/, '');
  const { OPENLEDGER_PASSWORD: given } = process.env;
  if (given !== undefined) return given;
  if (!process.stdin.isTTY) {
    throw new KeyError('NO_PASSWORD', 'the key needs a password: --password-file or OPENLEDGER_PASSWORD');
  }
  process.stderr.write('Password: ');
  // What is typed is not shown.
  process.stdin.setRawMode(true);
  const lines = createInterface({ input: process.stdin, terminal: false });
  try {
    for await (const line of lines) return line;
    throw new KeyError('NO_PASSWORD', 'no password was given');
  } finally {
    lines.close();
    process.stdin.setRawMode(false);
    process.stderr.write('\n');
  }
}

/** An SS58 address as it is, or that of a development secret URI, for what needs no signature. Throws {@link KeyError}. */
export async function accountAddress(account: string): Promise<string> {
  if (account.startsWith('/')) return (await openKey(account)).address;
  try {
    return encodeAddress(decodeAddress(account), 42);
  } catch {
    throw new KeyError('BAD_ADDRESS', `${account} is no SS58 address`);
  }
}

/** A fresh account. */
export async function newKey(): Promise<{ readonly mnemonic: string; readonly pair: KeyringPair }> {
  await cryptoWaitReady();
  const mnemonic = mnemonicGenerate();
  return { mnemonic, pair: fromUri(new Keyring({ type: 'sr25519', ss58Format: 42 }), mnemonic) };
}
