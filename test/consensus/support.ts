/** What the tests of consensus share: a chain of named blocks, and keys. */
import { ed25519 } from '@noble/curves/ed25519.js';
import { blake2b } from '@noble/hashes/blake2.js';
import { signingPayload, voterId } from '../../consensus/grandpa/messages.ts';
import type { ChainView, SetChange } from '../../consensus/grandpa/voter.ts';
import type { VoterSet } from '../../consensus/grandpa/voter-set.ts';
import type { BlockId, SignedVote, Target, VoteKind, VoterId } from '../../consensus/grandpa/votes.ts';
import type { Clock, Journal } from '../../node/ports/machine.ts';

export const GENESIS = 'genesis' as BlockId;

/** Blocks by name, the genesis at height 1, as in the public test suite of `finality-grandpa`. */
export class NamedChain implements ChainView {
  readonly #blocks = new Map<BlockId, { readonly number: number; readonly parent: BlockId | undefined }>();
  readonly #heads: BlockId[] = [GENESIS];
  readonly #changes = new Map<BlockId, VoterSet>();
  finalized: Target = { hash: GENESIS, number: 1 };

  constructor() {
    this.#blocks.set(GENESIS, { number: 1, parent: undefined });
  }

  push(parent: string, ...names: string[]): this {
    let below = parent as BlockId;
    for (const name of names as BlockId[]) {
      const at = this.#heads.indexOf(below);
      if (at >= 0) this.#heads.splice(at, 1);
      this.#blocks.set(name, { number: this.#blocks.get(below)!.number + 1, parent: below });
      this.#heads.push(name);
      below = name;
    }
    return this;
  }

  changeAt(name: string, voters: VoterSet): void {
    this.#changes.set(name as BlockId, voters);
  }

  at(name: string): Target {
    return { hash: name as BlockId, number: this.#blocks.get(name as BlockId)!.number };
  }

  has(block: Target): boolean {
    return this.#blocks.get(block.hash)?.number === block.number;
  }

  includes(base: Target, block: Target): boolean {
    return this.has(base) && (base.hash === block.hash || this.between(base, block) !== undefined);
  }

  between(base: Target, block: Target): readonly BlockId[] | undefined {
    const out: BlockId[] = [];
    let at = this.#blocks.get(block.hash)?.parent;
    for (; at !== undefined && at !== base.hash; at = this.#blocks.get(at)!.parent) out.push(at);
    return at === undefined ? undefined : out;
  }

  target(base: Target): Target | undefined {
    if (!this.has(base)) return undefined;
    let best = base;
    for (const hash of this.#heads) {
      const head = this.at(hash);
      if (head.number > best.number && this.includes(base, head)) best = head;
    }
    const [change] = this.changes(this.finalized, best);
    return change !== undefined && change.at.number >= base.number ? change.at : best;
  }

  changes(base: Target, block: Target): readonly SetChange[] {
    const path = [block.hash, ...(this.between(base, block) ?? [])].reverse();
    return path.flatMap((hash) => {
      const voters = this.#changes.get(hash);
      return voters === undefined || hash === base.hash ? [] : [{ at: this.at(hash), voters }];
    });
  }
}

export const hashing = { blake2_256: (data: Uint8Array): Uint8Array => blake2b(data, { dkLen: 32 }) };
export const signatures = {
  verifyEd25519(signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array): boolean {
    try {
      return ed25519.verify(signature, message, publicKey);
    } catch {
      return false;
    }
  },
};

export interface TestKey {
  readonly id: VoterId;
  readonly publicKey: Uint8Array;
  sign(message: Uint8Array): Uint8Array;
  vote<K extends VoteKind>(kind: K, target: Target, round: number, setId: number): SignedVote & { readonly kind: K };
}

export function testKey(name: string): TestKey {
  const secret = blake2b(new TextEncoder().encode(name), { dkLen: 32 });
  const publicKey = ed25519.getPublicKey(secret);
  const sign = (message: Uint8Array): Uint8Array => ed25519.sign(message, secret);
  const id = voterId(publicKey);
  return {
    id,
    publicKey,
    sign,
    vote: (kind, target, round, setId) => ({
      kind,
      target,
      voter: id,
      signature: sign(signingPayload(kind, target, round, setId)),
    }),
  };
}

/** mulberry32. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** A clock that stands still until told; `advance` lets everything that became due happen, promises included. */
export class ManualClock implements Clock {
  #now: number;
  readonly #timers = new Set<{ readonly at: number; readonly run: () => void }>();

  constructor(now: number) {
    this.#now = now;
  }

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  after(ms: number, run: () => void): () => void {
    const timer = { at: this.#now + ms, run };
    this.#timers.add(timer);
    return () => this.#timers.delete(timer);
  }

  get pending(): number {
    return this.#timers.size;
  }

  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      await settled();
      const [next] = [...this.#timers].filter((each) => each.at <= end).sort((a, b) => a.at - b.at);
      if (next === undefined) break;
      this.#timers.delete(next);
      this.#now = Math.max(this.#now, next.at);
      next.run();
    }
    this.#now = end;
    await settled();
  }
}

/** Long enough for every promise that waits on nothing but promises. */
export const settled = (): Promise<void> =>
  new Promise((resolve) => {
    setImmediate(() => setImmediate(resolve));
  });

export class MemoryJournal implements Journal {
  readonly entries = new Map<string, Uint8Array>();
  /** Makes writes fail, as a full disk does. */
  broken = false;
  onPut: (key: string) => void = () => {};

  async get(key: string): Promise<Uint8Array | undefined> {
    return this.entries.get(key);
  }

  async put(key: string, value: Uint8Array): Promise<void> {
    await Promise.resolve();
    if (this.broken) throw new Error('ENOSPC: no space left on device');
    this.entries.set(key, value);
    this.onPut(key);
  }
}
