/**
 * Counts what gossipsub holds of messages that have not come whole, which it does not do itself: the streams of its protocol pass
 * here on their way to it.
 */
import type { GossipSubComponents } from '@libp2p/gossipsub';
import type { Stream, StreamHandler } from '@libp2p/interface';
import { NetworkError } from '../host/errors.ts';
import type { HeldBytes } from '../limits/held-bytes.ts';

type Registrar = GossipSubComponents['registrar'];

/** As `registrar`, with an eye on the streams that come in. */
export function countingRegistrar(registrar: Registrar, held: HeldBytes): Registrar {
  return {
    getProtocols: () => registrar.getProtocols(),
    getHandler: (protocol) => registrar.getHandler(protocol),
    handle: (protocol, handler, options) => registrar.handle(protocol, counted(handler, held), options),
    unhandle: (protocols, options) => registrar.unhandle(protocols, options),
    register: (protocol, topology, options) => registrar.register(protocol, topology, options),
    unregister: (id) => registrar.unregister(id),
    getTopologies: (protocol) => registrar.getTopologies(protocol),
    use: (protocol, middleware) => registrar.use(protocol, middleware),
    unuse: (protocol) => registrar.unuse(protocol),
    getMiddleware: (protocol) => registrar.getMiddleware(protocol),
  };
}

const counted =
  (handler: StreamHandler, held: HeldBytes): StreamHandler =>
  (stream, connection) => {
    count(stream, connection.remotePeer.toString(), held);
    return handler(stream, connection);
  };

function count(stream: Stream, peer: string, held: HeldBytes): void {
  const hold = held.open(peer, (why) => stream.abort(new NetworkError('BUSY', why)));
  const frame = new PartialFrame();
  stream.addEventListener('message', ({ data }) => {
    for (const part of data instanceof Uint8Array ? [data] : data) frame.push(part);
    hold.set(frame.held);
  });
  stream.addEventListener('close', () => hold.release(), { once: true });
}

/** Where a stream of length-prefixed frames is, without keeping any of it. */
class PartialFrame {
  /** Bytes that whoever collects the frame under way keeps: of views, all that they are views of. */
  held = 0;
  #left = 0;
  #length = 0;
  #scale = 1;
  #last: ArrayBufferLike | undefined;

  push(part: Uint8Array): void {
    let at = 0;
    let began = this.#left > 0;
    while (at < part.length) {
      if (this.#left === 0) {
        const byte = part[at++]!;
        this.#length += (byte & 0x7f) * this.#scale;
        this.#scale *= 128;
        if (byte > 0x7f) continue;
        this.#left = this.#length;
        this.#length = 0;
        this.#scale = 1;
        this.held = 0;
        this.#last = undefined;
        began = true;
      }
      const take = Math.min(this.#left, part.length - at);
      this.#left -= take;
      at += take;
      if (this.#left === 0) {
        this.held = 0;
        this.#last = undefined;
        began = false;
      }
    }
    if (!began || this.#left === 0 || part.buffer === this.#last) return;
    this.#last = part.buffer;
    this.held += Math.max(part.length, Math.min(part.buffer.byteLength, 65_536));
  }
}
