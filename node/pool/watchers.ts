/** Who wants to know what becomes of a transaction, from its submission until a final status. */
import type { Hash } from '../../runtime/primitives/types.ts';
import type { TransactionStatus } from '../ports/chain.ts';
import { type Key, keyOf } from './entry.ts';

export type StatusListener = (status: TransactionStatus) => void;

const FINAL: ReadonlySet<TransactionStatus['type']> = new Set([
  'finalized',
  'finalityTimeout',
  'usurped',
  'dropped',
  'invalid',
]);

interface Watch {
  readonly listeners: Set<StatusListener>;
  last: TransactionStatus['type'] | undefined;
}

interface Inclusion {
  readonly block: Hash;
  /** Index in the block by transaction. */
  readonly transactions: Map<Key, number>;
}

export class Watchers {
  readonly #maxBlocks: number;
  readonly #watches = new Map<Key, Watch>();
  /** Blocks that include a watched transaction and are not final yet, oldest first. */
  readonly #inclusions = new Map<Key, Inclusion>();

  /** With more than `maxBlocks` blocks waiting for finality the oldest is given up (Substrate: 512). */
  constructor(maxBlocks: number) {
    this.#maxBlocks = maxBlocks;
  }

  /** Watched transactions, and blocks awaited. */
  get size(): { readonly transactions: number; readonly blocks: number } {
    return { transactions: this.#watches.size, blocks: this.#inclusions.size };
  }

  has(key: Key): boolean {
    return this.#watches.has(key);
  }

  watch(key: Key, listener: StatusListener): () => void {
    const watch = this.#watches.get(key) ?? { listeners: new Set(), last: undefined };
    this.#watches.set(key, watch);
    watch.listeners.add(listener);
    return () => {
      watch.listeners.delete(listener);
      if (watch.listeners.size === 0 && this.#watches.get(key) === watch) this.#watches.delete(key);
    };
  }

  tell(key: Key, status: TransactionStatus): void {
    const watch = this.#watches.get(key);
    if (watch === undefined) return;
    // One that left and came back at once has nothing new to tell.
    if ((status.type === 'ready' || status.type === 'future') && status.type === watch.last) return;
    if (FINAL.has(status.type)) this.#watches.delete(key);
    if (status.type !== 'broadcast') watch.last = status.type;
    for (const listener of [...watch.listeners]) listener(status);
  }

  included(block: Hash, key: Key, index: number): void {
    if (!this.#watches.has(key)) return;
    const blockKey = keyOf(block);
    const inclusion = this.#inclusions.get(blockKey) ?? { block, transactions: new Map() };
    inclusion.transactions.set(key, index);
    this.#inclusions.set(blockKey, inclusion);
    this.tell(key, { type: 'inBlock', block, index });
    if (this.#inclusions.size <= this.#maxBlocks) return;
    const [oldest] = this.#inclusions.keys();
    for (const [timedOut, each] of this.#close(oldest!)) {
      this.tell(timedOut, { type: 'finalityTimeout', block: each.block });
    }
  }

  /** The block is not on the best chain any more. */
  retracted(block: Hash): void {
    for (const [key] of this.#close(keyOf(block))) this.tell(key, { type: 'retracted', block });
  }

  finalized(block: Hash): void {
    for (const [key, { index }] of this.#close(keyOf(block))) this.tell(key, { type: 'finalized', block, index });
  }

  #close(blockKey: Key): [Key, { readonly block: Hash; readonly index: number }][] {
    const inclusion = this.#inclusions.get(blockKey);
    if (inclusion === undefined) return [];
    this.#inclusions.delete(blockKey);
    const { block, transactions } = inclusion;
    return [...transactions].map(([key, index]) => [key, { block, index }]);
  }
}
