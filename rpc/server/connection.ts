/** One WebSocket connection: requests in, answers and notifications out, and no more memory than it may have. */
import type { Socket } from 'node:net';
import { WebSocket } from 'ws';
import type { Arrival, Arriving } from './arriving.ts';
import type { Dispatcher } from './dispatcher.ts';
import { MAX_CONTROL_FRAMES, MAX_WAITING, MESSAGE_COST } from './limits.ts';
import { type Portions, Session } from './session.ts';
import type { Caller, Turns } from './turns.ts';
import type { Reader, Unread } from './unread.ts';
import type { Doing } from './visitors.ts';

export interface ConnectionLimits {
  readonly maxSubscriptions: number;
  /** Requests under way. */
  readonly maxPending: number;
  /** Bytes waiting for the caller to read: from the first on requests are not read, at the second it is cut off. */
  readonly pauseAt: number;
  readonly maxBuffered: number;
  /** Characters of one answer. */
  readonly maxResponse: number;
  /** A caller that takes nothing of its answers for so long is cut off. */
  readonly stallMs: number;
}

/** What a connection shares with all others. */
export interface Shared {
  readonly dispatcher: Dispatcher;
  readonly turns: Turns;
  readonly unread: Unread;
  readonly arriving: Arriving;
}

/** Bytes of a frame's mask, which all that clients send have. */
const MASK = 4;
/** Bytes of a control frame of a client beside its payload. */
const CONTROL_FRAME = 2 + MASK;

const TEXT_FRAME = 0x81;
const MAX_PAUSED_PINGS = 6;
/** Pings in a row without an answer: a busy machine may be late by one or two. */
const MAX_MISSED = 3;

/** Server frames (RFC 6455, section 5.2) for several messages in one buffer, so that one write sends them. */
export function frames(messages: readonly string[]): Buffer {
  const lengths = messages.map((message) => Buffer.byteLength(message));
  const buffer = Buffer.allocUnsafe(lengths.reduce((sum, length) => sum + length + headerLength(length), 0));
  let at = 0;
  for (let i = 0; i < messages.length; i++) {
    const length = lengths[i]!;
    buffer[at] = TEXT_FRAME;
    if (length < 126) buffer[at + 1] = length;
    else if (length < 65_536) {
      buffer[at + 1] = 126;
      buffer.writeUInt16BE(length, at + 2);
    } else {
      buffer[at + 1] = 127;
      buffer.writeBigUInt64BE(BigInt(length), at + 2);
    }
    at += headerLength(length);
    buffer.write(messages[i]!, at, length, 'utf8');
    at += length;
  }
  return buffer;
}

const headerLength = (length: number): number => (length < 126 ? 2 : length < 65_536 ? 4 : 10);

export class Connection implements Reader {
  readonly session: Session;
  readonly #socket: Socket;
  readonly #webSocket: WebSocket;
  readonly #limits: ConnectionLimits;
  readonly #shared: Shared;
  readonly #arrival: Arrival;
  #outgoing: string[] = [];
  #outgoingSize = 0;
  #pending = 0;
  /** Bytes of messages that are not answered. */
  #waiting = 0;
  #paused = false;
  /** Too much was on its way in, over all connections. */
  #held = false;
  /** Run when the caller has read what it was sent. */
  #whenRead: (() => void)[] = [];
  /** Pings since the last sign of life. */
  #missed = 0;
  #pausedPings = 0;
  /** Pings and pongs since the node's last ping. */
  #controls = 0;
  /** When it last said something. */
  #heard = performance.now();
  readonly #flush = (): void => {
    const messages = this.#outgoing;
    this.#outgoing = [];
    this.#outgoingSize = 0;
    if (messages.length === 0) return;
    if (this.#webSocket.readyState !== WebSocket.OPEN) return;
    this.#socket.write(frames(messages));
    this.#bound();
    // Where the system took all of it at once there will be no 'drain'.
    this.#goOn();
  };

  /** `socket`: what is under the WebSocket; its output is not shared with compression, which must be off. */
  constructor(
    webSocket: WebSocket,
    socket: Socket,
    shared: Shared,
    options: {
      readonly unsafe: boolean;
      readonly caller: Caller;
      readonly portions: Portions;
      readonly limits: ConnectionLimits;
    },
  ) {
    const { unsafe, caller, portions, limits } = options;
    this.#webSocket = webSocket;
    this.#socket = socket;
    this.#limits = limits;
    this.#shared = shared;
    this.session = new Session({
      ...{ unsafe, caller, portions, maxSubscriptions: limits.maxSubscriptions, maxResponse: limits.maxResponse },
      send: (text) => this.#send(text),
      flow: {
        mayBegin: () => this.#mayBegin(),
        whenRead: (run) => this.#whenRead.push(run),
      },
      turns: shared.turns,
    });
    this.#arrival = shared.arriving.enter({
      pause: () => this.#hold(true),
      resume: () => this.#hold(false),
      cut: (why) => this.#end(why === 'stalled' ? 1008 : 1013, `the message has ${why}`),
    });
    shared.unread.enter(this);
    // Before the WebSocket sees them, which counts down what it recognises.
    socket.prependListener('data', (chunk: Buffer) => this.#arrival.grow(chunk.length));
    webSocket.on('message', (data: Buffer) => this.#hear(data));
    webSocket.on('ping', (data: Buffer) => this.#control(data));
    webSocket.on('pong', (data: Buffer) => {
      this.#control(data);
      this.#missed = 0;
    });
    webSocket.on('close', () => {
      shared.unread.leave(this);
      this.#arrival.end();
      this.session.close();
      shared.turns.leave(caller);
      this.#goOn();
    });
    // Followed by 'close'.
    webSocket.on('error', () => {});
    socket.on('drain', () => this.#resume());
    // Node counts what the caller takes of a long answer as well as what it sends.
    socket.setTimeout(limits.stallMs);
    socket.on('timeout', () => {
      if (socket.writableLength > 0) this.terminate();
      else socket.setTimeout(limits.stallMs);
    });
  }

  get doing(): Doing {
    return 'open';
  }

  /** Whether something is under way for it, or it follows something. */
  get engaged(): boolean {
    return this.#pending > 0 || this.session.subscriptions > 0;
  }

  get since(): number {
    return this.#heard;
  }

  get unread(): number {
    return this.#outgoingSize + this.#socket.writableLength;
  }

  #mayBegin(): boolean {
    const { unread } = this;
    return this.session.closed || (unread <= this.#limits.pauseAt && this.#shared.unread.mayBegin(unread));
  }

  /** A ping, which has been answered already, or a pong. */
  #control(data: Buffer): void {
    this.#arrival.ignore(data.length + CONTROL_FRAME);
    if (++this.#controls > MAX_CONTROL_FRAMES) this.terminate();
    else this.#bound();
  }

  #hear(data: Buffer): void {
    const cost = data.length + MESSAGE_COST;
    this.#heard = performance.now();
    this.#pending++;
    this.#waiting += cost;
    this.#arrival.whole();
    this.#shared.dispatcher.handle(this.session, data, (text) => {
      this.#pending--;
      this.#waiting -= cost;
      const wire = data.length + headerLength(data.length) + MASK;
      // Heads of fragments are counted on the way in but not known here: they go when nothing else is left.
      this.#arrival.release(this.#pending === 0 ? this.#arrival.complete : wire);
      if (text !== undefined) this.#send(text);
      if (this.#paused) this.#resume();
    });
    if (this.#pending > this.#limits.maxPending || this.#waiting > MAX_WAITING) this.#pause();
  }

  #send(text: string): void {
    if (this.#webSocket.readyState !== WebSocket.OPEN) return;
    if (this.#outgoing.push(text) === 1) process.nextTick(this.#flush);
    this.#outgoingSize += text.length;
    if (this.unread > this.#limits.maxBuffered) this.#webSocket.terminate();
    else this.#shared.unread.grew(text.length);
  }

  #bound(): void {
    const buffered = this.#socket.writableLength;
    if (buffered > this.#limits.maxBuffered) this.#webSocket.terminate();
    else if (buffered > this.#limits.pauseAt) this.#pause();
  }

  #pause(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#webSocket.pause();
  }

  #resume(): void {
    this.#goOn();
    if (!this.#paused || this.#pending > this.#limits.maxPending / 2 || this.#waiting > MAX_WAITING / 2) return;
    if (this.#socket.writableLength > this.#limits.pauseAt / 2) return;
    this.#paused = false;
    if (!this.#held) this.#webSocket.resume();
  }

  #hold(held: boolean): void {
    this.#held = held;
    if (held) this.#webSocket.pause();
    else if (!this.#paused) this.#webSocket.resume();
  }

  /** What waited for the caller to read. */
  #goOn(): void {
    if (this.#whenRead.length === 0 || !this.#mayBegin()) return;
    const waiting = this.#whenRead;
    this.#whenRead = [];
    for (const run of waiting) run();
  }

  /** To be called every second or so: others may have made room. */
  look(): void {
    this.#goOn();
  }

  /** Asks whether anybody is there, and gives up when nobody was for some time. */
  ping(): void {
    this.#controls = 0;
    // While nothing is read no pong is seen either, so that has a longer patience of its own.
    this.#pausedPings = this.#paused ? this.#pausedPings + 1 : 0;
    if (this.#pausedPings > MAX_PAUSED_PINGS || (this.#missed >= MAX_MISSED && !this.#paused)) {
      this.#webSocket.terminate();
      return;
    }
    this.#missed++;
    if (this.#webSocket.readyState === WebSocket.OPEN) this.#webSocket.ping();
  }

  close(): void {
    if (this.#outgoing.length > 0) this.#flush();
    this.#webSocket.close(1001, 'the node is shutting down');
  }

  #end(code: number, why: string): void {
    this.#webSocket.close(code, why);
    this.#webSocket.terminate();
  }

  terminate(): void {
    this.#webSocket.terminate();
  }

  /** It has left too much unread. */
  cut(): void {
    this.terminate();
  }

  /** Its place is needed. */
  end(): void {
    this.terminate();
  }
}
