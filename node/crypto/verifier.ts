/**
 * Checks signatures on worker threads, in batches, and puts the outcomes into the signature cache, from where the
 * synchronous checks of the runtime take them.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import type { SignatureCheck } from '../../runtime/executive/executive.ts';
import type { Hashing } from '../../runtime/host.ts';
import { equalBytes } from '../../runtime/primitives/bytes.ts';
import { type Answer, ask, type Question, type SignatureCache } from './signatures.ts';
import { packQuestions, unpackAnswers } from './verifier-messages.ts';

export class VerifierError extends Error {
  /** `OVERLOADED`: too many checks wait already. `FAILED`: the threads that tried this check died of it. */
  readonly code: 'OVERLOADED' | 'CLOSED' | 'FAILED';
  constructor(code: VerifierError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

export interface VerifierOptions {
  readonly signatures: SignatureCache;
  readonly hashing: Pick<Hashing, 'blake2_256'>;
  /** Default: one a core, at most four. With 0 everything runs on the calling thread, in small portions. */
  readonly threads?: number;
  /** Checks that may wait or be under way before `verify` refuses more. */
  readonly maxPending?: number;
  /** Closes the verifier. */
  readonly signal?: AbortSignal;
}

interface Job {
  readonly question: Question;
  readonly name: string;
  readonly settle: (answer: Answer) => void;
  readonly fail: (error: VerifierError) => void;
  /** Threads that died over it. */
  deaths: number;
}

interface Thread {
  readonly worker: Worker;
  /** Batches sent and not answered yet, oldest first. */
  readonly batches: Job[][];
  proven: boolean;
}

/** Large enough to make the messages cheap, small enough to keep all threads busy and latency low. */
const MAX_BATCH = 64;
/** While one is computed the next one waits in the thread, so that it need not wait for this thread. */
const BATCHES_PER_THREAD = 2;
const MAX_RESTARTS = 8;
const MAX_DEATHS = 2;
/** How long the calling thread checks signatures before it lets others run, when there are no threads. */
const PORTION_MS = 4;

export class Verifier {
  readonly #cache: SignatureCache;
  readonly #hashing: Pick<Hashing, 'blake2_256'>;
  readonly #maxPending: number;
  readonly #threads = new Set<Thread>();
  readonly #detach: () => void;
  #queue: Job[] = [];
  #pending = 0;
  #restarts = 0;
  #dispatching = false;
  #closed = false;
  /** Threads cost memory and a moment of every core: they come with the first signature. */
  #unstarted: number;

  constructor(options: VerifierOptions) {
    const { signatures, hashing, threads = Math.min(availableParallelism(), 4), maxPending = 65_536, signal } = options;
    this.#cache = signatures;
    this.#hashing = hashing;
    this.#maxPending = maxPending;
    this.#unstarted = threads;
    const abort = () => void this.close();
    signal?.addEventListener('abort', abort, { once: true });
    this.#detach = () => signal?.removeEventListener('abort', abort);
    if (signal?.aborted) abort();
  }

  /** Checks waiting or under way, and live threads. */
  get load(): { readonly pending: number; readonly threads: number } {
    return { pending: this.#pending, threads: this.#threads.size };
  }

  /** Whether each of the signatures holds. Rejects with {@link VerifierError}. */
  async verify(checks: readonly SignatureCheck[]): Promise<readonly boolean[]> {
    if (this.#closed) throw new VerifierError('CLOSED', 'the signature verifier is closed');
    // However long, one list is let in when nothing waits: a block must be verifiable.
    if (this.#pending > 0 && this.#pending + checks.length > this.#maxPending) {
      throw new VerifierError('OVERLOADED', `${this.#pending} signature checks are waiting`);
    }
    const answers = await Promise.all(checks.map((check) => this.#answer(this.#questionOf(check))));
    return checks.map(({ signer }, i) => {
      const answer = answers[i];
      return answer instanceof Uint8Array ? equalBytes(this.#hashing.blake2_256(answer), signer) : answer === true;
    });
  }

  /** Stops the threads; what still waits is rejected. Resolves when they are gone. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#detach();
    const threads = [...this.#threads];
    this.#threads.clear();
    const abandoned = [...this.#queue, ...threads.flatMap(({ batches }) => batches.flat())];
    this.#queue = [];
    for (const job of abandoned) job.fail(new VerifierError('CLOSED', 'the signature verifier was closed'));
    await Promise.all(threads.map(({ worker }) => worker.terminate()));
  }

  #questionOf({ signature, message, signer }: SignatureCheck): Question {
    return signature.type === 'Ecdsa'
      ? { scheme: 'Ecdsa', signature: signature.value, message: this.#hashing.blake2_256(message), key: NO_KEY }
      : { scheme: signature.type, signature: signature.value, message, key: signer };
  }

  #answer(question: Question): Answer | Promise<Answer> {
    const name = this.#cache.nameOf(question);
    if (name === undefined) return false;
    const known = this.#cache.recall(name);
    if (known !== undefined) return known.answer;
    this.#pending++;
    const answered = new Promise<Answer>((settle, fail) => {
      this.#queue.push({ question, name, settle, fail, deaths: 0 });
    }).finally(() => {
      this.#pending--;
    });
    this.#schedule();
    return answered;
  }

  /** What arrives within one turn of the event loop goes out together. */
  #schedule(): void {
    if (this.#dispatching) return;
    this.#dispatching = true;
    for (; this.#unstarted > 0; this.#unstarted--) this.#start();
    if (this.#threads.size > 0) queueMicrotask(() => this.#dispatch());
    else setImmediate(() => this.#dispatch());
  }

  #dispatch(): void {
    this.#dispatching = false;
    if (this.#threads.size === 0) {
      this.#workHere();
      return;
    }
    for (let depth = 0; depth < BATCHES_PER_THREAD; depth++) {
      const free = [...this.#threads].filter(({ batches }) => batches.length <= depth);
      const share = Math.min(MAX_BATCH, Math.ceil(this.#queue.length / Math.max(1, free.length)));
      for (const thread of free) {
        if (this.#queue.length === 0) return;
        this.#send(thread, this.#queue.splice(0, share));
      }
    }
  }

  #send(thread: Thread, batch: Job[]): void {
    const packed = packQuestions(batch.map(({ question }) => question));
    if (thread.batches.length === 0) thread.worker.ref();
    thread.batches.push(batch);
    thread.worker.postMessage(packed, [packed.buffer]);
  }

  #receive(thread: Thread, bytes: Uint8Array): void {
    const batch = thread.batches.shift();
    // One that is being ended is waited for: it must not let go of the process now.
    if (batch === undefined || this.#closed) return;
    thread.proven = true;
    if (thread.batches.length === 0) thread.worker.unref();
    const answers = unpackAnswers(
      bytes,
      batch.map(({ question }) => question),
    );
    batch.forEach((job, i) => {
      this.#cache.remember(job.name, answers[i]);
      job.settle(answers[i]);
    });
    if (this.#queue.length > 0) this.#schedule();
  }

  #start(): void {
    const worker = new Worker(new URL('./verifier-thread.ts', import.meta.url));
    const thread: Thread = { worker, batches: [], proven: false };
    this.#threads.add(thread);
    worker.on('message', (bytes: Uint8Array) => this.#receive(thread, bytes));
    worker.on('error', () => this.#lose(thread));
    worker.on('exit', () => this.#lose(thread));
    worker.unref();
  }

  /** A thread died, or never came up. Its checks go to another one; where there is none, to this thread. */
  #lose(thread: Thread): void {
    if (!this.#threads.delete(thread)) return;
    const [tried = [], ...waiting] = thread.batches;
    const again: Job[] = waiting.flat();
    for (const job of tried) {
      if (thread.proven) job.deaths++;
      if (job.deaths < MAX_DEATHS) again.push(job);
      else job.fail(new VerifierError('FAILED', 'the threads that checked this signature died'));
    }
    this.#queue = [...again, ...this.#queue];
    // One that never answered anything would not do better the next time.
    if (thread.proven && this.#restarts < MAX_RESTARTS) {
      this.#restarts++;
      this.#start();
    }
    if (this.#queue.length > 0) this.#schedule();
  }

  #workHere(): void {
    const end = performance.now() + PORTION_MS;
    let done = 0;
    while (done < this.#queue.length && performance.now() < end) {
      const job = this.#queue[done++]!;
      const answer = ask(this.#cache, job.question);
      job.settle(answer);
    }
    this.#queue.splice(0, done);
    if (this.#queue.length > 0) this.#schedule();
  }
}

const NO_KEY = new Uint8Array(0);
