/** Requests with one answer: a frame there, the end of writing, a frame back. */
import type { Connection, Libp2p, PeerId as Libp2pPeerId, Stream } from '@libp2p/interface';
import type { Log } from '../../node/ports/machine.ts';
import { NetworkError } from '../host/errors.ts';
import { FEE, type PeerId, RateLimit } from '../host/peer-scores.ts';
import { listenFrames, sendFrame } from './streams.ts';

export interface RequestProtocol {
  readonly name: string;
  readonly maxRequest: number;
  readonly maxResponse: number;
  readonly timeoutMs: number;
  /** What one peer may ask. */
  readonly perSecond: number;
  readonly burst: number;
  /** The answer. A rejection closes the stream without one; what the peer did wrong is charged by the handler. */
  answer(peer: PeerId, request: Uint8Array): Promise<Uint8Array>;
}

export interface RequestPorts {
  readonly libp2p: Libp2p;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
  /** A message came. */
  readonly count: () => void;
  readonly now: () => number;
  readonly log: Log;
}

/** Answers under way, for all peers together; more wait in their streams' buffers and time out there. */
const MAX_ANSWERING = 32;

export class Requests {
  readonly #protocol: RequestProtocol;
  readonly #ports: RequestPorts;
  readonly #rates = new Map<PeerId, RateLimit>();
  #answering = 0;

  constructor(protocol: RequestProtocol, ports: RequestPorts) {
    this.#protocol = protocol;
    this.#ports = ports;
  }

  async register(): Promise<void> {
    await this.#ports.libp2p.handle(this.#protocol.name, (stream, connection) => this.#serve(stream, connection), {
      maxInboundStreams: 16,
      maxOutboundStreams: 64,
    });
  }

  forget(peer: PeerId): void {
    this.#rates.delete(peer);
  }

  /** Rejects with {@link NetworkError} `TIMEOUT`, `CLOSED`, `REFUSED`, `TOO_LARGE` or `MALFORMED`. */
  async request(peer: Libp2pPeerId, payload: Uint8Array, signal: AbortSignal): Promise<Uint8Array> {
    const { name, timeoutMs, maxResponse } = this.#protocol;
    const timeout = AbortSignal.timeout(timeoutMs);
    const until = AbortSignal.any([signal, timeout]);
    let stream: Stream;
    try {
      stream = await this.#ports.libp2p.dialProtocol(peer, name, { signal: until });
    } catch (problem) {
      throw new NetworkError(timeout.aborted ? 'TIMEOUT' : 'CLOSED', `${name} could not be asked`, { cause: problem });
    }
    return new Promise<Uint8Array>((resolve, reject) => {
      const giveUp = (): void => {
        const problem = new NetworkError(timeout.aborted ? 'TIMEOUT' : 'CLOSED', `no answer on ${name}`);
        reject(problem);
        stream.abort(problem);
      };
      if (until.aborted) {
        giveUp();
        return;
      }
      until.addEventListener('abort', giveUp, { once: true });
      listenFrames(stream, {
        max: maxResponse,
        onFrame: (frame) => {
          resolve(frame);
          until.removeEventListener('abort', giveUp);
          stream.close().catch(() => stream.abort(new Error('it could not be closed')));
        },
        onEnd: (problem) => {
          until.removeEventListener('abort', giveUp);
          reject(problem instanceof NetworkError ? problem : new NetworkError('REFUSED', `${name} was not answered`));
        },
      });
      sendFrame(stream, payload, until)
        .then(() => stream.close({ signal: until }))
        .catch((problem: unknown) => {
          // A quick answer closes the stream before this side has: that is no failure, and `reject` then does nothing.
          reject(new NetworkError('CLOSED', `${name} could not be asked`, { cause: problem }));
        });
    });
  }

  #serve(stream: Stream, connection: Connection): void {
    const { name, maxRequest, timeoutMs, perSecond, burst } = this.#protocol;
    const { charge, count, now } = this.#ports;
    const id = connection.remotePeer.toString();
    const rate = this.#rates.get(id) ?? new RateLimit(now, perSecond, burst);
    this.#rates.set(id, rate);
    const until = AbortSignal.timeout(timeoutMs);
    const late = (): void => stream.abort(new NetworkError('TIMEOUT', 'the request took too long'));
    until.addEventListener('abort', late, { once: true });
    let asked = false;
    listenFrames(stream, {
      max: maxRequest,
      onFrame: async (frame) => {
        count();
        if (asked) {
          charge(id, FEE.malformed, `two requests in one stream of ${name}`);
          return;
        }
        asked = true;
        try {
          if (!rate.take()) {
            charge(id, FEE.tooFast, `too many requests on ${name}`);
            throw new NetworkError('BUSY', 'too many requests');
          }
          if (this.#answering >= MAX_ANSWERING) throw new NetworkError('BUSY', 'too many requests at once');
          this.#answering++;
          try {
            await sendFrame(stream, await this.#protocol.answer(id, frame), until);
          } finally {
            this.#answering--;
          }
          await stream.close({ signal: until });
        } catch (problem) {
          this.#ports.log('debug', `${name} was not answered`, { peer: id, problem: String(problem) });
          stream.abort(problem as Error);
        } finally {
          until.removeEventListener('abort', late);
        }
      },
      onEnd: (problem) => {
        if (problem instanceof NetworkError && problem.code === 'TOO_LARGE') charge(id, FEE.tooLarge, problem.message);
        if (problem instanceof NetworkError && problem.code === 'MALFORMED') charge(id, FEE.malformed, problem.message);
        if (asked) return;
        until.removeEventListener('abort', late);
        stream.abort(new NetworkError('CLOSED', 'nothing was asked'));
      },
    });
  }
}
