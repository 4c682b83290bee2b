/** The voter's view of the node's blocks. Headers are read once; what a chain of them says is kept in a bounded cache. */
import { LRUCache } from 'lru-cache';
import type { Blocks } from '../../node/ports/chain.ts';
import type { Header } from '../../runtime/primitives/header.ts';
import type { Hash } from '../../runtime/primitives/types.ts';
import { announcesChange, changeIn, voterSetOf } from './authorities.ts';
import { blockId, idBytes } from './messages.ts';
import type { ChainView, SetChange } from './voter.ts';
import type { VoterSet } from './voter-set.ts';
import type { BlockId, Target } from './votes.ts';

interface Link {
  readonly number: number;
  readonly parent: BlockId;
  readonly voters: VoterSet | undefined;
}

const CACHED_LINKS = 4_096;

export class BlocksView implements ChainView {
  readonly #blocks: Blocks;
  readonly #links = new LRUCache<BlockId, Link>({ max: CACHED_LINKS });

  constructor(blocks: Blocks) {
    this.#blocks = blocks;
  }

  header(id: BlockId): Header | undefined {
    return this.#blocks.header(idBytes(id) as Hash);
  }

  #link(id: BlockId): Link | undefined {
    const cached = this.#links.get(id);
    if (cached !== undefined) return cached;
    const header = this.header(id);
    if (header === undefined) return undefined;
    const next = announcesChange(header.digest) ? changeIn(header) : undefined;
    const link: Link = {
      number: header.number,
      parent: blockId(header.parentHash),
      voters: next === undefined ? undefined : voterSetOf(next),
    };
    this.#links.set(id, link);
    return link;
  }

  /** Whether a block lies on the best chain. */
  #onBest(block: Target): boolean {
    const hash = this.#blocks.hashOf(block.number);
    return hash !== undefined && blockId(hash) === block.hash;
  }

  finalized(): Target {
    const { hash, number } = this.#blocks.info().finalized;
    return { hash: blockId(hash), number };
  }

  has(block: Target): boolean {
    return this.#link(block.hash)?.number === block.number;
  }

  includes(base: Target, block: Target): boolean {
    if (base.number > block.number || !this.has(base) || !this.has(block)) return false;
    if (base.number === block.number) return base.hash === block.hash;
    if (this.#onBest(block)) return this.#onBest(base);
    return this.between(base, block) !== undefined;
  }

  between(base: Target, block: Target): readonly BlockId[] | undefined {
    const first = this.#link(block.hash);
    if (first?.number !== block.number || block.number <= base.number) return undefined;
    const out: BlockId[] = [];
    let at = first.parent;
    for (let number = block.number - 1; number > base.number; number--) {
      out.push(at);
      const link = this.#link(at);
      if (link === undefined) return undefined;
      at = link.parent;
    }
    return at === base.hash ? out : undefined;
  }

  target(base: Target): Target | undefined {
    if (!this.has(base)) return undefined;
    const head = this.#bestAbove(base);
    const [change] = this.changes(this.finalized(), head);
    if (change === undefined || change.at.number >= head.number) return head;
    return change.at.number < base.number ? base : change.at;
  }

  #bestAbove(base: Target): Target {
    const { best } = this.#blocks.info();
    const head: Target = { hash: blockId(best.hash), number: best.number };
    if (this.includes(base, head)) return head;
    let highest = base;
    for (const hash of this.#blocks.leaves()) {
      const id = blockId(hash);
      const link = this.#link(id);
      if (link === undefined || link.number <= highest.number) continue;
      const leaf: Target = { hash: id, number: link.number };
      if (this.includes(base, leaf)) highest = leaf;
    }
    return highest;
  }

  changes(base: Target, block: Target): readonly SetChange[] {
    const out: SetChange[] = [];
    let at = block.hash;
    for (let number = block.number; number > base.number; number--) {
      const link = this.#link(at);
      if (link === undefined) break;
      if (link.voters !== undefined) out.push({ at: { hash: at, number }, voters: link.voters });
      at = link.parent;
    }
    return out.reverse();
  }
}
