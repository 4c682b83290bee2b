/** One connection to the port, over HTTP or as a WebSocket: what it is at, what it shares, and what it has left unread. */
import type { IncomingHttpHeaders } from 'node:http';
import type { Socket } from 'node:net';
import { addressOf } from './access.ts';
import type { Arrival, Arriving } from './arriving.ts';
import type { Connection } from './connection.ts';
import { MAX_PIPELINED } from './limits.ts';
import type { Caller } from './turns.ts';
import type { Reader, Unread } from './unread.ts';
import type { Doing, Visitor } from './visitors.ts';

export class Guest implements Visitor, Reader {
  readonly socket: Socket;
  readonly arrival: Arrival;
  readonly #callerAt: (address: string | undefined) => Caller;
  readonly #callers = new Map<string | undefined, Caller>();
  /** Requests of the connection that wait for the answer before theirs to be read. */
  readonly #queue: (() => void)[] = [];
  #webSocket: Connection | undefined;
  #doing: Doing = 'silent';
  #since = performance.now();
  #answering = false;
  #unread = 0;
  #pausedRequests: { pause(): void; resume(): void } | undefined;

  constructor(
    socket: Socket,
    shared: {
      readonly arriving: Arriving;
      readonly unread: Unread;
      readonly callerAt: (address: string | undefined) => Caller;
    },
  ) {
    this.socket = socket;
    this.#callerAt = shared.callerAt;
    this.arrival = shared.arriving.enter({
      pause: () => this.#pausedRequests?.pause(),
      resume: () => this.#pausedRequests?.resume(),
      cut: () => socket.destroy(),
    });
    shared.unread.enter(this);
  }

  get address(): string | undefined {
    return addressOf(this.socket.remoteAddress);
  }

  get doing(): Doing {
    return this.#webSocket?.doing ?? this.#doing;
  }

  get engaged(): boolean {
    return this.#webSocket?.engaged ?? this.#answering;
  }

  get since(): number {
    return this.#webSocket?.since ?? this.#since;
  }

  /** Of HTTP; a WebSocket counts its own. */
  get unread(): number {
    return this.#webSocket === undefined && this.#answering ? Math.max(this.#unread, this.socket.writableLength) : 0;
  }

  /** The budget that a request of this connection draws from. */
  callerOf(headers: IncomingHttpHeaders): Caller {
    const address = addressOf(this.socket.remoteAddress, headers);
    const known = this.#callers.get(address);
    if (known !== undefined) return known;
    const caller = this.#callerAt(address);
    // A proxy brings many; they are kept by address elsewhere.
    if (this.#callers.size >= 16) this.#callers.clear();
    this.#callers.set(address, caller);
    return caller;
  }

  upgraded(webSocket: Connection): void {
    this.#webSocket = webSocket;
  }

  /** A request begins to arrive. `body`: how to stop and go on reading it. */
  begins(body: { pause(): void; resume(): void }): void {
    this.#pausedRequests = body;
    if (!this.#answering) this.#is('sending');
  }

  #is(doing: Doing): void {
    this.#doing = doing;
    this.#since = performance.now();
  }

  /** Runs `answer` when the answers before have been read; it calls `done` when its own has been, or never will be. */
  answer(answer: (done: () => void) => void): void {
    const begin = (): void => {
      this.#answering = true;
      this.#is('busy');
      let over = false;
      answer(() => {
        if (over) return;
        over = true;
        this.#unread = 0;
        this.#answering = false;
        this.#is('idle');
        this.#queue.shift()?.();
      });
    };
    if (!this.#answering) begin();
    else if (this.#queue.length < MAX_PIPELINED) this.#queue.push(begin);
    else this.socket.destroy();
  }

  /** So many bytes were handed to the connection. */
  sent(bytes: number): void {
    this.#unread = bytes;
  }

  cut(): void {
    this.socket.destroy();
  }

  end(): void {
    this.socket.destroy();
  }

  /** The connection is gone. */
  left(unread: Unread): void {
    unread.leave(this);
    this.arrival.end();
    this.#queue.length = 0;
  }
}
