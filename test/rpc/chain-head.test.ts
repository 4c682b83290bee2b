/** `chainHead_v1` by the JSON-RPC interface specification: every event, every error, every limit. */
import t from 'tap';
import { fromHex, toHex, utf8 } from '../../runtime/primitives/bytes.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { type Entries, hashing, VERSION } from './fake.ts';
import { type Caller, type Heard, serveFake } from './fake-server.ts';

interface FollowEvent {
  readonly event: string;
  readonly operationId?: string;
  readonly finalizedBlockHashes?: readonly string[];
  readonly items?: readonly Readonly<Record<string, string>>[];
  readonly prunedBlockHashes?: readonly string[];
  readonly output?: string;
  readonly [field: string]: unknown;
}
interface Started {
  readonly result: string;
  readonly operationId: string;
  readonly discardedItems?: number;
}

const UNKNOWN = `0x${'77'.repeat(32)}`;
const spec = {
  specName: VERSION.specName,
  implName: VERSION.implName,
  specVersion: VERSION.specVersion,
  implVersion: VERSION.implVersion,
  transactionVersion: VERSION.transactionVersion,
  apis: { '0xdf6acb689907609b': 5 },
};
const follow = (caller: Caller, withRuntime = true) => caller.hear<FollowEvent>('chainHead_v1_follow', withRuntime);
const settle = (caller: Caller) => caller.call('system_name');

/** Everything that an operation said until its end. */
async function operation(heard: Heard<FollowEvent>, started: Started): Promise<FollowEvent[]> {
  const said: FollowEvent[] = [];
  for (;;) {
    const event = await heard.next();
    if (event.operationId !== started.operationId) continue;
    said.push(event);
    if (/Done$|Inaccessible$|Error$|Continue$/.test(event.event)) return said;
  }
}

t.test('follow: what is there at the start, blocks, forks, finality', async (test) => {
  const { chain, connect } = await serveFake(test);
  const old = Array.from({ length: 20 }, () => chain.add());
  chain.finalize(old.at(-1)!);
  const a = chain.add();
  const fork = chain.add({ parent: old.at(-1)!, best: false, salt: 1 });
  const caller = await connect();
  const heard = await follow(caller);
  const first = await heard.next();
  const hashes = first.finalizedBlockHashes!;
  test.same(
    first,
    {
      event: 'initialized',
      finalizedBlockHashes: old.slice(-hashes.length).map(toHex),
      finalizedBlockRuntime: { type: 'valid', spec },
    },
    'the last of the final blocks, oldest first, and the runtime of the newest',
  );
  test.ok(hashes.length >= 2 && hashes.length <= 20);
  const newBlock = (hash: Hash, parent: Hash) => ({
    event: 'newBlock',
    blockHash: toHex(hash),
    parentBlockHash: toHex(parent),
    newRuntime: null,
  });
  const best = (hash: Hash) => ({ event: 'bestBlockChanged', bestBlockHash: toHex(hash) });
  const final = (finalized: readonly Hash[], pruned: readonly Hash[]) => ({
    event: 'finalized',
    finalizedBlockHashes: finalized.map(toHex),
    prunedBlockHashes: pruned.map(toHex),
  });
  test.same(await heard.take(3), [newBlock(a, old.at(-1)!), newBlock(fork, old.at(-1)!), best(a)]);

  const b = chain.add();
  const onFork = chain.add({ parent: fork, best: false });
  test.same(await heard.take(3), [newBlock(b, a), best(b), newBlock(onFork, fork)], 'a block of a fork is no best one');
  const c = chain.add({ parent: onFork });
  test.same(await heard.take(2), [newBlock(c, onFork), best(c)], 'a reorganisation');
  chain.finalize(fork);
  test.same(await heard.next(), final([fork], [a, b]), 'the losing fork is pruned');
  chain.finalize(c);
  test.same(await heard.next(), final([onFork, c], []), 'several at once, oldest first');

  // Finality that leaves the best block behind: the best one changes first.
  const left = chain.add();
  const right = chain.add({ parent: c, best: false, salt: 2 });
  test.same(await heard.take(3), [newBlock(left, c), best(left), newBlock(right, c)]);
  chain.finalize(right);
  test.same(await heard.take(2), [best(right), final([right], [left])]);

  const plain = await follow(caller, false);
  const begin = await plain.next();
  test.notOk('finalizedBlockRuntime' in begin, 'no runtimes unless they are asked for');
  test.same(await plain.next(), best(right), 'the best one may be the final one');
  const d = chain.add();
  test.notOk('newRuntime' in (await plain.next()));
  test.notSame(plain.id, heard.id);
  test.same((await heard.take(2))[0], newBlock(d, right), 'each follows for itself');

  test.equal(await caller.call('chainHead_v1_unfollow', plain.id), null);
  test.equal(await caller.call('chainHead_v1_unfollow', plain.id), null, 'again: no effect');
  test.equal(await caller.call('chainHead_v1_unfollow', 'nothing'), null);
  chain.add();
  await heard.take(2);
  test.equal(plain.waiting, 1, 'only the best block that was under way before the end');
});

t.test('follow: limits, gaps, and connections that end', async (test) => {
  const { chain, connect } = await serveFake(test);
  const caller = await connect();
  const many: Heard<FollowEvent>[] = [];
  for (;;) {
    try {
      many.push(await follow(caller));
    } catch (problem) {
      test.match(problem, { code: -32800 });
      break;
    }
  }
  test.ok(many.length >= 2 && many.length < 100, `${many.length} at once`);
  const other = await connect();
  const heard = await follow(other);
  test.equal((await heard.next()).event, 'initialized', 'the limit is one of a connection');
  await caller.call('chainHead_v1_unfollow', many[0]!.id);
  const again = await follow(caller);
  test.equal((await again.next()).event, 'initialized', 'what ended makes room');

  // A jump that nobody was told of (as warp sync makes one).
  await heard.next();
  const hidden = chain.listeners;
  const jumped = chain.leap();
  test.equal((await heard.next()).event, 'stop');
  await settle(other);
  test.ok(chain.listeners < hidden, 'nothing is left of it');
  chain.add();
  await settle(other);
  test.equal(heard.waiting, 0, 'and nothing follows');
  test.equal(await other.call('chainHead_v1_header', heard.id, toHex(jumped)), null);
  test.same(await other.call('chainHead_v1_body', heard.id, toHex(jumped)), { result: 'limitReached' });
  test.same(await other.call('chainHead_v1_call', heard.id, toHex(jumped), 'Echo_it', '0x'), {
    result: 'limitReached',
  });
  test.same(await other.call('chainHead_v1_storage', heard.id, toHex(jumped), [], null), { result: 'limitReached' });
  for (const [method, ...params] of [
    ['chainHead_v1_unpin', toHex(jumped)],
    ['chainHead_v1_continue', '0'],
    ['chainHead_v1_stopOperation', '0'],
  ] as const) {
    test.equal(await other.call(method, heard.id, ...params), null, `${method} of a stale subscription`);
  }
  const anew = await follow(other);
  const { finalizedBlockHashes } = await anew.next();
  test.equal(finalizedBlockHashes?.at(-1), toHex(jumped), 'it begins again where the chain is');

  // Reconnecting: the old subscription is nobody's.
  other.close();
  const third = await connect();
  test.equal(await third.call('chainHead_v1_header', anew.id, toHex(jumped)), null);
  const fresh = await follow(third);
  test.equal((await fresh.next()).finalizedBlockHashes?.at(-1), toHex(jumped));
  caller.close();
  third.close();
  await (await connect()).call('system_name');
  for (let tries = 0; chain.listeners > 0 && tries < 1_000; tries++) await new Promise(setImmediate);
  test.equal(chain.listeners, 0, 'connections take their subscriptions with them');
  test.equal(chain.held.size, 0, 'and their pins');
});

t.test('pinning', async (test) => {
  const { chain, connect } = await serveFake(test);
  const caller = await connect();
  const heard = await follow(caller);
  const second = await follow(caller);
  const a = chain.add({ body: [utf8('one'), utf8('two')] });
  const fork = chain.add({ parent: chain.genesis.hash, best: false, salt: 9, body: [utf8('lost')] });
  await heard.take(5);
  const header = (block: Hash, id = heard.id) => caller.call<string>('chainHead_v1_header', id, toHex(block));
  const unpin = (what: unknown, id = heard.id) => caller.call('chainHead_v1_unpin', id, what);
  test.equal((await header(a)).length, 2 + 2 * (32 + 1 + 32 + 32 + 4));
  await test.rejects(caller.call('chainHead_v1_header', heard.id, UNKNOWN), { code: -32801 });
  const unknownToIt = chain.add({ parent: chain.genesis.hash, best: false, salt: 10 });
  await heard.next();
  test.equal(await unpin(toHex(unknownToIt)), null, 'one by itself');
  await test.rejects(header(unknownToIt), { code: -32801 }, 'unpinned: as if it were not there');
  await test.rejects(unpin(toHex(unknownToIt)), { code: -32801 }, 'nor can it be unpinned again');
  test.type(await header(unknownToIt, second.id), 'string', 'the other subscription has its own pins');

  await test.rejects(unpin([toHex(a), UNKNOWN]), { code: -32801 });
  test.type(await header(a), 'string', 'one that is wrong: none is unpinned');
  await test.rejects(unpin([toHex(a), toHex(a)]), { code: -32804 });
  test.type(await header(a), 'string');
  await test.rejects(unpin('0x1234'), { code: -32602 });
  await test.rejects(unpin([5]), { code: -32602 });
  test.equal(await unpin([]), null);
  test.equal(await unpin([toHex(a), UNKNOWN], 'nothing'), null, 'no such subscription: no error');

  // What finality abandons stays as long as it is pinned, and no longer.
  chain.finalize(a);
  test.same((await heard.next()).prunedBlockHashes, [toHex(fork), toHex(unknownToIt)]);
  test.type(await header(fork), 'string');
  const body = await caller.call<Started>('chainHead_v1_body', heard.id, toHex(fork));
  test.match((await operation(heard, body))[0], { event: 'operationBodyDone', value: [/6c6f7374$/] });
  await unpin([toHex(fork), toHex(a)]);
  await test.rejects(header(fork), { code: -32801 });
  await unpin(toHex(fork), second.id);
  test.notOk(chain.held.has(toHex(fork)), 'nobody holds it');

  // An operation that has begun ends, though its block is unpinned meanwhile.
  const b = chain.add({ body: [utf8('three')] });
  await heard.take(2);
  const begun = caller.call<Started>('chainHead_v1_body', heard.id, toHex(b));
  const gone = unpin(toHex(b));
  test.match((await operation(heard, await begun))[0], { event: 'operationBodyDone', value: [/7468726565$/] });
  await gone;

  // Whoever never unpins is stopped in the end, whoever does is not.
  let stopped = false;
  for (let i = 0; i < 3_000 && !stopped; i++) {
    const block = chain.add();
    chain.finalize(block);
    await heard.take(3);
    await unpin(toHex(block));
    while (second.waiting > 0) stopped ||= (await second.next()).event === 'stop';
  }
  test.ok(stopped, 'too many final blocks pinned');
  test.type(await header(chain.genesis.hash), 'string', 'the other one lives on');
});

t.test('a pinned block whose state leaves the window, and one without a state', async (test) => {
  const { chain, connect } = await serveFake(test);
  const caller = await connect();
  const heard = await follow(caller);
  await heard.take(2);
  const a = chain.add();
  await heard.take(2);
  chain.discarded.add(toHex(a));
  const storage = await caller.call<Started>('chainHead_v1_storage', heard.id, toHex(a), [
    { key: '0x', type: 'value' },
  ]);
  test.equal((await operation(heard, storage))[0]?.event, 'operationInaccessible');
  chain.discarded.delete(toHex(a));
  chain.discarded.add(toHex(chain.genesis.hash));
  chain.finalize(a);
  test.same(
    (await heard.take(2)).map(({ event }) => event),
    ['finalized', 'stop'],
    'what is pinned can be read, or there is an end',
  );
  const again = await follow(caller);
  test.same((await again.next()).finalizedBlockHashes, [toHex(a)], 'only what has its state is pinned at the start');
});

t.test('operations: body and call', async (test) => {
  const { chain, connect } = await serveFake(test);
  const caller = await connect();
  const heard = await follow(caller);
  const plain = await follow(caller, false);
  const block = chain.add({ body: [new Uint8Array(70).fill(1), utf8('two')] });
  const name = toHex(block);
  const body = await caller.call<Started>('chainHead_v1_body', heard.id, name);
  test.match(body, { result: 'started', operationId: String });
  test.same(await operation(heard, body), [
    {
      event: 'operationBodyDone',
      operationId: body.operationId,
      value: [`0x1901${'01'.repeat(70)}`, '0x0c74776f'],
    },
  ]);
  const call = (fn: unknown, parameters: unknown, id = heard.id) =>
    caller.call<Started>('chainHead_v1_call', id, name, fn, parameters);
  test.same(await operation(heard, await call('Echo_it', '0x0102')).then(([each]) => each?.output), '0x0102');
  test.same(
    await operation(heard, await call('Echo_it', '')).then(([each]) => each?.output),
    '0x',
    'no parameters at all',
  );
  for (const fn of ['Fail_now', 'No_such']) {
    const [event] = await operation(heard, await call(fn, '0x'));
    test.match(event, { event: 'operationError', error: /.+/ }, fn);
  }
  await test.rejects(call('Echo_it', '0x', plain.id), { code: -32802 }, 'followed without runtimes');
  test.match(await caller.call('chainHead_v1_body', plain.id, name), { result: 'started' });
  for (const method of ['body', 'call', 'storage', 'header']) {
    const more = method === 'call' ? ['Echo_it', '0x'] : method === 'storage' ? [[]] : [];
    await test.rejects(caller.call(`chainHead_v1_${method}`, heard.id, UNKNOWN, ...more), { code: -32801 }, method);
    await test.rejects(caller.call(`chainHead_v1_${method}`, heard.id, '0x12', ...more), { code: -32602 }, method);
    await test.rejects(caller.call(`chainHead_v1_${method}`, heard.id), { code: -32602 }, method);
    await test.rejects(caller.call(`chainHead_v1_${method}`, 5, name, ...more), { code: -32602 }, method);
  }
  await test.rejects(call(5, '0x'), { code: -32602 });
  await test.rejects(call('Echo_it', '0x1'), { code: -32602 });
  await test.rejects(caller.call('chainHead_v1_follow', 'yes'), { code: -32602 });
  await test.rejects(caller.call('chainHead_v1_follow'), { code: -32602 });

  // Names of operations are of the subscription, and none is used twice.
  const ids = new Set<string>();
  for (let i = 0; i < 20; i++) ids.add((await call('Echo_it', '0x')).operationId);
  test.equal(ids.size, 20);
});

const KEY = (text: string) => toHex(utf8(text));
const ENTRIES: Entries = [
  [utf8('a'), utf8('value of a')],
  [utf8('ab'), utf8('value of ab')],
  [utf8('abc'), new Uint8Array(0)],
  [utf8('abd'), utf8('value of abd')],
  [utf8('b'), utf8('value of b')],
];

t.test('operations: storage', async (test) => {
  const { chain, connect } = await serveFake(test, ENTRIES);
  const caller = await connect();
  const heard = await follow(caller);
  const name = toHex(chain.genesis.hash);
  const query = (items: unknown, ...more: unknown[]) =>
    caller.call<Started>('chainHead_v1_storage', heard.id, name, items, ...more);
  const found = async (items: unknown, ...more: unknown[]) => {
    const started = await query(items, ...more);
    test.match(started, { result: 'started', operationId: String, discardedItems: 0 });
    const said = await operation(heard, started);
    test.equal(said.at(-1)?.event, 'operationStorageDone');
    return said.flatMap(({ items: some }) => some ?? []);
  };
  const value = (text: string) => ({ key: KEY(text), value: toHex(chain.genesis.state.get(utf8(text))!) });
  const hash = (text: string) => ({
    key: KEY(text),
    hash: toHex(hashing.blake2_256(chain.genesis.state.get(utf8(text))!)),
  });
  test.same(await found([{ key: KEY('a'), type: 'value' }]), [value('a')]);
  test.same(await found([{ key: KEY('abc'), type: 'value' }]), [{ key: KEY('abc'), value: '0x' }], 'an empty value');
  test.same(await found([{ key: KEY('zz'), type: 'value' }]), [], 'what is not there has no item');
  test.same(await found([]), []);
  test.same(await found([{ key: KEY('b'), type: 'hash' }]), [hash('b')]);
  test.same(
    await found([{ key: KEY('ab'), type: 'descendantsValues' }]),
    ['ab', 'abc', 'abd'].map(value),
    'the key itself and what is below',
  );
  test.same(await found([{ key: KEY('ab'), type: 'descendantsHashes' }]), ['ab', 'abc', 'abd'].map(hash));
  test.same(await found([{ key: '0x', type: 'descendantsHashes' }]), ['a', 'ab', 'abc', 'abd', 'b'].map(hash));
  test.same(await found([{ key: KEY('ac'), type: 'descendantsValues' }]), []);
  test.same(await found([{ key: KEY('ab'), type: 'closestDescendantMerkleValue' }]), [
    { key: KEY('ab'), closestDescendantMerkleValue: toHex(hashing.blake2_256(utf8('ab'))) },
  ]);
  test.same(
    await found([
      { key: KEY('b'), type: 'value' },
      { key: KEY('b'), type: 'hash' },
      { key: KEY('zz'), type: 'hash' },
      { key: KEY('a'), type: 'value' },
    ]),
    [value('b'), hash('b'), value('a')],
    'several at once',
  );
  test.same(await found([{ key: KEY('a'), type: 'value' }], null), [value('a')]);
  test.same(await found([{ key: KEY('a'), type: 'value' }], KEY('child')), [], 'no child tries are here');
  const bad: readonly (readonly [unknown, ...unknown[]])[] = [
    [5],
    [[5]],
    [[{ key: KEY('a') }]],
    [[{ type: 'value' }]],
    [[{ key: 'zz', type: 'value' }]],
    [[{ key: KEY('a'), type: 'everything' }]],
    [[{ key: KEY('a'), type: 'value', paginationStartKey: KEY('a') }]],
    [[], 5],
  ];
  for (const params of bad)
    await test.rejects(query(...(params as [unknown])), { code: -32602 }, JSON.stringify(params));
});

t.test('operations: at the pace of the caller, and not too many', async (test) => {
  const LARGE = 12_000;
  const entries: Entries = Array.from({ length: LARGE }, (_, i) => [
    utf8(`k${String(i).padStart(6, '0')}`),
    utf8(`${i}`),
  ]);
  const { chain, connect } = await serveFake(test, entries);
  const caller = await connect();
  const heard = await follow(caller);
  await heard.take(2);
  const name = toHex(chain.genesis.hash);
  const all = () =>
    caller.call<Started>('chainHead_v1_storage', heard.id, name, [{ key: KEY('k'), type: 'descendantsValues' }], null);
  const proceed = (id: string) => caller.call('chainHead_v1_continue', heard.id, id);
  const stop = (id: string) => caller.call('chainHead_v1_stopOperation', heard.id, id);
  const started = await all();
  let keys: string[] = [];
  let waits = 0;
  for (;;) {
    const said = await operation(heard, started);
    const parts = said.slice(0, -1);
    test.ok(parts.every(({ event }) => event === 'operationStorageItems'));
    keys = [...keys, ...parts.flatMap(({ items }) => items!.map(({ key }) => key!))];
    if (said.at(-1)?.event === 'operationStorageDone') break;
    test.ok(parts.length > 0, 'it waits only after it has told something');
    waits++;
    await settle(caller);
    test.equal(heard.waiting, 0, 'nothing comes until it is asked for');
    test.equal(await proceed(started.operationId), null);
  }
  test.ok(waits >= 2);
  test.same(
    keys,
    entries.map(([key]) => toHex(key)),
    'all of them, once and in order',
  );
  test.equal(await proceed(started.operationId), null, 'one that is over: no effect');
  test.equal(await proceed('12345'), null, 'nor for one that never was');

  // One that works, or waits for nobody, must not be continued.
  const slow = await all();
  await test.rejects(proceed(slow.operationId), { code: -32803 });
  await operation(heard, slow);
  const twice = [proceed(slow.operationId), proceed(slow.operationId)];
  test.same(
    (await Promise.allSettled(twice)).map(({ status }) => status),
    ['fulfilled', 'rejected'],
    'continued once, it waits no more',
  );
  await operation(heard, slow);
  test.equal(await stop(slow.operationId), null);
  test.equal(await proceed(slow.operationId), null, 'stopped, it is gone');
  await settle(caller);
  test.equal(heard.waiting, 0, 'and silent');
  test.equal(await stop(slow.operationId), null, 'stopping has no effect where there is nothing');
  test.equal(await caller.call('chainHead_v1_stopOperation', 'nothing', '0'), null);

  // Sixteen at the least run at once; then the limit is told, and what ends makes room.
  const running: string[] = [];
  for (;;) {
    const next = await all();
    if (next.result === 'limitReached') break;
    running.push(next.operationId);
    if (running.length > 1_000) break;
  }
  test.ok(running.length >= 16 && running.length < 1_000, `${running.length} at once`);
  test.same(await caller.call('chainHead_v1_body', heard.id, name), { result: 'limitReached' });
  const other = await follow(caller);
  test.match(await caller.call('chainHead_v1_body', other.id, name), { result: 'started' }, 'of one subscription');
  await stop(running[0]!);
  test.match(await caller.call('chainHead_v1_body', heard.id, name), { result: 'started' });
  test.equal(await caller.call('chainHead_v1_unfollow', heard.id), null);
  const after = await follow(caller);
  test.match(await caller.call('chainHead_v1_body', after.id, name), { result: 'started' }, 'all end with it');
});

t.test('not over HTTP, and chainSpec_v1', async (test) => {
  const { chain, connect, http } = await serveFake(test);
  const post = async (method: string, ...params: unknown[]) => {
    const response = await fetch(http, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ jsonrpc: '2.0', id: 1, method, params }),
    });
    return (await response.json()) as { result?: unknown; error?: { code: number } };
  };
  test.equal((await post('chainHead_v1_follow', true)).error?.code, -32601);
  const caller = await connect();
  test.equal(await caller.call('chainSpec_v1_chainName'), 'Fake');
  test.equal(await caller.call('chainSpec_v1_genesisHash'), toHex(chain.genesis.hash));
  test.same(await caller.call('chainSpec_v1_properties'), { ss58Format: 42, tokenDecimals: 18, tokenSymbol: 'OPEN' });
  await test.rejects(caller.call('chainSpec_v1_chainName', 1), { code: -32602 });
  test.equal((await post('chainSpec_v1_chainName')).result, 'Fake');
  const { methods } = await caller.call<{ methods: string[] }>('rpc_methods');
  test.ok(methods.includes('rpc_methods'));
  test.same(
    methods.filter((name) => /_unstable_/.test(name)),
    [],
    'one version of a group',
  );
  test.equal(fromHex(toHex(chain.genesis.hash)).length, 32);
});
