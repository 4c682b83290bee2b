/**
 * Who follows which storage keys. After each block it is looked at what the block changed, once for all followers: what it
 * takes does not grow with the number of keys that are followed.
 */
import { toHex } from '../../runtime/primitives/bytes.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { hexOf, keyOf } from '../server/hex.ts';
import type { ChainView } from './chain-view.ts';

export type Change = readonly [key: string, value: string | null];

interface Follower {
  /** Their names in hex, by the key. */
  readonly keys: ReadonlyMap<string, string>;
  tell(block: Hash, changes: readonly Change[]): void;
  /** The state is another one altogether: all keys are to be read anew. */
  anew(block: Hash): void;
}

/** Changes of one block that are looked at; after more than that everything is read anew. */
const MAX_CHANGES = 65_536;

export class StorageWatch {
  readonly #view: ChainView;
  readonly #followers = new Map<string, Set<Follower>>();
  readonly #all = new Set<Follower>();
  #stop: (() => void) | undefined;
  #seen: Hash | undefined;

  constructor(view: ChainView) {
    this.#view = view;
  }

  /** Changes of every best block after this one. Returns how to hear no more. */
  follow(keys: readonly Uint8Array[], tell: Follower['tell'], anew: Follower['anew']): () => void {
    const follower: Follower = { keys: new Map(keys.map((key) => [keyOf(key), hexOf(key)])), tell, anew };
    if (this.#stop === undefined) {
      this.#seen = this.#view.best();
      this.#stop = this.#view.followBest((best) => this.#look(best));
    }
    this.#all.add(follower);
    for (const key of follower.keys.keys()) {
      const followers = this.#followers.get(key);
      if (followers === undefined) this.#followers.set(key, new Set([follower]));
      else followers.add(follower);
    }
    return () => {
      if (!this.#all.delete(follower)) return;
      for (const key of follower.keys.keys()) {
        const followers = this.#followers.get(key);
        if (followers?.delete(follower) && followers.size === 0) this.#followers.delete(key);
      }
      if (this.#all.size > 0) return;
      this.#stop?.();
      this.#stop = undefined;
    };
  }

  #look(best: Hash): void {
    const before = this.#seen!;
    this.#seen = best;
    const told = new Map<Follower, Change[]>();
    const changes = this.#view.client.states.changes(before, best);
    let count = 0;
    for (const { key, after } of changes ?? []) {
      if (++count > MAX_CHANGES) break;
      const name = keyOf(key);
      const followers = this.#followers.get(name);
      if (followers === undefined) continue;
      const value = after === undefined ? null : hexOf(after);
      for (const follower of followers) {
        const own = told.get(follower) ?? [];
        own.push([follower.keys.get(name)!, value]);
        told.set(follower, own);
      }
    }
    if (changes === undefined || count > MAX_CHANGES) {
      for (const follower of [...this.#all]) follower.anew(best);
      return;
    }
    for (const [follower, own] of told) follower.tell(best, own);
  }

  /** For diagnosis. */
  get size(): { readonly followers: number; readonly keys: number } {
    return { followers: this.#all.size, keys: this.#followers.size };
  }
}

/** What following keys counts for a connection: their names, and their places in the tables. */
export const weightOf = (keys: readonly Uint8Array[]): number =>
  keys.reduce((sum, { length }) => sum + 4 * length + 256, 0);

export const changeSet = (block: Hash, changes: readonly Change[]) => ({ block: toHex(block), changes });
