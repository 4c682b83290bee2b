/** What strangers may have of the JSON-RPC server: time, memory, places, and no more. Counts and bounds instead of durations. */
import { request as httpRequest } from 'node:http';
import { connect, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { WebSocket } from 'ws';
import { addressOf } from '../../rpc/server/access.ts';
import { type Arrival, Arriving } from '../../rpc/server/arriving.ts';
import { isWithin } from '../../rpc/server/json-bounds.ts';
import { RPC_LIMITS, type RpcLimits } from '../../rpc/server/limits.ts';
import { definitions, group } from '../../rpc/server/method.ts';
import { u32 } from '../../rpc/server/params.ts';
import { type RpcServerOptions, rpcServer } from '../../rpc/server/server.ts';
import { Shares } from '../../rpc/server/shares.ts';
import { Caller, Turns, Usage } from '../../rpc/server/turns.ts';
import { Unread } from '../../rpc/server/unread.ts';
import { type Doing, type Visitor, Visitors } from '../../rpc/server/visitors.ts';
import { standardGroups } from '../../rpc/standard-groups.ts';
import { until } from '../support/until.ts';
import { FakeChain, fakeContext } from './fake.ts';

const MIB = 1024 * 1024;
const { method } = definitions<{ begun: number }>();

async function serve(test: Test, options: Partial<RpcServerOptions> & { readonly limits?: Partial<RpcLimits> } = {}) {
  const context = fakeContext(new FakeChain());
  const counts = { begun: 0 };
  const own = [
    method('test_large', [u32('size')], (seen, [size]) => {
      seen.begun++;
      return 'x'.repeat(size);
    }),
  ];
  const stop = new AbortController();
  const groups = [...standardGroups(context), group(counts, own)];
  const server = rpcServer({ port: 0, groups, log: context.log, ...options });
  const address = await server.listen();
  const ended = server.run(stop.signal);
  test.teardown(async () => {
    stop.abort();
    await ended;
  });
  return { address, server, counts };
}

const call = (name: string, params: unknown = [], id: unknown = 1) => ({ jsonrpc: '2.0', id, method: name, params });

/** `body`: sent as it is. */
function post(url: string, body: string | Buffer, headers: Record<string, string> = {}) {
  return new Promise<{ readonly status: number; readonly body: string }>((resolve, reject) => {
    const sent = httpRequest(
      url,
      { method: 'POST', headers: { 'content-type': 'application/json', ...headers } },
      (response) => {
        let text = '';
        response.on('data', (chunk) => {
          text += chunk;
        });
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text }));
      },
    );
    sent.on('error', reject);
    sent.end(body);
  });
}

async function silent(test: Test, port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1').on('error', () => {});
  test.teardown(() => socket.destroy());
  await new Promise((resolve) => socket.once('connect', resolve));
  return socket;
}

async function open(test: Test, url: string): Promise<WebSocket> {
  const socket = new WebSocket(url, { perMessageDeflate: false });
  socket.on('error', () => {});
  test.teardown(() => socket.terminate());
  await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
  return socket;
}

t.test('turns: those who used least come first, in slices', async (test) => {
  let now = 0;
  const later: (() => void)[] = [];
  const turns = new Turns({ now: () => now, later: (run) => later.push(run) });
  const done: string[] = [];
  const [greedy, modest] = [new Caller(), new Caller()];
  const work = (name: string, ms: number) => () => {
    now += ms;
    done.push(name);
  };
  for (let i = 0; i < 100; i++) turns.run(greedy, work('greedy', 3));
  test.equal(done.length, 2, 'a slice ends after the call that fills it');
  turns.run(modest, work('modest', 0.1));
  test.equal(done.length, 2, 'and nothing more is done until the thread has had time for others');
  later.shift()!();
  test.equal(done[2], 'modest', 'the one who used less did not wait for the 98 before it');
  let slices = 1;
  for (; later.length > 0; slices++) later.shift()!();
  test.equal(done.length, 101, 'all come to an end');
  test.ok(slices >= 50, 'with others’ work in between');

  // Time that another thread spent counts as well, and is forgotten.
  const [far, near] = [new Caller(), new Caller()];
  turns.charge(far, 1_000);
  turns.run(greedy, work('greedy', 5));
  turns.run(far, work('far', 0.1));
  turns.run(near, work('near', 0.1));
  while (later.length > 0) later.shift()!();
  test.same(done.slice(-2), ['near', 'far']);
  const usage = new Usage();
  usage.add(100, 0);
  test.ok(usage.spent(20_000) < 1);

  // One address has one budget, however many connections it opens.
  const shared = new Usage();
  const many = Array.from({ length: 50 }, () => new Caller(shared));
  turns.run(greedy, work('filler', 5));
  for (const each of many) turns.run(each, work('many', 3));
  turns.run(near, work('near', 0.1));
  const from = done.length;
  while (later.length > 0) later.shift()!();
  test.ok(done.slice(from).indexOf('near') <= 2, 'fifty connections do not put another off');
  const gone = new Caller();
  turns.run(greedy, work('filler', 5));
  turns.run(gone, work('gone', 1));
  turns.leave(gone);
  while (later.length > 0) later.shift()!();
  test.notOk(done.includes('gone'));
});

t.test('JSON that would be large once parsed is not parsed', async (test) => {
  const bounds = { depth: 4, values: 10 };
  const within = (text: string) => isWithin(Buffer.from(text), bounds);
  test.ok(within('[[[[1]]]]'));
  test.notOk(within('[[[[[1]]]]]'));
  test.ok(within('{"a":[1,2,3],"b":"[[[[[[[[,,,,,,,,,,,,,"}'), 'what is in strings does not count');
  test.ok(within('["\\"[[[[[[","\\\\",1]'), 'nor after an escaped quote');
  test.notOk(within(`[${'1,'.repeat(20)}1]`));
  test.notOk(within('["\\\\",[[[[[1]]]]]]'), 'an escaped backslash ends no string');

  const { address, counts } = await serve(test);
  const codeOf = async (text: string) => JSON.parse((await post(address.http, text)).body).error?.code;
  test.equal(await codeOf('['.repeat(7 * MIB) + ']'.repeat(7 * MIB)), -32600, 'fourteen megabytes of brackets');
  test.equal(await codeOf(`[${'[],'.repeat(4 * MIB)}[]]`), -32600);
  test.equal(await codeOf(`{"jsonrpc":"2.0","id":1,"method":"test_large","params":[${'{},'.repeat(MIB)}{}]}`), -32600);
  test.equal(counts.begun, 0);
  const keys = Array.from({ length: 16_384 }, (_, i) => `0x${i.toString(16).padStart(8, '0')}`);
  const many = JSON.parse((await post(address.http, JSON.stringify(call('state_queryStorageAt', [keys])))).body);
  test.equal(many.result[0].changes.length, 16_384, 'what the methods allow is allowed');

  for (const id of ['1e999', '-1e999', `"${'i'.repeat(2_000)}"`, '{}', '[]', 'true']) {
    const { body } = await post(address.http, `{"jsonrpc":"2.0","id":${id},"method":"system_name"}`);
    test.same(JSON.parse(body), { jsonrpc: '2.0', id: null, error: { code: -32600, message: 'Invalid request' } }, id);
  }
});

t.test(
  'answers: no call is begun for one who does not read, and all together stay within their bound',
  async (test) => {
    const limits = { unread: 32 * MIB, response: 12 * MIB };
    const { address, counts } = await serve(test, { limits });
    const size = 5 * MIB;
    // A batch ends with the first answer that is too much, not with its last call.
    const batch = JSON.stringify(Array.from({ length: 1_000 }, (_, id) => call('test_large', [size], id)));
    const refused = JSON.parse((await post(address.http, batch)).body);
    test.equal(refused.error.code, -32008);
    test.ok(counts.begun <= 3, `${counts.begun} of 1,000 were begun`);

    // One WebSocket that asks and does not read.
    counts.begun = 0;
    const greedy = await open(test, address.ws);
    greedy.pause();
    for (let id = 0; id < 500; id++) greedy.send(JSON.stringify(call('test_large', [256 * 1024], id)));
    await until('some are answered', () => counts.begun > 4);
    await new Promise((resolve) => setTimeout(resolve, 300));
    test.ok(counts.begun < 100, `${counts.begun} of 500 were begun, what the sockets hold`);
    let heard = 0;
    greedy.on('message', () => heard++);
    greedy.resume();
    await until('the rest is answered as it reads', () => heard === 500);

    // Requests behind each other on one HTTP connection: the second waits until the first has been read.
    counts.begun = 0;
    const piped = await silent(test, address.port);
    piped.pause();
    const body = JSON.stringify(call('test_large', [1.5 * MIB]));
    const one = `POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
    piped.write(one.repeat(20));
    await until('one is begun', () => counts.begun > 0);
    await new Promise((resolve) => setTimeout(resolve, 300));
    // Sockets of the loopback take some megabytes.
    test.ok(counts.begun <= 10, `${counts.begun} of 20 were begun`);
    piped.destroy();
    const endless = await silent(test, address.port);
    const cut = new Promise<void>((resolve) => endless.once('close', () => resolve()));
    endless.pause();
    endless.write(one.repeat(20));
    endless.write(
      'POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}'.repeat(200),
    );
    await until('many requests behind each other end the connection', () => {
      endless.resume();
      return endless.destroyed;
    });
    await cut;

    // Pings are answered by themselves: who does not read the answers is not read any more, and a flood of them ends it.
    const pinging = await open(test, address.ws);
    const flooded = new Promise<void>((resolve) => pinging.once('close', () => resolve()));
    for (let i = 0; i < 3_000; i++) pinging.ping(Buffer.alloc(100));
    await flooded;

    const name = JSON.parse((await post(address.http, JSON.stringify(call('system_name')))).body);
    test.equal(name.result, 'Fake Node', 'others are served');

    // How much the system's own buffers take differs from machine to machine: so the bound over all connections by itself.
    const unread = new Unread({ hold: 50, cut: 100 });
    const gone: number[] = [];
    const readers = Array.from({ length: 20 }, (_, i) => ({
      unread: 0,
      cut() {
        gone.push(i);
        this.unread = 0;
      },
    }));
    for (const each of readers) unread.enter(each);
    const hand = (to: number, bytes: number): void => {
      readers[to]!.unread += bytes;
      unread.grew(bytes);
    };
    for (let i = 0; i < 10; i++) hand(i, 5);
    test.ok(unread.mayBegin(5), 'up to the first bound everybody goes on');
    hand(10, 5);
    test.notOk(unread.mayBegin(5), 'beyond it nobody who has something to read');
    test.ok(unread.mayBegin(0), 'but those who read');
    hand(11, 30);
    test.same(gone, []);
    hand(12, 20);
    test.same(gone, [11, 12, 0], 'beyond the second bound those with the most unread go, until it is below the first');
    test.equal(unread.total, 50);
    test.ok(unread.collect(20), 'parts of a batch count as well');
    test.equal(unread.total, 70);
    test.notOk(unread.collect(100), 'one that has no room is refused');
    unread.release(120);
    test.equal(
      unread.total,
      readers.reduce((sum, each) => sum + each.unread, 0),
    );
  },
);

t.test('requests that are on their way: room for all, and an end for those that stand still', async (test) => {
  let now = 0;
  const arriving = new Arriving({ free: 10, shared: 100, leastBytes: 5, windowMs: 1_000 }, () => now);
  const log: string[] = [];
  const enter = (name: string): Arrival =>
    arriving.enter({
      pause: () => log.push(`${name} waits`),
      resume: () => log.push(`${name} goes on`),
      cut: (why) => log.push(`${name} ${why}`),
    });
  const [large, second, small] = [enter('large'), enter('second'), enter('small')];
  large.grow(90);
  second.grow(60);
  test.same(log, ['second waits'], 'the room is full');
  small.grow(10);
  test.equal(log.length, 1, 'small ones always have room');
  small.whole();
  small.release(10);
  large.whole();
  large.release(90);
  test.same(log.splice(0), ['second waits', 'second goes on']);
  test.equal(arriving.used, 50);
  now = 999;
  arriving.look();
  now = 1_100;
  second.grow(6);
  arriving.look();
  test.same(log.splice(0), [], 'it goes on');
  now = 2_200;
  arriving.look();
  test.same(log.splice(0), ['second stalled'], 'and then it does not');
  test.equal(arriving.used, 0);
  const [slow, quick] = [enter('slow'), enter('quick')];
  now = 10_000;
  slow.grow(80);
  for (; now < 16_000; now += 500) slow.grow(1);
  quick.grow(90);
  test.same(log.splice(0), ['slow crowded'], 'where room is short, the slowest goes');
  // What is complete waits for its answer, not for more bytes; a control frame is no message.
  quick.whole();
  now = 60_000;
  arriving.look();
  quick.grow(8);
  quick.ignore(8);
  now = 120_000;
  arriving.look();
  test.same(log, []);

  const { address } = await serve(test, { limits: { stallMs: 400 } });
  const text = JSON.stringify(call('system_name', { filler: 'f'.repeat(300_000) }));
  const steady = await silent(test, address.port);
  let told = '';
  steady.on('data', (chunk) => {
    told += chunk;
  });
  steady.write(
    `POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${text.length}\r\n\r\n`,
  );
  const stuck = await silent(test, address.port);
  const ended = new Promise<void>((resolve) => stuck.once('close', () => resolve()));
  stuck.write('POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{');
  const webSocket = await open(test, address.ws);
  const closed = new Promise<void>((resolve) => webSocket.once('close', () => resolve()));
  // The first fragment of a message whose rest never comes.
  webSocket.send('{"jsonrpc"', { fin: false });
  // Longer than a request may stand still, in even parts.
  for (let at = 0; at < text.length; at += 12_000) {
    steady.write(text.slice(at, at + 12_000));
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
  await until('a slow request that goes on is answered', () => told.includes('Fake Node'));
  await Promise.all([ended, closed]);
  test.pass('those that stood still are gone');
});

t.test('places: silence makes room, one address has a part, those on this machine get in', async (test) => {
  let now = 0;
  const visitors = new Visitors({ connections: 8, perAddress: 3, foreign: 6 }, () => now);
  const ended: string[] = [];
  const come = (name: string, address: string | undefined, doing: Doing, engaged = false): boolean => {
    const visitor: Visitor = { address, doing, engaged, since: now, end: () => ended.push(name) };
    return visitors.admit(visitor);
  };
  for (const each of ['a1', 'a2', 'a3']) test.ok(come(each, '10.0.0.1', 'busy'));
  test.notOk(come('a4', '10.0.0.1', 'silent'), 'an address has its part');
  for (const each of ['b1', 'b2', 'b3']) test.ok(come(each, '10.0.0.2', 'open', true));
  test.notOk(come('c1', '10.0.0.3', 'silent'), 'foreign ones have theirs');
  test.ok(come('here', undefined, 'silent'), 'the rest is for this machine');
  now += 500;
  test.ok(come('new', undefined, 'silent'));
  now += 600;
  test.ok(come('newer', undefined, 'silent'));
  test.same(ended, ['here'], 'the oldest silent one goes; what is at work stays');
  test.equal(addressOf('127.0.0.1'), undefined);
  test.equal(addressOf('::ffff:10.1.2.3'), '10.1.2.3');
  test.equal(addressOf('2001:db8:1:2::9'), addressOf('2001:db8:1:2:ffff::1'), 'a network of IPv6 is one address');
  test.not(addressOf('2001:db8:1:2::9'), addressOf('2001:db8:1:3::9'));
  const forwarded = (list: string) => addressOf('127.0.0.1', { 'x-forwarded-for': list });
  test.equal(forwarded('evil, 10.9.9.9'), forwarded('10.9.9.9'), 'the proxy’s own entry counts');
  test.not(forwarded('10.9.9.9'), undefined, 'what a proxy brings is not from here');

  const { address } = await serve(test, { limits: { connections: 6 } });
  for (let i = 0; i < 12; i++) {
    await silent(test, address.port);
    if (i === 5) await new Promise((resolve) => setTimeout(resolve, 1_100));
  }
  await new Promise((resolve) => setTimeout(resolve, 1_100));
  const { status } = await post(address.http, JSON.stringify(call('system_name')));
  test.equal(status, 200, 'a dozen silent connections do not keep anybody out of six places');

  const shares = new Shares({ sure: 2, most: 5, shared: 4 });
  const [a, b, c] = [shares.enter(), shares.enter(), shares.enter()];
  test.ok(a.take(5));
  test.notOk(a.take(1), 'more than one may have');
  test.ok(b.take(3));
  test.notOk(b.take(1), 'all that is shared is taken');
  test.ok(c.take(2), 'what is sure is there');
  a.end();
  test.ok(b.take(2));
});

t.test('subscriptions: keys by their bytes, and in all', async (test) => {
  const { address, server } = await serve(test, { limits: { subscriptions: 64 } });
  const socket = await open(test, address.ws);
  const told: { id?: number; result?: unknown; error?: { code: number } }[] = [];
  socket.on('message', (data) => told.push(JSON.parse(String(data))));
  const keys = Array.from({ length: 8_192 }, (_, i) => `0x${i.toString(16).padStart(128, '0')}`);
  for (let id = 1; id <= 16; id++) socket.send(JSON.stringify(call('state_subscribeStorage', [keys], id)));
  const answers = () => told.filter(({ id }) => id !== undefined);
  await until('all are answered', () => answers().length === 16);
  const taken = answers().filter(({ error }) => error === undefined).length;
  test.equal(taken, 2, 'of 8,192 long keys each');
  test.ok(answers().every(({ error }) => error === undefined || error.code === -32006));
  test.equal(server.stats().subscriptions, taken);
  socket.terminate();
  await until('they are gone', () => server.stats().subscriptions === 0);
  const again = await open(test, address.ws);
  const answer = new Promise<{ result?: unknown }>((resolve) =>
    again.on('message', (data) => {
      const message = JSON.parse(String(data));
      if (message.id === 9) resolve(message);
    }),
  );
  again.send(JSON.stringify(call('state_subscribeStorage', [keys], 9)));
  test.type((await answer).result, 'string', 'and their room is free again');
});

t.test('unsafe methods: not through a proxy, not for pages of others', async (test) => {
  const unsafe = JSON.stringify(call('author_rotateKeys'));
  const codeOf = async (url: string, headers: Record<string, string> = {}) =>
    JSON.parse((await post(url, unsafe, headers)).body).error?.code;
  const local = (await serve(test)).address.http;
  test.equal(await codeOf(local), undefined);
  for (const name of ['x-forwarded-for', 'forwarded', 'x-real-ip', 'via', 'cf-connecting-ip', 'x-forwarded-host']) {
    test.equal(await codeOf(local, { [name]: '127.0.0.1' }), -32601, name);
  }
  const all = (await serve(test, { cors: 'all' })).address.http;
  test.equal(await codeOf(all), undefined, 'programs of this machine');
  test.equal(await codeOf(all, { origin: 'http://localhost:3000' }), undefined);
  test.equal(await codeOf(all, { origin: 'https://evil.example' }), -32601);
  test.equal(await codeOf(all, { origin: 'null' }), -32601);
  test.equal(await codeOf(all, { host: 'rebound.example' }), -32601, 'a name that was made to point here');
  const guests = (await serve(test, { guests: ['https://wallet.example'] })).address.http;
  test.equal(await codeOf(guests, { origin: 'https://wallet.example' }), -32601);
  const name = await post(guests, JSON.stringify(call('system_name')), { origin: 'https://wallet.example' });
  test.equal(name.status, 200, 'a wallet may ask what is safe');
  test.equal((await post(guests, unsafe, { origin: 'http://localhost' })).status, 200, 'a page without a port');
  const forced = (await serve(test, { methods: 'unsafe' })).address.http;
  test.equal(await codeOf(forced, { 'x-forwarded-for': '10.0.0.1' }), -32601);
  test.equal(
    await codeOf((await serve(test, { methods: 'unsafe', unsafeExternal: true })).address.http, { via: 'x' }),
    undefined,
  );
});

t.test('the limits that ship', (test) => {
  // What all callers together can make the node hold, beside the reading threads.
  test.ok(RPC_LIMITS.unread + RPC_LIMITS.response + RPC_LIMITS.arriving + RPC_LIMITS.request <= 128 * MIB);
  test.ok(RPC_LIMITS.buffered < RPC_LIMITS.unread);
  test.end();
});
