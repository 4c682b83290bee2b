/** Frames over libp2p streams, by events: what comes together with the end of a stream must not be lost. */
import type { Stream } from '@libp2p/interface';
import { NetworkError } from '../host/errors.ts';
import { encodeFrame, FrameReader } from './framing.ts';

const CHUNK = 65_536;
/** Frames taken from a stream and not dealt with yet, beyond which it is read no further. */
const MAX_PENDING = 32;

export interface FrameListener {
  /** Largest frame; a function is asked before every chunk, so that a handshake can have a limit of its own. */
  readonly max: number;
  /** Called in order; the next frame waits for it. Must not reject. */
  onFrame(frame: Uint8Array): Promise<void> | void;
  /** The other side is done, or the stream is gone, or broke the rules. Called once, after the last frame. */
  onEnd(problem: Error | undefined): void;
}

export function listenFrames(stream: Stream, { max, onFrame, onEnd }: FrameListener): void {
  const reader = new FrameReader(max);
  let pending = 0;
  let paused = false;
  let over = false;
  let ended = false;
  let turn: Promise<void> = Promise.resolve();
  const end = (problem: Error | undefined): void => {
    if (ended) return;
    ended = true;
    turn = turn.then(() => onEnd(problem));
  };
  const take = async (frame: Uint8Array): Promise<void> => {
    await onFrame(frame);
    pending--;
    if (paused && pending < MAX_PENDING / 2) {
      paused = false;
      if (stream.readStatus === 'paused') stream.resume();
    }
  };
  /** The connection can be gone before its streams are told: then even reading on throws. */
  const broke = (problem: unknown): void => {
    end(problem as Error);
    stream.abort(problem as Error);
  };
  stream.addEventListener('message', ({ data }) => {
    if (ended) return;
    try {
      for (const frame of reader.push(data.subarray())) {
        pending++;
        turn = turn.then(() => take(frame)).catch(broke);
      }
    } catch (problem) {
      broke(problem);
      return;
    }
    if (over) queueMicrotask(finish);
    if (pending >= MAX_PENDING && !paused && stream.readStatus === 'readable') {
      paused = true;
      try {
        stream.pause();
      } catch (problem) {
        broke(problem);
      }
    }
  });
  const cut = (): Error | undefined =>
    reader.complete ? undefined : new NetworkError('MALFORMED', 'the stream ended within a frame');
  /**
   * Yamux tells of the end of a stream before it hands over what came in the same frame, and what is held back while reading is
   * paused comes later still: only when nothing waits is it over.
   */
  const finish = (): void => {
    over = true;
    if (stream.readBufferLength === 0) end(cut());
  };
  stream.addEventListener('end', () => queueMicrotask(finish));
  stream.addEventListener('close', ({ error }) => end(error ?? cut()));
  if (stream.readableEnded) queueMicrotask(finish);
}

/** Sends a frame of any size, waiting for the other side to take it. */
export async function sendFrame(stream: Stream, payload: Uint8Array, signal: AbortSignal): Promise<void> {
  const frame = encodeFrame(payload);
  for (let at = 0; at < frame.length; at += CHUNK) {
    if (stream.writeStatus !== 'writable') throw new NetworkError('CLOSED', 'the stream was closed');
    if (!stream.send(frame.subarray(at, at + CHUNK))) await stream.onDrain({ signal });
  }
}
