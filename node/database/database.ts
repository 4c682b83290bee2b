/** One LevelDB for all that the node keeps: columns by their first byte, synchronous reads, atomic batches. */
import { mkdir } from 'node:fs/promises';
import { Level } from 'level';

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
  readonly code: 'NOT_WRITABLE' | 'LOCKED' | 'CORRUPT' | 'NEWER_VERSION' | 'OTHER_CHAIN';
  constructor(code: DatabaseError['code'], message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

type Bytes = Level<Uint8Array, Uint8Array>;

const keyIn = (column: Column, key: Uint8Array): Uint8Array => {
  const out = new Uint8Array(key.length + 1);
  out[0] = column;
  out.set(key, 1);
  return out;
};

type Operation =
  | { readonly type: 'put'; readonly key: Uint8Array; readonly value: Uint8Array }
  | { readonly type: 'del'; readonly key: Uint8Array };

/** Changes that happen together or not at all. */
export class Batch {
  readonly #level: Bytes;
  readonly #operations: Operation[] = [];

  constructor(level: Bytes) {
    this.#level = level;
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

  /** With `sync` it resolves when the batch would survive a power cut; without, when it would survive the process. */
  async commit({ sync = false } = {}): Promise<void> {
    await this.#level.batch(this.#operations, { sync });
  }
}

const VERSION_KEY = new Uint8Array([0]);
const GENESIS_KEY = new Uint8Array([1]);

export class Database {
  readonly #level: Bytes;

  private constructor(level: Bytes) {
    this.#level = level;
  }

  /** Throws {@link DatabaseError}. */
  static async open(path: string): Promise<Database> {
    try {
      await mkdir(path, { recursive: true });
    } catch (problem) {
      throw new DatabaseError('NOT_WRITABLE', `the directory ${path} cannot be written to`, { cause: problem });
    }
    const level: Bytes = new Level(path, { keyEncoding: 'view', valueEncoding: 'view' });
    try {
      await level.open();
    } catch (problem) {
      throw openingError(path, problem);
    }
    const database = new Database(level);
    const version = database.get(COLUMN.meta, VERSION_KEY)?.[0];
    if (version !== undefined && version > SCHEMA) {
      await level.close();
      throw new DatabaseError(
        'NEWER_VERSION',
        `the database at ${path} was written by a later version of this node (layout ${version}, known: ${SCHEMA})`,
      );
    }
    return database;
  }

  get(column: Column, key: Uint8Array): Uint8Array | undefined {
    return this.#level.getSync(keyIn(column, key));
  }

  batch(): Batch {
    return new Batch(this.#level);
  }

  /** Entries of a column in ascending order of their keys, from `from` on. */
  async *entries(column: Column, from: Uint8Array = new Uint8Array()): AsyncGenerator<[Uint8Array, Uint8Array]> {
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
    await this.#level.close();
  }
}

function openingError(path: string, problem: unknown): DatabaseError {
  const cause = (problem as { cause?: { code?: string; message?: string } }).cause;
  if (cause?.code === 'LEVEL_LOCKED') {
    return new DatabaseError('LOCKED', `the database at ${path} is in use by another process`, { cause: problem });
  }
  if (cause?.code === 'LEVEL_CORRUPTION' || /corrupt|missing files|bad record/i.test(cause?.message ?? '')) {
    return new DatabaseError('CORRUPT', `the database at ${path} is damaged: ${cause?.message}`, { cause: problem });
  }
  return new DatabaseError('NOT_WRITABLE', `the database at ${path} cannot be opened: ${cause?.message ?? problem}`, {
    cause: problem,
  });
}
