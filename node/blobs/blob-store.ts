/**
 * Content-addressed files: records, adapters, features. A blob's name is the blake2b-256 of its bytes. It is taken in only
 * when the chain has claims on its hash, with a size that one of them names, as far as there is room for whoever claims it
 * ({@link Room}), and is hashed while it streams in. What nobody claims any more makes room for what somebody does.
 */
import { createReadStream } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat, statfs, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { blake2b } from '@noble/hashes/blake2.js';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';
import type { BlobClaim } from './committed.ts';
import { BlobError } from './errors.ts';
import { Incoming } from './incoming.ts';
import { type Claimant, claimantsOf, Room } from './room.ts';

export { BlobError, type BlobErrorCode } from './errors.ts';

export interface BlobStoreOptions {
  readonly directory: string;
  /** Bytes of all blobs together, at most. */
  readonly maxBytes: number;
  /** The chain's claims on a blob; none if nobody has claimed it. Of the sizes that they name only one can be right. */
  claims(hash: Hash): readonly BlobClaim[];
  /** Milliseconds that only grow (default: the machine's). */
  readonly now?: () => number;
  /** An upload that stands still so long is given up (default: 30 s). */
  readonly idleMs?: number;
}

interface Stored {
  readonly size: number;
  /** Whose room it takes; nobody's, if nobody claims it any more. */
  claimant: Claimant | undefined;
}

const TEMPORARY = 'incoming';
/** Left free on the disk for the database. */
const DISK_RESERVE = 256 * 1024 * 1024;
/** Bytes of an upload after which the disk is looked at again. */
const DISK_LOOK = 32 * 1024 * 1024;
/** Part of the store that uploads under way may take beside what is stored. */
const INCOMING_PERCENT = 25;
const NAME = /^[0-9a-f]{64}$/;

const nameOf = (hash: Uint8Array): string => toHex(hash).slice(2);

export class BlobStore {
  readonly #options: BlobStoreOptions;
  readonly #blobs = new Map<string, Stored>();
  readonly #room: Room;
  readonly #incoming: Incoming;
  #stored = 0;
  #next = 0;
  readonly #ending = new Map<string, Promise<void>>();
  /** Blobs whose bytes have had their hash since the store was opened. */
  readonly #verified = new Set<string>();

  private constructor(options: BlobStoreOptions, sizes: ReadonlyMap<string, number>) {
    const { maxBytes, now = () => performance.now(), idleMs } = options;
    this.#options = options;
    this.#room = new Room(maxBytes);
    const incoming = Math.floor((maxBytes * INCOMING_PERCENT) / 100);
    this.#incoming = new Incoming({ maxBytes: incoming, now, ...(idleMs !== undefined && { idleMs }) });
    for (const [name, size] of sizes) {
      const claimant = this.#claimants(name, size)[0];
      this.#blobs.set(name, { size, claimant });
      this.#charge(size, claimant);
    }
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
    return { blobs: this.#blobs.size, bytes: this.#stored, maxBytes: this.#options.maxBytes };
  }

  has(hash: Uint8Array): boolean {
    return this.#blobs.has(nameOf(hash));
  }

  /** Whether the chain has committed to it. */
  expects(hash: Hash): boolean {
    return this.#options.claims(hash).length > 0;
  }

  size(hash: Uint8Array): number | undefined {
    return this.#blobs.get(nameOf(hash))?.size;
  }

  hashes(): IterableIterator<string> {
    return this.#blobs.keys();
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
    if (this.#blobs.has(name)) return;
    const claimed = this.#options.claims(hash).map(({ bytes }) => bytes);
    const possible = size === undefined ? claimed : claimed.filter((each) => each === size);
    if (possible.length === 0) {
      const as = size === undefined ? '' : ` of ${size} bytes`;
      throw new BlobError('NOT_EXPECTED', `the chain has committed to no blob 0x${name}${as}`);
    }
    // Whether there is room is asked again when the blob has come: nothing is kept free for it meanwhile.
    if (!possible.some((each) => this.#payer(name, each) !== undefined)) throw this.#noRoom();
    const temporary = join(this.#options.directory, TEMPORARY, `${name}.${this.#next++}`);
    try {
      const received = await this.#receive(temporary, hash, possible, body);
      // Of several uploads of one blob that end at the same time, the others find it there.
      for (let other = this.#ending.get(name); other !== undefined; other = this.#ending.get(name)) {
        await other.catch(() => {});
      }
      if (this.#blobs.has(name)) return;
      const ending = this.#keep(name, temporary, received).finally(() => this.#ending.delete(name));
      this.#ending.set(name, ending);
      await ending;
    } catch (problem) {
      throw outOfSpace(problem) ? new BlobError('STORE_FULL', 'the disk is full') : problem;
    } finally {
      await unlink(temporary).catch(() => {});
    }
  }

  /** A blob that has come whole takes its place. */
  async #keep(name: string, temporary: string, size: number): Promise<void> {
    await this.#makeRoom(size);
    const payer = this.#payer(name, size) ?? failWith(this.#noRoom());
    // From here on the room is taken, so that others who end at the same time do not take it too.
    this.#charge(size, payer);
    try {
      const directory = join(this.#options.directory, name.slice(0, 2));
      await mkdir(directory, { recursive: true });
      await rename(temporary, this.#path(name));
      await syncDirectory(directory);
    } catch (problem) {
      this.#charge(-size, payer);
      throw problem;
    }
    this.#blobs.set(name, { size, claimant: payer });
    this.#verified.add(name);
  }

  #claimants(name: string, size: number): readonly Claimant[] {
    return claimantsOf(this.#options.claims(asHash(fromHex(name))), size);
  }

  /** Who has room for a blob of that size; undefined if none of those who claim it. */
  #payer(name: string, size: number): Claimant | undefined {
    return this.#claimants(name, size).find((each) => this.#room.leftFor(each) >= size);
  }

  #noRoom(): BlobError {
    const { maxBytes } = this.#options;
    return new BlobError(
      'STORE_FULL',
      `this node keeps ${maxBytes} bytes and has no room for more of this kind or account`,
    );
  }

  #charge(size: number, claimant: Claimant | undefined): void {
    this.#stored += size;
    if (claimant !== undefined) this.#room.charge(claimant, size);
  }

  #forget(name: string): void {
    const found = this.#blobs.get(name);
    if (found === undefined) return;
    this.#blobs.delete(name);
    this.#verified.delete(name);
    this.#charge(-found.size, found.claimant);
  }

  /** Removes what nobody claims, as far as that is needed. */
  async #makeRoom(size: number): Promise<void> {
    const { maxBytes } = this.#options;
    for (const [name, { claimant }] of this.#blobs) {
      if (this.#stored + size <= maxBytes) return;
      if (claimant === undefined) await this.remove(fromHex(name));
    }
    if (this.#stored + size > maxBytes) throw this.#noRoom();
  }

  /**
   * Asks the chain again who claims what is here, and charges them for it. Returns the blobs that nobody claims.
   */
  review(): Hash[] {
    const unclaimed: Hash[] = [];
    for (const [name, stored] of this.#blobs) {
      const { size, claimant } = stored;
      const claimants = this.#claimants(name, size);
      const isSame = (each: Claimant): boolean => each.kind === claimant?.kind && each.account === claimant.account;
      if (!claimants.some(isSame)) {
        if (claimant !== undefined) this.#room.charge(claimant, -size);
        stored.claimant = claimants[0];
        if (stored.claimant !== undefined) this.#room.charge(stored.claimant, size);
      }
      if (stored.claimant === undefined) unclaimed.push(asHash(fromHex(name)));
    }
    return unclaimed;
  }

  async #checkDisk(): Promise<void> {
    const { bavail, bsize } = await statfs(this.#options.directory);
    if (bavail * bsize < DISK_RESERVE) throw new BlobError('STORE_FULL', 'the disk is nearly full');
  }

  async #receive(
    path: string,
    hash: Hash,
    sizes: readonly number[],
    body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<number> {
    const most = sizes.reduce((a, b) => Math.max(a, b));
    await this.#checkDisk();
    const file = await open(path, 'wx', 0o600);
    try {
      const hasher = blake2b.create({ dkLen: 32 });
      let received = 0;
      let checked = 0;
      for await (const chunk of this.#incoming.chunks(body)) {
        received += chunk.length;
        if (received > most) throw new BlobError('TOO_LARGE', `more than the ${most} bytes that were committed to`);
        hasher.update(chunk);
        await file.write(chunk);
        if (received - checked < DISK_LOOK) continue;
        checked = received;
        await this.#checkDisk();
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
    const size = this.#blobs.get(name)?.size;
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
    if (!this.#blobs.has(name)) throw new BlobError('NOT_FOUND', `no blob 0x${name} here`);
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
    if (!this.#blobs.has(name) || this.#verified.has(name)) return this.#blobs.has(name);
    const hasher = blake2b.create({ dkLen: 32 });
    try {
      for await (const part of this.stream(hash)) hasher.update(part as Uint8Array);
    } catch (problem) {
      if ((problem as NodeJS.ErrnoException).code !== 'ENOENT') throw problem;
    }
    if (nameOf(hasher.digest()) === name) this.#verified.add(name);
    else await this.remove(hash);
    return this.#blobs.has(name);
  }

  /** Forgets a blob. */
  async remove(hash: Uint8Array): Promise<void> {
    const name = nameOf(hash);
    if (!this.#blobs.has(name)) return;
    this.#forget(name);
    await rm(this.#path(name), { force: true });
  }
}

function failWith(problem: Error): never {
  throw problem;
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
