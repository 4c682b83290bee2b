/** `openledger node`: what its flags and its configuration file come to, keys that outlive it, and how it says that it cannot start. */
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import t from 'tap';
import { presetSpec } from '../../../node/chain-spec/built-in.ts';
import { chainSpecJson } from '../../../node/chain-spec/chain-spec.ts';
import { applyConfigFile } from '../../../node/cli/config-file.ts';
import { type NodeFlags, nodeOptions, withNodeFlags } from '../../../node/cli/node-flags.ts';
import { COLUMN, Database } from '../../../node/database/database.ts';
import { derive } from '../../../node/keystore/secret-uri.ts';
import { startNode } from '../../../node/service.ts';
import { toHex } from '../../../runtime/primitives/bytes.ts';
import { startNodeProcess } from '../../bench/support/node-process.ts';
import { RpcClient } from '../../bench/support/rpc-client.ts';

const PEER = '/ip4/127.0.0.1/tcp/30333/p2p/12D3KooWQYV9dGMFoRzNStwpXztXaBUjtPqi6aU76ZgUriHhKust';

function parse(args: readonly string[], config?: string): NodeFlags {
  const command = withNodeFlags(new Command('node'))
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  command.parse([...args], { from: 'user' });
  if (config !== undefined) applyConfigFile(command, config);
  return command.opts<NodeFlags>();
}

async function directory(test: { teardown(after: () => unknown): void }): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'cli-'));
  test.teardown(() => rm(path, { recursive: true, force: true }));
  return path;
}

t.test('flags', (test) => {
  const plain = nodeOptions(parse(['--chain', 'local', '--base-path', '/data']));
  test.equal(plain.basePath, '/data');
  test.equal(plain.validator, false);
  test.equal(plain.authority, undefined);
  test.same(plain.network?.listen, ['/ip4/0.0.0.0/tcp/30333']);
  test.equal(plain.network?.mdns, true);

  const full = nodeOptions(
    parse(
      [
        '--chain',
        'local',
        '--bob',
        '--port',
        '0',
        '--no-mdns',
        '--no-prometheus',
        '--max-peers',
        '7',
        '--blocks-pruning',
        '100',
      ]
        .concat(['--bootnodes', PEER, PEER, '--reserved-nodes', PEER, '--public-addr', '/dns4/a.example/tcp/1'])
        .concat(['--rpc-cors', 'https://a.example, https://b.example', '--rpc-max-connections', '9', '--tmp']),
    ),
  );
  test.match(full, { name: 'Bob', validator: true, authority: '//Bob', basePath: undefined, blocksPruning: 100 });
  test.match(full.rpc, { host: '127.0.0.1', cors: ['https://a.example', 'https://b.example'], maxConnections: 9 });
  test.match(full.network, { listen: ['/ip4/0.0.0.0/tcp/0'], bootNodes: [PEER, PEER], reserved: [PEER] });
  test.match(full.network, { publicAddresses: ['/dns4/a.example/tcp/1'], maxPeers: 7, mdns: false });

  const dev = nodeOptions(parse(['--dev']));
  test.match(dev, { authority: '//Alice', validator: true, basePath: undefined, network: undefined });
  test.equal(nodeOptions(parse(['--dev', '--port', '0'])).network?.listen.length, 1, 'told to listen, it does');
  const home = nodeOptions(parse(['--chain', 'dev', '--validator'])).basePath;
  test.match(home, /openledger$/, 'a node keeps its data');

  for (const wrong of [['--port', '70000'], ['--bootnodes', '/ip4/1.2.3.4'], ['--max-peers', '0'], ['--nonsense']]) {
    test.throws(() => parse(wrong), { code: /^commander\./ }, wrong.join(' '));
  }
  test.throws(() => nodeOptions(parse(['--chain', 'nowhere'])), { code: 'UNKNOWN_CHAIN' });
  test.throws(() => nodeOptions(parse(['--password-file', '/nowhere/at/all'])), { code: 'IO' });
  test.end();
});

t.test('a configuration file', async (test) => {
  const file = join(await directory(test), 'config.json');
  const write = (value: unknown) => writeFile(file, typeof value === 'string' ? value : JSON.stringify(value));
  await write({ chain: 'local', 'rpc-port': 9950, validator: true, mdns: false, bootnodes: [PEER], name: 'from file' });
  const { rpc, validator, network, name, spec } = nodeOptions(parse(['--name', 'from flag', '--tmp'], file));
  test.match({ rpc, validator, name }, { rpc: { port: 9950 }, validator: true, name: 'from flag' });
  test.equal(spec.id, 'openledger_local');
  test.match(network, { mdns: false, bootNodes: [PEER] });
  const guide = await readFile(new URL('../../../node/deploy/README.md', import.meta.url), 'utf8');
  await write(/```json\n(.*?)```/s.exec(guide)![1]!);
  test.match(parse([], file), { validator: true, mdns: false, name: 'my validator' }, 'that of the guide');
  const refused: readonly (readonly [unknown, string])[] = [
    [{ colour: 'red' }, 'UNKNOWN_OPTION'],
    [{ config: 'other.json' }, 'UNKNOWN_OPTION'],
    [{ 'rpc-port': 'many' }, 'BAD_VALUE'],
    [{ validator: 'yes' }, 'BAD_VALUE'],
    [{ bootnodes: PEER }, 'BAD_VALUE'],
    [{ 'rpc-methods': 'some' }, 'BAD_VALUE'],
    ['{', 'NOT_JSON'],
    ['[]', 'NOT_JSON'],
  ];
  for (const [value, code] of refused) {
    await write(value);
    test.throws(() => parse([], file), { code }, JSON.stringify(value));
  }
  test.throws(() => parse([], join(file, 'none')), { code: 'IO' });
});

/** A node of these flags, in this process. */
async function run(args: readonly string[]) {
  const stop = new AbortController();
  const lines: string[] = [];
  const log = (_level: string, message: string): number => lines.push(message);
  const alone = ['--rpc-port', '0', '--port', '0', '--no-mdns', '--no-prometheus'];
  const node = await startNode({ ...nodeOptions(parse([...args, ...alone])), log }, stop.signal);
  return {
    rpc: node.rpc,
    lines,
    stop: async () => {
      stop.abort();
      await node.stopped;
    },
  };
}

const NAME = 'a validator takes keys by RPC, authors with them, and has them after a restart';
t.test(NAME, { timeout: 60_000 }, async (test) => {
  const home = await directory(test);
  const spec = presetSpec('dev', { slotDurationMs: 500 });
  const chain = join(home, 'chain.json');
  const password = join(home, 'password');
  await writeFile(chain, chainSpecJson(spec));
  await writeFile(password, 'correct horse\n');
  const args = ['--chain', chain, '--base-path', home, '--validator', '--password-file', password];
  const blocks = async (client: RpcClient, atLeast: number): Promise<void> => {
    for (;;) {
      const { number } = await client.call<{ number: string }>('chain_getHeader');
      if (Number(number) >= atLeast) return;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  };
  const aura = toHex(derive('//Alice', 'sr25519').publicKey);
  const gran = toHex(derive('//Alice', 'ed25519').publicKey);

  const first = await run(args);
  test.teardown(first.stop);
  let client = await RpcClient.connect(first.rpc.ws);
  test.equal(await client.call('author_hasKey', aura, 'aura'), false);
  const health = await (await fetch(`${first.rpc.http}/health`)).json();
  test.same(health, { peers: 0, isSyncing: false, shouldHavePeers: false });
  test.same(await client.call('system_nodeRoles'), ['Authority']);
  await test.rejects(client.call('author_insertKey', 'aura', '//Bob', aura), { code: 1040 }, 'a wrong secret');
  await client.call('author_insertKey', 'aura', '//Alice', aura);
  await client.call('author_insertKey', 'gran', '//Alice', gran);
  await blocks(client, 2);
  const rotated = await client.call<string>('author_rotateKeys');
  const keys = join(home, 'chains', spec.id, 'keystore');
  const names = (await readdir(keys)).filter((name) => /^[0-9a-f]+$/.test(name));
  test.equal(names.length, 5, 'two keys inserted, two made, and the watcher’s own');
  for (const name of names) test.equal((await stat(join(keys, name))).mode & 0o777, 0o600, 'only the owner reads it');
  test.notMatch(first.lines.join('\n'), /correct horse|Alice/, 'no secret in the log');
  client.close();
  await first.stop();

  const second = await run(args);
  test.teardown(second.stop);
  client = await RpcClient.connect(second.rpc.ws);
  test.equal(await client.call('author_hasKey', aura, 'aura'), true);
  test.equal(await client.call('author_hasSessionKeys', rotated), true);
  await blocks(client, 4);
  client.close();
  const before = performance.now();
  await second.stop();
  test.ok(performance.now() - before < 5_000, 'it stops when asked to');

  await writeFile(password, 'wrong horse\n');
  await test.rejects(run(args), { code: 'WRONG_PASSWORD' });
});

t.test('why it does not start', { timeout: 60_000 }, async (test) => {
  const home = await directory(test);
  const running = await run(['--chain', 'dev', '--alice', '--base-path', home]);
  test.teardown(running.stop);
  const plain = join(home, 'file');
  await writeFile(plain, '');
  await test.rejects(run(['--chain', 'dev', '--base-path', home]), { code: 'LOCKED' });
  await test.rejects(run(['--chain', 'dev', '--base-path', plain]), { code: 'NOT_WRITABLE' });
  const taken = ['node', '--dev', '--rpc-port', String(running.rpc.port)];
  const complaint = /ended with 1:\nopenledger: 127\.0\.0\.1:\d+ is in use by another program \(PORT_TAKEN\)\n$/;
  await test.rejects(startNodeProcess(taken), complaint, 'in one line, with a code');
  await running.stop();

  const other = join(home, 'other.json');
  await writeFile(other, chainSpecJson(presetSpec('dev', { slotDurationMs: 700 })));
  await test.rejects(run(['--chain', other, '--base-path', home]), { code: 'OTHER_CHAIN' });

  const database = await Database.open(join(home, 'chains', presetSpec('dev').id, 'db'));
  const batch = database.batch();
  batch.put(COLUMN.meta, Uint8Array.of(0), Uint8Array.of(200));
  await batch.commit({ sync: true });
  await database.close();
  await test.rejects(run(['--chain', 'dev', '--base-path', home]), { code: 'NEWER_VERSION' });
});
