/** One `chainHead_v1_follow`: what was told of the chain, and what is pinned because of it. */
import type { ChainEvent } from '../../../node/ports/chain.ts';
import { fromHex } from '../../../runtime/primitives/bytes.ts';
import type { Header } from '../../../runtime/primitives/header.ts';
import type { Hash, RuntimeVersion } from '../../../runtime/primitives/types.ts';
import { hexOf } from '../../server/hex.ts';
import type { Share } from '../../server/shares.ts';
import type { Subscription } from '../../server/subscription.ts';
import type { ChainView } from '../chain-view.ts';
import { Operations } from './operations.ts';

/** Finalized blocks that a new follower is told of. */
const INITIAL_FINALIZED = 16;

export interface FollowerLimits {
  /** Pinned blocks that are final or abandoned. */
  readonly settled: number;
  /** Pinned blocks in all: there are many more when finality lags. */
  readonly pinned: number;
  readonly operations: number;
  /** What the connection may pin of what all may. */
  readonly share?: Share | undefined;
}

const runtimeJson = (version: RuntimeVersion) => ({
  type: 'valid',
  spec: {
    specName: version.specName,
    implName: version.implName,
    specVersion: version.specVersion,
    implVersion: version.implVersion,
    transactionVersion: version.transactionVersion,
    apis: Object.fromEntries(version.apis.map(([id, number]) => [hexOf(id), number])),
  },
});

export class Follower {
  readonly withRuntime: boolean;
  readonly operations: Operations;
  readonly #view: ChainView;
  readonly #stream: Subscription;
  readonly #limits: FollowerLimits;
  readonly #pinned = new Set<string>();
  /** Blocks that were told of and are not final, by hash. */
  readonly #reported = new Set<string>();
  #finalized: string;
  #best: string;

  constructor(view: ChainView, stream: Subscription, withRuntime: boolean, limits: FollowerLimits) {
    this.#view = view;
    this.#stream = stream;
    this.#limits = limits;
    this.withRuntime = withRuntime;
    this.operations = new Operations(limits.operations);
    const { finalized } = view.client.blocks.info();
    this.#finalized = hexOf(finalized.hash);
    this.#best = this.#finalized;
  }

  isPinned(hash: Hash): boolean {
    return this.#pinned.has(hexOf(hash));
  }

  /** False if one of them is not pinned; then nothing changes. */
  unpin(hashes: readonly Hash[]): boolean {
    const names = hashes.map(hexOf);
    if (!names.every((name) => this.#pinned.has(name))) return false;
    for (const name of names) {
      this.#pinned.delete(name);
      this.#limits.share?.give(1);
      this.#view.client.holds.release(fromHex(name) as Hash);
    }
    return true;
  }

  /** False when no more may be pinned. */
  #pin(name: string): boolean {
    if (this.#limits.share?.take(1) === false) return false;
    this.#pinned.add(name);
    this.#view.client.holds.hold(fromHex(name) as Hash);
    return true;
  }

  /** Whether too many blocks are pinned that nobody needs any more, or one whose state has left the window. */
  #isOverfull(): boolean {
    const { states } = this.#view.client;
    let settled = 0;
    for (const name of this.#pinned) {
      if (this.#reported.has(name)) continue;
      // The oldest comes first.
      if (settled++ === 0 && states.at(fromHex(name) as Hash) === undefined) return true;
    }
    return settled > this.#limits.settled;
  }

  /** The state of things at the start. */
  begin(): void {
    const { blocks } = this.#view.client;
    const { best, finalized } = blocks.info();
    const hashes: string[] = [];
    for (let hash: Hash | undefined = finalized.hash; hash !== undefined && hashes.length < INITIAL_FINALIZED; ) {
      const header: Header | undefined = blocks.header(hash);
      if (header === undefined) break;
      // What is pinned can be read.
      if (hashes.length > 0 && this.#view.client.states.at(hash) === undefined) break;
      hashes.unshift(hexOf(hash));
      hash = header.number === 0 ? undefined : header.parentHash;
    }
    if (!hashes.every((hash) => this.#pin(hash))) {
      this.stop();
      return;
    }
    const runtime = this.withRuntime ? { finalizedBlockRuntime: runtimeJson(this.#view.version(finalized.hash)) } : {};
    this.#tell({ event: 'initialized', finalizedBlockHashes: hashes, ...runtime });
    for (const { hash, header } of this.#view.unfinalized()) this.#newBlock(hash, header);
    this.#bestChanged(hexOf(best.hash), true);
  }

  on(event: ChainEvent): void {
    if (this.#stream.closed) return;
    if (event.type === 'imported') {
      this.#newBlock(event.block.hash, event.header);
      if (event.isNewBest) this.#bestChanged(hexOf(event.block.hash));
      return;
    }
    const finalized = event.finalized.map(({ hash }) => hexOf(hash));
    const last = finalized.at(-1);
    if (last === undefined) return;
    if (!finalized.every((hash) => this.#reported.has(hash))) {
      this.stop();
      return;
    }
    this.#bestChanged(hexOf(this.#view.best()));
    for (const hash of finalized) this.#reported.delete(hash);
    const pruned = event.pruned.map(hexOf).filter((hash) => this.#reported.delete(hash));
    this.#finalized = last;
    this.#tell({ event: 'finalized', finalizedBlockHashes: finalized, prunedBlockHashes: pruned });
    if (this.#isOverfull()) this.stop();
  }

  #newBlock(hash: Hash, header: Header): void {
    const name = hexOf(hash);
    if (this.#stream.closed || this.#reported.has(name)) return;
    const parent = hexOf(header.parentHash);
    // A gap (as after a long synchronisation) cannot be told; the follower has to begin again.
    const gap = !this.#reported.has(parent) && parent !== this.#finalized;
    if (gap || this.#pinned.size >= this.#limits.pinned || !this.#pin(name)) {
      this.stop();
      return;
    }
    this.#reported.add(name);
    const updated = header.digest.logs.some(({ type }) => type === 'RuntimeEnvironmentUpdated');
    const runtime = this.withRuntime ? { newRuntime: updated ? runtimeJson(this.#view.version(hash)) : null } : {};
    this.#tell({ event: 'newBlock', blockHash: name, parentBlockHash: parent, ...runtime });
  }

  #bestChanged(best: string, first = false): void {
    if (this.#stream.closed || (best === this.#best && !first)) return;
    this.#best = best;
    this.#tell({ event: 'bestBlockChanged', bestBlockHash: best });
  }

  /** Tells that there will be nothing more. */
  stop(): void {
    this.#tell({ event: 'stop' });
    this.#stream.close();
  }

  #tell(event: unknown): void {
    this.#stream.notify(event);
  }

  tell(event: unknown): void {
    this.#tell(event);
  }

  end(): void {
    this.operations.stopAll();
    for (const name of this.#pinned) this.#view.client.holds.release(fromHex(name) as Hash);
    this.#limits.share?.give(this.#pinned.size);
    this.#pinned.clear();
    this.#reported.clear();
  }
}
