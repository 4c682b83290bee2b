/** Blocks by hash and height, the best and the finalized one, and the forks between them. */
import { LRUCache } from 'lru-cache';
import { bestHead, overtakes, routeBetween } from '../../consensus/fork-choice.ts';
import { announcesChange } from '../../consensus/grandpa/authorities.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import {
  type Block,
  type Header,
  header,
  type Justifications,
  justifications,
} from '../../runtime/primitives/header.ts';
import { bytes, decode, encode, struct, u32, vec } from '../../runtime/primitives/scale/codec.ts';
import { asHash, type Hash, hash } from '../../runtime/primitives/types.ts';
import { type Batch, COLUMN, type Database } from '../database/database.ts';
import type { BlockRef, Blocks, ChainEvent, ChainEvents, ChainInfo, TreeRoute } from '../ports/chain.ts';
import { staying } from './abandoned.ts';

const CACHED_HEADERS = 2_048;

const BEST = new Uint8Array([2]);
const FINALIZED = new Uint8Array([3]);
/** The lowest height above the genesis block whose body is kept. */
const BODIES_FROM = new Uint8Array([4]);
/** Bodies that one finalization removes beside those that leave the window by it: nodes may come from keeping all. */
const MAX_OVERDUE = 256;
/** Abandoned blocks that are still here. */
const ABANDONED = new Uint8Array([17]);
const hashes = vec(hash);
/** The highest block that is wanted of those that warp sync leapt over. */
const MISSING = new Uint8Array([16]);
const missingRecord = struct({ number: u32, hash });
const body = vec(bytes());

const numberKey = (number: number): Uint8Array => {
  const out = new Uint8Array(4);
  new DataView(out.buffer).setUint32(0, number);
  return out;
};

export interface BlockOptions {
  /** Final blocks whose bodies and justifications are kept; headers always are. */
  readonly pruning: number | 'archive';
}

const numberIn = (key: Uint8Array): number => new DataView(key.buffer, key.byteOffset).getUint32(0);

/** What a change of the chain comes to, once it is written. */
export interface Pending {
  /** Makes it visible and tells the listeners. */
  apply(): void;
}

export class BlockStore implements Blocks, ChainEvents {
  readonly #database: Database;
  readonly #pruning: number | 'archive';
  readonly #listeners = new Set<(event: ChainEvent) => void>();
  /** Headers that were asked for or came last; all of them are in the database. */
  readonly #headers = new LRUCache<string, Header>({ max: CACHED_HEADERS });
  /** Unfinalized blocks by height. */
  readonly #above = new Map<number, Hash[]>();
  #genesis: Hash;
  #best: BlockRef;
  #finalized: BlockRef;
  #missing: BlockRef | undefined;
  /** Those that were held when finality left them behind. */
  #abandoned: readonly Hash[] = [];
  #bodiesFrom = 1;

  private constructor(
    database: Database,
    { pruning }: BlockOptions,
    genesis: Hash,
    best: BlockRef,
    finalized: BlockRef,
  ) {
    this.#database = database;
    this.#pruning = pruning;
    this.#genesis = genesis;
    this.#best = best;
    this.#finalized = finalized;
  }

  static async open(database: Database, options: BlockOptions): Promise<BlockStore | undefined> {
    const [genesis, best, finalized] = [
      database.genesis(),
      database.get(COLUMN.meta, BEST),
      database.get(COLUMN.meta, FINALIZED),
    ];
    if (genesis === undefined || best === undefined || finalized === undefined) return undefined;
    const refOf = (hash: Uint8Array): BlockRef => ({
      hash: asHash(hash),
      number: decode(header, database.get(COLUMN.headers, hash)!).number,
    });
    const store = new BlockStore(database, options, asHash(genesis), refOf(best), refOf(finalized));
    const bodiesFrom = database.get(COLUMN.meta, BODIES_FROM);
    if (bodiesFrom !== undefined) store.#bodiesFrom = numberIn(bodiesFrom);
    const missing = database.get(COLUMN.meta, MISSING);
    if (missing !== undefined) store.#missing = decode(missingRecord, missing.slice());
    const abandoned = database.get(COLUMN.meta, ABANDONED);
    if (abandoned !== undefined) store.#abandoned = decode(hashes, abandoned.slice());
    const dead = new Set(store.#abandoned.map(toHex));
    for await (const [hash, encoded] of database.entries(COLUMN.headers)) {
      const { number } = decode(header, encoded);
      if (number > store.#finalized.number && !dead.has(toHex(hash))) store.#note(asHash(hash), number);
    }
    return store;
  }

  /** Writes the first block; the store can be opened once the batch is committed. */
  static create(database: Database, batch: Batch, hash: Hash, genesis: Header): void {
    database.claim(batch, hash);
    batch.put(COLUMN.headers, hash, encode(header, genesis));
    batch.put(COLUMN.bodies, hash, encode(body, []));
    batch.put(COLUMN.canonical, numberKey(0), hash);
    batch.put(COLUMN.meta, BEST, hash);
    batch.put(COLUMN.meta, FINALIZED, hash);
  }

  #note(hash: Hash, number: number): void {
    this.#above.set(number, [...(this.#above.get(number) ?? []), hash]);
  }

  info(): ChainInfo {
    return { genesisHash: this.#genesis, best: this.#best, finalized: this.#finalized };
  }

  header(hash: Hash): Header | undefined {
    const name = toHex(hash);
    const known = this.#headers.get(name);
    if (known !== undefined) return known;
    const stored = this.#database.get(COLUMN.headers, hash);
    if (stored === undefined) return undefined;
    const value = decode(header, stored);
    this.#headers.set(name, value);
    return value;
  }

  hashOf(number: number): Hash | undefined {
    if (number > this.#best.number) return undefined;
    const stored = this.#database.get(COLUMN.canonical, numberKey(number));
    return stored && asHash(stored);
  }

  hashesAt(number: number): readonly Hash[] {
    const canonical = this.hashOf(number);
    const others = (this.#above.get(number) ?? []).filter(
      (each) => canonical === undefined || !equalBytes(each, canonical),
    );
    return canonical === undefined ? others : [canonical, ...others];
  }

  body(hash: Hash): readonly Uint8Array[] | undefined {
    const stored = this.#database.get(COLUMN.bodies, hash);
    return stored && decode(body, stored);
  }

  justifications(hash: Hash): Justifications | undefined {
    const stored = this.#database.get(COLUMN.justifications, hash);
    return stored && decode(justifications, stored);
  }

  leaves(): readonly Hash[] {
    const heads = this.#heads();
    const best = heads.find(({ hash }) => equalBytes(hash, this.#best.hash)) ?? this.#best;
    return [best.hash, ...heads.filter(({ hash }) => !equalBytes(hash, best.hash)).map(({ hash }) => hash)];
  }

  #heads(): BlockRef[] {
    const parents = new Set<string>();
    const all: BlockRef[] = [];
    for (const [number, hashes] of this.#above) {
      for (const hash of hashes) {
        all.push({ hash, number });
        parents.add(toHex(this.header(hash)!.parentHash));
      }
    }
    return all.filter(({ hash }) => !parents.has(toHex(hash)));
  }

  isFinalized(hash: Hash): boolean {
    const number = this.header(hash)?.number;
    if (number === undefined || number > this.#finalized.number) return false;
    const canonical = this.hashOf(number);
    return canonical !== undefined && equalBytes(canonical, hash);
  }

  subscribe(listener: (event: ChainEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #emit(event: ChainEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #parent = ({ hash, number }: BlockRef): BlockRef | undefined => {
    const known = number === 0 ? undefined : this.header(hash);
    return known && { hash: known.parentHash, number: number - 1 };
  };

  #route(from: BlockRef, to: BlockRef): TreeRoute {
    const route = routeBetween(from, to, this.#parent, equalBytes);
    if (route === undefined) throw new Error('two blocks of this chain have no common ancestor');
    return route;
  }

  #follow(batch: Batch, route: TreeRoute): void {
    for (const { number } of route.retracted) batch.delete(COLUMN.canonical, numberKey(number));
    for (const { hash, number } of route.enacted) batch.put(COLUMN.canonical, numberKey(number), hash);
  }

  /** A block whose parent is here, and which is above the finalized one. */
  insert(batch: Batch, hash: Hash, block: Block, origin: Parameters<typeof importedEvent>[0]['origin']): Pending {
    const ref: BlockRef = { hash, number: block.header.number };
    const encoded = encode(header, block.header);
    batch.put(COLUMN.headers, hash, encoded);
    batch.put(COLUMN.bodies, hash, encode(body, block.extrinsics));
    const isNewBest = overtakes(ref, this.#best);
    // Not the block's own, which may be a view of a whole message with many blocks.
    this.#headers.set(toHex(hash), decode(header, encoded));
    const route = isNewBest ? this.#route(this.#best, ref) : undefined;
    if (route !== undefined) {
      this.#follow(batch, route);
      batch.put(COLUMN.meta, BEST, hash);
    }
    return {
      apply: () => {
        this.#note(hash, ref.number);
        if (isNewBest) this.#best = ref;
        this.#emit(importedEvent({ block: ref, header: block.header, origin, isNewBest, route }));
      },
    };
  }

  /** Whether `block` is the finalized block or descends from it. */
  extendsFinalized({ hash, number }: BlockRef): boolean {
    if (number <= this.#finalized.number) return equalBytes(hash, this.#finalized.hash);
    return this.#above.get(number)?.some((each) => equalBytes(each, hash)) ?? false;
  }

  /** Removes bodies that leave the window. Returns the lowest height that keeps its body. */
  #prune(batch: Batch, finalized: readonly BlockRef[]): number {
    const last = finalized.at(-1);
    if (this.#pruning === 'archive' || last === undefined) return this.#bodiesFrom;
    const upTo = Math.min(last.number - this.#pruning, this.#bodiesFrom + finalized.length + MAX_OVERDUE);
    if (upTo < this.#bodiesFrom) return this.#bodiesFrom;
    for (let number = this.#bodiesFrom; number <= upTo; number++) {
      const hash = finalized.find((each) => each.number === number)?.hash ?? this.hashOf(number);
      if (hash === undefined) continue;
      batch.delete(COLUMN.bodies, hash);
      // Warp sync begins with the proofs of those blocks that changed the set.
      const known = this.header(hash);
      if (known !== undefined && !announcesChange(known.digest)) batch.delete(COLUMN.justifications, hash);
    }
    batch.put(COLUMN.meta, BODIES_FROM, numberKey(upTo + 1));
    return upTo + 1;
  }

  /**
   * Goes to a final block without the ones before it. `proven`: final blocks on the way, with their justifications. What is
   * leapt over is noted as {@link missing}.
   */
  leap(
    batch: Batch,
    target: BlockRef,
    targetHeader: Header,
    proven: readonly { readonly hash: Hash; readonly header: Header; readonly proof: Justifications }[],
  ): Pending {
    for (const each of proven) {
      batch.put(COLUMN.headers, each.hash, encode(header, each.header));
      batch.put(COLUMN.justifications, each.hash, encode(justifications, each.proof));
      batch.put(COLUMN.canonical, numberKey(each.header.number), each.hash);
    }
    const abandoned = [...this.#above.values()].flat();
    for (const hash of abandoned) {
      batch.delete(COLUMN.headers, hash);
      batch.delete(COLUMN.bodies, hash);
    }
    batch.put(COLUMN.meta, BEST, target.hash);
    batch.put(COLUMN.meta, FINALIZED, target.hash);
    batch.put(COLUMN.meta, MISSING, encode(missingRecord, target));
    return {
      apply: () => {
        this.#above.clear();
        this.#headers.clear();
        this.#best = target;
        this.#finalized = target;
        this.#missing = target;
        this.#emit(
          importedEvent({ block: target, header: targetHeader, origin: 'sync', isNewBest: true, route: undefined }),
        );
        this.#emit({ type: 'finalized', finalized: [target], pruned: abandoned });
      },
    };
  }

  /** The highest block whose body is not here because warp sync leapt over it; undefined when there is none. */
  missing(): BlockRef | undefined {
    return this.#missing;
  }

  /** Blocks that were leapt over, the highest first, from {@link missing} on. Each is the parent of the one before. */
  fill(batch: Batch, blocks: readonly (Block & { readonly hash: Hash })[]): Pending {
    for (const { hash, header: each, extrinsics } of blocks) {
      batch.put(COLUMN.headers, hash, encode(header, each));
      batch.put(COLUMN.canonical, numberKey(each.number), hash);
      const kept = this.#pruning === 'archive' || each.number > this.#finalized.number - this.#pruning;
      if (kept) batch.put(COLUMN.bodies, hash, encode(body, extrinsics));
    }
    const lowest = blocks.at(-1)!.header;
    const next = lowest.number > 1 ? { hash: lowest.parentHash, number: lowest.number - 1 } : undefined;
    if (next === undefined) batch.delete(COLUMN.meta, MISSING);
    else batch.put(COLUMN.meta, MISSING, encode(missingRecord, next));
    return {
      apply: () => {
        this.#missing = next;
      },
    };
  }

  /**
   * Makes a block that extends the finalized one final. Also says which blocks become final, and which are removed: those
   * that it leaves behind, but for the ones that are held, and of those of earlier times what is held no longer.
   * `holds.above`: forks that begin there or below are removed in any case.
   */
  finalize(
    batch: Batch,
    target: BlockRef,
    proof: Justifications,
    holds: { readonly isHeld: (hash: Hash) => boolean; readonly above: number },
  ): Pending & { readonly finalized: readonly BlockRef[]; readonly removed: readonly Hash[] } {
    const finalized = this.#route(this.#finalized, target).enacted;
    const kept = new Set(finalized.map(({ hash }) => toHex(hash)));
    const descends = (block: BlockRef): boolean => {
      let at: BlockRef | undefined = block;
      while (at !== undefined && at.number > target.number) at = this.#parent(at);
      return at !== undefined && equalBytes(at.hash, target.hash);
    };
    const abandoned: Hash[] = [];
    for (const [number, hashes] of this.#above) {
      for (const hash of hashes) if (!kept.has(toHex(hash)) && !descends({ hash, number })) abandoned.push(hash);
    }
    const all = [...this.#abandoned, ...abandoned];
    const stay = staying(all, (each) => this.header(each), holds.isHeld, holds.above);
    const removed = all.filter((each) => !stay.has(toHex(each)));
    const left = all.filter((each) => stay.has(toHex(each)));
    for (const hash of removed) {
      batch.delete(COLUMN.headers, hash);
      batch.delete(COLUMN.bodies, hash);
    }
    if (all.length > 0) batch.put(COLUMN.meta, ABANDONED, encode(hashes, left));
    batch.put(COLUMN.justifications, target.hash, encode(justifications, proof));
    batch.put(COLUMN.meta, FINALIZED, target.hash);
    const bodiesFrom = this.#prune(batch, finalized);
    const best = bestHead(this.#heads().filter(descends), target, () => true);
    const leaves = descends(this.#best) ? undefined : this.#route(this.#best, best);
    if (leaves !== undefined) {
      this.#follow(batch, leaves);
      batch.put(COLUMN.meta, BEST, best.hash);
    }
    return {
      finalized,
      removed,
      apply: () => {
        const gone = new Set(abandoned.map(toHex));
        for (const each of removed) this.#headers.delete(toHex(each));
        this.#abandoned = left;
        for (const [number, hashes] of this.#above) {
          const left = number <= target.number ? [] : hashes.filter((hash) => !gone.has(toHex(hash)));
          if (left.length === 0) this.#above.delete(number);
          else this.#above.set(number, left);
        }
        this.#finalized = target;
        this.#bodiesFrom = bodiesFrom;
        if (leaves !== undefined) {
          this.#best = best;
          const known = this.header(best.hash)!;
          this.#emit(importedEvent({ block: best, header: known, origin: 'sync', isNewBest: true, route: leaves }));
        }
        this.#emit({ type: 'finalized', finalized, pruned: abandoned });
      },
    };
  }
}

function importedEvent({
  route,
  ...event
}: Omit<Extract<ChainEvent, { type: 'imported' }>, 'type' | 'route'> & { route: TreeRoute | undefined }): ChainEvent {
  return { type: 'imported', ...event, ...(route !== undefined && { route }) };
}
