/** The JSON-RPC server by itself: codes, batches, limits, who may come in. What is behind it is a chain in memory. */
import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import { connect, createServer } from 'node:net';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import { isLoopback } from '../../rpc/server/access.ts';
import { definitions, group } from '../../rpc/server/method.ts';
import { text } from '../../rpc/server/params.ts';
import { type RpcServerOptions, rpcServer } from '../../rpc/server/server.ts';
import { standardGroups } from '../../rpc/standard-groups.ts';
import { until } from '../support/until.ts';
import { FakeChain, fakeContext } from './fake.ts';

const { method, subscription } = definitions<null>();
/** Methods that misbehave, or talk much. */
const OWN = [
  method('test_fail', [], () => {
    throw new Error('a secret of the inside');
  }),
  method('test_later', [], async () => {
    await new Promise((resolve) => setTimeout(resolve, 20));
    return 'later';
  }),
  method('test_large', [], () => 'x'.repeat(100_000)),
  method('test_echo', [text('what')], (_, [what]) => what),
  subscription(
    'test_subscribe',
    { unsubscribe: 'test_unsubscribe', notification: 'test_event' },
    [],
    (_, _args, stream) => {
      const timer = setInterval(() => stream.notify('y'.repeat(50_000)), 1);
      return () => clearInterval(timer);
    },
  ),
];

async function serve(test: Test, options: Partial<RpcServerOptions> = {}) {
  const chain = new FakeChain();
  const context = fakeContext(chain);
  const stop = new AbortController();
  const server = rpcServer({
    port: 0,
    groups: [...standardGroups(context), group(null, OWN)],
    log: context.log,
    ...options,
  });
  const address = await server.listen();
  const ended = server.run(stop.signal);
  test.teardown(async () => {
    stop.abort();
    await ended;
  });
  return { chain, server, address, faults: context.faults, stop: () => stop.abort(), ended };
}

interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}
const http = (
  url: string,
  body: string | undefined,
  headers: Record<string, string> = { 'content-type': 'application/json' },
  verb = 'POST',
) =>
  new Promise<Answer>((resolve, reject) => {
    const sent = httpRequest(url, { method: verb, headers }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }));
    });
    sent.on('error', reject);
    sent.end(body);
  });

async function open(url: string, headers: Record<string, string> = {}) {
  const socket = new WebSocket(url, { headers, perMessageDeflate: false });
  const messages: string[] = [];
  const waiting: ((text: string) => void)[] = [];
  socket.on('message', (data) => {
    const next = waiting.shift();
    if (next === undefined) messages.push(data.toString());
    else next(data.toString());
  });
  socket.on('error', () => {});
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  const receive = () =>
    messages.length > 0
      ? Promise.resolve(messages.shift()!)
      : new Promise<string>((resolve, reject) => {
          const closed = () => reject(new Error('closed'));
          socket.once('close', closed);
          waiting.push((text) => {
            socket.off('close', closed);
            resolve(text);
          });
        });
  return {
    socket,
    receive,
    async ask(text: string) {
      socket.send(text);
      return JSON.parse(await receive());
    },
  };
}

const call = (name: string, params?: unknown, id: unknown = 1) =>
  JSON.stringify({ jsonrpc: '2.0', id, method: name, params });

t.test('JSON-RPC 2.0: answers, batches, notifications and the codes of what is wrong', async (test) => {
  const { address, faults } = await serve(test);
  const { socket, ask, receive } = await open(address.ws);
  test.same(await ask(call('test_echo', ['a'])), { jsonrpc: '2.0', id: 1, result: 'a' });
  test.same(await ask(call('test_echo', { what: 'b' }, 'x')), { jsonrpc: '2.0', id: 'x', result: 'b' }, 'by name');
  test.same(await ask(call('test_later', [], null)), { jsonrpc: '2.0', id: null, result: 'later' });

  const codeOf = async (text: string) => (await ask(text)).error?.code;
  const wrong: readonly (readonly [string, number, unknown])[] = [
    ['{', -32700, null],
    ['', -32700, null],
    ['{"jsonrpc":"2.0","id":1,"method":"a"', -32700, null],
    ['1', -32600, null],
    ['null', -32600, null],
    ['"system_name"', -32600, null],
    ['[]', -32600, null],
    [call('system_name').replace('2.0', '1.0'), -32600, 1],
    ['{"jsonrpc":"2.0","id":7}', -32600, 7],
    ['{"jsonrpc":"2.0","id":{},"method":"system_name"}', -32600, null],
    [call('no_such_method'), -32601, 1],
    [call('__proto__'), -32601, 1],
    [call('constructor'), -32601, 1],
    [call('test_echo', []), -32602, 1],
    [call('test_echo', ['a', 'b']), -32602, 1],
    [call('test_echo', [1]), -32602, 1],
    [call('test_echo', 'a'), -32602, 1],
    [call('chain_getBlockHash', ['x']), -32602, 1],
    [call('chain_getBlockHash', [-1]), -32602, 1],
    [call('chain_getHeader', ['0x12']), -32602, 1],
    [call('state_getStorage', ['zz']), -32602, 1],
    [call('state_getStorage', ['0x123']), -32602, 1],
    [call('system_accountNextIndex', ['5Nonsense']), -32602, 1],
    [call('author_submitExtrinsic', [5]), -32602, 1],
    [call('author_submitExtrinsic', ['0x1234']), 1001, 1],
    [call('test_fail'), -32603, 1],
  ];
  for (const [text, code, id] of wrong) {
    const { error, id: told, jsonrpc, result } = await ask(text);
    test.same(
      { code: error?.code, told, jsonrpc, result },
      { code, told: id, jsonrpc: '2.0', result: undefined },
      text,
    );
  }
  test.equal(faults.length, 1, 'what is the node’s fault is logged');
  test.notMatch(JSON.stringify(await ask(call('test_fail'))), /secret/, 'and not told');

  const batch = `[${call('test_echo', ['a'], 1)},${call('test_later', [], 2)},1,${call('no_such_method', [], 3)},{"jsonrpc":"2.0","method":"system_name"}]`;
  test.same(
    (await ask(batch)).map(({ id, result, error }: { id: number; result?: string; error: { code: number } }) => [
      id,
      result ?? error.code,
    ]),
    [
      [1, 'a'],
      [2, 'later'],
      [null, -32600],
      [3, -32601],
    ],
    'in order, without the notification',
  );
  socket.send('{"jsonrpc":"2.0","method":"system_name"}');
  socket.send('[{"jsonrpc":"2.0","method":"system_name"}]');
  test.equal((await ask(call('test_echo', ['still here']))).result, 'still here', 'notifications are not answered');
  test.equal(await codeOf(call('test_unsubscribe', [{}])), -32602);
  test.equal((await ask(call('test_unsubscribe', ['none']))).result, false);
  const listed = (await ask(call('rpc_methods'))).result.methods as string[];
  test.same(listed, [...new Set(listed)].sort(), 'every method once, in order');
  socket.close();
  await test.rejects(receive(), 'and it closes');

  const over = async (text: string) => JSON.parse((await http(address.http, text)).body);
  test.equal((await over(call('test_echo', ['h']))).result, 'h');
  test.equal((await over('{')).error.code, -32700);
  test.equal((await over(`[${call('test_echo', ['h'])}]`))[0].result, 'h');
  test.equal((await over(call('chain_subscribeNewHeads'))).error.code, -32601, 'no subscriptions over HTTP');
  test.equal((await http(address.http, '{"jsonrpc":"2.0","method":"system_name"}')).status, 204);
});

t.test('limits: a caller gets what it may have, and the others do not notice', async (test) => {
  const limits = {
    connections: 3,
    request: 2_000,
    response: 60_000,
    batch: 5,
    subscriptions: 2,
    pending: 8,
    buffered: 400_000,
  };
  const { address, server } = await serve(test, { limits });
  const first = await open(address.ws);
  const codeOf = async (text: string) => (await first.ask(text)).error?.code;
  test.equal(await codeOf(`[${Array.from({ length: 6 }, () => call('system_name')).join()}]`), -32010, 'batch length');
  test.equal((await first.ask(`[${Array.from({ length: 5 }, () => call('system_name')).join()}]`)).length, 5);
  test.equal(await codeOf(call('test_large')), -32008, 'size of an answer');
  const ids = [await first.ask(call('chain_subscribeNewHeads')), await first.ask(call('chain_subscribeAllHeads'))];
  test.ok(ids.every(({ result, method: name }) => typeof result === 'string' || name !== undefined));

  const second = await open(address.ws);
  for (let i = 0; i < 2; i++)
    test.type((await second.ask(call('state_subscribeStorage', [['0x00']]))).result ?? '', 'string');
  second.socket.send(call('grandpa_subscribeJustifications', [], 'third'));
  let refused: { readonly id?: string; readonly error?: { readonly code: number } } = {};
  while (refused.id !== 'third') refused = JSON.parse(await second.receive());
  test.equal(refused.error?.code, -32006, 'subscriptions');

  const ended = new Promise<number>((resolve) => second.socket.once('close', resolve));
  second.socket.send(call('test_echo', ['z'.repeat(3_000)]));
  test.equal(await ended, 1009, 'a message too long ends the connection');
  test.equal((await http(address.http, call('test_echo', ['z'.repeat(3_000)]))).status, 413);
  test.match((await http(address.http, call('test_echo', ['z'.repeat(3_000)]))).body, /-32007/);

  // One who asks and never reads.
  const slow = await open(address.ws);
  const cut = new Promise<void>((resolve) => slow.socket.once('close', () => resolve()));
  slow.socket.pause();
  slow.socket.send(call('test_subscribe'));
  const before = process.memoryUsage().rss;
  await until('a consumer that does not read is cut off', () => server.stats().connections === 1);
  test.ok(process.memoryUsage().rss - before < 100 * 2 ** 20);
  slow.socket.resume();
  await cut;
  first.socket.send(call('test_echo', ['here'], 'served'));
  let served: { id?: string; result?: string } = {};
  while (served.id !== 'served') served = JSON.parse(await first.receive());
  test.equal(served.result, 'here', 'the first one is still served');

  const many = await Promise.allSettled(Array.from({ length: 6 }, () => open(address.ws)));
  const accepted = many.filter(({ status }) => status === 'fulfilled').length;
  test.equal(accepted, 2, 'connections');
});

t.test('answers of the others come while one has many requests waiting', async (test) => {
  const { address } = await serve(test, { limits: { pending: 8 } });
  const busy = await open(address.ws);
  for (let i = 0; i < 200; i++) busy.socket.send(call('test_later', [], i));
  const other = await open(address.ws);
  test.equal((await other.ask(call('system_name'))).result, 'Fake Node');
  const seen = new Set<number>();
  while (seen.size < 200) seen.add(JSON.parse(await busy.receive()).id);
  test.pass('and all of the many are answered');
});

t.test('pages, host names and unsafe methods', async (test) => {
  const { address } = await serve(test);
  const json = { 'content-type': 'application/json' };
  const status = async (headers: Record<string, string>, verb = 'POST') =>
    (await http(address.http, call('system_name'), { ...json, ...headers }, verb)).status;
  test.equal(await status({ origin: 'http://localhost:3000' }), 200);
  test.equal(await status({ origin: 'https://evil.example' }), 403);
  test.equal(await status({ host: 'rebound.example' }), 403, 'a name that was made to point here');
  test.equal((await http(address.http, call('system_name'), {})).status, 415, 'a form of another page');
  const preflight = await http(
    address.http,
    undefined,
    { origin: 'http://127.0.0.1:80', 'access-control-request-headers': 'x-a' },
    'OPTIONS',
  );
  test.equal(preflight.status, 204);
  test.equal(preflight.headers['access-control-allow-origin'], 'http://127.0.0.1:80');
  test.equal(preflight.headers['access-control-allow-headers'], 'x-a');
  await test.rejects(open(address.ws, { origin: 'https://evil.example' }), /403/);
  await test.rejects(open(address.ws, { host: 'rebound.example' }), /403/);
  test.equal((await http(`${address.http}/elsewhere`, '{}')).status, 404);
  test.equal((await http(`${address.http}/health`, undefined, {}, 'GET')).status, 200);
  test.equal((await http(address.http, undefined, {}, 'GET')).status, 405);

  const shared = await serve(test, { cors: ['https://*.example'] });
  const answer = await http(shared.address.http, call('system_name'), { ...json, origin: 'https://app.example' });
  test.same(
    [answer.status, answer.headers['access-control-allow-origin'], answer.headers.vary],
    [200, 'https://app.example', 'origin'],
  );
  test.equal(
    (await http(shared.address.http, call('system_name'), { ...json, origin: 'https://app.example.evil' })).status,
    403,
  );
  const everyone = await serve(test, { cors: 'all' });
  test.equal(
    (await http(everyone.address.http, call('system_name'), { ...json, origin: 'https://x.y' })).headers[
      'access-control-allow-origin'
    ],
    '*',
  );

  const unsafe = [
    'author_rotateKeys',
    'author_hasKey',
    'author_removeExtrinsic',
    'state_getPairs',
    'system_peers',
    'system_addReservedPeer',
    'system_dryRun',
    'state_queryStorage',
  ];
  const refusals = async (url: string) => {
    const { ask, socket } = await open(url);
    const codes: number[] = [];
    for (const name of unsafe) codes.push((await ask(call(name, []))).error?.code);
    socket.terminate();
    return codes.filter((code) => code === -32601).length;
  };
  test.equal(await refusals(address.ws), 0, 'auto: on this machine all may be called');
  test.equal(await refusals((await serve(test, { methods: 'safe' })).address.ws), unsafe.length);
  const open4 = await serve(test, { host: '0.0.0.0' });
  test.equal(await refusals(`ws://127.0.0.1:${open4.address.port}`), unsafe.length, 'auto: on a public address none');
  test.throws(() => rpcServer({ port: 0, host: '0.0.0.0', methods: 'unsafe', groups: [], log: () => {} }), {
    code: 'UNSAFE_ON_PUBLIC_ADDRESS',
  });
  test.ok(['127.0.0.1', '127.8.8.8', '::1', '[::1]', '::ffff:127.0.0.1', 'localhost'].every(isLoopback));
  test.notOk(['0.0.0.0', '128.0.0.1', '::2', 'localhost.evil', '::ffff:8.8.8.8'].some(isLoopback));
});

t.test('starting, stopping, and callers that are no callers', async (test) => {
  const taken = createServer();
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const { port } = taken.address() as { port: number };
  const blocked = rpcServer({ port, groups: [], log: () => {} });
  await test.rejects(blocked.listen(), { code: 'PORT_TAKEN' });
  taken.close();
  await test.rejects(rpcServer({ port: 0, host: '203.0.113.7', groups: [], log: () => {} }).listen(), {
    code: 'ADDRESS_NOT_AVAILABLE',
  });

  const { address, server, stop, ended } = await serve(test);
  for (const bytes of [
    'GARBAGE\r\n\r\n',
    `POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\n{`,
    '\x00\x01\x02',
  ]) {
    const socket = connect(address.port, '127.0.0.1');
    socket.on('error', () => {}).resume();
    socket.write(bytes);
    socket.end();
    await new Promise((resolve) => socket.once('close', resolve));
  }
  const raw = await open(address.ws);
  const gone = new Promise((resolve) => raw.socket.once('close', resolve));
  (raw.socket as unknown as { _socket: { write(data: Uint8Array): void } })._socket.write(
    Uint8Array.of(0xff, 0xff, 0xff),
  );
  await gone;
  const caller = await open(address.ws);
  await caller.ask(call('chain_subscribeNewHeads'));
  test.equal((await caller.ask(call('system_name'))).method ?? 'chain_newHead', 'chain_newHead');
  test.equal(server.stats().connections, 1);
  const told = new Promise<number>((resolve) => caller.socket.once('close', resolve));
  stop();
  test.equal(await told, 1001, 'callers are told that it ends');
  await ended;
});

t.test('nobody there: no pong, no connection', async (test) => {
  const { address, server } = await serve(test, { pingMs: 50 });
  const awake = await open(address.ws);
  const asleep = new WebSocket(address.ws, { autoPong: false });
  await new Promise((resolve) => asleep.once('open', resolve));
  test.equal(server.stats().connections, 2);
  await new Promise((resolve) => asleep.once('close', resolve));
  test.equal((await awake.ask(call('system_name'))).result, 'Fake Node');
});
