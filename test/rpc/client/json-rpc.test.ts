/** The connection itself: what is no node, what is lost with a connection, and what comes back with the next one. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import t, { type Test } from 'tap';
import { type WebSocket, WebSocketServer } from 'ws';
import { JsonRpcClient } from '../../../rpc/client/json-rpc.ts';
import { until } from '../../support/until.ts';

interface Asked {
  readonly id: number;
  readonly method: string;
  readonly params: readonly unknown[];
}

/** A server that answers as the test says; undefined: not at all. */
async function serve(test: Test, answer: (asked: Asked, socket: WebSocket) => unknown) {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  server.on('connection', (socket) => {
    socket.on('message', (data) => {
      const asked = JSON.parse(String(data)) as Asked;
      const result = answer(asked, socket);
      if (result !== undefined) socket.send(JSON.stringify({ jsonrpc: '2.0', id: asked.id, result }));
    });
  });
  const cut = (): void => {
    for (const each of server.clients) each.terminate();
  };
  test.teardown(() => {
    cut();
    server.close();
  });
  return { url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}`, cut };
}

t.test('whatever sends something else is no node', async (test) => {
  for (const junk of ['not JSON', 'null', '[]', '7', '{"params":null}', '{"id":1,"error":"no"}']) {
    const { url } = await serve(test, (_, socket) => {
      socket.send(junk);
      return undefined;
    });
    const rpc = await JsonRpcClient.connect(url);
    await test.rejects(rpc.call('system_chain'), { code: 'CONNECTION_LOST' }, junk);
    await rpc.closed;
  }
  await test.rejects(JsonRpcClient.connect('no address'), { code: 'NO_NODE' });
  await test.rejects(JsonRpcClient.connect('ws://127.0.0.1:1'), { code: 'NO_NODE' });
});

t.test('a connection that comes back', async (test) => {
  let subscriptions = 0;
  const { url, cut } = await serve(test, ({ method }, socket) => {
    if (method === 'silence') return undefined;
    if (method !== 'follow') return method;
    const id = `s${subscriptions++}`;
    // Before the answer: it must not be missed.
    socket.send(JSON.stringify({ method: 'told', params: { subscription: id, result: id } }));
    return id;
  });
  const rpc = await JsonRpcClient.connect(url, { reconnect: true });
  test.teardown(() => rpc.close());
  const heard: unknown[] = [];
  let lost = 0;
  await rpc.subscribe('follow', 'unfollow', [], (result) => heard.push(result));
  await rpc.subscribe('follow', 'unfollow', [], {
    listener: (result) => heard.push(result),
    lost: () => lost++,
  });
  const ended = await rpc.subscribe('follow', 'unfollow', [], (result) => heard.push(result));
  ended();
  test.same(heard, ['s0', 's1', 's2']);
  const unanswered = test.rejects(rpc.call('silence'), { code: 'CONNECTION_LOST' }, 'whether it was done is not known');
  cut();
  await unanswered;
  test.equal(await rpc.call('after'), 'after', 'a question waits for the next connection');
  await until('the subscription again', () => heard.length === 4);
  test.same(heard[3], 's3', 'one that nobody ended, and that does not end with its connection');
  test.equal(lost, 1);
  rpc.close();
  await rpc.closed;
  await test.rejects(rpc.call('more'), { code: 'CONNECTION_LOST' });
});
