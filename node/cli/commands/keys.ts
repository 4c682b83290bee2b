/** `openledger keys`: makes keys, shows what belongs to a secret, and puts keys where a node finds them. */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { blake2b } from '@noble/hashes/blake2.js';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { decodeSs58, encodeSs58 } from '../../../runtime/primitives/ss58.ts';
import { loadChainSpec } from '../../chain-spec/built-in.ts';
import { createHashing } from '../../crypto/hashing.ts';
import { FileKeystore } from '../../keystore/files.ts';
import { ALL_SCHEMES, type KeyPair, KeystoreError, type Scheme, schemeOf } from '../../keystore/keys.ts';
import { phraseOf } from '../../keystore/mnemonic.ts';
import { derive } from '../../keystore/secret-uri.ts';
import { defaultBasePath, passwordIn } from '../node-flags.ts';

const ENTROPY: Readonly<Record<string, number>> = { 12: 16, 15: 20, 18: 24, 21: 28, 24: 32 };

interface Shown {
  readonly phrase?: string;
  readonly scheme?: string;
  readonly publicKey: string;
  readonly accountId: string;
  readonly address: string;
}

const withScheme = (command: Command): Command =>
  command.addOption(new Option('--scheme <scheme>', 'kind of key').choices(ALL_SCHEMES).default('sr25519'));
const withOutput = (command: Command): Command =>
  command
    .addOption(new Option('--ss58-format <n>', 'prefix of addresses').argParser(ss58Format).default(42))
    .option('--json', 'print JSON');

function ss58Format(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0 || value > 16_383) throw new InvalidArgumentError('a prefix is 0 to 16383');
  return value;
}

/** Accounts are 32 bytes; a longer public key is named by its hash. */
function shown(publicKey: Uint8Array, prefix: number): Shown {
  const key = publicKey.length === 32 ? publicKey : blake2b(publicKey, { dkLen: 32 });
  return { publicKey: toHex(publicKey), accountId: toHex(key), address: encodeSs58(blake2b, { prefix, key }) };
}

const LABELS: Readonly<Record<keyof Shown, string>> = {
  phrase: 'Secret phrase',
  scheme: 'Scheme',
  publicKey: 'Public key',
  accountId: 'Account ID',
  address: 'SS58 address',
};

function print(what: Shown, json: boolean | undefined): void {
  if (json) process.stdout.write(`${JSON.stringify(what, undefined, 2)}\n`);
  else {
    for (const [name, value] of Object.entries(what)) {
      process.stdout.write(`${LABELS[name as keyof Shown].padEnd(14)} ${value}\n`);
    }
  }
}

/** A secret given as it is, as a file that holds it, or on the standard input, where no other user sees it. */
function secret(given: string | undefined): string {
  if (given !== undefined && !existsSync(given)) return given;
  return readFileSync(given ?? 0, 'utf8').trim();
}

function inspected(given: string, scheme: Scheme, prefix: number): Shown {
  if (/^0x[0-9a-f]{64}$/i.test(given) || given.startsWith('/') || given.includes(' ')) {
    return { scheme, ...shown(derive(given, scheme).publicKey, prefix) };
  }
  try {
    return shown(decodeSs58(blake2b, given).key, prefix);
  } catch {
    return { scheme, ...shown(derive(given, scheme).publicKey, prefix) };
  }
}

interface InsertFlags {
  readonly basePath?: string;
  readonly chain: string;
  readonly keyType: string;
  readonly suri?: string;
  readonly passwordFile?: string;
  readonly scheme?: Scheme;
}

function insert(flags: InsertFlags): void {
  const { id } = loadChainSpec(flags.chain);
  const keystore = new FileKeystore({
    directory: join(flags.basePath ?? defaultBasePath(), 'chains', id, 'keystore'),
    password: flags.passwordFile === undefined ? '' : passwordIn(flags.passwordFile),
    hashing: createHashing(),
  });
  try {
    const uri = secret(flags.suri);
    const known = schemeOf(flags.keyType);
    if (known !== undefined && flags.scheme !== undefined && known !== flags.scheme) {
      throw new KeystoreError('MISMATCH', `keys of the type "${flags.keyType}" are of the kind ${known}`);
    }
    const pair: KeyPair = derive(uri, flags.scheme ?? known ?? 'sr25519');
    keystore.insert(flags.keyType, uri, pair.publicKey);
    process.stdout.write(`${toHex(pair.publicKey)}\n`);
  } finally {
    keystore.close();
  }
}

export function keysCommands(program: Command): void {
  const keys = program.command('keys').description('make keys, look at them, give them to a node');
  withOutput(withScheme(keys.command('generate')))
    .description('make a new key and print its secret phrase')
    .addOption(new Option('--words <n>', 'length of the phrase').choices(Object.keys(ENTROPY)).default('12'))
    .action(({ words, scheme, ss58Format: prefix, json }) => {
      const phrase = phraseOf(randomBytes(ENTROPY[words]!));
      print({ phrase, scheme, ...shown(derive(phrase, scheme).publicKey, prefix) }, json);
    });
  withOutput(withScheme(keys.command('inspect')))
    .description('the public key and address of a secret (as is, in a file, or on the standard input) or of an address')
    .argument('[secret-or-address]')
    .action((given: string | undefined, { scheme, ss58Format: prefix, json }) => {
      print(inspected(secret(given), scheme, prefix), json);
    });
  keys
    .command('insert')
    .description('put a key into the keystore of a node, which takes it up at its start or on SIGHUP')
    .option('--base-path <dir>', 'base path of the node')
    .requiredOption('--chain <name|file>', 'the chain that the node follows')
    .requiredOption('--key-type <type>', 'what for: aura, gran …')
    .option('--suri <secret>', 'the secret, or a file that holds it (default: the standard input)')
    .option('--password-file <file>', 'file with the password of the keystore')
    .addOption(new Option('--scheme <scheme>', 'kind of key, where the type leaves it open').choices(ALL_SCHEMES))
    .action(insert);
  keys
    .command('node-key')
    .description('print the peer id of the key in a file, which is made if there is none')
    .argument('<file>')
    .action(async (file: string) => {
      const [{ loadIdentity }, { peerIdFromPrivateKey }] = await Promise.all([
        import('../../../p2p/host/identity.ts'),
        import('@libp2p/peer-id'),
      ]);
      process.stdout.write(`${peerIdFromPrivateKey(await loadIdentity(file))}\n`);
    });
}
