/** `/ipfs/ping/1.0.0`: what comes goes back. Streams stay open as long as the other side likes; some keep one for hours. */
import { type AbortOptions, type Libp2p, type PeerId, type Stream, serviceCapabilities } from '@libp2p/interface';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { NetworkError } from './errors.ts';

const PROTOCOL = '/ipfs/ping/1.0.0';

/** Bytes not taken back, beyond which it is no ping. */
const MAX_WAITING = 4_096;

export async function servePing(host: Pick<Libp2p, 'handle'>): Promise<void> {
  await host.handle(PROTOCOL, (stream) => echo(stream), {
    maxInboundStreams: 4,
    runOnLimitedConnection: true,
  });
}

function echo(stream: Stream): void {
  stream.addEventListener('message', ({ data }) => {
    if (stream.writeStatus !== 'writable') return;
    if (stream.writeBufferLength + data.byteLength > MAX_WAITING) stream.abort(new Error('more than a ping'));
    else stream.send(data);
  });
  stream.addEventListener('remoteCloseWrite', () => {
    stream.close().catch(() => stream.abort(new Error('it could not be closed')));
  });
}

interface PingPorts {
  readonly connectionManager: {
    openStream(peer: PeerId, protocol: string, options: AbortOptions): Promise<Stream>;
  };
}

/** By which Kademlia asks whether old contacts are still there. */
export class Pinger {
  readonly [serviceCapabilities] = ['@libp2p/ping'];
  readonly #ports: PingPorts;

  constructor(ports: PingPorts) {
    this.#ports = ports;
  }

  /** Milliseconds until the answer. Rejects with {@link NetworkError} when it is another than was sent, or none comes. */
  async ping(peer: PeerId, options: AbortOptions = {}): Promise<number> {
    const stream = await this.#ports.connectionManager.openStream(peer, PROTOCOL, options);
    const sent = crypto.getRandomValues(new Uint8Array(32));
    const start = performance.now();
    const chunks: Uint8Array[] = [];
    try {
      await new Promise<void>((resolve, reject) => {
        const end = (why: string) => reject(new NetworkError('CLOSED', why));
        stream.addEventListener('message', ({ data }) => {
          chunks.push(data.subarray());
          const received = Buffer.concat(chunks);
          if (received.length < sent.length) return;
          if (equalBytes(received, sent)) resolve();
          else end('the answer to a ping was another');
        });
        stream.addEventListener('close', () => end('a ping had no answer'));
        options.signal?.addEventListener('abort', () => end('a ping had no answer in time'), { once: true });
        stream.send(sent);
      });
      const ms = performance.now() - start;
      await stream.close(options);
      return ms;
    } catch (problem) {
      stream.abort(problem as Error);
      throw problem;
    }
  }
}
