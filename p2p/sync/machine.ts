/**
 * Full sync, decided without doing: events in, effects out. Far behind, ranges of heights are fetched from several peers at
 * once and imported in order; near the head, announced blocks are fetched by hash, with the ancestors that lack. What a peer
 * says about heights is only ever a hint: blocks link by hash, and the importer has the last word.
 */
import type { BlockRef, ChainInfo, ImportResult } from '../../node/ports/chain.ts';
import { equalBytes, toHex } from '../../runtime/primitives/bytes.ts';
import { GRANDPA_ENGINE } from '../../runtime/primitives/header.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { FEE, type PeerId } from '../host/peer-scores.ts';
import type { BlockData, BlockRequest } from '../protocols/sync.ts';
import { Distance, FAR } from './distance.ts';
import { flawOf, MAX_ANCESTORS, type Range, requestOf, type Task, type Wanted } from './tasks.ts';

/** What sync has to know of the chain of this node. */
export interface ChainView {
  info(): ChainInfo;
  hashOf(number: number): Hash | undefined;
  has(hash: Hash): boolean;
  /** No chain can be higher by now than this: slots are what heights are made of. */
  reachable(): number;
}

export type FailureReason = 'timeout' | 'closed' | 'malformed';

export type SyncEvent =
  | { readonly type: 'connected'; readonly peer: PeerId; readonly best: BlockRef }
  | { readonly type: 'disconnected'; readonly peer: PeerId }
  | { readonly type: 'announced'; readonly peer: PeerId; readonly block: BlockRef; readonly isBest: boolean }
  /** Headers are there and hash to what the blocks are called; heights and links are not checked yet. */
  | { readonly type: 'response'; readonly id: number; readonly blocks: readonly BlockData[] }
  | { readonly type: 'failed'; readonly id: number; readonly reason: FailureReason }
  /** `taken` blocks of the import went in; `result` is that of the next one, if there was one. */
  | {
      readonly type: 'imported';
      readonly id: number;
      readonly taken: number;
      readonly result: ImportResult | undefined;
    }
  /** A whole block came by gossip and is being imported, or no longer is. */
  | { readonly type: 'arriving' | 'arrived'; readonly hash: Hash }
  | { readonly type: 'want'; readonly peer: PeerId; readonly block: BlockRef }
  /** The peer's finality is ahead by whole authority sets. */
  | { readonly type: 'behind'; readonly peer: PeerId; readonly finalized: number }
  | { readonly type: 'tick' };

export type SyncEffect =
  | { readonly type: 'request'; readonly id: number; readonly peer: PeerId; readonly request: BlockRequest }
  | { readonly type: 'import'; readonly id: number; readonly blocks: readonly BlockData[] }
  | { readonly type: 'justify'; readonly peer: PeerId; readonly hash: Hash; readonly proof: Uint8Array }
  | { readonly type: 'charge'; readonly peer: PeerId; readonly cost: number; readonly reason: string }
  /** The peer's chain contradicts this node's finality, or it is of no use. */
  | { readonly type: 'drop'; readonly peer: PeerId; readonly reason: string };

const RANGE = 64;
const MAX_RANGES = 12;
const MAX_WANTED = 256;
/** Blocks that only one peer has spoken of. */
const MAX_WANTED_BY_ONE = 32;
/** The ranges wait for the first one: when it is so late, another peer is asked too. */
const LATE_MS = 4_000;
/** Requests in a row that a peer may leave unanswered. */
const MAX_SILENT = 4;
const BACKOFF_MS = 3_000;
const WANTED_MS = 30_000;
/** Peers that are asked for proofs of finality at a time. */
const MAX_ASKING = 3;
/** Answers of up to {@link MAX_ANCESTORS} blocks: more without a proof are no way to catch up. */
const MAX_FRUITLESS = 16;
const DISBELIEF_MS = 30_000;
/** Announced blocks mostly come by themselves: they are asked for when they have not after so long. */
const GRACE_MS = 250;

interface Peer {
  best: BlockRef;
  /** Highest block known to be on its chain and this node's; undefined while it is looked for. */
  common: number | undefined;
  search: { low: number; high: number; step: number } | undefined;
  /** Its chain left this node's so far below that ranges are needed, however near its head is. */
  forked: boolean;
  busy: boolean;
  restUntil: number;
  /** It was asked for blocks that it claims to have and did not send them: what it says counts again when it does. */
  doubtful: boolean;
  /** Requests in a row that it has not answered. */
  silent: number;
}

interface Asked {
  readonly peer: PeerId;
  readonly task: Task;
  readonly request: BlockRequest;
}

/** What a peer says of its finality. */
interface Claim {
  finalized: number;
  /** The height from which on it is asked for proofs next. */
  from: number;
  /** Answers in a row without one. */
  fruitless: number;
  notBefore: number;
}

interface Importing {
  readonly peer: PeerId;
  readonly range: Range | undefined;
  readonly last: BlockRef;
  readonly keys: readonly string[];
}

export class SyncMachine {
  readonly #chain: ChainView;
  readonly #now: () => number;
  readonly #distance: Distance;
  readonly #peers = new Map<PeerId, Peer>();
  readonly #asked = new Map<number, Asked>();
  readonly #importing = new Map<number, Importing>();
  readonly #wanted = new Map<string, Wanted>();
  /** Blocks that the importer is at. */
  readonly #arriving = new Set<string>();
  #ranges: Range[] = [];
  /** The block that the ranges begin above, and the next height to be put into one. */
  #base = 0;
  #cursor = 0;
  /** Peers that say to be ahead by whole authority sets: each shows it by itself, or does not. */
  readonly #behind = new Map<PeerId, Claim>();
  #asking = 0;
  #nextId = 1;
  #effects: SyncEffect[] = [];

  /** `now` in milliseconds, never going back. */
  constructor(chain: ChainView, now: () => number) {
    this.#chain = chain;
    this.#now = now;
    this.#distance = new Distance(now);
  }

  /** The height that there is to get to, as far as peers can be believed. */
  target(): number | undefined {
    const reachable = this.#chain.reachable();
    let target: number | undefined;
    for (const { best, doubtful } of this.#peers.values()) {
      if (doubtful || best.number > reachable) continue;
      if (target === undefined || best.number > target) target = best.number;
    }
    return target;
  }

  isMajorSyncing(): boolean {
    if (!this.#isAheadFar()) return false;
    return this.#distance.credible || this.#ranges.some(({ state }) => state === 'importing');
  }

  #isAheadFar(): boolean {
    return (this.target() ?? 0) > this.#chain.info().best.number + FAR;
  }

  /** Effects are to be carried out in order. */
  step(event: SyncEvent): readonly SyncEffect[] {
    this.#effects = [];
    this.#take(event);
    this.#schedule();
    if (this.#isAheadFar()) this.#distance.claimed();
    return this.#effects;
  }

  #take(event: SyncEvent): void {
    switch (event.type) {
      case 'connected':
        this.#peers.set(event.peer, {
          best: event.best,
          common: this.#chain.has(event.best.hash) ? event.best.number : undefined,
          search: undefined,
          forked: false,
          busy: false,
          restUntil: 0,
          doubtful: false,
          silent: 0,
        });
        this.#wantNear(event.peer, event.best);
        return;
      case 'disconnected':
        this.#forget(event.peer);
        return;
      case 'announced':
        this.#announced(event.peer, event.block, event.isBest);
        return;
      case 'arriving':
        this.#arriving.add(toHex(event.hash));
        return;
      case 'arrived':
        this.#arriving.delete(toHex(event.hash));
        return;
      case 'want':
        this.#want(event.peer, event.block);
        return;
      case 'behind':
        this.#claimed(event.peer, event.finalized);
        return;
      case 'response':
        this.#response(event.id, event.blocks);
        return;
      case 'failed':
        this.#failed(event.id, event.reason);
        return;
      case 'imported':
        this.#imported(event.id, event.taken, event.result);
        return;
      case 'tick':
        this.#expire();
        return;
    }
  }

  #forget(id: PeerId): void {
    this.#peers.delete(id);
    for (const [request, asked] of this.#asked) {
      if (asked.peer !== id) continue;
      this.#asked.delete(request);
      this.#giveBack(asked);
    }
    for (const [key, wanted] of this.#wanted) {
      wanted.peers.delete(id);
      if (wanted.peers.size === 0) this.#wanted.delete(key);
    }
    this.#behind.delete(id);
  }

  #giveBack({ peer, task }: Asked): void {
    if (task.type === 'range' && task.range.state === 'asked' && task.range.peer === peer) {
      task.range.state = 'wanted';
      task.range.peer = undefined;
    } else if (task.type === 'block') task.wanted.asked = false;
    else if (task.type === 'proofs') this.#asking--;
  }

  #announced(id: PeerId, block: BlockRef, isBest: boolean): void {
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    if (isBest || block.number > peer.best.number) peer.best = block;
    if (this.#chain.has(block.hash)) {
      if (isBest) peer.common = block.number;
      return;
    }
    this.#wantNear(id, block);
  }

  #wantNear(id: PeerId, block: BlockRef): void {
    if (block.number <= this.#chain.info().best.number + FAR) this.#want(id, block);
  }

  #want(id: PeerId, block: BlockRef): void {
    const { best, finalized } = this.#chain.info();
    if (!this.#peers.has(id) || block.number <= finalized.number || this.#chain.has(block.hash)) return;
    const key = toHex(block.hash);
    if (this.#arriving.has(key)) return;
    const known = this.#wanted.get(key);
    if (known !== undefined) {
      known.peers.add(id);
      return;
    }
    if (this.#wanted.size >= MAX_WANTED || this.#wantedOnlyOf(id) >= MAX_WANTED_BY_ONE) return;
    const depth = Math.min(MAX_ANCESTORS, Math.max(1, block.number - best.number));
    this.#wanted.set(key, { block, peers: new Set([id]), asked: false, depth, since: this.#now() });
  }

  #wantedOnlyOf(id: PeerId): number {
    let count = 0;
    for (const { peers } of this.#wanted.values()) if (peers.size === 1 && peers.has(id)) count++;
    return count;
  }

  #expire(): void {
    const now = this.#now();
    const { finalized } = this.#chain.info();
    for (const [key, { block, since, asked }] of this.#wanted) {
      const useless = block.number <= finalized.number || this.#chain.has(block.hash);
      if (useless || (!asked && now - since > WANTED_MS)) this.#wanted.delete(key);
    }
    const own = this.#chain.info().best.number;
    for (const [id, peer] of this.#peers) {
      if (peer.forked && this.#chain.has(peer.best.hash)) peer.forked = false;
      if (!peer.forked && peer.best.number > own) this.#wantNear(id, peer.best);
    }
  }

  #drop(peer: PeerId, reason: string): void {
    this.#effects.push({ type: 'drop', peer, reason });
  }

  #charge(peer: PeerId, cost: number, reason: string): void {
    this.#effects.push({ type: 'charge', peer, cost, reason });
  }

  #rest(id: PeerId): void {
    const peer = this.#peers.get(id);
    if (peer !== undefined) peer.restUntil = this.#now() + BACKOFF_MS;
  }

  /** Begins anew from what is known for certain. */
  #restart(): void {
    this.#ranges = this.#ranges.filter(({ state }) => state === 'importing');
    for (const peer of this.#peers.values()) {
      peer.common = undefined;
      peer.search = undefined;
    }
  }

  // ---- answers -----------------------------------------------------------------------------------------------

  #close(id: number): Asked | undefined {
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    const peer = asked && this.#peers.get(asked.peer);
    if (peer !== undefined) peer.busy = false;
    return asked;
  }

  #failed(id: number, reason: FailureReason): void {
    const asked = this.#close(id);
    if (asked === undefined) return;
    this.#giveBack(asked);
    this.#rest(asked.peer);
    const peer = this.#peers.get(asked.peer);
    if (peer !== undefined && reason !== 'closed') {
      peer.doubtful = true;
      peer.silent++;
    }
    const cost = { timeout: FEE.slowResponse, closed: FEE.refused, malformed: FEE.badResponse }[reason];
    this.#charge(asked.peer, cost, `a request for blocks failed: ${reason}`);
    if (asked.task.type === 'block') asked.task.wanted.peers.delete(asked.peer);
    if (asked.task.type === 'proofs') this.#disbelieve(asked.peer);
    if (peer?.silent === MAX_SILENT) this.#drop(asked.peer, 'it does not answer');
  }

  #response(id: number, blocks: readonly BlockData[]): void {
    const asked = this.#close(id);
    if (asked === undefined) return;
    const answering = this.#peers.get(asked.peer);
    if (answering !== undefined) answering.silent = 0;
    const flaw = flawOf(blocks, asked.request);
    if (flaw !== undefined) {
      this.#charge(asked.peer, FEE.badResponse, flaw);
      this.#giveBack(asked);
      this.#rest(asked.peer);
      return;
    }
    const { task } = asked;
    if (task.type === 'proofs') this.#asking--;
    switch (task.type) {
      case 'probe':
        this.#probed(asked.peer, task.number, blocks[0]);
        return;
      case 'range':
        this.#fill(asked.peer, task.range, blocks);
        return;
      case 'block':
        this.#found(asked.peer, task.key, task.wanted, blocks);
        return;
      case 'proofs':
        this.#proved(asked.peer, task.from, blocks);
        return;
    }
  }

  #probed(id: PeerId, number: number, block: BlockData | undefined): void {
    const peer = this.#peers.get(id);
    if (peer?.search === undefined) return;
    if (block === undefined) {
      this.#charge(id, FEE.refused, 'a block that it claimed to have was not sent');
      peer.search = undefined;
      peer.doubtful = true;
      this.#rest(id);
      return;
    }
    const { search } = peer;
    if (this.#chain.has(block.hash)) {
      search.low = Math.max(search.low, number);
      search.step = 0;
    } else {
      search.high = number - 1;
      search.step *= 2;
      if (number <= this.#chain.info().finalized.number) {
        this.#drop(id, 'its chain leaves out a block that is final here');
        return;
      }
    }
    if (search.low >= search.high) {
      peer.common = search.low;
      peer.search = undefined;
    }
  }

  #fill(id: PeerId, range: Range, blocks: readonly BlockData[]): void {
    if (!this.#ranges.includes(range)) return;
    if (blocks.length === 0) {
      range.state = 'wanted';
      const peer = this.#peers.get(id);
      const before = this.#chain.info().finalized;
      // Whatever it claimed: it does not have them.
      if (peer !== undefined) {
        peer.doubtful = true;
        if (peer.best.number >= range.start) peer.best = { ...before, number: range.start - 1 };
      }
      this.#charge(id, FEE.slowResponse, 'blocks that it claimed to have were not sent');
      this.#rest(id);
      return;
    }
    const at = this.#ranges.indexOf(range);
    const { start, askedAt } = range;
    const filled: Range = { start, count: blocks.length, state: 'ready', peer: id, askedAt, blocks };
    const rest = blocks.length < range.count ? newRange(start + blocks.length, range.count - blocks.length) : undefined;
    this.#ranges.splice(at, 1, filled);
    if (rest !== undefined) this.#ranges.splice(at + 1, 0, rest);
  }

  #found(id: PeerId, key: string, wanted: Wanted, blocks: readonly BlockData[]): void {
    wanted.asked = false;
    if (blocks.length === 0) {
      wanted.peers.delete(id);
      if (wanted.peers.size === 0) this.#wanted.delete(key);
      this.#charge(id, FEE.slowResponse, 'a block that it spoke of was not sent');
      return;
    }
    const unknown = blocks.filter(({ hash }) => !this.#chain.has(hash)).reverse();
    const first = unknown[0];
    if (first === undefined) {
      this.#wanted.delete(key);
      return;
    }
    if (this.#chain.has(first.header!.parentHash)) {
      this.#wanted.delete(key);
      this.#import(id, unknown, undefined);
    } else if (wanted.depth < MAX_ANCESTORS) {
      wanted.depth = Math.min(MAX_ANCESTORS, wanted.depth * 4);
    } else {
      // A long fork: it is followed by heights, from where it leaves this node's chain.
      this.#wanted.delete(key);
      const peer = this.#peers.get(id);
      if (peer !== undefined) {
        peer.common = undefined;
        peer.search = undefined;
        peer.forked = true;
      }
    }
  }

  #claimed(id: PeerId, finalized: number): void {
    const known = this.#behind.get(id);
    const own = this.#chain.info().finalized.number;
    if (!this.#peers.has(id) || finalized <= own || (known !== undefined && known.notBefore > this.#now())) return;
    if (known === undefined) this.#behind.set(id, { finalized, from: own + 1, fruitless: 0, notBefore: 0 });
    else known.finalized = finalized;
  }

  /** What the peer says of its finality does not count for a while. */
  #disbelieve(id: PeerId): void {
    const claim = this.#behind.get(id);
    if (claim !== undefined) {
      claim.notBefore = this.#now() + DISBELIEF_MS;
      claim.from = this.#chain.info().finalized.number + 1;
      claim.fruitless = 0;
    }
  }

  #proved(id: PeerId, from: number, blocks: readonly BlockData[]): void {
    const claim = this.#behind.get(id);
    if (claim === undefined) return;
    let shown = false;
    for (const { hash, justifications } of blocks) {
      const proof = justifications?.find(([engine]) => equalBytes(engine, GRANDPA_ENGINE));
      if (proof !== undefined && this.#chain.has(hash)) {
        shown = true;
        this.#effects.push({ type: 'justify', peer: id, hash, proof: proof[1] });
      }
    }
    claim.from = from + blocks.length;
    claim.fruitless = shown ? 0 : claim.fruitless + 1;
    if (blocks.length === 0 || claim.fruitless >= MAX_FRUITLESS) this.#disbelieve(id);
  }

  // ---- importing ---------------------------------------------------------------------------------------------

  #import(peer: PeerId, blocks: readonly BlockData[], range: Range | undefined): void {
    const { hash, header } = blocks[blocks.length - 1]!;
    const id = this.#nextId++;
    const keys = blocks.map((each) => toHex(each.hash));
    for (const key of keys) this.#arriving.add(key);
    this.#importing.set(id, { peer, range, last: { hash, number: header!.number }, keys });
    this.#effects.push({ type: 'import', id, blocks });
  }

  #imported(id: number, taken: number, result: ImportResult | undefined): void {
    const importing = this.#importing.get(id);
    if (importing === undefined) return;
    this.#importing.delete(id);
    const { range, peer, keys } = importing;
    for (const key of keys) this.#arriving.delete(key);
    if (range !== undefined && taken > 0) this.#distance.progressed();
    this.#ranges = this.#ranges.filter((each) => each !== range);
    if (result === undefined) {
      const from = this.#peers.get(peer);
      if (from !== undefined) from.doubtful = false;
      if (from !== undefined && (from.common ?? -1) < importing.last.number) {
        from.common = importing.last.number;
        from.search = undefined;
        if (from.best.number < importing.last.number) from.best = importing.last;
      }
      return;
    }
    if (result.type === 'invalid') {
      this.#charge(peer, FEE.invalidBlock, `block ${taken + 1} of an import was invalid: ${result.reason}`);
    }
    if (range !== undefined) this.#restart();
    this.#rest(peer);
  }

  // ---- asking ------------------------------------------------------------------------------------------------

  #schedule(): void {
    this.#importNext();
    this.#trim();
    const now = this.#now();
    for (const [id, peer] of this.#peers) {
      if (peer.busy || peer.restUntil > now) continue;
      const task = this.#wantedFrom(id) ?? this.#proofsFrom(id) ?? this.#probe(peer) ?? this.#rangeFrom(peer);
      if (task !== undefined) this.#ask(id, peer, task);
    }
  }

  /** Ranges that nobody claims to have any more. */
  #trim(): void {
    const target = this.target() ?? 0;
    for (;;) {
      const last = this.#ranges.at(-1);
      if (last === undefined || last.state !== 'wanted' || last.start <= target) return;
      this.#ranges.pop();
      this.#cursor = last.start;
    }
  }

  #importNext(): void {
    const range = this.#ranges[0];
    if (range === undefined || range.state !== 'ready') return;
    const first = range.blocks[0]!;
    if (!this.#chain.has(first.header!.parentHash)) {
      // Peers on different forks filled the ranges: whoever is right shows when all are asked again.
      this.#restart();
      return;
    }
    range.state = 'importing';
    this.#import(range.peer!, range.blocks, range);
  }

  #ask(id: PeerId, peer: Peer, task: Task): void {
    const request = requestOf(task);
    peer.busy = true;
    if (task.type === 'range') {
      task.range.state = 'asked';
      task.range.peer = id;
      task.range.askedAt = this.#now();
    } else if (task.type === 'block') task.wanted.asked = true;
    else if (task.type === 'proofs') this.#asking++;
    const number = this.#nextId++;
    this.#asked.set(number, { peer: id, task, request });
    this.#effects.push({ type: 'request', id: number, peer: id, request });
  }

  #wantedFrom(id: PeerId): Task | undefined {
    for (const [key, wanted] of this.#wanted) {
      if (wanted.asked || !wanted.peers.has(id) || this.#arriving.has(key)) continue;
      if (this.#now() - wanted.since < GRACE_MS) continue;
      if (!this.#chain.has(wanted.block.hash)) return { type: 'block', key, wanted };
      this.#wanted.delete(key);
    }
    return undefined;
  }

  #proofsFrom(id: PeerId): Task | undefined {
    const claim = this.#behind.get(id);
    if (claim === undefined || claim.notBefore > this.#now() || this.#asking >= MAX_ASKING) return undefined;
    const { best, finalized } = this.#chain.info();
    claim.from = Math.max(claim.from, finalized.number + 1);
    // Proofs for blocks that are not here yet come with the blocks.
    if (claim.from > claim.finalized || claim.from > best.number) {
      this.#behind.delete(id);
      return undefined;
    }
    return { type: 'proofs', from: claim.from };
  }

  #probe(peer: Peer): Task | undefined {
    const { best, finalized } = this.#chain.info();
    if (peer.common !== undefined || !this.#isFar(peer)) return undefined;
    if (peer.search === undefined) {
      if (best.number === finalized.number && finalized.number === 0) {
        peer.common = 0;
        return undefined;
      }
      peer.search = { low: Math.max(0, finalized.number - 1), high: best.number, step: 1 };
      return { type: 'probe', number: best.number };
    }
    const { low, high, step } = peer.search;
    // Steps that double go down from the head, where forks are; halves close in once a common block is found.
    const number = step > 0 ? Math.max(low, high - step) : low + Math.ceil((high - low) / 2);
    return { type: 'probe', number };
  }

  /** Whether it takes ranges to follow the peer. */
  #isFar({ best, forked }: Peer): boolean {
    const own = this.#chain.info().best.number;
    return best.number > own + FAR || (forked && best.number > own);
  }

  #rangeFrom(peer: Peer): Task | undefined {
    const { common, best } = peer;
    if (common === undefined) return undefined;
    if (this.#ranges.length === 0) {
      if (!this.#isFar(peer)) return undefined;
      this.#base = common;
      this.#cursor = common + 1;
    }
    if (common < this.#base) return undefined;
    const open = this.#ranges.find(({ state, start }) => state === 'wanted' && start <= best.number);
    if (open !== undefined) return { type: 'range', range: open };
    const first = this.#ranges[0];
    if (first?.state === 'asked' && this.#now() - first.askedAt > LATE_MS && first.start <= best.number) {
      return { type: 'range', range: first };
    }
    if (this.#ranges.length >= MAX_RANGES || this.#cursor > best.number) return undefined;
    const count = Math.min(RANGE, best.number - this.#cursor + 1);
    const range = newRange(this.#cursor, count);
    this.#cursor += count;
    this.#ranges.push(range);
    return { type: 'range', range };
  }
}

const newRange = (start: number, count: number): Range => ({
  start,
  count,
  state: 'wanted',
  peer: undefined,
  askedAt: 0,
  blocks: [],
});
