/** `archive_v1` by the JSON-RPC interface specification. */
import t from 'tap';
import { toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import { type Entries, hashing } from './fake.ts';
import { type Caller, serveFake } from './fake-server.ts';

interface StorageEvent {
  readonly event: string;
  readonly [field: string]: unknown;
}
const UNKNOWN = `0x${'77'.repeat(32)}`;
const hex = (text: string) => toHex(utf8(text));
const entries = (of: Readonly<Record<string, string>>): Entries =>
  Object.entries(of).map(([key, value]) => [utf8(key), utf8(value)]);

/** All that a subscription says until it ends. */
async function all(caller: Caller, method: string, ...params: unknown[]): Promise<StorageEvent[]> {
  const heard = await caller.hear<StorageEvent>(method, ...params);
  const said: StorageEvent[] = [];
  while (!/Done$|Error$/.test(said.at(-1)?.event ?? '')) said.push(await heard.next());
  await caller.call('system_name');
  test0(heard.waiting);
  return said;
}
const test0 = (waiting: number): void => {
  if (waiting !== 0) throw new Error('something came after the end');
};

t.test('blocks by hash and height', async (test) => {
  const { chain, connect, http } = await serveFake(test);
  const caller = await connect();
  const a = chain.add({ body: [utf8('one'), new Uint8Array(64).fill(2)] });
  const fork = chain.add({ parent: chain.genesis.hash, best: false, salt: 1 });
  const b = chain.add({ parent: a });
  const call = <T = unknown>(method: string, ...params: unknown[]) => caller.call<T>(`archive_v1_${method}`, ...params);
  test.equal(await call('genesisHash'), toHex(chain.genesis.hash));
  test.equal(await call('finalizedHeight'), 0);
  test.same(await call('hashByHeight', 0), [toHex(chain.genesis.hash)]);
  test.same(await call('hashByHeight', 1), [toHex(a), toHex(fork)], 'forks too, above the final block');
  test.same(await call('hashByHeight', 99), []);
  test.equal(((await call('header', toHex(a))) as string).slice(0, 66), toHex(chain.genesis.hash));
  test.same(await call('body', toHex(a)), ['0x0c6f6e65', `0x0101${'02'.repeat(64)}`]);
  test.same(await call('body', toHex(b)), []);
  chain.finalize(b);
  test.equal(await call('finalizedHeight'), 2);
  test.same(await call('hashByHeight', 1), [toHex(a)], 'one of each final height');
  for (const method of ['header', 'body']) {
    test.equal(await call(method, toHex(fork)), null, 'abandoned');
    test.equal(await call(method, UNKNOWN), null);
    await test.rejects(call(method, '0x12'), { code: -32602 });
    await test.rejects(call(method), { code: -32602 });
  }
  for (const bad of [-1, 1.5, '1', null, 2 ** 40]) await test.rejects(call('hashByHeight', bad), { code: -32602 });

  test.same(await call('call', toHex(a), 'Echo_it', '0x0102'), { success: true, value: '0x0102' });
  test.same(await call('call', toHex(a), 'Echo_it', ''), { success: true, value: '0x' });
  for (const fn of ['Fail_now', 'No_such']) {
    test.match(await call('call', toHex(a), fn, '0x'), { success: false, error: /.+/ }, fn);
  }
  test.equal(await call('call', UNKNOWN, 'Echo_it', '0x'), null);
  await test.rejects(call('call', toHex(a), 'Echo_it', '0x1'), { code: -32602 });
  await test.rejects(call('call', toHex(a), 5, '0x'), { code: -32602 });
  const response = await fetch(http, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'archive_v1_finalizedHeight' }),
  });
  test.match(await response.json(), { result: 2 }, 'what asks for one answer goes over HTTP');
});

t.test('storage', async (test) => {
  const many = Object.fromEntries(Array.from({ length: 9_000 }, (_, i) => [`k${String(i).padStart(5, '0')}`, `${i}`]));
  const { chain, connect } = await serveFake(test, entries({ a: 'A', ab: 'AB', abc: 'ABC', b: 'B', ...many }));
  const caller = await connect();
  const name = toHex(chain.genesis.hash);
  const query = (items: unknown, ...more: unknown[]) => all(caller, 'archive_v1_storage', name, items, ...more);
  const value = (key: string, of: string) => ({ event: 'storage', key: hex(key), value: hex(of) });
  const hash = (key: string, of: string) => ({
    event: 'storage',
    key: hex(key),
    hash: toHex(hashing.blake2_256(utf8(of))),
  });
  const done = { event: 'storageDone' };
  test.same(
    await query([
      { key: hex('b'), type: 'value' },
      { key: hex('b'), type: 'hash' },
      { key: hex('zz'), type: 'value' },
      { key: hex('ab'), type: 'descendantsValues' },
      { key: hex('ab'), type: 'descendantsHashes' },
      { key: hex('ab'), type: 'closestDescendantMerkleValue' },
    ]),
    [
      value('b', 'B'),
      hash('b', 'B'),
      value('ab', 'AB'),
      value('abc', 'ABC'),
      hash('ab', 'AB'),
      hash('abc', 'ABC'),
      {
        event: 'storage',
        key: hex('ab'),
        closestDescendantMerkleValue: toHex(hashing.blake2_256(utf8('ab'))),
      },
      done,
    ],
  );
  test.same(await query([]), [done]);
  test.same(await query([{ key: hex('a'), type: 'value' }], hex('child')), [done], 'no child tries are here');
  test.same(
    await query([{ key: hex('a'), type: 'descendantsValues', paginationStartKey: hex('ab') }]),
    [value('abc', 'ABC'), done],
    'it goes on after that key',
  );
  test.same(await query([{ key: hex('a'), type: 'descendantsValues', paginationStartKey: hex('abc') }]), [done]);
  test.same(
    (await query([{ key: hex('k'), type: 'descendantsValues' }])).slice(0, -1).map(({ key }) => key),
    Object.keys(many).map(hex),
    'all of many, in order',
  );
  const pages: unknown[] = [];
  for (let from: unknown = hex('k'); ; from = pages.at(-1)) {
    const heard = await caller.hear<StorageEvent>('archive_v1_storage', name, [
      { key: hex('k'), type: 'descendantsHashes', paginationStartKey: from },
    ]);
    const page = await heard.take(Math.min(4_000, 9_000 - pages.length));
    test.equal(await caller.call('archive_v1_stopStorage', heard.id), null);
    pages.push(...page.map(({ key }) => key));
    if (pages.length === 9_000) break;
  }
  test.same(pages, Object.keys(many).map(hex), 'the same, stopped and gone on with');
  test.equal(await caller.call('archive_v1_stopStorage', 'nothing'), null, 'no effect where there is nothing');
  test.match(await all(caller, 'archive_v1_storage', UNKNOWN, []), [{ event: 'storageError', error: /.+/ }]);
  chain.discarded.add(name);
  test.match(await query([{ key: hex('a'), type: 'value' }]), [{ event: 'storageError', error: /discarded/ }]);
  chain.discarded.delete(name);
  for (const params of [
    ['0x12', []],
    [name],
    [name, [{ key: hex('a') }]],
    [name, [{ key: 'zz', type: 'value' }]],
    [name, [{ key: hex('a'), type: 'all' }]],
    [name, [{ key: hex('a'), type: 'value', paginationStartKey: hex('a') }]],
    [name, [{ key: hex('a'), type: 'hash', paginationStartKey: hex('a') }]],
    [name, [], 5],
  ]) {
    await test.rejects(caller.call('archive_v1_storage', ...params), { code: -32602 }, JSON.stringify(params));
  }
});

t.test('differences between states', async (test) => {
  const { chain, connect } = await serveFake(test, entries({ a: '1', ab: '2', b: '3', c: '4' }));
  const caller = await connect();
  const one = chain.add({ entries: entries({ a: '1', ab: 'two', b: '3', d: '5' }) });
  const two = chain.add({ entries: entries({ ab: 'two', b: '3', d: 'five' }) });
  const fork = chain.add({ parent: chain.genesis.hash, best: false, salt: 3 });
  const diff = (...params: unknown[]) => all(caller, 'archive_v1_storageDiff', ...params);
  const change = (type: string, key: string, value: string) => ({
    event: 'storageDiff',
    key: hex(key),
    value: hex(value),
    type,
  });
  const done = { event: 'storageDiffDone' };
  const first = [change('modified', 'ab', 'two'), change('deleted', 'c', '4'), change('added', 'd', '5')];
  test.same(await diff(toHex(one)), [...first, done], 'to the parent, of everything');
  test.same(await diff(toHex(one), []), [...first, done]);
  test.same(await diff(toHex(one), [{ returnType: 'value' }]), [...first, done], 'without a prefix');
  test.same(await diff(toHex(one), [{ key: hex('a'), returnType: 'value' }]), [first[0], done]);
  test.same(await diff(toHex(one), [{ key: hex('c'), returnType: 'hash' }]), [
    { event: 'storageDiff', key: hex('c'), hash: toHex(hashing.blake2_256(utf8('4'))), type: 'deleted' },
    done,
  ]);
  test.same(await diff(toHex(one), [{ returnType: 'value', childTrieKey: hex('child') }]), [done]);
  test.same(
    await diff(toHex(two), null, toHex(chain.genesis.hash)),
    [
      change('deleted', 'a', '1'),
      change('modified', 'ab', 'two'),
      change('deleted', 'c', '4'),
      change('added', 'd', 'five'),
      done,
    ],
    'to an ancestor further down',
  );
  test.same(await diff(toHex(two), [], toHex(two)), [done], 'to itself');
  test.match(await diff(toHex(two), [], toHex(fork)), [{ event: 'storageDiffError', error: /ancestor/ }]);
  test.match(await diff(toHex(one), [], toHex(two)), [{ event: 'storageDiffError', error: /ancestor/ }]);
  chain.finalize(one);
  test.same((await diff(toHex(two), [], toHex(chain.genesis.hash))).length, 5, 'across final blocks');
  test.match(await diff(UNKNOWN), [{ event: 'storageDiffError', error: /.+/ }]);
  test.match(await diff(toHex(two), [], UNKNOWN), [{ event: 'storageDiffError', error: /.+/ }]);
  for (const stop of ['archive_v1_stopStorageDiff', 'archive_v1_storageDiff_stopStorageDiff']) {
    test.equal(await caller.call(stop, 'nothing'), null, stop);
  }
  for (const params of [['0x12'], [toHex(one), [{}]], [toHex(one), [{ returnType: 'both' }]], [toHex(one), [], 5]]) {
    await test.rejects(caller.call('archive_v1_storageDiff', ...params), { code: -32602 }, JSON.stringify(params));
  }
});
