/**
 * Frames between the worker and its Python child, version 2; `openledger_torch/protocol.py` is the other side. A frame is
 *
 *     u32 LE header length · u32 LE tail length · header (JSON, UTF-8) · tail (bytes)
 *
 * The tail is the concatenation of `parts` (byte lengths in the header). A tail of more than {@link FILE_BYTES} lies in a file
 * of the scratch directory instead: the header's `file` is its name, and whoever reads it removes it.
 */
import { randomBytes } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';

export const PROTOCOL_VERSION = 2;
export const FILE_BYTES = 4 << 20;
const MAX_HEADER = 4 << 20;
const MAX_TAIL = 64 << 20;

export type Header = Readonly<Record<string, unknown>>;

export interface Frame {
  readonly header: Header;
  readonly parts: readonly Uint8Array[];
}

/** Bytes that are no frame: the stream cannot go on. */
export class ProtocolError extends Error {
  readonly code = 'BAD_FRAME';
}

/** Frames from a stream of bytes, in order. Ends with the stream; throws {@link ProtocolError}. */
export async function* readFrames(
  stream: AsyncIterable<Uint8Array>,
  scratch: string,
): AsyncGenerator<Frame, void, undefined> {
  let chunks: Uint8Array[] = [];
  let held = 0;
  let wanted = 8;
  let sizes: readonly [number, number] | undefined;
  for await (const chunk of stream) {
    chunks.push(chunk);
    held += chunk.length;
    while (held >= wanted) {
      const bytes = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
      if (sizes === undefined) {
        const view = new DataView(bytes.buffer, bytes.byteOffset, 8);
        sizes = [view.getUint32(0, true), view.getUint32(4, true)];
        const [head, tail] = sizes;
        if (head > MAX_HEADER || tail > MAX_TAIL) throw new ProtocolError(`a frame of ${head} + ${tail} bytes`);
        wanted = 8 + head + tail;
        chunks = [bytes];
        continue;
      }
      const frame = bytes.subarray(0, wanted);
      chunks = held > wanted ? [bytes.subarray(wanted)] : [];
      held -= wanted;
      wanted = 8;
      const [head] = sizes;
      sizes = undefined;
      yield await parseFrame(frame.subarray(8, 8 + head), frame.subarray(8 + head), scratch);
    }
  }
  if (held > 0) throw new ProtocolError('the stream ended within a frame');
}

async function parseFrame(head: Uint8Array, tail: Uint8Array, scratch: string): Promise<Frame> {
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(head));
  } catch {
    throw new ProtocolError('a header that is not JSON');
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) {
    throw new ProtocolError('a header that is no object');
  }
  const { parts = [], file, ...rest } = header as Record<string, unknown>;
  if (file !== undefined) tail = await takeFile(scratch, file);
  if (!Array.isArray(parts) || !parts.every((size) => Number.isSafeInteger(size) && size >= 0)) {
    throw new ProtocolError('parts that are no lengths');
  }
  if (parts.reduce((sum: number, size: number) => sum + size, 0) !== tail.length) {
    throw new ProtocolError('parts that do not fit the tail');
  }
  let at = 0;
  const cut = parts.map((size: number) => {
    // Own copies, so that they may be seen as floats wherever they lay in the frame.
    const part = new Uint8Array(tail.subarray(at, at + size));
    at += size;
    return part;
  });
  return { header: rest, parts: cut };
}

async function takeFile(scratch: string, name: unknown): Promise<Uint8Array> {
  if (typeof name !== 'string' || basename(name) !== name || name.startsWith('.')) {
    throw new ProtocolError('a file outside the scratch directory');
  }
  const path = join(scratch, name);
  try {
    const bytes = await readFile(path);
    await rm(path);
    return bytes;
  } catch (cause) {
    throw new ProtocolError(`no file ${name}`, { cause });
  }
}

/** Bytes of a frame. A large tail is written into its file before; rejects when that fails (a full disk). */
export async function encodeFrame(header: Header, parts: readonly Uint8Array[], scratch: string): Promise<Uint8Array> {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const head: Record<string, unknown> = { ...header };
  if (parts.length > 0) head.parts = parts.map((part) => part.length);
  let tail = parts;
  if (size > FILE_BYTES) {
    const name = `call-${randomBytes(12).toString('hex')}`;
    head.file = name;
    tail = [];
    try {
      await writeFile(join(scratch, name), parts, { mode: 0o600, flag: 'wx' });
    } catch (error) {
      await rm(join(scratch, name), { force: true });
      throw error;
    }
  }
  const text = new TextEncoder().encode(JSON.stringify(head));
  if (text.length > MAX_HEADER) throw new ProtocolError(`a header of ${text.length} bytes`);
  const lengths = new Uint8Array(8);
  const view = new DataView(lengths.buffer);
  view.setUint32(0, text.length, true);
  view.setUint32(4, size > FILE_BYTES ? 0 : size, true);
  return Buffer.concat([lengths, text, ...tail]);
}
