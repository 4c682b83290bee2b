/** `openledger keys` and `openledger chain-spec`, held against the libraries of others and against a node that uses what they made. */
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Keyring } from '@polkadot/api';
import { cryptoWaitReady, decodeAddress, mnemonicValidate } from '@polkadot/util-crypto';
import { Command } from 'commander';
import t from 'tap';
import { genesisOf } from '../../../node/chain/genesis.ts';
import { presetSpec } from '../../../node/chain-spec/built-in.ts';
import { chainSpecJson, parseChainSpec } from '../../../node/chain-spec/chain-spec.ts';
import { chainSpecCommands } from '../../../node/cli/commands/chain-spec.ts';
import { keysCommands } from '../../../node/cli/commands/keys.ts';
import { createHashing } from '../../../node/crypto/hashing.ts';
import { createSignatures } from '../../../node/crypto/signatures.ts';
import { FileKeystore } from '../../../node/keystore/files.ts';
import { startNode } from '../../../node/service.ts';
import { runtimeCode } from '../../../node/wasm-builder/cache.ts';
import { entropyOf, phraseOf } from '../../../rpc/client/mnemonic.ts';
import { fromHex, toHex } from '../../../runtime/primitives/bytes.ts';
import { decode } from '../../../runtime/primitives/scale/codec.ts';
import { isOwnershipProof, sessionKeys } from '../../../runtime/primitives/session-keys.ts';
import { asAccountId } from '../../../runtime/primitives/types.ts';
import { until } from '../../support/until.ts';

/** What a command line writes; without processes of their own, whose start is slow. */
async function openledger(...args: string[]): Promise<string> {
  const program = new Command('openledger').exitOverride();
  keysCommands(program);
  chainSpecCommands(program);
  const written = t.capture(process.stdout, 'write', () => true);
  try {
    await program.parseAsync(args, { from: 'user' });
  } finally {
    written.restore();
  }
  return written
    .args()
    .map(([text]) => text)
    .join('');
}

async function directory(test: { teardown(after: () => unknown): void }): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'keys-'));
  test.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

t.test('mnemonics', (test) => {
  for (const length of [16, 20, 24, 28, 32]) {
    const entropy = Uint8Array.from({ length }, (_, i) => (i * 37 + length) & 255);
    const phrase = phraseOf(entropy);
    test.equal(mnemonicValidate(phrase), true, `${length} bytes, by another library`);
    test.same(entropyOf(phrase), entropy);
  }
  // BIP-39, test vectors.
  test.equal(phraseOf(new Uint8Array(16)), `${'abandon '.repeat(11)}about`);
  test.equal(phraseOf(new Uint8Array(32).fill(255)), `${'zoo '.repeat(23)}vote`);
  test.end();
});

t.test('keys', { timeout: 60_000 }, async (test) => {
  await cryptoWaitReady();
  const home = await directory(test);
  for (const scheme of ['sr25519', 'ed25519', 'ecdsa'] as const) {
    const made = JSON.parse(await openledger('keys', 'generate', '--scheme', scheme, '--words', '24', '--json'));
    const pair = new Keyring({ type: scheme, ss58Format: 42 }).addFromUri(made.phrase);
    test.equal(made.phrase.split(' ').length, 24);
    test.equal(made.address, pair.address, `${scheme}: the address that wallets show`);
    test.equal(made.publicKey, toHex(pair.publicKey));
  }
  const alice = '5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY';
  test.match(await openledger('keys', 'inspect', '//Alice'), new RegExp(`SS58 address +${alice}`));
  const file = join(home, 'secret');
  await writeFile(file, '//Alice\n');
  test.match(
    await openledger('keys', 'inspect', file, '--ss58-format', '0'),
    /15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5/,
  );

  const password = join(home, 'password');
  await writeFile(password, 'correct horse\n');
  const where = ['--base-path', home, '--chain', 'dev', '--password-file', password];
  const key = (await openledger('keys', 'insert', ...where, '--key-type', 'gran', '--suri', file)).trim();
  const keys = join(home, 'chains', 'openledger_dev', 'keystore');
  const keystore = new FileKeystore({ directory: keys, password: 'correct horse', hashing: createHashing() });
  test.equal(keystore.has('gran', fromHex(key)), true, 'a node finds the key');
  keystore.close();
  test.equal((await stat(join(keys, `6772616e${key.slice(2)}`))).mode & 0o777, 0o600);
  await test.rejects(openledger('keys', 'insert', ...where, '--key-type', 'gran', '--suri', 'no such words'), {
    code: 'BAD_URI',
  });

  const owner = asAccountId(decodeAddress(alice));
  const made = JSON.parse(await openledger('keys', 'session', ...where, '--owner', alice, '--json'));
  const shown = await openledger('keys', 'session', ...where, '--owner', alice, '--keys', made.keys);
  const proof = /Proof +(0x[0-9a-f]{256})/.exec(shown)?.[1];
  const signatures = await createSignatures();
  const own = decode(sessionKeys, fromHex(made.keys));
  for (const each of [made.proof, proof]) {
    test.equal(isOwnershipProof(signatures, own, owner, fromHex(each)), true, 'the chain takes keys and proof');
    test.equal(isOwnershipProof(signatures, own, asAccountId(new Uint8Array(32)), fromHex(each)), false);
  }
  const opened = new FileKeystore({ directory: keys, password: 'correct horse', hashing: createHashing() });
  test.equal(opened.has('aura', own.aura) && opened.has('gran', own.grandpa), true, 'and a node works with them');
  opened.close();
  await test.rejects(openledger('keys', 'session', ...where, '--owner', alice, '--keys', `0x${'07'.repeat(64)}`), {
    code: 'MISMATCH',
  });

  const nodeKey = join(home, 'node-key');
  const peer = await openledger('keys', 'node-key', nodeKey);
  test.match(peer, /^12D3KooW\w{44}\n$/);
  test.equal(await openledger('keys', 'node-key', nodeKey), peer, 'the key is kept');
  test.equal((await stat(nodeKey)).mode & 0o777, 0o600);
});

t.test('chain specs', { timeout: 60_000 }, async (test) => {
  const home = await directory(test);
  const plain = join(home, 'plain.json');
  const raw = join(home, 'raw.json');
  const flags = ['--chain', 'dev', '--id', 'mine', '--name', 'Mine', '--slot-duration', '500', '--output', plain];
  await openledger('chain-spec', 'build', ...flags);
  await openledger('chain-spec', 'raw', plain, '--output', raw);
  const [spec, rawSpec] = [parseChainSpec(await readFile(plain, 'utf8')), parseChainSpec(await readFile(raw, 'utf8'))];
  test.match(spec, { name: 'Mine', id: 'mine', genesis: { type: 'config' } });
  test.equal(rawSpec.genesis.type, 'raw');
  const code = await runtimeCode();
  const { hash, state } = await genesisOf(spec, code);
  test.same((await genesisOf(rawSpec, code)).hash, hash);
  test.match(
    await openledger('chain-spec', 'show', raw),
    new RegExp(`Genesis hash +${toHex(hash)}\nState root[^]*500 ms`),
  );

  const start = async (from: typeof spec) => {
    const stop = new AbortController();
    const node = await startNode(
      {
        name: 'raw',
        version: '0',
        spec: from,
        basePath: home,
        statePruning: 256,
        authority: '//Alice',
        rpc: { host: '127.0.0.1', port: 0, methods: 'auto' },
        log: () => {},
      },
      stop.signal,
    );
    const { blocks } = node.client;
    const close = async () => {
      stop.abort();
      await node.stopped;
    };
    test.teardown(close);
    const height = blocks.info().best.number;
    await until('two blocks more are final', () => blocks.info().finalized.number >= height + 2);
    test.equal(toHex(blocks.info().genesisHash), toHex(hash));
    for (const [key, value] of state) {
      const at = node.client.states.at(blocks.info().genesisHash);
      if (at !== undefined) test.equal(toHex(at.get(key)!), toHex(value));
    }
    await close();
  };
  await start(rawSpec);
  // The same chain by its configuration goes on with the same database.
  await start(spec);
  await test.rejects(start({ ...spec, genesis: presetSpec('local').genesis }), { code: 'OTHER_CHAIN' });
  await test.rejects(openledger('chain-spec', 'build', '--id', '../up'), { code: 'BAD_FIELD' });
  test.equal(chainSpecJson(rawSpec), await readFile(raw, 'utf8'));
});
