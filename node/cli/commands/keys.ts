/** `openledger keys`: makes keys, shows what belongs to a secret, and puts keys where a node finds them. */
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { blake2b } from '@noble/hashes/blake2.js';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { phraseOf } from '../../../rpc/client/mnemonic.ts';
import { fromHex, fromUtf8, toHex } from '../../../runtime/primitives/bytes.ts';
import { decode, encode } from '../../../runtime/primitives/scale/codec.ts';
import {
  KEY_TYPES,
  type KeyName,
  ownershipProof,
  ownershipStatement,
  sessionKeys,
} from '../../../runtime/primitives/session-keys.ts';
import { decodeSs58, encodeSs58 } from '../../../runtime/primitives/ss58.ts';
import { asAccountId } from '../../../runtime/primitives/types.ts';
import { loadChainSpec } from '../../chain-spec/built-in.ts';
import { createHashing } from '../../crypto/hashing.ts';
import { FileKeystore } from '../../keystore/files.ts';
import { ALL_SCHEMES, type KeyPair, KeystoreError, type Scheme, schemeOf } from '../../keystore/keys.ts';
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

interface KeystoreFlags {
  readonly basePath?: string;
  readonly chain: string;
  readonly passwordFile?: string;
}

const withKeystore = (command: Command): Command =>
  command
    .option('--base-path <dir>', 'base path of the node')
    .requiredOption('--chain <name|file>', 'the chain that the node follows')
    .option('--password-file <file>', 'file with the password of the keystore');

const openKeystore = (flags: KeystoreFlags): FileKeystore =>
  new FileKeystore({
    directory: join(flags.basePath ?? defaultBasePath(), 'chains', loadChainSpec(flags.chain).id, 'keystore'),
    password: flags.passwordFile === undefined ? '' : passwordIn(flags.passwordFile),
    hashing: createHashing(),
  });

interface InsertFlags extends KeystoreFlags {
  readonly keyType: string;
  readonly suri?: string;
  readonly scheme?: Scheme;
}

function insert(flags: InsertFlags): void {
  const keystore = openKeystore(flags);
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

interface SessionFlags extends KeystoreFlags {
  readonly owner: string;
  readonly keys?: string;
  readonly json?: boolean;
}

/** Session keys and the proof that they belong to `owner`: new ones, or those of the keystore that are named. */
function sessionKeysOf(flags: SessionFlags): void {
  const owner = asAccountId(decodeSs58(blake2b, flags.owner).key);
  const keystore = openKeystore(flags);
  try {
    const typeOf = (name: KeyName): string => fromUtf8(KEY_TYPES[name]);
    const keys =
      flags.keys === undefined
        ? { aura: keystore.generate(typeOf('aura')), grandpa: keystore.generate(typeOf('grandpa')) }
        : decode(sessionKeys, fromHex(flags.keys));
    const statement = ownershipStatement(owner);
    const signature = (name: KeyName): Uint8Array => {
      const made = keystore.sign(typeOf(name), keys[name], statement);
      if (made === undefined)
        throw new KeystoreError('MISMATCH', `the keystore has no ${name} key ${toHex(keys[name])}`);
      return made;
    };
    const proof = ownershipProof({ aura: signature('aura'), grandpa: signature('grandpa') });
    const shown = { keys: toHex(encode(sessionKeys, keys)), proof: toHex(proof) };
    if (flags.json) process.stdout.write(`${JSON.stringify(shown, undefined, 2)}\n`);
    else process.stdout.write(`${'Session keys'.padEnd(14)} ${shown.keys}\n${'Proof'.padEnd(14)} ${shown.proof}\n`);
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
  withKeystore(keys.command('insert'))
    .description('put a key into the keystore of a node, which takes it up at its start or on SIGHUP')
    .requiredOption('--key-type <type>', 'what for: aura, gran …')
    .option('--suri <secret>', 'the secret, or a file that holds it (default: the standard input)')
    .addOption(new Option('--scheme <scheme>', 'kind of key, where the type leaves it open').choices(ALL_SCHEMES))
    .action(insert);
  withKeystore(keys.command('session'))
    .description(
      'make the session keys of a validator in the keystore of its node, and the proof that session.setKeys asks for',
    )
    .requiredOption('--owner <address>', 'account of the validator, which signs session.setKeys')
    .option('--keys <hex>', 'prove session keys that the keystore has already, and make none')
    .option('--json', 'print JSON')
    .action(sessionKeysOf);
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
