/** A node as it was before the new JSON-RPC specification: passes everything on but the methods of that. */
import { WebSocket, WebSocketServer } from 'ws';

const MODERN = /^(chainHead|chainSpec|transaction|transactionWatch|archive)_v1/;

/** Where it listens, and how to end it. */
export async function legacyProxy(url) {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await new Promise((resolve) => server.once('listening', resolve));
  server.on('connection', (client) => {
    const node = new WebSocket(url);
    const waiting = [];
    const lists = new Set();
    node.on('open', () => {
      for (const each of waiting) node.send(each);
      waiting.length = 0;
    });
    client.on('message', (data) => {
      const text = data.toString();
      const message = JSON.parse(text);
      if (MODERN.test(message.method ?? '')) {
        client.send(
          JSON.stringify({ jsonrpc: '2.0', id: message.id, error: { code: -32601, message: 'Method not found' } }),
        );
        return;
      }
      if (message.method === 'rpc_methods') lists.add(message.id);
      if (node.readyState === WebSocket.OPEN) node.send(text);
      else waiting.push(text);
    });
    node.on('message', (data) => {
      const text = data.toString();
      const message = JSON.parse(text);
      if (!lists.delete(message.id)) return client.send(text);
      const methods = message.result.methods.filter((name) => !MODERN.test(name));
      client.send(JSON.stringify({ ...message, result: { ...message.result, methods } }));
    });
    client.on('close', () => node.close());
    node.on('close', () => client.close());
    node.on('error', () => client.close());
  });
  return {
    url: `ws://127.0.0.1:${server.address().port}`,
    close: () => {
      for (const client of server.clients) client.terminate();
      server.close();
    },
  };
}
