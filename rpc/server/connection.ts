/** One WebSocket connection: requests in, answers and notifications out, and no more memory than it may have. */
import type { Socket } from 'node:net';
import { WebSocket } from 'ws';
import type { Dispatcher } from './dispatcher.ts';
import { Session } from './session.ts';

export interface ConnectionLimits {
  readonly maxSubscriptions: number;
  /** Requests under way. */
  readonly maxPending: number;
  /** Bytes waiting for the caller to read: from the first on requests are not read, at the second it is cut off. */
  readonly pauseAt: number;
  readonly maxBuffered: number;
}

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

export class Connection {
  readonly session: Session;
  readonly #socket: Socket;
  readonly #webSocket: WebSocket;
  readonly #limits: ConnectionLimits;
  #outgoing: string[] = [];
  #outgoingSize = 0;
  #pending = 0;
  #paused = false;
  /** Pings since the last sign of life. */
  #missed = 0;
  #pausedPings = 0;
  readonly #flush = (): void => {
    const messages = this.#outgoing;
    this.#outgoing = [];
    this.#outgoingSize = 0;
    if (messages.length === 0) return;
    if (this.#webSocket.readyState !== WebSocket.OPEN) return;
    this.#socket.write(frames(messages));
    this.#bound();
  };

  /** `socket`: what is under the WebSocket; its output is not shared with compression, which must be off. */
  constructor(
    webSocket: WebSocket,
    socket: Socket,
    dispatcher: Dispatcher,
    options: { readonly unsafe: boolean; readonly limits: ConnectionLimits },
  ) {
    this.#webSocket = webSocket;
    this.#socket = socket;
    this.#limits = options.limits;
    this.session = new Session({
      unsafe: options.unsafe,
      maxSubscriptions: options.limits.maxSubscriptions,
      send: (text) => this.#send(text),
    });
    const reply = (text: string | undefined): void => {
      this.#pending--;
      if (text !== undefined) this.#send(text);
      if (this.#paused) this.#resume();
    };
    webSocket.on('message', (data: Buffer) => {
      this.#pending++;
      dispatcher.handle(this.session, data.toString(), reply);
      if (this.#pending > this.#limits.maxPending) this.#pause();
    });
    webSocket.on('pong', () => {
      this.#missed = 0;
    });
    webSocket.on('close', () => this.session.close());
    // Followed by 'close'.
    webSocket.on('error', () => {});
    socket.on('drain', () => this.#resume());
  }

  #send(text: string): void {
    if (this.#webSocket.readyState !== WebSocket.OPEN) return;
    if (this.#outgoing.push(text) === 1) process.nextTick(this.#flush);
    this.#outgoingSize += text.length;
    if (this.#outgoingSize + this.#socket.writableLength > this.#limits.maxBuffered) this.#webSocket.terminate();
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
    if (!this.#paused || this.#pending > this.#limits.maxPending / 2) return;
    if (this.#socket.writableLength > this.#limits.pauseAt / 2) return;
    this.#paused = false;
    this.#webSocket.resume();
  }

  /** Asks whether anybody is there, and gives up when nobody was for some time. */
  ping(): void {
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

  terminate(): void {
    this.#webSocket.terminate();
  }
}
