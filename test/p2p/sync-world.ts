/**
 * The sync machine among simulated peers: a virtual clock, a chain that grows, and peers that are slow, forget, lie, follow
 * forks, make blocks up, come and go. Everything is decided by a seed.
 */
import { uniforms } from '../../gpu-worker/attribution/seeded.ts';
import type { BlockRef, ChainInfo, ImportResult } from '../../node/ports/chain.ts';
import type { BlockData, BlockRequest } from '../../p2p/protocols/sync.ts';
import { type ChainView, type SyncEffect, type SyncEvent, SyncMachine } from '../../p2p/sync/machine.ts';
import { toHex } from '../../runtime/primitives/bytes.ts';
import type { Header } from '../../runtime/primitives/header.ts';
import { asHash, type Hash } from '../../runtime/primitives/types.ts';

export interface FakeBlock {
  readonly ref: BlockRef;
  readonly header: Header;
  readonly parent: FakeBlock | undefined;
  /** Executing it fails. */
  readonly bad: boolean;
}

export type Behaviour =
  | 'honest'
  /** Answers, but often too late. */
  | 'slow'
  /** Claims heights that it has no blocks for. */
  | 'boasting'
  /** The same, and it answers nothing at all. */
  | 'silent'
  /** Has only the newer blocks. */
  | 'pruned'
  /** Follows a fork that others left. */
  | 'forking'
  /** Sends what was not asked for, or blocks that do not follow each other. */
  | 'garbling'
  /** Makes blocks that no one can execute. */
  | 'inventing';

export interface FakePeer {
  readonly id: string;
  readonly behaviour: Behaviour;
  head: FakeBlock;
  connected: boolean;
  dropped: boolean;
  cost: number;
  asked: number;
}

let serial = 0;
export function makeBlock(parent: FakeBlock | undefined, bad = false): FakeBlock {
  const bytes = new Uint8Array(32);
  new DataView(bytes.buffer).setUint32(0, ++serial);
  const number = (parent?.ref.number ?? -1) + 1;
  const header = { parentHash: parent?.ref.hash ?? asHash(new Uint8Array(32)), number } as Header;
  return { ref: { hash: asHash(bytes), number }, header, parent, bad };
}

export function makeChain(from: FakeBlock, count: number, bad: (i: number) => boolean = () => false): FakeBlock {
  let at = from;
  for (let i = 0; i < count; i++) at = makeBlock(at, bad(i));
  return at;
}

const ancestor = (block: FakeBlock, number: number): FakeBlock | undefined => {
  let at: FakeBlock | undefined = block;
  while (at !== undefined && at.ref.number > number) at = at.parent;
  return at?.ref.number === number ? at : undefined;
};

/** A chain that imports what it is given, in order. */
export class FakeChain implements ChainView {
  readonly known = new Map<string, FakeBlock>();
  best: FakeBlock;
  finalized: FakeBlock;
  readonly genesis: FakeBlock;
  imported = 0;
  /** What slots allow. */
  limit = Number.POSITIVE_INFINITY;

  constructor(genesis: FakeBlock, head: FakeBlock) {
    this.genesis = genesis;
    this.finalized = genesis;
    this.best = head;
    for (let at: FakeBlock | undefined = head; at !== undefined; at = at.parent) this.known.set(toHex(at.ref.hash), at);
  }

  info(): ChainInfo {
    return { genesisHash: this.genesis.ref.hash, best: this.best.ref, finalized: this.finalized.ref };
  }

  hashOf(number: number): Hash | undefined {
    return ancestor(this.best, number)?.ref.hash;
  }

  has(hash: Hash): boolean {
    return this.known.has(toHex(hash));
  }

  reachable(): number {
    return this.limit;
  }

  import(block: FakeBlock): ImportResult {
    if (this.has(block.ref.hash)) return { type: 'known' };
    if (block.parent === undefined || !this.has(block.parent.ref.hash)) return { type: 'unknownParent' };
    if (block.bad) return { type: 'invalid', reason: 'it cannot be executed' };
    if (ancestor(block, this.finalized.ref.number) !== this.finalized) {
      return { type: 'abandoned' };
    }
    this.known.set(toHex(block.ref.hash), block);
    this.imported++;
    const isNewBest = block.ref.number > this.best.ref.number;
    if (isNewBest) this.best = block;
    return { type: 'imported', isNewBest };
  }
}

export interface WorldOptions {
  readonly seed: bigint;
  readonly behaviours: readonly Behaviour[];
  /** Blocks of the chain at the start, and how many this node has. */
  readonly blocks: number;
  readonly own: number;
  /** Peers leave and return. */
  readonly churn: boolean;
  readonly growth: boolean;
}

const TIMEOUT_MS = 20_000;
const LIMIT = 1_000;

export class SyncWorld {
  readonly chain: FakeChain;
  readonly peers: FakePeer[] = [];
  readonly machine: SyncMachine;
  head: FakeBlock;
  now = 0;
  outstanding = 0;
  mostOutstanding = 0;
  /** What must never happen and did. */
  fault: string | undefined;
  readonly #options: WorldOptions;
  readonly #next: () => number;
  readonly #agenda: { at: number; order: number; run: () => void }[] = [];
  readonly #blocks = new Map<string, FakeBlock>();
  readonly #busy = new Map<string, number>();
  #order = 0;

  constructor(options: WorldOptions) {
    this.#options = options;
    this.#next = uniforms(options.seed);
    const genesis = makeBlock(undefined);
    this.head = makeChain(genesis, options.blocks);
    this.chain = new FakeChain(genesis, ancestor(this.head, options.own)!);
    this.chain.finalized = ancestor(this.head, Math.max(0, options.own - 3))!;
    this.machine = new SyncMachine(this.chain, () => this.now);
    for (const [i, behaviour] of options.behaviours.entries()) this.peers.push(this.#peer(`p${i}`, behaviour));
    this.#every(250, () => this.step({ type: 'tick' }));
    if (options.growth) this.#every(3_000, () => this.#grow());
    if (options.churn) this.#every(5_000, () => this.#churn());
    for (const peer of this.peers) this.#at(this.#next() * 2_000, () => this.#connect(peer));
  }

  #peer(id: string, behaviour: Behaviour): FakePeer {
    const { blocks, own } = this.#options;
    const fork = ancestor(this.head, Math.max(0, Math.floor(own + this.#next() * (blocks - own)) - 1))!;
    const head =
      behaviour === 'forking'
        ? makeChain(fork, 1 + Math.floor(this.#next() * Math.max(1, blocks - fork.ref.number)) - 1)
        : behaviour === 'inventing'
          ? makeChain(fork, blocks - fork.ref.number + 40, (i) => i > 2 && this.#next() < 0.2)
          : this.head;
    return { id, behaviour, head, connected: false, dropped: false, cost: 0, asked: 0 };
  }

  #at(inMs: number, run: () => void): void {
    this.#agenda.push({ at: this.now + inMs, order: this.#order++, run });
  }

  #every(ms: number, run: () => void): void {
    const again = (): void => {
      run();
      this.#at(ms, again);
    };
    this.#at(ms, again);
  }

  /** Runs for so long, or until the condition holds. Says whether it does. */
  run(ms: number, until: () => boolean): boolean {
    const end = this.now + ms;
    while (this.fault === undefined && !until()) {
      let first = 0;
      for (let i = 1; i < this.#agenda.length; i++) {
        const [a, b] = [this.#agenda[i]!, this.#agenda[first]!];
        if (a.at < b.at || (a.at === b.at && a.order < b.order)) first = i;
      }
      const job = this.#agenda[first];
      if (job === undefined || job.at > end) {
        this.now = end;
        return until();
      }
      this.#agenda.splice(first, 1);
      this.now = job.at;
      job.run();
    }
    return this.fault === undefined && until();
  }

  #claims(peer: FakePeer): BlockRef {
    if (peer.behaviour !== 'boasting' && peer.behaviour !== 'silent') return peer.head.ref;
    return { hash: asHash(new Uint8Array(32).fill(0xee)), number: this.head.ref.number + 5_000 };
  }

  #connect(peer: FakePeer): void {
    if (peer.connected || peer.dropped || peer.cost >= LIMIT) return;
    peer.connected = true;
    this.step({ type: 'connected', peer: peer.id, best: this.#claims(peer) });
  }

  /** Whoever claims heights that it has no blocks for says so again, and comes back when it was left. */
  boast(): void {
    for (const peer of this.peers) {
      if (peer.behaviour !== 'boasting' && peer.behaviour !== 'silent') continue;
      if (peer.cost >= LIMIT) continue;
      peer.dropped = false;
      if (!peer.connected) this.#connect(peer);
      else this.step({ type: 'announced', peer: peer.id, block: this.#claims(peer), isBest: true });
    }
  }

  #disconnect(peer: FakePeer): void {
    if (!peer.connected) return;
    peer.connected = false;
    this.#busy.delete(peer.id);
    this.step({ type: 'disconnected', peer: peer.id });
  }

  #churn(): void {
    const peer = this.peers[Math.floor(this.#next() * this.peers.length)]!;
    if (peer.connected && this.#next() < 0.5) this.#disconnect(peer);
    else this.#connect(peer);
  }

  #grow(): void {
    const former = this.head;
    this.head = makeBlock(this.head);
    for (const peer of this.peers) {
      if (peer.head !== former) continue;
      peer.head = this.head;
      if (!peer.connected) continue;
      const block = this.head.ref;
      this.#at(this.#next() * 500, () => {
        if (peer.connected) this.step({ type: 'announced', peer: peer.id, block, isBest: true });
      });
    }
  }

  step(event: SyncEvent): void {
    for (const effect of this.machine.step(event)) this.#perform(effect);
  }

  #perform(effect: SyncEffect): void {
    switch (effect.type) {
      case 'request':
        this.#request(effect);
        return;
      case 'import':
        this.#import(effect.id, effect.blocks);
        return;
      case 'justify':
        return;
      case 'charge': {
        const peer = this.peers.find(({ id }) => id === effect.peer)!;
        peer.cost += effect.cost;
        if (peer.behaviour === 'honest' && effect.cost >= 300) this.fault = `an honest peer pays: ${effect.reason}`;
        if (peer.cost >= LIMIT) this.#at(0, () => this.#disconnect(peer));
        return;
      }
      case 'drop': {
        const peer = this.peers.find(({ id }) => id === effect.peer)!;
        if (peer.behaviour === 'honest') this.fault = `an honest peer is left: ${effect.reason}`;
        peer.dropped = true;
        this.#at(0, () => this.#disconnect(peer));
        return;
      }
    }
  }

  #request({ id, peer: name, request }: Extract<SyncEffect, { type: 'request' }>): void {
    const peer = this.peers.find((each) => each.id === name)!;
    if (!peer.connected) this.fault = 'a peer that is gone is asked';
    if (this.#busy.has(name)) this.fault = 'a peer is asked twice at a time';
    this.#busy.set(name, id);
    peer.asked++;
    this.outstanding++;
    this.mostOutstanding = Math.max(this.mostOutstanding, this.outstanding);
    const late = peer.behaviour === 'silent' || (peer.behaviour === 'slow' && this.#next() < 0.5);
    const delay = late ? TIMEOUT_MS : 20 + this.#next() * (peer.behaviour === 'slow' ? 8_000 : 200);
    this.#at(delay, () => {
      this.outstanding--;
      if (this.#busy.get(name) !== id) return;
      this.#busy.delete(name);
      if (late) this.step({ type: 'failed', id, reason: 'timeout' });
      else this.step({ type: 'response', id, blocks: this.#answer(peer, request) });
    });
  }

  #answer(peer: FakePeer, { from, direction, fields, max }: BlockRequest): readonly BlockData[] {
    const found: FakeBlock[] = [];
    const start = from.type === 'hash' ? this.#find(peer, from.hash) : ancestor(peer.head, from.number);
    const limit = this.#next() < 0.1 ? Math.ceil(max / 2) : max;
    for (let at = start; at !== undefined && found.length < limit; ) {
      if (peer.behaviour === 'pruned' && at.ref.number < this.head.ref.number - 60) break;
      found.push(at);
      at = direction === 'descending' ? at.parent : ancestor(peer.head, at.ref.number + 1);
    }
    for (const each of found) this.#blocks.set(toHex(each.ref.hash), each);
    const blocks = found.map(
      ({ ref, header }): BlockData => ({
        hash: ref.hash,
        header,
        body: fields.body ? [] : undefined,
        justifications: undefined,
      }),
    );
    if (peer.behaviour !== 'garbling' || blocks.length === 0) return blocks;
    switch (Math.floor(this.#next() * 4)) {
      case 0:
        return blocks.toReversed();
      case 1:
        return blocks.filter((_, i) => i % 2 === 0);
      case 2:
        return blocks.map((each) => ({ ...each, header: undefined }));
      default:
        return [...blocks, ...blocks];
    }
  }

  #find(peer: FakePeer, hash: Hash): FakeBlock | undefined {
    for (let at: FakeBlock | undefined = peer.head; at !== undefined; at = at.parent) {
      if (toHex(at.ref.hash) === toHex(hash)) return at;
    }
    return undefined;
  }

  /** One import after another, each block in a millisecond. */
  #import(id: number, blocks: readonly BlockData[]): void {
    this.#at(blocks.length, () => {
      let taken = 0;
      let result: ImportResult | undefined;
      for (const { hash } of blocks) {
        const imported = this.chain.import(this.#blocks.get(toHex(hash))!);
        if (imported.type !== 'imported' && imported.type !== 'known') {
          result = imported;
          break;
        }
        taken++;
      }
      // Finality follows the chain that most are on.
      const final = ancestor(this.head, Math.max(0, this.chain.best.ref.number - 8));
      if (final !== undefined && this.chain.has(final.ref.hash) && final.ref.number > this.chain.finalized.ref.number) {
        if (ancestor(this.chain.best, final.ref.number) === final) this.chain.finalized = final;
      }
      this.step({ type: 'imported', id, taken, result });
    });
  }
}
