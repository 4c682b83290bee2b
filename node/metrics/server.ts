/** Serves metrics by HTTP, for Prometheus to fetch. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';
import { listenError } from '../../rpc/server/server.ts';
import type { Service } from '../ports/chain.ts';

export interface MetricsAddress {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
}

export interface MetricsServer extends Service {
  /** Where the metrics are. */
  readonly url: string;
  close(): Promise<void>;
}

/** Listens at once. Rejects with an `RpcStartError`. */
export async function metricsServer(registry: Registry, { host, port }: MetricsAddress): Promise<MetricsServer> {
  const server = createServer((request, response) => {
    request.resume();
    if (request.url?.split('?', 1)[0] !== '/metrics' || (request.method !== 'GET' && request.method !== 'HEAD')) {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('the metrics are at /metrics\n');
      return;
    }
    registry.metrics().then(
      (text) => response.writeHead(200, { 'content-type': registry.contentType }).end(text),
      () => response.writeHead(500).end(),
    );
  });
  server.headersTimeout = 5_000;
  server.requestTimeout = 5_000;
  server.maxConnections = 32;
  await new Promise<void>((resolve, reject) => {
    server.once('error', (problem) => reject(listenError(problem, `${host}:${port}`)));
    server.listen(port, host, resolve);
  });
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });
  const bound = (server.address() as AddressInfo).port;
  return {
    name: 'prometheus',
    url: `http://${host}:${bound}/metrics`,
    close,
    async run(signal) {
      if (!signal.aborted) {
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      }
      await close();
    },
  };
}
