/**
 * Uploads under way. None reserves room: what counts is what has come. Each has to come at a least rate, and where all of them
 * together have more than their part of the store, the slowest one makes room.
 */
import { BlobError } from './errors.ts';

/** A blob has to come so fast, after a while to begin: 1 GiB in 18 hours at the longest. */
const PACE = { graceMs: 30_000, bytesPerSecond: 16 * 1024 } as const;
/** An upload that stands still so long is given up. */
const IDLE_MS = 30_000;

type Body = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

interface Upload {
  readonly since: number;
  received: number;
  /** Ends it with an error. */
  stop(problem: BlobError): void;
}

export interface IncomingOptions {
  /** Bytes of all uploads under way, at most. */
  readonly maxBytes: number;
  readonly now: () => number;
  readonly idleMs?: number;
}

export class Incoming {
  readonly #options: IncomingOptions;
  readonly #uploads = new Set<Upload>();
  #bytes = 0;

  constructor(options: IncomingOptions) {
    this.#options = options;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The chunks of a body, for as long as they come fast enough. Throws {@link BlobError} `TOO_SLOW` or `BUSY`. */
  async *chunks(body: Body): AsyncGenerator<Uint8Array> {
    const { now, maxBytes, idleMs = IDLE_MS } = this.#options;
    let stop: (problem: BlobError) => void = () => {};
    const stopped = new Promise<never>((_, reject) => {
      stop = reject;
    });
    stopped.catch(() => {});
    const upload: Upload = { since: now(), received: 0, stop };
    this.#uploads.add(upload);
    const iterator = iterate(body);
    try {
      for (;;) {
        const idle = setTimeout(() => stop(new BlobError('TOO_SLOW', 'nothing comes any more')), idleMs);
        idle.unref();
        let step: IteratorResult<Uint8Array>;
        try {
          step = await Promise.race([iterator.next(), stopped]);
        } finally {
          clearTimeout(idle);
        }
        if (!this.#uploads.has(upload)) await stopped;
        if (step.done) return;
        upload.received += step.value.length;
        this.#bytes += step.value.length;
        const late = now() - upload.since - PACE.graceMs;
        if (late > 0 && upload.received * 1_000 < late * PACE.bytesPerSecond) {
          throw new BlobError('TOO_SLOW', `a blob has to come at ${PACE.bytesPerSecond} bytes a second`);
        }
        while (this.#bytes > maxBytes) this.#dropSlowest();
        yield step.value;
      }
    } finally {
      this.#drop(upload);
      // A body that stands still does not answer: nobody waits for it.
      void Promise.resolve(iterator.return?.()).catch(() => {});
    }
  }

  #dropSlowest(): void {
    const now = this.#options.now();
    const rate = ({ since, received }: Upload): number => received / Math.max(1, now - since);
    const slowest = [...this.#uploads].reduce((a, b) => (rate(b) < rate(a) ? b : a));
    this.#drop(slowest);
    slowest.stop(new BlobError('BUSY', 'too much is handed in at once, and others are faster'));
  }

  #drop(upload: Upload): void {
    if (!this.#uploads.delete(upload)) return;
    this.#bytes -= upload.received;
  }
}

async function* fromIterable(body: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* body;
}

const iterate = (body: Body): AsyncIterator<Uint8Array> =>
  Symbol.asyncIterator in body ? body[Symbol.asyncIterator]() : fromIterable(body);
