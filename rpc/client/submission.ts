/** Transactions on their way: nonces, the pool's word, the block that takes them, and what is true when a connection breaks. */

import type { Hashing } from '../../runtime/host.ts';
import * as system from '../../runtime/pallets/standard/system.ts';
import { fromHex, toHex } from '../../runtime/primitives/bytes.ts';
import { asHash, type Balance, type Era, eraDeath, type Hash, type Nonce } from '../../runtime/primitives/types.ts';
import { LedgerError } from './errors.ts';
import { ConnectionLost, type JsonRpcClient, JsonRpcError } from './json-rpc.ts';
import { eventsOf, Made } from './made.ts';
import type { Signer } from './signer.ts';
import { signTransaction, type TransactionTerms } from './transaction.ts';

export interface SubmitOptions {
  /** `included` (the default): in a block of the best chain. `finalized`: in one that cannot be undone. */
  readonly until?: 'included' | 'finalized';
  /** For the block's author, on top of the fee. */
  readonly tip?: Balance;
  /** Blocks that the transaction is valid for, a power of two from 4 on (default 64); `immortal` never ends. */
  readonly mortality?: number | 'immortal';
  /** Instead of the next one by the pool's account. A refusal is not tried again then. */
  readonly nonce?: Nonce;
  /** How long to wait for a block (default 90 s; 10 min for `finalized`). */
  readonly withinMs?: number;
  readonly signal?: AbortSignal;
}

const MORTALITY = 64;
/** A birth block this far behind the best one is not undone by an ordinary reorganisation. */
const SETTLED = 8;
const INCLUSION_MS = 90_000;
const FINALITY_MS = 600_000;
/** Another process may have taken the nonce in between. */
const ATTEMPTS = 4;
const RETRY_MS = 200;
/** Blocks that are looked through at once for a transaction whose watcher was lost. */
const BLOCKS_AT_ONCE = 64;
const LOOK_MS = 1_000;

const INVALID = 1010;
const ALREADY = 1013;
const TOO_LOW_PRIORITY = 1014;

type Status =
  | 'future'
  | 'ready'
  | 'dropped'
  | 'invalid'
  | {
      readonly broadcast?: readonly string[];
      readonly inBlock?: string;
      readonly retracted?: string;
      readonly finalityTimeout?: string;
      readonly finalized?: string;
      readonly usurped?: string;
    };

/** A transaction that was sent. */
interface Sent {
  readonly wire: Uint8Array;
  /** Its hash as everybody names it, in hex. */
  readonly hash: string;
  /** The first block that could hold it, and the first that cannot any more. */
  readonly birth: number;
  readonly death: number;
}

/** Whether the pool's refusal may be one of the nonce alone, so that the next nonce is worth a try. */
const isNonceTaken = (problem: unknown): boolean =>
  problem instanceof JsonRpcError &&
  (problem.code === TOO_LOW_PRIORITY || (problem.code === INVALID && problem.data === 'Transaction is outdated'));

/** The pool's refusal, in its words. */
export function refusal(problem: unknown): unknown {
  if (!(problem instanceof JsonRpcError) || problem.code < INVALID - 10 || problem.code >= INVALID + 90) return problem;
  const why = typeof problem.data === 'string' && problem.code !== ALREADY ? `: ${problem.data}` : '';
  return new LedgerError('REFUSED', `the pool does not take the transaction: ${problem.message}${why}`, {
    cause: problem,
  });
}

export class Submitter {
  readonly #rpc: JsonRpcClient;
  readonly #hashing: Hashing;
  readonly #genesisHash: Hash;
  /** Transactions of one account enter the pool one after the other, so that their nonces follow; then they wait together. */
  readonly #turns = new Map<string, Promise<void>>();

  constructor(rpc: JsonRpcClient, hashing: Hashing, genesisHash: Hash) {
    this.#rpc = rpc;
    this.#hashing = hashing;
    this.#genesisHash = genesisHash;
  }

  /** Rejects with a LedgerError; with a `CallFailed` where the call failed in its block. */
  async submit(signer: Signer, call: Uint8Array, options: SubmitOptions = {}): Promise<Made> {
    const account = toHex(signer.account);
    const before = this.#turns.get(account) ?? Promise.resolve();
    let done: () => void = () => {};
    const turn = new Promise<void>((resolve) => {
      done = resolve;
    });
    this.#turns.set(account, turn);
    try {
      await before;
      const watch = await this.#enter(signer, call, options);
      done();
      return await watch.outcome();
    } finally {
      done();
      if (this.#turns.get(account) === turn) this.#turns.delete(account);
    }
  }

  /** What the transaction of now carries beside its call. */
  async terms(
    signer: Pick<Signer, 'account'>,
    options: SubmitOptions = {},
  ): Promise<TransactionTerms & { birth: number }> {
    const { tip = 0n, mortality = MORTALITY } = options;
    const [nonce, { number }, finalized] = await Promise.all([
      options.nonce ?? this.#rpc.ask<number>('system_accountNextIndex', toHex(signer.account)),
      this.#rpc.ask<{ number: string }>('chain_getHeader'),
      this.#rpc
        .ask<string>('chain_getFinalizedHead')
        .then((hash) => this.#rpc.ask<{ number: string } | null>('chain_getHeader', hash)),
    ]);
    const best = Number(number);
    const common = { nonce, tip, genesisHash: this.#genesisHash };
    if (mortality === 'immortal')
      return { ...common, era: { type: 'Immortal' }, eraBirth: this.#genesisHash, birth: best };
    if (!Number.isInteger(Math.log2(mortality)) || mortality < 4 || mortality > 65_536) {
      throw new LedgerError('BAD_MORTALITY', 'a transaction is valid for a power of two of blocks, from 4 to 65536');
    }
    const settled = Math.max(Number(finalized?.number ?? 0), best - Math.min(SETTLED, mortality / 4), 0);
    // Longer eras begin with every so many blocks only (`Era` of sp_runtime).
    const step = Math.max(mortality >> 12, 1);
    const birth = settled - (settled % step);
    const era: Era = { type: 'Mortal', period: mortality, phase: birth % mortality };
    const eraBirth = await this.#rpc.ask<string | null>('chain_getBlockHash', birth);
    if (eraBirth === null) throw new LedgerError('UNKNOWN_BLOCK', `the node does not know block ${birth}`);
    return { ...common, era, eraBirth: asHash(fromHex(eraBirth)), birth };
  }

  async #enter(signer: Signer, call: Uint8Array, options: SubmitOptions): Promise<Watch> {
    for (let attempt = 1; ; attempt++) {
      options.signal?.throwIfAborted();
      const terms = await this.terms(signer, options);
      const wire = await signTransaction(this.#hashing, signer, call, terms);
      const sent: Sent = {
        wire,
        hash: toHex(this.#hashing.blake2_256(wire)),
        birth: terms.birth,
        death: eraDeath(terms.era, terms.birth),
      };
      const watch = new Watch(this.#rpc, sent, options, toHex(system.store.Events.key(this.#hashing)));
      try {
        await watch.begin();
        return watch;
      } catch (problem) {
        watch.stop();
        // What was sent while the connection broke may have arrived.
        if (problem instanceof ConnectionLost) return watch;
        const again = options.nonce === undefined && attempt < ATTEMPTS && isNonceTaken(problem);
        if (!again) throw refusal(problem);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS * attempt));
      }
    }
  }
}

type Verdict = { readonly block: string } | { readonly error: LedgerError } | 'lost';

/** One transaction in the pool, until it is in a block or out of the pool. */
class Watch {
  readonly #rpc: JsonRpcClient;
  readonly #sent: Sent;
  readonly #options: SubmitOptions;
  readonly #verdict: Promise<Verdict>;
  readonly #eventsKey: string;
  #decide: (verdict: Verdict) => void = () => {};
  #stop: (() => void) | undefined;
  #begun = false;

  constructor(rpc: JsonRpcClient, sent: Sent, options: SubmitOptions, eventsKey: string) {
    this.#rpc = rpc;
    this.#eventsKey = eventsKey;
    this.#sent = sent;
    this.#options = options;
    this.#verdict = new Promise((resolve) => {
      this.#decide = resolve;
    });
  }

  /** Rejects with what the pool says against it. */
  async begin(): Promise<void> {
    this.#stop = await this.#rpc.subscribe(
      'author_submitAndWatchExtrinsic',
      'author_unwatchExtrinsic',
      [toHex(this.#sent.wire)],
      { listener: (status) => this.#hear(status as Status), lost: () => this.#decide('lost') },
    );
    this.#begun = true;
  }

  stop(): void {
    this.#stop?.();
    this.#stop = undefined;
  }

  #hear(status: Status): void {
    const wanted = this.#options.until ?? 'included';
    const out = (code: string, message: string): void => this.#decide({ error: new LedgerError(code, message) });
    if (status === 'dropped') out('DROPPED', 'the pool dropped the transaction: it had no room for it');
    else if (status === 'invalid') out('INVALID', 'the transaction became invalid while it waited for a block');
    else if (typeof status === 'string') return;
    else if (status.usurped !== undefined) {
      out('USURPED', `another transaction with the same nonce took its place: ${status.usurped}`);
    } else if (status.finalized !== undefined) this.#decide({ block: status.finalized });
    else if (status.inBlock !== undefined && wanted === 'included') this.#decide({ block: status.inBlock });
    else if (status.finalityTimeout !== undefined) {
      out('NOT_FINAL', `block ${status.finalityTimeout}, which holds the transaction, is not final yet`);
    }
  }

  async outcome(): Promise<Made> {
    const { until = 'included', withinMs = until === 'included' ? INCLUSION_MS : FINALITY_MS, signal } = this.#options;
    let release: () => void = () => {};
    const late = new Promise<Verdict>((resolve) => {
      const message = `no block took the transaction within ${Math.round(withinMs / 1_000)} s; it may still do so`;
      const timer = setTimeout(() => resolve({ error: new LedgerError('NOT_INCLUDED', message) }), withinMs);
      const abort = (): void =>
        resolve({ error: new LedgerError('ABORTED', 'the wait was ended; a block may still take the transaction') });
      signal?.addEventListener('abort', abort, { once: true });
      release = () => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
      };
    });
    try {
      const told: Verdict = this.#begun ? await Promise.race([this.#verdict, late]) : 'lost';
      const verdict = told === 'lost' ? await Promise.race([this.#find(), late]) : told;
      if (verdict === 'lost') throw unknownOutcome();
      if ('error' in verdict) throw verdict.error;
      return await this.#made(verdict.block);
    } catch (problem) {
      if (problem instanceof ConnectionLost) throw unknownOutcome();
      throw problem;
    } finally {
      release();
      this.stop();
    }
  }

  /** After a lost connection: the transaction is in one of the blocks of its era, or can be in none. */
  async #find(): Promise<Verdict> {
    const { hash, wire, birth, death } = this.#sent;
    const wanted = toHex(wire);
    const isFinal = this.#options.until === 'finalized';
    // It may never have arrived. A pool that has it, or a chain that has it, refuses the second copy.
    await this.#rpc.call('author_submitExtrinsic', wanted).catch((problem: unknown) => {
      if (!(problem instanceof JsonRpcError)) throw problem;
    });
    for (let next = birth + 1; ; ) {
      const head = await this.#rpc.ask<{ number: string }>(
        'chain_getHeader',
        ...(isFinal ? [await this.#rpc.ask<string>('chain_getFinalizedHead')] : []),
      );
      const last = Math.min(Number(head.number), death - 1);
      while (next <= last) {
        const numbers = Array.from({ length: Math.min(BLOCKS_AT_ONCE, last - next + 1) }, (_, at) => next + at);
        const hashes = await this.#rpc.ask<(string | null)[]>('chain_getBlockHash', numbers);
        for (const block of hashes) {
          if (block === null) continue;
          const found = await this.#rpc.ask<BlockJson | null>('chain_getBlock', block);
          if (found?.block.extrinsics.includes(wanted)) return { block };
        }
        next += numbers.length;
      }
      if (Number(head.number) >= death) {
        return { error: new LedgerError('EXPIRED', `no block took transaction ${hash} while it was valid`) };
      }
      // Blocks that may still be replaced are looked at once more.
      next = Math.max(birth + 1, isFinal ? next : next - SETTLED);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  async #made(block: string): Promise<Made> {
    const wire = toHex(this.#sent.wire);
    const [found, stored, { eventRecords, failureOf }] = await Promise.all([
      this.#rpc.ask<BlockJson | null>('chain_getBlock', block),
      this.#rpc.ask<string | null>('state_getStorage', this.#eventsKey, block),
      import('./event-records.ts'),
    ]);
    const index = found?.block.extrinsics.indexOf(wire) ?? -1;
    if (index < 0 || stored === null) throw unknownOutcome();
    const records = eventRecords(fromHex(stored)).filter(
      ({ phase }) => phase.type === 'ApplyExtrinsic' && phase.value === index,
    );
    const [failed] = eventsOf(records, system.events.ExtrinsicFailed);
    if (failed !== undefined) throw failureOf(failed.dispatchError);
    return new Made({ block, index, hash: this.#sent.hash, records });
  }
}

interface BlockJson {
  readonly block: { readonly extrinsics: readonly string[] };
}

const unknownOutcome = (): LedgerError =>
  new LedgerError('UNKNOWN_OUTCOME', 'the connection is gone: whether a block took the transaction is not known');
