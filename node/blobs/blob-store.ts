/**
 * Content-addressed files: records, adapters, features. A blob's name is the blake2b-256 of its bytes. It is taken in only
 * when the chain has committed to its hash, up to the size declared there, and is hashed while it streams in.
 */
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { blake2b } from '@noble/hashes/blake2.js';
import { toHex } from '../../runtime/primitives/bytes.ts';
import type { Hash } from '../../runtime/primitives/types.ts';

export type BlobErrorCode =
  /** The chain knows of no such blob. */
  | 'NOT_EXPECTED'
  | 'TOO_LARGE'
  | 'TRUNCATED'
  | 'WRONG_HASH'
  /** The store's own bound, or the disk's. */
  | 'STORE_FULL'
  | 'NOT_FOUND'
  | 'BAD_RANGE';

export class BlobError extends Error {
  readonly code: BlobErrorCode;
  constructor(code: BlobErrorCode, message: string) {
    super(message);
    this.code = code;
  }
}

export interface BlobStoreOptions {
  readonly directory: string;
  /** Bytes of all blobs together, at most. */
  readonly maxBytes: number;
  /** The sizes that the chain's claims give a blob; none if nobody has claimed it. Only one of them can be right. */
  expected(hash: Hash): readonly number[];
}

const TEMPORARY = 'incoming';
/** Left free on the disk for the database. */
const DISK_RESERVE = 256 * 1024 * 1024;
const NAME = /^[0-9a-f]{64}$/;

const nameOf = (hash: Uint8Array): string => toHex(hash).slice(2);

export class BlobStore {
  readonly #options: BlobStoreOptions;
  readonly #sizes: Map<string, number>;
  #stored: number;
  /** Bytes promised to uploads under way. */
  #promised = 0;
  #next = 0;
  /** Blobs whose bytes have had their hash since the store was opened. */
  readonly #verified = new Set<string>();

  private constructor(options: BlobStoreOptions, sizes: Map<string, number>) {
    this.#options = options;
    this.#sizes = sizes;
    this.#stored = [...sizes.values()].reduce((sum, size) => sum + size, 0);
  }

  /** Reads the directory; what was left of interrupted uploads is removed. */
  static async open(options: BlobStoreOptions): Promise<BlobStore> {
    const { directory } = options;
    await rm(join(directory, TEMPORARY), { recursive: true, force: true });
    await mkdir(join(directory, TEMPORARY), { recursive: true });
    const sizes = new Map<string, number>();
    for (const shard of await readdir(directory)) {
      if (shard === TEMPORARY) continue;
      for (const name of await readdir(join(directory, shard))) {
        if (NAME.test(name)) sizes.set(name, (await stat(join(directory, shard, name))).size);
      }
    }
    return new BlobStore(options, sizes);
  }

  get usage(): { readonly blobs: number; readonly bytes: number; readonly maxBytes: number } {
    return { blobs: this.#sizes.size, bytes: this.#stored, maxBytes: this.#options.maxBytes };
  }

  has(hash: Uint8Array): boolean {
    return this.#sizes.has(nameOf(hash));
  }

  /** Whether the chain has committed to it. */
  expects(hash: Hash): boolean {
    return this.#options.expected(hash).length > 0;
  }

  size(hash: Uint8Array): number | undefined {
    return this.#sizes.get(nameOf(hash));
  }

  hashes(): IterableIterator<string> {
    return this.#sizes.keys();
  }

  #path(name: string): string {
    return join(this.#options.directory, name.slice(0, 2), name);
  }

  /**
   * Takes a blob in. `size`: how large it is by the word of whoever sends it, if that is known. Once this resolves the blob
   * survives a power cut. Throws {@link BlobError}; a second upload of what is there already is read no further than its start.
   */
  async put(hash: Hash, body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, size?: number): Promise<void> {
    const name = nameOf(hash);
    if (this.#sizes.has(name)) return;
    const claimed = this.#options.expected(hash);
    const possible = size === undefined ? claimed : claimed.filter((each) => each === size);
    if (possible.length === 0) {
      const as = size === undefined ? '' : ` of ${size} bytes`;
      throw new BlobError('NOT_EXPECTED', `the chain has committed to no blob 0x${name}${as}`);
    }
    const most = possible.reduce((a, b) => Math.max(a, b));
    await this.#reserve(most);
    const temporary = join(this.#options.directory, TEMPORARY, `${name}.${this.#next++}`);
    let received: number;
    try {
      received = await this.#receive(temporary, hash, possible, body);
      await mkdir(join(this.#options.directory, name.slice(0, 2)), { recursive: true });
      await rename(temporary, this.#path(name));
      await syncDirectory(join(this.#options.directory, name.slice(0, 2)));
    } catch (problem) {
      await unlink(temporary).catch(() => {});
      throw outOfSpace(problem) ? new BlobError('STORE_FULL', 'the disk is full') : problem;
    } finally {
      this.#promised -= most;
    }
    if (!this.#sizes.has(name)) this.#stored += received;
    this.#sizes.set(name, received);
    this.#verified.add(name);
  }

  async #reserve(size: number): Promise<void> {
    const { directory, maxBytes } = this.#options;
    if (this.#stored + this.#promised + size > maxBytes) {
      throw new BlobError('STORE_FULL', `the store holds at most ${maxBytes} bytes`);
    }
    this.#promised += size;
    const { bavail, bsize } = await statfs(directory);
    if (bavail * bsize - this.#promised < DISK_RESERVE) {
      this.#promised -= size;
      throw new BlobError('STORE_FULL', 'the disk is nearly full');
    }
  }

  async #receive(
    path: string,
    hash: Hash,
    sizes: readonly number[],
    body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<number> {
    const most = sizes.reduce((a, b) => Math.max(a, b));
    const file = await open(path, 'wx', 0o600);
    try {
      const hasher = blake2b.create({ dkLen: 32 });
      let received = 0;
      for await (const chunk of body) {
        received += chunk.length;
        if (received > most) throw new BlobError('TOO_LARGE', `more than the ${most} bytes that were committed to`);
        hasher.update(chunk);
        await file.write(chunk);
      }
      if (!sizes.includes(received)) throw new BlobError('TRUNCATED', `${received} of ${sizes.join(' or ')} bytes`);
      const actual = hasher.digest();
      if (nameOf(actual) !== nameOf(hash))
        throw new BlobError('WRONG_HASH', `these bytes have the hash ${toHex(actual)}`);
      await file.sync();
      return received;
    } finally {
      await file.close();
    }
  }

  /** A stream of `length` bytes from `offset` (default: all). Throws {@link BlobError}. */
  stream(hash: Uint8Array, offset = 0, length?: number): Readable {
    const name = nameOf(hash);
    const size = this.#sizes.get(name);
    if (size === undefined) throw new BlobError('NOT_FOUND', `no blob 0x${name} here`);
    const count = length ?? size - offset;
    if (offset < 0 || count < 0 || offset + count > size) {
      throw new BlobError('BAD_RANGE', `bytes ${offset}–${offset + count - 1} of ${size}`);
    }
    if (count === 0) return Readable.from([]);
    return createReadStream(this.#path(name), { start: offset, end: offset + count - 1 });
  }

  /** The file that the blob lies in, for reading. Throws {@link BlobError}. */
  fileOf(hash: Uint8Array): string {
    const name = nameOf(hash);
    if (!this.#sizes.has(name)) throw new BlobError('NOT_FOUND', `no blob 0x${name} here`);
    return this.#path(name);
  }

  /** The whole blob, or a part of it. Throws {@link BlobError}. */
  async read(hash: Uint8Array, offset = 0, length?: number): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    for await (const part of this.stream(hash, offset, length)) parts.push(part as Uint8Array);
    return Buffer.concat(parts);
  }

  /**
   * Whether the blob is here and its bytes, read once since the store was opened, have its hash. One that was damaged on the
   * disk is removed.
   */
  async verify(hash: Uint8Array): Promise<boolean> {
    const name = nameOf(hash);
    if (!this.#sizes.has(name) || this.#verified.has(name)) return this.#sizes.has(name);
    const hasher = blake2b.create({ dkLen: 32 });
    try {
      for await (const part of this.stream(hash)) hasher.update(part as Uint8Array);
    } catch (problem) {
      if ((problem as NodeJS.ErrnoException).code !== 'ENOENT') throw problem;
    }
    if (nameOf(hasher.digest()) === name) this.#verified.add(name);
    else await this.remove(hash);
    return this.#sizes.has(name);
  }

  /** Forgets a blob. */
  async remove(hash: Uint8Array): Promise<void> {
    const name = nameOf(hash);
    const size = this.#sizes.get(name);
    if (size === undefined) return;
    this.#sizes.delete(name);
    this.#verified.delete(name);
    this.#stored -= size;
    await rm(this.#path(name), { force: true });
  }
}

const outOfSpace = (problem: unknown): boolean => (problem as NodeJS.ErrnoException).code === 'ENOSPC';

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
