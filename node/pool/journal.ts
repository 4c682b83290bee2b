/**
 * Transactions that were given to this node and accepted, on disk until blocks hold them: what a client was told is accepted
 * survives the end of the process, however it ends. A power cut may take the last of them.
 *
 * The file is a sequence of extrinsics with their lengths before them (u32, little endian). What is written after an
 * incomplete one does not count; whatever is read is validated anew.
 */
import { closeSync, ftruncateSync, openSync, readFileSync, renameSync, write, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { joinBytes } from '../../runtime/primitives/bytes.ts';
import type { ChainEvents, Service } from '../ports/chain.ts';
import type { Log } from '../ports/machine.ts';

const writeTo = promisify(write);
/** Bytes appended, beyond which what has gone is left out. */
const REWRITE_AT = 4 * 1024 * 1024;
/** More than a block takes. */
const MAX_LENGTH = 16 * 1024 * 1024;

function framed(extrinsic: Uint8Array): Uint8Array {
  const out = new Uint8Array(4 + extrinsic.length);
  new DataView(out.buffer).setUint32(0, extrinsic.length, true);
  out.set(extrinsic, 4);
  return out;
}

function parse(bytes: Uint8Array): Uint8Array[] {
  const found: Uint8Array[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at + 4 <= bytes.length; ) {
    const length = view.getUint32(at, true);
    if (length === 0 || length > MAX_LENGTH || at + 4 + length > bytes.length) break;
    found.push(bytes.slice(at + 4, at + 4 + length));
    at += 4 + length;
  }
  return found;
}

export class TransactionJournal {
  readonly #path: string;
  #file: number;
  #bytes = 0;
  #waiting: Uint8Array[] = [];
  #flush: Promise<void> | undefined;
  /** One write after the other. */
  #tail: Promise<unknown> = Promise.resolve();
  /** What the last run left, in the order of its acceptance. */
  readonly left: readonly Uint8Array[];

  constructor(path: string) {
    this.#path = path;
    this.left = parse(readIfThere(path));
    this.#file = openSync(path, 'a', 0o600);
    this.#bytes = this.left.reduce((sum, each) => sum + each.length + 4, 0);
    // An incomplete end would hide what comes after it.
    ftruncateSync(this.#file, this.#bytes);
  }

  /** Resolves when the end of the process no longer matters. Those of one turn of the event loop are written together. */
  append(extrinsic: Uint8Array): Promise<void> {
    this.#waiting.push(framed(extrinsic));
    this.#flush ??= new Promise<void>((resolve, reject) => {
      setImmediate(() => {
        const chunk = joinBytes(this.#waiting);
        this.#waiting = [];
        this.#flush = undefined;
        this.#bytes += chunk.length;
        const done = this.#tail.then(() => this.#write(chunk));
        this.#tail = done.catch(() => {});
        done.then(resolve, reject);
      });
    });
    return this.#flush;
  }

  async #write(chunk: Uint8Array): Promise<void> {
    for (let at = 0; at < chunk.length; ) {
      const { bytesWritten } = await writeTo(this.#file, chunk, at, chunk.length - at, null);
      at += bytesWritten;
    }
  }

  /** Whether {@link keep} is worth its while, with so many transactions in the pool. */
  isDue(waiting: number): boolean {
    return this.#bytes > REWRITE_AT || (waiting === 0 && this.#bytes > 0);
  }

  /** Leaves out everything but these: those that are still in the pool. */
  keep(extrinsics: () => Iterable<Uint8Array>): Promise<void> {
    const done = this.#tail.then(() => {
      // Asked for at this moment: nothing can be accepted and written between.
      const kept = joinBytes([...[...extrinsics()].map(framed), ...this.#waiting]);
      const next = `${this.#path}.new`;
      writeFileSync(next, kept, { mode: 0o600 });
      renameSync(next, this.#path);
      closeSync(this.#file);
      this.#file = openSync(this.#path, 'a', 0o600);
      this.#bytes = kept.length;
    });
    this.#tail = done.catch(() => {});
    return done;
  }

  async close(): Promise<void> {
    await this.#flush?.catch(() => {});
    await this.#tail;
    closeSync(this.#file);
  }
}

interface JournaledPool {
  submit(extrinsic: Uint8Array, origin: 'local'): Promise<unknown>;
  status(): { readonly ready: number; readonly future: number };
  locals(): Iterable<Uint8Array>;
}

/** Gives the pool back what the last run left, and keeps the file short from then on. */
export function journaling(journal: TransactionJournal, pool: JournaledPool, events: ChainEvents, log: Log): Service {
  return {
    name: 'transaction journal',
    async run(signal) {
      const results = await Promise.allSettled(journal.left.map((each) => pool.submit(each, 'local')));
      // The rest is in blocks, or not valid any more.
      const back = results.filter(({ status }) => status === 'fulfilled').length;
      if (back > 0) log('info', `${back} transactions of the last run are back in the pool`);
      const unsubscribe = events.subscribe((event) => {
        const { ready, future } = pool.status();
        if (event.type !== 'imported' || !journal.isDue(ready + future)) return;
        journal
          .keep(() => pool.locals())
          .catch((problem: unknown) => {
            log('warn', 'the journal of transactions could not be shortened', { problem: String(problem) });
          });
      });
      if (!signal.aborted) {
        await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      }
      unsubscribe();
    },
  };
}

function readIfThere(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (problem) {
    if ((problem as NodeJS.ErrnoException).code === 'ENOENT') return new Uint8Array();
    throw problem;
  }
}
