import { mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Keyring } from '@polkadot/keyring';
import { cryptoWaitReady, decodeAddress, mnemonicGenerate, signatureVerify } from '@polkadot/util-crypto';
import t from 'tap';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { FileKeystore } from '../../../node/keystore/files.ts';
import { KeySigner } from '../../../node/keystore/key-signer.ts';
import { KeystoreError } from '../../../node/keystore/keys.ts';
import { developmentKeys, MemoryKeystore } from '../../../node/keystore/memory.ts';
import { derive, deriveFrom } from '../../../node/keystore/secret-uri.ts';
import { isWalletFile, openWallet } from '../../../node/keystore/wallet-file.ts';
import { LocalKey } from '../../../rpc/client/keys.ts';
import { toHex, utf8 } from '../../../runtime/primitives/bytes.ts';

await cryptoWaitReady();
const hashing = createHashing();
const PHRASE = 'legal winner thank year wave sausage worth useful legal winner thank yellow';

t.test('secret URIs give the keys that @polkadot/keyring gives', async (t) => {
  const seed = `0x${'1f'.repeat(32)}`;
  const uris = ['//Alice', '//Bob//stash', '', PHRASE, `${PHRASE}//0//1`, `${PHRASE}//x///secret`, seed, `${seed}//42`];
  for (const type of ['sr25519', 'ed25519', 'ecdsa'] as const) {
    const keyring = new Keyring({ type });
    const own = type === 'sr25519' ? [...uris, `${PHRASE}/soft`, '//Alice/1//x/y'] : uris;
    for (const uri of own) {
      const expected = keyring.createFromUri(
        uri === '' ? 'bottom drive obey lake curtain smoke basket hold race lonely fit walk' : uri,
      );
      t.equal(toHex(derive(uri, type).publicKey), toHex(expected.publicKey), `${type} ${uri}`);
      t.equal(toHex(LocalKey.fromUri(uri, type).publicKey), toHex(expected.publicKey), 'in JavaScript alone too');
    }
  }
  t.equal(
    toHex(derive('//Alice', 'sr25519').publicKey),
    toHex(decodeAddress('5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY')),
  );
  t.equal(
    toHex(derive('//Alice', 'ed25519').publicKey),
    toHex(decodeAddress('5FA9nQDVg267DEd8m1ZypXLBnvN7SFxYwV7ndqSYGiN9TTpu')),
  );
});

t.test('bad URIs are refused without being repeated', async (t) => {
  const uris = [
    'secretword',
    `${PHRASE} ${PHRASE}`,
    PHRASE.replace('legal', 'legalsecret'),
    '0x1234secret',
    `0x${'1f'.repeat(31)}`,
  ];
  uris.push('///', `${'secret'.repeat(1_000)}`);
  for (const uri of uris) {
    try {
      derive(uri, 'sr25519');
      t.equal(uri, '///', 'an empty password on the development phrase is the only one that is fine');
    } catch (problem) {
      t.ok(problem instanceof KeystoreError && problem.code === 'BAD_URI');
      t.notMatch(String(problem), /secret[a-z]|1f1f|1234/);
    }
  }
  t.throws(() => derive('//Alice/soft', 'ed25519'), { code: 'BAD_URI' });
  t.throws(() => derive('//Alice/soft', 'ecdsa'), { code: 'BAD_URI' });
});

t.test('keys in JavaScript alone sign as native ones do', async (t) => {
  for (const scheme of ['sr25519', 'ed25519', 'ecdsa'] as const) {
    const key = LocalKey.fromUri('//Alice', scheme).derive('//session');
    const message = utf8('a message');
    t.ok(signatureVerify(message, key.sign(message), key.publicKey).isValid, scheme);
    t.equal(key.address, KeySigner.fromUri('//Alice//session', hashing, scheme).address);
  }
  t.throws(() => LocalKey.fromUri('//Alice', 'ed25519').derive('/soft'), { code: 'BAD_URI' });
  t.throws(() => LocalKey.fromUri('no words at all'), { code: 'BAD_URI' });
});

t.test('a path leads from one key to another, as the whole URI does', async (t) => {
  for (const [scheme, path] of [
    ['sr25519', '//session/soft'],
    ['ed25519', '//session//7'],
    ['ecdsa', '//session'],
  ] as const) {
    const found = deriveFrom(derive('//Alice', scheme), path);
    t.strictSame(found.publicKey, derive(`//Alice${path}`, scheme).publicKey, scheme);
  }
  for (const path of ['', 'session', '//', '//a///b'])
    t.throws(() => deriveFrom(derive('//Alice', 'sr25519'), path), { code: 'BAD_URI' }, path);
});

t.test('key files go from wallets to here and back', async (t) => {
  for (const type of ['sr25519', 'ed25519', 'ecdsa'] as const) {
    const keyring = new Keyring({ type });
    const pair = keyring.createFromUri('//Alice//file');
    const json: unknown = JSON.parse(JSON.stringify(pair.toJson('a password')));
    if (!isWalletFile(json)) throw new Error('not taken for a key file');
    t.strictSame(openWallet(json, 'a password'), derive('//Alice//file', type), `${type} from a wallet`);
    t.throws(() => openWallet(json, 'another'), { code: 'WRONG_PASSWORD' });
    t.strictSame(openWallet(pair.toJson() as never, ''), derive('//Alice//file', type), 'without a password');

    const own = KeySigner.fromUri('//Bob//file', hashing, type).toWallet('another password');
    const taken = keyring.createFromJson(own as never);
    taken.unlock('another password');
    const message = utf8('signed by what a wallet took in');
    t.ok(
      signatureVerify(message, taken.sign(message), derive('//Bob//file', type).publicKey).isValid,
      `${type} to a wallet`,
    );
  }
  const good = KeySigner.fromUri('//Alice', hashing).toWallet('x');
  const bytes = Buffer.from(good.encoded, 'base64');
  const bent = (change: (copy: Buffer) => void) => {
    const copy = Buffer.from(bytes);
    change(copy);
    return { ...good, encoded: copy.toString('base64') };
  };
  const last = bytes.length - 1;
  t.throws(
    () =>
      openWallet(
        bent((copy) => copy.writeUInt8(copy[last]! ^ 1, last)),
        'x',
      ),
    { code: 'WRONG_PASSWORD' },
  );
  // Costs that would take all memory there is, or none.
  for (const [at, value] of [
    [32, 0x80000000],
    [32, 3],
    [36, 0],
    [40, 0xffffffff],
  ] as const) {
    t.throws(
      () =>
        openWallet(
          bent((copy) => copy.writeUInt32LE(value, at)),
          'x',
        ),
      { code: 'TAMPERED' },
    );
  }
  t.throws(() => openWallet({ ...good, encoded: 'AAAA' }, 'x'), { code: 'TAMPERED' });
  const other = { ...good.encoding, content: ['pkcs8', 'ethereum'] };
  t.throws(() => openWallet({ ...good, encoding: other }, 'x'), { code: 'TAMPERED' });
  for (const junk of [undefined, null, 7, {}, { encoded: 'x', address: 'y' }]) t.notOk(isWalletFile(junk));
});

t.test('signatures of every scheme are valid for others', async (t) => {
  const keystore = new MemoryKeystore(hashing);
  const message = utf8('to be signed');
  for (const [keyType, crypto] of [
    ['aura', 'sr25519'],
    ['gran', 'ed25519'],
    ['beef', 'ecdsa'],
  ] as const) {
    const key = keystore.generate(keyType);
    const signature = keystore.sign(keyType, key, message)!;
    const checked = signatureVerify(message, signature, crypto === 'ecdsa' ? hashing.blake2_256(key) : key);
    t.strictSame([checked.isValid, checked.crypto], [true, crypto]);
    t.equal(keystore.sign('imon', key, message), undefined, 'not for another purpose');
  }
  const alice = developmentKeys(hashing, '//Alice');
  t.strictSame(alice.publicKeys('gran'), [derive('//Alice', 'ed25519').publicKey]);
  t.strictSame(alice.publicKeys('aura'), [derive('//Alice', 'sr25519').publicKey]);
  alice.publicKeys('aura')[0]!.fill(0);
  t.strictSame(alice.publicKeys('aura'), [derive('//Alice', 'sr25519').publicKey], 'not by reference');
});

t.test('insert wants secret and public key to belong together', async (t) => {
  const keystore = new MemoryKeystore(hashing);
  const { publicKey } = derive('//Alice', 'ed25519');
  t.throws(() => keystore.insert('aura', '//Alice', publicKey), { code: 'MISMATCH' });
  t.throws(() => keystore.insert('gran', '//Bob', publicKey), { code: 'MISMATCH' });
  t.throws(() => keystore.insert('grandpa', '//Alice', publicKey), { code: 'BAD_KEY_TYPE' });
  t.throws(() => keystore.insert('../x', '//Alice', publicKey), { code: 'BAD_KEY_TYPE' });
  t.throws(() => keystore.insert('gran', '//Alice/soft', publicKey), { code: 'BAD_URI' });
  t.notOk(keystore.has('gran', publicKey));
  keystore.insert('gran', '//Alice', publicKey);
  t.ok(keystore.has('gran', publicKey));
  for (const scheme of ['sr25519', 'ed25519', 'ecdsa'] as const) {
    const key = derive('//Alice', scheme).publicKey;
    keystore.insert('mine', '//Alice', key);
    t.ok(keystore.sign('mine', key, utf8('x')), `a purpose of one's own may use ${scheme}`);
  }
});

t.test('keys on disk', async (t) => {
  const directory = join(t.testdir(), 'chain', 'keystore');
  const phrase = mnemonicGenerate();
  const first = new FileKeystore({ directory, password: 'correct horse', hashing });
  const aura = first.insertUri('aura', `${phrase}//soft/soft`);
  const gran = first.generate('gran');
  const beef = first.generate('beef');

  await t.test('are readable by the owner only, and tell nothing', async (t) => {
    t.equal(statSync(directory).mode & 0o777, 0o700);
    const names = readdirSync(directory);
    t.equal(names.length, 4, 'a header and three keys, nothing left over');
    for (const name of names) {
      t.equal(statSync(join(directory, name)).mode & 0o777, 0o600, name);
      t.notOk(readFileSync(join(directory, name), 'utf8').includes(phrase.split(' ')[0]!), 'no word of the phrase');
    }
    t.ok(names.includes(`61757261${toHex(aura).slice(2)}`), 'named as Substrate names them');
  });

  await t.test('come back with the password', async (t) => {
    const second = new FileKeystore({ directory, password: 'correct horse', hashing });
    for (const [keyType, key] of [
      ['aura', aura],
      ['gran', gran],
      ['beef', beef],
    ] as const) {
      t.strictSame(second.publicKeys(keyType), [key]);
      const account = keyType === 'beef' ? hashing.blake2_256(key) : key;
      t.ok(signatureVerify('m', second.sign(keyType, key, utf8('m'))!, account).isValid, keyType);
    }
    const added = first.generate('imon');
    t.notOk(second.has('imon', added));
    second.refresh();
    t.ok(second.has('imon', added), 'what another process wrote is found');
    second.close();
    t.equal(second.sign('aura', aura, utf8('m')), undefined);
    t.throws(() => second.generate('aura'), { code: 'CLOSED' });
  });

  await t.test('do not without it, or when a file was changed', async (t) => {
    const open = (password = 'correct horse') => new FileKeystore({ directory, password, hashing });
    t.throws(() => open('wrong'), { code: 'WRONG_PASSWORD' });
    t.throws(() => open(''), { code: 'WRONG_PASSWORD' });
    const file = join(directory, `61757261${toHex(aura).slice(2)}`);
    const good = readFileSync(file, 'utf8');
    const flipped = good.replace(/[0-9a-f]("\})$/, (last) => (last[0] === '0' ? '1' : '0') + last.slice(1));
    t.not(flipped, good);
    for (const bad of [flipped, good.slice(0, 40), '', '{}', 'null', '{"version":1,"sealed":"0x00"}']) {
      writeFileSync(file, bad);
      t.throws(() => open(), { code: 'TAMPERED' }, JSON.stringify(bad.slice(0, 30)));
    }
    writeFileSync(file, good);
    const renamed = join(directory, `696d6f6e${toHex(aura).slice(2)}`);
    renameSync(file, renamed);
    t.throws(() => open(), { code: 'TAMPERED' }, 'a key under another purpose');
    renameSync(renamed, file);

    const header = join(directory, 'keystore.json');
    const goodHeader = readFileSync(header, 'utf8');
    for (const change of [{ n: 2 ** 40 }, { n: 1 }, { version: 2 }, { salt: 'zz' }, { kdf: 'none' }, { p: 1e9 }]) {
      writeFileSync(header, JSON.stringify({ ...JSON.parse(goodHeader), ...change }));
      t.throws(() => open(), { code: 'TAMPERED' }, JSON.stringify(change));
    }
    renameSync(header, `${header}.away`);
    t.throws(() => open(), { code: 'TAMPERED' }, 'no header, but keys');
    renameSync(`${header}.away`, header);
    writeFileSync(header, goodHeader);
    t.equal(open().publicKeys('aura').length, 1);
  });

  await t.test('a directory that cannot be is a typed error', async (t) => {
    const blocked = join(t.testdir({ file: 'x' }), 'file', 'keystore');
    t.throws(() => new FileKeystore({ directory: blocked, password: '', hashing }), { code: 'IO' });
    const readable = join(t.testdir(), 'empty');
    mkdirSync(readable);
    t.strictSame(new FileKeystore({ directory: readable, password: '', hashing }).publicKeys('aura'), []);
  });
});
