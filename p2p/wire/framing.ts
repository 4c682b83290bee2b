/** Substrate's frames: the length as unsigned LEB128, then so many bytes. */
import { concatBytes } from '../../runtime/primitives/bytes.ts';
import { NetworkError } from '../host/errors.ts';

/** 2^35 - 1 is far beyond any limit here. */
const MAX_LENGTH_BYTES = 5;

export function encodeLength(length: number): Uint8Array {
  const bytes: number[] = [];
  let rest = length;
  while (rest > 0x7f) {
    bytes.push((rest & 0x7f) | 0x80);
    rest = Math.floor(rest / 128);
  }
  bytes.push(rest);
  return Uint8Array.from(bytes);
}

export const encodeFrame = (payload: Uint8Array): Uint8Array => concatBytes(encodeLength(payload.length), payload);

/** What a frame's buffer begins with; it grows with what comes, not with what was announced. */
const FIRST_BUFFER = 4_096;
const NOTHING = new Uint8Array();

/**
 * Takes a stream apart into frames. It holds at most twice what has come of one frame, and copies it: a view of one byte would
 * keep the whole packet that it came in.
 */
export class FrameReader {
  readonly #max: number;
  #buffer: Uint8Array = NOTHING;
  #held = 0;
  #length = 0;
  #lengthBytes = 0;
  #wanted: number | undefined;

  constructor(max: number) {
    this.#max = max;
  }

  /** Whether the stream could end here without cutting a frame. */
  get complete(): boolean {
    return this.#held === 0 && this.#wanted === undefined && this.#lengthBytes === 0;
  }

  /** Bytes of memory that the frame under way takes. */
  get held(): number {
    return this.#buffer.length;
  }

  /** Throws {@link NetworkError} `TOO_LARGE` or `MALFORMED`; after that nothing more is to be read. */
  push(chunk: Uint8Array): Uint8Array[] {
    const frames: Uint8Array[] = [];
    let at = 0;
    while (at < chunk.length || this.#wanted === 0) {
      if (this.#wanted === undefined) {
        at = this.#readLength(chunk, at);
        continue;
      }
      const take = Math.min(this.#wanted - this.#held, chunk.length - at);
      this.#keep(chunk.subarray(at, at + take));
      at += take;
      if (this.#held < this.#wanted) break;
      frames.push(this.#buffer.length === this.#held ? this.#buffer : this.#buffer.slice(0, this.#held));
      this.#buffer = NOTHING;
      this.#held = 0;
      this.#wanted = undefined;
    }
    return frames;
  }

  #keep(bytes: Uint8Array): void {
    const needed = this.#held + bytes.length;
    if (needed > this.#buffer.length) {
      const size = Math.min(this.#wanted!, Math.max(needed, 2 * this.#buffer.length, FIRST_BUFFER));
      const larger = new Uint8Array(size);
      larger.set(this.#buffer.subarray(0, this.#held));
      this.#buffer = larger;
    }
    this.#buffer.set(bytes, this.#held);
    this.#held = needed;
  }

  #readLength(chunk: Uint8Array, from: number): number {
    let at = from;
    while (at < chunk.length) {
      const byte = chunk[at++]!;
      if (this.#lengthBytes === MAX_LENGTH_BYTES - 1 && byte > 0x7f) {
        throw new NetworkError('MALFORMED', 'a length without end');
      }
      // A last byte of zero would be a second spelling of the same length.
      if (byte === 0 && this.#lengthBytes > 0) throw new NetworkError('MALFORMED', 'a length with needless bytes');
      this.#length += (byte & 0x7f) * 128 ** this.#lengthBytes;
      this.#lengthBytes++;
      if (this.#length > this.#max) throw new NetworkError('TOO_LARGE', `a frame of more than ${this.#max} bytes`);
      if (byte > 0x7f) continue;
      this.#wanted = this.#length;
      this.#length = 0;
      this.#lengthBytes = 0;
      break;
    }
    return at;
  }
}
