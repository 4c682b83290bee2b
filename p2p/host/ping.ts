/** `/ipfs/ping/1.0.0`: what comes goes back. Streams stay open as long as the other side likes; some keep one for hours. */
import type { Libp2p, Stream } from '@libp2p/interface';

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
