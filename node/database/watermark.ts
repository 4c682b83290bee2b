/**
 * How far the database is known to be durable, beside the database. LevelDB takes a file that was cut short for one that was
 * never written to the end, goes on without what is missing and removes what it then has no use for: a voter would forget its
 * votes. So every durable write raises a mark, and a database that lies below its mark is not opened.
 *
 * The mark is written without a flush. It may itself be behind after a power cut, and says less then, never too much.
 */
import { closeSync, constants, openSync, readdirSync, readFileSync, readSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';

interface Length {
  readonly name: string;
  readonly bytes: number;
}

interface Mark {
  /** Of the last durable write. */
  readonly sequence: number;
  readonly manifest: Length | undefined;
  readonly log: Length | undefined;
}

const FILE = 'HIGH-WATER';
/** One write of so many bytes: no crash of this process leaves half a mark. */
const BYTES = 256;
/** The last eight bytes of every table of LevelDB (table_format.md). */
const TABLE_MAGIC = Buffer.from('57fb808b247547db', 'hex');
const isTable = (name: string): boolean => /\.(ldb|sst)$/.test(name);

function lengthOf(directory: string, name: string): Length | undefined {
  const found = statSync(join(directory, name), { throwIfNoEntry: false });
  return found && { name, bytes: found.size };
}

/** Undefined when there is none, or none that can be read, which a power cut may come to. */
function readMark(directory: string): Mark | undefined {
  try {
    const mark = JSON.parse(readFileSync(join(directory, FILE), 'utf8')) as Mark;
    return Number.isSafeInteger(mark.sequence) ? mark : undefined;
  } catch {
    return undefined;
  }
}

/** What is wrong with the files of a database that is not open, before anything touches them. */
export function damage(directory: string): string | undefined {
  const names = readdirSync(directory);
  if (names.some((name) => isTable(name) || name.startsWith('MANIFEST-')) && !names.includes('CURRENT')) {
    return 'the file CURRENT is missing';
  }
  const mark = readMark(directory);
  for (const known of [mark?.manifest, mark?.log]) {
    // Those that are gone were replaced by others.
    const found = known && lengthOf(directory, known.name);
    if (found !== undefined && found.bytes < known!.bytes) {
      return `the file ${found.name} was cut short: ${found.bytes} bytes of at least ${known!.bytes}`;
    }
  }
  return undefined;
}

/** The tables that are there before the database is opened, which removes those that it has no use for. */
export const tablesIn = (directory: string): readonly string[] => readdirSync(directory).filter(isTable);

/** The first of these tables, as far as they are still there, that does not end as a table does. */
export function cutTable(directory: string, tables: readonly string[]): string | undefined {
  const end = Buffer.alloc(TABLE_MAGIC.length);
  return tables.find((name) => {
    let file: number;
    try {
      file = openSync(join(directory, name), 'r');
    } catch (problem) {
      if ((problem as NodeJS.ErrnoException).code === 'ENOENT') return false;
      throw problem;
    }
    try {
      const at = statSync(join(directory, name)).size - end.length;
      return at < 0 || readSync(file, end, 0, end.length, at) < end.length || !end.equals(TABLE_MAGIC);
    } finally {
      closeSync(file);
    }
  });
}

const newestLog = (directory: string): string | undefined =>
  readdirSync(directory)
    .filter((name) => /^\d+\.log$/.test(name))
    .sort()
    .at(-1);

export class Watermark {
  readonly #directory: string;
  readonly #file: number;
  readonly #manifest: string;
  #log: string | undefined;
  /** As seen before the last durable write: by now that length is durable. */
  #manifestLength: Length | undefined;

  /** Of a database that was just opened. */
  constructor(directory: string) {
    this.#directory = directory;
    this.#file = openSync(join(directory, FILE), constants.O_RDWR | constants.O_CREAT, 0o644);
    this.#manifest = readFileSync(join(directory, 'CURRENT'), 'utf8').trim();
  }

  static sequenceIn(directory: string): number | undefined {
    return readMark(directory)?.sequence;
  }

  /** Runs a durable write and raises the mark afterwards. Writes must come one after the other. */
  async around(sequence: number, write: () => Promise<void>): Promise<void> {
    const before = this.#log === undefined ? undefined : lengthOf(this.#directory, this.#log);
    const manifest = this.#manifestLength;
    this.#manifestLength = lengthOf(this.#directory, this.#manifest);
    await write();
    const after = before && lengthOf(this.#directory, before.name);
    // Unless it grew, the write went into the next log, and the end of this one may be lost in a power cut.
    const log = after !== undefined && after.bytes > before!.bytes ? before : undefined;
    if (log === undefined) this.#log = newestLog(this.#directory);
    const mark: Mark = { sequence, manifest, log };
    writeSync(this.#file, JSON.stringify(mark).padEnd(BYTES), 0);
  }

  close(): void {
    closeSync(this.#file);
  }
}
