/** Ways to a node that come out at other addresses: all of 127.0.0.0/8 is this machine. */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

export interface Detour {
  /** On 127.0.0.1. */
  readonly port: number;
  close(): void;
}

/** To `port` of this machine, from `localAddress`. */
export async function detour(port: number, localAddress: string): Promise<Detour> {
  const open = new Set<Socket>();
  const server: Server = createServer((inbound) => {
    const outbound = connect({ host: '127.0.0.1', port, localAddress });
    for (const [from, to] of [
      [inbound, outbound],
      [outbound, inbound],
    ] as const) {
      open.add(from);
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => {
        open.delete(from);
        to.destroy();
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

/** The same multiaddress by another port. */
export const through = (address: string, { port }: Detour): string => address.replace(/\/tcp\/\d+/, `/tcp/${port}`);
export const portOf = (address: string): number => Number(/\/tcp\/(\d+)/.exec(address)![1]);
