/** A wire between a client and a node that can be cut, that counts what goes through it, and that can bend what comes back. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { WebSocket, WebSocketServer } from 'ws';

export class CutWire {
  readonly #server: WebSocketServer;
  readonly #open = new Set<WebSocket>();
  readonly #asked = new Map<string, number>();
  readonly url: string;

  private constructor(server: WebSocketServer, to: string, bend: (text: string) => string) {
    this.#server = server;
    this.url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('connection', (near) => {
      const far = new WebSocket(to);
      const waiting: string[] = [];
      this.#open.add(near);
      near.on('message', (data) => {
        const text = String(data);
        const { method } = JSON.parse(text) as { method: string };
        this.#asked.set(method, this.count(method) + 1);
        if (far.readyState === WebSocket.OPEN) far.send(text);
        else waiting.push(text);
      });
      far.on('open', () => {
        for (const text of waiting) far.send(text);
      });
      far.on('message', (data) => near.send(bend(String(data))));
      far.on('error', () => near.terminate());
      far.on('close', () => near.terminate());
      near.on('close', () => {
        this.#open.delete(near);
        far.close();
      });
    });
  }

  static async before(to: string, bend: (text: string) => string = (text) => text): Promise<CutWire> {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
    await once(server, 'listening');
    return new CutWire(server, to, bend);
  }

  /** How often a method was asked for. */
  count(method: string): number {
    return this.#asked.get(method) ?? 0;
  }

  /** Breaks every connection of now. New ones can be made. */
  cut(): void {
    for (const each of this.#open) each.terminate();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}
