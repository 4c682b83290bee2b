/** One LevelDB for all that the node keeps: columns by their first byte, synchronous reads, atomic batches. */
import { mkdir, realpath } from 'node:fs/promises';
import { Level } from 'level';
import { latin1 } from '../latin1.ts';
import { cutTable, damage, tablesIn, Watermark } from './watermark.ts';

export const COLUMN = {
  meta: 0,
  /** Trie nodes by path and version. */
  nodes: 1,
  /** State roots by block. */
  roots: 2,
  /** What a block added to and removed from the trie. */
  journal: 3,
  headers: 4,
  bodies: 5,
  justifications: 6,
  /** Block hash of the best chain by height. */
  canonical: 7,
  /** What consensus must not forget. */
  consensus: 8,
} as const;
export type Column = (typeof COLUMN)[keyof typeof COLUMN];

/** Layout of the columns; a database of a later one is refused. */
const SCHEMA = 1;

export class DatabaseError extends Error {
  readonly code:
    | 'NOT_WRITABLE'
    | 'LOCKED'
    | 'CORRUPT'
    | 'NEWER_VERSION'
    | 'OTHER_CHAIN'
    /** A write failed. Nothing of it is in the database, and nothing more can be written until it is opened again. */
    | 'DISK_FULL'
    | 'WRITE_FAILED';
  constructor(code: DatabaseError['code'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

type Bytes = Level<Uint8Array, Uint8Array>;

/** Threads of this process may open it as well; another process may not. */
const levelAt = (path: string): Bytes =>
  new Level(path, { keyEncoding: 'view', valueEncoding: 'view', multithreading: true });

/** Databases that are open for writing in this thread: LevelDB's own lock keeps out other processes only. */
const writers = new Set<string>();

/** What another thread of the process reads while this one writes. */
export class DatabaseReader {
  readonly #level: Bytes;

  private constructor(level: Bytes) {
    this.#level = level;
  }

  /** The database must be open in the process already. */
  static async open(path: string): Promise<DatabaseReader> {
    const level = levelAt(path);
    await level.open();
    return new DatabaseReader(level);
  }

  get(column: Column, key: Uint8Array): Uint8Array | undefined {
    return this.#level.getSync(keyIn(column, key));
  }

  close(): Promise<void> {
    return this.#level.close();
  }
}

const keyIn = (column: Column, key: Uint8Array): Uint8Array => {
  const out = new Uint8Array(key.length + 1);
  out[0] = column;
  out.set(key, 1);
  return out;
};

type Operation =
  | { readonly type: 'put'; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly type: 'del'; readonly key: Uint8Array };

interface Write {
  readonly operations: readonly Operation[];
  readonly sync: boolean;
  readonly done: () => void;
  readonly fail: (problem: DatabaseError) => void;
}

/** Changes that happen together or not at all. */
export class Batch {
  readonly #write: (operations: readonly Operation[], sync: boolean, ahead: boolean) => Promise<void>;
  readonly #operations: Operation[] = [];

  constructor(write: (operations: readonly Operation[], sync: boolean, ahead: boolean) => Promise<void>) {
    this.#write = write;
  }

  put(column: Column, key: Uint8Array, value: Uint8Array): void {
    this.#operations.push({ type: 'put', key: keyIn(column, key), value });
  }

  delete(column: Column, key: Uint8Array): void {
    this.#operations.push({ type: 'del', key: keyIn(column, key) });
  }

  get size(): number {
    return this.#operations.length;
  }

  /**
   * With `sync` it resolves when the batch would survive a power cut; without, when it would survive the process. Rejects with
   * {@link DatabaseError}. Batches are written in the order in which they were committed.
   *
   * With `ahead` it is read from now on, as if it had been written: for one who goes on with what stands on it. Should the
   * write fail, so does every later one, and none of them is in the database.
   */
  commit({ sync = false, ahead = false } = {}): Promise<void> {
    return this.#write(this.#operations, sync, ahead);
  }
}

/** Operations of batches that were committed ahead and are not written yet. */
class Unwritten {
  readonly #values = new Map<string, Uint8Array | undefined>();

  add(operations: readonly Operation[]): void {
    for (const each of operations) this.#values.set(latin1(each.key), each.type === 'put' ? each.value : undefined);
  }

  /** Whether it says something of the key, and what. */
  get(name: string): { readonly value: Uint8Array | undefined } | undefined {
    const value = this.#values.get(name);
    return value !== undefined || this.#values.has(name) ? { value } : undefined;
  }

  get size(): number {
    return this.#values.size;
  }
}

const nothing = () => ({ writes: [] as Write[], operations: 0, ahead: new Unwritten() });

const VERSION_KEY = new Uint8Array([0]);
const GENESIS_KEY = new Uint8Array([1]);
/** Counts durable writes. 2 to 4 are those of the blocks. */
const SEQUENCE_KEY = new Uint8Array([5]);

export class Database {
  readonly #level: Bytes;
  readonly #path: string;
  /** The path without links, as in {@link writers}. */
  readonly #place: string;
  readonly #watermark: Watermark;
  #sequence: number;
  #waiting = nothing();
  /** What is being written, as far as it is read already. */
  #going = new Unwritten();
  #writing: Promise<void> | undefined;
  #broken: DatabaseError | undefined;
  #fail: (problem: DatabaseError) => void = () => {};
  /** Rejects with the first write that fails; never resolves. Whoever runs on this database should stop then. */
  readonly failed: Promise<never>;

  private constructor(level: Bytes, path: string, place: string) {
    this.#level = level;
    this.#path = path;
    this.#place = place;
    this.#watermark = new Watermark(path);
    this.#sequence = readSequence(this.get(COLUMN.meta, SEQUENCE_KEY));
    this.failed = new Promise((_resolve, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => {});
  }

  /** Throws {@link DatabaseError}. */
  static async open(path: string): Promise<Database> {
    let tables: readonly string[];
    try {
      await mkdir(path, { recursive: true });
      const wrong = damage(path);
      if (wrong !== undefined) throw corrupt(path, wrong);
      tables = tablesIn(path);
    } catch (problem) {
      if (problem instanceof DatabaseError) throw problem;
      throw new DatabaseError('NOT_WRITABLE', `the directory ${path} cannot be written to`, { cause: problem });
    }
    const place = await realpath(path);
    if (writers.has(place)) throw new DatabaseError('LOCKED', `the database at ${path} is in use by this process`);
    writers.add(place);
    try {
      return await Database.#open(path, place, tables);
    } catch (problem) {
      writers.delete(place);
      throw problem;
    }
  }

  static async #open(path: string, place: string, tables: readonly string[]): Promise<Database> {
    const marked = Watermark.sequenceIn(path) ?? 0;
    const level = levelAt(path);
    try {
      await level.open();
    } catch (problem) {
      throw openingError(path, problem);
    }
    try {
      const cut = cutTable(path, tables);
      if (cut !== undefined) throw corrupt(path, `the file ${cut} was cut short`);
      const database = new Database(level, path, place);
      const version = database.get(COLUMN.meta, VERSION_KEY)?.[0];
      if (version !== undefined && version > SCHEMA) {
        throw new DatabaseError(
          'NEWER_VERSION',
          `the database at ${path} was written by a later version of this node (layout ${version}, known: ${SCHEMA})`,
        );
      }
      if (database.#sequence < marked) throw corrupt(path, 'it lacks what was written last');
      return database;
    } catch (problem) {
      await level.close();
      throw problem;
    }
  }

  get(column: Column, key: Uint8Array): Uint8Array | undefined {
    const wanted = keyIn(column, key);
    if (this.#waiting.ahead.size + this.#going.size > 0) {
      const name = latin1(wanted);
      const found = this.#waiting.ahead.get(name) ?? this.#going.get(name);
      if (found !== undefined) return found.value;
    }
    return this.#level.getSync(wanted);
  }

  batch(): Batch {
    return new Batch((operations, sync, ahead) => this.#write(operations, sync, ahead));
  }

  get path(): string {
    return this.#path;
  }

  /** Resolves when what was committed so far is written, so that other threads see it. */
  async written(): Promise<void> {
    await this.#writing;
  }

  /** Operations that wait to be written. */
  get backlog(): number {
    return this.#waiting.operations;
  }

  #write(operations: readonly Operation[], sync: boolean, ahead: boolean): Promise<void> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    const written = new Promise<void>((done, fail) => {
      this.#waiting.writes.push({ operations, sync, done, fail });
    });
    this.#waiting.operations += operations.length;
    if (ahead) this.#waiting.ahead.add(operations);
    this.#writing ??= this.#work();
    return written;
  }

  /** Writes what waits, as much of it at once as there is, until nothing does. */
  async #work(): Promise<void> {
    while (this.#waiting.writes.length > 0) {
      const { writes, ahead } = this.#waiting;
      this.#waiting = nothing();
      this.#going = ahead;
      const all = writes.length === 1 ? [...writes[0]!.operations] : writes.flatMap((each) => each.operations);
      try {
        if (this.#broken !== undefined) throw this.#broken;
        await (writes.some((each) => each.sync) ? this.#durably(all) : this.#level.batch(all, { sync: false }));
        for (const each of writes) each.done();
      } catch (problem) {
        // What fails once goes on failing: it is told to everyone.
        this.#broken ??= writingError(this.#path, problem as Error);
        this.#fail(this.#broken);
        for (const each of writes) each.fail(this.#broken);
      }
      this.#going = new Unwritten();
    }
    this.#writing = undefined;
  }

  #durably(operations: Operation[]): Promise<void> {
    const sequence = ++this.#sequence;
    const key = keyIn(COLUMN.meta, SEQUENCE_KEY);
    const mark: Operation = { type: 'put', key, value: encodeSequence(sequence) };
    return this.#watermark.around(sequence, () => this.#level.batch([...operations, mark], { sync: true }));
  }

  /** Entries of a column in ascending order of their keys, from `from` on. */
  async *entries(column: Column, from: Uint8Array = new Uint8Array()): AsyncGenerator<[Uint8Array, Uint8Array]> {
    await this.#writing;
    const range = { gte: keyIn(column, from), lt: new Uint8Array([column + 1]) };
    for await (const [key, value] of this.#level.iterator(range)) yield [key.subarray(1), value];
  }

  /** The genesis hash that the database belongs to; undefined while it is new. */
  genesis(): Uint8Array | undefined {
    return this.get(COLUMN.meta, GENESIS_KEY);
  }

  /** Notes which chain this is. */
  claim(batch: Batch, genesis: Uint8Array): void {
    batch.put(COLUMN.meta, VERSION_KEY, new Uint8Array([SCHEMA]));
    batch.put(COLUMN.meta, GENESIS_KEY, genesis);
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.#level.close();
    this.#watermark.close();
    writers.delete(this.#place);
  }
}

const readSequence = (value: Uint8Array | undefined): number =>
  value === undefined ? 0 : Number(new DataView(value.buffer, value.byteOffset, 8).getBigUint64(0));

function encodeSequence(sequence: number): Uint8Array {
  const out = new Uint8Array(8);
  new DataView(out.buffer).setBigUint64(0, BigInt(sequence));
  return out;
}

const corrupt = (path: string, what: string, cause?: unknown): DatabaseError =>
  new DatabaseError(
    'CORRUPT',
    `the database at ${path} is damaged: ${what}. Nothing was changed; put back a copy, or begin with an empty directory`,
    { cause },
  );

const NO_SPACE = /no space left|disk quota exceeded/i;

export function writingError(path: string, problem: Error): DatabaseError {
  return NO_SPACE.test(problem.message)
    ? new DatabaseError('DISK_FULL', `the disk with the database at ${path} is full`, { cause: problem })
    : new DatabaseError('WRITE_FAILED', `the database at ${path} cannot be written to: ${problem.message}`, {
        cause: problem,
      });
}

function openingError(path: string, problem: unknown): DatabaseError {
  const cause = (problem as { cause?: { code?: string; message?: string } }).cause;
  if (cause?.code === 'LEVEL_LOCKED') {
    return new DatabaseError('LOCKED', `the database at ${path} is in use by another process`, { cause: problem });
  }
  if (cause?.code === 'LEVEL_CORRUPTION' || /corrupt|missing files|bad record/i.test(cause?.message ?? '')) {
    return corrupt(path, cause?.message ?? 'it cannot be read', problem);
  }
  if (NO_SPACE.test(cause?.message ?? '')) return writingError(path, cause as Error);
  return new DatabaseError('NOT_WRITABLE', `the database at ${path} cannot be opened: ${cause?.message ?? problem}`, {
    cause: problem,
  });
}
