/** Frames over libp2p streams, by events: what comes together with the end of a stream must not be lost. */
import type { Stream } from '@libp2p/interface';
import { NetworkError } from '../host/errors.ts';
import type { PeerId } from '../host/peer-scores.ts';
import type { HeldBytes } from '../limits/held-bytes.ts';
import { encodeFrame, FrameReader } from './framing.ts';
import type { Pace } from './pace.ts';

const CHUNK = 65_536;
/** Frames taken from a stream and not dealt with yet, and their bytes, beyond which it is read no further. */
const MAX_PENDING = 32;
const MAX_PENDING_BYTES = 256 * 1024;
/** A frame that has begun must come whole in this time, and so much longer for each byte of it. */
const FRAME_MS = 10_000;
const FRAME_BYTES_PER_MS = 64;

export interface FrameListener {
  /** Largest frame. */
  readonly max: number;
  /** What the other side makes this node hold is on its account. */
  readonly account?: { readonly peer: PeerId; readonly held: HeldBytes };
  /** Called in order; the next frame waits for it. Must not reject. */
  onFrame(frame: Uint8Array): Promise<void> | void;
  /** The other side is done, or the stream is gone, or broke the rules. Called once, after the last frame. */
  onEnd(problem: Error | undefined): void;
}

export function listenFrames(stream: Stream, { max, account, onFrame, onEnd }: FrameListener): void {
  const reader = new FrameReader(max);
  let pending = 0;
  let pendingBytes = 0;
  let paused = false;
  let over = false;
  let ended = false;
  let turn: Promise<void> = Promise.resolve();
  let late: NodeJS.Timeout | undefined;
  const hold = account?.held.open(account.peer, (why) => broke(new NetworkError('BUSY', why)));
  const holding = (): boolean => hold?.set(reader.held + pendingBytes) ?? true;
  const end = (problem: Error | undefined): void => {
    if (ended) return;
    ended = true;
    clearTimeout(late);
    hold?.release();
    turn = turn.then(() => onEnd(problem));
  };
  const take = async (frame: Uint8Array): Promise<void> => {
    try {
      await onFrame(frame);
    } finally {
      pending--;
      pendingBytes -= frame.length;
      if (!ended) holding();
    }
    if (paused && pending < MAX_PENDING / 2 && pendingBytes < MAX_PENDING_BYTES / 2) {
      paused = false;
      if (stream.readStatus === 'paused') stream.resume();
    }
  };
  /** The connection can be gone before its streams are told: then even reading on throws. */
  const broke = (problem: unknown): void => {
    end(problem as Error);
    stream.abort(problem as Error);
  };
  /** The clock runs from the first byte of a frame to its last. */
  const watch = (came: boolean): void => {
    if (came || reader.complete) {
      clearTimeout(late);
      late = undefined;
    }
    if (late !== undefined || reader.complete) return;
    late = setTimeout(
      () => broke(new NetworkError('TIMEOUT', 'a frame did not come whole')),
      FRAME_MS + max / FRAME_BYTES_PER_MS,
    );
    late.unref();
  };
  stream.addEventListener('message', ({ data }) => {
    if (ended) return;
    try {
      const frames = reader.push(data.subarray());
      for (const frame of frames) {
        pending++;
        pendingBytes += frame.length;
        turn = turn.then(() => take(frame)).catch(broke);
      }
      watch(frames.length > 0);
    } catch (problem) {
      broke(problem);
      return;
    }
    if (!holding()) return;
    if (over) queueMicrotask(finish);
    const much = pending >= MAX_PENDING || (pending > 0 && pendingBytes >= MAX_PENDING_BYTES);
    if (much && !paused && stream.readStatus === 'readable') {
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

/**
 * Sends a frame of any size, a piece at a time: the next one when the other side has taken the one before, whatever the muxer
 * would buffer. With a pace it has to take them fast enough. Rejects with {@link NetworkError} `CLOSED` or `TIMEOUT`, or with the
 * signal's reason.
 */
export async function sendFrame(stream: Stream, payload: Uint8Array, signal: AbortSignal, pace?: Pace): Promise<void> {
  const until = pace === undefined ? signal : AbortSignal.any([signal, pace.signal]);
  const frame = encodeFrame(payload);
  for (let at = 0; at < frame.length; at += CHUNK) {
    const piece = frame.subarray(at, at + CHUNK);
    if (stream.writeStatus !== 'writable') throw new NetworkError('CLOSED', 'the stream was closed');
    stream.send(piece);
    await drained(stream, until);
    pace?.moved(piece.length);
  }
}

/** Resolves when the stream's buffer is empty. */
async function drained(stream: Stream, signal: AbortSignal): Promise<void> {
  while (stream.writeBufferLength > 0) {
    if (stream.writeStatus === 'closed') throw new NetworkError('CLOSED', 'the stream was closed');
    if (signal.aborted) throw signal.reason;
    await stream.onDrain({ signal });
    // A drained stream sends what it has in a microtask of its own.
    if (stream.writeBufferLength > 0) await new Promise((resolve) => setImmediate(resolve));
  }
}
