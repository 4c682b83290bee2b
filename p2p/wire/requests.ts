/** Requests with one answer: a frame there, the end of writing, a frame back. */
import type { Connection, Libp2p, PeerId as Libp2pPeerId, Stream } from '@libp2p/interface';
import type { Clock, Log } from '../../node/ports/machine.ts';
import { NetworkError } from '../host/errors.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import { Budget } from '../limits/budget.ts';
import type { Limits } from '../limits/limits.ts';
import { Places } from '../limits/places.ts';
import { Pace } from './pace.ts';
import { listenFrames, sendFrame } from './streams.ts';

export interface RequestProtocol {
  readonly name: string;
  readonly maxRequest: number;
  readonly maxResponse: number;
  readonly timeoutMs: number;
  /** What one peer may ask. */
  readonly perSecond: number;
  readonly burst: number;
  /** About what an answer takes of memory, which is kept free before it is made. */
  readonly answerBytes: number;
  /**
   * The answer, made at the workbench and not for long. What it throws closes the stream without one; what the peer did wrong is
   * charged by the handler.
   */
  answer(peer: PeerId, request: Uint8Array): Uint8Array;
}

export interface RequestPorts {
  readonly libp2p: Libp2p;
  readonly charge: (peer: PeerId, cost: number, reason: string) => void;
  /** A message came. */
  readonly count: () => void;
  readonly clock: Clock;
  readonly limits: Limits;
  readonly log: Log;
}

/** Answers under way, from the question to its last byte. */
const ANSWERING = { all: 32, peer: 4 } as const;
/** How many times what one peer may ask its group may, and all peers. */
const GROUP_SHARE = 2;
const ALL_SHARE = 8;
/** An answer has to be taken at least so fast. */
const ANSWER_PACE = { graceMs: 5_000, bytesPerSecond: 64 * 1024 } as const;

export class Requests {
  readonly #protocol: RequestProtocol;
  readonly #ports: RequestPorts;
  readonly #rates: Budget;
  readonly #places: Places;

  constructor(protocol: RequestProtocol, ports: RequestPorts) {
    this.#protocol = protocol;
    this.#ports = ports;
    const now = (): number => ports.clock.monotonic();
    const groupOf = (peer: PeerId): string => ports.limits.origins.groupOf(peer);
    const times = (share: number) => ({ perSecond: share * protocol.perSecond, burst: share * protocol.burst });
    this.#rates = new Budget(now, groupOf, { peer: times(1), group: times(GROUP_SHARE), all: times(ALL_SHARE) });
    this.#places = new Places(ANSWERING, groupOf);
  }

  async register(): Promise<void> {
    await this.#ports.libp2p.handle(this.#protocol.name, (stream, connection) => this.#serve(stream, connection), {
      maxInboundStreams: 16,
      maxOutboundStreams: 64,
    });
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
        account: { peer: peer.toString(), held: this.#ports.limits.held.answers },
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
    const { name, maxRequest, timeoutMs } = this.#protocol;
    const { charge, count, limits, log } = this.#ports;
    const id = connection.remotePeer.toString();
    const until = AbortSignal.timeout(timeoutMs);
    const late = (): void => stream.abort(new NetworkError('TIMEOUT', 'the request took too long'));
    until.addEventListener('abort', late, { once: true });
    let asked = false;
    listenFrames(stream, {
      max: maxRequest,
      account: { peer: id, held: limits.held.incoming },
      onFrame: async (frame) => {
        count();
        if (asked) {
          charge(id, FEE.malformed, `two requests in one stream of ${name}`);
          return;
        }
        asked = true;
        try {
          await this.#answer(stream, id, frame, until);
          await stream.close({ signal: until });
        } catch (problem) {
          log('debug', `${name} was not answered`, { peer: id, problem: String(problem) });
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

  /** Rate, place and room come before any work. */
  async #answer(stream: Stream, id: PeerId, frame: Uint8Array, until: AbortSignal): Promise<void> {
    const { name, answer, answerBytes } = this.#protocol;
    const { charge, clock, limits } = this.#ports;
    const allowed = this.#rates.take(id);
    if (allowed === 'peer') charge(id, FEE.tooFast, `too many requests on ${name}`);
    if (allowed !== 'taken') throw new NetworkError('BUSY', 'too many requests');
    const gone = new AbortController();
    const leave = (why: string): void => {
      const problem = new NetworkError('BUSY', why);
      gone.abort(problem);
      stream.abort(problem);
    };
    const vacate = this.#places.take(id, () => leave('others have fewer places'));
    if (vacate === undefined) throw new NetworkError('BUSY', 'too many requests at once');
    const hold = limits.held.outgoing.open(id, leave);
    try {
      const made = await limits.bench.do(id, () => {
        // Whoever waited too long is not answered any more: that would be work for nobody.
        if (until.aborted || gone.signal.aborted || stream.status !== 'open')
          throw new NetworkError('CLOSED', 'nobody waits');
        if (!hold.set(answerBytes)) throw new NetworkError('BUSY', 'too many answers wait to be taken');
        return answer.call(this.#protocol, id, frame);
      });
      if (!hold.set(made.length)) throw new NetworkError('BUSY', 'too many answers wait to be taken');
      const pace = new Pace(clock, ANSWER_PACE);
      try {
        await sendFrame(stream, made, AbortSignal.any([until, gone.signal]), pace);
      } finally {
        pace.end();
      }
    } finally {
      hold.release();
      vacate();
    }
  }
}
