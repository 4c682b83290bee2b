/** Keys of people's accounts: a secret URI, or a file that holds one or an encrypted key as wallets export it. */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { phraseOf } from '../../rpc/client/mnemonic.ts';
import { createHashing } from '../crypto/hashing.ts';
import { KeySigner } from '../keystore/key-signer.ts';
import { KeystoreError } from '../keystore/keys.ts';
import { isWalletFile, openWallet, type WalletFile } from '../keystore/wallet-file.ts';

export class KeyError extends Error {
  readonly code: 'BAD_KEY' | 'WRONG_PASSWORD' | 'NO_PASSWORD';
  constructor(code: KeyError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * `given`: a secret URI (`//Alice`, a mnemonic, a 0x-seed), the path of a file with one or of a wallet’s JSON, or `-` for
 * standard input. The password of a wallet comes from a file, from `OPENLEDGER_PASSWORD`, or is asked for. Throws
 * {@link KeyError}.
 */
export async function openKey(given: string, passwordFile?: string): Promise<KeySigner> {
  const key = given === '-' ? readFileSync(process.stdin.fd, 'utf8').trim() : given;
  if (!existsSync(key)) {
    // Development accounts are no secret.
    if (!key.startsWith('//') && process.argv.some((each) => each.includes(key))) {
      process.stderr.write(
        'warning: every user of this machine can read a secret phrase on the command line; use a file that only you can ' +
          'read, OPENLEDGER_KEY, or "--key -" and standard input\n',
      );
    }
    return fromUri(key);
  }
  const text = readFileSync(key, 'utf8').trim();
  const wallet = walletIn(text);
  if (wallet === undefined) return fromUri(text);
  const secret = await password(passwordFile);
  try {
    return new KeySigner(openWallet(wallet, secret), createHashing());
  } catch (problem) {
    if (!(problem instanceof KeystoreError)) throw problem;
    if (problem.code !== 'WRONG_PASSWORD') throw new KeyError('BAD_KEY', problem.message);
    throw new KeyError('WRONG_PASSWORD', `the key in ${key} does not open with this password`);
  }
}

/** The messages say nothing of the URI itself. */
function fromUri(uri: string): KeySigner {
  try {
    return KeySigner.fromUri(uri, createHashing());
  } catch (problem) {
    if (!(problem instanceof KeystoreError)) throw problem;
    throw new KeyError(
      'BAD_KEY',
      'the key is neither a secret URI (a mnemonic, a 0x-seed, //Alice …) nor a file that holds one',
    );
  }
}

function walletIn(text: string): WalletFile | undefined {
  if (!text.startsWith('{')) return undefined;
  try {
    const json: unknown = JSON.parse(text);
    if (isWalletFile(json)) return json;
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

/** A fresh account. */
export function newKey(): { readonly mnemonic: string; readonly key: KeySigner } {
  const mnemonic = phraseOf(new Uint8Array(randomBytes(16)));
  return { mnemonic, key: fromUri(mnemonic) };
}
