/**
 * Substrate's notification protocols: each side opens a stream of its own, begins with a handshake, is answered with one, and
 * from then on only the opener speaks.
 */
import type { Connection, Libp2p, PeerId as Libp2pPeerId, Stream } from '@libp2p/interface';
import type { Clock, Log } from '../../node/ports/machine.ts';
import { NetworkError } from '../host/errors.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { Budget } from '../limits/budget.ts';
import type { Limits } from '../limits/limits.ts';
import { encodeFrame } from './framing.ts';
import { listenFrames } from './streams.ts';

export interface NotificationProtocol {
  /** The full protocol name. */
  readonly name: string;
  readonly maxMessage: number;
  readonly perSecond: number;
  readonly burst: number;
  handshake(): Uint8Array;
  /** Of either stream. False refuses the peer. */
  onHandshake(peer: PeerId, bytes: Uint8Array): boolean;
  onMessage(peer: PeerId, bytes: Uint8Array): Promise<void> | void;
  /** This node may speak from now on. */
  onOpen(peer: PeerId): void;
  onClose(peer: PeerId): void;
}

export interface NotificationPorts {
  readonly libp2p: Libp2p;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
  /** A message came. */
  readonly count: () => void;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly log: Log;
}

const MAX_HANDSHAKE = 1_024;
const HANDSHAKE_MS = 10_000;
/** Against the rate a large message counts as several of this size. */
const BYTES_PER_MESSAGE = 65_536;
/** Bytes that a slow peer lets wait; what comes beyond is not sent to it. */
const MAX_BUFFERED = 2 * 1024 * 1024;
/** How many times what one peer may say its group may, and all peers. */
const GROUP_SHARE = 4;
const ALL_SHARE = 16;

export class Notifications {
  readonly #protocol: NotificationProtocol;
  readonly #ports: NotificationPorts;
  readonly #outbound = new Map<PeerId, Stream>();
  readonly #opening = new Set<PeerId>();
  readonly #inbound = new Map<PeerId, Stream>();
  /** It outlives streams and connections. */
  readonly #rates: Budget;

  constructor(protocol: NotificationProtocol, ports: NotificationPorts) {
    this.#protocol = protocol;
    this.#ports = ports;
    const { perSecond, burst } = protocol;
    const times = (share: number) => ({ perSecond: share * perSecond, burst: share * burst });
    this.#rates = new Budget(
      () => ports.clock.monotonic(),
      (peer) => ports.limits.origins.groupOf(peer),
      { peer: times(1), group: times(GROUP_SHARE), all: times(ALL_SHARE) },
    );
  }

  async register(): Promise<void> {
    await this.#ports.libp2p.handle(this.#protocol.name, (stream, connection) => this.#accept(stream, connection), {
      maxInboundStreams: 4,
      maxOutboundStreams: 4,
    });
  }

  isOpen(peer: PeerId): boolean {
    return this.#outbound.has(peer);
  }

  /** Resolves with whether this node may speak to the peer. */
  async open(peer: Libp2pPeerId, signal: AbortSignal): Promise<boolean> {
    const id = peer.toString();
    if (this.#outbound.has(id)) return true;
    if (this.#opening.has(id)) return false;
    this.#opening.add(id);
    const until = AbortSignal.any([signal, AbortSignal.timeout(HANDSHAKE_MS)]);
    let stream: Stream | undefined;
    try {
      stream = await this.#ports.libp2p.dialProtocol(peer, this.#protocol.name, { signal: until });
      await this.#shake(stream, id, until);
      return true;
    } catch (problem) {
      stream?.abort(problem as Error);
      this.#ports.log('debug', `${this.#protocol.name} could not be opened`, { peer: id, problem: String(problem) });
      return false;
    } finally {
      this.#opening.delete(id);
    }
  }

  /** False when the peer does not listen or does not keep up. */
  send(peer: PeerId, message: Uint8Array): boolean {
    const stream = this.#outbound.get(peer);
    if (stream === undefined || stream.writeStatus !== 'writable') return false;
    if (stream.writeBufferLength + message.length > MAX_BUFFERED) return false;
    try {
      stream.send(encodeFrame(message));
      return true;
    } catch {
      return false;
    }
  }

  /** Closes what is open with the peer. */
  close(peer: PeerId): void {
    for (const streams of [this.#outbound, this.#inbound]) {
      streams.get(peer)?.abort(new NetworkError('CLOSED', 'the peer is not spoken to any more'));
    }
  }

  #shake(stream: Stream, id: PeerId, signal: AbortSignal): Promise<void> {
    const { onHandshake, onOpen, onClose } = this.#protocol;
    return new Promise((resolve, reject) => {
      let open = false;
      const giveUp = (): void => reject(new NetworkError('TIMEOUT', 'no handshake came'));
      signal.addEventListener('abort', giveUp, { once: true });
      listenFrames(stream, {
        max: MAX_HANDSHAKE,
        onFrame: (frame) => {
          // The other side has no more to say on this stream than its handshake.
          if (open || signal.aborted) return;
          if (!onHandshake.call(this.#protocol, id, frame)) {
            reject(new NetworkError('REFUSED', 'the handshake was not accepted'));
            return;
          }
          open = true;
          signal.removeEventListener('abort', giveUp);
          this.#outbound.set(id, stream);
          resolve();
          onOpen.call(this.#protocol, id);
        },
        onEnd: (problem) => {
          signal.removeEventListener('abort', giveUp);
          reject(problem ?? new NetworkError('REFUSED', 'the stream was closed'));
          if (this.#outbound.get(id) !== stream) return;
          this.#outbound.delete(id);
          if (stream.status === 'open') stream.abort(new NetworkError('CLOSED', 'the other side closed'));
          onClose.call(this.#protocol, id);
        },
      });
      stream.send(encodeFrame(this.#protocol.handshake()));
    });
  }

  #accept(stream: Stream, connection: Connection): void {
    const { charge, count, limits } = this.#ports;
    const protocol = this.#protocol;
    const id = connection.remotePeer.toString();
    let shaken = false;
    const late = setTimeout(() => {
      if (!shaken) stream.abort(new NetworkError('TIMEOUT', 'no handshake came'));
    }, HANDSHAKE_MS);
    late.unref();
    listenFrames(stream, {
      max: protocol.maxMessage,
      account: { peer: id, held: limits.held.incoming },
      onFrame: async (frame) => {
        if (stream.status !== 'open') return;
        count();
        if (!shaken) {
          clearTimeout(late);
          if (frame.length > MAX_HANDSHAKE || !protocol.onHandshake(id, frame)) {
            stream.abort(new NetworkError('REFUSED', 'the handshake was not accepted'));
            return;
          }
          shaken = true;
          // Only the newest stream counts.
          const former = this.#inbound.get(id);
          this.#inbound.set(id, stream);
          former?.abort(new NetworkError('CLOSED', 'another stream took its place'));
          stream.send(encodeFrame(protocol.handshake()));
          return;
        }
        const allowed = this.#rates.take(id, 1 + Math.floor(frame.length / BYTES_PER_MESSAGE));
        if (allowed === 'peer') charge(id, FEE.tooFast, `too many messages on ${protocol.name}`);
        if (allowed !== 'taken') return;
        const before = performance.now();
        const done = protocol.onMessage(id, frame);
        limits.throttle.spent(id, performance.now() - before);
        await done;
      },
      onEnd: (problem) => {
        clearTimeout(late);
        if (this.#inbound.get(id) === stream) this.#inbound.delete(id);
        if (problem instanceof NetworkError && (problem.code === 'TOO_LARGE' || problem.code === 'MALFORMED')) {
          charge(id, problem.code === 'TOO_LARGE' ? FEE.tooLarge : FEE.malformed, problem.message);
        }
        if (stream.status === 'open') stream.close().catch(() => stream.abort(new Error('it could not be closed')));
      },
    });
  }
}
